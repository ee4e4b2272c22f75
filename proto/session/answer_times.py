"""The times that a worker gives with an answer, as far as they can be true; and what they leave
for the link."""

from __future__ import annotations

from dataclasses import dataclass

from .. import splitpoint_pb2 as pb


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """A reply, with the milliseconds from sending to it.

    The worker had the frame for `server_ms`, `queue_ms` of them in its queue. `left_ms` is what the
    frame's `bytes_up` took to leave the device once those before it had: the answer's time without
    the worker's and without the round trip of an empty message. It is negative where nobody can
    tell.
    """

    reply: pb.Reply
    answer_ms: float
    server_ms: float
    queue_ms: float
    bytes_up: int
    left_ms: float


class AnswerTimes:
    """Those of one stream. `round_trip_ms` is that of an empty message, the shortest seen."""

    def __init__(self) -> None:
        self.round_trip_ms = 0.0
        self._left_s = 0.0  # when the latest answered frame had left the device

    def answer(self, reply: pb.Reply, sent_s: float, now_s: float, nbytes: int) -> Answer:
        """The answer that came at `now_s` to a frame of `nbytes`, which was sent at `sent_s`."""
        answer_ms = 1e3 * (now_s - sent_s)
        server_ms, queue_ms = server_times(reply.times, answer_ms)
        link_ms, left_ms = answer_ms - server_ms, -1.0
        if link_ms > 0:  # or the worker claims to have had it before it was sent
            self.round_trip_ms = min(self.round_trip_ms, link_ms)
            left_s = sent_s + (link_ms - self.round_trip_ms) / 1e3
            left_ms = 1e3 * (left_s - max(sent_s, self._left_s))
            self._left_s = max(left_s, self._left_s)
        return Answer(
            reply=reply,
            answer_ms=answer_ms,
            server_ms=server_ms,
            queue_ms=queue_ms,
            bytes_up=nbytes,
            left_ms=left_ms,
        )


def server_times(times: pb.Times, answer_ms: float) -> tuple[float, float]:
    """How long the worker had a frame that was answered after `answer_ms`, and what of it queued.

    No part is longer than the whole, whatever the worker says: one wrong time would make the link
    look endlessly fast, or the worker endlessly slow.
    """
    server_ms = min(times.total_us / 1e3, answer_ms)
    return server_ms, min(times.queue_us / 1e3, server_ms)
