"""What a worker has refused, and how often."""

from __future__ import annotations

from collections import Counter
from enum import Enum


class Refusal(str, Enum):
    """Why somebody was sent away, or had to wait."""

    NO_TOKEN = "no_token"
    WRONG_TOKEN = "wrong_token"
    TOKEN_IN_CLEAR = "token_in_clear"
    MODEL = "model"
    STREAMS = "streams"
    CLIENT_STREAMS = "client_streams"
    RATE = "rate"
    BYTES = "bytes"
    SILENT = "silent"
    MALFORMED = "malformed"
    PROTOCOL = "protocol"
    UNKNOWN_MODEL = "unknown_model"
    STOPPING = "stopping"
    IDLE = "idle"
    STALLED_FETCH = "stalled_fetch"


class Refusals:
    """Counts refusals by their reason.

    What fails in TLS (no certificate, a foreign or an expired one) never comes so far: gRPC ends
    the connection by itself and tells nobody.
    """

    def __init__(self) -> None:
        self.counts: Counter[Refusal] = Counter()

    def count(self, reason: Refusal) -> None:
        """One more."""
        self.counts[reason] += 1
