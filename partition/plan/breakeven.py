"""Where the best candidate changes, as one condition of the link or the worker does."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from .costs import CostTable


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """From `low` to `high` of some condition the same candidate is best; None: none is feasible."""

    low: float
    high: float
    boundary: int | None
    codec: str

    def where(self, unit: str) -> str:
        """`below 0.9 Mbit/s`, `0.9 to 41 Mbit/s`, `above 41 Mbit/s` or `everywhere`."""
        low, high = f"{self.low:,.3g}", f"{self.high:,.3g}"
        if np.isinf(self.high):
            return "everywhere" if self.low == 0 else f"above {low} {unit}"
        return f"below {high} {unit}" if self.low == 0 else f"{low} to {high} {unit}"

    def to_json(self) -> dict[str, Any]:
        """The last interval's end is null: it has none."""
        return {
            "from": float(f"{self.low:.4g}"),
            "to": None if np.isinf(self.high) else float(f"{self.high:.4g}"),
            "boundary": self.boundary,
            "codec": self.codec,
        }


def intervals(
    table: CostTable,
    decide: Callable[[float], int | None],
    low: float,
    high: float,
    points: int = 200,
) -> tuple[Interval, ...]:
    """Where the decision changes between `low` and `high`, looked for on a logarithmic grid.

    Each change is then narrowed down by bisection to a thousandth. A candidate that is best only
    between two neighbours of the grid goes unseen.
    """

    def chosen_at(x: float) -> tuple[int | None, str]:
        index = decide(x)
        return (None, "none") if index is None else (int(table.boundary[index]), table.codec[index])

    grid = [1e-6 * low, *np.geomspace(low, high, points), 1e3 * high]
    choices = [chosen_at(float(x)) for x in grid]
    starts = [0.0]
    chosen = [choices[0]]
    for before, after, left, right in zip(choices, choices[1:], grid, grid[1:], strict=False):
        if before == after:
            continue
        a, b = float(left), float(right)
        while b > 1.001 * a:
            middle = (a * b) ** 0.5
            a, b = (middle, b) if chosen_at(middle) == before else (a, middle)
        starts.append(b)
        chosen.append(after)
    ends = [*starts[1:], np.inf]
    return tuple(
        Interval(low=start, high=float(end), boundary=boundary, codec=codec)
        for start, end, (boundary, codec) in zip(starts, ends, chosen, strict=True)
    )
