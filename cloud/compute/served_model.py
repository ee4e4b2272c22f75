"""A bundle that a worker serves, as its front has to know it. Needs no torch."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from splitpoint.codec import CodecSource
from splitpoint.codec.codec_set import LEARNED, LEARNED_VIDEO
from splitpoint.partition.bundle.answer_form import AnswerForm
from splitpoint.partition.bundle.bundle import MANIFEST, Bundle
from splitpoint.partition.profile.cloud_times import CloudTimes
from splitpoint.partition.run.index_ranges import Indexes
from splitpoint.proto.frames import Boundaries

from ..schedule.batch_times import BatchTimes

_WITH_NETWORKS = (LEARNED, LEARNED_VIDEO)


@dataclass(kw_only=True, eq=False)
class ServedModel:
    """A bundle that is timed, and computed here or in another process.

    Where it `unpacks`, what computes it takes `Packed` tensors. `indexes` are what its frames have
    to keep to, beside their boundary.
    """

    bundle: Bundle
    times: CloudTimes
    batch_times: BatchTimes
    boundaries: Boundaries
    codecs: CodecSource
    manifest_bytes: int = 0
    unpacks: bool = False
    indexes: Indexes = field(default_factory=Indexes)
    form: AnswerForm = field(init=False)

    def __post_init__(self) -> None:
        """What answers look like follows from the bundle."""
        self.form = AnswerForm.of(self.bundle.manifest)

    def enter_s(self, boundary: int, codec: str, samples: int) -> float:
        """What the device takes to decode a frame: next to nothing but for networks.

        Of a codec for streams it is that of its level.
        """
        if not self.unpacks or codec.partition("@")[0] not in _WITH_NETWORKS:
            return 0.0
        codec = codec.replace("-video", "")
        return samples * self.times.decode_ms.get((boundary, codec), 0.0) / 1e3

    def decode_s(self, boundary: int, codec: str, samples: int) -> float:
        """What decoding takes on this machine's processor, as far as that was measured."""
        if self.enter_s(boundary, codec, samples):
            return 0.0  # next to nothing: the device does what takes long
        codec = codec.replace("-video", "")
        return samples * self.times.decode_ms.get((boundary, codec), 0.0) / 1e3

    def file(self, sha256: str) -> Path | None:
        """The bundle's file with that digest; its manifest has that of the bundle."""
        if sha256 == self.bundle.digest:
            return self.bundle.path(MANIFEST)
        files = self.bundle.manifest.files
        path = next((path for path, file in files.items() if file.sha256 == sha256), None)
        return None if path is None else self.bundle.path(path)
