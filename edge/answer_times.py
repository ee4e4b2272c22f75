"""The times that a worker gives with an answer, as far as they can be true."""

from __future__ import annotations

from splitpoint.proto import splitpoint_pb2 as pb


def server_times(times: pb.Times, answer_ms: float) -> tuple[float, float]:
    """How long the worker had a frame that was answered after `answer_ms`, and what of it queued.

    No part is longer than the whole, whatever the worker says: one wrong time would make the link
    look endlessly fast, or the worker endlessly slow.
    """
    server_ms = min(times.total_us / 1e3, answer_ms)
    return server_ms, min(times.queue_us / 1e3, server_ms)
