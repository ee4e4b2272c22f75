"""What a codec does to the answers of a model, against the answers without it."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from splitpoint.codec import Array, CodecError, TensorSpec, codec_of_tensor
from splitpoint.codec.codec_set import CodecSource

from ..bundle.bundle import Boundary, Manifest
from ..bundle.ladder import CodecLevel, RuntimeLevel
from ..errors import CalibrationError
from ..run.chain import SegmentChain
from .side_by_side import side_by_side
from .spread import OutputSpread
from .truth import AnswersTruth, ExactAnswers, Outputs, OutputsTruth, is_finite

InputList = Sequence[Mapping[str, Array]]
"""Inputs of one sample each, tensors of boundary 0 by name."""

ValuesTogether = Mapping[str, Sequence[Array]]
"""Tensors of a boundary by name, one array each for some inputs."""

Making = Callable[[], ValuesTogether]
"""Some inputs' tensors, which take their time to be made."""

_TOGETHER = 10  # inputs that the rest of the model runs on at a time
_TIMED = 12  # inputs whose encoding and decoding is timed


@dataclass(frozen=True, slots=True)
class _Coded:
    """What a codec left of one input's tensors, by name, and the times that it took."""

    values: Mapping[str, Array]
    encode_ms: float
    decode_ms: float


class Judge:
    """Runs the rest of the model on what a codec left of its inputs.

    Nothing is kept of all inputs but the exact model's answers (see truth.py): what a codec leaves
    is looked at a few inputs at a time, by as many `threads`. The chain has to bear that.
    """

    def __init__(
        self,
        manifest: Manifest,
        chain: SegmentChain,
        inputs: InputList,
        labels: Sequence[int] = (),
        *,
        threads: int = 1,
    ) -> None:
        self._manifest, self._chain, self._threads = manifest, chain, threads
        self._together = 1 if manifest.boundaries[0].one_sample else _TOGETHER
        specs = {spec.name: spec for spec in manifest.boundaries[-1].tensors}
        self._specs = {name: specs[tensor] for name, tensor in manifest.outputs.items()}
        self._spread, self._head = OutputSpread(), manifest.open_head()
        first = manifest.boundaries[0]
        values = {spec.name: [given[spec.name] for given in inputs] for spec in first.tensors}
        self._truth = self._truth_of(lambda: self._answers(first, self._batches(values)), labels)

    def _truth_of(
        self, answers: Callable[[], Iterator[Outputs]], labels: Sequence[int]
    ) -> ExactAnswers:
        def seen() -> Iterator[Outputs]:
            for outputs in answers():
                if not is_finite(outputs):
                    raise CalibrationError(
                        "the model answers NaN or infinity to a calibration input",
                        "leave that input out; where the model writes infinity over some of its "
                        "answers, compile it without that step and take it with what arrives",
                    )
                self._spread.see(outputs)
                yield outputs

        head = self._head
        if head is None:
            classifies = self._manifest.classifies
            return OutputsTruth(seen(), classifies=classifies, labels=labels)
        if self._manifest.task.kind != "raw":  # what a function makes of raw ones is not compared
            truth = AnswersTruth(seen(), head, self._manifest.task.kind)
            if not truth.is_empty:
                return truth
        self._head = None  # a model that finds nothing in any input still has outputs
        return OutputsTruth(answers(), classifies=False)

    def weights(self, outputs: Outputs) -> dict[str, Array]:
        """How much errors in each value of one input's outputs cost, of a model without classes.

        `outputs` and what is found are by tensor. It is a root: see `Head.information`. Where the
        head says nothing, values count in standard deviations of their output over all inputs, and
        each output as one.
        """
        names = self._manifest.outputs
        known = {}
        if self._head is not None:
            known = self._head.information({name: outputs[names[name]] for name in names})
        found = {}
        for name, tensor in names.items():
            shape = outputs[tensor].shape
            if not known:
                deviation = self._spread.deviations[name] * outputs[tensor].size ** 0.5
                found[tensor] = np.full(shape, 1 / deviation, np.float32)
            elif name in known:
                found[tensor] = known[name].astype(np.float32)
            else:  # no part of the answer
                found[tensor] = np.zeros(shape, np.float32)
        return found

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
        sizes = [0] * count

        def coded(number: int) -> _Coded:
            found = sources[number % len(sources)].named(codec, boundary.id)
            ways = [(spec, codec_of_tensor(found, spec)) for spec in boundary.tensors]
            start = time.perf_counter()
            payloads = [way.encode(values[spec.name][number], spec) for spec, way in ways]
            encoded = time.perf_counter()
            arrived = {
                spec.name: way.decode(payload, spec, 1)
                for (spec, way), payload in zip(ways, payloads, strict=True)
            }
            end = time.perf_counter()
            sizes[number] = sum(map(len, payloads))
            return _Coded(arrived, 1e3 * (encoded - start), 1e3 * (end - encoded))

        def together(start: int) -> ValuesTogether:
            ends = min(start + self._together, count)
            part = [alone[i] if i < len(alone) else coded(i) for i in range(start, ends)]
            return {spec.name: [one.values[spec.name] for one in part] for spec in boundary.tensors}

        try:
            # The first ones make the codec; the next are timed, with the machine to themselves.
            alone = [coded(number) for number in range(min(len(sources) + _TIMED, count))]
            starts = range(0, count, self._together)
            batches = (partial(together, start) for start in starts)
            outcome = self._truth.outcome(self._answers(boundary, batches))
        except CodecError:
            return None
        if outcome is None:
            return None
        timed = alone[len(sources) :]
        return CodecLevel(
            codec=codec,
            nbytes=round(statistics.mean(sizes), 1),
            p95_bytes=round(float(np.percentile(sizes, 95)), 1),
            encode_ms=round(statistics.median([one.encode_ms for one in timed] or [0.0]), 3),
            decode_ms=round(statistics.median([one.decode_ms for one in timed] or [0.0]), 3),
            **outcome,
        )

    def runtime_level(
        self, boundary: Boundary, values: Mapping[str, Sequence[Array]]
    ) -> RuntimeLevel:
        """The same for `values` that another runtime computed, one array for every input.

        They may be those of the last boundary, which are the outputs. `CalibrationError` where they
        are answered with NaN or infinity.
        """
        outcome = self._truth.outcome(self._answers(boundary, self._batches(values)))
        if outcome is None:
            raise CalibrationError(
                f"in INT8 up to boundary {boundary.id} the model answers NaN or infinity",
                "compile it without --int8",
            )
        return RuntimeLevel(**outcome)

    def _batches(self, values: Mapping[str, Sequence[Array]]) -> Iterator[Making]:
        """Some inputs at a time."""

        def together(start: int) -> ValuesTogether:
            return {name: arrays[start : start + self._together] for name, arrays in values.items()}

        count = len(next(iter(values.values())))
        return (partial(together, start) for start in range(0, count, self._together))

    def _answers(self, boundary: Boundary, batches: Iterator[Making]) -> Iterator[Outputs]:
        """The model's outputs for each of the batches of values at a boundary."""
        jobs = (partial(self._answer, boundary, making) for making in batches)
        return side_by_side(jobs, self._threads)

    def _answer(self, boundary: Boundary, making: Making) -> Outputs:
        chain, batch = self._chain, making()
        state = chain.place(
            {
                spec.name: np.concatenate(batch[spec.name], spec.batch_dim)
                for spec in boundary.tensors
            }
        )
        for index in range(boundary.id, len(chain)):
            state = dict(state) | dict(chain.step(index, state))
        outputs = {name: chain.fetch(state[t]) for name, t in self._manifest.outputs.items()}
        samples = len(batch[boundary.tensors[0].name])
        return {
            name: self._by_input(self._specs[name], value, samples)
            for name, value in outputs.items()
        }

    @staticmethod
    def _by_input(spec: TensorSpec, output: Array, samples: int) -> Array:
        """`[samples, ...]`."""
        if spec.shape[spec.batch_dim] != 1:
            return output.reshape(samples, -1)
        return np.moveaxis(output, spec.batch_dim, 0)
