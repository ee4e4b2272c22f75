"""Gets the device ready: which model, its manifest, and the segments as they are needed."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from splitpoint.partition.bundle import Bundle, Manifest, open_bundle
from splitpoint.partition.runtimes import (
    ONNX,
    SegmentFiles,
    check_runtime,
    runtime_files,
    segment_files,
)
from splitpoint.proto import splitpoint_pb2 as pb
from splitpoint.proto.status import UnreachableError

from .cache import BundleCache
from .channel import WorkerChannel
from .errors import AgentError


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """A model whose manifest is here; its segments may still lie with the worker.

    `info` is what the worker says of the model, `load` how busy it was then; both are None where
    no worker was asked.
    """

    manifest: Manifest
    digest: str
    labels: list[str]
    folder: Path
    cache: BundleCache | None = None
    info: pb.ModelInfo | None = None
    load: pb.Load | None = None

    async def segments(self, count: int, runtime: str = ONNX) -> list[SegmentFiles]:
        """The first `count` segments as `runtime` loads them, fetched if need be.

        Raises `PlanError` for a runtime that the bundle has no files for.
        """
        check_runtime(self.manifest, runtime)
        if self.cache is not None:
            for index in range(count):
                for name in reversed(runtime_files(self.manifest, index, runtime)):
                    await self.cache.get(name, self.manifest.files[name])
        return segment_files(self.manifest, self.folder, count, runtime)

    async def tables(self, boundary: int) -> None:
        """Fetches the codec tables of a boundary, if it has any and they are not here."""
        path = self.manifest.boundaries[boundary].tables
        if path and self.cache is not None:
            await self.cache.get(path, self.manifest.files[path])

    def bundle(self) -> Bundle:
        """The files that are here, as a bundle."""
        return Bundle(folder=self.folder, manifest=self.manifest, digest=self.digest)


async def prepare(
    channel: WorkerChannel | None, *, bundle: Path | None, model: str, cache: Path
) -> Prepared:
    """Reads the local `bundle`, or the manifest of the worker's model into `cache`.

    Raises `AgentError` when the worker serves no such model, and whatever the bundle, the wire and
    the cache raise.
    """
    described: pb.DescribeReply | None = None
    if channel is not None:
        try:
            described = await channel.describe()
        except UnreachableError:
            if bundle is None:  # with one, the device can do without a worker
                raise
    if bundle is not None:
        opened = await asyncio.to_thread(open_bundle, bundle)
        models = [] if described is None else described.models
        return Prepared(
            manifest=opened.manifest,
            digest=opened.digest,
            labels=opened.labels(),
            folder=opened.folder,
            info=next((info for info in models if info.digest == opened.digest), None),
            load=None if described is None else described.load,
        )
    assert channel is not None  # the agent was given one or the other
    assert described is not None
    info = _pick_model(described.models, model, channel.server)
    files = BundleCache(cache, info.digest, channel.fetch)
    manifest = await files.manifest(info.manifest_bytes)
    labels: list[str] = []
    if manifest.labels_file is not None:
        path = await files.get(manifest.labels_file, manifest.files[manifest.labels_file])
        labels = path.read_text(encoding="utf-8").splitlines()
    return Prepared(
        manifest=manifest,
        digest=info.digest,
        labels=labels,
        folder=files.folder,
        cache=files,
        info=info,
        load=described.load,
    )


def _pick_model(models: Iterable[pb.ModelInfo], name: str, server: str) -> pb.ModelInfo:
    found = [model for model in models if name in ("", model.name)]
    if len(found) == 1:
        return found[0]
    names = ", ".join(sorted(model.name for model in models))
    if not found:
        raise AgentError(f"{server} does not serve {name!r}", f"it serves {names}")
    raise AgentError(f"{server} serves several models", f"name one with --model: {names}")
