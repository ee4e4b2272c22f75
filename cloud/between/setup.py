"""What an ingest process is told before anything else: options, in a form that JSON carries."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from ..access.security import Proofs
from ..options import StreamLimits


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    """It listens at `listen`, whose port is known, for messages of up to `most_frame_bytes`.

    `decoders` threads decode, for whom `max_decoding_bytes` may wait. `device` is what clients are
    told that the worker computes on; spans go to the collector at `traces`, "" for nowhere.
    """

    listen: str
    proofs: Proofs
    limits: StreamLimits
    most_frame_bytes: int
    reflection: bool
    device: str
    traces: str
    decoders: int
    max_decoding_bytes: int
    log_level: int

    def to_json(self) -> dict[str, Any]:
        """For `from_json`."""
        return asdict(self)

    @classmethod
    def from_json(cls, told: Mapping[str, Any]) -> Setup:
        """What `to_json` was called on."""
        given = dict(told)
        proofs = dict(given.pop("proofs"))
        for name in ("pair", "tokens"):
            proofs[name] = None if proofs[name] is None else tuple(proofs[name])
        return cls(
            proofs=Proofs(**proofs),
            limits=StreamLimits(**given.pop("limits")),
            **given,
        )
