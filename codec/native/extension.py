"""The extension module, if there is one that fits, and else why not."""

from __future__ import annotations

import importlib
import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from .whole import damage_of

LAYOUT = 2  # of the arrays that go to the loops: SP_LAYOUT of loops.h
FUNCTIONS = (
    "write", "read", "raw_bits", "pick", "outliers", "quantise", "place", "narrow", "spread",
    "centre", "restore", "in_blocks", "expect", "ring_energies", "order_plan", "affine_symbols",
    "affine_values", "pack_nibbles", "unpack_nibbles",
)  # fmt: skip

Extension = Any  # a module whose functions are those of `FUNCTIONS`
_NAME = "splitpoint.codec.native._loops"


def load(name: str = _NAME) -> tuple[Extension | None, str]:
    """The module and "", or None and why it is not used, in one line."""
    try:
        spec = importlib.util.find_spec(name)
        if spec is not None and spec.origin is not None:
            library = Path(spec.origin)
            if damage := damage_of(library, library.parents[name.count(".")]):
                return None, f"{damage}: install splitpoint again ({library})"
        found = importlib.import_module(name)
    except ModuleNotFoundError:
        return None, "it was not built: for that pip needs a C compiler and Python's headers"
    except (ImportError, SystemError, OSError, ValueError) as error:
        reason = " ".join(str(error).split())
        return None, f"it is damaged, or made for another machine or Python ({reason[:120]})"
    layout = getattr(found, "LAYOUT", None)
    if layout != LAYOUT:
        return None, f"it is of another version of splitpoint (layout {layout!r}, not {LAYOUT})"
    missing = [function for function in FUNCTIONS if not callable(getattr(found, function, None))]
    if missing:
        return None, f"it lacks {', '.join(missing)}"
    return found, ""


EXTENSION, _why_not = load()


def readable(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """The array as the extension takes it: contiguous and aligned, a copy only where it is not.

    A user's array may be any view, such as of a message at an odd offset.
    """
    found: npt.NDArray[Any] = np.require(array, requirements=("C", "ALIGNED"))
    return found


def why_not() -> str:
    """Why `EXTENSION` is None; "" where it is there."""
    return _why_not
