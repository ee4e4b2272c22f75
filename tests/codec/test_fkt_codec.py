"""The transform codec at a boundary: several tensors, levels, threads, and no torch."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from fkt_tables import (
    MAP,
    codec_of,
    like_calibration,
    spec_of,
    table_of,
)
from splitpoint.codec import (
    NO_TABLES,
    CodecError,
    CodecSet,
    TensorSpec,
    codec_of_tensor,
)
from splitpoint.codec.fkt.table import FktTable

COUNTS = TensorSpec(name="counts", dtype="int64", shape=(1, 5), batch_dim=0)


def loader(boundary: int) -> dict[str, FktTable]:
    return {"x": table_of(MAP)} if boundary == 3 else {}


def test_boundary_of_two_tensors_sends_integers_raw() -> None:
    codec = CodecSet(loader).named("fkt@4", 3)
    assert codec_of_tensor(codec, MAP) is codec
    raw = codec_of_tensor(codec, COUNTS)
    assert raw.name == "raw"
    assert raw.name != codec.name == "fkt@4"
    counts = np.arange(10).reshape(2, 5)
    np.testing.assert_array_equal(raw.decode(raw.encode(counts, COUNTS), COUNTS, 2), counts)
    array = like_calibration(MAP, 2)
    decoded = codec.decode(codec.encode(array, MAP), MAP, 2)
    np.testing.assert_allclose(decoded, array, atol=0.5 * array.std())


def test_boundary_of_two_calibrated_tensors_keeps_them_apart() -> None:
    other = spec_of((1, 17, 12), name="y")
    known = CodecSet(lambda boundary: {"x": table_of(MAP), "y": table_of(other)})
    codec = known.named("fkt@2", 0)
    for spec in (MAP, other):
        array = like_calibration(spec)
        payload = codec.encode(array, spec)
        assert payload == codec_of(spec, 2).encode(array, spec)
        assert codec.decode(payload, spec, 1).shape == spec.shape


def test_boundary_without_tables_names_the_remedy() -> None:
    for known in (CodecSet(loader), NO_TABLES):
        for name in ("fkt@1", "fkt", "fkt@99"):
            with pytest.raises(CodecError, match="boundary 0") as caught:
                known.named(name, 0)
            assert "--calibrate" in caught.value.remedy


@pytest.mark.parametrize(
    "setting",
    ["", "@", "@0", "@9", "@-1", "@+1", "@1.0", "@ 1", "@1 ", "@²", "@001", "@1@1", "@x" * 50],
)
@pytest.mark.parametrize("base", ["fkt", "fkt-video"])
def test_unknown_level_is_refused(base: str, setting: str) -> None:
    with pytest.raises(CodecError, match="unknown codec") as caught:
        CodecSet(loader).named(base + setting, 3)
    assert f"@{table_of(MAP).levels}" in caught.value.remedy
    assert len(str(caught.value)) < 200


def test_level_must_be_one_of_all_tensors() -> None:
    arrays = table_of(MAP).to_arrays()
    few = {name: arrays[name][:2] for name in ("log_step", "lanes")}
    short = FktTable.from_arrays(MAP, arrays | few)
    known = CodecSet(lambda boundary: {"x": table_of(MAP), "y": short})
    known.named("fkt@2", 0)
    with pytest.raises(CodecError, match="unknown codec"):
        known.named("fkt@3", 0)


def test_tables_are_loaded_once_and_other_codecs_need_none() -> None:
    asked: list[int] = []

    def load(boundary: int) -> dict[str, FktTable]:
        asked.append(boundary)
        return loader(boundary)

    known = CodecSet(load)
    assert known.named("q8", 3).name == "q8"
    assert known.named("raw", 0).name == "raw"
    assert asked == []
    first = known.named("fkt@1", 3)
    assert known.named("fkt@1", 3) is first
    known.named("fkt@2", 3)
    assert asked == [3]
    with pytest.raises(CodecError, match="unknown codec"):
        known.named("fktx@1", 3)


# --- threads, and no torch ---


def test_codec_is_shared_between_threads() -> None:
    table = FktTable.from_arrays(MAP, table_of(MAP).to_arrays())
    codec = CodecSet(lambda boundary: {"x": table}).named("fkt@4", 0)
    arrays = [like_calibration(MAP, 2, seed) for seed in range(2_000, 2_008)]
    expected = [codec_of(MAP, 4).encode(array, MAP) for array in arrays]
    with ThreadPoolExecutor(4) as pool:
        payloads = list(pool.map(lambda array: codec.encode(array, MAP), arrays))
        assert payloads == expected
        decoded = list(pool.map(lambda payload: codec.decode(payload, MAP, 2), payloads))
    for found, payload in zip(decoded, expected, strict=True):
        np.testing.assert_array_equal(found, codec_of(MAP, 4).decode(payload, MAP, 2))


WITHOUT_TORCH = """
import sys
class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("torch", "torchvision", "onnx", "scipy", "skimage"):
            raise ModuleNotFoundError(name + " is blocked", name=name)
sys.meta_path.insert(0, Blocker())
import numpy as np
from splitpoint.codec import CodecSet, TensorSpec
from splitpoint.codec.fkt.table import FktTable
folder, shape = sys.argv[1], tuple(map(int, sys.argv[2].split(",")))
spec = TensorSpec(name="x", dtype="float32", shape=shape, batch_dim=0)
with np.load(folder + "/table.npz") as arrays:
    table = FktTable.from_arrays(spec, dict(arrays))
codec = CodecSet(lambda boundary: {"x": table}).named("fkt@4", 0)
payload = codec.encode(np.load(folder + "/array.npy"), spec)
np.save(folder + "/decoded.npy", codec.decode(payload, spec, 2))
open(folder + "/payload", "wb").write(payload)
stream = CodecSet(lambda boundary: {"x": table}).named("fkt-video@4", 0)
assert stream.encode(np.load(folder + "/array.npy")[:1], spec)
assert "torch" not in sys.modules
"""


def test_edge_encodes_and_decodes_without_torch(tmp_path: Path) -> None:
    """And in another process the same table writes the same bytes."""
    array = like_calibration(MAP, 2)
    np.savez(tmp_path / "table.npz", **table_of(MAP).to_arrays())
    np.save(tmp_path / "array.npy", array)
    shape = ",".join(map(str, MAP.shape))
    done = subprocess.run(
        [sys.executable, "-W", "error::RuntimeWarning", "-c", WITHOUT_TORCH, str(tmp_path), shape],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    codec, payload = codec_of(MAP, 4), (tmp_path / "payload").read_bytes()
    assert payload == codec.encode(array, MAP)
    np.testing.assert_array_equal(np.load(tmp_path / "decoded.npy"), codec.decode(payload, MAP, 2))
