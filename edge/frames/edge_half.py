"""The device's half of a frame: the segments before the split, and the codec."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from splitpoint.codec import Array, CodecError, CodecSet, StreamCodec, StreamEnd
from splitpoint.codec.learned import AroundLatents
from splitpoint.partition.bundle.bundle import Manifest
from splitpoint.partition.plan.plan import Plan, coarser
from splitpoint.partition.run.slowdown import Slowdown
from splitpoint.proto import splitpoint_pb2 as pb
from splitpoint.proto.frames import encode_tensors

from ..figures.drift import Drift
from .segments import Segments


@dataclass(frozen=True, slots=True)
class EdgePart:
    """What the device holds of a frame, and what of it goes to the cloud, once it is encoded.

    `codec` is the plan's, or one of fewer bytes. `failed` is why it could not be encoded.
    """

    values: dict[str, Array]
    codec: str
    edge_ms: float
    encode_ms: float = 0.0
    tensors: tuple[pb.Tensor, ...] = ()
    failed: Exception | None = None


class EdgeHalf:
    """Computes on one thread and encodes on another. A payload has at most `max_frame_bytes`.

    `segments` gives those of a runtime.
    """

    def __init__(
        self,
        manifest: Manifest,
        codecs: CodecSet,
        segments: Callable[[str], Segments],
        slowdown: Slowdown,
        max_frame_bytes: float,
        drift: Drift,
    ) -> None:
        self._manifest, self._codecs = manifest, codecs
        self._segments, self._slowdown = segments, slowdown
        self._max_frame_bytes, self._drift = max_frame_bytes, drift
        self._video: tuple[Plan, StreamEnd] | None = None  # where the codec is one for streams

    @property
    def streams(self) -> bool:
        """Whether payloads depend on those before them, and must be encoded in order."""
        return self._video is not None

    def prepare(self, plan: Plan) -> None:
        """Makes the plan's codecs ready, once the boundary's tables are here."""
        for name in coarser(self._manifest.boundaries[plan.boundary], plan.codec):
            codec = self._codecs.named(name, plan.boundary)
            if isinstance(codec, AroundLatents):
                codec.load_encoder()
        codec = self._codecs.named(plan.codec, plan.boundary)
        self._video = (plan, codec.new_stream()) if isinstance(codec, StreamCodec) else None

    def new_stream(self) -> None:
        """The worker at the other end knows nothing of the frames so far."""
        if self._video is not None:
            self._video[1].reset()

    def compute(self, plan: Plan, inputs: Mapping[str, Array]) -> EdgePart:
        """Segments [0, boundary)."""
        if (pictures := self._manifest.picture_tensor) is not None:
            self._drift.see(inputs[pictures])
        start = time.perf_counter()
        values = self._segments(plan.runtime).run(inputs, plan.boundary)
        return EdgePart(values, plan.codec, 1e3 * (time.perf_counter() - start))

    def encode(self, plan: Plan, part: EdgePart) -> EdgePart:
        """The same with what goes to the cloud."""
        start = time.perf_counter()
        codec, tensors = self._slowdown.stretch(
            (plan.boundary, plan.codec), self._encode, plan, part.values
        )
        encode_ms = 1e3 * (time.perf_counter() - start)
        return replace(part, codec=codec, tensors=tuple(tensors), encode_ms=encode_ms)

    def as_key_frame(self, plan: Plan, part: EdgePart) -> EdgePart:
        """The same frame once more, without what the worker lacks."""
        self.new_stream()
        codec, tensors = self._encode(plan, part.values)
        return replace(part, codec=codec, tensors=tuple(tensors))

    def _encode(self, plan: Plan, values: dict[str, Array]) -> tuple[str, list[pb.Tensor]]:
        """The boundary's tensors in the plan's codec, or in the first coarser one that fits."""
        boundary = self._manifest.boundaries[plan.boundary]
        names = coarser(boundary, plan.codec)
        for name in names:
            codec, stream = self._codecs.named(name, boundary.id), None
            if isinstance(codec, StreamCodec):
                # Frames of an earlier plan may still come: they are whole, and leave no trace.
                is_own = self._video is not None and self._video[0] == plan
                codec = stream = self._video[1] if self._video and is_own else codec.new_stream()
            tensors = encode_tensors(values, boundary.tensors, codec)
            size = sum(len(tensor.payload) for tensor in tensors)
            if size <= self._max_frame_bytes:
                first = boundary.tensors[0]
                samples = values[first.name].shape[first.batch_dim] / first.shape[first.batch_dim]
                self._drift.encoded(boundary, name, size / samples)
                return name, tensors
            if stream is not None:
                stream.reset()  # the worker never sees what the next one would build on
        raise CodecError(
            f"the frame has {size} bytes even as {names[-1]}, "
            f"at most {self._max_frame_bytes:.0f} are allowed",
            "raise --max-kb-per-frame, or run on the device with --split local",
        )
