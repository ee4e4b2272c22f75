"""Answers of a run, elsewhere: the same document everywhere, and counts that add up."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from command import Command
from mosquitto import Listener, Mosquitto, needs_mosquitto
from PIL import Image
from processes import MAIN, free_port
from receiver import Receiver, receiving
from splitpoint.edge.sinks import webhook
from splitpoint.partition.bundle.bundle import Bundle

STATUS = "cams/status"


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    folder = tmp_path / "in"
    folder.mkdir()
    for number in range(6):
        Image.new("RGB", (40, 30), (40 * number, 9, 9)).save(folder / f"{number}.png")
    return folder


@pytest.fixture
def local(small_bundle: Bundle, pictures: Path) -> list[str]:
    """A run that needs no worker."""
    return [
        "run", "--bundle", str(small_bundle.folder), "--split", "local", "--energy", "none",
        "--source", str(pictures),
    ]  # fmt: skip


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Mosquitto]:
    (tmp_path / "broker").mkdir()
    found = Mosquitto(tmp_path / "broker")
    yield found
    found.kill()


def parsed(printed: str) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    *lines, last = map(json.loads, printed.splitlines())
    return lines, last["summary"]


def test_every_sink_is_told_the_same_and_the_summary_adds_up(
    local: list[str], command: Command, tmp_path: Path
) -> None:
    receiver = Receiver(200, 404)
    with receiving(receiver) as host:
        address = f"http://me:hidden@{host}/hook?key=hidden"
        done = command(*local, "--json", "--events", tmp_path / "log", "--webhook", address)
    assert done.returncode == 0, done.stderr
    assert "hidden" not in done.stdout + done.stderr
    lines, summary = parsed(done.stdout)
    (file,) = (tmp_path / "log").iterdir()
    assert [json.loads(line) for line in file.read_text().splitlines()] == lines
    assert receiver.bodies == lines
    assert [line["id"] for line in lines] == list(range(1, 7))
    assert all(line["time"].endswith("Z") and line["top"] for line in lines)
    assert summary["sinks"] == {
        "events": {"delivered": 6, "lost": 0},
        "webhook": {"delivered": 5, "lost": 0, "refused": 1},
    }


def test_the_table_says_it_too(
    local: list[str],
    command: Command,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(webhook, "MOST_TRIES", 1)
    done = command(*local, "--webhook", f"http://127.0.0.1:{free_port()}/hook")
    assert done.returncode == 0, done.stderr
    assert "webhook 6 lost" in " ".join(done.stdout.split())
    (record,) = caplog.records
    assert record.getMessage().endswith("takes none: Connection refused")


def test_a_frame_that_was_skipped_is_told_to_nobody(
    local: list[str], command: Command, tmp_path: Path, pictures: Path
) -> None:
    for path in pictures.iterdir():
        Image.new("RGB", (40, 30)).save(path)
    log = tmp_path / "log"
    done = command(*local, "--json", "--motion", "0.5", "--events", log)
    _, summary = parsed(done.stdout)
    assert summary["outcomes"]["skipped"] == 5
    assert summary["sinks"] == {"events": {"delivered": 1, "lost": 0}}


@needs_mosquitto
def test_a_broker_is_told_what_stdout_is_told(
    local: list[str], command: Command, broker: Mosquitto
) -> None:
    broker.start()
    listener = Listener(broker.port)
    done = command(*local, "--json", "--mqtt", f"mqtt://127.0.0.1:{broker.port}/cams")
    assert done.returncode == 0, done.stderr
    lines, summary = parsed(done.stdout)
    found = [json.loads(text) for text in listener.wait("cams/frames/result", 6)]
    assert found == lines
    assert listener.wait(STATUS, 2) == ["online", "offline"]
    assert summary["sinks"] == {"mqtt": {"delivered": 6, "lost": 0}}
    listener.close()


@needs_mosquitto
def test_the_broker_says_that_an_agent_is_gone_which_cannot(
    local: list[str], broker: Mosquitto, pictures: Path
) -> None:
    broker.start()
    listener = Listener(broker.port)
    process = subprocess.Popen(
        [*MAIN, *local[:-1], f"yard={pictures}", "--source", f"door={pictures}", "--watch",
         "--mqtt", f"mqtt://127.0.0.1:{broker.port}/cams"],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        yard = [json.loads(text) for text in listener.wait("cams/yard/result", 6)]
        listener.wait("cams/door/result", 6)
        assert {line["source_name"] for line in yard} == {"yard"}
        assert listener.of(STATUS) == ["online"]
    finally:
        process.kill()
        process.wait()
    assert listener.wait(STATUS, 2) == ["online", "offline"]
    listener.close()


@needs_mosquitto
def test_a_wrong_password_is_one_line_and_exit_1(
    local: list[str], command: Command, broker: Mosquitto, tmp_path: Path
) -> None:
    broker.demand_password("right")
    broker.start()
    (tmp_path / "password").write_text("wrong\n")
    options = ["--mqtt", f"mqtt://me@127.0.0.1:{broker.port}/cams",
               "--mqtt-password-file", tmp_path / "password"]  # fmt: skip
    done = command(*local, *options)
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert "does not let us in (Not authorized): check the user" in line
    (tmp_path / "password").write_text("right\n")
    assert command(*local, *options).returncode == 0


Options = Callable[[Path], list[str]]


@pytest.mark.parametrize(
    ("options", "why"),
    [
        (lambda _: ["--mqtt", f"mqtt://127.0.0.1:{free_port()}/t"], "cannot be reached"),
        (lambda _: ["--mqtt", "mqtt://me:hidden@127.0.0.1/t"], "is no broker: as in mqtt://"),
        (lambda folder: ["--mqtt-ca", folder], "add --mqtt"),
        (lambda folder: ["--webhook-token-file", folder], "add --webhook"),
        (lambda _: ["--webhook", "http://me:hidden@hooks.lan/x"], "give https://, or say"),
        (lambda folder: ["--webhook", "https://h/x", "--webhook-token-file", folder / "no"],
         "cannot read"),
        (lambda folder: ["--events", folder / "in" / "0.png"], "give another folder"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_one_line_and_exit_1(
    options: Options, why: str, local: list[str], command: Command, tmp_path: Path
) -> None:
    done = command(*local, *options(tmp_path))
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert why in line
    assert "hidden" not in line
