"""The log of an ingest process, written by the engine's process in whatever form that one has."""

from __future__ import annotations

import logging
import sys

from ..between.messages import LOG_FIELDS, MOST_LOGGED, Kind
from ..between.pipe import Pipe


class ToEngine(logging.Handler):
    """Sends each record; to stderr where the other process does not read, or is gone."""

    def __init__(self, pipe: Pipe) -> None:
        super().__init__()
        self._pipe, self._loop = pipe, pipe.loop

    def emit(self, record: logging.LogRecord) -> None:
        """From whatever thread."""
        try:
            words = record.getMessage()
            if record.exc_info:
                words += "\n" + logging.Formatter().formatException(record.exc_info)
            fields = {n: str(record.__dict__[n]) for n in LOG_FIELDS if n in record.__dict__}
            line = {
                "name": record.name,
                "level": record.levelno,
                "words": words[:MOST_LOGGED],
                "fields": fields,
            }
            self._loop.call_soon_threadsafe(self._send, line)
        except Exception:  # noqa: BLE001 - as every handler does
            self.handleError(record)

    def _send(self, line: dict[str, object]) -> None:
        if self._pipe.is_behind or self._pipe.has_ended:
            sys.stderr.write(f"{line['words']}\n")
        else:
            self._pipe.say(Kind.LOG, **line)


def log_to_engine(pipe: Pipe, level: int) -> None:
    """From now on, all of this process."""
    logging.basicConfig(level=logging.WARNING, handlers=[ToEngine(pipe)])
    logging.getLogger("splitpoint").setLevel(level)
