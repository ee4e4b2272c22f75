"""Calibration: the transform codec's tables for a bundle, and every codec's measured ladder.

Unlabelled inputs are enough. Each input is judged with tables that were made without it: there is a
set of tables for every fold of the inputs, made from the other folds. What ships is made from all.
The matrices of the axes alone (axis_klt.py), which have few entries and many samples, are the same
for all folds.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch
from splitpoint.codec import TensorSpec, codecs_for
from splitpoint.codec.codec_set import FKT, NO_TABLES
from splitpoint.codec.fkt.grid import Grid

from ..bundle.bundle import Boundary, Bundle
from ..bundle.codec_tables import save_tables
from ..bundle.ladder import CodecLevel
from ..errors import CalibrationError
from ..progress import Progress, tell_nobody
from ..run.chain import SegmentChain
from ..run.onnx_chain import OnnxChain
from ..run.torch_chain import TorchChain
from .axis_klt import AxisMoments, axes_of
from .fisher import Weigh, gradients
from .fkt_ladder import FOLDS, TableFit, fitted_ladder, rows_of, usual_losses
from .fkt_transform import Blocks, Moments
from .judge import InputList, Judge

PROJECTIONS, AXIS_PROJECTIONS = 6, 1  # gradients of each input, for channels and for axes
# Maps of more values than this (all boundaries together) have many more positions to learn from in
# every input, and gradients that take as much longer: there are fewer of them.
FEW_VALUES = 2_000_000
MIN_PROJECTIONS, MIN_AXIS_INPUTS = 2, 24
MIN_INPUTS, MAX_INPUTS = 8, 500
# Image codecs at several qualities, so that what a split competes with is known as well as itself.
IMAGE_LADDER = {
    "jpeg": ("jpeg@75", "jpeg@85", "jpeg", "jpeg@95"),
    "webp": ("webp@80", "webp", "webp@95", "webp@98"),
}
_LOSSLESS = ("raw", "png")


def calibrate(
    bundle: Bundle,
    inputs: InputList,
    *,
    device: torch.device,
    labels: Sequence[int] = (),
    progress: Progress = tell_nobody,
) -> tuple[Boundary, ...]:
    """The bundle's boundaries with tables and ladders; the tables' files are written beside it.

    `inputs` are of one sample each, tensors of boundary 0 by name, `labels` their right classes, if
    known. Raises `CalibrationError` for too few of them.
    """
    if len(inputs) < MIN_INPUTS:
        raise CalibrationError(
            f"{len(inputs)} inputs are too few to calibrate with",
            f"give at least {MIN_INPUTS}, better a hundred",
        )
    chain = TorchChain(bundle, device)
    for index in range(len(chain)):
        chain.load(index)
    judging = _judging(bundle, chain, device)
    manifest = bundle.manifest
    rungs = [_rungs(boundary) for boundary in manifest.boundaries[:-1]]
    share = _share(_specs(bundle))
    few = inputs[:: len(inputs) // min(max(int(share * len(inputs)), MIN_AXIS_INPUTS), len(inputs))]
    levels = [_levels(boundary) for boundary in manifest.boundaries[:-1]]
    total = len(few) + len(inputs) + sum(map(len, rungs)) + sum(levels)
    done = 0

    def advance(what: str) -> None:
        nonlocal done
        done += 1
        progress(what, done, total)

    # One thread for each of onnxruntime's: what codecs do keeps no second one busy.
    threads = 1 if judging is chain else os.cpu_count() or 1
    judge = Judge(manifest, judging, inputs, labels, threads=threads)
    blocks = _blocks(bundle, chain, few, judge.weights, lambda: advance("where outputs look"))
    moments = _moments(
        bundle,
        chain,
        inputs,
        judge.weights,
        blocks,
        max(int(share * PROJECTIONS), MIN_PROJECTIONS),
        lambda: advance("sensitivity of every boundary"),
    )
    (bundle.folder / "codecs").mkdir(exist_ok=True)
    states = [judging.place(given) for given in inputs]
    boundaries: list[Boundary] = []
    for boundary, names, usual in zip(manifest.boundaries, rungs, levels, strict=False):
        values = {
            spec.name: [judging.fetch(state[spec.name]) for state in states]
            for spec in boundary.tensors
        }
        ladder: list[CodecLevel] = []
        for name in names:
            level = judge.level(boundary, name, [NO_TABLES], values)
            ladder += [level] if level is not None else []
            advance(f"boundary {boundary.id}: {name}")
        left = usual

        def judged(boundary: Boundary = boundary, usual: int = usual) -> None:
            nonlocal left
            if left:  # more than the usual levels are no news
                left -= 1
                advance(f"boundary {boundary.id}: {FKT}, {usual - left} of {usual} levels")

        own = {name: parts for (at, name), parts in moments.items() if at == boundary.id}
        fit = TableFit(boundary, {name: blocks[boundary.id, name] for name in own}, own, values)
        tables, rungs_of_fkt = fitted_ladder(boundary, fit, judge, values, judged)
        while left:
            judged()
        path = ""
        if tables:
            path = f"codecs/{boundary.id:02}.safetensors"
            save_tables([tables.get(spec.name) for spec in boundary.tensors], bundle.folder / path)
        boundaries.append(replace(boundary, tables=path, ladder=(*ladder, *rungs_of_fkt)))
        del values  # which may be gigabytes
        crossing = [spec.name for spec in manifest.boundaries[boundary.id + 1].tensors]
        for number, state in enumerate(states):
            reached = dict(state) | dict(judging.step(boundary.id, state))
            states[number] = {name: reached[name] for name in crossing}
    return (*boundaries, manifest.boundaries[-1])


def _judging(bundle: Bundle, chain: TorchChain, device: torch.device) -> SegmentChain:
    """What runs the model without gradients; on a CPU onnxruntime takes a third of torch's time."""
    if device.type != "cpu":
        return chain
    found = OnnxChain(bundle, threads=1)
    for index in range(len(found)):
        found.load(index)
    return found


def _rungs(boundary: Boundary) -> list[str]:
    """The codecs that need no tables and are measured at a boundary."""
    found: list[str] = []
    for name in codecs_for(boundary.tensors):
        if name not in _LOSSLESS:
            found += IMAGE_LADDER.get(name, (name,))
    return found


def _levels(boundary: Boundary) -> int:
    """How many levels of `fkt` are usually measured at a boundary."""
    if not boundary.id or all(spec.dtype != "float32" for spec in boundary.tensors):
        return 0
    return len(usual_losses(boundary))


Key = tuple[int, str]  # a boundary and a tensor there


def _blocks(
    bundle: Bundle,
    chain: TorchChain,
    inputs: InputList,
    weigh: Weigh,
    advance: Callable[[], None],
) -> dict[Key, Blocks]:
    """How tensors at inner boundaries are transformed, as far as their axes go.

    Those that hold NaN or infinity (an attention mask, say) are not: they have no moments.
    """
    specs = _specs(bundle)
    found: dict[Key, AxisMoments] = {}
    unfit: set[Key] = set()
    generator = torch.Generator().manual_seed(1)
    for given in inputs:
        seen = gradients(bundle.manifest, chain, given, weigh, generator, AXIS_PROJECTIONS)
        for key, (value, grads) in seen.items():
            if key in unfit or not np.isfinite(value).all():
                unfit.add(key)
                continue
            grid = Grid.of(specs[key])
            rows = rows_of(specs[key], [value])
            own = AxisMoments.of(grid, rows, rows_of(specs[key], list(grads)))
            if key in found:
                found[key].add(own)
            else:
                found[key] = own
        advance()
    return {
        key: Blocks.of(specs[key], axes_of(Grid.of(specs[key]), own))
        for key, own in found.items()
        if key not in unfit
    }


def _moments(
    bundle: Bundle,
    chain: TorchChain,
    inputs: InputList,
    weigh: Weigh,
    blocks: Mapping[Key, Blocks],
    projections: int,
    advance: Callable[[], None],
) -> dict[Key, list[Moments]]:
    """Of every tensor at every inner boundary, one for each fold."""
    specs = _specs(bundle)
    found: dict[Key, list[list[Moments]]] = {key: [[] for _ in range(FOLDS)] for key in blocks}
    generator = torch.Generator().manual_seed(0)
    for number, given in enumerate(inputs):
        seen = gradients(bundle.manifest, chain, given, weigh, generator, projections)
        for key in blocks:
            value, grads = seen[key]
            rows = rows_of(specs[key], [value])
            own = Moments.of(blocks[key], rows, rows_of(specs[key], list(grads)))
            fold = found[key][number % FOLDS]
            if fold:
                fold[0].add(own)
            else:
                fold.append(own)
        advance()
    return {key: [fold[0] for fold in folds] for key, folds in found.items()}


def _specs(bundle: Bundle) -> dict[Key, TensorSpec]:
    return {
        (boundary.id, spec.name): spec
        for boundary in bundle.manifest.boundaries
        for spec in boundary.tensors
    }


def _share(specs: Mapping[Key, TensorSpec]) -> float:
    """Of the usual number of gradients, how many are enough."""
    last = max(boundary for boundary, _ in specs)
    values = sum(math.prod(spec.shape) for (at, _), spec in specs.items() if 0 < at < last)
    return min(FEW_VALUES / max(values, 1), 1.0)
