"""Results as POST requests to an address of the user's."""

from __future__ import annotations

import base64
import http.client
import json
import logging
import random
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit, urlunsplit

from splitpoint.proto.backoff import Backoff
from splitpoint.proto.redact import redacted

from ..errors import AgentError
from ..result import Result
from ..transport.credentials import read_token

log = logging.getLogger("splitpoint.edge")

TIMEOUT_S, FIRST_PAUSE_S, LONGEST_PAUSE_S = 5.0, 0.5, 30.0
MOST_TRIES = 6
_AGAIN = frozenset({408, 425, 429})  # and all from 500 on: it may go another time


class Webhook:
    """A sink that posts the JSON document of each result, one after the other.

    What is not taken is posted again, up to `MOST_TRIES` times with pauses that double, and once
    where even that did not help the result before. What the other end refuses for good counts as
    `refused`, and what it never took as `lost`. A password in the address is sent as Basic
    authorisation, a token as Bearer. Raises `AgentError` for an address that is none, or a token
    file that cannot be read.
    """

    def __init__(
        self,
        address: str,
        describe: Callable[[Result], Mapping[str, Any]],
        token_file: Path | None = None,
    ) -> None:
        self._name, self._describe = redacted(address), describe
        try:
            parts = urlsplit(address)
        except ValueError:
            parts = urlsplit("")
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise AgentError(f"{self._name} is no address of a webhook", "give http:// or https://")
        self._headers = {"Content-Type": "application/json", "User-Agent": "splitpoint"}
        if token_file is not None:
            self._headers["Authorization"] = f"Bearer {read_token(token_file)}"
        elif parts.username is not None:
            user = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
            basic = base64.b64encode(user.encode()).decode()
            self._headers["Authorization"] = f"Basic {basic}"
        host = parts.netloc.rpartition("@")[2]
        self._address = urlunsplit(parts._replace(netloc=host, fragment=""))
        self._opener = urllib.request.build_opener(_NoRedirect)
        self._works = True
        self.delivered = self.refused = self.lost = 0

    def add(self, result: Result) -> None:
        """Returns once it was taken or given up."""
        body = json.dumps(self._describe(result)).encode()
        pauses = Backoff(FIRST_PAUSE_S, LONGEST_PAUSE_S)
        for attempt in range(MOST_TRIES if self._works else 1):
            if attempt:
                time.sleep(pauses.next_s() * random.uniform(0.5, 1.0))
            status, why = self._post(body)
            if 200 <= status < 300:
                self.delivered += 1
                self._say(works=True, why="")
                return
            self._say(works=False, why=why)
            if status and status not in _AGAIN and status < 500:
                self.refused += 1
                return
        self.lost += 1

    def counts(self) -> dict[str, int]:
        """What became of the results."""
        return {"delivered": self.delivered, "refused": self.refused, "undelivered": self.lost}

    def close(self) -> None:
        """Each request has ended."""

    def _post(self, body: bytes) -> tuple[int, str]:
        """The status, 0 where there is none, and why in words."""
        begun_s = time.monotonic()
        try:
            request = urllib.request.Request(self._address, body, self._headers, method="POST")
            with self._opener.open(request, timeout=TIMEOUT_S) as answer:
                answer.read(1 << 16)
                return answer.status, ""
        except urllib.error.HTTPError as error:
            error.close()
            return error.code, f"it answers with status {error.code}"
        except (OSError, http.client.HTTPException, ValueError):
            # What these say may hold the address with its password.
            took_s = time.monotonic() - begun_s
            return 0, "no answer in time" if took_s > 0.9 * TIMEOUT_S else "it does not answer"

    def _say(self, *, works: bool, why: str) -> None:
        if works != self._works:
            log.warning(
                "%s %s", self._name, "takes results again" if works else f"takes none: {why}"
            )
        self._works = works


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A redirect is an error: what is posted goes where the user said, and nowhere else."""

    def redirect_request(self, *_: object, **__: object) -> None:
        """None."""
