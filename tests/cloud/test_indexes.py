"""A frame with an index that is out of range costs its sender that frame, and nobody the device."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from index_models import indexed_bundle
from local_worker import local_worker
from raw_client import RawClient
from served import served
from splitpoint.cloud.between.layout import LayoutError, Layouts
from splitpoint.cloud.between.offers import offer_of, open_offer
from splitpoint.cloud.between.shared_memory import SharedMemory
from splitpoint.cloud.compute.choose_form import capture_sizes
from splitpoint.cloud.compute.gpu_chain import GpuChain
from splitpoint.cloud.compute.runner import Runner
from splitpoint.cloud.errors import ServeError
from splitpoint.cloud.frames import in_place
from splitpoint.cloud.gpu.bound_indices import bound_indices
from splitpoint.codec import codec_named
from splitpoint.partition.bundle.bundle import Bundle
from splitpoint.partition.run.program import load_program
from splitpoint.partition.run.torch_chain import TorchChain
from splitpoint.proto import splitpoint_pb2 as pb
from splitpoint.proto.frames import build_frame, encode_tensors
from standin_cuda import StandInCuda

CPU = torch.device("cpu")
GOOD = (8, 9, 2, -70)  # what each column takes
WRONG = {(9, 0, 0, 0): "index 9, ", (0, -3, 0, 0): "index -3, ", (1 << 40, 0, 0, 0): "takes 0 to 8"}


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    return indexed_bundle()


def values_of(bundle: Bundle, ids: tuple[int, ...], boundary: int = 0) -> dict[str, np.ndarray]:
    """One sample."""
    return {
        spec.name: np.array([ids], np.int64)
        if spec.dtype == "int64"
        else np.full(spec.shape, 0.5, spec.numpy_dtype)
        for spec in bundle.manifest.boundaries[boundary].tensors
    }


def frame(
    bundle: Bundle, frame_id: int, ids: tuple[int, ...], boundary: int = 0, codec: str = "raw"
) -> bytes:
    specs = bundle.manifest.boundaries[boundary].tensors
    values = values_of(bundle, ids, boundary)
    tensors = encode_tensors(values, specs, codec_named(codec))
    return build_frame(id=frame_id, boundary=boundary, codec=codec, tensors=tensors, budget_ms=0)


async def is_its_senders_matter(bundle: Bundle, **options: Any) -> None:
    async with (
        local_worker(bundle, **options) as worker,
        RawClient(worker) as client,
        RawClient(worker) as other,
    ):
        await client.hello()
        await other.hello()
        number = 0
        for boundary, codec in ((0, "raw"), (1, "raw"), (1, "q8")):
            for ids, words in WRONG.items():
                number += 1
                reply = await client.ask(frame(bundle, number, ids, boundary, codec))
                assert reply.status == pb.MISMATCH, reply.reason
                assert words in reply.reason
                assert "tensor 'ids' has the index" in reply.reason
            for asking in (client, other):
                number += 1
                reply = await asking.ask(frame(bundle, number, GOOD, boundary, codec))
                assert reply.status == pb.OK, reply.reason
        assert not len(worker.backend.service.services.quarantine)
        assert worker.backend.engine.errors == 0


@pytest.mark.usefixtures("both_ways")
async def test_a_client_is_told_which_index_is_out_of_range(bundle: Bundle) -> None:
    await is_its_senders_matter(bundle, runtime="torch")


async def test_whatever_runtime_computes(bundle: Bundle) -> None:
    await is_its_senders_matter(bundle, runtime="onnxruntime")


async def test_frames_that_are_long_to_look_at_are_looked_at_beside_the_others(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(in_place, "MOST_INDEX_BYTES", 0)
    await is_its_senders_matter(bundle, runtime="torch")


def test_the_engines_process_looks_itself(bundle: Bundle) -> None:
    """An ingest process works on what clients sent, and shares memory that it can change."""
    model = open_offer(offer_of(served(bundle)))
    memory, layouts = SharedMemory.create(1 << 20), Layouts(model)
    for ids in (GOOD, *WRONG):
        values = values_of(bundle, ids)
        layout = layouts.of(0, 1, layouts.forms_of(0, values))
        names = [spec.name for spec in model.boundaries[0]]
        for name, (part,) in zip(names, layout.inputs, strict=True):
            memory.array(part.offset, part.shape, part.dtype)[...] = values[name]
        if ids in WRONG:
            with pytest.raises(LayoutError, match="has the index"):
                layouts.read(memory, 0, 0, layout)
            continue
        read = layouts.read(memory, 0, 0, layout)
        (index,) = [
            part for name, (part,) in zip(names, layout.inputs, strict=True) if name == "ids"
        ]
        memory.array(index.offset, index.shape, index.dtype)[...] = 1 << 40
        np.testing.assert_array_equal(read["ids"], [GOOD])
    memory.close()


# On a GPU. ----------------------------------------------------------------------------------


def answer(chain: TorchChain, bundle: Bundle, ids: tuple[int, ...]) -> np.ndarray:
    boundaries = [boundary.tensors for boundary in bundle.manifest.boundaries]
    runner = Runner(chain, boundaries, (1,))
    state = runner.enter(0, [values_of(bundle, ids)])
    for segment in range(len(chain)):
        chain.load(segment)
        state = runner.step(segment, state, 1)
    runner.wait()
    return runner.answers(state, [1])[0][boundaries[-1][0].name]


@pytest.mark.parametrize("captured", [True, False])
def test_an_index_that_is_worked_out_does_not_cost_the_device(
    bundle: Bundle, captured: bool
) -> None:
    cuda = StandInCuda()
    chain = GpuChain(bundle, cuda.gpu())
    if captured:
        capture_sizes(bundle, chain, (1,), pytest.fail, lambda: None)
    answer(chain, bundle, (0, 0, 1 << 20, 0))  # its square is far beyond the table
    assert cuda.broken is None
    found, expected = answer(chain, bundle, GOOD), answer(TorchChain(bundle, CPU), bundle, GOOD)
    np.testing.assert_allclose(found, expected, atol=1e-6)
    assert not cuda.races


def lookup(op: str, *args: Any) -> dict[str, Any]:
    return {"name": "picked", "op": op, "args": list(args), "kwargs": {}, "layer": "lookup"}


X, INDEX, TABLE = {"t": "x"}, {"t": "index"}, {"w": "table"}
LOOKUPS = {
    "embedding": (lookup("aten.embedding.default", TABLE, INDEX), (0, 4)),
    "index_select": (lookup("aten.index_select.default", TABLE, 0, INDEX), (0, 4)),
    "gather": (lookup("aten.gather.default", X, 0, INDEX), (0, 2)),
    "scatter": (lookup("aten.scatter.value", X, 0, INDEX, 1.0), (0, 2)),
    "index": (lookup("aten.index.Tensor", TABLE, [None, INDEX]), (-2, 1)),
    "index_put": (lookup("aten.index_put.default", X, [INDEX], {"w": "one"}), (-3, 2)),
    "take": (lookup("aten.take.default", TABLE, INDEX), (-10, 9)),
    "one_hot": (lookup("aten.one_hot.default", INDEX, 6), (0, 5)),
}


@pytest.mark.parametrize("name", LOOKUPS)
def test_indices_are_kept_in_range_and_those_that_are_stay_what_they_are(name: str) -> None:
    node, (low, high) = LOOKUPS[name]
    weights = {"table": torch.arange(10.0).reshape(5, 2), "one": torch.ones(())}
    program = {
        "inputs": ["x", "index"], "outputs": ["picked"], "weights": list(weights), "nodes": [node],
    }  # fmt: skip
    plain, bounded = (load_program(program, [], weights, CPU) for _ in range(2))
    bound_indices(bounded, {("picked", 0)})
    x = torch.zeros(3)
    good = torch.tensor([low, high, 1])
    (found,), (expected,) = bounded(x, good), plain(x, good)
    torch.testing.assert_close(found, expected)
    for wrong in (low - 1, high + 1, -(1 << 62), 1 << 62):
        index = torch.tensor([wrong, 1, 0])
        with pytest.raises((IndexError, RuntimeError)):
            plain(x, index)
        (found,), (expected,) = bounded(x, index), plain(x, index.clamp(low, high))
        torch.testing.assert_close(found, expected)


@pytest.mark.parametrize(
    ("mask", "last"),
    [([True, False, True], 1), ([[True, False], [False, True], [True, True]], 3)],
    ids=["rows", "places"],
)
def test_masks_stay_what_they_are(mask: list[Any], last: int) -> None:
    """And what is behind one in a list goes into the dimension behind all of the mask's."""
    node = lookup("aten.index_put.default", X, [{"t": "mask"}, INDEX], {"w": "one"})
    program = {
        "inputs": ["x", "mask", "index"], "outputs": ["picked"], "weights": ["one"],
        "nodes": [node],
    }  # fmt: skip
    plain, bounded = (load_program(program, [], {"one": torch.ones(())}, CPU) for _ in range(2))
    bound_indices(bounded, {("picked", 0), ("picked", 1)})
    x, where = torch.zeros(3, 2, 4), torch.tensor(mask)
    index = torch.zeros(int(where.sum()), dtype=torch.int64)
    for given, taken in ((index, index), (index + 5, index + last)):
        (found,), (expected,) = bounded(x, where, given), plain(x, where, taken)
        torch.testing.assert_close(found, expected)


@pytest.mark.parametrize(
    "op",
    [
        "masked_scatter", "binary_cross_entropy", "multi_margin_loss", "multilabel_margin_loss",
    ],
)  # fmt: skip
def test_what_may_fail_for_other_reasons_is_not_served_on_a_gpu(op: str) -> None:
    node = lookup(f"aten.{op}.default", X, {"t": "index"}, *[X] * (op == "masked_scatter"))
    program = {"inputs": ["x", "index"], "outputs": ["picked"], "weights": [], "nodes": [node]}
    module = load_program(program, [], {}, CPU)
    with pytest.raises(ServeError, match=rf"lookup \(aten\.{op}.*--device cpu"):
        bound_indices(module, set())


def test_only_what_is_unknown_is_clamped() -> None:
    node, _ = LOOKUPS["embedding"]
    weights = {"table": torch.zeros(5, 2)}
    program = {"inputs": ["index"], "outputs": ["picked"], "weights": ["table"], "nodes": [node]}
    module = load_program(program, [], weights, CPU)
    before = [one.target for one in module.graph.nodes]
    bound_indices(module, {("another", 0), ("picked", 1)})
    assert [one.target for one in module.graph.nodes] == before
