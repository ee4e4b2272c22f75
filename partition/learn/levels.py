"""A learned codec's steps, and what payloads take: from the transform codec's ladder."""

from __future__ import annotations

from collections.abc import Sequence

from splitpoint.codec.fkt.table import FktTable

from ..bundle.boundary import Boundary
from ..bundle.ladder import CodecLevel, usual_loss
from ..errors import LearnError
from .networks import octaves_of

# Of what a codec may lose where nobody says how much. The learned codec is best where errors are no
# small noise any more, and coarser levels are hardly ever chosen.
LEAST, MOST = 0.35, 6.0
FEWEST = 3  # levels


def levels_to_learn(boundary: Boundary, jpeg: CodecLevel | None) -> list[int]:
    """Numbers of the transform codec's levels whose steps it shall have, the coarsest first.

    Raises `LearnError` for a boundary that has fewer than `FEWEST`.
    """
    rungs = boundary.levels_of("fkt")
    if len(rungs) < FEWEST:
        raise LearnError(
            f"boundary {boundary.id} has {len(rungs)} levels of the transform codec, from which "
            "a learned codec begins",
            "compile the model with --calibrate DIR, or choose another boundary",
        )
    usual = usual_loss(jpeg)

    def outside(rung: CodecLevel) -> float:
        share = rung.loss / usual
        return max(LEAST - share, share - MOST, 0.0)

    inside = [n for n, rung in enumerate(rungs, start=1) if not outside(rung)]
    if len(inside) < FEWEST:
        nearest = sorted(range(1, len(rungs) + 1), key=lambda n: outside(rungs[n - 1]))[:FEWEST]
        inside = list(range(min(nearest), max(nearest) + 1))
    return inside


def octaves_between(table: FktTable, levels: Sequence[int]) -> tuple[float, float]:
    """The finest and the coarsest step of these levels, in octaves."""
    found = [octaves_of(table, level) for level in levels]
    return min(found), max(found)


def usual_bits(boundary: Boundary, levels: Sequence[int]) -> float:
    """Of a payload at these levels, on the average."""
    rungs = boundary.levels_of("fkt")
    return 8 * sum(rungs[level - 1].nbytes for level in levels) / len(levels)
