"""The edge's end of the `Infer` stream: an `EdgeSession` with a call, futures and a timer."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any, NoReturn

import grpc
from splitpoint.proto import splitpoint_pb2 as pb
from splitpoint.proto.proxy import proxy_of
from splitpoint.proto.session.answer_times import Answer
from splitpoint.proto.session.edge_events import Answered, Failed, Reopen, Returned
from splitpoint.proto.session.edge_session import EdgeSession, read_welcome
from splitpoint.proto.status import (
    ProtocolError,
    RefusedError,
    UnreachableError,
)
from splitpoint.proto.tasks import cancel_and_wait, within

from ..transport.transport import Call
from .call_error import error_of_call

CONNECT_TIMEOUT_S = 10.0
# A link can die without a word, and a camera may see nothing for hours. The frame that comes then
# should not be the one that finds out: after so much silence the worker is asked for an echo.
QUIET_S, ECHO_S = 10.0, 5.0
_PROBES = 3


class FrameStream:
    """Sends frames and gives each its reply. `session` knows what is under way, and what was said.

    `on_returned` is told, with the stream, of each frame that the worker replied to when nobody
    waited for it any more; `on_reopen` is called when the stream is about to end.
    """

    def __init__(self, call: Call, session: EdgeSession) -> None:
        self.session, self._call = session, call
        self.on_returned: Callable[[FrameStream, Returned], None] = lambda stream, frame: None
        self.on_reopen: Callable[[], None] = lambda: None
        self._futures: dict[int, asyncio.Future[Any]] = {}  # of frames and probes
        self._to_write = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._wakes_s = -math.inf
        self._timer: asyncio.Handle = self._loop.call_soon(self._wake)
        self._tasks = [asyncio.create_task(self._read()), asyncio.create_task(self._write())]

    @classmethod
    async def opened(cls, server: str, call: Call, hello: pb.Hello) -> FrameStream:
        """A stream after its handshake; raises `RefusedError` or `UnreachableError`."""
        try:
            welcome = await within(CONNECT_TIMEOUT_S, _shake_hands(call, server, hello))
        except BaseException as error:
            call.cancel()
            if not isinstance(error, asyncio.TimeoutError):
                raise
            proxy = proxy_of(server)
            through = "" if proxy is None else f" through {proxy}"
            raise UnreachableError(
                f"{server} did not answer{through} within {CONNECT_TIMEOUT_S:.0f} s",
                "check --server and the network",
            ) from None
        stream = cls(call, EdgeSession(server, welcome, time.perf_counter()))
        try:
            trips = [await stream.probe() for _ in range(_PROBES)]
        except BaseException:
            await stream.close()
            raise
        stream.session.times.round_trip_ms = min(trips)
        stream._tasks.append(asyncio.create_task(stream._watch()))
        return stream

    async def ask(
        self,
        build: Callable[[int, int], bytes],
        budget_ms: float,
        *,
        asked: Callable[[Callable[[], None]], None] | None = None,
    ) -> Answer:
        """Sends `build(frame id, remaining budget in ms)` and waits for its OK reply.

        `asked` is given what ends the wait as the budget's end does, from before the frame has its
        credit.

        Raises a `RemoteError` that says how the worker refused, `FrameExpiredError` when the budget
        ends first, and `UnreachableError` when the stream is lost.
        """
        session = self.session
        frame_id = session.ask(budget_ms, time.perf_counter())
        if asked is not None:
            asked(partial(self._expire, frame_id))
        try:
            await self._event_of(frame_id)
            data = build(frame_id, session.budget_ms(frame_id, time.perf_counter()))
            session.send(frame_id, data, time.perf_counter())
            answered: Answered = await self._event_of(frame_id)
        except BaseException:
            session.give_up(frame_id, time.perf_counter())
            self._settle()
            raise
        finally:
            del self._futures[frame_id]
        return answered.answer

    async def probe(self, padding_bytes: int = 0, timeout_s: float = CONNECT_TIMEOUT_S) -> float:
        """Milliseconds until the worker echoes a message with that many bytes of padding.

        A stream that does not echo in time is lost, and raises `UnreachableError`.
        """
        start_s = time.perf_counter()
        probe_id = self.session.probe(padding_bytes)
        try:
            await within(timeout_s, self._event_of(probe_id))
        except asyncio.TimeoutError as error:
            raise self._lost(error) from error
        finally:
            del self._futures[probe_id]
        return 1e3 * (time.perf_counter() - start_s)

    async def close(self) -> None:
        """Ends the stream and everything that waits on it."""
        self._fail(UnreachableError("the stream was closed"))
        self._timer.cancel()
        self._call.cancel()
        try:
            await cancel_and_wait(*self._tasks)
        finally:
            # Each holds the frames that it was cancelled in, and those hold the call: its
            # connection would stay open until the garbage collector comes by.
            self._tasks.clear()

    def _event_of(self, id: int) -> asyncio.Future[Any]:
        """What the session says next of a frame or a probe."""
        future = self._futures[id] = self._loop.create_future()
        self._settle()
        return future

    def _settle(self) -> None:
        """Passes on what the session says, and sees to what it wants."""
        session = self.session
        while session.events:
            event = session.events.popleft()
            if isinstance(event, Returned):
                self.on_returned(self, event)
            elif isinstance(event, Reopen):
                self.on_reopen()
            elif (future := self._futures.get(event.id)) is None or future.done():
                continue  # whoever waited has left
            elif isinstance(event, Failed):
                future.set_exception(event.error)
            else:
                future.set_result(event)
        if session.has_messages:
            self._to_write.set()
        if session.due_s < self._wakes_s:
            self._timer.cancel()
            self._wakes_s = session.due_s
            wait_s = max(self._wakes_s - time.perf_counter(), 0.0)
            self._timer = self._loop.call_later(wait_s, self._wake)

    def _wake(self) -> None:
        self._wakes_s = math.inf
        self.session.tick(time.perf_counter())
        self._settle()

    def _expire(self, frame_id: int) -> None:
        self.session.expire(frame_id, time.perf_counter())
        self._settle()

    async def _write(self) -> None:
        try:
            while True:
                while (message := self.session.next_message()) is not None:
                    await self._call.write(message)
                self._to_write.clear()
                await self._to_write.wait()
        except grpc.RpcError as error:
            self._fail(error_of_call(error, self.session.server))
        except asyncio.InvalidStateError:
            pass  # the call has ended: `_read` hears how

    async def _read(self) -> None:
        try:
            while (data := await self._call.read()) is not grpc.aio.EOF:
                self.session.receive(data, time.perf_counter())
                self._settle()
            await _raise_end(self._call, self.session.server)
        except grpc.RpcError as error:
            self._fail(error_of_call(error, self.session.server))
        except (UnreachableError, RefusedError, ProtocolError) as error:
            self._fail(error)
        except asyncio.CancelledError:  # gRPC raises it, too, where the channel was closed
            self._fail(UnreachableError(f"the connection to {self.session.server} was closed"))
            raise

    async def _watch(self) -> None:
        """Probes a silent worker; a stream that does not echo is lost.

        Messages of the stream do that, rather than HTTP/2's pings: they reach the worker itself
        through whatever stands in between, and no server hangs up for their number. While frames
        are under way their budgets tell as much, and a probe behind a large frame would be late.
        """
        session = self.session
        while session.broken is None:
            silent_s = time.perf_counter() - session.heard_s
            if silent_s < QUIET_S:
                await asyncio.sleep(QUIET_S - silent_s)
            elif not session.idle:
                await asyncio.sleep(ECHO_S)
            else:
                with suppress(UnreachableError):  # the stream is broken then
                    await self.probe(timeout_s=ECHO_S)

    def _lost(self, error: BaseException) -> UnreachableError:
        reason = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
        lost = UnreachableError(f"the stream to {self.session.server} is lost ({reason})")
        self._fail(lost)
        return lost

    def _fail(self, error: Exception) -> None:
        self.session.lose(error.with_traceback(None))  # which would hold the call
        self._settle()


async def _shake_hands(call: Call, server: str, hello: pb.Hello) -> pb.Welcome:
    """The worker's answer to `hello`; raises what the wire does, or why the worker refuses."""
    try:
        await call.write(pb.ClientMessage(hello=hello).SerializeToString())
        data = await call.read()
        if data is grpc.aio.EOF:
            await _raise_end(call, server)
    except grpc.RpcError as error:
        raise error_of_call(error, server) from error
    except asyncio.InvalidStateError:
        await _raise_end(call, server)
    return read_welcome(data, server)


async def _raise_end(call: Call, server: str) -> NoReturn:
    """Raises what the ended call says of its end."""
    code, details = await call.code(), await call.details()
    raise error_of_call(
        grpc.aio.AioRpcError(code, grpc.aio.Metadata(), grpc.aio.Metadata(), details=details),
        server,
    )
