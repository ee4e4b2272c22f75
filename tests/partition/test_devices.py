"""The table of devices, and profiles scaled from one of them to another."""

from __future__ import annotations

import math
from dataclasses import fields

import pytest
from published_models import MODELS, PI5, measured, modelled_ms
from splitpoint.codec import SplitpointError
from splitpoint.partition.profile.devices import DEVICES, Figure, device_named, guess_device
from splitpoint.partition.profile.scale import scale_profile


def test_every_figure_has_a_value_and_a_source() -> None:
    assert " ".join(DEVICES) == "pi4 pi5 jetson-nano orin-nano laptop server-cpu t4 a10 h100"
    for name, entry in DEVICES.items():
        assert entry.name == name
        values = [getattr(entry, field.name) for field in fields(entry)]
        figures = [value for value in values if isinstance(value, Figure)]
        assert len(figures) >= 6
        for figure in figures:
            assert figure.value > 0
            assert math.isfinite(figure.value)
            assert len(figure.source) > 10
        assert entry.reach.value <= 1
        assert entry.idle_w.value < entry.busy_w.value
        assert (entry.cores is None) == bool(entry.host)
        assert not entry.host or DEVICES[entry.host].cores is not None


def test_names() -> None:
    assert device_named("Orin-Nano ") is DEVICES["orin-nano"]
    with pytest.raises(SplitpointError) as caught:
        device_named("pi6")
    assert all(name in str(caught.value) for name in DEVICES)


@pytest.mark.parametrize(
    ("model", "machine", "name"),
    [
        ("Raspberry Pi 5 Model B Rev 1.0", "aarch64", "pi5"),
        ("Raspberry Pi Compute Module 5 Rev 1.0", "aarch64", "pi5"),
        ("Raspberry Pi 4 Model B Rev 1.4", "aarch64", "pi4"),
        ("NVIDIA Jetson Nano Developer Kit", "aarch64", "jetson-nano"),
        ("NVIDIA Jetson Orin Nano Developer Kit", "aarch64", "orin-nano"),
        ("NVIDIA Jetson AGX Thor Developer Kit", "aarch64", "orin-nano"),
        ("AMD EPYC 7763 64-Core Processor", "x86_64", "server-cpu"),
        ("Intel(R) Xeon(R) Platinum 8380 CPU @ 2.30GHz", "x86_64", "server-cpu"),
        ("11th Gen Intel(R) Core(TM) i7-1165G7 @ 2.80GHz", "x86_64", "laptop"),
        ("AMD Ryzen 7 4800U with Radeon Graphics", "AMD64", "laptop"),
        ("", "x86_64", "laptop"),
        ("Tesla T4", "", "t4"),
        ("NVIDIA A10G", "", "a10"),
        ("NVIDIA GeForce RTX 3090", "", "a10"),
        ("NVIDIA H100 80GB HBM3", "", "h100"),
        ("NVIDIA A100-SXM4-80GB", "", "h100"),
        ("", "aarch64", "pi4"),
        ("", "", "pi4"),
    ],
)
def test_guess(model: str, machine: str, name: str) -> None:
    assert guess_device(model, machine).name == name


# --- against what others measured ------------------------------------------------------------


PUBLISHED = [
    # ncnn benchmark/README.md: Raspberry Pi 4 at 1.5 GHz, 4 threads, average
    ("pi4", None, "resnet50", 486.97),
    ("pi4", None, "mobilenet_v2", 75.84),
    # learn.arm.com, "ExecuTorch on Arm", module 2: Raspberry Pi 5, fp32 with XNNPACK, median
    ("pi5", None, "mobilenet_v2", 10.88),
    # MMDeploy docs/en/03-benchmark/benchmark.md: TensorRT 7.2, fp32, batch 1
    ("jetson-nano", None, "resnet50", 59.32),
    ("t4", None, "resnet50", 2.97),
    # optimum-benchmark/cpu: PyTorch on 4 virtual CPUs of an EPYC 7763, median
    ("server-cpu", 2, "resnet50", 75.3),
]


@pytest.mark.parametrize(("name", "threads", "model", "ms"), PUBLISHED)
def test_the_modelled_time_is_near_a_published_one(
    name: str, threads: int | None, model: str, ms: float
) -> None:
    assert ms / 3 < modelled_ms(model, DEVICES[name], threads) < 3 * ms


@pytest.mark.parametrize(
    ("model", "source", "source_ms", "target", "target_ms"),
    [
        (model, source, source_ms, target, target_ms)
        for source, no_threads, model, source_ms in PUBLISHED
        for target, all_cores, other, target_ms in PUBLISHED
        if model == other and source != target and no_threads is None and all_cores is None
    ],
)
def test_scaling_one_published_time_gives_another(
    model: str, source: str, source_ms: float, target: str, target_ms: float
) -> None:
    before = measured(model, source_ms, DEVICES[source])
    after = scale_profile(before, MODELS[model], DEVICES[target], DEVICES[source])
    assert target_ms / 3 < after.total_ms < 3 * target_ms


def test_the_order_of_devices() -> None:
    before = measured("resnet50", 100.0, PI5)
    ms = {
        name: scale_profile(before, MODELS["resnet50"], entry).total_ms
        for name, entry in DEVICES.items()
    }
    assert ms["pi4"] > ms["pi5"] > ms["laptop"] > ms["server-cpu"] > ms["t4"] > ms["h100"]
    assert ms["pi4"] > ms["jetson-nano"] > ms["orin-nano"] > ms["t4"] > ms["a10"]


def test_the_models_here_are_what_they_are_called() -> None:
    for name, gflop, million in (("resnet50", 8.2, 25.5), ("mobilenet_v2", 0.6, 3.5)):
        assert sum(x.flops or 0 for x in MODELS[name]) / 1e9 == pytest.approx(gflop, rel=0.12)
        assert sum(x.params for x in MODELS[name]) / 1e6 == pytest.approx(million, rel=0.12)
