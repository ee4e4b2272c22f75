"""Tables of a bundle that are damaged, or of something else."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from splitpoint.partition.bundle.bundle import Bundle, open_bundle
from splitpoint.partition.bundle.codec_tables import load_tables, save_tables
from splitpoint.partition.errors import BundleError


@pytest.fixture
def bundle(vivid_bundle: Bundle) -> Bundle:
    return vivid_bundle


def test_a_damaged_table_is_refused(bundle: Bundle, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(bundle.folder, tmp_path / "copy.split"))
    paths = sorted((folder / "codecs").iterdir())
    assert len(paths) == len(bundle.manifest.boundaries) - 2
    for path in paths:
        data = path.read_bytes()
        for place in (0, len(data) // 2, len(data) - 1):
            flipped = bytearray(data)
            flipped[place] ^= 1
            path.write_bytes(flipped)
            with pytest.raises(BundleError, match=path.name):
                open_bundle(folder)
        path.unlink()
        with pytest.raises(BundleError, match=path.name):
            open_bundle(folder)
        path.write_bytes(data)
    assert open_bundle(folder).digest == bundle.digest


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: b"",
        lambda data: b"no tables",
        lambda data: data[:-10],
        lambda data: data.replace(b"frequencies", b"frequencyes"),
        lambda data: data[:-4000] + bytes(4000),
    ],
)
def test_tables_that_are_none(
    bundle: Bundle, tmp_path: Path, damage: Callable[[bytes], bytes]
) -> None:
    """Whoever made the digest: what does not fit is refused in one line."""
    boundary = bundle.manifest.boundaries[1]
    data = bundle.path(boundary.tables).read_bytes()
    assert damage(data) != data
    (tmp_path / "t.safetensors").write_bytes(damage(data))
    with pytest.raises(BundleError, match="holds no codec tables") as caught:
        load_tables(tmp_path / "t.safetensors", boundary.tensors)
    assert "\n" not in str(caught.value)


def test_tables_of_another_tensor(bundle: Bundle) -> None:
    one, two = bundle.manifest.boundaries[1:3]
    assert one.tensors[0].shape != two.tensors[0].shape
    with pytest.raises(BundleError, match="does not fit"):
        load_tables(bundle.path(one.tables), two.tensors)


def test_a_disk_that_cannot_take_them_is_told_as_one(bundle: Bundle, tmp_path: Path) -> None:
    boundary = bundle.manifest.boundaries[1]
    tables = list(load_tables(bundle.path(boundary.tables), boundary.tensors).values())
    save_tables(tables, tmp_path / "again")
    assert (tmp_path / "again").read_bytes() == bundle.path(boundary.tables).read_bytes()
    with pytest.raises(OSError, match="none"):
        save_tables(tables, tmp_path / "none" / "tables")
