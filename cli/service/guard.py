"""Who may ask: this machine, or whoever has the token; never a page of another site."""

from __future__ import annotations

import hashlib
import hmac
from http import HTTPStatus
from pathlib import Path

from aiohttp import web
from splitpoint.edge.errors import AgentError
from splitpoint.edge.transport.credentials import read_token
from splitpoint.proto.address import is_loopback, is_own_host

from .turned_down import TurnedDown

LEAST_TOKEN = 16  # characters
COOKIE, COOKIE_S = "splitpoint", 30 * 24 * 3600
_SCHEME = "bearer "


def token_for(listen: str, token_file: Path | None) -> str:
    """The token in `token_file`, "" for none.

    Raises `AgentError` for one that is too short, and where other machines reach `listen` and there
    is none.
    """
    if token_file is None:
        if not is_loopback(listen):
            raise AgentError(
                f"other machines reach --http {listen}, and nothing says who may ask",
                "give --http-token-file, or listen on 127.0.0.1",
            )
        return ""
    token = read_token(token_file)
    if len(token) < LEAST_TOKEN or not (token.isascii() and token.isprintable()) or " " in token:
        raise AgentError(
            f"{token_file} holds no token of {LEAST_TOKEN} or more printable ASCII characters",
            "write one with: head -c 24 /dev/urandom | base64",
        )
    return token


class Guard:
    """Looks at a request's headers before anything of it is read.

    Without a token only this machine may ask, and it must call the service by a name of its own: a
    page whose host's name was made to point here (DNS rebinding) does not.
    """

    def __init__(self, token: str) -> None:
        self._token = token.encode()
        # What a browser keeps is not the token itself, and is worth nothing once that is another.
        self._cookie = hmac.digest(self._token, b"splitpoint http cookie", hashlib.sha256).hex()

    @property
    def is_open(self) -> bool:
        """Whether no token is asked for."""
        return not self._token

    def check_site(self, request: web.BaseRequest) -> None:
        """Raises `TurnedDown` for what another site makes a browser ask."""
        hosts = request.headers.getall("Host", [])
        if len(hosts) != 1:
            raise TurnedDown(HTTPStatus.BAD_REQUEST, "give one Host header")
        if self.is_open and not is_own_host(hosts[0]):
            raise TurnedDown(
                HTTPStatus.MISDIRECTED_REQUEST, "this service answers to localhost alone"
            )
        site = request.headers.get("Sec-Fetch-Site", "none")
        opens_page = (
            request.method == "GET"
            and request.path == "/"
            and request.headers.get("Sec-Fetch-Mode") == "navigate"
        )
        origin = request.headers.get("Origin")
        if (site not in ("none", "same-origin") and not opens_page) or (
            origin is not None and origin.partition("://")[2].lower() != hosts[0].lower()
        ):
            raise TurnedDown(HTTPStatus.FORBIDDEN, "a page of another site may not ask")

    def knows(self, request: web.BaseRequest) -> bool:
        """Whether the request bears the token, or the cookie that stands for it."""
        if self.is_open:
            return True
        given = request.headers.get("Authorization", "")
        if given[: len(_SCHEME)].lower() == _SCHEME:
            return self.is_token(given[len(_SCHEME) :].strip())
        return _same(request.cookies.get(COOKIE, ""), self._cookie.encode())

    def is_token(self, text: str) -> bool:
        """Whether it is the token; in constant time."""
        return self.is_open or _same(text, self._token)

    def check(self, request: web.BaseRequest) -> None:
        """Raises `TurnedDown` for who is not known."""
        if not self.knows(request):
            raise no_token()

    def remember(self, response: web.Response) -> None:
        """The browser need not be asked again."""
        response.set_cookie(
            COOKIE, self._cookie, max_age=COOKIE_S, httponly=True, samesite="Lax", path="/"
        )


def no_token() -> TurnedDown:
    """For who has not shown it."""
    return TurnedDown(
        HTTPStatus.UNAUTHORIZED,
        "the token of this service is missing or wrong: send Authorization: Bearer TOKEN",
        {"WWW-Authenticate": "Bearer"},
    )


def _same(given: str, known: bytes) -> bool:
    return hmac.compare_digest(given.encode(errors="surrogateescape"), known)
