"""Heads that a user wrote: functions of numpy that this process was told to trust, by name.

A bundle holds such a function's name and never its code, and a name brings nothing about: what is
imported is what `allow_head` was called with, by whoever started the process, and nothing else.
"""

from __future__ import annotations

import importlib
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from traceback import format_exception_only
from typing import Any

import numpy as np
from splitpoint.codec import Array, TensorSpec

from ..errors import TaskError
from .box_decoders import boxes_of_six
from .detect_head import DetectHead
from .detections import Detections, detections_spec
from .head import Head, Limits
from .segment_head import LONGEST_SIDE, class_map_spec

UserFunction = Callable[[dict[str, Array]], Any]
"""From the outputs of one sample, by the user's names and without the batch, to its answer."""

USER_KINDS = ("detect", "segment", "raw")
MOST_ANSWER_BYTES = 1 << 26  # of a sample: few bytes of a reply would become so many in memory
_NAME = re.compile(r"[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*:[A-Za-z_]\w*", re.ASCII)
_LONGEST_NAME, _MOST_SHOWN = 200, 200  # characters
_MOST_TENSORS = 64
_RETURNS = {
    "detect": "an array [n, 6] of x0, y0, x1, y1 in pixels of the input, score, class",
    "segment": f"an array uint8 [height, width] of classes, of at most {LONGEST_SIDE} a side",
    "raw": f"a dict of 1 to {_MOST_TENSORS} arrays of numbers by name, none of them empty, of "
    f"{MOST_ANSWER_BYTES >> 20} MB in all at most",
}

_allowed: dict[str, UserFunction] = {}


def is_user_head(head: object) -> bool:
    """Whether it is the name of a function, `package.module:function`, and not one of `HEADS`."""
    return isinstance(head, str) and len(head) <= _LONGEST_NAME and bool(_NAME.fullmatch(head))


def allow_head(head: str) -> None:
    """Imports the function `package.module:function`, from the working folder too, and trusts it.

    From then on, bundles that name it can be run in this process. Raises `TaskError` where it
    cannot be had.
    """
    if not is_user_head(head):
        raise TaskError(f"{head[:60]!r} names no function", "write it as package.module:function")
    module_name, _, name = head.partition(":")
    sys.path.insert(0, "")
    try:
        function = getattr(importlib.import_module(module_name), name, None)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # `sys.exit` too
        raise TaskError(
            f"the head {head} cannot be imported ({_words(error)})",
            "have its module in this folder, or installed",
        ) from error
    finally:
        with suppress(ValueError):  # the module may have edited the path
            sys.path.remove("")
    if function is None:
        raise TaskError(f"{module_name!r} has no function {name!r}", "name one that it defines")
    if not callable(function):
        what = type(function).__name__
        raise TaskError(f"{head} is no function ({what})", "name one that can be called")
    _allowed[head] = function


def allowed_head(head: str) -> UserFunction:
    """The function of that name; `TaskError` where nobody has allowed it."""
    if head not in _allowed:
        raise TaskError(
            f"the model answers by the function {head}, which is not allowed here",
            f"if you have its module and trust it, name it: --allow-head {head}",
        )
    return _allowed[head]


def answer_specs(
    head: str, kind: str, sample: Mapping[str, Array], limits: Limits
) -> tuple[TensorSpec, ...]:
    """The tensors that the function's answers are, seen on the outputs of one sample.

    Raises `TaskError` for a function that fails, or whose answer is none of its `kind`.
    """
    found = _called(head, sample)
    if kind == "detect":
        _rows(head, found)
        return (detections_spec(limits.max_detections),)
    try:
        specs = tuple(
            TensorSpec(name=name, dtype=str(value.dtype), shape=(1, *value.shape), batch_dim=0)
            for name, value in _arrays(head, kind, found).items()
        )
        check_answer(kind, specs, limits)
    except Exception as error:
        raise _misfit(head, kind, found) from error
    return specs


def check_samples(head: str, outputs: Mapping[str, TensorSpec]) -> None:
    """Raises `TaskError` for outputs from which a sample cannot be taken."""
    for name, spec in outputs.items():
        if spec.batch_dim != 0 or spec.shape[0] != 1:
            raise TaskError(
                f"the head {head} is called for each sample, and the output {name[:60]!r} is "
                f"{list(spec.shape)}",
                "return outputs whose first dimension is the batch",
            )


def check_answer(kind: str, specs: Sequence[TensorSpec], limits: Limits) -> None:
    """Raises `TaskError` for tensors that no head of that kind answers with, whoever names them."""
    good = len({spec.name for spec in specs}) == len(specs)
    good = good and 0 < len(specs) <= _MOST_TENSORS
    good = good and all(
        spec.batch_dim == 0
        and spec.shape[0] == 1
        and not spec.one_sample
        and 0 < len(spec.name) <= _LONGEST_NAME
        for spec in specs
    )
    if kind == "detect":
        good = list(specs) == [detections_spec(limits.max_detections)]
    elif good and kind == "segment":
        sides = specs[0].shape[1:]
        good = len(sides) == 2 and list(specs) == [class_map_spec(*sides)]
        good = good and max(sides) <= LONGEST_SIDE
    if not good or sum(spec.nbytes_at(1) for spec in specs) > MOST_ANSWER_BYTES:
        raise TaskError(
            f"no head of the task {kind} answers so", f"it returns {_RETURNS.get(kind, 'nothing')}"
        )


def open_user_head(
    head: str,
    kind: str,
    outputs: Mapping[str, TensorSpec],
    answer: Sequence[TensorSpec],
    limits: Limits,
) -> Head:
    """The head, which reads these outputs. It needs its function when it is first asked.

    Raises `TaskError` for outputs without a batch, and for an answer that no head gives.
    """
    check_samples(head, outputs)
    check_answer(kind, answer, limits)
    if kind != "detect":
        return UserHead(head, kind, tuple(outputs), answer)

    def decode(arrays: Sequence[Array], min_score: float) -> Detections:
        rows = _rows(head, _called(head, dict(zip(outputs, arrays, strict=True))))
        return boxes_of_six([rows], min_score)

    return DetectHead(tuple(outputs), decode, None, (1.0, 1.0), limits, None)


class UserHead:
    """Answers with what a user's function returns, each time in the tensors of `specs`."""

    classes: int | None = None

    def __init__(
        self, head: str, kind: str, outputs: Sequence[str], specs: Sequence[TensorSpec]
    ) -> None:
        self._head, self._kind, self._outputs = head, kind, tuple(outputs)
        self.specs = tuple(specs)

    def answer(self, outputs: Mapping[str, Array]) -> dict[str, Array]:
        """See `Head`; `TaskError` where the function fails, or answers in other tensors."""
        given = [np.asarray(outputs[name]) for name in self._outputs]
        samples = len(given[0])
        found = {s.name: np.empty(s.shape_at(samples), s.numpy_dtype) for s in self.specs}
        expected = {s.name: (s.numpy_dtype, s.shape[1:]) for s in self.specs}
        for number in range(samples):
            sample = {name: a[number] for name, a in zip(self._outputs, given, strict=True)}
            made = _called(self._head, sample)
            arrays = _arrays(self._head, self._kind, made)
            forms = {name: (value.dtype, value.shape) for name, value in arrays.items()}
            if forms != expected:
                before = ", ".join(f"{s.name!r} {_form(s.dtype, s.shape[1:])}" for s in self.specs)
                raise TaskError(
                    f"the head {self._head} returned {_shown(made)}, and {before[:_MOST_SHOWN]} "
                    "when it was compiled",
                    "have it answer in the same names, dtypes and shapes for every sample",
                )
            for name, value in arrays.items():
                found[name][number] = value
        return found

    def information(self, outputs: Mapping[str, Array]) -> dict[str, Array]:
        """See `Head`: nothing is known of a user's function."""
        return {}


def _called(head: str, sample: Mapping[str, Array]) -> Any:
    function = allowed_head(head)
    views = {name: array.view() for name, array in sample.items()}
    for view in views.values():
        view.flags.writeable = False  # others may read the same memory
    try:
        return function(views)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # `sys.exit` too: it would end the event loop that waits
        words = _words(error)
        raise TaskError(f"the head {head} fails ({words})", "correct the function") from error


def _words(error: BaseException) -> str:
    """An exception in one line; there are exceptions that cannot even say what they are."""
    return " ".join("".join(format_exception_only(type(error), error)).split())[:200]


def _arrays(head: str, kind: str, found: Any) -> dict[str, Array]:
    """What a function returned, by name; `TaskError` where there are none."""
    named = {"classes": found} if kind == "segment" else found
    if not isinstance(named, Mapping):
        raise _misfit(head, kind, found)
    try:
        return {str(name): np.asarray(value) for name, value in named.items()}
    except Exception as error:
        raise _misfit(head, kind, found) from error


def _rows(head: str, found: Any) -> Array:
    try:
        rows = np.asarray(found, np.float32)
    except Exception as error:
        raise _misfit(head, "detect", found) from error
    if rows.size == 0:
        return rows.reshape(0, 6)
    if rows.ndim != 2 or rows.shape[1] != 6:
        raise _misfit(head, "detect", rows)
    return rows


def _misfit(head: str, kind: str, found: Any) -> TaskError:
    return TaskError(
        f"the head {head} returned {_shown(found)}",
        f"for the task {kind}, return {_RETURNS[kind]}",
    )


def _shown(found: Any) -> str:
    """What a function returned: its type, or the dtype and shape of each array."""
    if isinstance(found, np.ndarray):
        return _form(found.dtype, found.shape)
    what = type(found).__name__
    if not isinstance(found, Mapping):
        return what
    try:
        parts = (f"{name!r} {_shown_part(value)}" for name, value in found.items())
        return f"{what} of {', '.join(parts) or 'nothing'}"[:_MOST_SHOWN]
    except Exception:  # noqa: BLE001 - a mapping, names or values of anybody's making
        return what


def _shown_part(value: Any) -> str:
    try:
        array = np.asarray(value)
    except Exception:  # noqa: BLE001 - lists of several lengths, of themselves, ...
        return f"{type(value).__name__} that is no array"
    return _form(array.dtype, array.shape)


def _form(dtype: object, shape: Sequence[int]) -> str:
    return f"{dtype} {list(shape)}"
