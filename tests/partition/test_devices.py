"""The table of devices, and profiles scaled from one of them to another."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest
from splitpoint.codec import SplitpointError
from splitpoint.partition.bundle.graph import Layer
from splitpoint.partition.errors import DeviceError
from splitpoint.partition.profile.devices import DEVICES, Device, Figure, device_named, guess_device
from splitpoint.partition.profile.profile import CodecTime, LayerTime, Profile, SegmentTime
from splitpoint.partition.profile.scale import roofline_ms, scale_profile, source_device

PI4, PI5 = DEVICES["pi4"], DEVICES["pi5"]


# --- models as lists of layers ---------------------------------------------------------------


class Net:
    """Layers of a network in 32-bit floats, one after the other, all in segment 0."""

    def __init__(self, channels: int, size: int) -> None:
        self.layers: list[Layer] = []
        self.channels, self.size = channels, size

    def add(self, op: str, shape: tuple[int, ...], flops: int, params: int, *skip: int) -> int:
        last = len(self.layers) - 1
        self.layers.append(
            Layer(
                name=f"{op}{last + 1}",
                op=op,
                output_shape=shape,
                dtype="float32",
                output_bytes=4 * math.prod(shape),
                flops=flops,
                params=params,
                param_bytes=4 * params,
                inputs=(last, *skip),
                crossing_bytes=None,
            )
        )
        return last + 1

    def conv(self, out: int, kernel: int, stride: int = 1, groups: int = 1) -> int:
        weights = out * (self.channels // groups) * kernel**2
        self.channels, self.size = out, -(-self.size // stride)
        return self.add("conv2d", (out, self.size, self.size), 2 * weights * self.size**2, weights)

    def join(self, skip: int) -> int:
        shape = (self.channels, self.size, self.size)
        return self.add("add", shape, math.prod(shape), 0, skip)

    def classify(self) -> list[Layer]:
        self.add("adaptive_avg_pool2d", (self.channels,), self.channels * self.size**2, 0)
        self.add("linear", (1000,), 2000 * self.channels, 1000 * self.channels)
        return self.layers


def resnet50() -> list[Layer]:
    net = Net(3, 224)
    net.conv(64, 7, 2)
    net.size = 56
    last = net.add("max_pool2d", (64, 56, 56), 802_816, 0)
    for width, blocks, stride in ((64, 3, 1), (128, 4, 2), (256, 6, 2), (512, 3, 2)):
        for block in range(blocks):
            net.conv(width, 1)
            net.conv(width, 3, stride if block == 0 else 1)
            net.conv(4 * width, 1)
            last = net.join(last)
    return net.classify()


def mobilenet_v2() -> list[Layer]:
    net = Net(3, 224)
    last = net.conv(32, 3, 2)
    for expand, out, blocks, stride in (
        (1, 16, 1, 1),
        (6, 24, 2, 2),
        (6, 32, 3, 2),
        (6, 64, 4, 2),
        (6, 96, 3, 1),
        (6, 160, 3, 2),
        (6, 320, 1, 1),
    ):
        for block in range(blocks):
            wide = net.channels * expand
            if expand > 1:
                net.conv(wide, 1)
            net.conv(wide, 3, stride if block == 0 else 1, groups=wide)
            done = net.conv(out, 1)
            last = net.join(last) if block else done
    net.conv(1280, 1)
    return net.classify()


MODELS = {"resnet50": resnet50(), "mobilenet_v2": mobilenet_v2()}


def modelled_ms(model: str, device: Device, threads: int | None = None) -> float:
    layers, speed = MODELS[model], device.speed(threads)
    return sum(roofline_ms(layer, layers, speed) for layer in layers)


def profile_of(
    layers: Sequence[Layer], ms: Sequence[float], *, rest_ms: float = 0.0, threads: int = 4
) -> Profile:
    """A measurement of one segment: its layers' times, and something beside them."""
    total = sum(ms) + rest_ms
    return Profile(
        device="board (Raspberry Pi 5 Model B Rev 1.0)",
        runtime="onnxruntime",
        threads=threads,
        date="2026-01-01T00:00:00+00:00",
        digest="d",
        versions={},
        segments=(
            SegmentTime(
                id=0,
                ms=total,
                p95_ms=2 * total,
                spread_ms=total / 4,
                samples=9,
                memory_mb=7.0,
                batch_ms={1: total, 8: 8 * total},
            ),
        ),
        layers=tuple(
            LayerTime(name=layer.name, op=layer.op, ms=t, mj=None, share=t / total)
            for layer, t in zip(layers, ms, strict=True)
        ),
        codecs=(
            CodecTime(
                boundary=0,
                codec="q8",
                nbytes=10,
                p95_bytes=12,
                encode_ms=1.0,
                decode_ms=2.0,
                pictures=3,
            ),
        ),
        notes=("the clock of the Pi 5 fell",),
    )


def measured(model: str, total_ms: float, device: Device) -> Profile:
    """What `device` would have measured, if its layers took what the roofline says, scaled."""
    layers, speed = MODELS[model], device.speed()
    ms = [roofline_ms(layer, layers, speed) for layer in layers]
    return profile_of(layers, [total_ms * t / sum(ms) for t in ms])


def device(name: str, gflops: float, gb_s: float, overhead_us: float = 1e-6) -> Device:
    """A made-up device with four cores that reaches all of its peak."""

    def figure(value: float) -> Figure:
        return Figure(value=value, source="made up")

    return Device(
        name=name,
        title=name.upper(),
        cores=4,
        peak_gflops=figure(gflops),
        reach=figure(1),
        memory_gb_s=figure(gb_s),
        core_gb_s=figure(gb_s / 2),
        overhead_us=figure(overhead_us),
        idle_w=figure(1),
        busy_w=figure(5),
    )


SLOW, FAST = device("slow", 10, 1), device("fast", 80, 4)


# --- the table -------------------------------------------------------------------------------


def test_every_figure_has_a_value_and_a_source() -> None:
    assert " ".join(DEVICES) == "pi4 pi5 jetson-nano orin-nano laptop server-cpu t4 a10 h100"
    for name, entry in DEVICES.items():
        assert entry.name == name
        assert {"peak_gflops", "reach", "memory_gb_s", "idle_w", "busy_w"} <= set(entry.figures)
        for figure in entry.figures.values():
            assert figure.value > 0
            assert math.isfinite(figure.value)
            assert len(figure.source) > 10
        assert entry.reach.value <= 1
        assert entry.idle_w.value < entry.busy_w.value
        assert (entry.cores is None) == bool(entry.host)
        assert not entry.host or DEVICES[entry.host].cores is not None


def test_what_is_unchecked_says_so() -> None:
    assert PI5.peak_gflops.checked is False
    assert PI4.reach.checked is True


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


def test_fewer_threads() -> None:
    assert SLOW.speed(4) == SLOW.speed() == SLOW.speed(99)
    one = SLOW.speed(1)
    assert (one.gflops, one.gb_s) == pytest.approx((2.5, 0.5))
    assert DEVICES["t4"].speed(1) == DEVICES["t4"].speed()


# --- ratios ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "ratio"),
    [
        # 8 times the arithmetic: 3 x 3 x 256 multiply-adds for each value.
        (lambda net: net.conv(256, 3), 1 / 8),
        # 4 times the bandwidth: a weight of a linear layer is read for one multiply-add.
        (lambda net: net.add("linear", (1000,), 2000 * 4096, 1000 * 4096), 1 / 4),
        (lambda net: net.conv(256, 3, groups=256), 1 / 4),
        (lambda net: net.add("relu", (256, 28, 28), 256 * 784, 0), 1 / 4),
        (lambda net: net.add("no_such_op", (256, 28, 28), 10**9, 0), 1 / 4),
    ],
)
def test_a_layer_scales_with_what_limits_it(make: Callable[[Net], int], ratio: float) -> None:
    net = Net(256, 28)
    net.add("relu", (256, 28, 28), 0, 0)
    make(net)
    scaled = scale_profile(profile_of(net.layers, [3.0, 10.0]), net.layers, FAST, SLOW)
    assert scaled.layers[1].ms == pytest.approx(10 * ratio)
    assert scaled.layers[0].ms == pytest.approx(3 / 4)


def test_roofline_by_hand() -> None:
    net = Net(16, 8)
    net.add("relu", (16, 8, 8), 1024, 0)  # 4096 bytes
    net.conv(32, 1)  # 2 x 512 x 64 = 65,536 operations; 2048 + 4096 + 8192 bytes
    speed = device("d", 1, 1, overhead_us=10).speed()
    relu, conv = net.layers
    assert roofline_ms(relu, net.layers, speed) == pytest.approx(0.008192 + 0.010)
    assert roofline_ms(conv, net.layers, speed) == pytest.approx(0.065536 + 0.010)
    assert roofline_ms(conv, net.layers, speed, 8) == pytest.approx(8 * 0.065536 + 0.010)
    slow_memory = device("d", 1, 0.1, overhead_us=10).speed()
    assert roofline_ms(conv, net.layers, slow_memory) == pytest.approx(0.14336 + 0.010)


def test_overhead_bounds_what_a_fast_device_gains() -> None:
    net = Net(16, 8)
    net.add("relu", (16, 8, 8), 1024, 0)
    gpu = device("gpu", 1e6, 1e6, overhead_us=10)
    scaled = scale_profile(profile_of(net.layers, [0.008192]), net.layers, gpu, SLOW)
    assert scaled.total_ms == pytest.approx(0.010, rel=0.01)


# --- profiles --------------------------------------------------------------------------------


def two_layers() -> Net:
    net = Net(256, 28)
    net.add("relu", (256, 28, 28), 0, 0)  # a quarter of the time on FAST
    net.conv(256, 3)  # an eighth
    return net


def test_sums_are_kept() -> None:
    layers = two_layers().layers
    before = profile_of(layers, [4.0, 8.0], rest_ms=6.0)
    after = scale_profile(before, layers, FAST, SLOW)
    (segment,) = after.segments
    assert [layer.ms for layer in after.layers] == pytest.approx([1.0, 1.0])
    # The layers went from 12 to 2 ms, and so 6 ms that are no layer's go to 1.
    assert segment.ms == pytest.approx(3.0)
    assert segment.p95_ms == pytest.approx(6.0)
    assert segment.spread_ms == pytest.approx(0.75)
    assert segment.batch_ms == pytest.approx({1: 3.0, 8: 24.0})
    assert (segment.samples, segment.memory_mb) == (9, 7.0)
    assert sum(layer.share for layer in after.layers) == pytest.approx(12 / 18)
    assert after.layers[0].share == pytest.approx(after.layers[1].share)


def test_everything_modelled_says_so() -> None:
    layers = two_layers().layers
    after = scale_profile(profile_of(layers, [4.0, 8.0]), layers, DEVICES["t4"])
    assert after.device == "NVIDIA T4"
    for word in ("Raspberry Pi 5", "NVIDIA T4", "modelled"):
        assert word in after.modelled
    assert after.energy_kind == "modelled"
    assert "modelled" in after.energy_meter
    assert (after.busy_w, after.idle_w) == (70, 9)
    assert after.segments[0].mj == pytest.approx(70 * after.total_ms)
    assert sum(layer.mj or 0 for layer in after.layers) == pytest.approx(70 * after.total_ms)
    assert after.notes == ()
    assert (after.digest, after.runtime) == ("d", "onnxruntime")


def test_codecs_run_on_the_processor() -> None:
    layers = two_layers().layers
    before = profile_of(layers, [4.0, 8.0])
    (pi4,) = scale_profile(before, layers, PI4).codecs
    assert pi4.encode_ms == pytest.approx(9.74 / 5.55)
    assert pi4.decode_ms == pytest.approx(2 * 9.74 / 5.55)
    assert pi4.nbytes == 10
    (gpu,) = scale_profile(before, layers, DEVICES["h100"]).codecs
    assert gpu.encode_ms == pytest.approx(9.74 / 28)  # not by the bandwidth of the card


@pytest.mark.parametrize("threads", [1, 4])
@pytest.mark.parametrize("name", ["pi5", "h100"])
def test_the_same_device_changes_no_time(name: str, threads: int) -> None:
    layers = MODELS["mobilenet_v2"]
    before = profile_of(layers, [1.0] * len(layers), threads=threads)
    after = scale_profile(before, layers, DEVICES[name], DEVICES[name])
    assert after.segments[0].ms == pytest.approx(before.segments[0].ms)
    assert [layer.ms for layer in after.layers] == [layer.ms for layer in before.layers]
    assert [layer.share for layer in after.layers] == pytest.approx(
        [layer.share for layer in before.layers]
    )
    assert (after.codecs, after.threads) == (before.codecs, threads)


def test_threads_of_the_source() -> None:
    layers = two_layers().layers
    four = scale_profile(profile_of(layers, [4.0, 8.0]), layers, FAST, SLOW)
    one = scale_profile(profile_of(layers, [4.0, 8.0], threads=1), layers, FAST, SLOW)
    # One core of SLOW has a quarter of the arithmetic and half of the bandwidth.
    assert one.layers[0].ms == pytest.approx(four.layers[0].ms / 2)
    assert one.layers[1].ms == pytest.approx(four.layers[1].ms / 4)
    assert one.threads == 4


def test_a_profile_without_layer_times() -> None:
    layers = two_layers().layers
    whole = profile_of(layers, [4.0, 8.0])
    after = scale_profile(replace(whole, layers=()), layers, FAST, SLOW)
    old, new = (sum(roofline_ms(x, layers, d.speed()) for x in layers) for d in (SLOW, FAST))
    assert after.total_ms == pytest.approx(12 * new / old)
    assert after.layers == ()
    fused = profile_of(layers, [0.0, 0.0], rest_ms=12.0)
    assert scale_profile(fused, layers, FAST, SLOW).total_ms == pytest.approx(12 * new / old)


def test_the_source_is_guessed() -> None:
    before = profile_of([], [], rest_ms=1.0)
    assert source_device(before).name == "pi5"
    intel = "Intel(R) Core(TM) i7-1165G7"
    for text in (f"t4 ({intel})", intel):
        assert source_device(replace(before, device=text)).name == "laptop"
    named = replace(before, device="node (AMD EPYC 7763), cuda: Tesla T4")
    assert source_device(named).name == "t4"
    with pytest.raises(DeviceError, match="GPU"):
        source_device(replace(before, device="node (AMD EPYC 7763), cuda"))


def test_what_cannot_be_scaled() -> None:
    layers = two_layers().layers
    before = profile_of(layers, [4.0, 8.0])
    with pytest.raises(DeviceError, match="another model"):
        scale_profile(before, MODELS["resnet50"], PI4)
    with pytest.raises(DeviceError, match="no measurement"):
        scale_profile(scale_profile(before, layers, PI4), layers, PI5)
    with pytest.raises(DeviceError, match="slowed"):
        scale_profile(replace(before, emulated="slowed down 4 times"), layers, PI4)


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
