"""The exact model's own answers, and what others are worth beside them.

What is kept of the exact ones depends on the task: of a detector's thousands of boxes those of its
answer, of a segmenter's scores the map of classes, and of other models the outputs themselves.
Those of a changed model are compared as they come, and then let go.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from splitpoint.codec import Array

from ..tasks.detections import detections_of
from ..tasks.head import Head
from ..tasks.similarity import Similarity, average_precision, mean_iou

# What the exact model itself is less sure of is nothing that somebody would act on.
MIN_TRUE_SCORE = 0.25

Outputs = Mapping[str, Array]
"""A model's outputs for some inputs, by the user's names, `[inputs, ...]`."""


class ExactAnswers(Protocol):
    """Answers of the exact model to every input."""

    def outcome(self, batches: Iterable[Outputs]) -> dict[str, Any] | None:
        """The fields of `Judged` for other outputs for the same inputs, in their order.

        None where they hold NaN or infinity.
        """


class OutputsTruth:
    """Of a classifier, by its first output; of a model whose outputs are the answer, by them all.

    `labels` are the right classes of the inputs, if they are known.
    """

    def __init__(
        self, batches: Iterable[Outputs], *, classifies: bool, labels: Sequence[int] = ()
    ) -> None:
        self._classifies, self._labels = classifies, np.array(labels, np.int64)
        kept = list(batches)
        self._outputs = {name: np.concatenate([_rows(b[name]) for b in kept]) for name in kept[0]}

    def outcome(self, batches: Iterable[Outputs]) -> dict[str, Any] | None:
        """See `ExactAnswers`."""
        begin = 0
        tops: list[Array] = []
        losses, worst = dict.fromkeys(self._outputs, 0.0), dict.fromkeys(self._outputs, 0.0)
        for batch in batches:
            if not is_finite(batch):
                return None
            for number, (name, truth) in enumerate(self._outputs.items()):
                rows = _rows(batch[name]).astype(np.float64)
                true = truth[begin : begin + len(rows)].astype(np.float64)
                worst[name] = max(worst[name], float(np.abs(rows - true).max(initial=0)))
                if not self._classifies:
                    losses[name] += float(((rows - true) ** 2).sum())
                elif number == 0:
                    tops.append(rows.argmax(-1))
                    before, after = _log_softmax(true), _log_softmax(rows)
                    losses[name] += float((np.exp(before) * (before - after)).sum())
            begin += len(rows)
        agreed = correct = correct_before = None
        if self._classifies:
            loss = max(sum(losses.values()) / begin, 0.0)
            top, true_top = np.concatenate(tops), next(iter(self._outputs.values())).argmax(-1)
            agreed = int((top == true_top).sum())
            if len(self._labels):
                correct = int((top == self._labels).sum())
                correct_before = int((true_top == self._labels).sum())
        else:
            loss = sum(
                losses[name] / truth.size / max(float(truth.var(dtype=np.float64)), 1e-30) / 2
                for name, truth in self._outputs.items()
            )
        errors = [
            worst[name] / (float(np.abs(truth).max(initial=0)) or 1.0)
            for name, truth in self._outputs.items()
        ]
        return {
            "judged": begin,
            "agreed": agreed,
            "loss": _rounded(loss),
            "correct": correct,
            "correct_before": correct_before,
            "worst_error": _rounded(max(errors)),
        }


class AnswersTruth:
    """Of a model with a head, by its answers, and their likeness is that of its task."""

    def __init__(self, batches: Iterable[Outputs], head: Head, kind: str) -> None:
        self._head, self._detects = head, kind == "detect"
        self._answers = [answer for batch in batches for answer in self._of(batch)]

    @property
    def is_empty(self) -> bool:
        """Whether the exact model finds nothing, so that nothing can be found again."""
        return bool(np.isnan(self._likeness(self._answers).value))

    def outcome(self, batches: Iterable[Outputs]) -> dict[str, Any] | None:
        """See `ExactAnswers`."""
        found: list[Array] = []
        for batch in batches:
            if not is_finite(batch):
                return None
            found += self._of(batch)
        similarity = self._likeness(found)
        return {
            "judged": len(found),
            "agreed": None,
            "loss": _rounded(1 - similarity.value),
            "similarity": similarity,
        }

    def _of(self, outputs: Outputs) -> list[Array]:
        (answers,) = self._head.answer(outputs).values()
        return list(answers)

    def _likeness(self, answers: Sequence[Array]) -> Similarity:
        if not self._detects:
            return mean_iou(answers, self._answers)
        truth = [detections_of(answer).of_score(MIN_TRUE_SCORE) for answer in self._answers]
        return average_precision([detections_of(answer) for answer in answers], truth)


def is_finite(outputs: Outputs) -> bool:
    """Whether all values are numbers."""
    return all(bool(np.isfinite(output).all()) for output in outputs.values())


def _rows(output: Array) -> Array:
    return output.reshape(len(output), -1)


def _rounded(value: float) -> float:
    return float(f"{value:.4g}")


def _log_softmax(values: Array) -> Array:
    shifted = values - values.max(-1, keepdims=True)
    found: Array = shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))
    return found
