"""What an ingest process is told before anything else: options, in a form that JSON carries."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ..access.security import Security
from ..options import StreamLimits

_PATHS = ("tls_cert", "tls_key", "client_ca", "tokens")


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    """It listens at `listen`, whose port is known, for messages of up to `most_frame_bytes`.

    `decoders` threads decode, for whom `max_decoding_bytes` may wait. `device` is what clients are
    told that the worker computes on; spans go to the collector at `traces`, "" for nowhere.
    """

    listen: str
    security: Security
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
        found = asdict(self)
        security = found["security"]
        found["security"] = {
            name: None if security[name] is None else str(security[name].resolve())
            for name in _PATHS
        } | {"insecure": security["insecure"]}
        return found

    @classmethod
    def from_json(cls, told: Mapping[str, Any]) -> Setup:
        """What `to_json` was called on."""
        given = dict(told)
        security = dict(given.pop("security"))
        paths = {name: Path(security[name]) if security[name] else None for name in _PATHS}
        return cls(
            security=Security(**paths, insecure=security["insecure"]),
            limits=StreamLimits(**given.pop("limits")),
            **given,
        )
