"""What calibration measured at a boundary: a codec's bytes, and what becomes of the answers."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from ..tasks.similarity import Similarity

# What a codec may lose where nobody says how much: about what JPEG at quality 95 costs
# EfficientNet-Lite0 (benchmarks/rate_accuracy.py).
DEFAULT_LOSS = 0.025
# The same for a model that no JPEG is sent to: no value of an answer to any calibration input may
# be further off than this, relative to the largest there is.
DEFAULT_ERROR = 0.01
DEFAULT_LIMIT = (
    f"no JPEG says what an answer may lose, so that no value of one may be off by more than "
    f"{100 * DEFAULT_ERROR:g} % of the largest in calibration (--max-accuracy-drop 100: any may)"
)
Z_95 = 1.959964  # of the two-sided 95 % interval


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """What became of the answers to `judged` inputs, against those of the exact model.

    `agreed` is how many inputs kept their top class, and None where the model is no classifier.
    `similarity` is that of a detector's boxes or a segmenter's maps; None for other models, and
    where the exact one finds nothing. `loss` is the mean divergence of the output: Kullback-Leibler
    for a classifier, in nats; what `similarity` lacks to 1; half the relative squared error for any
    other. `correct` counts right answers where labels were given, `correct_before` those of the
    exact model. `worst_error` is the largest difference of any value in any answer, relative to the
    largest magnitude of that output; None where `similarity` says what errors do, and in bundles
    that were written before it was measured.
    """

    judged: int
    agreed: int | None
    loss: float
    correct: int | None = None
    correct_before: int | None = None
    worst_error: float | None = None
    similarity: Similarity | None = None

    def __post_init__(self) -> None:
        counts = [n for n in (self.agreed, self.correct, self.correct_before) if n is not None]
        if self.judged < 1 or not all(0 <= n <= self.judged for n in counts):
            raise ValueError("impossible counts")
        if not 0 <= self.loss < math.inf:
            raise ValueError(f"an impossible loss of {self.loss}")
        if self.worst_error is not None and not 0 <= self.worst_error < math.inf:
            raise ValueError(f"an impossible error of {self.worst_error}")
        like = self.similarity
        if like is not None and not 0 <= like.low <= like.value <= like.high <= 1:
            raise ValueError(f"an impossible similarity of {like.value}")

    @property
    def drop(self) -> float | None:
        """The share of the inputs whose answer changed; of boxes or maps what similarity lacks."""
        if self.similarity is not None:
            return 1 - self.similarity.value
        return None if self.agreed is None else 1 - self.agreed / self.judged

    @property
    def drop_interval(self) -> tuple[float, float] | None:
        """The 95 % interval of that among all inputs there could be."""
        if self.similarity is not None:
            return 1 - self.similarity.high, 1 - self.similarity.low
        return None if self.agreed is None else wilson(self.judged - self.agreed, self.judged)

    def to_json(self) -> dict[str, Any]:
        """The manifest's form; what was not measured is left out, as older bundles do."""
        found = asdict(self)
        for key in _NEWER:
            if found[key] is None:
                del found[key]
        return found


@dataclass(frozen=True, slots=True, kw_only=True)
class RuntimeLevel(Judged):
    """What running the segments before a boundary in another runtime does, the rest being exact.

    Judged on inputs that it was not calibrated on.
    """

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> RuntimeLevel:
        """Reads the manifest's form (KeyError, TypeError or ValueError for a damaged one)."""
        return cls(**_fields(data, cls.__dataclass_fields__))


@dataclass(frozen=True, slots=True, kw_only=True)
class CodecLevel(Judged):
    """One rung of a boundary's ladder, over inputs that its tables were not made from.

    `nbytes` and `p95_bytes` are payload bytes of one sample. Times are medians of one sample on the
    machine that calibrated.
    """

    codec: str
    nbytes: float
    p95_bytes: float
    encode_ms: float
    decode_ms: float

    def __post_init__(self) -> None:
        if not isinstance(self.codec, str):
            raise ValueError(f"{self.codec} is no codec's name")
        Judged.__post_init__(self)
        numbers = (self.nbytes, self.p95_bytes, self.encode_ms, self.decode_ms)
        if not all(0 <= number < math.inf for number in numbers):
            raise ValueError(f"{self.codec} has impossible figures")

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> CodecLevel:
        """Reads the manifest's form (KeyError, TypeError or ValueError for a damaged one)."""
        return cls(**_fields(data, cls.__dataclass_fields__))


_NEWER = ("worst_error", "similarity")  # what bundles that were written earlier lack


def _fields(data: Mapping[str, Any], names: Iterable[str]) -> dict[str, Any]:
    found = {key: data[key] for key in names if key in data or key not in _NEWER}
    if found.get("similarity") is not None:
        found["similarity"] = Similarity(**found["similarity"])
    return found


def usual_loss(jpeg: Judged | None) -> float:
    """What a codec may lose where nobody says how much: as much as `jpeg`, the input sent so.

    Of boxes and maps at least `DEFAULT_LOSS`: a JPEG that happens to change none of some dozens
    says no more.
    """
    if jpeg is None:
        return DEFAULT_LOSS
    return max(jpeg.loss, 1e-9 if jpeg.similarity is None else DEFAULT_LOSS)


def relative_loss(level: Judged, jpeg: Judged | None) -> float:
    """How much of what may be lost where nobody says how much is lost: above 1 is too much.

    `jpeg` is what calibration measured of sending the input so, if there is such a thing. A level
    whose errors were not measured is judged by its loss.
    """
    if jpeg is None and level.worst_error is not None:
        return level.worst_error / DEFAULT_ERROR
    return level.loss / DEFAULT_LOSS


def wilson(count: int, total: int) -> tuple[float, float]:
    """The score interval at 95 % of a share of which `count` in `total` were seen.

    E. B. Wilson, J. Amer. Stat. Assoc. 22 (1927).
    """
    share, square = count / total, Z_95**2
    middle = share + square / (2 * total)
    half = Z_95 * math.sqrt(share * (1 - share) / total + square / (4 * total**2))
    scale = 1 + square / total
    return max((middle - half) / scale, 0.0), min((middle + half) / scale, 1.0)


def least_bound(judged: int, task: str) -> float:
    """What the drop may be at most though not one of so many answers changed.

    For boxes and maps it is what similarity.py gives: of n inputs and one on which nothing agrees,
    three draws of that one; and of a map both regions, which do not meet, count then.
    """
    if task == "detect":
        return min(3 / (judged + 1), 1.0)
    return min(6 / (judged + 4), 1.0) if task == "segment" else wilson(0, judged)[1]


def inputs_needed(most_drop: float, task: str = "classify") -> int:
    """How many inputs without a single changed answer it takes to allow `most_drop`."""
    if most_drop <= 0:
        return 0
    if task == "detect":
        return max(math.ceil(3 / most_drop) - 1, 0)
    if task == "segment":
        return max(math.ceil(6 / most_drop) - 4, 0)
    return math.ceil(Z_95**2 * (1 - most_drop) / most_drop)
