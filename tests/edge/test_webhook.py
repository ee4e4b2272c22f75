"""Results posted to an address: taken, tried again, refused, given up; each counted once."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from processes import free_port
from receiver import HANGS, HANGS_UP, Receiver, receiving
from splitpoint.edge import AgentError, Outcome, Result
from splitpoint.edge.sinks import webhook
from splitpoint.edge.sinks.webhook import MOST_TRIES, Webhook, WebhookAddress


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


@pytest.mark.parametrize("status", [500, 503, 429, HANGS_UP, HANGS])
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


@pytest.mark.parametrize(
    "address",
    ["", "ftp://x/y", "http://", "nonsense", "http://[::1/x", "http://h:0/x", "http://h:99999/x",
     "http://h/a b", "http://h/ä", "http://h/a\nb", "http://me:secret@h:x/y"],
)  # fmt: skip
def test_what_is_no_address(address: str) -> None:
    with pytest.raises(AgentError, match="is no address of a webhook") as caught:
        WebhookAddress.parse(address)
    assert "secret" not in str(caught.value)


def test_a_secret_goes_to_others_by_tls_only(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("mine")
    given = [("http://hooks.lan/x", tmp_path / "token"), ("http://me:secret@hooks.lan/x", None)]
    for address, token_file in given:
        with pytest.raises(AgentError, match=r"would go to http://hooks.lan/x without TLS: give"):
            WebhookAddress.parse(address, token_file=token_file)
        found = WebhookAddress.parse(address, token_file=token_file, insecure=True)
        assert found.authorization
        assert "secret" not in repr(found) + found.name + found.url
        https = address.replace("http:", "https:")
        assert WebhookAddress.parse(https, token_file=token_file).authorization


@pytest.mark.parametrize(("content", "why"), [("", "is empty"), ("a b", "other than printable")])
def test_a_token_that_cannot_be_sent(content: str, why: str, tmp_path: Path) -> None:
    (tmp_path / "token").write_text(content)
    with pytest.raises(AgentError, match=why):
        WebhookAddress.parse("https://h/x", token_file=tmp_path / "token")


def test_nobody_there_is_said_in_the_systems_words(caplog: pytest.LogCaptureFixture) -> None:
    sink = Webhook(WebhookAddress.parse(f"http://127.0.0.1:{free_port()}/x?key=hidden"), described)
    sink.add(result(0))
    (record,) = caplog.records
    assert record.getMessage().endswith("/x takes none: Connection refused")
    assert sink.counts() == {"delivered": 0, "lost": 1, "refused": 0}


def test_an_answer_of_another_protocol_is_no_answer(caplog: pytest.LogCaptureFixture) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer() -> None:
            for _ in range(MOST_TRIES):
                connection, _ = server.accept()
                with connection:
                    connection.recv(1 << 16)
                    connection.sendall(b"SSH-2.0-whatever\r\n")

        thread = threading.Thread(target=answer)
        thread.start()
        address = f"http://127.0.0.1:{server.getsockname()[1]}/x"
        sink = Webhook(WebhookAddress.parse(address), described)
        sink.add(result(0))
        thread.join()
    assert sink.counts() == {"delivered": 0, "lost": 1, "refused": 0}
    assert len(caplog.records) == 1
