"""The transform codec for streams: `fkt-video` codes a frame by what changed since the last.

Both ends keep the coefficients of the latest frame as the decoder has them: integers, in 1/64 step,
computed from the same integers by the same sums, so that they never drift apart. A frame is either
a key frame, coded as by `fkt`, or the difference to a share of what is kept. The share (0, 1/2, 3/4
or all) is chosen for each ring of frequencies, since what moves keeps its slow waves longer than
its fast ones; so is by how much smaller the differences are than the coefficients, which tells the
entropy stage what to expect. The encoder sends whichever is shorter.

A payload is a head (kind as uint8, the frame's number as uint32), for a difference a byte a ring,
and then a sample as `fkt` writes it. A difference builds on the frame of the number before.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from ..errors import CodecError
from ..spec import Array, TensorSpec
from .codec import MIN_SAMPLE_BYTES
from .coefficients import CoefficientCoder
from .loops import RINGS
from .packed import PackedFkt
from .rans import BITS_PER_LANE, MAX_LANES, least_lanes
from .symbol_plan import SymbolPlan
from .symbols import FINE, MAX_MAGNITUDE

KEY, DIFFERENCE = 0, 1
MAX_SHIFT = 31  # a ring's differences are 2^(-shift/4) of its coefficients
_HEAD = struct.Struct("<BI")


class KeyFrameNeeded(CodecError):
    """The payload builds on a frame that this decoder does not have: ask for a key frame."""


class VideoState:
    """What both ends keep of one tensor of one stream: bounded by the tensor's own size.

    `frame` is the number of the latest frame; it goes on where a stream starts again, so that no
    frame is ever taken for one of an earlier life.
    """

    def __init__(self, coder: CoefficientCoder) -> None:
        self.coder = coder
        self.frame, self._ready = 0, False
        level, grid = coder.level, coder.table.grid
        self._kept = np.zeros(len(level.order), np.int64)
        edges = np.linspace(0, 1, RINGS + 1)[1:-1]
        rings = np.digitize(np.sqrt(grid.frequencies()), edges)
        self._ring = rings[level.order % grid.positions].astype(np.uint8)

    def reset(self) -> None:
        """The next frame must be a key frame."""
        self._ready = False

    def encode(self, array: Array, spec: TensorSpec) -> bytes:
        """The payload of the stream's next frame, a single sample."""
        coder, level = self.coder, self.coder.level
        if spec.check(array) != 1:
            raise CodecError("a stream's frames are single samples", "use the codec fkt")
        (banded,) = coder.banded(array)
        sent, outliers = coder.sent(banded), coder.outliers(banded)
        plain = coder.quantise(sent, level.classes)
        number = (self.frame + 1) % (1 << 32)
        payload = _HEAD.pack(KEY, number) + coder.write(plain, coder.plan, level.lanes, outliers)
        kept = coder.fine(plain, level.classes)
        if self._ready:
            rings = self._rings(sent)
            base, classes = self._expected(rings)
            left = sent - base.astype(np.float32) / FINE
            if np.abs(left).max(initial=0) < MAX_MAGNITUDE:  # or else only a key frame holds it
                change = coder.quantise(left, classes)
                body = coder.write(change, self._plan(classes), self._lanes(change), outliers)
                shorter = _HEAD.pack(DIFFERENCE, number) + rings.tobytes() + body
                if len(shorter) < len(payload):
                    payload, kept = shorter, base + coder.fine(change, classes)
        if len(payload) > _most_bytes(spec):
            raise CodecError(
                f"tensor {spec.name!r} is so unlike those of calibration that it would grow",
                "calibrate with such inputs, or use another codec",
            )
        self._kept, self.frame, self._ready = kept, number, True
        return payload

    def packed(self, payload: bytes) -> PackedFkt:
        """The coefficients of the stream's next frame.

        `KeyFrameNeeded` where it builds on another frame than the latest; the state then stays as
        it was, as it does for any other `CodecError`.
        """
        coder, level = self.coder, self.coder.level
        if len(payload) < _HEAD.size:
            raise CodecError("payload ends within its head")
        kind, number = _HEAD.unpack_from(payload)
        body, base, classes = payload[_HEAD.size :], np.int64(0), level.classes
        plan = coder.plan
        if kind == DIFFERENCE:
            if not self._ready or number != (self.frame + 1) % (1 << 32):
                raise KeyFrameNeeded(f"frame {number} builds on one that is not here")
            if len(body) < RINGS:
                raise CodecError("payload ends within its rings")
            base, classes = self._expected(np.frombuffer(body, np.uint8, RINGS))
            body, plan = body[RINGS:], self._plan(classes)
        elif kind != KEY:
            raise CodecError("payload is of no known kind")
        values, outliers = coder.read([body], plan)
        kept = base + values[0].astype(np.int64)
        if np.abs(kept).max(initial=0) >= 1 << 53:
            raise CodecError("payload adds up to values beyond all bounds")
        self._kept, self.frame, self._ready = kept, number, True
        coder.table.check_inverse()
        return PackedFkt.of(coder.table, level, kept[None], outliers)

    def _plan(self, classes: Array) -> SymbolPlan:
        table = self.coder.table
        return table.loops.plan(classes, table.model)

    def _lanes(self, magnitudes: Array) -> int:
        """Lanes whose room these symbols fill, but enough of them."""
        room = self.coder.table.loops.raw_bits(magnitudes) // BITS_PER_LANE
        return min(max(room, least_lanes(len(magnitudes))), MAX_LANES)

    def _expected(self, rings: Array) -> tuple[Array, Array]:
        """What a difference starts from, in 1/64 step, and the classes of the differences."""
        coder = self.coder
        return coder.table.loops.expected(self._kept, self._ring, coder.level.classes, rings)

    def _rings(self, sent: Array) -> Array:
        """A byte for each ring: the share that leaves least, and by how much less that is."""
        energy, left = self.coder.table.loops.ring_energies(sent, self._kept, self._ring)
        best = left.argmin(0)
        # A class is a quarter of an octave, so four of them halve a size and quarter an energy.
        ratio = energy / np.maximum(left.min(0), 1e-9)
        shift = np.clip(np.rint(2 * np.log2(np.maximum(ratio, 1))), 0, MAX_SHIFT)
        found: Array = (best + 4 * shift.astype(np.int64)).astype(np.uint8)
        return found


@dataclass(frozen=True, slots=True)
class FktVideo:
    """One level of a boundary's tables, for streams. By itself it writes and reads key frames."""

    name: str
    coders: Mapping[str, CoefficientCoder]

    def supports(self, spec: TensorSpec) -> bool:  # noqa: D102
        coder = self.coders.get(spec.name)
        return coder is not None and coder.table.spec == spec

    def encode(self, array: Array, spec: TensorSpec) -> bytes:  # noqa: D102
        return self.new_stream().encode(array, spec)

    def decode(self, payload: bytes, spec: TensorSpec, batch: int) -> Array:  # noqa: D102
        return self.new_stream().decode(payload, spec, batch)

    def packed(self, payload: bytes, spec: TensorSpec, batch: int) -> PackedFkt:
        """See `Packing`."""
        return self.new_stream().packed(payload, spec, batch)

    def max_payload_bytes(self, spec: TensorSpec, batch: int) -> int:  # noqa: D102
        return _most_bytes(spec)

    def new_stream(self) -> VideoStream:
        """One end of a stream, which is a codec with a memory: not to be shared."""
        return VideoStream(self)


class VideoStream:
    """What one end of a stream keeps, tensor by tensor. Payloads go in the order of the stream."""

    def __init__(self, codec: FktVideo) -> None:
        self.codec, self.name = codec, codec.name
        self.supports, self.max_payload_bytes = codec.supports, codec.max_payload_bytes
        # Made by the first frame, in whose thread that is: it takes milliseconds for large tensors.
        self._states: dict[str, VideoState] = {}

    def encode(self, array: Array, spec: TensorSpec) -> bytes:
        """See `VideoState.encode`."""
        return self._state(spec).encode(array, spec)

    def decode(self, payload: bytes, spec: TensorSpec, batch: int) -> Array:
        """The tensor `[1, ...]` of the stream's next frame; errors are those of `packed`."""
        return self.packed(payload, spec, batch).unpack()

    def packed(self, payload: bytes, spec: TensorSpec, batch: int) -> PackedFkt:
        """See `VideoState.packed`."""
        if batch != 1:
            raise CodecError("a stream's frames are single samples")
        return self._state(spec).packed(payload)

    def _state(self, spec: TensorSpec) -> VideoState:
        found = self._states.get(spec.name)
        if found is None:
            found = self._states[spec.name] = VideoState(self.codec.coders[spec.name])
        return found

    def reset(self) -> None:
        """The next frame must be a key frame."""
        for state in self._states.values():
            state.reset()


def _most_bytes(spec: TensorSpec) -> int:
    return max(spec.nbytes_at(1), MIN_SAMPLE_BYTES) + _HEAD.size
