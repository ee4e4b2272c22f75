"""A bundle that a worker has loaded and timed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from splitpoint.codec import CodecSource
from splitpoint.partition.bundle.answer_form import AnswerForm
from splitpoint.partition.bundle.bundle import MANIFEST, Bundle
from splitpoint.partition.profile.cloud_times import CloudTimes
from splitpoint.proto.frames import Boundaries

from ..schedule.batch_times import BatchTimes
from .runner import Runner
from .timing import Timing


@dataclass(kw_only=True, eq=False)
class ServedModel:
    """A bundle that is loaded and timed.

    `measure_again`, where that is due, measures its times anew on the compute thread: None where
    they were disturbed. It calls what it is given between whatever it times; what that raises ends
    it.
    """

    bundle: Bundle
    runner: Runner
    times: CloudTimes
    batch_times: BatchTimes
    boundaries: Boundaries
    codecs: CodecSource
    manifest_bytes: int = 0
    measure_again: Callable[[Callable[[], None]], Timing | None] | None = None
    form: AnswerForm = field(init=False)

    def __post_init__(self) -> None:
        """What answers look like follows from the bundle."""
        self.form = AnswerForm.of(self.bundle.manifest)

    def file(self, sha256: str) -> Path | None:
        """The bundle's file with that digest; its manifest has that of the bundle."""
        if sha256 == self.bundle.digest:
            return self.bundle.path(MANIFEST)
        files = self.bundle.manifest.files
        path = next((path for path, file in files.items() if file.sha256 == sha256), None)
        return None if path is None else self.bundle.path(path)
