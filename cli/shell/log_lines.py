"""Log lines for machines: one JSON object a line."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from datetime import datetime, timezone

from splitpoint.codec import SplitpointError
from splitpoint.partition.strict_json import to_json

from .output import say, setup_logging

FORMATS = ("text", "json")
FIELDS = ("client", "model", "frame")


class LogFormatError(SplitpointError):
    """There is no such format of log lines."""


class JsonLine(logging.Formatter):
    """`{"time", "level", "logger", "message"}`, and of `client`, `model`, `frame` what is known.

    `time` is UTC in ISO 8601 with milliseconds. An exception's traceback is `exception`.
    """

    def format(self, record: logging.LogRecord) -> str:
        """The record as one line."""
        at = datetime.fromtimestamp(record.created, timezone.utc)
        line: dict[str, object] = {
            "time": at.isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        line |= {name: record.__dict__[name] for name in FIELDS if name in record.__dict__}
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return to_json(line, default=str)  # in ASCII: no control character of anybody's gets out


def setup_log_lines(form: str, verbose: bool) -> Callable[[str], None]:
    """Sets logging up, and returns what tells the user a line: on stderr, in the same form.

    Raises `LogFormatError` for a form that is not one of `FORMATS`.
    """
    if form not in FORMATS:
        raise LogFormatError(f"there is no log format {form!r}", f"use {' or '.join(FORMATS)}")
    if form == "text":
        setup_logging(verbose)
        return say
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLine())
    logging.basicConfig(level=logging.WARNING, handlers=[handler])
    logging.getLogger("splitpoint").setLevel(logging.INFO if verbose else logging.WARNING)
    told = logging.getLogger("splitpoint.cli")
    told.setLevel(logging.INFO)
    return told.info
