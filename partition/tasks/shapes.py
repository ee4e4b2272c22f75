"""Whether the model's outputs have the shapes that a head reads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from splitpoint.codec import TensorSpec

from ..errors import TaskError

_MOST_SHOWN = 4  # outputs in a message


def sizes_of(
    head: str, outputs: Mapping[str, TensorSpec], expects: Sequence[str]
) -> dict[str, int]:
    """The extents that `expects` names, as `{"classes": 80, "boxes": 8400}`.

    Each of it is the shape of one output, as `[batch, 4 + classes, boxes]`: a person reads it in
    the message, and this function checks it. Raises `TaskError` for outputs that do not have those
    shapes, or that are no floats.
    """
    sizes: dict[str, int] = {}
    pairs = zip(expects, outputs.values(), strict=False)
    if len(expects) != len(outputs) or not all(_fits(shape, spec, sizes) for shape, spec in pairs):
        raise misfit(head, outputs, expects)
    return sizes


def misfit(head: str, outputs: Mapping[str, TensorSpec], expects: Sequence[str]) -> TaskError:
    """The error of a head that was given these outputs."""
    found = [f"{name[:60]!r} {_shown(spec)}" for name, spec in outputs.items()]
    more = f" and {len(found) - _MOST_SHOWN} more" if len(found) > _MOST_SHOWN else ""
    expected = ", ".join(expects)
    return TaskError(
        f"the head {head} does not read the model's {', '.join(found[:_MOST_SHOWN])}{more}",
        f"it reads floats {expected}; name the outputs in that order, or another head",
    )


def _shown(spec: TensorSpec) -> str:
    extents: list[object] = list(spec.shape)
    if spec.shape[spec.batch_dim] == 1:
        extents[spec.batch_dim] = "batch"
    return f"{spec.dtype} [{', '.join(map(str, extents))}]"


def _fits(shape: str, spec: TensorSpec, sizes: dict[str, int]) -> bool:
    """Whether a shape is that of the spec; its names come into `sizes`."""
    extents = shape.strip("[]").split(", ")
    if len(extents) != len(spec.shape) or not spec.dtype.startswith("float"):
        return False
    if spec.batch_dim != 0 or spec.shape[0] != 1:
        return False
    for extent, size in zip(extents[1:], spec.shape[1:], strict=True):
        terms = extent.split(" + ")
        rest = size - sum(int(term) for term in terms if term.isdigit())
        names = [term for term in terms if not term.isdigit()]
        if not names and rest:
            return False
        if names and (rest < 1 or sizes.setdefault(names[0], rest) != rest):
            return False
    return True
