"""Which frames are decoded where they come: the way to a thread and back takes longer.

That way costs the worker a tenth of a millisecond or two, most of it in threads that wait for each
other. What may take longer than that is left to the `Decoders`: meanwhile the event loop is there
for everybody.
"""

from __future__ import annotations

import math

from splitpoint.codec import RAW
from splitpoint.codec.fkt.codec import Fkt
from splitpoint.codec.simple.affine import Affine
from splitpoint.codec.simple.plain import Fp16
from splitpoint.proto.frames import CheckedFrame

from ..compute.served_model import ServedModel

IN_PLACE_MS = 0.2
MOST_INDEX_BYTES = 1_000_000  # of a frame whose indices are looked at in as short a time
# What they do follows from the tensor's size. A picture's payload says itself how much work it is.
_EVEN = (Fp16, Affine, Fkt)


def is_in_place(frame: CheckedFrame, model: ServedModel) -> bool:
    """Whether a frame is decoded at once, by what this worker measured; raw ones need nothing.

    But for a look at what they have of indices.
    """
    codec = frame.codec
    if codec is RAW:
        return frame.nbytes <= MOST_INDEX_BYTES or not model.indexes.names(frame.boundary)
    if not isinstance(codec, _EVEN):
        return False
    takes_ms = model.times.decode_ms.get((frame.boundary, codec.name), math.inf)
    return takes_ms * frame.batch <= IN_PLACE_MS
