"""The seam between tensors and bytes that every codec implements."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from .spec import Array, TensorSpec


@runtime_checkable
class Codec(Protocol):
    """Turns one boundary tensor into a payload and back.

    A codec holds no state between calls and may be used from several threads.
    """

    @property
    def name(self) -> str:
        """The name on the wire and on the command line."""
        ...

    def supports(self, spec: TensorSpec) -> bool:
        """Whether this codec carries tensors of this dtype and layout."""
        ...

    def encode(self, array: Array, spec: TensorSpec) -> bytes:
        """The payload of `array` (`spec.shape_at(batch)`); `CodecError` if it cannot be carried."""
        ...

    def decode(self, payload: bytes, spec: TensorSpec, batch: int) -> Array:
        """The array of exactly `spec.shape_at(batch)`; `CodecError` for any other payload.

        Memory used is bounded by a small multiple of `spec.nbytes_at(batch)`. The array may be
        read-only (a view of the payload).
        """
        ...

    def max_payload_bytes(self, spec: TensorSpec, batch: int) -> int:
        """No payload that `encode` writes for `batch` samples is larger than this."""
        ...


class Packed(Protocol):
    """A payload that has been decoded and checked, short of its last, arithmetic stage.

    That stage is a few passes over the whole tensor, which a GPU does in no time, from numbers that
    are far smaller than the tensor. Arrays may be read-only.
    """

    @property
    def parts(self) -> tuple[Array, ...]:
        """All that differs from payload to payload: what has to get to the device."""
        ...

    def unpack(self) -> Array:
        """The tensor, as the codec's `decode` returns it."""
        ...


@runtime_checkable
class Packing(Protocol):
    """What a codec offers besides, if its last stage is worth doing on a GPU."""

    def packed(self, payload: bytes, spec: TensorSpec, batch: int) -> Packed:
        """What `decode` makes its array of; `CodecError` wherever `decode` raises it."""
        ...


class StreamEnd(Codec, Packing, Protocol):
    """One end of a stream whose frames build on those before them: a codec with a memory."""

    def reset(self) -> None:
        """The next frame must be whole."""
        ...


@runtime_checkable
class StreamCodec(Protocol):
    """What a codec offers besides, if its frames may build on those before them."""

    @property
    def name(self) -> str:
        """See `Codec`."""
        ...

    def new_stream(self) -> StreamEnd:
        """One end of a stream, not to be shared. The codec by itself knows whole frames only."""
        ...
