"""Training: steps of Adam, a running mean of what it finds, and an early end.

What is minimised is the divergence of the model's output, plus a share of the squared error in the
transform codec's metric, plus bits at the price that they have at a step. The metric alone is
wrong for a decoder that makes things up: it holds near the exact activation only. It keeps what
few pictures say of the output from being all that counts.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ..errors import LearnError
from ..significant import significant
from .codec_model import CodecModel, RunningMean, put
from .crop_store import CropStore
from .frozen_model import FrozenModel

# At fine steps an error of step^2 / 12 in each coefficient costs half of that, and a bit less makes
# it four times as much: a bit is worth ln 2 / 12 of step^2. Coarse steps give less for a bit.
BIT_WORTH = 0.05  # squared steps
METRIC_SHARE = 0.3
RATE, SCALE_RATE = 1.5e-3, 3.0  # of Adam; that of the coefficients' scales, times the former
WARM_UP, MOST_NORM, KEPT = 50, 1.0, 0.998
BATCH, TOGETHER_VALUES = 12, 1_000_000
CHECKS, LOOKED_AT = 20, 3  # looks at held-back pictures, and at how many steps each
# Looks without a gain that end it, in its second half: while steps are long, the mean moves about,
# and what short ones find comes only then.
PATIENCE = 4
SAVED_EVERY_S, SAID_EVERY_S = 20.0, 60.0
_TRIALS = 3

Told = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Regimen:
    """How long and how: `octaves` are the finest and the coarsest step, `bits` a usual payload's.

    `half` computes the rest of the model in bfloat16.
    """

    steps: int
    octaves: tuple[float, float]
    bits: float
    seed: int
    half: bool


class Trainer:
    """Trains `codec` on a store's crops; `held` are tensors that it never trains on."""

    def __init__(
        self,
        codec: CodecModel,
        model: FrozenModel,
        store: CropStore,
        held: torch.Tensor,
        course: Regimen,
    ) -> None:
        self.codec, self._model, self._store, self.course = codec, model, store, course
        self._held, self._device = held, model.device
        scales = [codec.coder.log_scale]
        networks = [p for n, p in codec.named_parameters() if not n.startswith("coder.")]
        self._adam = torch.optim.Adam(
            [{"params": networks, "times": 1.0}, {"params": scales, "times": SCALE_RATE}],
            betas=(0.9, 0.98),
        )
        self._mean = RunningMean(codec, KEPT)
        self._step, self._best, self._best_loss, self._stale = 0, self._mean.values, math.inf, 0
        self._is_whole = True  # whether parameters, moments and counts are of the same step
        # Of large maps fewer samples at a time, whose gradients add up: memory is bounded.
        self._together = max(min(TOGETHER_VALUES // math.prod(model.spec.shape), BATCH), 1)
        self.losses: list[float] = []  # of held-back pictures, at each look

    def run(self, path: Path, tell: Told) -> None:
        """Trains to the end, from where the file `path` says; the codec is the best mean then.

        `tell` is told of progress. Whatever breaks it off leaves a file to go on from.
        """
        self._restore(path)
        began_s = saved_s = time.monotonic()
        first, every, words, said_s = self._step, max(self.course.steps // CHECKS, 1), "", 0.0
        try:
            while self._step < self.course.steps and self._stale < PATIENCE:
                self._is_whole = False
                self._train()
                if self._step % every == 0 or self._step == self.course.steps:
                    self._look()
                self._is_whole = True
                if time.monotonic() - saved_s > SAVED_EVERY_S:
                    self._save(path)
                    saved_s = time.monotonic()
                now_s = time.monotonic()
                if not words or now_s - said_s > SAID_EVERY_S:
                    each_s, said_s = (now_s - began_s) / (self._step - first), now_s
                    left_s = each_s * (self.course.steps - self._step)
                    words = _in_words(left_s, self.losses)
                tell(words, self._step, self.course.steps)
        finally:
            if self._is_whole:  # else what was saved last is gone on with
                self._save(path)
        put(self.codec, self._best)

    def trial_s(self) -> float:
        """What a step takes, from a few of them; whatever they change stays changed."""
        took_s = []
        for _ in range(_TRIALS):
            began_s = time.perf_counter()
            self._train()
            took_s.append(time.perf_counter() - began_s)
        return min(took_s[1:])

    def _train(self) -> None:
        course, device = self.course, self._device
        random = torch.Generator().manual_seed(course.seed * 1_000_003 + self._step)
        numbers = torch.randint(0, len(self._store), (BATCH,), generator=random).tolist()
        exact = self._store.some(numbers).to(device)
        finest, coarsest = course.octaves
        octaves = finest + (coarsest - finest) * torch.rand(BATCH, 1, generator=random)
        octaves = octaves.to(device)
        answers = self._store.answers(numbers)
        for group in self._adam.param_groups:
            group["lr"] = RATE * group["times"] * self._pace()
        self._adam.zero_grad()
        for start in range(0, BATCH, self._together):
            part = slice(start, start + self._together)
            own = None if answers is None else answers[part]
            loss = self._loss(exact[part], octaves[part], own, random).sum() / BATCH
            if not bool(loss.isfinite()):
                raise LearnError(
                    f"the training lost its way at step {self._step}",
                    "give other pictures or another --seed",
                )
            loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(self.codec.parameters(), MOST_NORM)
        self._adam.step()
        self._mean.see()
        self._step += 1

    def _pace(self) -> float:
        done = self._step / self.course.steps
        return min(1.0, (self._step + 1) / WARM_UP) * (1 + math.cos(math.pi * min(done, 1))) / 2

    def _loss(
        self,
        exact: torch.Tensor,
        octaves: torch.Tensor,
        answers: torch.Tensor | None,
        noise: torch.Generator | None,
    ) -> torch.Tensor:
        """`[n]`, of each sample in what a usual payload costs at its step."""
        model, half = self._model, self.course.half
        if answers is None:
            with torch.no_grad():
                wanted = model.after(exact, half=half)
        else:
            wanted = {next(iter(model.manifest.outputs.values())): answers.to(self._device)}
        coded = self.codec(exact, octaves, noise)
        divergence = model.divergence(model.after(coded.arrived, half=half), wanted)
        error = self.codec.squared_error(coded.arrived, exact)
        worth = BIT_WORTH * torch.exp2(2 * octaves[:, 0])
        cost = divergence + METRIC_SHARE * error + worth * coded.bits
        found: torch.Tensor = cost / (worth * self.course.bits / 4)
        return found

    def _look(self) -> None:
        """How the mean does on pictures that it never saw; the best one is kept."""
        present = put(self.codec, self._mean.values)
        finest, coarsest = self.course.octaves
        losses: list[float] = []
        with torch.no_grad():
            for octaves in torch.linspace(finest, coarsest, LOOKED_AT):
                for exact in torch.split(self._held, self._together):
                    steps = octaves.expand(len(exact), 1).to(self._device)
                    losses += self._loss(exact.to(self._device), steps, None, None).tolist()
        put(self.codec, present)
        self.losses.append(sum(losses) / len(losses))
        self._stale += self._step > self.course.steps / 2
        if self.losses[-1] < self._best_loss:
            self._best_loss, self._stale = self.losses[-1], 0
            self._best = {name: value.clone() for name, value in self._mean.values.items()}

    def _save(self, path: Path) -> None:
        draft = path.with_name(f"{path.name}.draft")
        try:
            self._write(draft)
        except RuntimeError as error:  # what torch makes of a disk that is full
            raise LearnError(f"cannot write {draft} ({error})", "make room there") from error
        os.replace(draft, path)

    def _write(self, path: Path) -> None:
        torch.save(
            {
                "steps": self.course.steps,
                "step": self._step,
                "codec": dict(self.codec.named_parameters()),
                "adam": self._adam.state_dict(),
                "mean": self._mean.state(),
                "best": self._best,
                "best_loss": self._best_loss,
                "stale": self._stale,
                "losses": self.losses,
            },
            path,
        )
        with path.open("rb") as stream:
            os.fsync(stream.fileno())

    def _restore(self, path: Path) -> None:
        """Raises `LearnError` for a file that does not hold a state of this training."""
        if not path.is_file():
            return
        try:
            # Tensors and numbers only: nothing in it is code.
            state: dict[str, Any] = torch.load(path, map_location=self._device, weights_only=True)
            self._take(state)
        except Exception as error:  # torch and pickle raise whatever they meet
            raise LearnError(
                f"{path} cannot be gone on with ({type(error).__name__})",
                f"remove {path.parent}, and it begins anew",
            ) from error

    def _take(self, state: dict[str, Any]) -> None:
        put(self.codec, state["codec"])
        self._adam.load_state_dict(state["adam"])
        self._mean.restore(state["mean"]["values"], state["mean"]["seen"])
        self._step, self._best = state["step"], state["best"]
        self._best_loss, self._stale = state["best_loss"], state["stale"]
        self.losses = state["losses"]


def _in_words(left_s: float, losses: list[float]) -> str:
    """`training, 40 min left, loss 8.1`; in steps that a log can bear."""
    minutes = math.ceil(left_s / 60)
    if minutes > 10:
        minutes = math.ceil(minutes / 5) * 5
    loss = f", loss of held-back pictures {significant(losses[-1])}" if losses else ""
    return f"training, {minutes} min left{loss}"
