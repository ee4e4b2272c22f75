"""`compile`: from a torch model to a verified bundle on disk."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

from ..bundle.bundle import MANIFEST, Boundary, Bundle, Manifest, Segment, write_manifest
from ..bundle.bundle_file import File, describe_file
from ..bundle.graph import Cut
from ..bundle.model_kind import CLASSIFY, RAW_TASK, check_labels, task_of
from ..calibrate.calibrate import calibrate
from ..calibrate.inputs import Calibration, calibration_inputs
from ..calibrate.int8_segments import quantise_bundle
from ..capture.borrowed import borrowed
from ..capture.canonical import fold_batch_norms
from ..capture.capture import CapturedModel, capture
from ..cuts.choose import DEFAULT_BOUNDARIES
from ..errors import BundleError, SegmentError
from ..export.export import export_whole
from ..export.refusal import refused
from ..model_spec import ModelSpec
from ..progress import Progress, tell_nobody
from .example_inputs import with_usable_inputs
from .forecast import Forecast, Foresee, foresee_for_nobody
from .refused_codecs import refusals
from .separable_cuts import separable_cuts
from .stand_ins import stand_ins
from .user_answer import with_answer
from .verify import verified_error
from .write_segments import write_segments

# Segments compute what the whole computes; what differs is the order of float32 sums.
TOLERANCE = 1e-3


def compile_model(
    spec: ModelSpec,
    out: Path,
    *,
    boundaries: int = DEFAULT_BOUNDARIES,
    after: Sequence[str] = (),
    overwrite: bool = False,
    calibration: Calibration | None = None,
    progress: Progress = tell_nobody,
    foresee: Foresee = foresee_for_nobody,
) -> Bundle:
    """Writes the bundle of `spec` to the folder `out` and returns it.

    At most so many `boundaries` are chosen, unless the layers that they lie `after` are given. The
    folder appears complete or not at all. Before it does, every segment has run in torch and in
    onnxruntime and their chain was compared with the unsplit model. With `calibration` the
    transform codec gets its tables, every codec its measured ladder, and, if it says so, every
    segment an INT8 form. `foresee` is told of the long part before it begins. Raises
    `CaptureError` for a model that cannot be cut, `CalibrationError` for inputs that do not do,
    `BundleError` when `out` cannot be written.
    """
    if out.exists():
        if not overwrite:
            raise BundleError(f"{out} exists already", "give --overwrite or another --out")
        if not (out / MANIFEST).is_file():
            raise BundleError(f"{out} exists and is no bundle", "give another --out")
    with borrowed(spec.module):
        return _compile(
            with_usable_inputs(spec), out, boundaries, after, calibration, progress, foresee
        )


def _compile(
    spec: ModelSpec,
    out: Path,
    boundaries: int,
    after: Sequence[str],
    calibration: Calibration | None,
    progress: Progress,
    foresee: Foresee,
) -> Bundle:
    """See `compile_model`; the module is in eval mode."""
    start_s = time.perf_counter()
    steps = _Steps(progress)
    steps("capture the graph")
    model = capture(
        spec.module,
        spec.args,
        spec.kwargs,
        name_prefix=spec.layer_prefix,
        one_sample=spec.one_sample,
    )
    tensors = {spec.name: spec for spec in model.graph.cuts[-1].tensors}
    task = task_of(
        spec.task,
        model.output_names,
        tuple(tensors.values()),
        takes_photos=spec.picture is not None,
    )
    outputs = {name: tensors[tensor] for name, tensor in model.output_names.items()}
    task = with_answer(task, spec, outputs)
    head = task.open(
        outputs, None if spec.picture is None else (spec.picture.height_px, spec.picture.width_px)
    )
    classes = head.classes if head else None
    if task == CLASSIFY:
        classes = next(iter(outputs.values())).shape[1]
    check_labels(spec.labels, classes)
    spec = replace(spec, task=task)
    steps("choose boundaries")
    chosen = separable_cuts(model, spec, boundaries, after)
    foresee(
        Forecast.after(
            time.perf_counter() - start_s, model.graph.layers, boundaries=len(chosen), task=task
        )
    )
    cuts = [model.graph.cuts[i] for i in chosen]
    nodes = [model.cut_nodes[i] for i in chosen]
    fold_batch_norms(model.program, frozenset(node for crossing in nodes for node in crossing))
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        draft = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
    except OSError as error:
        raise BundleError(
            f"cannot write to {out.parent} ({error.strerror})", "give another --out"
        ) from error
    try:
        draft.chmod(0o755)
        (draft / "segments").mkdir()
        steps("export to ONNX")
        whole = export_whole(model, [node for crossing in nodes for node in crossing])
        steps("write the segments")
        write_segments(model, whole, cuts, nodes, draft / "segments")
        del whole
        steps("verify against the unsplit model")
        manifest = _manifest(model, spec, out.name.removesuffix(".split"), cuts, draft)
        manifest = _verified(manifest, draft, spec)
        if calibration is not None:
            manifest = _calibrated(manifest, draft, calibration, progress)
        bundle = write_manifest(draft, manifest)
        if out.exists():
            old = draft.with_name(f"{draft.name}.old")
            out.rename(old)
            draft.rename(out)
            shutil.rmtree(old)
        else:
            draft.rename(out)
        steps("done")
        return replace(bundle, folder=out)
    except OSError as error:
        raise BundleError(
            f"cannot write {out} ({error.strerror or error})",
            "make room there, or give another --out",
        ) from error
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _verified(manifest: Manifest, draft: Path, spec: ModelSpec) -> Manifest:
    left_out: dict[int, dict[str, str]] = defaultdict(dict)
    try:
        worst = verified_error(
            manifest,
            draft,
            spec,
            TOLERANCE,
            lambda b, values: left_out[b.id].update(refusals(b.tensors, values)),
        )
    except (BundleError, SegmentError) as error:
        raise refused(error, manifest, draft) from error
    return replace(
        manifest,
        stand_ins=stand_ins(manifest, draft, spec),
        max_relative_error=float(f"{worst:.2g}"),
        boundaries=tuple(replace(b, left_out=left_out[b.id]) for b in manifest.boundaries),
    )


def _calibrated(
    manifest: Manifest, draft: Path, calibration: Calibration, progress: Progress
) -> Manifest:
    given = calibration_inputs(manifest, calibration)
    boundaries = calibrate(
        Bundle(folder=draft, manifest=manifest, digest=""),
        given.inputs,
        device=torch.device("cuda" if torch.cuda.is_available() else "cpu"),
        labels=given.labels,
        progress=progress,
    )
    look = given.usual_look(manifest)
    manifest = replace(manifest, boundaries=boundaries, usual_look=look)
    added = [boundary.tables for boundary in boundaries if boundary.tables]
    if calibration.int8:
        segments, boundaries = quantise_bundle(
            Bundle(folder=draft, manifest=manifest, digest=""),
            given.inputs,
            labels=given.labels,
            progress=progress,
        )
        manifest = replace(manifest, segments=segments, boundaries=boundaries)
        added += [segment.int8 for segment in segments]
    files = {path: describe_file(draft / path) for path in added}
    return replace(manifest, files={**manifest.files, **files})


class _Steps:
    TOTAL = 5

    def __init__(self, progress: Progress) -> None:
        self._progress, self._done = progress, 0

    def __call__(self, what: str) -> None:
        self._progress(what, self._done, self.TOTAL)
        self._done += 1


def _manifest(
    model: CapturedModel, spec: ModelSpec, name: str, cuts: Sequence[Cut], folder: Path
) -> Manifest:
    ends = [cut.after for cut in cuts]
    layers = [
        replace(layer, segment=sum(end < index for end in ends) - 1)
        for index, layer in enumerate(model.graph.layers)
    ]
    if spec.labels:
        (folder / "labels.txt").write_text("\n".join(spec.labels) + "\n", encoding="utf-8")
    files: dict[str, File] = {
        path.relative_to(folder).as_posix(): describe_file(path)
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
    return Manifest(
        name=name,
        source=spec.source,
        weights=spec.weights if spec.weights in ("default", "none", "as built") else "file",
        layers=tuple(layers),
        boundaries=tuple(
            Boundary(
                id=index,
                after=layers[cut.after].name if cut.after >= 0 else None,
                tensors=cut.tensors,
            )
            for index, cut in enumerate(cuts)
        ),
        segments=tuple(
            Segment(
                program=f"segments/{index:02}.json",
                onnx=f"segments/{index:02}.onnx",
                weights=f"segments/{index:02}.safetensors",
                flops=sum(layer.flops or 0 for layer in layers if layer.segment == index),
            )
            for index in range(len(cuts) - 1)
        ),
        outputs=model.output_names,
        picture=spec.picture,
        task=spec.task or RAW_TASK,
        labels_file="labels.txt" if spec.labels else None,
        unsupported_ops=model.graph.unsupported_ops,
        max_relative_error=0.0,
        files=files,
    )
