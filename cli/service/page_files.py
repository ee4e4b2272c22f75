"""The files of the pages, which are the same for everybody: all data come by `GET /stats`."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from http import HTTPStatus
from importlib.resources import files

from aiohttp import web

# Nothing is taken from elsewhere, and no script but the page's own file ever runs.
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
_SAID_HERE, _NOT_THE_TOKEN = "<!-- said -->", '<p role="alert">That is not the token.</p>'


@dataclass(frozen=True)
class PageFile:
    """A file beside this one."""

    name: str
    content_type: str
    said: str = ""

    @cached_property
    def content(self) -> bytes:
        """Read when it is first asked for."""
        text = (files(__package__) / self.name).read_text(encoding="utf-8")
        return text.replace(_SAID_HERE, self.said).encode()

    def response(self, status: HTTPStatus = HTTPStatus.OK) -> web.Response:
        """The file as an answer."""
        return web.Response(
            status=status,
            body=self.content,
            content_type=self.content_type,
            charset="utf-8",
            headers={"Content-Security-Policy": POLICY},
        )


HTML = PageFile("page.html", "text/html")
LOGIN = PageFile("login.html", "text/html")
LOGIN_AGAIN = PageFile("login.html", "text/html", _NOT_THE_TOKEN)
# These say nothing of what runs here: the page for who is not known needs them, too.
OPEN_FILES = {
    "/page.css": PageFile("page.css", "text/css"),
    "/page.js": PageFile("page.js", "text/javascript"),
    "/icon.svg": PageFile("icon.svg", "image/svg+xml"),
}
