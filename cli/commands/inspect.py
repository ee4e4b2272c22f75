"""`splitpoint inspect`."""

from __future__ import annotations

import math
from dataclasses import asdict

from rich.table import Table
from rich.text import Text
from splitpoint.codec import TensorSpec, codecs_for
from splitpoint.codec.codec_set import CALIBRATED
from splitpoint.partition.bundle.answer_form import AnswerForm
from splitpoint.partition.bundle.bundle import Boundary, Manifest, open_bundle
from splitpoint.partition.bundle.ladder import DEFAULT_LIMIT, Judged
from splitpoint.partition.significant import significant
from splitpoint.proto.printable import printable

from ..shell.output import human_bytes, human_count, out, print_json
from ..shell.shared_options import BundleArgument, Json

_BAR_CELLS = 24


def inspect(
    bundle: BundleArgument,
    json_: Json = False,
) -> None:
    """Show a bundle's layers, boundaries, bytes, codecs, task and digest.

    The bar is what a cut after the layer would carry: short bars are the narrow places.
    """
    opened = open_bundle(bundle)
    manifest = opened.manifest
    if json_:
        print_json(_document(manifest, opened.digest))
        return
    out.print(layer_table(manifest))
    out.print(boundary_table(manifest))
    out.print(_task_words(manifest), soft_wrap=True)
    if manifest.boundaries[0].one_sample:
        out.print("takes one sample at a time: frames hold no batch, and workers form none")
    if any(boundary.ladder for boundary in manifest.boundaries):
        out.print(ladder_table(manifest))
        if manifest.boundaries[0].level("jpeg") is None:
            out.print(f"by default: {DEFAULT_LIMIT}", soft_wrap=True)
    if manifest.has_int8:
        out.print(int8_table(manifest))
    out.print(f"digest {opened.digest}", soft_wrap=True)


def _task_words(manifest: Manifest) -> str:
    """`task detect, head yolo: answers with detections float32 100x6`."""
    task, form = manifest.task, AnswerForm.of(manifest)
    if form.head is None:
        return f"task {task.kind}: the outputs are the answer"
    answer = ", ".join(
        f"{printable(spec.name)} {spec.dtype} "
        + ("x".join(map(str, spec.shape_without_batch)) or "(one)")
        for spec in form.specs
    )
    return f"task {task.kind}, head {task.head}: answers with {answer}"


def layer_table(manifest: Manifest) -> Table:
    """One row a layer, with a bar for the bytes that a cut there would carry."""
    table = Table(title=Text(f"{printable(manifest.name)}: layers"), title_justify="left")
    for column in ("layer", "op"):
        table.add_column(column, overflow="fold")
    for column in ("output", "FLOPs", "params", "crossing"):
        table.add_column(column, justify="right", no_wrap=True)
    table.add_column("", no_wrap=True)
    widest = max((layer.crossing_bytes or 0 for layer in manifest.layers), default=1) or 1
    starts = {boundary.after: boundary.id for boundary in manifest.boundaries}
    for layer in manifest.layers:
        crossing = layer.crossing_bytes
        cells = 0 if crossing is None else max(1, round(_BAR_CELLS * crossing / widest))
        boundary = starts.get(layer.name)
        table.add_row(
            layer.name,
            layer.op,
            "x".join(map(str, layer.output_shape)),
            human_count(layer.flops),
            human_count(layer.params) if layer.params else "",
            "-" if crossing is None else human_bytes(crossing),
            "█" * cells + (f" ◄ boundary {boundary}" if boundary is not None else ""),
            style="bold" if boundary is not None else "",
        )
    return table


def boundary_table(manifest: Manifest) -> Table:
    """One row a materialised boundary."""
    table = Table(title=Text(f"{printable(manifest.name)}: boundaries"), title_justify="left")
    table.add_column("id", justify="right")
    table.add_column("after", overflow="fold")
    table.add_column("tensors", overflow="fold")
    for column in ("raw bytes", "compute before"):
        table.add_column(column, justify="right", no_wrap=True)
    table.add_column("codecs", overflow="fold")
    total = sum(segment.flops for segment in manifest.segments) or 1
    done = 0
    for boundary in manifest.boundaries:
        shapes = ", ".join(
            f"{spec.dtype} {'x'.join(map(str, spec.shape_without_batch)) or '1'}"
            for spec in boundary.tensors
        )
        last = boundary.id == len(manifest.segments)
        table.add_row(
            str(boundary.id),
            boundary.after or "(the input)",
            shapes,
            human_bytes(boundary.nbytes),
            f"{100 * done / total:.0f} %",
            "(all on the device)" if last else _short(boundary),
        )
        if not last:
            done += manifest.segments[boundary.id].flops
    return table


def _short(boundary: Boundary) -> str:
    """Names of the codecs; of a ladder its ends; and what was left out, and why."""
    own = [name for name in codecs_for(boundary.tensors) if name not in boundary.left_out]
    families = [boundary.levels_of(family) for family in CALIBRATED]
    levels = [f"{found[0].codec} to {found[-1].codec}" for found in families if found]
    words = " ".join(own + levels)
    return "; ".join([words, *(f"no {name}: {why}" for name, why in boundary.left_out.items())])


def ladder_table(manifest: Manifest) -> Table:
    """One row a calibrated codec of every boundary."""
    counts = {level.judged for boundary in manifest.boundaries for level in boundary.ladder}
    others = " (those with another number beside them on so many)" * (len(counts) > 1)
    usual = next(iter(manifest.boundaries[0].ladder), None)
    first = max(counts) if usual is None else usual.judged
    table = Table(title=f"Calibrated on {first} inputs{others}", title_justify="left")
    table.add_column("boundary", justify="right")
    table.add_column("codec")
    for column in ("bytes", "p95", "bits/value", _drop_words(manifest), "loss", "worst error",
                   "enc ms", "dec ms"):  # fmt: skip
        table.add_column(column, justify="right")
    labelled = any(level.correct is not None for b in manifest.boundaries for level in b.ladder)
    if labelled:
        table.add_column("accuracy", justify="right")
    for boundary in manifest.boundaries:
        values = sum(math.prod(spec.shape) for spec in boundary.tensors)
        for level in boundary.ladder:
            row = [
                str(boundary.id),
                level.codec if level.judged == first else f"{level.codec} ({level.judged})",
                human_bytes(level.nbytes),
                human_bytes(level.p95_bytes),
                f"{8 * level.nbytes / values:.2f}",
                _drop(level),
                f"{level.loss:.4f}",
                _error(level),
                f"{level.encode_ms:.1f}",
                f"{level.decode_ms:.1f}",
            ]
            if labelled and level.correct is not None:
                row.append(f"{100 * level.correct / level.judged:.0f} %")
            table.add_row(*row)
    return table


def int8_table(manifest: Manifest) -> Table:
    """One row a boundary: what running everything before it in INT8 does to the answers."""
    table = Table(title="INT8 on the device up to the boundary", title_justify="left")
    for column in ("boundary", _drop_words(manifest), "loss", "worst error", "accuracy", "before"):
        table.add_column(column, justify="right")
    for boundary in manifest.boundaries:
        if boundary.int8 is not None:
            right = (boundary.int8.correct, boundary.int8.correct_before)
            table.add_row(
                str(boundary.id),
                _drop(boundary.int8),
                f"{boundary.int8.loss:.4f}",
                _error(boundary.int8),
                *("" if n is None else f"{100 * n / boundary.int8.judged:.0f} %" for n in right),
            )
    return table


def _drop_words(manifest: Manifest) -> str:
    """What a drop is of."""
    of_task = {"detect": "boxes' AP lost", "segment": "mean IoU lost"}
    return of_task.get(manifest.task.kind, "answers changed")


def _drop(level: Judged) -> str:
    """`3 % (1 to 8)`: see `Judged.drop`, and its interval."""
    if level.drop is None or level.drop_interval is None:
        return ""
    low, high = (100 * end for end in level.drop_interval)
    return f"{100 * level.drop:.0f} % ({low:.0f} to {high:.0f})"


def _error(level: Judged) -> str:
    return "" if level.worst_error is None else f"{significant(100 * level.worst_error, 2)} %"


def _tensor(spec: TensorSpec) -> dict[str, object]:
    return {"name": spec.name, "dtype": spec.dtype, "shape": list(spec.shape_without_batch)}


def _document(manifest: Manifest, digest: str) -> dict[str, object]:
    return {
        "name": manifest.name,
        "digest": digest,
        "layers": [
            {
                "name": layer.name,
                "op": layer.op,
                "output_shape": list(layer.output_shape),
                "flops": layer.flops,
                "params": layer.params,
                "output_bytes": layer.output_bytes,
                "crossing_bytes": layer.crossing_bytes,
                "segment": layer.segment,
            }
            for layer in manifest.layers
        ],
        "boundaries": [
            {
                "id": boundary.id,
                "after": boundary.after,
                "tensors": [_tensor(spec) for spec in boundary.tensors],
                "bytes": boundary.nbytes,
            }
            for boundary in manifest.boundaries
        ],
        "codecs": {str(boundary.id): boundary.codecs for boundary in manifest.boundaries[:-1]},
        "left_out": {
            str(boundary.id): dict(boundary.left_out)
            for boundary in manifest.boundaries
            if boundary.left_out
        },
        "ladders": {
            str(boundary.id): [level.to_json() for level in boundary.ladder]
            for boundary in manifest.boundaries[:-1]
        },
        "int8": {
            str(boundary.id): boundary.int8.to_json()
            for boundary in manifest.boundaries
            if boundary.int8 is not None
        },
        "outputs": dict(manifest.outputs),
        "task": manifest.task.to_json(),
        "answer": [_tensor(spec) for spec in AnswerForm.of(manifest).specs],
        "picture": manifest.picture and asdict(manifest.picture),
        "one_sample": manifest.boundaries[0].one_sample,
        "unsupported_ops": list(manifest.unsupported_ops),
    }
