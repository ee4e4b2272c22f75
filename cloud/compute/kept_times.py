"""Keeps what was measured of models, so that a worker starts from it the next time.

Times are of one bundle on one device with one set of versions; whatever of that changes, the file
is another one. A file that cannot be read is said so, and measured anew.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from splitpoint.partition.bundle.bundle import Bundle
from splitpoint.partition.kept_files import keep_newest, write_whole
from splitpoint.partition.profile.measure import processor_name, versions
from splitpoint.partition.run.torch_chain import describe_device

from .timing import Timing

log = logging.getLogger("splitpoint.cloud")

FORMAT = 5
MOST_FILES = 64
MOST_BYTES = 4 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class TimingConditions:
    """All that times depend on. `runtime` and `precision` are as they were asked for.

    `compilers` are those that were to be tried, for `tune_minutes`: more may find another one.
    """

    digest: str
    runtime: str
    precision: str
    max_batch: int
    compilers: Sequence[str]
    tune_minutes: float
    profile: bool
    device: str
    threads: int
    cores: int
    versions: Mapping[str, str]
    format: int = FORMAT

    @property
    def key(self) -> str:
        """Short, and another one for other conditions."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()[:24]


def conditions_here(
    bundle: Bundle,
    device: torch.device,
    *,
    runtime: str,
    precision: str,
    max_batch: int,
    compilers: Sequence[str],
    tune_minutes: float,
    profile: bool,
) -> TimingConditions:
    """Those of this machine now; with `profile`, times are announced that were given."""
    name = processor_name() if device.type == "cpu" else describe_device(device)
    return TimingConditions(
        digest=bundle.digest,
        runtime=runtime,
        precision=precision,
        max_batch=max_batch,
        compilers=tuple(compilers),
        tune_minutes=tune_minutes,
        profile=profile,
        device=name,
        threads=torch.get_num_threads(),
        cores=_cores(),
        versions=versions(),
    )


@dataclass(frozen=True, slots=True)
class KeptTimes:
    """The files in `folder`; with `measure`, what they say is not asked for."""

    folder: Path
    measure: bool = False

    def find(self, conditions: TimingConditions, segments: int) -> Timing | None:
        """What was kept for these conditions, of a model of so many segments."""
        path = self._path(conditions)
        if self.measure:
            return None
        try:
            record = _read(path)
            if record["conditions"] != json.loads(json.dumps(asdict(conditions))):
                raise ValueError("it is of other conditions")
            return Timing.from_record(record["timing"], segments, conditions.max_batch)
        except FileNotFoundError:
            return None
        except (
            OSError, ValueError, KeyError, TypeError, OverflowError, RecursionError,
        ) as error:  # fmt: skip
            why = " ".join(str(error).split())[:100]
            log.warning("the times in %s cannot be used (%s); measuring anew", path, why)
            return None

    def keep(self, conditions: TimingConditions, timing: Timing) -> None:
        """Writes the file; where that cannot be done, it is said, and measured the next time."""
        path = self._path(conditions)
        record = {"conditions": asdict(conditions), "timing": timing.to_record()}
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_whole(path, json.dumps(record, allow_nan=False) + "\n")
            keep_newest(self.folder, "times-*.json", MOST_FILES)
        except (OSError, ValueError) as error:
            log.warning("the times cannot be kept in %s (%s)", self.folder, error)

    def _path(self, conditions: TimingConditions) -> Path:
        return self.folder / f"times-{conditions.digest[:16]}-{conditions.key}.json"


def _read(path: Path) -> Mapping[str, Any]:
    if path.stat().st_size > MOST_BYTES:
        raise ValueError("it is too large")
    record = json.loads(path.read_text(encoding="utf-8"), parse_constant=_no_constant)
    if not isinstance(record, dict):
        raise ValueError("it holds no table")
    return record


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is no figure")


def _cores() -> int:
    """Those that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
