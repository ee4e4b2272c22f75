"""Devices to plan for without having them: speed and power by name, every figure with its source.

Speeds are meant for ratios between two devices, at a batch of one and in 32-bit floats. A figure
whose source says "unchecked" could not be compared with what it names; a benchmark that is named
was read, and of a figure given "by" or "as quoted" elsewhere, only that other page. ResNet-50 is
taken as 8.2 GFLOP a picture of 224 x 224, a multiply-add counted as two.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from ..bundle.roofline import Speed
from ..errors import DeviceError


@dataclass(frozen=True, slots=True)
class Figure:
    """A number and where it is from."""

    value: float
    source: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """One device, or the exemplar of a class of devices.

    `peak_gflops` counts `cores` processor cores (None for a GPU) and `reach` is the fraction of it
    that a runtime gets out of convolutions and matrix products. `memory_gb_s` is what all cores
    read and write together, `core_gb_s` one of them. `overhead_us` is spent on each layer whatever
    its size. A GPU's watts are the card's alone; `host` names the entry for the processor beside
    it, on which codecs run.
    """

    name: str
    title: str
    cores: int | None
    peak_gflops: Figure
    reach: Figure
    memory_gb_s: Figure
    overhead_us: Figure
    idle_w: Figure
    busy_w: Figure
    core_gb_s: Figure | None = None
    host: str = ""

    def speed(self, threads: int | None = None) -> Speed:
        """What `threads` of its cores sustain; None, or more than there are: all of them."""
        gflops, gb_s = self.peak_gflops.value * self.reach.value, self.memory_gb_s.value
        if self.cores is not None and threads is not None and 0 < threads < self.cores:
            gflops *= threads / self.cores
            if self.core_gb_s is not None:
                gb_s = min(gb_s, threads * self.core_gb_s.value)
        return Speed(gflops=gflops, gb_s=gb_s, overhead_us=self.overhead_us.value)


_NCNN_PI4 = "ncnn benchmark/README.md, Raspberry Pi 4 at 1.5 GHz, 4 threads"
_MMDEPLOY = "MMDeploy docs/en/03-benchmark/benchmark.md, TensorRT, fp32, batch 1"
_LAUNCH = "Holistic Trace Analysis docs: launching a CUDA kernel usually takes 5 to 20 μs"
_SMI = "nvidia-smi listings of idle cards in public READMEs"
_SPECS = "specification, by sysrqmts.com; NVIDIA's own data sheet was not at hand"
_H100 = "specification, by glennklockwood.com; NVIDIA's own data sheet was not at hand"
_GUESS = "an order of magnitude, no source, unchecked"

_DEVICES = (
    Device(
        name="pi4",
        title="Raspberry Pi 4",
        cores=4,
        peak_gflops=Figure(
            48,
            "4 Cortex-A72 x 1.5 GHz (Raspberry Pi Beginner's Guide, specifications) x 8 "
            "fp32 operations a cycle (Arm's optimisation guide, from memory, unchecked)",
        ),
        reach=Figure(0.35, f"{_NCNN_PI4}: ResNet-50 in 487 ms = 16.8 GFLOP/s of 48"),
        memory_gb_s=Figure(
            5.55,
            "tinymembench, C copy of 2777 MB/s, counted once read and once written "
            "(geerlingguy/sbc-reviews, 1.25 GHz edition); STREAM finds 5.56 (sci-pi.org.uk)",
        ),
        core_gb_s=Figure(5.55, "the same measurement, which is of a single thread"),
        overhead_us=Figure(10, _GUESS),
        idle_w=Figure(2.7, "Pi Dramble power benchmarks: 540 mA at 5 V, as quoted elsewhere"),
        busy_w=Figure(6.4, "Pi Dramble, as quoted elsewhere: 1280 mA at 5 V with four cores busy"),
    ),
    Device(
        name="pi5",
        title="Raspberry Pi 5",
        cores=4,
        peak_gflops=Figure(
            153.6,
            "4 Cortex-A76 x 2.4 GHz (product brief, by the Zephyr board page) x 16 fp32 "
            "operations a cycle (Arm's optimisation guide, from memory, unchecked)",
        ),
        reach=Figure(
            0.5,
            "visionanalysis.org, ONNX Runtime FP32 on a Raspberry Pi 5: YOLOX-M at "
            "1.1/s and YOLOX-L at 0.5/s x 73.8 and 155.6 GFLOP (YOLOX README) = 81 and 78 "
            "GFLOP/s of 153.6",
        ),
        memory_gb_s=Figure(
            9.74,
            "tinymembench, C copy of 4870 MB/s, counted once read and once written "
            "(geerlingguy/sbc-reviews, Raspberry Pi 5); LPDDR4X-4267 peaks at 17",
        ),
        core_gb_s=Figure(9.74, "the same measurement, which is of a single thread"),
        overhead_us=Figure(5, _GUESS),
        idle_w=Figure(
            2.36,
            "1.55 W over the rails of the board's PMIC, published readings (unchecked), "
            "through the fit of pmic.py, which adds what the rails do not show",
        ),
        busy_w=Figure(
            5.75,
            "4.51 W over the rails under load, published readings (unchecked), through "
            "the fit of pmic.py; a stress test draws more at the plug",
        ),
    ),
    Device(
        name="jetson-nano",
        title="NVIDIA Jetson Nano",
        cores=None,
        host="pi4",
        peak_gflops=Figure(
            236,
            "128 CUDA cores x 0.9216 GHz (deviceQuery; NVIDIA's power mode table) x 2; "
            "half of the 472 GFLOP/s that NVIDIA states for fp16",
        ),
        reach=Figure(0.59, f"{_MMDEPLOY}, 2 GB board: ResNet-50 in 59.32 ms = 138 GFLOP/s of 236"),
        memory_gb_s=Figure(25.6, "specification, by cpu-gpu.alldbin.com"),
        overhead_us=Figure(20, f"{_LAUNCH}; the upper end for its slow cores"),
        idle_w=Figure(2, "from memory of user reports, unchecked"),
        busy_w=Figure(10, "the budget of power mode MAXN: NVIDIA's guide, as quoted elsewhere"),
    ),
    Device(
        name="orin-nano",
        title="NVIDIA Jetson Orin Nano 8GB",
        cores=None,
        host="pi5",
        peak_gflops=Figure(
            1280, "1024 CUDA cores x 0.625 GHz (Jetson Orin Nano series data sheet) x 2"
        ),
        reach=Figure(
            0.8,
            "Idein/aicast_jetson_benchmark, trtexec FP32: YOLOX-S in 20.9 ms, on a "
            "Jetson Nano in 153.3 ms: 7.3 times the Nano's 138 GFLOP/s, of 1280 (its tensor "
            "cores take TF32)",
        ),
        memory_gb_s=Figure(68, "specification, by hokwangchoi/jetson-orin-nano-benchmarks"),
        overhead_us=Figure(15, f"{_LAUNCH}; the upper half for its slow cores"),
        idle_w=Figure(
            4.5,
            "from memory of user reports, unchecked; a board with all it could switch "
            "off draws 2.6 (NVIDIA forum, topic 348662)",
        ),
        busy_w=Figure(15, "the upper of its 7 W and 15 W power modes (not the Super ones)"),
    ),
    Device(
        name="laptop",
        title="laptop (Intel Core i7-1165G7)",
        cores=4,
        peak_gflops=Figure(
            358,
            "4 cores x 2.8 GHz base clock (Tom's Hardware) x 32 fp32 operations a cycle "
            "(two 256-bit fused multiply-adds, from memory, unchecked)",
        ),
        reach=Figure(0.5, "taken to be that of server-cpu, unchecked"),
        memory_gb_s=Figure(
            51.2,
            "2 channels x 8 bytes x 3200 MT/s, the peak of DDR4-3200 (Intel ARK, from "
            "memory, unchecked; with LPDDR4X-4267 it is 68)",
        ),
        core_gb_s=Figure(25, _GUESS),
        overhead_us=Figure(3, _GUESS),
        idle_w=Figure(5, "from memory of reviews of thin laptops, unchecked"),
        busy_w=Figure(28, "the upper end of its 10 to 28 W range (Notebookcheck, 2020)"),
    ),
    Device(
        name="server-cpu",
        title="server CPU (16 cores of an AMD EPYC 7763)",
        cores=16,
        peak_gflops=Figure(
            1254,
            "16 of 64 cores x 2.45 GHz base clock (Techgage) x 32 fp32 operations a "
            "cycle (two 256-bit fused multiply-adds: Microway on the predecessor)",
        ),
        reach=Figure(
            0.5,
            "optimum-benchmark/cpu: ResNet-50, PyTorch, 75 ms on 4 virtual CPUs of an "
            "EPYC 7763 = 0.7 of 2 cores at base clock; 0.5 is assumed for 16, unchecked",
        ),
        memory_gb_s=Figure(
            74.4,
            "STREAM with 16 threads on an EPYC 7742, one generation older with the same "
            "memory (v0dro's gist)",
        ),
        core_gb_s=Figure(28, "STREAM with one thread, in the same gist"),
        overhead_us=Figure(5, _GUESS),
        idle_w=Figure(
            100,
            "AnandTech, EPYC Milan review: the package idles at around 100 W (later "
            "platforms lower); it is shared by all 64 cores",
        ),
        busy_w=Figure(145, "16/64 of the way from idle to its TDP of 280 W (Techgage)"),
    ),
    Device(
        name="t4",
        title="NVIDIA T4",
        cores=None,
        host="server-cpu",
        peak_gflops=Figure(8100, _SPECS),
        reach=Figure(0.34, f"{_MMDEPLOY}: ResNet-50 in 2.97 ms = 2.76 TFLOP/s of 8.1"),
        memory_gb_s=Figure(320, _SPECS),
        overhead_us=Figure(10, _LAUNCH),
        idle_w=Figure(9, f"{_SMI}: 9 W in state P8"),
        busy_w=Figure(70, _SPECS),
    ),
    Device(
        name="a10",
        title="NVIDIA A10",
        cores=None,
        host="server-cpu",
        peak_gflops=Figure(31240, _SPECS),
        reach=Figure(
            0.1,
            "taken from its successor L4: Roboflow's Inference benchmarks, 358.6 "
            "ResNet-50/s through ONNX Runtime = 2.9 TFLOP/s of 30.3 (the latter from memory, "
            "unchecked)",
        ),
        memory_gb_s=Figure(600, _SPECS),
        overhead_us=Figure(10, _LAUNCH),
        idle_w=Figure(17, f"{_SMI}: 17 to 26 W in state P8"),
        busy_w=Figure(150, f"{_SMI}: its power limit"),
    ),
    Device(
        name="h100",
        title="NVIDIA H100 SXM",
        cores=None,
        host="server-cpu",
        peak_gflops=Figure(66900, f"{_H100}; without tensor cores"),
        reach=Figure(
            0.1, "taken to be that of a10: one picture does not fill it either, unchecked"
        ),
        memory_gb_s=Figure(3350, _H100),
        overhead_us=Figure(10, _LAUNCH),
        idle_w=Figure(70, f"{_SMI}: 68 to 74 W with nothing loaded"),
        busy_w=Figure(700, f"{_SMI}: its power limit"),
    ),
)

DEVICES: Mapping[str, Device] = {device.name: device for device in _DEVICES}


def device_named(name: str) -> Device:
    """The device called `name`; `DeviceError` lists those that there are."""
    try:
        return DEVICES[name.strip().lower()]
    except KeyError:
        raise DeviceError(f"unknown device {name!r}", f"use one of {', '.join(DEVICES)}") from None


# What a machine may call itself, and the entry that is nearest to it; the first match counts.
# The last two lines catch every processor of a server, and every other one with x86 in it.
_GUESSES: tuple[tuple[str, str], ...] = (
    (r"raspberry pi (compute module )?5|bcm2712|cortex-a76", "pi5"),
    (r"raspberry pi|bcm27|cortex-a72", "pi4"),
    (r"\b(orin|thor)\b", "orin-nano"),
    (r"jetson|tegra", "jetson-nano"),
    (r"\b([abh][12]00|gh200|gb?200)\b", "h100"),
    (r"\bt4\b", "t4"),
    (r"nvidia|geforce|\b(rtx|quadro|tesla)\b", "a10"),
    (r"epyc|xeon|neoverse|graviton|ampere", "server-cpu"),
    (r"intel|amd|ryzen|x86|i[3-6]86|apple", "laptop"),
)


def guess_device(cpu_model: str, machine: str = "") -> Device:
    """The entry that stands in for a machine whose own figures are not known.

    `cpu_model` is what the board, the processor or the GPU calls itself, `machine` its architecture
    (`x86_64`). What matches nothing is taken for a Raspberry Pi 4, the slowest entry: a small Arm
    board is what most devices are that do not name their processor.
    """
    text = f"{cpu_model} {machine}".lower()
    for pattern, name in _GUESSES:
        if re.search(pattern, text):
            return DEVICES[name]
    return DEVICES["pi4"]
