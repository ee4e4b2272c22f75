"""Hands a segment's measured time to its layers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ..bundle.graph import Layer
from .profile import LayerTime, SegmentTime


def layer_times(
    layers: Sequence[Layer], segments: Sequence[SegmentTime], spent: Sequence[Mapping[str, float]]
) -> tuple[LayerTime, ...]:
    """Every layer's part; a segment's layers add up to its `ms`, and to its `mj` where known.

    `spent` is, for each segment, the milliseconds that the runtime recorded for a layer. Where a
    runtime fuses layers, its record stands under the last of them: the time is divided by FLOPs
    among that layer and the ones right before it that have no record of their own.
    """
    total_ms = sum(segment.ms for segment in segments) or 1.0
    result = []
    for segment, own in zip(segments, spent, strict=True):
        members = [layer for layer in layers if layer.segment == segment.id]
        raw = _divide(members, own)
        if not any(raw):  # nothing but renaming: the call itself is what was measured
            raw = [1.0] * len(members)
        parts = [ms / sum(raw) for ms in raw]
        result += [
            LayerTime(
                name=layer.name,
                op=layer.op,
                ms=part * segment.ms,
                mj=None if segment.mj is None else part * segment.mj,
                share=part * segment.ms / total_ms,
                output_shape=layer.output_shape,
                output_bytes=layer.output_bytes,
                flops=layer.flops,
                params=layer.params,
            )
            for layer, part in zip(members, parts, strict=True)
        ]
    return tuple(result)


def _divide(members: Sequence[Layer], own: Mapping[str, float]) -> list[float]:
    shares = [0.0] * len(members)
    group: list[int] = []
    for index, layer in enumerate(members):
        group.append(index)
        if layer.name not in own:
            continue
        work = [members[i].flops or 0 for i in group]
        for i, flops in zip(group, work, strict=True):
            part = flops / sum(work) if sum(work) else 1 / len(group)
            shares[i] += own[layer.name] * part
        group = []
    return shares
