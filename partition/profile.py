"""A profile: what one device measured about one bundle."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from splitpoint.codec import SplitpointError

PROFILE_SCHEMA = 1
PROFILE_AGAIN = "measure again with `splitpoint profile`"


class ProfileError(SplitpointError):
    """A profile is damaged, of another version, or of another bundle."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SegmentTime:
    """One segment, for one sample: median and 95th percentile of `samples` runs.

    `mj` is the energy in millijoules, None where no meter was read.
    """

    id: int
    ms: float
    p95_ms: float
    samples: int
    mj: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerTime:
    """One layer's part of its segment's median; `share` is of the whole model."""

    name: str
    op: str
    ms: float
    mj: float | None
    share: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """Times of every segment and layer on `device` in `runtime`, for the bundle `digest`.

    `emulated` says how the device was slowed down, empty for a real measurement.
    """

    device: str
    runtime: str
    threads: int
    date: str
    digest: str
    versions: Mapping[str, str]
    segments: tuple[SegmentTime, ...]
    layers: tuple[LayerTime, ...]
    energy_kind: str = "none"
    emulated: str = ""

    @property
    def total_ms(self) -> float:
        """All segments, one after the other."""
        return sum(segment.ms for segment in self.segments)

    def to_json(self) -> dict[str, Any]:
        """The file's form."""
        return {"schema": PROFILE_SCHEMA, **asdict(self)}

    def save(self, path: Path) -> None:
        """Writes the file whole or not at all; `ProfileError` when it cannot."""
        draft = path.with_name(f".{path.name}.{os.getpid()}")
        try:
            draft.write_text(json.dumps(self.to_json(), indent=1) + "\n", encoding="utf-8")
            draft.replace(path)
        except OSError as error:
            draft.unlink(missing_ok=True)
            raise ProfileError(f"cannot write {path} ({error.strerror})") from error


def load_profile(path: Path, digest: str = "") -> Profile:
    """Reads a profile; with `digest`, only one of that bundle.

    Raises `ProfileError`, saying what is wrong with the file.
    """
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        schema = record["schema"]
    except OSError as error:
        raise ProfileError(f"cannot read {path} ({error.strerror})", PROFILE_AGAIN) from error
    except (ValueError, KeyError, TypeError) as error:
        raise ProfileError(f"{path} is no profile ({error})", PROFILE_AGAIN) from error
    if schema != PROFILE_SCHEMA:
        raise ProfileError(
            f"{path} has profile schema {schema!r}, this splitpoint reads {PROFILE_SCHEMA}",
            PROFILE_AGAIN,
        )
    try:
        fields = {key: record[key] for key in Profile.__dataclass_fields__}
        fields["segments"] = tuple(SegmentTime(**segment) for segment in fields["segments"])
        fields["layers"] = tuple(LayerTime(**layer) for layer in fields["layers"])
        profile = Profile(**fields)
        good = all(s.ms >= 0 and s.p95_ms >= 0 for s in profile.segments)
    except (KeyError, TypeError) as error:
        raise ProfileError(f"{path} is damaged ({error})", PROFILE_AGAIN) from error
    if not good or not profile.segments:
        raise ProfileError(f"{path} is damaged (its times make no sense)", PROFILE_AGAIN)
    if digest and profile.digest != digest:
        raise ProfileError(
            f"{path} is of the bundle {profile.digest[:12]}, not {digest[:12]}", PROFILE_AGAIN
        )
    return profile
