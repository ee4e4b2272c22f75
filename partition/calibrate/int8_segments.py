"""All segments of a bundle in INT8, and what they do to its answers.

Each input is judged with segments whose ranges were taken from the other half of the inputs. What
ships has ranges from all of them.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from ..bundle.bundle import Boundary, Bundle, Segment
from ..progress import Progress, tell_nobody
from ..run.onnx_chain import OnnxChain
from ..run.onnx_segment import OnnxSegment
from .judge import InputList, Judge
from .quantise import quantise_segment

FOLDS = 2


def quantise_bundle(
    bundle: Bundle,
    inputs: InputList,
    *,
    labels: Sequence[int] = (),
    progress: Progress = tell_nobody,
) -> tuple[tuple[Segment, ...], tuple[Boundary, ...]]:
    """Segments with INT8 files, which are written, and boundaries with what was judged of them.

    `inputs` are of one sample each, tensors of boundary 0 by name, `labels` their right classes, if
    known.
    """
    manifest = bundle.manifest
    exact = OnnxChain(bundle)
    for index in range(len(exact)):
        exact.load(index)
    judge = Judge(manifest, exact, inputs, labels)
    states = [dict(given) for given in inputs]  # exact, up to the present boundary
    coarse = [dict(given) for given in inputs]  # the same in INT8
    segments: list[Segment] = []
    boundaries = [manifest.boundaries[0]]
    for index, segment in enumerate(manifest.segments):
        progress(f"segment {index} in INT8", index, len(exact))
        source = bundle.path(segment.onnx)
        name = segment.onnx.removesuffix(".onnx") + ".int8.onnx"
        quantise_segment(source, bundle.path(name), states)
        segments.append(replace(segment, int8=name))
        with tempfile.TemporaryDirectory() as folder:
            for fold in range(FOLDS):
                path = Path(folder) / f"{fold}.onnx"
                others = [state for i, state in enumerate(states) if i % FOLDS != fold]
                quantise_segment(source, path, others)
                runs = OnnxSegment(path)
                for state in coarse[fold::FOLDS]:
                    state.update(runs(state))
        boundary = manifest.boundaries[index + 1]
        names = [spec.name for spec in boundary.tensors]
        for number, state in enumerate(states):
            state.update(exact.step(index, state))
            states[number] = {name: state[name] for name in names}
            coarse[number] = {name: coarse[number][name] for name in names}
        values = {name: [state[name] for state in coarse] for name in names}
        boundaries.append(replace(boundary, int8=judge.runtime_level(boundary, values)))
    return tuple(segments), tuple(boundaries)
