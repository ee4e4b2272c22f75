"""A bundle's segments in one runtime, as far as they are here."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import numpy as np
from splitpoint.codec import Array, TensorSpec
from splitpoint.partition.bundle.answer_form import AnswerForm
from splitpoint.partition.bundle.bundle import Manifest
from splitpoint.partition.errors import SegmentError
from splitpoint.partition.run.chain import SegmentChain, State
from splitpoint.partition.run.slowdown import Slowdown


class Segments:
    """Those of a chain that are loaded, from the first on. `slowdown` plays a slower device."""

    def __init__(self, chain: SegmentChain, manifest: Manifest, slowdown: Slowdown) -> None:
        self._chain, self._slowdown, self._form = chain, slowdown, AnswerForm.of(manifest)
        self._task = manifest.task
        self._boundaries = [boundary.tensors for boundary in manifest.boundaries]
        self._stand_ins = manifest.stand_ins
        self.loaded = 0

    def load(self, count: int) -> None:
        """Loads those of the first `count` that are not here yet.

        Each runs once on zeros before anyone can see it: its first run allocates memory, and on a
        GPU builds kernels, which is nothing for a frame to wait for. Whoever has all of them ends
        frames: `TaskError` where the model answers by a function that nobody has allowed here.
        """
        if count == len(self._boundaries) - 1:
            self._task.check_allowed()
        for index in range(self.loaded, count):
            self._chain.load(index)
            self._step(index, self._chain.place(zeros_at(self._boundaries[index], self._stand_ins)))
            self.loaded = index + 1

    def run(
        self,
        values: Mapping[str, Array],
        boundary: int,
        start: int = 0,
        begins: Callable[[], None] = lambda: None,
    ) -> dict[str, Array]:
        """The tensors of a boundary, from those of `start`; `begins` is called at each segment.

        At the last boundary these are the answer's: see `AnswerForm`. Raises `SegmentError` when
        the runtime fails.
        """
        state = self._chain.place(values)
        for index in range(start, boundary):
            begins()
            key = (self._chain.runtime, index)
            state.update(self._slowdown.stretch(key, self._step, index, state))
        names = [spec.name for spec in self._boundaries[boundary]]
        found = {name: self._chain.fetch(state[name]) for name in names}
        if boundary < len(self._boundaries) - 1:
            return found
        return self._slowdown.stretch((self._chain.runtime, boundary), self._form.made, found)

    def _step(self, index: int, state: State) -> State:
        try:
            return self._chain.step(index, state)
        except RuntimeError as error:  # torch's
            why = str(error).splitlines()[0][:300] if str(error) else type(error).__name__
            raise SegmentError(f"{self._chain.runtime} failed ({why})") from error


def zeros_at(specs: Iterable[TensorSpec], stand_ins: Mapping[str, int]) -> dict[str, Array]:
    """One sample of a boundary's tensors, to warm up and time with.

    `stand_ins` are the numbers of inputs that cannot be 0: see `Manifest`.
    """
    return {
        spec.name: np.full(spec.shape_at(1), stand_ins.get(spec.name, 0), spec.numpy_dtype)
        for spec in specs
    }
