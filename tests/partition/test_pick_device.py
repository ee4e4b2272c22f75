"""Which devices a name means, where torch.cuda is played."""

from __future__ import annotations

import pytest
import torch
from splitpoint.partition.errors import DeviceError
from splitpoint.partition.run.torch_chain import pick_device, pick_devices


def play(monkeypatch: pytest.MonkeyPatch, count: int, visible: str | None = None) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: count > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
    if visible is None:
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    else:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)


@pytest.mark.parametrize("name", ["auto", "cuda"])
def test_every_gpu_that_can_be_seen(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    play(monkeypatch, 2)
    assert [str(device) for device in pick_devices(name)] == ["cuda:0", "cuda:1"]
    assert [str(device) for device in pick_devices("cuda:1")] == ["cuda:1"]
    # A slice of a GPU is one device of its process, however many GPUs there are.
    play(monkeypatch, 1, "MIG-4f7a2d0c-9c9e-5a0c-8f3e-1d2c3b4a5968")
    assert [str(device) for device in pick_devices(name)] == ["cuda:0"]


def test_numbers_are_those_that_cuda_visible_devices_leaves(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    play(monkeypatch, 1, "3")
    assert pick_device("cuda:0") == torch.device("cuda", 0)
    with pytest.raises(DeviceError, match=r"no cuda:3.*CUDA_VISIBLE_DEVICES=3.*cuda:0"):
        pick_device("cuda:3")
    play(monkeypatch, 2)
    with pytest.raises(DeviceError, match=r"no cuda:2.*this machine has 2"):
        pick_device("cuda:2")


def test_where_none_can_be_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    play(monkeypatch, 0, "")
    assert pick_devices("auto") == [torch.device("cpu")]
    with pytest.raises(DeviceError, match="CUDA_VISIBLE_DEVICES shows it none"):
        pick_device("cuda")
    play(monkeypatch, 0)
    with pytest.raises(DeviceError, match="CUDA is not available to this torch"):
        pick_device("cuda")
