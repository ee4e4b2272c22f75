"""Profiles of one device as those of another."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from published_models import FAST, MODELS, PI4, PI5, SLOW, Net, device, profile_of
from splitpoint.partition.errors import DeviceError
from splitpoint.partition.profile.devices import DEVICES
from splitpoint.partition.profile.scale import roofline_ms, scale_profile, source_device


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
