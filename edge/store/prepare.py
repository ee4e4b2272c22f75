"""Gets the device ready: which model, its manifest, and the segments as they are needed."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from splitpoint.partition.bundle.bundle import Bundle, Manifest, open_bundle, read_labels
from splitpoint.partition.bundle.segment_files import check_runtime, runtime_files
from splitpoint.proto.status import RefusedError, UnreachableError

from ..errors import AgentError
from ..link.channel import WorkerChannel
from ..link.described import Described, Serving, describe, nearest, who_serves
from .bundles import bundles_in, only_digest
from .cache import BundleCache, FetchFrom
from .cache_size import CacheUse
from .known_models import KnownModel, recall, remember

log = logging.getLogger("splitpoint.edge")


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """A model whose manifest is here; its segments may still lie with the worker.

    `serving` is what a worker says of the model, None where none was asked or none serves it.
    `away` says why no worker can be asked: none answered, or none serves this model. `use` keeps
    the files in the cache from being removed: close it. `keep` has the cache remember that this is
    what the workers serve.
    """

    manifest: Manifest
    digest: str
    labels: list[str]
    folder: Path
    cache: BundleCache | None = None
    use: CacheUse | None = None
    away: UnreachableError | None = None
    serving: Serving | None = None
    keep: Callable[[], None] | None = None

    async def all_here(self) -> None:
        """The files that this device needs without a worker are here: it may start from them.

        Not before: whatever breaks off while a newer model is fetched leaves the one that was
        remembered, whole.
        """
        if self.keep is not None:
            await asyncio.to_thread(self.keep)

    async def fetch_segments(self, count: int, runtime: str) -> None:
        """Has the files here that `runtime` needs of the first `count` segments.

        Raises `PlanError` for a runtime that the bundle has no files for.
        """
        check_runtime(self.manifest, runtime)
        if self.cache is not None:
            for index in range(count):
                for name in reversed(runtime_files(self.manifest, index, runtime)):
                    await self.cache.get(name, self.manifest.files[name])

    async def fetch_codecs(self, boundary: int) -> None:
        """Has the files here that a boundary's calibrated codecs need, if there are any."""
        if self.cache is not None:
            for path in self.manifest.boundaries[boundary].device_codec_files:
                await self.cache.get(path, self.manifest.files[path])

    async def missing(self, segments: Mapping[str, int], boundaries: Iterable[int]) -> list[str]:
        """Of the files of so many first segments in each runtime, and of the codecs of these
        boundaries, those that are not here, whole and undamaged."""
        if self.cache is None:
            return []
        manifest = self.manifest
        names = [
            name
            for runtime, count in segments.items()
            for index in range(count)
            for name in runtime_files(manifest, index, runtime)
        ]
        names += [path for at in boundaries for path in manifest.boundaries[at].device_codec_files]
        return [
            name
            for name in dict.fromkeys(names)
            if not await self.cache.has(name, manifest.files[name])
        ]

    def bundle(self) -> Bundle:
        """The files that are here, as a bundle."""
        return Bundle(folder=self.folder, manifest=self.manifest, digest=self.digest)


async def prepare(
    channels: Sequence[WorkerChannel],
    *,
    bundle: Path | None,
    model: str,
    cache: Path,
    known_as: Sequence[str],
    pin: str = "",
    away: UnreachableError | None = None,
) -> Prepared:
    """Reads the local `bundle`, or the manifest of the workers' model into `cache`.

    The nearest and idlest of the workers that answer says which bundle it is; where none answers,
    it is the one that they served last, as far as it is in the cache, where workers are `known_as`
    these. With `pin`, the first digits of a digest, it is that bundle, from a worker or the cache.
    `away` says why there are no channels yet. Raises `AgentError` when the worker serves no such
    model, and whatever the bundle, the wire and the cache raise.
    """
    described: list[Described] = []
    if channels:
        try:
            described = await describe(channels)
        except UnreachableError as error:
            away = error
    if bundle is not None:
        opened = await asyncio.to_thread(open_bundle, bundle)
        return Prepared(
            manifest=opened.manifest,
            digest=opened.digest,
            labels=opened.labels(),
            folder=opened.folder,
            serving=who_serves(described, opened.digest),
            away=away,
        )
    if pin:
        said = _serving_pinned(described, pin)
        if said is None:
            return await _pinned(channels, pin, cache, away)
    elif away is not None:
        return await _of_cache(channels, away, model, cache, known_as)
    else:
        best = nearest(described, lambda info: model in ("", info.name))
        info = best.model(model)
        said = Serving(info=info, load=best.load(info), server=best.channel.server)
    prepared = await _of_worker(channels, said, cache)
    names = {model, said.info.name}
    return replace(prepared, keep=partial(remember, cache, known_as, names, _known(said)))


async def _of_worker(channels: Sequence[WorkerChannel], said: Serving, cache: Path) -> Prepared:
    """A model that a worker serves, which is the first to be asked for files."""
    first = sorted(channels, key=lambda channel: channel.server != said.server)
    return replace(await _of_digest(_known(said), first, cache), serving=said)


def _known(said: Serving) -> KnownModel:
    return KnownModel(digest=said.info.digest, manifest_bytes=said.info.manifest_bytes)


def _serving_pinned(described: Sequence[Described], pin: str) -> Serving | None:
    infos = (info for one in described for info in one.reply.models)
    digests = {info.digest for info in infos if info.digest.startswith(pin)}
    return who_serves(described, only_digest(digests, pin)) if digests else None


async def _pinned(
    channels: Sequence[WorkerChannel], pin: str, cache: Path, away: UnreachableError | None
) -> Prepared:
    """The pinned model, which no worker serves now, from the cache."""
    found = await asyncio.to_thread(bundles_in, cache)
    pinned = {each.digest: each for each in found if each.name and each.digest.startswith(pin)}
    if not pinned:
        where = f"neither in the cache {cache} nor served by a worker"
        if away is not None:
            where = f"not in the cache {cache}, and {away.what}"
        raise AgentError(
            f"the bundle {pin} is {where}",
            "`splitpoint cache` lists those that are; or leave --pin out",
        )
    digest = only_digest(set(pinned), pin)
    known = KnownModel(digest=digest, manifest_bytes=pinned[digest].manifest_bytes)
    why = away or UnreachableError(
        f"no worker serves the bundle {digest[:12]}", "leave --pin out for the one that they serve"
    )
    return replace(await _of_digest(known, channels, cache), away=why)


async def _of_cache(
    channels: Sequence[WorkerChannel],
    away: UnreachableError,
    model: str,
    cache: Path,
    known_as: Sequence[str],
) -> Prepared:
    """The model that the workers served last; `UnreachableError` where that is not known."""
    known = await asyncio.to_thread(recall, cache, known_as, model)
    if known is not None:
        try:
            return replace(await _of_digest(known, channels, cache), away=away)
        except UnreachableError:
            pass  # its manifest or its labels are not here any more
    what = f"model {model!r}" if model else "model"
    raise type(away)(f"{away.what}, and the cache has no {what} of it", away.remedy)


async def _of_digest(model: KnownModel, channels: Sequence[WorkerChannel], cache: Path) -> Prepared:
    """A model whose manifest is in the cache then, and is used from there."""
    files = BundleCache(cache, model.digest, _fetch_from(channels))
    use = await asyncio.to_thread(CacheUse, files.folder)
    try:
        manifest = await files.manifest(model.manifest_bytes)
        labels: list[str] = []
        if manifest.labels_file is not None:
            path = await files.get(manifest.labels_file, manifest.files[manifest.labels_file])
            labels = await asyncio.to_thread(read_labels, path)
    except BaseException:
        use.close()
        raise
    return Prepared(
        manifest=manifest,
        digest=model.digest,
        labels=labels,
        folder=files.folder,
        cache=files,
        use=use,
    )


def _fetch_from(channels: Sequence[WorkerChannel]) -> FetchFrom:
    """Files of a bundle, from the first of the workers that has them."""

    async def fetch(digest: str, sha256: str, offset: int) -> AsyncIterator[bytes]:
        if not channels:
            raise UnreachableError("there is no worker to fetch files from")
        for channel in channels:
            try:
                async for data in channel.fetch(digest, sha256, offset):
                    offset += len(data)
                    yield data
            except (UnreachableError, RefusedError):
                if channel is channels[-1]:
                    raise
            else:
                return

    return fetch


async def described_now(prepared: Prepared, channels: Sequence[WorkerChannel]) -> Prepared:
    """The same model, with what a worker that serves it says of it now.

    Raises `UnreachableError` where none answers, and `AgentError` where none serves it.
    """
    said = who_serves(await describe(channels), prepared.digest)
    if said is None:
        raise AgentError(
            f"no worker serves {prepared.manifest.name} as it is here ({prepared.digest[:12]})"
        )
    return replace(prepared, serving=said, away=None)
