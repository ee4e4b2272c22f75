"""What the two processes tell each other: the kinds of messages, and those of every frame.

The engine's process believes no number of an ingest process, which works on what clients sent:
`Submitted.read` and the layouts check each. Nothing is unpickled.
"""

from __future__ import annotations

import math
import struct
from enum import IntEnum
from functools import lru_cache
from typing import NamedTuple

from splitpoint.codec import SplitpointError

from .layout import TensorForm

_REQUEST = struct.Struct("<QHHHdQQBH")
_FORM = struct.Struct("<BBI")
_ANSWER = struct.Struct("<QHdddIHH")
_LOAD = struct.Struct("<HH")
NUMBER = struct.Struct("<Q")
MOST_REASON = 2000  # bytes
# Of a line for the log: characters, and what may be said beside the words.
MOST_LOGGED, LOG_FIELDS = 20_000, ("client", "model", "frame")


class MessageError(SplitpointError):
    """A message that the other process cannot have meant."""


class Kind(IntEnum):
    """Of a message. Those marked with JSON are objects; the others are packed."""

    # From the engine's process.
    SETUP = 1  # JSON: once, first
    OFFER = 2  # JSON: a model is served
    TIMES = 3  # JSON: it was measured again
    WITHDRAW = 4  # JSON: it is served no more
    OPEN = 5  # JSON: clients are let in
    HEALTH = 6  # JSON
    DRAIN = 7  # JSON
    STOP = 8  # JSON
    COUNT = 9  # JSON: a question for what was counted
    PLACE = 10  # JSON: the answer to TAKE
    LOADS = 11
    ANSWER = 12
    BROKE = 13

    # From an ingest process.
    READY = 32  # JSON: it listens, or cannot
    OFFERED = 33  # JSON
    WITHDRAWN = 34  # JSON
    DRAINED = 35  # JSON
    COUNTED = 36  # JSON: unasked, too
    TAKE = 37  # JSON: a client wants a place
    LEAVE = 38  # JSON
    LOG = 39  # JSON: a line for the log
    SUBMIT = 40
    CANCEL = 41

    # From either: a frame that broke a batch, by its digest.
    QUARANTINE = 64


class Submitted(NamedTuple):
    """A frame whose tensors lie in shared memory, in `room` bytes from `offset` on.

    `number` is the ingest process's own, `model` one of an OFFER; `share` pays for it. The deadline
    is of `time.perf_counter`, which is one clock for all processes of a Linux machine.
    """

    number: int
    model: int
    boundary: int
    samples: int
    deadline_s: float
    offset: int
    room: int
    share: str
    forms: tuple[TensorForm, ...]

    def packed(self) -> bytes:
        """As it is sent."""
        share = self.share.encode()  # what limits go by: never cut
        head = _REQUEST.pack(
            self.number, self.model, self.boundary, self.samples, self.deadline_s, self.offset,
            self.room, len(self.forms), len(share),
        )  # fmt: skip
        return b"".join([head, *[_FORM.pack(*form) for form in self.forms], share])

    @classmethod
    def read(cls, data: bytes) -> Submitted:
        """Raises `MessageError` for anything but what `packed` gives."""
        try:
            (number, model, boundary, samples, deadline_s, offset, room, tensors, share_bytes) = (
                _REQUEST.unpack_from(data)
            )
            end = _REQUEST.size + tensors * _FORM.size
            forms = _forms(data[_REQUEST.size : end])
            share = data[end:].decode()
        except (struct.error, UnicodeDecodeError) as error:
            raise MessageError("a frame's description is damaged") from error
        if len(data) != end + share_bytes or len(forms) != tensors or math.isnan(deadline_s):
            raise MessageError("a frame's description is damaged")
        return cls(number, model, boundary, samples, deadline_s, offset, room, share, forms)


@lru_cache(4096)
def _forms(data: bytes) -> tuple[TensorForm, ...]:
    """Most frames are of few forms."""
    return tuple([TensorForm(*numbers) for numbers in _FORM.iter_unpack(data)])


class Settled(NamedTuple):
    """What became of it. With `status` 0 the outputs lie behind its tensors.

    Times are of `time.perf_counter`. Where it was not `taken`, no engine has seen it. `load` is a
    `pb.Load`, empty where that cannot be told.
    """

    number: int
    status: int = 0
    queued_s: float = 0.0
    started_s: float = 0.0
    finished_s: float = 0.0
    batch: int = 0
    taken: bool = True
    reason: str = ""
    load: bytes = b""

    def packed(self) -> bytes:
        """As it is sent."""
        reason = self.reason.encode("utf-8", "replace")[:MOST_REASON]
        head = _ANSWER.pack(
            self.number, self.status, self.queued_s, self.started_s, self.finished_s, self.batch,
            self.taken, len(reason),
        )  # fmt: skip
        return head + reason + self.load

    @classmethod
    def read(cls, data: bytes) -> Settled:
        """What `packed` gave."""
        number, status, queued_s, started_s, finished_s, batch, taken, reason_bytes = (
            _ANSWER.unpack_from(data)
        )
        end = _ANSWER.size + reason_bytes
        reason = data[_ANSWER.size : end].decode("utf-8", "replace")
        return cls(
            number, status, queued_s, started_s, finished_s, batch, bool(taken), reason, data[end:]
        )


def pack_loads(loads: dict[int, bytes]) -> bytes:
    """A `pb.Load` for each model's number."""
    return b"".join([_LOAD.pack(number, len(load)) + load for number, load in loads.items()])


def read_loads(data: bytes) -> dict[int, bytes]:
    """What `pack_loads` was given."""
    found, at = {}, 0
    while at < len(data):
        number, size = _LOAD.unpack_from(data, at)
        at += _LOAD.size
        found[number] = data[at : at + size]
        at += size
    return found
