"""Gets the device ready: which model, its manifest, and the segments as they are needed."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterable, Sequence
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
from .told_load import told_load

log = logging.getLogger("splitpoint.edge")


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """A model whose manifest is here; its segments may still lie with the worker.

    `info` is what the worker `server` says of the model, `load` how busy it was then; they are None
    where no worker was asked or none serves it.
    """

    manifest: Manifest
    digest: str
    labels: list[str]
    folder: Path
    cache: BundleCache | None = None
    info: pb.ModelInfo | None = None
    load: pb.Load | None = None
    server: str = ""

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


@dataclass(frozen=True, slots=True)
class _Described:
    """What one worker said, and how long it took."""

    channel: WorkerChannel
    ms: float
    reply: pb.DescribeReply


async def prepare(
    channels: Sequence[WorkerChannel], *, bundle: Path | None, model: str, cache: Path
) -> Prepared:
    """Reads the local `bundle`, or the manifest of the workers' model into `cache`.

    The nearest and idlest of the workers that answer says which bundle it is. Raises `AgentError`
    when it serves no such model, and whatever the bundle, the wire and the cache raise.
    """
    described: list[_Described] = []
    if channels:
        try:
            described = await _describe(channels)
        except UnreachableError:
            if bundle is None:  # with one, the device can do without a worker
                raise
    if bundle is not None:
        opened = await asyncio.to_thread(open_bundle, bundle)
        digest = opened.digest
        described.sort(key=lambda answer: _wait_ms(answer, lambda info: info.digest == digest))
        found = [
            (info, _load(info, worker.reply), worker.channel.server)
            for worker in described
            for info in worker.reply.models
            if info.digest == opened.digest
        ]
        info, load, server = found[0] if found else (None, None, "")
        return Prepared(
            manifest=opened.manifest,
            digest=opened.digest,
            labels=opened.labels(),
            folder=opened.folder,
            info=info,
            load=load,
            server=server,
        )
    best = min(
        described, key=lambda answer: _wait_ms(answer, lambda info: model in ("", info.name))
    )
    info = _pick_model(best.reply.models, model, best.channel.server)
    files = BundleCache(cache, info.digest, best.channel.fetch)
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
        load=_load(info, best.reply),
        server=best.channel.server,
    )


async def _describe(channels: Sequence[WorkerChannel]) -> list[_Described]:
    """What the workers that answer say; `UnreachableError` where none does."""

    async def ask(channel: WorkerChannel) -> _Described:
        start = time.perf_counter()
        reply = await channel.describe()
        return _Described(channel, 1e3 * (time.perf_counter() - start), reply)

    answers = await asyncio.gather(*map(ask, channels), return_exceptions=True)
    found = [answer for answer in answers if isinstance(answer, _Described)]
    errors = [answer for answer in answers if isinstance(answer, BaseException)]
    if not found:
        raise errors[0]
    for error in errors:
        log.warning("%s; going on without it", error)
    return found


def _wait_ms(answer: _Described, wanted: Callable[[pb.ModelInfo], bool]) -> float:
    """How far the worker is, and how busy for that model, or for whichever it is busiest."""
    waits = [_load(info, answer.reply).queue_ms for info in answer.reply.models if wanted(info)]
    return answer.ms + max(waits, default=0.0)


def _load(info: pb.ModelInfo, reply: pb.DescribeReply) -> pb.Load:
    """How busy the worker is for that model. An older one says nothing of its queue here."""
    return told_load(info.load) or told_load(reply.load) or pb.Load()


def _pick_model(models: Iterable[pb.ModelInfo], name: str, server: str) -> pb.ModelInfo:
    found = [model for model in models if name in ("", model.name)]
    if len(found) == 1:
        return found[0]
    names = ", ".join(sorted(model.name for model in models))
    if not names:
        raise AgentError(f"{server} has no model that this client may use")
    if not found:
        raise AgentError(f"{server} does not serve {name!r}", f"it serves {names}")
    raise AgentError(f"{server} serves several models", f"name one with --model: {names}")
