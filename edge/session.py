"""What is at work while an agent is entered, made in the order in which it is needed."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import cache, partial

from splitpoint.codec import CodecSet
from splitpoint.partition.bundle.segment_files import ONNX
from splitpoint.partition.run.codecs import codecs_of
from splitpoint.partition.run.open_chain import open_chain
from splitpoint.partition.run.slowdown import Slowdown
from splitpoint.proto.backoff import Backoff
from splitpoint.proto.status import NotYetValidError, UnreachableError

from .discovery.network import LocalNetwork
from .dispatch.first_plan import ThisDevice
from .dispatch.planning import Planning
from .figures.drift import Drift
from .finding import ANYWHERE, Newcomers, looked_for, say_chosen
from .frames.edge_half import EdgeHalf
from .frames.frame_count import FrameCount
from .frames.half_in_threads import HalfInThreads, Threads
from .frames.intake import Intake
from .frames.local_finish import LocalFinish, fits
from .frames.path import FramePath
from .frames.present_plan import PresentPlan
from .frames.segments import Segments
from .joining import Joining
from .link.channel import WorkerChannel
from .link.frame_stream import FrameStream
from .link.workers import WorkerLink, Workers, links_of
from .options import AgentOptions
from .store.cache_size import shrink
from .store.prepare import Prepared, prepare
from .transport.transport import Connect

log = logging.getLogger("splitpoint.edge")

FIRST_PAUSE_S, LONGEST_PAUSE_S = 1.0, 15.0  # until the clock is looked at again


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """What one agent consists of between entering and leaving."""

    prepared: Prepared
    present: PresentPlan
    workers: Workers
    finish: LocalFinish
    path: FramePath
    intake: Intake
    drift: Drift


@asynccontextmanager
async def open_session(
    servers: Sequence[str],
    options: AgentOptions,
    connect: Connect | None,
    count: FrameCount,
    switched: Callable[[str], None],
    network: LocalNetwork | None = None,
    check: Callable[[Prepared], None] = lambda prepared: None,
) -> AsyncIterator[Session]:
    """Connects, plans, fetches the segments that the plan needs, and loads them.

    With a `network` the servers are those that announce themselves there. `connect` takes the place
    of gRPC. Frames are counted in `count`, and `switched` is told of each change of the plan.
    `check` raises for a model that is not to be used. What began last ends first.
    """
    opened: list[Callable[[FrameStream], None]] = []  # called with every new stream
    async with AsyncExitStack() as closing:
        threads = _threads(closing)
        channel_to = partial(WorkerChannel, credentials=options.credentials, connect=connect)
        search, found, known_as = None, dict[str, str](), servers
        if network is not None:
            looking = looked_for(network, options)
            search, found = await closing.enter_async_context(looking)
            servers, known_as = list(found), [ANYWHERE]
        channels: list[WorkerChannel] = []  # for what workers say of themselves, and for files
        closing.push_async_callback(_close_all, channels)
        channels += map(channel_to, servers)
        away = search.nobody() if search is not None and not servers else None
        prepared = await _prepared(channels, options, closing, known_as, away)
        if options.finish_locally or options.split == "auto":  # else it may never end a frame
            prepared.manifest.task.check_allowed()
        check(prepared)
        if search is not None:
            say_chosen(found, prepared)
        codecs = codecs_of(prepared.manifest, prepared.folder)
        slower = Slowdown(options.slowdown)
        segments = _segments(prepared, options, slower)
        drift = Drift(prepared.manifest.name, prepared.manifest.usual_look)
        half = EdgeHalf(prepared.manifest, codecs, segments, slower, options.max_frame_bytes, drift)
        opened.append(lambda stream: half.new_stream())

        links_to = _links_to(channel_to, prepared, opened)
        workers = Workers(links_to(servers))
        closing.push_async_callback(workers.close)

        planning = _planning(options, prepared, codecs, threads)
        planning.check()
        present = PresentPlan(planning, half, segments, threads.encode, workers, switched)
        closing.push_async_callback(present.close)
        opened.append(present.new_stream)
        await present.begin()
        workers.start()

        finish = LocalFinish(
            prepared,
            segments(ONNX),
            threads.compute,
            present.observer.finish_ms(),
            wanted=bool(servers or search)
            and options.finish_locally
            and fits(prepared.manifest, segments(ONNX).loaded, options.max_edge_mb),
        )
        closing.push_async_callback(finish.close)
        if finish.wanted:
            finish.start()
        else:
            await prepared.all_here()
        opened.append(lambda stream: finish.start())

        path = FramePath(
            prepared.manifest,
            HalfInThreads(half, threads),
            workers=workers,
            local=finish,
            present=present,
            hedge=options.hedge,
        )
        intake = Intake(
            prepared,
            path,
            present,
            local=finish,
            budget_ms=options.budget_ms,
            count=count,
        )
        session = Session(
            prepared=prepared,
            present=present,
            workers=workers,
            finish=finish,
            path=path,
            intake=intake,
            drift=drift,
        )
        if prepared.away is not None:
            await _check_alone(session, prepared.away)
            if options.split == "auto":
                joining = Joining(lambda: present.begin_again(channels))
                closing.push_async_callback(joining.close)
                opened.append(lambda stream: joining.start())
            elif not present.is_local:
                _say_once(opened, "a worker is there: frames go to it from now on")
            workers.look_for_all()
        if search is not None:
            newcomers = Newcomers(search, workers, channels, channel_to, links_to)
            closing.push_async_callback(newcomers.close)
            newcomers.start(prepared.digest)
        yield session


def _threads(closing: AsyncExitStack) -> Threads:
    threads = Threads(
        ThreadPoolExecutor(1, thread_name_prefix="splitpoint-edge"),
        ThreadPoolExecutor(1, thread_name_prefix="splitpoint-encode"),
    )
    for thread in (threads.encode, threads.compute):
        closing.push_async_callback(asyncio.to_thread, thread.shutdown)
    return threads


async def _close_all(channels: list[WorkerChannel]) -> None:
    async with AsyncExitStack() as closing:
        for channel in channels:
            closing.push_async_callback(channel.close)


async def _prepared(
    channels: Sequence[WorkerChannel],
    options: AgentOptions,
    closing: AsyncExitStack,
    known_as: Sequence[str],
    away: UnreachableError | None,
) -> Prepared:
    pauses, said = Backoff(FIRST_PAUSE_S, LONGEST_PAUSE_S), False
    while True:
        try:
            prepared = await prepare(
                channels,
                bundle=options.bundle,
                model=options.model,
                cache=options.cache,
                known_as=known_as,
                pin=options.pin,
                away=away,
            )
            break
        except NotYetValidError as error:  # a clock that is wrong at boot is set soon after
            if not said:
                log.warning("%s", error)
            said = True
        await asyncio.sleep(pauses.next_s())
    if prepared.use is not None:
        closing.callback(prepared.use.close)
    if prepared.cache is not None:
        await asyncio.to_thread(shrink, options.cache, 1e6 * options.max_cache_mb)
    return prepared


def _segments(
    prepared: Prepared, options: AgentOptions, slower: Slowdown
) -> Callable[[str], Segments]:
    """Those of each runtime, opened when they are first asked for."""
    bundle = prepared.bundle()

    @cache
    def in_runtime(runtime: str) -> Segments:
        chain = open_chain(bundle, runtime, threads=options.threads, providers=options.providers)
        return Segments(chain, prepared.manifest, slower)

    return in_runtime


def _links_to(
    channel_to: Callable[[str, int], WorkerChannel],
    prepared: Prepared,
    opened: Sequence[Callable[[FrameStream], None]],
) -> Callable[[Sequence[str]], list[WorkerLink]]:
    """The nearest and idlest is asked first: it is the one that described the bundle."""

    def tell(stream: FrameStream) -> None:
        for told in tuple(opened):
            told(stream)

    def links_to(servers: Sequence[str]) -> list[WorkerLink]:
        first = "" if prepared.serving is None else prepared.serving.server
        return links_of(servers, first, prepared.manifest, prepared.digest, channel_to, tell)

    return links_to


def _planning(
    options: AgentOptions, prepared: Prepared, codecs: CodecSet, threads: Threads
) -> Planning:
    device = ThisDevice(
        compute=threads.compute,
        folder=options.cache,
        runtime=options.runtime,
        providers=options.providers,
        threads=options.threads,
        slowdown=options.slowdown,
    )
    return Planning(
        prepared=prepared,
        codecs=codecs,
        device=device,
        auto=options.auto,
        split=options.split,
        codec=options.codec,
        adapt=options.adapt,
        budget_ms=options.budget_ms,
    )


async def _check_alone(session: Session, away: UnreachableError) -> None:
    """Raises `away` where frames cannot begin without a worker."""
    if not session.present.is_local:
        await session.finish.wait()
        if not session.finish.ready:
            raise UnreachableError(
                f"{away.what}, and this device may not or cannot finish frames",
                f"{away.remedy}; or let the device finish them: --split local, --finish-locally",
            )
    name = session.prepared.manifest.name
    log.warning("%s; until a worker lets it in, %s runs on this device alone", away.what, name)


def _say_once(opened: list[Callable[[FrameStream], None]], line: str) -> None:
    def say(stream: FrameStream) -> None:
        opened.remove(say)
        log.warning("%s", line)

    opened.append(say)
