"""The transform codec's tables in a bundle: one safetensors file a boundary, arrays by tensor."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file
from splitpoint.codec import CodecError, TensorSpec
from splitpoint.codec.codec_set import CodecSet
from splitpoint.codec.fkt.table import ARRAYS, FktTable

from ..errors import BundleError
from .bundle import Manifest

# A tensor's name may hold anything, so the file numbers them in the boundary's order.
_KEY = "{index}.{array}"


def save_tables(tables: Sequence[FktTable | None], path: Path) -> None:
    """Writes one table for each of a boundary's tensors that has one."""
    save_file(
        {
            _KEY.format(index=index, array=name): array
            for index, table in enumerate(tables)
            if table is not None
            for name, array in table.to_arrays().items()
        },
        path,
    )


def load_tables(path: Path, specs: Sequence[TensorSpec]) -> dict[str, FktTable]:
    """The tables by tensor; `BundleError` for a file that does not hold them."""
    try:
        arrays = load_file(path)
        return {
            spec.name: FktTable.from_arrays(
                spec, {name: arrays[_KEY.format(index=index, array=name)] for name in ARRAYS}
            )
            for index, spec in enumerate(specs)
            if _KEY.format(index=index, array=ARRAYS[0]) in arrays
        }
    except (CodecError, SafetensorError, OSError, KeyError, ValueError) as error:
        raise BundleError(f"{path} holds no codec tables ({error})", "compile it again") from error


def codecs_of(manifest: Manifest, folder: Path) -> CodecSet:
    """The codecs of a bundle whose files lie, or will lie by then, in `folder`."""

    def load(boundary: int) -> Mapping[str, FktTable]:
        found = manifest.boundaries[boundary]
        return load_tables(folder / found.tables, found.tensors) if found.tables else {}

    return CodecSet(load)
