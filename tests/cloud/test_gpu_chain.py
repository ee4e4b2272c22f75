"""What a GPU's segments are like in memory; the rest needs a GPU."""

from __future__ import annotations

import pytest
import torch
from splitpoint.cloud.compute import gpu_chain
from splitpoint.cloud.compute.gpu_chain import GpuChain
from splitpoint.partition.bundle.bundle import Bundle
from splitpoint.partition.run.torch_chain import TorchChain


class Masked(torch.nn.Module):
    """As in Swin: convolutions, and masks of five dimensions that were folded into buffers."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = torch.nn.Conv2d(3, 4, 3)
        self.conv3d = torch.nn.Conv3d(1, 2, 3)
        self.register_buffer("mask", torch.rand(1, 4, 1, 6, 6))
        self.register_buffer("index", torch.arange(24).reshape(1, 2, 3, 4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.conv3d((self.conv(x)[:, :, None] + self.mask)[:, :1].expand(-1, -1, 3, -1, -1))
        return y.sum((1, 2, 3, 4)) + self.index.sum()


def test_channels_are_last_where_there_are_channels(
    small_bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    module, x = Masked(), torch.rand(2, 3, 8, 8)
    with torch.inference_mode():
        expected = module(x)

    def load(self: TorchChain, index: int) -> None:
        self._segments[index] = (["x"], ["y"], module)  # type: ignore[assignment]

    monkeypatch.setattr(TorchChain, "load", load)
    monkeypatch.setattr(gpu_chain.torch.cuda, "graph_pool_handle", lambda: None)
    monkeypatch.setattr(gpu_chain.torch.cuda, "Stream", lambda device: None)
    chain = GpuChain(small_bundle, torch.device("cpu"))
    chain.load(0)
    assert module.conv.weight.is_contiguous(memory_format=torch.channels_last)
    assert module.index.is_contiguous(memory_format=torch.channels_last)
    assert module.mask.is_contiguous()
    with torch.inference_mode():
        torch.testing.assert_close(module(x), expected)
