"""What was measured of a model on this machine, and its form in a file."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from splitpoint.partition.profile.cloud_times import CloudTimes

from ..gpu.weight_form import Form
from ..options import COMPILERS, PRECISIONS, RUNTIMES
from .measure_batches import Measured


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """The fastest `runtime` and `form`, and the times that were measured in them.

    `announced` is what devices plan with, `batches` what the worker does. `at_s` is when that was,
    in seconds since 1970.
    """

    runtime: str
    form: Form
    announced: CloudTimes
    batches: Measured
    at_s: float

    def announcing(self, times: CloudTimes) -> Timing:
        """The same, where devices are told other times."""
        return replace(self, announced=times)

    def to_record(self) -> dict[str, Any]:
        """The file's form; what is kept by number is a list of pairs."""
        announced, batches = self.announced, self.batches
        return {
            "runtime": self.runtime,
            "precision": self.form.precision,
            "channels_last": self.form.channels_last,
            "compiler": self.form.compiler,
            "at_s": self.at_s,
            "segment_ms": list(announced.segment_ms),
            "segment_p95_ms": list(announced.segment_p95_ms),
            "decode_ms": [[at, codec, ms] for (at, codec), ms in announced.decode_ms.items()],
            "rows": [[[size, ms] for size, ms in row.items()] for row in batches.rows],
            "limit": batches.limit,
            "padded": batches.padded,
            "round_s": [[size, seconds] for size, seconds in batches.round_s.items()],
            "steady": batches.steady,
        }

    @classmethod
    def from_record(cls, record: Mapping[str, Any], segments: int, max_batch: int) -> Timing:
        """What `to_record` gave, for a model of so many segments.

        Raises `ValueError` for anything that it cannot have given.
        """
        limit = record["limit"]
        if type(limit) is not int or not 1 <= limit <= max_batch:
            raise ValueError(f"a limit of {limit!r}")
        for what, known in (
            ("runtime", RUNTIMES), ("precision", PRECISIONS), ("compiler", COMPILERS),
        ):  # fmt: skip
            if record[what] not in known:
                raise ValueError(f"an unknown {what}")
        if any(type(record[flag]) is not bool for flag in ("channels_last", "padded", "steady")):
            raise ValueError("flags that are none")
        rows = [_by_size(row, limit) for row in record["rows"]]
        spread = record["segment_p95_ms"]
        if len(rows) != segments or len(spread) not in (0, segments):
            raise ValueError("another number of segments")
        announced = CloudTimes(
            segment_ms=_numbers(record["segment_ms"], segments),
            segment_p95_ms=_numbers(spread, len(spread)),
            decode_ms={
                (_whole(at, 0, segments - 1), _word(codec)): _number(ms)
                for at, codec, ms in record["decode_ms"]
            },
        )
        return cls(
            runtime=record["runtime"],
            form=Form(record["precision"], record["channels_last"], record["compiler"]),
            announced=announced,
            batches=Measured(
                rows=rows,
                limit=limit,
                padded=record["padded"],
                round_s=_by_size(record["round_s"], max_batch),
                steady=record["steady"],
            ),
            at_s=_number(record["at_s"]),
        )


def _by_size(pairs: Any, most: int) -> dict[int, float]:
    """Figures by batch size, that of one sample among them."""
    found = {_whole(size, 1, most): _number(figure) for size, figure in pairs}
    if 1 not in found:
        raise ValueError("no time of one sample")
    return found


def _numbers(values: Any, count: int) -> tuple[float, ...]:
    found = tuple(map(_number, values))
    if len(found) != count:
        raise ValueError(f"{len(found)} figures for {count}")
    return found


def _number(value: Any) -> float:
    if type(value) not in (int, float) or not math.isfinite(value) or value < 0:
        raise ValueError(f"{str(value)[:40]} is no time")
    return float(value)


def _whole(value: Any, least: int, most: int) -> int:
    if type(value) is not int or not least <= value <= most:
        raise ValueError(f"{str(value)[:40]} is not one of {least} to {most}")
    return value


def _word(value: Any) -> str:
    if type(value) is not str or not 0 < len(value) <= 100:
        raise ValueError("a codec without a name")
    return value
