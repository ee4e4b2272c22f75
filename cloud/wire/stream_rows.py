"""Open streams as they are shown to people."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from splitpoint.proto.printable import printable

from .stream import InferStream

MOST_STREAMS = 100  # that are told one by one


def stream_rows(streams: Iterable[InferStream]) -> list[dict[str, Any]]:
    """Of each its client, its model, and how many frames came, by where they were cut."""
    found = sorted(streams, key=lambda stream: stream.caller.share)
    return [_row(stream) for stream in found[:MOST_STREAMS]]


def _row(stream: InferStream) -> dict[str, Any]:
    cuts = stream.intake.cuts
    return {
        "client": printable(stream.caller.client.name),
        "model": printable(stream.model.bundle.manifest.name),
        "frames": sum(cuts.values()),
        "cuts": {str(boundary): count for boundary, count in sorted(cuts.items())},
    }
