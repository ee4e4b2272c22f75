"""The learned codec: the transform codec between two small networks, trained for one boundary.

On the device the encoder bends a boundary's tensor into a latent of the same shape that takes fewer
bytes; what the transform codec leaves of that, the decoder bends back, on the worker. Networks run
in whatever runtime their bundle brings; here they are functions of arrays. Levels, outliers, checks
and the form for streams are the transform codec's own.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from .fkt.codec import Fkt
from .fkt.packed import PackedFkt
from .fkt.video import FktVideo, VideoStream
from .spec import Array, TensorSpec


class LatentNetworks(Protocol):
    """Encoder and decoder of one boundary; they may be used from several threads.

    `octaves` is the binary logarithm of the level's step: one pair serves all levels.
    """

    @property
    def boundary(self) -> int:
        """Whose they are."""
        ...

    @property
    def can_decode(self) -> bool:
        """Whether the decoder is here: a device does without."""
        ...

    def load_encoder(self) -> None:
        """Has the encoder ready; raises whatever is wrong with it."""
        ...

    def encoded(self, tensor: Array, octaves: float) -> Array:
        """The latent of a boundary's tensor, in its shape and dtype."""
        ...

    def decoded(self, latent: Array, octaves: float) -> Array:
        """The boundary's tensor, as far as the latent tells."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class PackedLearned:
    """A latent whose arithmetic is still to be done, its level, and the networks that made it."""

    latent: PackedFkt
    networks: LatentNetworks
    level: int
    octaves: float

    @property
    def parts(self) -> tuple[Array, ...]:
        """See `Packed`."""
        return self.latent.parts

    def unpack(self) -> Array:
        """See `Packed`."""
        return self.networks.decoded(self.latent.unpack(), self.octaves)


class AroundLatents:
    """A codec of latents, and what is before and behind it."""

    def __init__(
        self,
        name: str,
        latents: Fkt | FktVideo | VideoStream,
        networks: LatentNetworks,
        level: int,
        octaves: float,
    ) -> None:
        self.name = name
        self._latents, self._networks = latents, networks
        self.level, self._octaves = level, octaves

    @property
    def can_decode(self) -> bool:
        """See `LatentNetworks`."""
        return self._networks.can_decode

    def load_encoder(self) -> None:
        """See `LatentNetworks`."""
        self._networks.load_encoder()

    def supports(self, spec: TensorSpec) -> bool:
        """See `Codec`."""
        return self._latents.supports(spec)

    def encode(self, array: Array, spec: TensorSpec) -> bytes:
        """See `Codec`."""
        spec.check(array)
        return self._latents.encode(self.latent(array), spec)

    def latent(self, array: Array) -> Array:
        """What the encoder makes of a boundary's tensor, in its shape."""
        return self._networks.encoded(array, self._octaves)

    def tensor(self, latent: Array) -> Array:
        """What the decoder makes of that."""
        return self._networks.decoded(latent, self._octaves)

    def decode(self, payload: bytes, spec: TensorSpec, batch: int) -> Array:
        """See `Codec`."""
        return self.packed(payload, spec, batch).unpack()

    def packed(self, payload: bytes, spec: TensorSpec, batch: int) -> PackedLearned:
        """See `Packing`."""
        return self.around(self._latents.packed(payload, spec, batch))

    def around(self, latent: PackedFkt) -> PackedLearned:
        """A latent of this level with what decodes it."""
        return PackedLearned(latent, self._networks, self.level, self._octaves)

    def max_payload_bytes(self, spec: TensorSpec, batch: int) -> int:
        """See `Codec`."""
        return self._latents.max_payload_bytes(spec, batch)


class Learned(AroundLatents):
    """One level of a boundary's learned codec; `latents` is what codes them."""

    def __init__(
        self, name: str, latents: Fkt, networks: LatentNetworks, level: int, octaves: float
    ) -> None:
        super().__init__(name, latents, networks, level, octaves)
        self.latents = latents


class LearnedStream(AroundLatents):
    """One end of a stream of it: see `VideoStream`."""

    def __init__(
        self, name: str, latents: VideoStream, networks: LatentNetworks, level: int, octaves: float
    ) -> None:
        super().__init__(name, latents, networks, level, octaves)
        self.reset = latents.reset


class LearnedVideo(AroundLatents):
    """That level for streams. By itself it writes and reads key frames."""

    def __init__(
        self, name: str, latents: FktVideo, networks: LatentNetworks, level: int, octaves: float
    ) -> None:
        super().__init__(name, latents, networks, level, octaves)
        self._new_stream = latents.new_stream

    def new_stream(self) -> LearnedStream:
        """See `StreamCodec`."""
        return LearnedStream(
            self.name, self._new_stream(), self._networks, self.level, self._octaves
        )
