"""Where a frame's tensors and its answer lie in a piece of shared memory.

Both processes work it out for themselves, from the model and a few small numbers (`TensorForm`):
offsets and shapes never travel.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from splitpoint.codec import (
    Array,
    Codec,
    CodecError,
    Packed,
    SpecError,
    SplitpointError,
    TensorSpec,
)
from splitpoint.codec.codec_set import FKT as FKT_CODEC
from splitpoint.codec.codec_set import LEARNED as LEARNED_CODEC
from splitpoint.codec.fkt.codec import Fkt
from splitpoint.codec.fkt.packed import PackedFkt
from splitpoint.codec.fkt.table import OCTAVE, FktTable, Level
from splitpoint.codec.learned import Learned, PackedLearned
from splitpoint.codec.simple.affine import Layout, PackedAffine
from splitpoint.proto.limits import MAX_BATCH_PER_FRAME

from ..compute.served_model import ServedModel
from ..compute.values import Values
from .shared_memory import SharedMemory

ALIGNED = 64  # bytes: a cache line, and more than any dtype needs
MOST_KNOWN = 4096  # layouts that are remembered
_FLOAT, _BYTE, _SHORT, _LONG = map(np.dtype, ("<f4", "u1", "<i2", "<i8"))
WHOLE, Q8, Q4, FKT, LEARNED = range(5)
_BITS = {Q8: 8, Q4: 4}
_FAMILIES = {FKT: FKT_CODEC, LEARNED: LEARNED_CODEC}


class LayoutError(SplitpointError):
    """Numbers that describe no frame of the model."""


class TensorForm(NamedTuple):
    """How one tensor lies there: `kind` is `WHOLE`, `Q8`, `Q4`, `FKT` or `LEARNED`.

    The `level` of the last two counts from 1, and `peaks` go over its values.
    """

    kind: int = WHOLE
    level: int = 0
    peaks: int = 0


class Part(NamedTuple):
    """An array, at an offset from the piece's beginning."""

    offset: int
    shape: tuple[int, ...]
    dtype: np.dtype[Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class FrameLayout:
    """`inputs` are the parts of each tensor, `outputs` those of the answer, behind them.

    `nbytes` are all of these, `tensor_bytes` what the frame's tensors take when they are whole.
    """

    forms: tuple[TensorForm, ...]
    inputs: tuple[tuple[Part, ...], ...]
    outputs: tuple[Part, ...]
    nbytes: int
    tensor_bytes: int


class Layouts:
    """Of one model's frames. `read` makes of a piece's content what an engine takes."""

    def __init__(self, model: ServedModel) -> None:
        self._boundaries, self._outputs = model.boundaries, model.form.specs
        self._unpacks = model.unpacks
        self._codecs, self._indexes = model.codecs, model.indexes
        self._known: dict[tuple[int, int, tuple[TensorForm, ...]], FrameLayout] = {}

    def forms_of(self, boundary: int, values: Values) -> tuple[TensorForm, ...]:
        """The forms of what a frame was decoded to, in the boundary's order."""
        return tuple([_form_of(values[spec.name]) for spec in self._boundaries[boundary]])

    def of(self, boundary: int, samples: int, forms: tuple[TensorForm, ...]) -> FrameLayout:
        """Where all of that lies; raises `LayoutError` for what can be no frame of the model."""
        key = boundary, samples, forms
        found = self._known.get(key)
        if found is None:
            found = self._made(boundary, samples, forms)
            if len(self._known) >= MOST_KNOWN:
                self._known.clear()
            self._known[key] = found
        return found

    @property
    def largest(self) -> int:
        """Bytes of the largest frame that is not packed, with its answer."""
        return max(
            self.of(
                boundary,
                1 if specs[0].one_sample else MAX_BATCH_PER_FRAME,
                (TensorForm(),) * len(specs),
            ).nbytes
            for boundary, specs in enumerate(self._boundaries[:-1])
        )

    def read(self, memory: SharedMemory, offset: int, boundary: int, layout: FrameLayout) -> Values:
        """The tensors of the piece at `offset`, as views; raises `LayoutError` for wrong ones."""
        found = {
            spec.name: self._value(memory, offset, boundary, spec, form, parts)
            for spec, form, parts in zip(
                self._boundaries[boundary], layout.forms, layout.inputs, strict=True
            )
        }
        for name in self._indexes.names(boundary):  # looked at, they cannot change any more
            found[name] = np.array(found[name])
        try:
            self._indexes.check(boundary, found)
        except SpecError as error:
            raise LayoutError(str(error)) from error
        return found

    def _value(
        self,
        memory: SharedMemory,
        offset: int,
        boundary: int,
        spec: TensorSpec,
        form: TensorForm,
        parts: Sequence[Part],
    ) -> Array | Packed:
        arrays = [memory.array(offset + part.offset, part.shape, part.dtype) for part in parts]
        if form.kind == WHOLE:
            return arrays[0]
        if form.kind in _BITS:
            symbols, ranges = arrays
            layout = Layout.of(spec, len(symbols))
            return PackedAffine(layout, _BITS[form.kind], symbols, ranges)
        codec, table, level = self._level(boundary, spec, form)
        latent = self._coefficients(table, level, form, arrays)
        return codec.around(latent) if isinstance(codec, Learned) else latent

    @staticmethod
    def _coefficients(
        table: FktTable, level: Level, form: TensorForm, arrays: Sequence[Array]
    ) -> PackedFkt:
        values = arrays[0]
        if not form.peaks:
            return PackedFkt(table, level, values, np.empty(0, _LONG), np.empty(0, _LONG))
        # These say where a device writes: they are looked at, and cannot change after that.
        places, peaks = arrays[1].copy(), arrays[2].copy()
        if places.min() < 0 or places.max() >= len(values) * table.log_scale.size:
            raise LayoutError("a peak lies outside of its tensor")
        return PackedFkt(table, level, values, places, peaks)

    def _made(self, boundary: int, samples: int, forms: tuple[TensorForm, ...]) -> FrameLayout:
        if not 0 <= boundary < len(self._boundaries) - 1:
            raise LayoutError(f"there is no boundary {boundary}")
        specs = self._boundaries[boundary]
        if len(forms) != len(specs):
            raise LayoutError(f"{len(forms)} tensors for a boundary of {len(specs)}")
        if not 1 <= samples <= (1 if specs[0].one_sample else MAX_BATCH_PER_FRAME):
            raise LayoutError(f"a frame of {samples} samples")
        end = 0

        def placed(shape: tuple[int, ...], dtype: np.dtype[Any]) -> Part:
            nonlocal end
            part = Part(end, shape, dtype)
            end += -(-math.prod(shape) * dtype.itemsize // ALIGNED) * ALIGNED
            return part

        inputs = tuple([
            tuple([placed(*kind) for kind in self._kinds(boundary, spec, samples, form)])
            for spec, form in zip(specs, forms, strict=True)
        ])  # fmt: skip
        outputs = tuple([placed(s.shape_at(samples), s.numpy_dtype) for s in self._outputs])
        return FrameLayout(
            forms=forms,
            inputs=inputs,
            outputs=outputs,
            nbytes=end,
            tensor_bytes=sum(spec.nbytes_at(samples) for spec in specs),
        )

    def _kinds(
        self, boundary: int, spec: TensorSpec, samples: int, form: TensorForm
    ) -> list[tuple[tuple[int, ...], np.dtype[Any]]]:
        """Shape and dtype of each of a tensor's parts."""
        if form == TensorForm():
            return [(spec.shape_at(samples), spec.numpy_dtype)]
        if not self._unpacks or spec.dtype != "float32":
            raise LayoutError(f"{spec.name!r} is not computed from what is packed")
        if form.kind in _BITS and form == TensorForm(form.kind):
            layout = Layout.of(spec, samples)
            each = -(-layout.channels * layout.values * _BITS[form.kind] // 8)
            return [((samples, each), _BYTE), ((2, samples, layout.channels, 1), _FLOAT)]
        if form.kind not in _FAMILIES:
            raise LayoutError(f"there is no form {tuple(form)}")
        _, table, level = self._level(boundary, spec, form)
        if form.peaks > samples * table.log_scale.size:
            raise LayoutError(f"{form.peaks} peaks for {samples} samples")
        values = (samples, len(level.order)), _SHORT
        peaks = (form.peaks,), _LONG
        return [values, peaks, peaks] if form.peaks else [values]

    def _level(
        self, boundary: int, spec: TensorSpec, form: TensorForm
    ) -> tuple[Codec, FktTable, Level]:
        name = f"{_FAMILIES[form.kind]}@{form.level}"
        try:
            codec = self._codecs.named(name, boundary)
        except CodecError as error:
            raise LayoutError(f"there is no {name} at boundary {boundary}") from error
        inner = codec.latents if isinstance(codec, Learned) else codec
        coder = inner.coders.get(spec.name) if isinstance(inner, Fkt) else None
        if coder is None:
            raise LayoutError(f"{spec.name!r} has no {name} at boundary {boundary}")
        return codec, coder.table, coder.level


def _form_of(value: Array | Packed) -> TensorForm:
    if isinstance(value, np.ndarray):
        return TensorForm()
    if isinstance(value, PackedAffine):
        return TensorForm(Q8 if value.bits == 8 else Q4)
    if isinstance(value, PackedFkt):
        # Levels of the same step are the same level.
        steps = 2.0 ** (value.table.log_step.astype(np.float64) / OCTAVE)
        level = 1 + int(np.flatnonzero(steps == value.level.step)[0])
        return TensorForm(FKT, level, len(value.places))
    if isinstance(value, PackedLearned):
        return TensorForm(LEARNED, value.level, len(value.latent.places))
    raise TypeError(f"{type(value).__name__} has no place in shared memory")


def write(
    memory: SharedMemory,
    offset: int,
    layout: FrameLayout,
    specs: Sequence[TensorSpec],
    values: Values,
) -> None:
    """Copies the tensors into the piece at `offset`."""
    for spec, parts in zip(specs, layout.inputs, strict=True):
        value = values[spec.name]
        arrays = (value,) if isinstance(value, np.ndarray) else value.parts
        for part, array in zip(parts, arrays, strict=True):
            memory.array(offset + part.offset, part.shape, part.dtype)[...] = array


def write_outputs(
    memory: SharedMemory,
    offset: int,
    layout: FrameLayout,
    specs: Sequence[TensorSpec],
    outputs: Mapping[str, Array],
) -> None:
    """Copies an answer there; raises `LayoutError` where it has not the form of the model's."""
    for spec, part in zip(specs, layout.outputs, strict=True):
        array = outputs[spec.name]
        if array.shape != part.shape or array.dtype != part.dtype:
            raise LayoutError(f"the output {spec.name!r} is {array.dtype} {array.shape}")
        memory.array(offset + part.offset, part.shape, part.dtype)[...] = array


def read_outputs(
    memory: SharedMemory, offset: int, layout: FrameLayout, specs: Sequence[TensorSpec]
) -> dict[str, Array]:
    """A copy of the answer: the piece may be used again at once."""
    return {
        spec.name: memory.array(offset + part.offset, part.shape, part.dtype).copy()
        for spec, part in zip(specs, layout.outputs, strict=True)
    }
