"""The worker's end of an `Infer` stream: indices, unanswered frames, unread answers, its lifetime.

Times are seconds of whatever clock the caller has. What is to be written stands in
`next_message`, and `tick` is due at `due_s`.
"""

from __future__ import annotations

import math
from collections import deque
from enum import Enum

from .. import splitpoint_pb2 as pb
from ..frames import FrameError, build_reply, parse_client
from ..limits import MAX_CREDITS
from .unread import Unread

# Answers that a client has not read. A client with credits never gets near it; one that sends
# without reading is not read from any further.
MAX_UNREAD = 4 * MAX_CREDITS


class Ending(Enum):
    """Why the worker ends a stream."""

    IDLE = "idle"
    AGE = "age"


def read_hello(data: bytes) -> pb.Hello:
    """A stream's first message; raises `FrameError` for any other."""
    try:
        message = parse_client(data)
    except FrameError as error:
        raise FrameError(pb.MALFORMED, f"{error}; say Hello first") from error
    if message.WhichOneof("kind") != "hello":
        raise FrameError(pb.MALFORMED, "the first message must be Hello")
    return message.hello


class WorkerSession:
    """A stream from its Welcome, at `now_s`, to its end.

    A message takes the way `came`, `read`, and for a frame `admit` and `take`; each ends with one
    `say`, but for a cancel. The stream ends after `idle_s` without a message; at `max_age_s` (0:
    never) the client is told to open another within `move_s`, and then nothing new is taken.
    """

    def __init__(
        self, unread: Unread, *, idle_s: float, max_age_s: float, move_s: float, now_s: float
    ) -> None:
        self._unread, self._idle_s, self._move_s = unread, idle_s, move_s
        self._active_s = now_s  # when a message came last, or an answer was taken
        self._old_s = now_s + max_age_s if max_age_s else math.inf
        self._leaves_s = math.inf  # known once the client was told
        self._index = 1  # Hello was the first message
        self._ids: dict[int, int] = {}  # of frames without an answer, by their messages' indices
        self._cancelled: set[int] = set()
        self._outbox: deque[bytes] = deque()
        self.stopping = False  # nothing new is taken
        self.finishing = False  # the client has sent its last
        self._ended = False

    @property
    def computing(self) -> int:
        """Frames that have no answer yet: for those the client is right to be silent."""
        return len(self._ids)

    @property
    def unanswered(self) -> int:
        """Frames and answers that the client still waits for."""
        return len(self._ids) + len(self._outbox)

    @property
    def may_read(self) -> bool:
        """Whether the client reads its answers; if not, nothing more is to be read from it."""
        if self._outbox and self._unread.is_full:
            return False
        return len(self._ids) + len(self._outbox) <= MAX_UNREAD

    @property
    def is_done(self) -> bool:
        """Whether the client has sent its last and has all its answers."""
        return self.finishing and not self.unanswered

    @property
    def due_s(self) -> float:
        """When `tick` may have something to do; in the past while old answers are waited for."""
        return min(self._active_s + self._idle_s, self._old_s, self._leaves_s)

    # What the client says. -------------------------------------------------------------------

    def came(self, now_s: float) -> int:
        """The index of a message that has come."""
        self._active_s = now_s
        self._index += 1
        return self._index

    def read(self, data: bytes) -> pb.ClientMessage:
        """The frame, cancel or probe in `data`; raises `FrameError` for anything else."""
        message = parse_client(data)
        if message.HasField("hello"):
            raise FrameError(pb.MALFORMED, "Hello may be said once")
        return message

    def admit(self, now_s: float) -> None:
        """Raises `FrameError` (STOPPING) where frames are not taken any more."""
        if self.stopping:
            raise FrameError(pb.STOPPING, "the worker is stopping")
        if now_s >= self._leaves_s:
            raise FrameError(pb.STOPPING, "this stream is as old as it may be; open another")

    def take(self, index: int, frame_id: int) -> None:
        """Message `index` was a good frame; raises `FrameError` if it is one too many."""
        if frame_id in self._ids.values():
            raise FrameError(pb.MALFORMED, f"frame id {frame_id} is still unanswered")
        if len(self._ids) >= MAX_CREDITS:
            raise FrameError(pb.OVERLOADED, f"{MAX_CREDITS} frames of this stream are unanswered")
        self._ids[index] = frame_id

    def cancel(self, frame_id: int) -> bool:
        """Nobody waits for that frame any more; False where that is no news."""
        if frame_id in self._cancelled or frame_id not in self._ids.values():
            return False
        self._cancelled.add(frame_id)
        return True

    def is_cancelled(self, frame_id: int) -> bool:
        """Whether that frame has no answer yet, and nobody waits for it."""
        return frame_id in self._cancelled

    # What the worker says. -------------------------------------------------------------------

    def say(self, message: pb.Reply | pb.ProbeReply | pb.Draining) -> int:
        """Queues the message; the bytes that will be written: none once the stream has ended."""
        if isinstance(message, pb.Reply):
            data = build_reply(message)
            frame_id = self._ids.pop(message.message_index, None)  # None: 0 is a frame's, too
            if frame_id is not None:
                self._cancelled.discard(frame_id)
        elif isinstance(message, pb.ProbeReply):
            data = pb.ServerMessage(probe=message).SerializeToString()
        else:
            data = pb.ServerMessage(draining=message).SerializeToString()
        if self._ended:
            return 0
        self._outbox.append(data)
        self._unread.add(len(data))
        return len(data)

    def drain(self, grace_ms: int, *, reopen: bool = False) -> None:
        """Takes nothing new; the client is to go elsewhere, or with `reopen` to another stream."""
        self.stopping = True
        self.say(pb.Draining(grace_ms=grace_ms, reopen=reopen))

    def next_message(self) -> bytes | None:
        """What to write next; None for nothing now. It is unread until it is `written`."""
        return self._outbox[0] if self._outbox else None

    def written(self, now_s: float) -> None:
        """The client has taken the message."""
        self._active_s = now_s
        self._unread.take(len(self._outbox.popleft()))

    def tick(self, now_s: float) -> Ending | None:
        """Why the stream is to end now, if so: for its age once all is answered.

        A client that does not read its answers is idle, whatever it sends: it is not read from.
        """
        if self.computing:
            self._active_s = now_s
        if now_s >= self._leaves_s and not self.unanswered:
            return Ending.AGE
        if now_s >= self._active_s + self._idle_s:
            return Ending.IDLE
        if now_s >= self._old_s:
            self._old_s, self._leaves_s = math.inf, now_s + self._move_s
            self.say(pb.Draining(grace_ms=int(1e3 * self._move_s), reopen=True))
        return None

    def end(self) -> None:
        """Nobody is there any more."""
        self._ended = True
        self._unread.take(sum(map(len, self._outbox)))
        self._outbox.clear()
        self._ids.clear()
        self._cancelled.clear()
