"""A profile: what one device measured about one bundle."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from splitpoint.codec import SplitpointError

from ..kept_files import write_whole
from ..strict_json import to_json

PROFILE_SCHEMA = 2
PROFILE_AGAIN = "measure again with `splitpoint profile`"


class ProfileError(SplitpointError):
    """A profile is damaged, of another version, or of another bundle."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SegmentTime:
    """One segment, for one sample: median, 95th percentile and interquartile range of its runs.

    `memory_mb` is what loading and running it added to the process, `mj` its energy in
    millijoules; None where neither could be read. `batch_ms` is the median for each batch size
    that was measured, for the whole batch. The times of the last segment have the head in them:
    whoever runs it ends the frame.
    """

    id: int
    ms: float
    p95_ms: float
    samples: int
    spread_ms: float = 0.0
    memory_mb: float | None = None
    mj: float | None = None
    batch_ms: Mapping[int, float] = field(default_factory=dict)

    def longer(self, ms: float, mj: float = 0.0) -> SegmentTime:
        """The same with so much more for every sample."""
        return replace(
            self,
            ms=self.ms + ms,
            p95_ms=self.p95_ms + ms,
            mj=None if self.mj is None else self.mj + mj,
            batch_ms={batch: own + batch * ms for batch, own in self.batch_ms.items()},
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerTime:
    """One layer's part of its segment's median; `share` is of the whole model.

    The rest is the layer's own, for one sample: `flops` is None where no formula is known.
    """

    name: str
    op: str
    ms: float
    mj: float | None
    share: float
    output_shape: tuple[int, ...] = ()
    output_bytes: int = 0
    flops: int | None = None
    params: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class CodecTime:
    """One codec at one boundary, for one sample on this device, over `pictures` pictures.

    `nbytes` and `p95_bytes` are payload bytes.
    """

    boundary: int
    codec: str
    nbytes: float
    p95_bytes: float
    encode_ms: float
    decode_ms: float
    pictures: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """Times of every segment, layer and codec on `device` in `runtime`, for the bundle `digest`.

    `pictures` says what ran: photos, or synthetic ones. `base_mb` is the process before it loaded
    a segment. `busy_w` and `idle_w` are the board's power while it computes and while it waits,
    None where unknown. `cores` are those of the machine where the segments run on them, None on a
    GPU and where nobody wrote it down. `head_ms` is the part of the last segment's time that the
    head takes, and in no layer's. `notes` are what the system said of clocks and heat, and
    which codecs refused a sample. `emulated` and `modelled` say how the figures came about where
    they were not measured on this device.
    """

    device: str
    runtime: str
    threads: int
    date: str
    digest: str
    versions: Mapping[str, str]
    segments: tuple[SegmentTime, ...]
    layers: tuple[LayerTime, ...]
    codecs: tuple[CodecTime, ...] = ()
    pictures: str = ""
    base_mb: float | None = None
    energy_kind: str = "none"
    energy_meter: str = ""
    busy_w: float | None = None
    idle_w: float | None = None
    notes: tuple[str, ...] = ()
    emulated: str = ""
    modelled: str = ""
    cores: int | None = None
    head_ms: float = 0.0

    @property
    def total_ms(self) -> float:
        """All segments, one after the other."""
        return sum(segment.ms for segment in self.segments)

    def to_json(self) -> dict[str, Any]:
        """The file's form."""
        return {"schema": PROFILE_SCHEMA, **asdict(self)}

    def save(self, path: Path) -> None:
        """Writes the file whole or not at all; `ProfileError` when it cannot."""
        if not path.name:
            raise ProfileError(f"{path} is a folder", "name a file with --out")
        try:
            write_whole(path, to_json(self.to_json(), indent=1) + "\n")
        except OSError as error:
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
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ProfileError(f"{path} is no profile ({error})", PROFILE_AGAIN) from error
    if type(schema) is not int or not 1 <= schema <= PROFILE_SCHEMA:
        raise ProfileError(
            f"{path} has profile schema {schema!r}, this splitpoint reads up to {PROFILE_SCHEMA}",
            PROFILE_AGAIN,
        )
    try:
        profile = _from_record(record)
        good = _makes_sense(profile)
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise ProfileError(f"{path} is damaged ({error})", PROFILE_AGAIN) from error
    if not good:
        raise ProfileError(f"{path} is damaged (its figures make no sense)", PROFILE_AGAIN)
    if digest and profile.digest != digest:
        raise ProfileError(
            f"{path} is of the bundle {profile.digest[:12]}, not {digest[:12]}", PROFILE_AGAIN
        )
    return profile


def _known(kind: type[Any], record: Mapping[str, Any]) -> dict[str, Any]:
    """The fields that this version knows; those that the writer did not know keep their default."""
    return {key: record[key] for key in kind.__dataclass_fields__ if key in record}


def _from_record(record: Mapping[str, Any]) -> Profile:
    fields = _known(Profile, record)
    segments = [_known(SegmentTime, segment) for segment in fields["segments"]]
    for segment in segments:
        batches = segment.get("batch_ms", {})
        segment["batch_ms"] = {int(batch): float(ms) for batch, ms in batches.items()}
    layers = [_known(LayerTime, layer) for layer in fields["layers"]]
    for layer in layers:
        layer["output_shape"] = tuple(layer.get("output_shape", ()))
    fields["segments"] = tuple(SegmentTime(**segment) for segment in segments)
    fields["layers"] = tuple(LayerTime(**layer) for layer in layers)
    fields["codecs"] = tuple(
        CodecTime(**_known(CodecTime, codec)) for codec in fields.get("codecs", ())
    )
    fields["notes"] = tuple(map(str, fields.get("notes", ())))
    return Profile(**fields)


def _makes_sense(profile: Profile) -> bool:
    """Whether every figure that a plan leans on is a finite number of the right sign."""
    figures = [
        figure for s in profile.segments for figure in (s.ms, s.p95_ms, *s.batch_ms.values())
    ]
    figures += [profile.head_ms, *(layer.ms for layer in profile.layers)]
    for codec in profile.codecs:
        figures += [codec.nbytes, codec.p95_bytes, codec.encode_ms, codec.decode_ms]
    optional = [profile.busy_w, profile.idle_w, profile.base_mb]
    optional += [figure for s in profile.segments for figure in (s.mj, s.memory_mb)]
    figures += [figure for figure in optional if figure is not None]
    return (
        [s.id for s in profile.segments] == list(range(len(profile.segments)))
        and bool(profile.segments)
        and profile.head_ms <= profile.segments[-1].ms
        and all(math.isfinite(figure) and figure >= 0 for figure in figures)
        and sum(s.ms for s in profile.segments) > 0
        and isinstance(profile.digest, str)
        and (profile.cores is None or (type(profile.cores) is int and profile.cores >= 1))
        and len({(c.boundary, c.codec) for c in profile.codecs}) == len(profile.codecs)
        and all(
            type(c.boundary) is int and 0 <= c.boundary < len(profile.segments)
            for c in profile.codecs
        )
    )
