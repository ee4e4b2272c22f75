"""What a message is put together of, looked at before protobuf takes it apart.

protobuf makes an object of every sub-message and a number of every byte of a packed field, and
holds Python's lock meanwhile: 13 MB of empty tensors take it 2.6 s, and a shape of 13 million
numbers 1 s, in whatever thread it runs. Here a message is walked through in a bounded number of
steps, long fields in one; what passes is parsed in the time that it takes to copy it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from splitpoint.codec.spec import MAX_RANK

# Of a whole message, counting the fields of those inside: enough for 500 tensors.
MOST_FIELDS = 2048
# A number takes at most ten bytes, a name far fewer than these.
_SHAPE_BYTES, _NAME_BYTES = 10 * MAX_RANK, 256

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5  # protobuf's wire types; groups are not used


class OutlineError(Exception):
    """The message is none of ours, or more than one of ours can be."""


@dataclass(frozen=True, slots=True)
class Outline:
    """Of one kind of message, by field number: the longest that a field may be, in bytes.

    `inner` are the messages inside it that are worth looking into.
    """

    longest: Mapping[int, int] = field(default_factory=dict)
    inner: Mapping[int, Outline] = field(default_factory=dict)

    def check(self, data: bytes) -> None:
        """Raises `OutlineError` for what is no such message, in time bounded by `MOST_FIELDS`."""
        self._walk(data, 0, len(data), MOST_FIELDS)

    def _walk(self, data: bytes, at: int, end: int, left: int) -> int:
        """How many fields may still come after those between `at` and `end`."""
        while at < end:
            left -= 1
            if left < 0:
                raise OutlineError(f"the message has more than {MOST_FIELDS} fields")
            tag, at = _varint(data, at, end)
            number, kind = tag >> 3, tag & 7
            if kind == _BYTES:
                length, at = _varint(data, at, end)
                begin, at = at, at + length
                if at > end:
                    break
                if length > self.longest.get(number, length):
                    raise OutlineError(f"field {number} of the message has {length} bytes")
                if (inner := self.inner.get(number)) is not None:
                    left = inner._walk(data, begin, at, left)
            elif kind == _VARINT:
                _, at = _varint(data, at, end)
            elif kind == _FIXED32:
                at += 4
            elif kind == _FIXED64:
                at += 8
            else:
                break
        if at != end:
            raise OutlineError("the message cannot be parsed")
        return left


def _varint(data: bytes, at: int, end: int) -> tuple[int, int]:
    """The number at `at`, and where the next thing begins."""
    value = shift = 0
    while at < end and shift < 70:
        byte = data[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value, at
    raise OutlineError("the message cannot be parsed")


# By the numbers of splitpoint.proto.
_TENSOR = Outline({2: _SHAPE_BYTES})
_FRAME = Outline({3: _NAME_BYTES}, {4: _TENSOR})
_HELLO = Outline({2: _NAME_BYTES, 3: _NAME_BYTES, 4: _NAME_BYTES})
_CANCEL = _PROBE = Outline()  # a number, and for the probe bytes
CLIENT_MESSAGE = Outline(inner={1: _HELLO, 2: _FRAME, 3: _CANCEL, 4: _PROBE})
_REPLY = Outline(inner={5: _TENSOR})
SERVER_MESSAGE = Outline(inner={2: _REPLY})
