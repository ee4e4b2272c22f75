"""What a benchmark's result says of the hardware; the GPU is played."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))

import report

TABLE = report.Table(["what"], [["this"]])


class Nvml:
    class NVMLError(Exception):
        pass

    def nvmlInit(self) -> None:
        pass

    def nvmlSystemGetDriverVersion(self) -> str:
        return "570.86"


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    found = SimpleNamespace(name="NVIDIA H100 80GB HBM3", total_memory=85_000_000_000)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: found)
    monkeypatch.setattr(torch.version, "cuda", "12.8")
    monkeypatch.setattr(report, "load_pynvml", Nvml)


def written(folder: Path, monkeypatch: pytest.MonkeyPatch, device: str) -> tuple[str, dict]:
    monkeypatch.setattr(report, "RESULTS", folder)
    report.write_report("serving", "How?", TABLE, {}, save=True, device=device)
    (path,) = folder.glob("*.json")
    return path.stem, json.loads(path.read_text())["hardware"]


@pytest.mark.usefixtures("gpu")
def test_a_gpu_is_named_with_driver_and_cuda(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    stem, hardware = written(tmp_path, monkeypatch, "cuda:0")
    assert stem.startswith("serving-nvidia-h100-80gb-hbm3-")
    assert hardware["gpu"] == "NVIDIA H100 80GB HBM3"
    assert hardware["gpu_memory_mb"] == 85_000
    assert (hardware["cuda"], hardware["driver"]) == ("12.8", "570.86")
    assert hardware["cpu"]
    assert "NVIDIA H100 80GB HBM3, " in capsys.readouterr().out


@pytest.mark.usefixtures("gpu")
def test_what_ran_on_the_cpu_beside_a_gpu_does_not_name_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stem, hardware = written(tmp_path, monkeypatch, "cpu")
    assert "nvidia" not in stem
    assert set(hardware) == {"cpu", "cores", "machine"}


@pytest.mark.usefixtures("gpu")
def test_without_nvml_the_driver_is_not_said(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing() -> None:
        raise ImportError

    monkeypatch.setattr(report, "load_pynvml", missing)
    hardware = report.hardware("cuda")
    assert "driver" not in hardware
    assert hardware["gpu"]
