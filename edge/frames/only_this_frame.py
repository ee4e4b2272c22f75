"""What nobody expected costs the frame that it happened to, and nothing else."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from splitpoint.codec import SplitpointError

from ..errors import FrameLostError

log = logging.getLogger("splitpoint.edge")


@contextmanager
def only_this_frame(doing: str) -> Iterator[None]:
    """Logs an unexpected exception with its traceback, and raises it as a `FrameLostError`.

    `doing` says at what: "computing". Errors of our own pass as they are.
    """
    try:
        yield
    except SplitpointError:
        raise
    except Exception as error:
        log.exception("a frame is lost while %s it", doing)
        words = str(error).splitlines()
        reason = f"{type(error).__name__}: {words[0][:100]}" if words else type(error).__name__
        raise FrameLostError(
            f"{doing} the frame failed unexpectedly ({reason})",
            "the log has the traceback; the frames after it go on",
        ) from error
