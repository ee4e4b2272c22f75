"""Which boundaries can have a learned codec."""

from __future__ import annotations

from splitpoint.codec.fkt.grid import Grid

from ..bundle.boundary import Boundary
from ..bundle.bundle import Manifest
from ..errors import LearnError

ARRAYS_REMEDY = (
    "`compile --calibrate DIR` fits the codec `fkt` to any inputs: use that for this model"
)


def check_boundary(manifest: Manifest, at: int) -> Boundary:
    """The boundary; `LearnError` where it, or the model, can have no learned codec."""
    if manifest.picture_tensor is None:
        raise LearnError(
            f"{manifest.name} takes no pictures, and `learn` trains on pictures alone",
            ARRAYS_REMEDY,
        )
    first = manifest.boundaries[0]
    if first.one_sample or len(first.tensors) != 1:
        what = "takes one sample at a time" if first.one_sample else "has several inputs"
        raise LearnError(
            f"{manifest.name} {what}, and `learn` trains on batches of pictures", ARRAYS_REMEDY
        )
    last = len(manifest.segments)
    if not 0 < at < last:
        what = {0: "is the model's input", last: "is the model's output"}.get(at, "does not exist")
        raise LearnError(f"boundary {at} of {manifest.name} {what}", _others(manifest))
    boundary = manifest.boundaries[at]
    why = _why_not(boundary)
    if why is not None:
        raise LearnError(f"boundary {at} {why}", _others(manifest))
    outputs = {spec.name: spec for spec in manifest.boundaries[-1].tensors}
    for name, tensor in manifest.outputs.items():
        spec = outputs[tensor]
        if spec.dtype != "float32" or spec.batch_dim or spec.shape[0] != 1:
            raise LearnError(
                f"the output {name!r} is no float32 tensor with a sample a row", ARRAYS_REMEDY
            )
    return boundary


def _others(manifest: Manifest) -> str:
    fitting = [str(b.id) for b in manifest.boundaries[1:-1] if _why_not(b) is None]
    return f"boundaries that can have one: {', '.join(fitting) or 'none'}"


def _why_not(boundary: Boundary) -> str | None:
    if len(boundary.tensors) != 1:
        return f"carries {len(boundary.tensors)} tensors, and a learned codec is of one"
    (spec,) = boundary.tensors
    if spec.dtype != "float32" or len(spec.shape) != 4 or spec.batch_dim or spec.shape[0] != 1:
        return f"carries {spec.dtype} {list(spec.shape)}, which is no stack of maps"
    grid = Grid.of(spec)
    if grid.prefix or tuple(grid.extents) != spec.shape[2:] or min(spec.shape[2:]) < 2:
        return f"carries {list(spec.shape)}, which is no stack of maps"
    return None
