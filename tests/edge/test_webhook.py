"""Results posted to an address: taken, tried again, refused, given up; each counted once."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from splitpoint.edge import AgentError, Outcome, Result
from splitpoint.edge.sinks import webhook
from splitpoint.edge.sinks.webhook import MOST_TRIES, Webhook, WebhookAddress


class Receiver:
    """Answers the statuses that it is given, then 200; a status of 0 hangs up, -1 hangs."""

    def __init__(self, *statuses: int) -> None:
        self.statuses = list(statuses)
        self.bodies: list[Any] = []
        self.headers: list[dict[str, str]] = []


@contextmanager
def receiving(receiver: Receiver) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            receiver.bodies.append(json.loads(body))
            receiver.headers.append(dict(self.headers.items()))
            status = receiver.statuses.pop(0) if receiver.statuses else 200
            if status == -1:
                time.sleep(0.6)
            if status > 0:
                self.send_response(status)
                if status in (301, 302, 307):
                    self.send_header("Location", "http://127.0.0.1:9/stolen")
                self.send_header("Content-Length", "0")
                self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield f"127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture(autouse=True)
def _brief(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(webhook, "FIRST_PAUSE_S", 0.005)
    monkeypatch.setattr(webhook, "TIMEOUT_S", 0.3)


def result(number: int) -> Result:
    return Result(id=number, outcome=Outcome.LOCAL, boundary=0, codec="raw")


def described(one: Result) -> dict[str, Any]:
    return {"id": one.id, "outcome": one.outcome.value}


def post(receiver: Receiver, count: int, address: Callable[[str], str] = "http://{}/x".format,
         token_file: Path | None = None) -> Webhook:  # fmt: skip
    with receiving(receiver) as host:
        sink = Webhook(WebhookAddress.parse(address(host), token_file=token_file), described)
        for number in range(count):
            sink.add(result(number))
        sink.close()
    return sink


def test_results_come_in_order(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("a-secret-token-of-mine\n")
    receiver = Receiver()
    sink = post(receiver, 5, token_file=tmp_path / "token")
    assert receiver.bodies == [{"id": number, "outcome": "local"} for number in range(5)]
    assert receiver.headers[0]["Authorization"] == "Bearer a-secret-token-of-mine"
    assert receiver.headers[0]["Content-Type"] == "application/json"
    assert sink.counts() == {"delivered": 5, "lost": 0, "refused": 0}


@pytest.mark.parametrize("status", [500, 503, 429, 0, -1])
def test_what_may_pass_is_tried_again(status: int, caplog: pytest.LogCaptureFixture) -> None:
    receiver = Receiver(200, status, status)
    sink = post(receiver, 3)
    assert [body["id"] for body in receiver.bodies] == [0, 1, 1, 1, 2]
    assert sink.counts() == {"delivered": 3, "lost": 0, "refused": 0}
    said = [record.getMessage() for record in caplog.records]
    assert len(said) == 2
    assert "takes none" in said[0]
    assert "takes results again" in said[1]


def test_what_is_refused_is_not_tried_again(caplog: pytest.LogCaptureFixture) -> None:
    receiver = Receiver(400, 401, 307)
    sink = post(receiver, 4)
    assert [body["id"] for body in receiver.bodies] == [0, 1, 2, 3]
    assert sink.counts() == {"delivered": 1, "lost": 0, "refused": 3}
    assert len(caplog.records) == 2  # one a change of state


def test_one_that_is_gone_does_not_cost_the_tries_of_each_result(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(webhook, "LONGEST_PAUSE_S", 0.1)
    receiver = Receiver(*[500] * (MOST_TRIES + 1))
    with receiving(receiver) as host:
        sink = Webhook(WebhookAddress.parse(f"http://{host}/x"), described)
        begun_s = time.monotonic()
        for number in range(1000):
            sink.add(result(number))
        assert time.monotonic() - begun_s < 2
        asked = [body["id"] for body in receiver.bodies]
        assert asked[:MOST_TRIES] == [0] * MOST_TRIES
        assert len(asked) < MOST_TRIES + 5
        time.sleep(0.15)
        sink.add(result(1000))
        time.sleep(0.15)
        sink.add(result(1001))  # it is tried again by and by
        sink.add(result(1002))
    assert [body["id"] for body in receiver.bodies][-2:] == [1001, 1002]
    counts = sink.counts()
    assert counts["delivered"] + counts["lost"] == 1003
    assert counts["lost"] >= 1000
    assert len(caplog.records) == 2


def test_a_password_is_sent_and_never_said(caplog: pytest.LogCaptureFixture) -> None:
    receiver = Receiver(500)
    post(receiver, 1, "http://me:p%40ss-word@{}/x?key=hidden".format)
    assert receiver.headers[0]["Authorization"] == "Basic bWU6cEBzcy13b3Jk"
    assert "ss-word" not in caplog.text
    assert "hidden" not in caplog.text


@pytest.mark.parametrize("address", ["", "ftp://x/y", "http://", "nonsense", "http://[::1/x"])
def test_what_is_no_address(address: str) -> None:
    with pytest.raises(AgentError, match="is no address of a webhook"):
        WebhookAddress.parse(address)
