"""Who may ask over HTTP: this machine, whoever has the token, and no page of another site."""

from __future__ import annotations

from pathlib import Path

import pytest
from http_service import FORM, form, picture, serving
from small_tasks import task_bundle
from splitpoint.cli.service.service import HttpService, ServiceOptions
from splitpoint.edge import AgentError
from splitpoint.edge.figures.run_energy import RunEnergy
from splitpoint.partition.bundle.bundle import Bundle
from splitpoint.partition.energy.meter import NoMeter
from splitpoint.proto.address import AddressError

TOKEN = "Zm9yIHRoZSB0ZXN0cyBvbmx5"
FORM_KIND = {"Content-Type": "application/x-www-form-urlencoded"}


@pytest.fixture
def token_file(tmp_path: Path) -> Path:
    path = tmp_path / "token"
    path.write_text(f"{TOKEN}\n")
    return path


def service(**options: object) -> HttpService:
    return HttpService(ServiceOptions(**options), RunEnergy(NoMeter("none"), lambda: 0.0))  # type: ignore[arg-type]


@pytest.mark.parametrize("listen", ["0.0.0.0:0", ":0", "[::]:0", "192.0.2.1:0", "example.org:80"])
def test_beyond_loopback_a_token_is_needed(listen: str) -> None:
    with pytest.raises(AgentError, match="--http-token-file") as caught:
        service(listen=listen)
    assert "\n" not in str(caught.value)


def test_with_a_token_other_machines_are_let_in(token_file: Path) -> None:
    made = service(listen="0.0.0.0:0", token_file=token_file)
    made.close()


@pytest.mark.parametrize("token", ["", "short", "fifteen letters", "a b" * 10, "ä" * 20])
def test_weak_tokens_are_refused(tmp_path: Path, token: str) -> None:
    path = tmp_path / "token"
    path.write_text(token, encoding="utf-8")
    with pytest.raises(AgentError):
        service(listen="127.0.0.1:0", token_file=path)


@pytest.mark.parametrize("listen", ["127.0.0.1", "127.0.0.1:http", "::1:80", "127.0.0.1:99999"])
def test_what_is_no_address(listen: str) -> None:
    with pytest.raises(AddressError):
        service(listen=listen)


async def test_a_port_in_use(small_bundle: Bundle) -> None:
    async with serving(small_bundle) as served:
        with pytest.raises(AgentError, match=r"cannot listen on .*in use"):
            service(listen=served.address)


async def test_nothing_without_the_token(token_file: Path) -> None:
    async with serving(task_bundle("yolo"), token_file=token_file) as served:
        for method, path, body, headers in (
            ("GET", "/stats", None, {}),
            ("GET", "/picture?source=0", None, {}),
            ("POST", "/infer", picture(), {}),
            ("POST", "/infer", picture(), {"Authorization": "Bearer wrong"}),
            ("POST", "/infer", picture(), {"Authorization": f"Basic {TOKEN}"}),
            ("POST", "/infer", picture(), {"Authorization": f"Bearer {TOKEN[:-1]}"}),
            ("POST", "/infer", picture(), {"Cookie": f"splitpoint={TOKEN}"}),
            ("POST", "/v1/vision/detection", form(file=picture()), FORM),
            ("POST", "/v1/vision/detection", form(("api_key", b"wrong"), file=picture()), FORM),
            ("POST", "/v1/vision/detection", form(("api_key", b""), file=picture()), FORM),
        ):
            answer = await served.ask(method, path, body, headers)
            assert answer.status == 401, path
            assert answer.json["success"] is False
            assert TOKEN.encode() not in answer.body
        login = await served.ask("GET", "/")
        assert (login.status, login.headers["Content-Type"]) == (401, "text/html; charset=utf-8")
        assert b"<form" in login.body
        assert (await served.ask("GET", "/healthz")).status == 200
    assert served.results == []


async def test_ways_to_show_the_token(token_file: Path) -> None:
    async with serving(task_bundle("yolo"), token_file=token_file) as served:
        bearer = {"Authorization": f"Bearer {TOKEN}"}
        for headers in (bearer, {"Authorization": f"bearer {TOKEN}"}):
            assert (await served.ask("POST", "/infer", picture(), headers)).status == 200
        body = form(("api_key", TOKEN.encode()), file=picture())  # as Frigate does
        assert (await served.ask("POST", "/v1/vision/detection", body, FORM)).status == 200
        behind = form(file=picture(width=400))[:-38] + form(("api_key", TOKEN.encode()))
        answer = await served.ask("POST", "/v1/vision/detection", behind, FORM)
        assert answer.status == 401  # nothing is read of who has not shown it first
        answer = await served.ask("POST", "/v1/vision/detection", form(file=picture()),
                                  FORM | bearer)  # fmt: skip
        assert answer.status == 200

        form_body = f"token={TOKEN}".encode()
        for answer in (
            await served.ask("POST", "/login", form_body, FORM_KIND),
            await served.ask("GET", f"/?token={TOKEN}"),
        ):
            assert (answer.status, answer.headers["Location"]) == (303, "/")
            cookie = answer.headers["Set-Cookie"]
            assert TOKEN not in cookie
            assert "HttpOnly" in cookie
            assert "SameSite=Lax" in cookie
            known = {"Cookie": cookie.partition(";")[0]}
            assert (await served.ask("GET", "/stats", None, known)).status == 200
            assert b"page.js" in (await served.ask("GET", "/", None, known)).body
        for wrong in (b"token=wrong", b"", b"token=" + b"x" * 5000, b"\xff\xfe"):
            answer = await served.ask("POST", "/login", wrong, FORM_KIND)
            assert answer.status in (401, 413, 400)
            assert "Set-Cookie" not in answer.headers
        assert (await served.ask("GET", "/?token=wrong")).status == 401


async def test_a_cookie_is_worth_nothing_with_another_token(
    small_bundle: Bundle, token_file: Path, tmp_path: Path
) -> None:
    async with serving(small_bundle, token_file=token_file) as served:
        cookie = (await served.ask("GET", f"/?token={TOKEN}")).headers["Set-Cookie"]
    other = tmp_path / "other"
    other.write_text("another token of enough letters".replace(" ", "-"))
    async with serving(small_bundle, token_file=other) as served:
        known = {"Cookie": cookie.partition(";")[0]}
        assert (await served.ask("GET", "/stats", None, known)).status == 401


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "evil.example:8080",
        "127.0.0.1.evil.example",
        "192.0.2.1",
        "[::2]",
        "unix:80",
    ],
)
async def test_another_name_for_this_machine_is_refused(small_bundle: Bundle, host: str) -> None:
    """A page of that host would be of the same origin: its name was made to point here."""
    async with serving(small_bundle) as served:
        answer = await served.ask("POST", "/infer", picture(), {"Host": host})
        assert (answer.status, answer.json["success"]) == (421, False)
        for own in ("localhost", "localhost:8080", "127.0.0.1", "[::1]:8080", "127.0.0.2:1"):
            assert (await served.ask("GET", "/stats", None, {"Host": own})).status == 200
    assert served.results == []


@pytest.mark.parametrize(
    "headers",
    [
        {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors"},
        {"Sec-Fetch-Site": "same-site", "Sec-Fetch-Mode": "cors"},
        {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"},
        {"Origin": "https://evil.example"},
        {"Origin": "http://localhost:1"},
        {"Origin": "null"},
    ],
)
@pytest.mark.parametrize("path", ["/infer", "/v1/vision/detection", "/login"])
async def test_pages_of_other_sites_are_refused(
    headers: dict[str, str], path: str, token_file: Path
) -> None:
    async with serving(task_bundle("yolo"), token_file=token_file) as served:
        bearer = {"Authorization": f"Bearer {TOKEN}"}
        body = form(("api_key", TOKEN.encode()), file=picture())
        answer = await served.ask("POST", path, body, FORM | bearer | headers)
        assert (answer.status, answer.json["success"]) == (403, False)
        assert "Access-Control-Allow-Origin" not in answer.headers
        stats = await served.ask("GET", "/stats", None, bearer | headers)
        assert stats.status == 403
    assert served.results == []


async def test_its_own_page_may_ask_and_a_link_may_open_it(small_bundle: Bundle) -> None:
    async with serving(small_bundle) as served:
        own = {"Sec-Fetch-Site": "same-origin", "Origin": f"http://{served.address}"}
        assert (await served.ask("GET", "/stats", None, own)).status == 200
        assert (await served.ask("POST", "/infer", picture(), own)).status == 200
        link = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}
        page = await served.ask("GET", "/", None, link)
        assert page.status == 200
        assert "frame-ancestors 'none'" in page.headers["Content-Security-Policy"]


async def test_every_answer_says_what_browsers_may_do_with_it(small_bundle: Bundle) -> None:
    async with serving(small_bundle) as served:
        for path in ("/", "/stats", "/page.js", "/page.css", "/icon.svg", "/nothing"):
            headers = (await served.ask("GET", path)).headers
            assert headers["X-Content-Type-Options"] == "nosniff"
            assert headers["Cross-Origin-Resource-Policy"] == "same-origin"
            assert headers["Cache-Control"] == "no-store"
            assert "Python" not in headers["Server"]
