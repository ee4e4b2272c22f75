"""Models as layers, and what devices take for them."""

from __future__ import annotations

import math
from collections.abc import Sequence

from splitpoint.partition.bundle.graph import Layer
from splitpoint.partition.profile.devices import DEVICES, Device, Figure
from splitpoint.partition.profile.profile import CodecTime, LayerTime, Profile, SegmentTime
from splitpoint.partition.profile.scale import roofline_ms

PI4, PI5 = DEVICES["pi4"], DEVICES["pi5"]


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
        return Figure(value, "made up")

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
