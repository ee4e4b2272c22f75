"""The tables of a bundle's codecs: a safetensors file a boundary and codec, arrays by number."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from safetensors import SafetensorError
from safetensors.numpy import load_file, save
from splitpoint.codec import CodecError, TensorSpec
from splitpoint.codec.fkt.table import ARRAYS, FktTable

from ..errors import BundleError
from .learned_files import LEARN_AGAIN

# A tensor's name may hold anything, so the file numbers them in the boundary's order; of a learned
# codec it numbers the levels.
_KEY = "{index}.{array}"


def save_tables(tables: Sequence[FktTable | None], path: Path) -> None:
    """Writes those that are there, one for each of a boundary's tensors or of a codec's levels.

    Raises `OSError` where it cannot.
    """
    arrays = {
        _KEY.format(index=index, array=name): array
        for index, table in enumerate(tables)
        if table is not None
        for name, array in table.to_arrays().items()
    }
    path.write_bytes(save(arrays))  # its own `save_file` has no `OSError` for a disk that is full


def load_tables(path: Path, specs: Sequence[TensorSpec]) -> dict[str, FktTable]:
    """The tables by tensor; `BundleError` for a file that does not hold them."""
    found = _tables(path, specs)
    return {spec.name: table for spec, table in zip(specs, found, strict=True) if table is not None}


def load_levels(path: Path, spec: TensorSpec, levels: int) -> list[FktTable]:
    """A table for each level of a tensor; `BundleError` for a file that does not hold them."""
    found = [table for table in _tables(path, [spec] * levels) if table is not None]
    if len(found) != levels or any(table.levels != 1 for table in found):
        raise BundleError(f"{path} has not a table for each level", LEARN_AGAIN)
    return found


def _tables(path: Path, specs: Sequence[TensorSpec]) -> list[FktTable | None]:
    try:
        arrays = load_file(path)
        return [
            FktTable.from_arrays(
                spec, {name: arrays[_KEY.format(index=index, array=name)] for name in ARRAYS}
            )
            if _KEY.format(index=index, array=ARRAYS[0]) in arrays
            else None
            for index, spec in enumerate(specs)
        ]
    except (CodecError, SafetensorError, OSError, KeyError, ValueError) as error:
        raise _without_tables(path, error) from error


def _without_tables(path: Path, why: object) -> BundleError:
    return BundleError(f"{path} holds no codec tables ({why})", "compile it again")
