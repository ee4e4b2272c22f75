"""Frames in shared memory: what was written is what an engine reads, and nothing else is read."""

from __future__ import annotations

import gc
import json
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import LEARNED_AT
from hypothesis import given
from hypothesis import strategies as st
from served import served
from splitpoint.cloud.access.tokens import MOST_NAME
from splitpoint.cloud.between.layout import (
    FKT,
    Q4,
    Q8,
    WHOLE,
    LayoutError,
    Layouts,
    TensorForm,
    read_outputs,
    write,
    write_outputs,
)
from splitpoint.cloud.between.messages import (
    MessageError,
    Settled,
    Submitted,
    pack_loads,
    read_loads,
)
from splitpoint.cloud.between.offers import offer_of, open_offer, take_times
from splitpoint.cloud.between.shared_memory import SharedMemory
from splitpoint.cloud.compute.served_model import ServedModel
from splitpoint.cloud.schedule.batch_times import BatchTimes
from splitpoint.partition.bundle.bundle import Bundle
from splitpoint.partition.errors import BundleError
from splitpoint.partition.profile.cloud_times import CloudTimes
from splitpoint.proto.limits import MAX_BATCH_PER_FRAME

OFFSET = 4096


@pytest.fixture
def memory() -> Iterator[SharedMemory]:
    found = SharedMemory.create(4 << 20)
    yield found
    found.close()


def packed_values(model: ServedModel, boundary: int, codec: str, samples: int) -> dict[str, Any]:
    rng, found = np.random.default_rng(boundary), {}
    for spec in model.boundaries[boundary]:
        array = rng.normal(0, 3, spec.shape_at(samples)).astype(spec.numpy_dtype)
        if codec == "raw":
            found[spec.name] = array
        else:
            one: Any = model.codecs.named(codec, boundary)
            found[spec.name] = one.packed(one.encode(array, spec), spec, samples)
    return found


@pytest.mark.parametrize(
    "codec", ["raw", "q8", "q4", "fkt@1", "fkt@3", "learned@1", "learned@3", "learned-video@2"]
)
@pytest.mark.parametrize("samples", [1, 3])
def test_a_frame_is_read_as_it_was_written(
    learned_bundle: Bundle, memory: SharedMemory, codec: str, samples: int
) -> None:
    if codec.startswith("learned-video"):
        samples = 1
    model = served(learned_bundle)
    layouts, other_end = Layouts(model), SharedMemory(os.dup(memory.fd))
    values = packed_values(model, LEARNED_AT, codec, samples)
    layout = layouts.of(LEARNED_AT, samples, layouts.forms_of(LEARNED_AT, values))
    write(memory, OFFSET, layout, model.boundaries[LEARNED_AT], values)
    read = Layouts(model).read(other_end, OFFSET, LEARNED_AT, layout)
    for name, value in values.items():
        if isinstance(value, np.ndarray):
            np.testing.assert_array_equal(read[name], value)
        else:
            assert type(read[name]) is type(value)
            np.testing.assert_array_equal(read[name].unpack(), value.unpack())
    other_end.close()


def test_peaks_lie_there_too(vivid_bundle: Bundle, memory: SharedMemory) -> None:
    model = served(vivid_bundle)
    layouts, values = Layouts(model), packed_values(model, 1, "fkt@1", 2)
    ((name, packed),) = values.items()
    peaks = np.array([70_000, -3], np.int64)
    values[name] = packed = replace(packed, places=np.array([0, 9], np.int64), peaks=peaks)
    forms = layouts.forms_of(1, values)
    assert forms == (TensorForm(FKT, 1, 2),)
    layout = layouts.of(1, 2, forms)
    write(memory, OFFSET, layout, model.boundaries[1], values)
    read = layouts.read(memory, OFFSET, 1, layout)[name]
    np.testing.assert_array_equal(read.unpack(), packed.unpack())

    # Where a device would write is looked at: a place beyond the tensor is refused.
    end = packed.table.log_scale.size * 2
    for place in (-1, end, 1 << 40):
        values[name] = replace(packed, places=np.array([0, place], np.int64))
        write(memory, OFFSET, layout, model.boundaries[1], values)
        with pytest.raises(LayoutError, match="outside"):
            layouts.read(memory, OFFSET, 1, layout)


def test_answers_come_back(small_bundle: Bundle, memory: SharedMemory) -> None:
    model = served(small_bundle)
    layout = Layouts(model).of(0, 2, (TensorForm(),))
    (spec,) = model.form.specs
    outputs = {spec.name: np.arange(10, dtype=np.float32).reshape(2, 5)}
    write_outputs(memory, OFFSET, layout, model.form.specs, outputs)
    found = read_outputs(memory, OFFSET, layout, model.form.specs)
    np.testing.assert_array_equal(found[spec.name], outputs[spec.name])
    for wrong in (np.zeros((1, 5), np.float32), np.zeros((2, 5), np.float64)):
        with pytest.raises(LayoutError, match=spec.name):
            write_outputs(memory, OFFSET, layout, model.form.specs, {spec.name: wrong})


@pytest.mark.parametrize(
    ("boundary", "samples", "forms"),
    [
        (99, 1, (TensorForm(),)),
        (4, 1, (TensorForm(),)),  # the output, where nothing enters
        (1, 0, (TensorForm(),)),
        (1, MAX_BATCH_PER_FRAME + 1, (TensorForm(),)),
        (1, 1, ()),
        (1, 1, (TensorForm(), TensorForm())),
        (1, 1, (TensorForm(9),)),
        (1, 1, (TensorForm(WHOLE, 1),)),
        (1, 1, (TensorForm(Q8, 0, 5),)),
        (1, 1, (TensorForm(FKT, 0),)),
        (1, 1, (TensorForm(FKT, 16),)),
        (1, 1, (TensorForm(FKT, 1, 1 << 31),)),
        (0, 1, (TensorForm(Q4),)),  # pixels
    ],
)
def test_what_is_no_frame_of_the_model(
    vivid_bundle: Bundle, boundary: int, samples: int, forms: tuple[TensorForm, ...]
) -> None:
    with pytest.raises(LayoutError):
        Layouts(served(vivid_bundle)).of(boundary, samples, forms)


def test_packed_tensors_are_for_who_unpacks(vivid_bundle: Bundle) -> None:
    plain = replace(served(vivid_bundle), unpacks=False)
    with pytest.raises(LayoutError, match="packed"):
        Layouts(plain).of(1, 1, (TensorForm(Q8),))


def test_views_stay_within(memory: SharedMemory) -> None:
    size = memory.size
    for offset, shape in ((size, (1,)), (size - 4, (2,)), (-4, (1,)), (0, (size,))):
        with pytest.raises((ValueError, TypeError)):
            memory.array(offset, shape, np.dtype("<f4"))


def test_memory_keeps_its_size_and_ends_with_its_views() -> None:
    """One process cannot shorten it under the other, and closing it costs no view its memory."""
    memory = SharedMemory.create(8192)
    for size in (0, 4096, 16384):
        with pytest.raises(PermissionError):
            os.ftruncate(memory.fd, size)
    view = memory.array(0, (2048,), np.dtype("<f4"))
    memory.close()
    memory.close()
    del memory
    gc.collect()
    view[:] = 1
    assert view.sum() == 2048


def test_closed_memory_goes_with_its_last_view() -> None:
    """Whoever knows the closed end still: that may be garbage that nobody collects for long."""

    def mapped() -> int:
        return Path("/proc/self/maps").read_text().count("memfd:splitpoint-frames")

    before = mapped()
    memory = SharedMemory.create(8192)
    view = memory.array(0, (2048,), np.dtype("<f4"))
    memory.close()
    assert mapped() == before + 1
    del view
    assert mapped() == before
    assert memory.fd < 0


SUBMITTED = Submitted(
    7, 1, 2, 3, float("inf"), 4096, 8192, "gate-3 é", (TensorForm(), TensorForm(FKT, 2, 5))
)


def test_messages_of_frames_are_what_they_were() -> None:
    assert Submitted.read(SUBMITTED.packed()) == SUBMITTED
    answered = Settled(7, 3, 1.0, 2.0, 3.5, 16, False, "too much", b"load")
    assert Settled.read(answered.packed()) == answered
    assert read_loads(pack_loads({1: b"abc", 900: b""})) == {1: b"abc", 900: b""}


@pytest.mark.parametrize(
    "share", ["", "é" * 80, "\N{SATELLITE}" * MOST_NAME], ids=["none", "accents", "satellites"]
)
def test_names_of_any_language_are_told_whole(share: str) -> None:
    submitted = SUBMITTED._replace(share=share)
    assert Submitted.read(submitted.packed()) == submitted


@given(st.binary(max_size=300))
def test_any_bytes_are_refused_or_read(data: bytes) -> None:
    try:
        found = Submitted.read(data)
    except MessageError:
        return
    assert Submitted.read(found.packed()) == found


@pytest.mark.parametrize("letter", ["a", "é", "中", "\N{CUNEIFORM SIGN AN}"])
def test_the_longest_name_of_a_client_is_told_whole(letter: str) -> None:
    named = SUBMITTED._replace(share=letter * MOST_NAME)
    assert Submitted.read(named.packed()) == named


@given(st.integers(0, len(SUBMITTED.packed()) - 1), st.integers(1, 255))
def test_damaged_descriptions(place: int, change: int) -> None:
    data = bytearray(SUBMITTED.packed())
    data[place] ^= change
    try:
        found = Submitted.read(bytes(data))
    except MessageError:
        return
    assert found != SUBMITTED


def test_a_description_that_was_cut_off() -> None:
    for size in range(len(SUBMITTED.packed())):
        with pytest.raises(MessageError):
            Submitted.read(SUBMITTED.packed()[:size])


def test_a_model_is_offered_as_it_is(vivid_bundle: Bundle) -> None:
    model = served(vivid_bundle)
    found = open_offer(offer_of(model))
    assert found.bundle.digest == model.bundle.digest
    assert (found.times, found.unpacks, found.manifest_bytes) == (model.times, True, 77)
    assert found.batch_times.seconds == model.batch_times.seconds
    slower = replace(model, times=CloudTimes(segment_ms=(9.0,) * len(model.batch_times)))
    take_times(found, offer_of(slower)["times"])
    assert found.times == slower.times
    with pytest.raises(BundleError, match="another model"):
        open_offer(offer_of(model) | {"digest": "0" * 64})


def test_a_device_with_large_batches_is_offered_in_few_words(vivid_bundle: Bundle) -> None:
    """Only what a frame takes is asked there; the batches are the engine's."""
    model = served(vivid_bundle)
    large = BatchTimes([{1: 1.0, 16: 4.0, 1 << 16: 9e3}] * len(model.batch_times), 1 << 16)
    model = replace(model, batch_times=large)
    offer = offer_of(model)
    assert len(json.dumps(offer)) < 100_000
    found = open_offer(offer)
    for samples in (1, 7, MAX_BATCH_PER_FRAME):
        assert found.batch_times.suffix_s(0, samples) == pytest.approx(large.suffix_s(0, samples))
