"""What is answered to whom: a table of paths, and a method for each."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from urllib.parse import parse_qs

from aiohttp import web
from splitpoint.codec import SplitpointError
from splitpoint.edge import EdgeAgent, Outcome, Result
from splitpoint.partition.errors import InputError, PictureError
from splitpoint.partition.strict_json import to_json

from ..run.result_lines import FrameDocument
from .bodies import Admission, read_begin, read_body
from .detection import CONFIDENCE, IMAGE, KEY, check_task, confidence_of, predictions_json
from .figures import ServiceFigures
from .form import KIND, MOST_BEFORE, boundary_of, fields_of
from .guard import Guard, no_token
from .page_files import HTML, LOGIN, LOGIN_AGAIN, OPEN_FILES, PageFile
from .pictures import Pictures
from .turned_down import TurnedDown, busy, error_response
from .turns import Turns

log = logging.getLogger("splitpoint.http")

Handler = Callable[[web.BaseRequest], Awaitable[web.Response]]
PICTURE = "/picture"  # ?source=0&after=17
MOST_TOKEN_FORM = 2048


class Routes:
    """Answers every request; what a request does wrong, or what goes wrong in it, is its own."""

    def __init__(
        self,
        agent: EdgeAgent,
        turns: Turns,
        *,
        guard: Guard,
        admission: Admission,
        figures: ServiceFigures,
        pictures: Pictures,
        min_score: float,
        emulated: bool,
    ) -> None:
        self._agent, self._turns = agent, turns
        self._guard, self._admission = guard, admission
        self._figures, self._pictures = figures, pictures
        self._document = FrameDocument(agent=agent, emulated=emulated, min_score=min_score)
        self._min_score = min_score
        # By path: the method, what answers, and whether anybody may ask.
        self._routes: dict[str, tuple[str, Handler, bool]] = {
            "/": ("GET", self._page, True),  # who is not known sees how to log in
            "/login": ("POST", self._login, True),
            "/healthz": ("GET", self._health, True),
            "/stats": ("GET", self._stats, False),
            PICTURE: ("GET", self._picture, False),
            "/infer": ("POST", self._infer, False),
            "/v1/vision/detection": ("POST", self._detect, True),  # its form has a key
        }
        for path, file in OPEN_FILES.items():
            self._routes[path] = ("GET", _gives(file), True)

    async def answer(self, request: web.BaseRequest) -> web.Response:
        """The answer; it never raises but for a client that has gone."""
        try:
            self._guard.check_site(request)
            handler, is_open = self._handler_of(request)
            if not is_open:
                self._guard.check(request)
            return await handler(request)
        except TurnedDown as refusal:
            response = error_response(refusal.status, refusal.why, refusal.headers)
        except (InputError, PictureError) as error:
            response = error_response(HTTPStatus.BAD_REQUEST, str(error))
        except SplitpointError as error:
            response = error_response(HTTPStatus.INTERNAL_SERVER_ERROR, str(error))
        except ConnectionError:  # it went away while its body was read
            response = error_response(HTTPStatus.BAD_REQUEST, "the connection was lost")
        except Exception:
            log.exception("a request failed unexpectedly")
            response = error_response(HTTPStatus.INTERNAL_SERVER_ERROR, "internal error")
        if request.can_read_body and not request.content.is_eof():
            response.force_close()  # the rest of its body is not waited for
        return response

    def _handler_of(self, request: web.BaseRequest) -> tuple[Handler, bool]:
        found = self._routes.get(request.path)
        if found is None:
            raise TurnedDown(HTTPStatus.NOT_FOUND, f"there is no {request.path}")
        method, handler, is_open = found
        if request.method != method and (request.method, method) != ("HEAD", "GET"):
            raise TurnedDown(
                HTTPStatus.METHOD_NOT_ALLOWED, f"{request.path} takes {method}", {"Allow": method}
            )
        return handler, is_open

    # For programs ----------------------------------------------------------------------------

    async def _health(self, request: web.BaseRequest) -> web.Response:
        return _json({"status": "ok"})

    async def _stats(self, request: web.BaseRequest) -> web.Response:
        return _json(self._figures.to_json() | {"requests_waiting": self._admission.requests})

    async def _infer(self, request: web.BaseRequest) -> web.Response:
        with self._admission.admitted(request):
            body = await read_body(request)
            if request.content_type == KIND:
                body = _image_in(fields_of(body, _boundary(request)))
            result = await self._turns.infer(body)
        document = self._document(result)
        if result.outputs:
            return _json(document)
        return _json(document, HTTPStatus.SERVICE_UNAVAILABLE, {"Retry-After": "1"})

    async def _detect(self, request: web.BaseRequest) -> web.Response:
        if request.content_type != KIND:
            raise TurnedDown(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, f"send {KIND} with {IMAGE}")
        boundary = _boundary(request)

        def key_is_here(begin: bytearray) -> bool:
            key = fields_of(begin[:MOST_BEFORE], boundary).get(KEY)
            if key is None and len(begin) < MOST_BEFORE:
                return False
            if key is None or not self._guard.is_token(key.decode("latin-1")):
                raise no_token()
            return True

        begin = None
        if not self._guard.knows(request):  # then it takes nobody's place until its key was read
            begin = await read_begin(request, key_is_here)
            key_is_here(bytearray(begin.ljust(MOST_BEFORE)))
        with self._admission.admitted(request):
            fields = fields_of(await read_body(request, begin), boundary)
            check_task(self._agent)
            confidence = confidence_of(fields.get(CONFIDENCE))
            result = await self._turns.infer(_image_in(fields))
        if not result.outputs:
            raise _lost(result)
        return _json(predictions_json(result, confidence, self._min_score))

    # For people ------------------------------------------------------------------------------

    async def _page(self, request: web.BaseRequest) -> web.Response:
        tokens = parse_qs(request.query_string[:MOST_TOKEN_FORM]).get("token", [])
        if tokens:
            return self._logged_in(tokens[0])
        if not self._guard.knows(request):
            return LOGIN.response(HTTPStatus.UNAUTHORIZED)
        return HTML.response()

    async def _login(self, request: web.BaseRequest) -> web.Response:
        if (request.content_length or MOST_TOKEN_FORM + 1) > MOST_TOKEN_FORM:
            raise TurnedDown(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "the form holds the token alone")
        with self._admission.admitted(request):
            form = parse_qs((await read_body(request)).decode("latin-1"))
        return self._logged_in(form.get("token", [""])[0].strip())

    def _logged_in(self, token: str) -> web.Response:
        if not self._guard.is_token(token):
            return LOGIN_AGAIN.response(HTTPStatus.UNAUTHORIZED)
        # The token does not stay in the address, which histories keep.
        response = web.Response(status=HTTPStatus.SEE_OTHER, headers={"Location": "/"})
        if not self._guard.is_open:
            self._guard.remember(response)
        return response

    async def _picture(self, request: web.BaseRequest) -> web.Response:
        name = self._figures.name_of_source(request.query.get("source", ""))
        if name is None:
            raise TurnedDown(HTTPStatus.NOT_FOUND, "there is no such source")
        latest = await self._pictures.latest(name)
        if latest is None or str(latest[0]) == request.query.get("after"):
            return web.Response(status=HTTPStatus.NO_CONTENT)
        number, jpeg = latest
        return web.Response(
            body=jpeg, content_type="image/jpeg", headers={"X-Frame-Id": str(number)}
        )


def _json(
    document: object, status: HTTPStatus = HTTPStatus.OK, headers: dict[str, str] | None = None
) -> web.Response:
    return web.Response(
        status=status, text=to_json(document), content_type="application/json", headers=headers
    )


def _gives(file: PageFile) -> Handler:
    async def handler(request: web.BaseRequest) -> web.Response:
        return file.response()

    return handler


def _boundary(request: web.BaseRequest) -> bytes:
    return boundary_of(request.headers.get("Content-Type", ""))


def _image_in(fields: dict[str, bytes]) -> bytes:
    image = fields.get(IMAGE)
    if not image:
        raise TurnedDown(HTTPStatus.BAD_REQUEST, f"the form has no file called {IMAGE}")
    return image


def _lost(result: Result) -> TurnedDown:
    if result.outcome is Outcome.EXPIRED:
        return busy(f"{result.outcome.value}: {result.error}")
    return TurnedDown(HTTPStatus.BAD_GATEWAY, f"{result.outcome.value}: {result.error}")
