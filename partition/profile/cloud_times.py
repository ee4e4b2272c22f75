"""What the worker takes for one sample, as the planner and the worker itself reckon with it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from .profile import Profile


@dataclass(frozen=True, slots=True, kw_only=True)
class CloudTimes:
    """The worker's times for one sample: a segment, and decoding a codec's payloads at a boundary.

    Where `decode_ms` has no entry, the device's own decoding time is taken for it.
    """

    segment_ms: tuple[float, ...]
    segment_p95_ms: tuple[float, ...] = ()
    decode_ms: Mapping[tuple[int, str], float] = field(default_factory=dict)

    @classmethod
    def from_profile(cls, profile: Profile) -> CloudTimes:
        """The times of a profile that was measured on the worker's machine."""
        return cls(
            segment_ms=tuple(segment.ms for segment in profile.segments),
            segment_p95_ms=tuple(segment.p95_ms for segment in profile.segments),
            decode_ms={(c.boundary, c.codec): c.decode_ms for c in profile.codecs},
        )
