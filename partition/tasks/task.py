"""What a model is for: `classify`, `detect`, `segment`, or `raw`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, TypeVar

from splitpoint.codec import SplitpointError, TensorSpec

from ..errors import TaskError
from .head import Head, Limits
from .heads import HEADS, DetectForm
from .user_head import USER_KINDS, allowed_head, is_user_head, open_user_head

KINDS = ("classify", "detect", "segment", "raw")
MOST_DETECTIONS = 1000
_MOST_OUTPUTS, _LONGEST_NAME = 64, 1000
_SHARES = ("min_score", "max_iou")

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """What the outputs are, and which of it is the answer.

    `head` is a name in `HEADS`, or that of a user's function (see user_head.py), which answers with
    the tensors of `answer`; empty where the outputs are the answer, as of `classify` and `raw`.
    `outputs` are the model's outputs in the head's order, by the user's names; none stands for all
    of the model's, in its own order. The rest is for `detect`: detections below `min_score` are
    not in the answer, nor one with an IoU of more than `max_iou` with a better one of its class (1:
    they may lie where they want), nor more than `max_detections` in all.

    Raises `TaskError` on construction for values that no head can work with.
    """

    kind: str
    head: str = ""
    outputs: tuple[str, ...] = ()
    min_score: float = 0.05
    max_iou: float = 0.5
    max_detections: int = 100
    answer: tuple[TensorSpec, ...] = ()

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise TaskError(f"unknown task {_cut(self.kind)}", f"use one of {', '.join(KINDS)}")
        known = [name for name, form in HEADS.items() if form.kind == self.kind]
        users = self.kind in USER_KINDS and is_user_head(self.head)
        if self.head not in (known or [""]) and not users:
            remedy = f"use one of {', '.join(known)}" if known else "name none"
            if is_user_head(self.head):
                remedy = f"a function of yours answers {', '.join(USER_KINDS)}: say which by --task"
            raise TaskError(f"the task {self.kind} has no head {_cut(self.head)}", remedy)
        if not _are_names(self.outputs):
            raise TaskError(
                f"{_cut(self.outputs)} are no names of outputs",
                f"give a list of at most {_MOST_OUTPUTS} different ones",
            )
        for name in _SHARES:
            value = getattr(self, name)
            if type(value) not in (int, float) or not 0 <= value <= 1:
                raise TaskError(f"{name} is {_cut(value)}", "give a number from 0 to 1")
        if self.answer and not users:
            raise TaskError("an answer that is said beside a head of ours", "leave it out")
        most = self.max_detections
        if type(most) is not int or not 1 <= most <= MOST_DETECTIONS:
            raise TaskError(f"max_detections is {_cut(most)}", f"use 1 to {MOST_DETECTIONS}")

    @classmethod
    def of_head(cls, head: str, outputs: tuple[str, ...] = (), **others: Any) -> Task:
        """The task of a head, with the `max_iou` that is usual for its models.

        Raises `TaskError` for a head that is not known.
        """
        if is_user_head(head):
            return cls(head=head, outputs=outputs, **{"kind": "raw", "max_iou": 1.0, **others})
        if head not in HEADS:
            known = f"use one of {', '.join(HEADS)}, or module:function of your own"
            raise TaskError(f"unknown head {_cut(head)}", known)
        form = HEADS[head]
        usual: dict[str, Any] = {"kind": form.kind}
        if isinstance(form, DetectForm):
            usual["max_iou"] = form.max_iou
        return cls(head=head, outputs=outputs, **{**usual, **others})

    @property
    def limits(self) -> Limits:
        """Which detections are in an answer."""
        return Limits(
            min_score=self.min_score, max_iou=self.max_iou, max_detections=self.max_detections
        )

    def check_allowed(self) -> None:
        """Raises `TaskError` where this process may not run the function that is the head."""
        if is_user_head(self.head):
            allowed_head(self.head)

    def open(
        self, outputs: Mapping[str, TensorSpec], input_size_px: tuple[int, int] | None
    ) -> Head | None:
        """The head for a model with these outputs, by the user's names; None where there is none.

        `input_size_px` is the height and width of the model's input, None where that is no picture.
        Raises `TaskError` for outputs that the head does not read.
        """
        if not self.head:
            return None
        chosen = self.chosen(outputs)
        if is_user_head(self.head):
            return open_user_head(self.head, self.kind, chosen, self.answer, self.limits)
        return HEADS[self.head].open(self.head, chosen, input_size_px, self.limits)

    def chosen(self, outputs: Mapping[str, T]) -> dict[str, T]:
        """Those that the head reads, in its order; `TaskError` where one is not there."""
        for name in self.outputs:
            if name not in outputs:
                has = ", ".join(outputs)
                raise TaskError(f"the model has no output {_cut(name)}", f"it has {has[:300]}")
        return {name: outputs[name] for name in self.outputs or outputs}

    def to_json(self) -> dict[str, Any]:
        """The manifest's form; `from_json` reads it back."""
        found = {**asdict(self), "outputs": list(self.outputs)}
        del found["answer"]
        if self.answer:
            found["answer"] = [spec.to_json() for spec in self.answer]
        return found

    @classmethod
    def from_json(cls, data: Any) -> Task:
        """Reads the manifest's form; `TaskError` for anything else, whoever wrote it."""
        names = {field.name for field in fields(cls)} - {"answer"}
        if not isinstance(data, Mapping) or set(data) - {"answer"} != names:
            raise TaskError(
                "a task is malformed", f"it has {', '.join(sorted(names))}, and no more"
            )
        outputs = data["outputs"]
        if not isinstance(outputs, list):
            raise TaskError(f"{_cut(outputs)} are no names of outputs", "give a list of them")
        try:
            answer = tuple(TensorSpec.from_json(spec) for spec in data.get("answer", ()))
        except (SplitpointError, LookupError, TypeError, ValueError, AttributeError) as error:
            raise TaskError("an answer of no tensors", "give the specification of each") from error
        return cls(**{**data, "outputs": tuple(outputs), "answer": answer})


def _are_names(outputs: object) -> bool:
    if not isinstance(outputs, tuple) or len(outputs) > _MOST_OUTPUTS:
        return False
    names = [name for name in outputs if isinstance(name, str) and 0 < len(name) <= _LONGEST_NAME]
    return len(set(names)) == len(outputs)


def _cut(value: object) -> str:
    """As much of a value as a line may hold, whoever made it up."""
    try:
        return ascii(value)[:60]
    except (ValueError, RecursionError):  # a number of thousands of digits, lists in lists
        return "something too large"
