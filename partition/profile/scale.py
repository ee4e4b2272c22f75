"""Layer times without the device: a measured profile, scaled to a named one.

Every layer's time is multiplied by the ratio of its roofline times on the two devices (Williams,
Waterman, Patterson, "Roofline", CACM 2009: the slower of computing and moving the bytes), plus what
a device spends on any layer. What the runtime does well or badly on both devices cancels out.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace

from ..bundle.flops import is_heavy
from ..bundle.graph import Layer
from ..bundle.roofline import Speed
from ..errors import DeviceError
from .devices import DEVICES, Device, guess_device
from .profile import LayerTime, Profile, SegmentTime


def roofline_ms(layer: Layer, layers: Sequence[Layer], speed: Speed, batch: int = 1) -> float:
    """Milliseconds that `layer`, one of `layers`, needs at least, for the whole batch.

    Convolutions and matrix products are held against both limits, and so most convolutions turn out
    bound by arithmetic, depthwise ones and a linear layer for one sample by their bytes. All other
    kinds only move bytes: their operations are counted nominally.

    Its parameters are read once, its inputs and output for each sample. The model's own input is
    taken to be as large as the output of the layer that reads it.
    """
    read = sum(
        layers[index].output_bytes if index >= 0 else layer.output_bytes for index in layer.inputs
    )
    nbytes = layer.param_bytes + batch * (read + layer.output_bytes)
    return speed.ms(batch * (layer.flops or 0) if is_heavy(layer.op) else 0, nbytes)


def source_device(profile: Profile) -> Device:
    """The entry nearest to the machine that `profile` was measured on.

    `DeviceError` for a GPU that the profile does not name.
    """
    named = re.fullmatch(r"\S* \((.*)\)([^)]*)", profile.device)  # NODE (PROCESSOR), cuda
    processor, accelerator = named.groups() if named else (profile.device, "")
    guess = guess_device(f"{processor} {accelerator}")
    if "cuda" in accelerator and guess.cores is not None:
        raise DeviceError(
            f"the profile was measured on a GPU that it does not name ({profile.device})",
            "measure it again with `splitpoint profile`, which names the GPU",
        )
    return guess


def scale_profile(
    profile: Profile, layers: Sequence[Layer], target: Device, source: Device | None = None
) -> Profile:
    """What `profile`, of a bundle with these manifest layers, would be on all cores of `target`.

    It was measured with `profile.threads` cores of `source`, the nearest entry unless given; for
    `source` itself no time changes. A segment keeps what its layers do not account for, scaled like
    them; codecs and heads run on the processor and scale like a copy by one thread. Energy is the
    target's busy power over the time. Raises `DeviceError` for a profile of other layers, or one
    that is modelled or emulated already.
    """
    if profile.modelled or profile.emulated:
        raise DeviceError(
            f"this profile is no measurement ({profile.modelled or profile.emulated})",
            "scale one that was measured on the device it names",
        )
    source = source or source_device(profile)
    same = source == target
    scaler = _Scaler(
        layers=layers,
        old=source.speed(profile.threads),
        new=target.speed(profile.threads if same else None),
        spent=_spent(profile, layers),
    )
    busy_w = target.busy_w.value
    codec = _copy_gb_s(source) / _copy_gb_s(target)
    head_ms = codec * profile.head_ms
    *first, last = profile.segments
    scaled = [_scaled_segment(s, scaler, busy_w) for s in (*first, last.longer(-profile.head_ms))]
    return replace(
        profile,
        device=target.title,
        threads=profile.threads if same or target.cores is None else target.cores,
        cores=profile.cores if same else target.cores,
        segments=(*scaled[:-1], scaled[-1].longer(head_ms, busy_w * head_ms)),
        head_ms=head_ms,
        layers=_scaled_layers(profile.layers, scaler, busy_w),
        codecs=tuple(
            replace(c, encode_ms=codec * c.encode_ms, decode_ms=codec * c.decode_ms)
            for c in profile.codecs
        ),
        energy_kind="modelled",
        energy_meter=f"busy power of {target.title}, modelled",
        busy_w=busy_w,
        idle_w=target.idle_w.value,
        notes=(),
        modelled=f"scaled from {profile.device}, taken for {source.title}, to {target.title} "
        "by per-kind throughput, modelled",
    )


def _spent(profile: Profile, layers: Sequence[Layer]) -> Mapping[str, float]:
    """Measured milliseconds of every layer; none at all where the profile has no layers."""
    spent = {layer.name: layer.ms for layer in profile.layers}
    if spent and spent.keys() != {layer.name for layer in layers}:
        raise DeviceError("the profile is of another model: its layers differ from the bundle's")
    return spent


def _copy_gb_s(device: Device) -> float:
    """What one thread of the device's processor copies."""
    processor = DEVICES[device.host] if device.host else device
    return (processor.core_gb_s or processor.memory_gb_s).value


class _Scaler:
    """The ratios between two speeds, for a layer and for a segment."""

    def __init__(
        self, *, layers: Sequence[Layer], old: Speed, new: Speed, spent: Mapping[str, float]
    ) -> None:
        self._layers, self._old, self._new = layers, old, new
        self._spent = spent
        self._by_name = {layer.name: layer for layer in layers}

    def layer(self, name: str) -> float:
        """New time over old time of one layer."""
        return self._mean([self._by_name[name]], 1)

    def segment(self, index: int, batch: int = 1) -> float:
        """New time over old time of all layers of a segment; a segment without: of the model."""
        inside = [layer for layer in self._layers if layer.segment == index]
        return self._mean(inside or self._layers, batch)

    def _mean(self, layers: Sequence[Layer], batch: int) -> float:
        """Weighed by the time measured in each layer, where there is any, else by the old model."""
        old = [roofline_ms(layer, self._layers, self._old, batch) for layer in layers]
        new = [roofline_ms(layer, self._layers, self._new, batch) for layer in layers]
        spent = [self._spent.get(layer.name, 0.0) for layer in layers]
        weights = spent if any(spent) else old
        if not any(weights):
            return 1.0
        ratios = [n / o if o else 1.0 for n, o in zip(new, old, strict=True)]
        return math.fsum(w * r for w, r in zip(weights, ratios, strict=True)) / math.fsum(weights)


def _scaled_segment(segment: SegmentTime, scaler: _Scaler, busy_w: float) -> SegmentTime:
    ratio = scaler.segment(segment.id)
    return replace(
        segment,
        ms=ratio * segment.ms,
        p95_ms=ratio * segment.p95_ms,
        spread_ms=ratio * segment.spread_ms,
        mj=busy_w * ratio * segment.ms,
        batch_ms={
            batch: scaler.segment(segment.id, batch) * ms for batch, ms in segment.batch_ms.items()
        },
    )


def _scaled_layers(
    layers: Sequence[LayerTime], scaler: _Scaler, busy_w: float
) -> tuple[LayerTime, ...]:
    """The layers' times; the shares still add up to what they did."""
    ratios = [scaler.layer(layer.name) for layer in layers]
    shares = [ratio * layer.share for ratio, layer in zip(ratios, layers, strict=True)]
    before, after = math.fsum(layer.share for layer in layers), math.fsum(shares)
    return tuple(
        replace(
            layer,
            ms=ratio * layer.ms,
            mj=busy_w * ratio * layer.ms,
            share=share * before / after if after else layer.share,
        )
        for layer, ratio, share in zip(layers, ratios, shares, strict=True)
    )
