"""The edge's end of the `Infer` stream: frames out, replies in, credits and budgets kept."""

from __future__ import annotations

import asyncio
import math
import time
from collections import deque
from collections.abc import Callable
from typing import Any

import grpc
from splitpoint.proto import splitpoint_pb2 as pb
from splitpoint.proto.frames import FrameError, parse_server, reply_crc32
from splitpoint.proto.proxy import proxy_of
from splitpoint.proto.status import (
    FrameCorruptError,
    FrameExpiredError,
    OverloadedError,
    ProtocolError,
    RefusedError,
    UnreachableError,
    error_of_call,
    error_of_reply,
)

from .answer_times import Answer, AnswerTimes
from .shake_hands import raise_end, shake_hands
from .sign_of_life import watch_over
from .told_load import told_load
from .under_way import UnderWay

CONNECT_TIMEOUT_S = 10.0
MOST_CREDITS = 64  # whatever a worker grants: frames that are under way are held in memory
# A cancelled frame's credit comes back with the worker's word, or after this and four round trips.
LOST_CREDIT_S = 1.0
_PROBES = 3


class FrameStream:
    """Sends frames and gives each its reply. At most `credits` frames are unanswered at a time."""

    def __init__(self, server: str, call: Any) -> None:
        self._server, self._call = server, call
        self._waiting: dict[int, asyncio.Future[pb.Reply]] = {}
        self._probing: dict[int, asyncio.Future[None]] = {}
        self._index = 0
        self._next_id = 0
        self._outbox: deque[bytes | int] = deque()
        self._under_way, self._times = UnderWay(), AnswerTimes()
        self._outbox_filled = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self.welcome = pb.Welcome()
        self.load = pb.Load()  # what the worker said last of its queue
        self.refused_s = -math.inf  # when it had no room for a frame, if none was answered since
        self.heard_s, self.sent_s = 0.0, 0.0  # when anything came last, and a frame went
        self.on_late: Callable[[int, float], None] = lambda nbytes, waited_ms: None
        self.on_reopen: Callable[[], None] = lambda: None
        self.broken: Exception | None = None
        self.draining = False

    async def start(self, hello: pb.Hello) -> None:
        """The handshake; raises `RefusedError` or `UnreachableError`."""
        try:
            self.welcome = await asyncio.wait_for(
                shake_hands(self._call, self._server, hello), CONNECT_TIMEOUT_S
            )
        except asyncio.TimeoutError:
            await self.close()
            proxy = proxy_of(self._server)
            through = "" if proxy is None else f" through {proxy}"
            raise UnreachableError(
                f"{self._server} did not answer{through} within {CONNECT_TIMEOUT_S:.0f} s",
                "check --server and the network",
            ) from None
        self._index = 1  # Hello was the first message
        self._under_way.grant(self.credits)
        self._tasks = [asyncio.create_task(self._read()), asyncio.create_task(self._write())]
        self._times.round_trip_ms = min([await self.probe() for _ in range(_PROBES)])
        self._tasks.append(asyncio.create_task(watch_over(self)))

    @property
    def credits(self) -> int:
        """How many frames may be unanswered at a time."""
        return min(self.welcome.credits, MOST_CREDITS)

    @property
    def round_trip_ms(self) -> float:
        """Of an empty message, the shortest seen."""
        return self._times.round_trip_ms

    @property
    def idle(self) -> bool:
        """Whether no frame is under way."""
        return not self._waiting and self._under_way.none_sent

    @property
    def bytes_under_way(self) -> int:
        """Of frames that the worker has not answered, whether anybody waits for them or not."""
        return self._under_way.nbytes

    async def ask(
        self,
        build: Callable[[int, int], bytes],
        budget_ms: float,
        *,
        credit_ms: float = math.inf,
        sent: Callable[[Callable[[], None]], None] | None = None,
    ) -> Answer:
        """Sends `build(frame id, remaining budget in ms)` and waits for its OK reply.

        For a credit it waits no longer than `credit_ms`. Once it is sent, `sent` is given what ends
        the wait as the budget's end does.

        Raises a `RemoteError` that says how the worker refused, `FrameExpiredError` when the budget
        ends first, after telling `on_late` how many bytes were not answered in which time, and
        `UnreachableError` when the stream is lost.
        """
        deadline = time.perf_counter() + budget_ms / 1e3
        loop = asyncio.get_running_loop()
        await self._under_way.take_credit(min(budget_ms, credit_ms))
        self._next_id += 1
        frame_id = self._next_id
        try:
            if self.draining:
                raise OverloadedError(f"{self._server} is stopping")
            if self.broken is not None:
                raise UnreachableError(f"the stream to {self._server} is lost: {self.broken}")
            remaining_ms = 1e3 * (deadline - time.perf_counter())
            if remaining_ms < 1:
                raise FrameExpiredError("the budget ran out before the frame was sent")
            # Of no use is what the worker has ready later than a trip before the end.
            data = build(frame_id, max(int(remaining_ms - self.round_trip_ms), 1))
        except BaseException:
            self._under_way.give_credit_back()
            raise
        future: asyncio.Future[pb.Reply] = loop.create_future()
        self._waiting[frame_id] = future
        sent_s = self.sent_s = time.perf_counter()
        timer = loop.call_later(remaining_ms / 1e3, self._expire, frame_id, sent_s, len(data))
        self._under_way.add(frame_id, data)
        self._post(frame_id)
        if sent is not None:
            sent(lambda: self._expire(frame_id, sent_s, len(data)))
        try:
            reply = await future
        except asyncio.CancelledError:
            # Whoever gives up has seen as much of the link as one whose budget ended.
            self.on_late(len(data), 1e3 * (time.perf_counter() - sent_s))
            self._cancel(frame_id)
            raise
        finally:
            timer.cancel()
            self._waiting.pop(frame_id, None)
            self._under_way.drop_unsent(frame_id)
        if reply.status != pb.OK:
            raise error_of_reply(reply.status, reply.reason)
        return self._times.answer(reply, sent_s, len(data))

    async def probe(self, padding_bytes: int = 0, timeout_s: float = CONNECT_TIMEOUT_S) -> float:
        """Milliseconds until the worker echoes a message with that many bytes of padding.

        A stream that does not echo in time is lost, and raises `UnreachableError`.
        """
        self._next_id += 1
        probe = pb.Probe(id=self._next_id, padding=bytes(padding_bytes))
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._probing[probe.id] = future
        start = time.perf_counter()
        try:
            self._post(pb.ClientMessage(probe=probe).SerializeToString())
            await asyncio.wait_for(future, timeout_s)
        except asyncio.TimeoutError as error:
            raise self._lost(error) from error
        finally:
            self._probing.pop(probe.id, None)
        return 1e3 * (time.perf_counter() - start)

    async def close(self) -> None:
        """Ends the stream and everything that waits on it."""
        if self._tasks:
            self._fail(UnreachableError("the stream was closed"))
        self._call.cancel()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _post(self, message: bytes | int) -> None:
        """Hands a message, or the id of a frame to be sent, to the writer.

        A link that stalls must not hold up the end of a budget; and a frame that ended before it
        was sent must hold neither memory nor bandwidth.
        """
        self._outbox.append(message)
        self._outbox_filled.set()

    async def _write(self) -> None:
        try:
            while True:
                while self._outbox:
                    data: bytes | int | None = self._outbox.popleft()
                    if isinstance(data, int):
                        data = self._under_way.sends(data, self._index + 1)
                    if data is not None:
                        self._index += 1
                        await self._call.write(data)
                self._outbox_filled.clear()
                await self._outbox_filled.wait()
        except (grpc.RpcError, asyncio.InvalidStateError) as error:
            self._lost(error)

    async def _read(self) -> None:
        try:
            while (data := await self._call.read()) is not grpc.aio.EOF:
                try:
                    message = parse_server(data)
                except FrameError:
                    continue  # damaged on the way: whoever waits for it runs out of budget
                self._dispatch(message)
            await raise_end(self._call, self._server)
        except grpc.RpcError as error:
            self._fail(error_of_call(error, self._server))
        except (UnreachableError, RefusedError, ProtocolError) as error:
            self._fail(error)

    def _dispatch(self, message: pb.ServerMessage) -> None:
        kind = message.WhichOneof("kind")
        self.heard_s = time.perf_counter()
        if kind == "reply":
            self._take_reply(message.reply)
        elif kind == "probe":
            self._hear_load(message.probe.load)
            probing = self._probing.get(message.probe.id)
            if probing is not None and not probing.done():
                probing.set_result(None)
        elif kind == "draining" and message.draining.reopen:
            self.on_reopen()  # it takes frames until another stream is there
        elif kind == "draining":
            self.draining = True

    def _take_reply(self, reply: pb.Reply) -> None:
        # The worker counts messages itself: the index stands even where it could not read the id.
        named = self._under_way.id_at(reply.message_index)
        whole = reply_crc32(reply) == reply.crc32
        if not whole and named != reply.id:
            return  # nobody can say whose it was; its frame runs out of budget
        self._under_way.forget_index(reply.message_index)
        if whole:
            self._hear_load(reply.load)
            if reply.status == pb.OVERLOADED:
                self.refused_s = self.heard_s
            elif reply.status == pb.OK:
                self.refused_s = -math.inf
        frame_id = named or reply.id
        self._under_way.answered(frame_id)
        future = self._waiting.get(frame_id)
        if future is None or future.done():
            return
        if whole and (reply.id == frame_id or reply.status != pb.OK):
            future.set_result(reply)
        else:
            future.set_exception(FrameCorruptError("the reply was damaged on the way"))

    def _hear_load(self, load: pb.Load) -> None:
        """A worker that says nothing of its queue is not idle for that."""
        if (told := told_load(load)) is not None:
            self.load = told

    def _expire(self, frame_id: int, sent_s: float, nbytes: int) -> None:
        future = self._waiting.get(frame_id)
        if future is not None and not future.done():
            self.on_late(nbytes, 1e3 * (time.perf_counter() - sent_s))
            future.set_exception(FrameExpiredError("no answer within the budget"))
            self._cancel(frame_id)

    def _cancel(self, frame_id: int) -> None:
        """Tells the worker that nobody waits; its answer to that returns the credit."""
        if self.broken is None and self._under_way.is_sent(frame_id):
            self._post(pb.ClientMessage(cancel=pb.Cancel(id=frame_id)).SerializeToString())
            late_s = LOST_CREDIT_S + 4 * self.round_trip_ms / 1e3
            asyncio.get_running_loop().call_later(late_s, self._under_way.answered, frame_id)

    def _lost(self, error: BaseException) -> UnreachableError:
        reason = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
        lost = UnreachableError(f"the stream to {self._server} is lost ({reason})")
        self._fail(lost)
        return lost

    def _fail(self, error: Exception) -> None:
        if self.broken is None:
            self.broken = error
        waiting: list[asyncio.Future[Any]] = [*self._waiting.values(), *self._probing.values()]
        for future in waiting:
            if not future.done():
                future.set_exception(
                    UnreachableError(f"the stream to {self._server} is lost: {error}")
                )
        self._under_way.lost()
