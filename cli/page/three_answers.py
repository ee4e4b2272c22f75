"""The three questions of a plan, whatever it aims at: how soon, how many, and at what cost.

Each answer stands beside what it would be all on the device, and as a JPEG to the cloud.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from splitpoint.partition.plan.plan import NO_CODEC, name_of
from splitpoint.partition.plan.planner import Prediction

from ..shell.output import human_bytes


class PlanAnswer(NamedTuple):
    """The candidate that is best for one `question`, and a line that says so."""

    question: str
    prediction: Prediction
    line: str

    def to_json(self) -> dict[str, Any]:
        """Which candidate it is."""
        best = self.prediction
        return {"boundary": best.boundary, "codec": best.codec, "runtime": best.runtime}


def three_answers(candidates: Sequence[Prediction]) -> list[PlanAnswer]:
    """One for each question that there is a feasible candidate for."""
    kept = [candidate for candidate in candidates if candidate.feasible]
    found = []
    for question, words, size, tell in QUESTIONS:
        sizes = [(amount, place) for place, c in enumerate(kept) if (amount := size(c)) is not None]
        if not sizes:
            continue
        best = kept[min(sizes)[1]]
        rivals = [
            f"{name_of(c.boundary, c.codec)} {tell(c)}"
            for c in kept
            if is_rival(c) and c is not best and size(c) is not None
        ]
        beside = f" ({', '.join(rivals)})" if rivals else ""
        line = f"{words}: {name_of(best.boundary, best.codec)}, {tell(best)}{beside}"
        found.append(PlanAnswer(question, best, line))
    return found


def is_rival(candidate: Prediction) -> bool:
    """Whether it is what one would do without a split."""
    return candidate.codec == NO_CODEC or (candidate.boundary, candidate.codec) == (0, "jpeg")


def _joules(candidate: Prediction) -> str:
    mj = candidate.energy_mj
    return "" if mj is None else f"{mj / 1e3:.3g} J {candidate.energy_kind}"


QUESTIONS: tuple[
    tuple[
        str,
        str,
        Callable[[Prediction], float | None],
        Callable[[Prediction], str],
    ],
    ...,
] = (
    ("soonest", "a frame is there soonest", lambda c: c.latency_ms,
     lambda c: f"{c.latency_ms:.1f} ms"),
    ("most_frames", "most frames a second", lambda c: -c.fps, lambda c: f"{c.fps:.1f}"),
    ("fewest_bytes", "fewest bytes of those that send", lambda c: c.bytes_up or None,
     lambda c: human_bytes(c.bytes_up)),
    ("least_energy", "least energy of the device", lambda c: c.energy_mj, _joules),
)  # fmt: skip
