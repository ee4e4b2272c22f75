"""Results as POST requests to an address of the user's."""

from __future__ import annotations

import base64
import http.client
import logging
import random
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import SplitResult, unquote, urlsplit, urlunsplit

from splitpoint.partition.strict_json import to_json
from splitpoint.proto.address import is_loopback, join_address
from splitpoint.proto.backoff import Backoff
from splitpoint.proto.redact import redacted

from ..errors import AgentError
from ..result import Result
from ..transport.credentials import read_token

log = logging.getLogger("splitpoint.edge")

TIMEOUT_S, FIRST_PAUSE_S, LONGEST_PAUSE_S = 5.0, 0.5, 30.0
MOST_TRIES = 8  # with their pauses they take about a minute
_AGAIN = frozenset({408, 425, 429})  # and all from 500 on: it may go another time


@dataclass(frozen=True, slots=True, kw_only=True)
class WebhookAddress:
    """Where to post, and with which authorisation; `name` is what of it may be shown."""

    name: str
    url: str = field(repr=False)
    authorization: str = field(default="", repr=False)

    @classmethod
    def parse(
        cls, address: str, *, token_file: Path | None = None, insecure: bool = False
    ) -> WebhookAddress:
        """`http://` or `https://`; a token is sent as Bearer, a user's password as Basic.

        Without TLS they go to this machine itself only, unless `insecure` says otherwise. Raises
        `AgentError` for any other address, or a token that cannot be read or sent.
        """
        parts, name = _parts_of(address), redacted(address)
        authorization = ""
        if token_file is not None:
            authorization = f"Bearer {read_token(token_file)}"
        elif parts.username is not None:
            user = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
            authorization = f"Basic {base64.b64encode(user.encode()).decode()}"
        here = is_loopback(join_address(parts.hostname or "", parts.port or 80))
        if authorization and parts.scheme == "http" and not (here or insecure):
            raise AgentError(
                f"the secret of the webhook would go to {name} without TLS",
                "give https://, or say --insecure",
            )
        netloc = parts.netloc.rpartition("@")[2]
        url = urlunsplit(parts._replace(netloc=netloc, fragment=""))
        return cls(name=name, url=url, authorization=authorization)


class Webhook:
    """A sink that posts the JSON document of each result, one after the other.

    What is not taken is posted again, up to `MOST_TRIES` times with pauses that double. Where even
    that did not help, those after it are lost, but for one after each pause, until one is taken.
    What the other end refuses for good counts as `refused`.
    """

    def __init__(
        self, address: WebhookAddress, describe: Callable[[Result], Mapping[str, Any]]
    ) -> None:
        self._address, self._describe = address, describe
        self._headers = {"Content-Type": "application/json", "User-Agent": "splitpoint"}
        if address.authorization:
            self._headers["Authorization"] = address.authorization
        self._opener = urllib.request.build_opener(_NoRedirect)
        self._pauses = Backoff(FIRST_PAUSE_S, LONGEST_PAUSE_S)
        self._works, self._away, self._next_s = True, False, 0.0
        self._delivered = self._refused = self._lost = 0

    def add(self, result: Result) -> None:
        """Returns once it was taken or given up."""
        if self._away and time.monotonic() < self._next_s:
            self._lost += 1
            return
        body = to_json(self._describe(result)).encode()
        pause_s = 0.0
        for _ in range(1 if self._away else MOST_TRIES):
            time.sleep(pause_s)
            status, why = self._post(body)
            if status and status not in _AGAIN and status < 500:
                self._answered(status)
                return
            self._say(works=False, why=why)
            pause_s = self._pauses.next_s() * random.uniform(0.5, 1.0)
        self._lost += 1
        self._away, self._next_s = True, time.monotonic() + pause_s

    def counts(self) -> dict[str, int]:
        """What became of the results."""
        return {"delivered": self._delivered, "lost": self._lost, "refused": self._refused}

    def close(self) -> None:
        """Each request has ended."""

    def _post(self, body: bytes) -> tuple[int, str]:
        """The status, 0 where there is none, and why in words."""
        request = urllib.request.Request(self._address.url, body, self._headers, method="POST")
        try:
            with self._opener.open(request, timeout=TIMEOUT_S) as answer:
                return answer.status, ""
        except urllib.error.HTTPError as error:
            error.close()
            return error.code, f"it answers with status {error.code}"
        except (OSError, http.client.HTTPException) as error:
            return 0, _why(error)

    def _answered(self, status: int) -> None:
        """For good: it was taken or refused."""
        self._pauses.reset()
        self._away = False
        taken = 200 <= status < 300
        self._delivered += taken
        self._refused += not taken
        moved = ", another address" if 300 <= status < 400 else ""
        self._say(works=taken, why=f"it answers with status {status}{moved}")

    def _say(self, *, works: bool, why: str) -> None:
        if works != self._works:
            said = "takes results again" if works else f"takes none: {why}"
            log.warning("the webhook %s %s", self._address.name, said)
        self._works = works


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A redirect is an error: what is posted goes where the user said, and nowhere else."""

    def redirect_request(self, *_: object, **__: object) -> None:
        """None."""


def _parts_of(address: str) -> SplitResult:
    try:
        parts = urlsplit(address)
        good = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        good = False
    if not good or not (address.isascii() and address.isprintable()) or " " in address:
        raise AgentError(
            f"{redacted(address)} is no address of a webhook",
            "give http:// or https://, and what is not ASCII as %XX",
        )
    return parts


def _why(error: Exception) -> str:
    """In words of ours or the system's: others may hold the address with its password."""
    reason = error.reason if isinstance(error, urllib.error.URLError) else error
    if isinstance(reason, TimeoutError):
        return f"no answer within {TIMEOUT_S:g} s"
    if isinstance(reason, ssl.SSLCertVerificationError):
        return f"its certificate is not trusted ({reason.verify_message})"
    if isinstance(reason, OSError) and reason.strerror:
        return reason.strerror
    return "it hangs up"
