"""The learned codec between made-up networks: what it writes, reads and refuses."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pytest
from fkt_tables import MAP, like_calibration, table_of
from hypothesis import given
from hypothesis import strategies as st
from splitpoint.codec import Array, Codec, CodecError, CodecSet, Packing, SpecError, StreamCodec
from splitpoint.codec.codec_set import LearnedParts
from splitpoint.codec.fkt.codec import Fkt
from splitpoint.codec.fkt.coefficients import CoefficientCoder
from splitpoint.codec.fkt.table import OCTAVE, FktTable, Level
from splitpoint.codec.fkt.video import DIFFERENCE, KEY, KeyFrameNeeded
from splitpoint.codec.learned import PackedLearned

AT = 3


class Doubling:
    """Latents are twice the tensor, and a little more where steps are coarse."""

    boundary, can_decode = AT, True

    def load_encoder(self) -> None:
        """It is here."""

    def encoded(self, tensor: Array, octaves: float) -> Array:
        return np.asarray(tensor * np.float32(2) + np.float32(octaves))

    def decoded(self, latent: Array, octaves: float) -> Array:
        return np.asarray((latent - np.float32(octaves)) / np.float32(2))


def one_level(table: FktTable, level: int) -> FktTable:
    place = slice(level - 1, level)
    return replace(table, log_step=table.log_step[place], lanes=table.lanes[place])


@pytest.fixture(scope="module")
def tables() -> list[FktTable]:
    whole = table_of(MAP)
    return [one_level(whole, level) for level in (2, 4, 6)]


@pytest.fixture(scope="module")
def codecs(tables: list[FktTable]) -> CodecSet:
    def nothing(boundary: int) -> Mapping[str, FktTable]:
        return {}

    def learned(boundary: int) -> LearnedParts | None:
        return LearnedParts(tables=tables, networks=Doubling()) if boundary == AT else None

    return CodecSet(nothing, learned)


def octaves(table: FktTable) -> float:
    return int(table.log_step[0]) / OCTAVE


@pytest.mark.parametrize("level", [1, 2, 3])
@pytest.mark.parametrize("batch", [1, 3])
def test_it_is_the_transform_codec_of_latents(
    codecs: CodecSet, tables: list[FktTable], level: int, batch: int
) -> None:
    codec, table = codecs.named(f"learned@{level}", AT), tables[level - 1]
    inner = Fkt("fkt@1", {MAP.name: CoefficientCoder(table, 1)})
    tensor = like_calibration(MAP, batch) / 2
    payload = codec.encode(tensor, MAP)
    latent = Doubling().encoded(tensor, octaves(table))
    assert payload == inner.encode(latent, MAP)
    expected = Doubling().decoded(inner.decode(payload, MAP, batch), octaves(table))
    np.testing.assert_array_equal(codec.decode(payload, MAP, batch), expected)
    assert isinstance(codec, Packing)
    packed = codec.packed(payload, MAP, batch)
    assert isinstance(packed, PackedLearned)
    assert (packed.level, packed.octaves) == (level, octaves(table))
    np.testing.assert_array_equal(packed.unpack(), expected)
    assert len(payload) <= codec.max_payload_bytes(MAP, batch)


def test_levels_are_told_apart(codecs: CodecSet, tables: list[FktTable]) -> None:
    tensor = like_calibration(MAP) / 2
    sizes = [len(codecs.named(f"learned@{n}", AT).encode(tensor, MAP)) for n in (1, 2, 3)]
    assert sizes == sorted(set(sizes))
    steps = [Level.of(table, 1).step for table in tables]
    assert steps == sorted(set(steps), reverse=True)


@pytest.mark.parametrize(
    "name",
    ["learned@0", "learned@4", "learned", "learned-video@9", "learned@01", "learned-video@02"],
)
def test_levels_that_there_are_not(codecs: CodecSet, name: str) -> None:
    with pytest.raises(CodecError, match="unknown codec"):
        codecs.named(name, AT)


def test_boundaries_without_one_say_how_to_get_it(codecs: CodecSet) -> None:
    with pytest.raises(CodecError, match="boundary 2 has no learned codec") as caught:
        codecs.named("learned@1", 2)
    assert "splitpoint learn" in caught.value.remedy


def test_a_stream_sends_what_changed(codecs: CodecSet) -> None:
    codec = codecs.named("learned-video@2", AT)
    assert isinstance(codec, StreamCodec)
    sender, receiver = codec.new_stream(), codec.new_stream()
    tensor = like_calibration(MAP) / 2
    payloads = [sender.encode(tensor, MAP) for _ in range(3)]
    assert [payload[0] for payload in payloads] == [KEY, DIFFERENCE, DIFFERENCE]
    assert len(payloads[1]) < len(payloads[0])
    found = [receiver.decode(payload, MAP, 1) for payload in payloads]
    for value in found:
        assert np.abs(value - tensor).max() < np.abs(tensor).max()
    sender.reset()
    assert sender.encode(tensor, MAP)[0] == KEY
    with pytest.raises(KeyFrameNeeded):
        codec.new_stream().decode(payloads[1], MAP, 1)
    np.testing.assert_array_equal(codec.decode(codec.encode(tensor, MAP), MAP, 1), found[0])


def test_what_is_no_tensor_of_the_boundary_is_refused(codecs: CodecSet) -> None:
    codec = codecs.named("learned@1", AT)
    with pytest.raises(SpecError):
        codec.encode(like_calibration(MAP).astype(np.float64), MAP)
    with pytest.raises(CodecError):
        codec.encode(np.full(MAP.shape, np.nan, np.float32), MAP)


@given(data=st.data())
def test_damaged_payloads_are_refused_or_bounded(codecs: CodecSet, data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(["learned@1", "learned@3", "learned-video@2"]))
    codec: Codec = codecs.named(name, AT)
    payload = bytearray(codec.encode(like_calibration(MAP) / 2, MAP))
    for _ in range(data.draw(st.integers(1, 4))):
        payload[data.draw(st.integers(0, len(payload) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(payload)))
    for damaged in (bytes(payload), bytes(payload[:cut]), data.draw(st.binary(max_size=99))):
        try:
            found = codec.decode(damaged, MAP, 1)
        except CodecError:
            continue
        assert found.shape == MAP.shape
        assert found.dtype == np.float32
