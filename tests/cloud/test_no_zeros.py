"""Models that do not take 0: as a length, or a word that is counted from 1."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from built import built
from local_worker import local_worker
from raw_client import RawClient
from splitpoint.cloud.compute.choose_form import capture_sizes
from splitpoint.cloud.compute.gpu_chain import GpuChain
from splitpoint.partition.bundle.bundle import Bundle, Manifest
from splitpoint.partition.compile.compile import compile_model
from splitpoint.partition.errors import BundleError
from splitpoint.partition.model_spec import ModelSpec
from splitpoint.proto import splitpoint_pb2 as pb
from standin_cuda import StandInCuda


class CountedFromOne(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = torch.nn.Linear(8, 16), torch.nn.Linear(16, 3)
        self.words = torch.nn.Embedding(9, 16)

    def forward(self, x: torch.Tensor, words: torch.Tensor, length: torch.Tensor) -> torch.Tensor:
        y = torch.relu(self.first(x)) + self.words(words - 1)
        return self.last(y + torch.relu(y).gather(1, length[:, None] - 1))


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    torch.manual_seed(0)
    args = torch.randn(3, 8), torch.tensor([3, 9, 1]), torch.tensor([3, 16, 5])
    spec = ModelSpec(source="from one", module=CountedFromOne().eval(), args=args)
    return built("counted", lambda path: compile_model(spec, path, boundaries=20), __file__)


async def test_it_is_served(bundle: Bundle) -> None:
    async with local_worker(bundle, runtime="torch") as worker, RawClient(worker) as client:
        await client.hello()
        assert (await client.ask(client.frame(1))).status == pb.OK


def test_a_gpu_survives_its_loading(bundle: Bundle) -> None:
    cuda = StandInCuda()
    capture_sizes(bundle, GpuChain(bundle, cuda.gpu()), (1, 2), pytest.fail, lambda: None)
    assert cuda.broken is None


def test_what_it_is_measured_with_is_kept(bundle: Bundle) -> None:
    manifest = bundle.manifest
    assert manifest.stand_ins == {"words": 3, "length": 3}
    assert Manifest.from_bytes(manifest.to_bytes(), "it").stand_ins == manifest.stand_ins


@pytest.mark.parametrize("wrong", [{"x": 1}, {"no": 1}, {"words": 1 << 63}, {"words": 1.5}, [1]])
def test_stand_ins_that_cannot_be(bundle: Bundle, wrong: Any) -> None:
    data = dataclasses.replace(bundle.manifest, stand_ins={"words": 12345}).to_bytes()
    text = str(wrong).replace("'", '"').encode()
    with pytest.raises(BundleError):
        Manifest.from_bytes(data.replace(b'{"words":12345}', text), "it")
