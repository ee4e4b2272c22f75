"""What a codec does to the answers of a model, against the answers without it."""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from splitpoint.codec import Array, CodecError, codec_of_tensor
from splitpoint.codec.codec_set import CodecSource

from ..bundle.bundle import Boundary, Manifest
from ..bundle.ladder import CodecLevel, RuntimeLevel
from ..errors import CalibrationError
from ..relative_error import relative_error
from ..run.chain import SegmentChain

InputList = Sequence[Mapping[str, Array]]
"""Inputs of one sample each, tensors of boundary 0 by name."""

_TOGETHER = 10  # inputs that the rest of the model runs on at a time
_TIMED = 12  # inputs whose encoding and decoding is timed


class Judge:
    """Runs the rest of the model on what a codec left of its inputs."""

    def __init__(
        self,
        manifest: Manifest,
        chain: SegmentChain,
        inputs: InputList,
        labels: Sequence[int] = (),
    ) -> None:
        self._manifest, self._chain = manifest, chain
        self._labels = np.array(labels, np.int64)
        specs = manifest.boundaries[0].tensors
        joined = {s.name: [given[s.name] for given in inputs] for s in specs}
        self._truth = self._answers(manifest.boundaries[0], joined)
        if not _finite(self._truth):
            raise CalibrationError(
                "the model answers NaN or infinity to a calibration input",
                "leave that input out; where the model writes infinity over some of its answers, "
                "compile it without that step and take it with what arrives",
            )

    @property
    def spreads(self) -> dict[str, float]:
        """The standard deviation of each output's values over all inputs, by tensor."""
        names = self._manifest.outputs.values()
        return {
            name: max(float(answer.std()), 1e-15)
            for name, answer in zip(names, self._truth, strict=True)
        }

    def level(
        self,
        boundary: Boundary,
        codec: str,
        sources: Sequence[CodecSource],
        values: Mapping[str, Sequence[Array]],
    ) -> CodecLevel | None:
        """The rung of `codec` over all `values`, one array of each tensor for every input.

        Input i is coded with `sources[i % len(sources)]`. None for a codec that refuses an input,
        or what it leaves of one is answered with NaN or infinity: it has no place on the ladder.
        """
        count = len(next(iter(values.values())))
        sizes, encode_ms, decode_ms = [], [], []
        decoded: dict[str, list[Array]] = {spec.name: [] for spec in boundary.tensors}
        for number in range(count):
            found = sources[number % len(sources)].named(codec, boundary.id)
            ways = [(spec, codec_of_tensor(found, spec)) for spec in boundary.tensors]
            start = time.perf_counter()
            try:
                payloads = [way.encode(values[spec.name][number], spec) for spec, way in ways]
            except CodecError:
                return None
            encoded = time.perf_counter()
            for (spec, way), payload in zip(ways, payloads, strict=True):
                decoded[spec.name].append(way.decode(payload, spec, 1))
            end = time.perf_counter()
            sizes.append(sum(map(len, payloads)))
            if len(sources) <= number < len(sources) + _TIMED:  # the first ones make the codec
                encode_ms.append(1e3 * (encoded - start))
                decode_ms.append(1e3 * (end - encoded))
        outcome = self._outcome(boundary, decoded)
        if outcome is None:
            return None
        return CodecLevel(
            codec=codec,
            nbytes=round(statistics.mean(sizes), 1),
            p95_bytes=round(float(np.percentile(sizes, 95)), 1),
            encode_ms=round(statistics.median(encode_ms or [0.0]), 3),
            decode_ms=round(statistics.median(decode_ms or [0.0]), 3),
            **outcome,
        )

    def runtime_level(
        self, boundary: Boundary, values: Mapping[str, Sequence[Array]]
    ) -> RuntimeLevel:
        """The same for `values` that another runtime computed, one array for every input.

        They may be those of the last boundary, which are the outputs. `CalibrationError` where they
        are answered with NaN or infinity.
        """
        outcome = self._outcome(boundary, values)
        if outcome is None:
            raise CalibrationError(
                f"in INT8 up to boundary {boundary.id} the model answers NaN or infinity",
                "compile it without --int8",
            )
        return RuntimeLevel(**outcome)

    def _outcome(
        self, boundary: Boundary, values: Mapping[str, Sequence[Array]]
    ) -> dict[str, Any] | None:
        """The fields of `Judged`; None for answers that are no finite numbers."""
        answers = self._answers(boundary, values)
        if not _finite(answers):
            return None
        agreed = correct = before = None
        if self._manifest.classifies:
            top, truth = answers[0].argmax(-1), self._truth[0].argmax(-1)
            agreed = int((top == truth).sum())
            if len(self._labels):
                correct = int((top == self._labels).sum())
                before = int((truth == self._labels).sum())
        return {
            "judged": len(answers[0]),
            "agreed": agreed,
            "loss": float(f"{self._loss(answers):.4g}"),
            "correct": correct,
            "correct_before": before,
            "worst_error": float(f"{max(map(relative_error, answers, self._truth)):.4g}"),
        }

    def _answers(self, boundary: Boundary, values: Mapping[str, Sequence[Array]]) -> list[Array]:
        """The model's outputs, one array each over all inputs, float64 `[inputs, values]`."""
        chain = self._chain
        count = len(next(iter(values.values())))
        found: list[list[Array]] = [[] for _ in self._manifest.outputs]
        together = 1 if self._manifest.boundaries[0].one_sample else _TOGETHER
        for start in range(0, count, together):
            state = chain.place(
                {
                    spec.name: np.concatenate(
                        values[spec.name][start : start + together], spec.batch_dim
                    )
                    for spec in boundary.tensors
                }
            )
            for index in range(boundary.id, len(chain)):
                state = dict(state) | dict(chain.step(index, state))
            samples = min(together, count - start)
            for parts, name in zip(found, self._manifest.outputs.values(), strict=True):
                parts.append(chain.fetch(state[name]).astype(np.float64).reshape(samples, -1))
        return [np.concatenate(parts) for parts in found]

    def _loss(self, answers: Sequence[Array]) -> float:
        """See `CodecLevel.loss`."""
        if self._manifest.classifies:
            before, after = _log_softmax(self._truth[0]), _log_softmax(answers[0])
            return max(float((np.exp(before) * (before - after)).sum(-1).mean()), 0.0)
        return sum(
            float(((after - before) ** 2).mean() / max(before.var(), 1e-30)) / 2
            for before, after in zip(self._truth, answers, strict=True)
        )


def _finite(answers: Sequence[Array]) -> bool:
    return all(bool(np.isfinite(answer).all()) for answer in answers)


def _log_softmax(values: Array) -> Array:
    shifted = values - values.max(-1, keepdims=True)
    found: Array = shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))
    return found
