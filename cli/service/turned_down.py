"""What is answered to a request that gets nothing, and how every such answer looks."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus

from aiohttp import web
from splitpoint.partition.strict_json import to_json
from splitpoint.proto.printable import printable

MOST_SAID = 300  # characters of why


class TurnedDown(Exception):
    """Ends a request with a status of 4xx or 5xx and a line of why."""

    def __init__(
        self, status: HTTPStatus, why: str, headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(why)
        self.status, self.why, self.headers = status, why, dict(headers or {})


def busy(why: str) -> TurnedDown:
    """For a client that may come again in a second."""
    return TurnedDown(HTTPStatus.SERVICE_UNAVAILABLE, why, {"Retry-After": "1"})


def error_response(status: int, why: str, headers: Mapping[str, str] | None = None) -> web.Response:
    """`{"success": false, "error": why}`, which is DeepStack's form, too."""
    document = {"success": False, "error": printable(why, MOST_SAID)}
    return web.Response(
        status=status, text=to_json(document), content_type="application/json", headers=headers
    )
