"""Why torch.export refused a model: what is wrong, where, and what to do, in one line.

torch names the reason anywhere in twenty lines, and the place not at all. The place is in the
frames: the innermost module that was being called, and the last line outside of torch.
"""

from __future__ import annotations

import logging
import re
import sys
import traceback
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from types import FrameType

import torch
from torch.nn.utils.rnn import PackedSequence

from ..errors import CaptureError
from ..quiet import quiet_torch

NMS = "runs a non-maximum suppression, whose output is as long as what it finds"
NMS_REMEDY = "return the backbone and the heads as the model, and suppress on their outputs"
_SUPPRESSION = {"nms", "batched_nms", "postprocess_detections", "filter_proposals"}
_FIXES = "fixes the batch size"

# What torch says (its exception's name and text on one line) -> what that means, and the remedy.
_SYMPTOMS: tuple[tuple[str, str, str], ...] = (
    (
        r"\(\(-1\) \+ \S*\*.*// .*== \d",  # rounded up: how many parts there are
        "divides the batch into parts (chunk, split), of which torch cannot count how many",
        "slice instead: z[: a.shape[0]] and z[a.shape[0] :] are the parts of torch.cat([a, b])",
    ),
    (
        r"Constraints violated|specialized it to be a constant|dimension .* static",
        _FIXES,
        "take it from x.shape[0], or write -1, and make no tensors and no Python loops of one size",
    ),
    (
        r"data-dependent|DataDependent|Cannot extract|specialized integer",
        "decides by the values of a tensor (in an if, a slice, int() or item())",
        "choose with torch.where, or export the part before it",
    ),
    (
        r"Cache'?>|\w+Cache\b",
        "returns a cache",
        "set model.config.use_cache = False, or pass use_cache=False in the ModelSpec's kwargs",
    ),
    (
        r"in output, which is not a known type|pytree",
        "returns an object that is no tensor",
        "return tensors alone, in tuples, lists, dicts or registered dataclasses",
    ),
    (
        r"\.numpy\(\)|numpy\.ndarray|__array__",
        "leaves torch for numpy",
        "write it in torch's operations",
    ),
    (
        r"uninitialized parameter",
        "has lazy layers that were never called",
        "call the model once before it is compiled",
    ),
    (
        r"__obj_flatten__|torch\.classes|ScriptObject",
        "holds an object that only torch's own runtime can read",
        "give the plain float model in Python",
    ),
    (
        r"nested|jagged|sparse",
        "uses a nested or sparse tensor",
        "use padded, dense ones",
    ),
)
_OTHERWISE = (
    "cannot be exported",
    "torch.export must accept it with a free batch size; try it alone to see all that torch says",
)


def explained(
    error: Exception,
    module: torch.nn.Module,
    call: Callable[[int | None], object],
    export: Callable[[], object],
    prefix: str,
) -> CaptureError:
    """What to tell of the `error` that an export of `module` ended with.

    `call` runs the model on so many samples of its example, or on all for None; `export` exports it
    once more. `prefix` is cut off the layers' names.
    """
    names = {id(part): name.removeprefix(prefix) for name, part in module.named_modules()}
    places = list(traceback.walk_tb(error.__traceback__))
    frames = [frame for frame, _ in places]
    if {frame.f_code.co_name for frame in frames} & _SUPPRESSION:
        return CaptureError(f"{_place(places, names)} {NMS}", NMS_REMEDY)
    if any(isinstance(v, PackedSequence) for frame in frames for v in frame.f_locals.values()):
        return CaptureError(
            f"{_place(places, names)} packs sequences by their lengths, which are values",
            "give the layer the padded sequences, and mask what it answers to padding",
        )
    failure = _failure_of(partial(call, None))
    if failure is not None:
        where = _place(traceback.walk_tb(failure.__traceback__), names)
        if _failure_of(partial(call, 1)) is None:
            return CaptureError(
                f"the model takes one sample at a time: with several it fails, in {where} "
                f"({reason_of(failure)})",
                "keep dimension 0 of every tensor for the batch, as in x.reshape(len(x), -1)",
            )
        return CaptureError(
            f"the model fails on its example inputs, in {where} ({reason_of(failure)})",
            "give a ModelSpec with inputs that the model takes; a plain module gets photos of "
            "224x224 pixels",
        )
    said = " ".join(f"{type(error).__name__}: {error}".split())
    found = ((what, remedy) for symptom, what, remedy in _SYMPTOMS if re.search(symptom, said))
    what, remedy = next(found, _OTHERWISE)
    where = _place(places, names)
    if what == _FIXES:
        where = _where_fixed(export, names) or where
    return CaptureError(f"{where} {what} ({reason_of(error)})", remedy)


def reason_of(error: BaseException) -> str:
    """The first lines of an exception that say something, as one of 300 characters at most."""
    telling: list[str] = []
    for line in str(error).splitlines():
        if _END.match(line.strip()):
            break
        telling.append(line.strip(" -"))
    text = " ".join(line for line in telling[:4] if line) or repr(error)
    return f"{type(error).__name__}: {_IDLE.sub('', text)}"[:300].strip()


# Where torch begins to talk of its own logs, and what it says within a line that helps nobody.
_END = re.compile(r"consider using|For more|For extended|Suggested fixes|Caused by|The following")
_IDLE = re.compile(
    r" For more information,? run with \S+| \(unhinted: .*?\)\.?| +\(Size-like symbols: .*?\)"
    r"| If you're using .*| If this type holds .*| This error happens .*"
)


def _failure_of(call: Callable[[], object]) -> Exception | None:
    try:
        with quiet_torch(), torch.no_grad():
            call()
    except Exception as failure:  # noqa: BLE001 - it is what the user is told
        return failure
    return None


def _place(places: Iterable[tuple[FrameType, int]], names: Mapping[int, str]) -> str:
    """`layer 'blocks.0' (net.py:35)`: the innermost module, and the last line outside of torch."""
    name, line = "", ""
    for frame, number in places:
        part = frame.f_locals.get("self")
        if isinstance(part, torch.nn.Module) and id(part) in names:
            name = names[id(part)]
        file = frame.f_code.co_filename
        if _is_the_users(file):
            line = f" ({Path(file).name}:{number})"
    return (f"layer {name!r}" if name else "the model") + line


_OURS = ("<", f"{Path(torch.__file__).parent}/", f"{Path(__file__).parent}/")
_STANDARD = f"{Path(logging.__file__).parents[1]}/"


def _is_the_users(file: str) -> bool:
    """Whether it is neither torch's, nor ours, nor of Python itself."""
    return not file.startswith(_OURS) and (
        "/site-packages/" in file or not file.startswith(_STANDARD)
    )


class _Watch(logging.Handler):
    """Remembers where torch gave up the free batch size: frames, and the lines of that moment."""

    def __init__(self) -> None:
        super().__init__()
        self.places: list[tuple[FrameType, int]] = []

    def emit(self, record: logging.LogRecord) -> None:
        if not self.places and str(record.msg).startswith("set_replacement"):
            frame: FrameType | None = sys._getframe()
            while frame is not None:
                self.places.insert(0, (frame, frame.f_lineno))
                frame = frame.f_back


def _where_fixed(export: Callable[[], object], names: Mapping[int, str]) -> str | None:
    """The place where an export fixes the batch size; torch logs it, and says it nowhere else."""
    logger = logging.getLogger("torch.fx.experimental.symbolic_shapes")
    watch, level, passes_on = _Watch(), logger.level, logger.propagate
    others, logger.handlers = logger.handlers, [watch]  # torch has one there that writes to stderr
    logger.setLevel(logging.INFO)
    logger.propagate = False
    try:
        _failure_of(export)  # it fails as before; it is the place that is wanted
    finally:
        logger.handlers = others
        logger.setLevel(level)
        logger.propagate = passes_on
    return _place(watch.places, names) if watch.places else None
