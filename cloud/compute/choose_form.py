"""A bundle's segments on a GPU: captured, in whatever form is fastest there."""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from splitpoint.codec import Array
from splitpoint.partition.bundle.bundle import Bundle
from splitpoint.partition.bundle.samples import synthetic_samples
from splitpoint.partition.run.chain import SegmentChain, State

from ..errors import NotCompiled
from ..gpu.device_errors import is_out_of_memory
from ..gpu.weight_form import Form
from ..options import AUTO, EAGER, FP32
from .gpu_chain import FP32_TOLERANCE, GpuChain
from .interruptible_chain import Check, InterruptibleChain
from .measure_batches import batch_sizes
from .precision import (
    TOLERANCE,
    OutputsByBoundary,
    choose_precision,
    ends_trials,
    largest_difference,
    left_out,
)
from .runner import Runner

TRIAL_BATCH, TRIAL_ROUNDS = 4, 3
Tell = Callable[[str], None]


def form_and_capture(
    bundle: Bundle,
    chain: GpuChain,
    *,
    precision: str,
    form: Form | None = None,
    max_batch: int,
    tune_s: float = 0.0,
    tell: Tell,
    check: Check,
) -> None:
    """Gets `chain` ready for frames: nothing is captured after this.

    It is in `form`; with None in the fastest that is close enough, of this precision or, with
    "auto", of any. That is one of a compiler where one of the chain's makes it faster, for which
    they have `tune_s` seconds. `tell` is told what was found. Raises `torch.OutOfMemoryError` where
    not even one sample fits.
    """
    name, sizes, failed = bundle.manifest.name, batch_sizes(max_batch), ""
    if form is None:
        trials = _Trials(bundle, chain, min(TRIAL_BATCH, max_batch), check, tell)
        form, seconds = trials.best(precision)
        if chain.compilers:
            form = trials.compiled(form, seconds, tune_s)
    chain.use(form)
    try:
        capture_sizes(bundle, chain, sizes, tell, check)
    except Exception as error:
        if form.compiler == EAGER or ends_trials(error):
            raise
        failed = left_out(form.compiler, error)
    if failed:  # what is on the way of the error keeps memory until here
        tell(f"{name}: {failed}")
        chain.use(replace(form, compiler=EAGER))
        capture_sizes(bundle, chain, sizes, tell, check)
    chain.free_unused()


def capture_sizes(
    bundle: Bundle, chain: GpuChain, sizes: Sequence[int], tell: Tell, check: Check
) -> None:
    """Has `chain` captured for as many of the batch sizes as there is memory for.

    The largest first: what its graphs use between their inputs and outputs, smaller ones use, too.
    """
    gc.collect()  # what an earlier form had on the device
    runner = Runner(chain, [boundary.tensors for boundary in bundle.manifest.boundaries])
    inputs = synthetic_samples(bundle.manifest).inputs
    for size in sorted(sizes, reverse=True):
        try:
            given, fresh = (
                runner.enter(0, [inputs[(first + n) % len(inputs)] for n in range(size)])
                for first in (0, 1)
            )
            chain.capture(size, given, fresh, check, tell)
        except Exception as error:
            if size == 1 or not is_out_of_memory(error):
                raise
            tell(f"{bundle.manifest.name}: no memory to capture batches of {size}")
            chain.free_unused()


@dataclass(slots=True)
class _Trials:
    """What formats, layouts and compilers come to, and take, with a small batch."""

    bundle: Bundle
    chain: GpuChain
    batch: int
    check: Check
    tell: Tell
    exact: list[Mapping[str, Array]] = field(default_factory=list)  # at each boundary, in float32
    expected: OutputsByBoundary = ()  # of the first that was tried: float32 with "auto"

    def best(self, precision: str) -> tuple[Form, float]:
        """The fastest without a compiler that is close enough, and a batch's seconds."""
        if precision != AUTO:
            return self.run(precision)[1:]
        forms: dict[str, Form] = {}

        def run(precision: str) -> tuple[OutputsByBoundary, float]:
            outputs, forms[precision], seconds = self.run(precision)
            return outputs, seconds

        name = self.bundle.manifest.name
        chosen, found = choose_precision(run, lambda line: self.tell(f"{name}: {line}"))
        self.tell(
            f"{name}: precision {chosen}, off by {100 * found[chosen][0]:.2g} % of the largest "
            f"output at most, from any boundary"
        )
        return forms[chosen], found[chosen][1]

    def compiled(self, best: Form, seconds: float, limit_s: float) -> Form:
        """The fastest of `best`, which takes `seconds`, and of what compilers make of it.

        They are tried one after the other; at the limit the segment ends that is being compiled.
        """
        name, found, end_s = self.bundle.manifest.name, best, time.monotonic() + limit_s
        tolerance = FP32_TOLERANCE if best.precision == FP32 else TOLERANCE
        names = " and ".join(self.chain.compilers)
        self.tell(f"{name}: trying {names}, {limit_s / 60:.3g} min at most; what is found is kept")

        def check() -> None:
            self.check()
            if time.monotonic() >= end_s:
                raise NotCompiled(f"the {limit_s / 60:.3g} min for compilers are over")

        for compiler in self.chain.compilers:
            form = replace(best, compiler=compiler)
            try:
                check()
                self.chain.use(form)
                outputs, taken_s = self._measured(batch_sizes(self.batch), check)
                difference = largest_difference(outputs, self.expected)
                if not difference <= tolerance:
                    raise NotCompiled(f"off by {100 * difference:.2g} % of the largest output")
            except Exception as error:
                if ends_trials(error):
                    raise
                self.tell(f"{name}: {left_out(compiler, error)}")
                continue
            self.tell(
                f"{name}: {compiler} takes {1e3 * taken_s:.3g} ms for a batch of {self.batch}, "
                f"what was fastest until then {1e3 * seconds:.3g}"
            )
            if taken_s < seconds:
                found, seconds = form, taken_s
        return found

    def run(self, precision: str) -> tuple[OutputsByBoundary, Form, float]:
        """In the faster layout: what frames of each boundary come to, and a batch's seconds."""
        forms = [Form(precision), Form(precision, channels_last=True)]
        found: list[tuple[OutputsByBoundary, Form, float]] = []
        for form in forms:
            self.chain.use(form)
            self._load()
            if form.channels_last and not self.chain.has_convolutions:
                continue
            outputs, seconds = self._measured((self.batch,), self.check)
            found.append((outputs, form, seconds))
        return min(found, key=lambda one: one[2])

    def _measured(self, sizes: Sequence[int], check: Check) -> tuple[OutputsByBoundary, float]:
        """Of the chain as it is, captured for batches of `sizes`."""
        capture_sizes(self.bundle, self.chain, sizes, self.tell, check)
        seconds, outputs = trial_s(self.bundle, self.chain, self.batch, check), self._outputs()
        self.expected = self.expected or outputs
        return outputs, seconds

    def _load(self) -> None:
        for segment in range(len(self.chain)):
            self.check()
            self.chain.load(segment)

    def _outputs(self) -> OutputsByBoundary:
        """Of each boundary's frames, which have float32's tensors, as those that devices send."""
        runner, boundaries = self._runner(), self.bundle.manifest.boundaries
        samples = synthetic_samples(self.bundle.manifest).inputs[: self.batch]
        if not self.exact:
            state = runner.enter(0, samples)
            for at, boundary in enumerate(boundaries[:-1]):
                self.exact.append({
                    spec.name: self.chain.fetch(state[spec.name]) for spec in boundary.tensors
                })  # fmt: skip
                state = runner.step(at, state, len(samples))
        return [self._from(runner, at, len(samples)) for at in range(len(boundaries) - 1)]

    def _from(self, runner: Runner, at: int, samples: int) -> Mapping[str, Array]:
        state: State = runner.enter(at, [self.exact[at]])
        for segment in range(at, len(self.chain)):
            self.check()
            state = runner.step(segment, state, samples)
        return runner.answers(state, [samples])[0]

    def _runner(self) -> Runner:
        boundaries = [boundary.tensors for boundary in self.bundle.manifest.boundaries]
        return Runner(self.chain, boundaries, self.chain.sizes)


def trial_s(bundle: Bundle, chain: SegmentChain, batch: int, check: Check) -> float:
    """Seconds for so many samples, from the input to the end."""
    interruptible = InterruptibleChain(chain, check)
    runner = Runner(interruptible, [boundary.tensors for boundary in bundle.manifest.boundaries])
    for segment in range(len(chain)):
        interruptible.load(segment)
    values = synthetic_samples(bundle.manifest).inputs[0]
    times = []
    for _ in range(1 + TRIAL_ROUNDS):
        start = time.perf_counter()
        state = runner.enter(0, [values] * batch)
        for segment in range(len(chain)):
            state = runner.step(segment, state, batch)
        chain.wait()
        times.append(time.perf_counter() - start)
    return statistics.median(times[1:])
