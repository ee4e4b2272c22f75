"""Builds and checks messages: pure functions between bytes, protobuf messages and tensors.

The sender encodes tensors and seals the message with a CRC-32 over its fields. The receiver
believes nothing: size, boundary, codec, tensor count, dtype, shape and payload length are compared
with the boundary's specification, then the CRC, and only then is a payload decoded.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from google.protobuf.message import DecodeError
from splitpoint.codec import (
    DTYPE_NUMBERS,
    RAW,
    Array,
    Codec,
    CodecError,
    CodecSource,
    Packed,
    Packing,
    SpecError,
    TensorSpec,
    codec_of_tensor,
)
from splitpoint.codec.fkt.video import KeyFrameNeeded

from ..proto import splitpoint_pb2 as pb
from .status import WireError
from .wire_scan import CLIENT_MESSAGE, SERVER_MESSAGE, OutlineError

Boundaries = Sequence[Sequence[TensorSpec]]
_T = TypeVar("_T")

_PIECE_BYTES, _LARGE_BYTES = 5 << 10, 256 << 10
_FRAME_HEAD = struct.Struct("<QII")
_REPLY_HEAD = struct.Struct("<QQI")


class FrameError(WireError):
    """A message that the receiver refuses, with the status that says so on the wire."""

    def __init__(self, status: pb.Status, what: str) -> None:
        super().__init__(what)
        self.status = status


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckedFrame:
    """A frame whose every field fits the manifest; its payloads are not decoded yet."""

    id: int
    boundary: int
    codec: Codec
    batch: int
    payloads: tuple[bytes, ...]
    specs: tuple[TensorSpec, ...]
    budget_ms: int

    @property
    def nbytes(self) -> int:
        """Of its tensors, once they are decoded."""
        return sum(spec.nbytes_at(self.batch) for spec in self.specs)

    def decode(self) -> dict[str, Array]:
        """Tensors by name; `FrameError` (UNDECODABLE, KEY_FRAME) when a codec refuses a payload."""
        return self._each(lambda codec, payload, spec: codec.decode(payload, spec, self.batch))

    def packed(self) -> dict[str, Array | Packed]:
        """As `decode`, but without what a GPU does better: see `Packed`."""
        return self._each(
            lambda codec, payload, spec: (
                codec.packed(payload, spec, self.batch)
                if isinstance(codec, Packing)
                else codec.decode(payload, spec, self.batch)
            )
        )

    def _each(self, read: Callable[[Codec, bytes, TensorSpec], _T]) -> dict[str, _T]:
        try:
            return {
                spec.name: read(codec_of_tensor(self.codec, spec), payload, spec)
                for spec, payload in zip(self.specs, self.payloads, strict=True)
            }
        except KeyFrameNeeded as error:
            raise FrameError(pb.KEY_FRAME, str(error)) from error
        except CodecError as error:
            raise FrameError(pb.UNDECODABLE, str(error)) from error


def encode_tensors(
    values: Mapping[str, Array], specs: Sequence[TensorSpec], codec: Codec
) -> list[pb.Tensor]:
    """The boundary's tensors as messages; `CodecError` or `SpecError` if one does not fit."""
    return [
        pb.Tensor(
            dtype=DTYPE_NUMBERS[spec.dtype],
            shape=values[spec.name].shape,
            payload=codec_of_tensor(codec, spec).encode(values[spec.name], spec),
        )
        for spec in specs
    ]


def build_frame(
    *,
    id: int,
    boundary: int,
    codec: str,
    tensors: Sequence[pb.Tensor],
    budget_ms: int,
    traceparent: str = "",
) -> bytes:
    """A sealed `ClientMessage` with one frame."""
    message = pb.ClientMessage()
    frame = message.frame  # filled in place: a frame assigned later would be copied whole
    frame.id, frame.boundary, frame.codec, frame.budget_ms = id, boundary, codec, budget_ms
    frame.tensors.extend(tensors)
    frame.crc32 = frame_crc32(frame)
    if traceparent:
        frame.traceparent = traceparent
    return message.SerializeToString()


def frame_crc32(frame: pb.Frame) -> int:
    """CRC-32 (zlib) of id, boundary, budget, codec, and each tensor's dtype, shape and payload."""
    return _frame_crc32(frame, _payloads_of(frame.tensors))


def _frame_crc32(frame: pb.Frame, payloads: Sequence[bytes]) -> int:
    head = _FRAME_HEAD.pack(frame.id, frame.boundary, frame.budget_ms)
    return _tensors_crc32(frame.tensors, payloads, zlib.crc32(head + frame.codec.encode()))


def reply_crc32(reply: pb.Reply) -> int:
    """CRC-32 of id, message index, status and outputs."""
    status = reply.status & 0xFFFFFFFF  # open enums are signed on the wire
    head = _REPLY_HEAD.pack(reply.id, reply.message_index, status)
    return _tensors_crc32(reply.outputs, _payloads_of(reply.outputs), zlib.crc32(head))


def _tensors_crc32(tensors: Sequence[pb.Tensor], payloads: Sequence[bytes], crc: int) -> int:
    for tensor, payload in zip(tensors, payloads, strict=True):
        shape = tuple(tensor.shape)
        head = struct.pack(f"<{len(shape) + 2}I", tensor.dtype, len(shape), *shape)
        crc = _crc32(payload, zlib.crc32(head, crc))
    return crc


def _crc32(data: bytes, crc: int) -> int:
    """As zlib's, which lets go of Python's lock for whatever is longer than a piece.

    Where another thread waits for the lock, to get it back takes longer than a usual payload's sum.
    """
    if not _PIECE_BYTES < len(data) <= _LARGE_BYTES:
        return zlib.crc32(data, crc)
    view = memoryview(data)
    for at in range(0, len(data), _PIECE_BYTES):
        crc = zlib.crc32(view[at : at + _PIECE_BYTES], crc)
    return crc


def _payloads_of(tensors: Sequence[pb.Tensor]) -> tuple[bytes, ...]:
    """Copies: protobuf makes one whenever it is asked."""
    return tuple(tensor.payload for tensor in tensors)


def parse_client(data: bytes) -> pb.ClientMessage:
    """The message in `data`; `FrameError` (MALFORMED) for anything else."""
    try:
        CLIENT_MESSAGE.check(data)
        message = pb.ClientMessage.FromString(data)
    except OutlineError as error:
        raise FrameError(pb.MALFORMED, str(error)) from error
    except DecodeError as error:
        raise FrameError(pb.MALFORMED, "the message cannot be parsed") from error
    if message.WhichOneof("kind") is None:
        raise FrameError(pb.MALFORMED, "the message is of no known kind")
    return message


def parse_server(data: bytes) -> pb.ServerMessage:
    """The message in `data`; `FrameError` (MALFORMED) for anything else."""
    try:
        SERVER_MESSAGE.check(data)
        message = pb.ServerMessage.FromString(data)
    except (OutlineError, DecodeError) as error:
        raise FrameError(pb.MALFORMED, "the worker's message cannot be parsed") from error
    if message.WhichOneof("kind") is None:
        raise FrameError(pb.MALFORMED, "the worker's message is of no known kind")
    return message


def check_frame(
    frame: pb.Frame, boundaries: Boundaries, max_batch: int, codecs: CodecSource
) -> CheckedFrame:
    """The frame if it fits `boundaries`; else `FrameError` with the status of the first misfit.

    The last boundary is the model's output and cannot be sent.
    """
    if frame.id == 0:
        raise FrameError(pb.MALFORMED, "a frame needs an id other than 0")
    if frame.boundary >= len(boundaries) - 1:
        raise FrameError(
            pb.OUT_OF_RANGE,
            f"boundary {frame.boundary} is out of range; this model takes 0 to "
            f"{len(boundaries) - 2}",
        )
    try:
        codec = codecs.named(frame.codec, frame.boundary)
    except CodecError as error:
        raise FrameError(pb.UNKNOWN_CODEC, str(error)) from error
    specs = tuple(boundaries[frame.boundary])
    batch, payloads = check_tensors(frame.tensors, specs, codec, max_batch)
    if _frame_crc32(frame, payloads) != frame.crc32:
        raise FrameError(pb.CORRUPT, "the frame's CRC-32 does not fit its content")
    return CheckedFrame(
        id=frame.id,
        boundary=frame.boundary,
        codec=codec,
        batch=batch,
        payloads=payloads,
        specs=specs,
        budget_ms=frame.budget_ms,
    )


def check_tensors(
    tensors: Sequence[pb.Tensor], specs: Sequence[TensorSpec], codec: Codec, max_batch: int
) -> tuple[int, tuple[bytes, ...]]:
    """The common batch size of `tensors`, and their payloads.

    `FrameError` for the first that does not fit.
    """
    if len(tensors) != len(specs):
        raise FrameError(pb.MISMATCH, f"{len(tensors)} tensors came, the boundary has {len(specs)}")
    batches, payloads = set(), []
    for tensor, spec in zip(tensors, specs, strict=True):
        if tensor.dtype != DTYPE_NUMBERS[spec.dtype]:
            raise FrameError(
                pb.MISMATCH, f"tensor {spec.name!r} has dtype {tensor.dtype}, not {spec.dtype}"
            )
        try:
            batch = spec.batch_of(tensor.shape)
        except SpecError as error:
            raise FrameError(pb.MISMATCH, str(error)) from error
        if batch > max_batch:
            raise FrameError(
                pb.TOO_LARGE, f"a batch of {batch} in one frame, at most {max_batch} are taken"
            )
        payload = tensor.payload  # a copy, whenever it is asked for
        limit = codec_of_tensor(codec, spec).max_payload_bytes(spec, batch)
        if len(payload) > limit:
            raise FrameError(
                pb.TOO_LARGE,
                f"the payload of tensor {spec.name!r} has {len(payload)} bytes, "
                f"at most {limit} are possible",
            )
        batches.add(batch)
        payloads.append(payload)
    if len(batches) != 1:
        raise FrameError(pb.MISMATCH, f"the tensors have different batch sizes {sorted(batches)}")
    return batches.pop(), tuple(payloads)


def build_reply(reply: pb.Reply) -> bytes:
    """A sealed `ServerMessage` with one reply."""
    reply.crc32 = reply_crc32(reply)
    return pb.ServerMessage(reply=reply).SerializeToString()


def decode_reply(
    reply: pb.Reply, specs: Sequence[TensorSpec], batch: int, codec: Codec = RAW
) -> dict[str, Array]:
    """The outputs of an OK reply to a frame of `batch` samples; `FrameError` for any misfit.

    They travel bit for bit: they are small, and they are the answer.
    """
    answered, payloads = check_tensors(reply.outputs, specs, codec, batch)
    if answered != batch:
        raise FrameError(pb.MISMATCH, "the worker answered another number of samples")
    if reply_crc32(reply) != reply.crc32:
        raise FrameError(pb.CORRUPT, "the reply's CRC-32 does not fit its content")
    try:
        return {
            spec.name: codec.decode(payload, spec, batch)
            for spec, payload in zip(specs, payloads, strict=True)
        }
    except CodecError as error:
        raise FrameError(pb.UNDECODABLE, str(error)) from error
