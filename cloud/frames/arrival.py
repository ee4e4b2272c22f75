"""A client's message, from the moment it came to its answer."""

from __future__ import annotations

from dataclasses import dataclass

from ..compute.served_model import ServedModel
from ..figures import BoundaryFigures


@dataclass(slots=True, kw_only=True)
class Arrival:
    """Message number `index` of a stream. Times are seconds of `time.perf_counter`.

    `frame_id` is 0 and `at` counts for no boundary as long as it is not known to be a frame. It
    came at `arrived_s`, was found good at `read_s`, and then waited for a thread to decode it.
    """

    index: int
    arrived_s: float
    model: ServedModel
    at: BoundaryFigures
    frame_id: int = 0
    traceparent: str = ""
    read_s: float = 0.0
    decode_began_s: float = 0.0
    decoded_s: float = 0.0
    is_answered: bool = False
