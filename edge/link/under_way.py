"""The frames of a stream that are under way, and the credits that they hold."""

from __future__ import annotations

import asyncio

from splitpoint.proto.status import FrameExpiredError


class UnderWay:
    """A frame holds a credit from before it is built until the worker has answered it.

    One that ends before it was sent holds neither memory nor bandwidth. One that nobody waits for
    any more holds its credit still: the worker has not said that it is rid of it.
    """

    def __init__(self) -> None:
        self._credits = asyncio.Semaphore(1)
        self._unsent: dict[int, bytes] = {}
        self._unanswered: set[int] = set()  # what the worker holds
        self._sizes: dict[int, int] = {}  # bytes of both
        self._ids_by_index: dict[int, int] = {}

    @property
    def nbytes(self) -> int:
        """Of all frames, whether anybody waits for them or not."""
        return sum(self._sizes.values())

    @property
    def none_sent(self) -> bool:
        """Whether the worker holds no frame."""
        return not self._unanswered

    def grant(self, credits: int) -> None:
        """So many may be under way from now on. Call it before the first."""
        self._credits = asyncio.Semaphore(credits)

    async def take_credit(self, wait_ms: float) -> None:
        """Waits for a credit; `FrameExpiredError` after `wait_ms`."""
        if not self._credits.locked():
            await self._credits.acquire()
            return
        try:
            await asyncio.wait_for(self._credits.acquire(), max(wait_ms, 0.0) / 1e3)
        except asyncio.TimeoutError:
            raise FrameExpiredError("the budget ran out before the link was free") from None

    def give_credit_back(self) -> None:
        """No frame was made for it."""
        self._credits.release()

    def add(self, frame_id: int, data: bytes) -> None:
        """A frame is to be sent, for which a credit was taken."""
        self._unsent[frame_id], self._sizes[frame_id] = data, len(data)

    def sends(self, frame_id: int, message_index: int) -> bytes | None:
        """What to send as the stream's message of that index; None for a frame that has ended."""
        data = self._unsent.pop(frame_id, None)
        if data is not None:
            self._ids_by_index[message_index] = frame_id
            self._unanswered.add(frame_id)
        return data

    def drop_unsent(self, frame_id: int) -> None:
        """The frame has ended. If it was not sent, the worker never saw it."""
        if self._unsent.pop(frame_id, None) is not None:
            del self._sizes[frame_id]
            self._credits.release()

    def is_sent(self, frame_id: int) -> bool:
        """Whether the worker holds it."""
        return frame_id in self._unanswered

    def id_at(self, message_index: int) -> int:
        """The frame that was the stream's message of that index, 0 for none that waits."""
        return self._ids_by_index.get(message_index, 0)

    def forget_index(self, message_index: int) -> None:
        """That message was answered."""
        self._ids_by_index.pop(message_index, None)

    def answered(self, frame_id: int) -> None:
        """The worker holds the frame no longer, and neither does its credit."""
        if frame_id in self._unanswered:
            self._unanswered.discard(frame_id)
            self._sizes.pop(frame_id, None)
            self._credits.release()

    def lost(self) -> None:
        """Nothing will be answered: who waits for a credit is to hear of it now."""
        for frame_id in list(self._unanswered):
            self.answered(frame_id)
