"""`splitpoint run --http` as a process: without a source, with one, its end, and its refusals."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from command import Command
from http_service import ask_at, picture
from PIL import Image
from processes import MAIN, rest_of
from splitpoint.partition.bundle.bundle import Bundle


@contextmanager
def running(bundle: Bundle, *options: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """The process and its address, once it listens."""
    arguments = ["run", "--bundle", str(bundle.folder), "--split", "local", "--energy", "none",
                 "--threads", "1", "--json", *options]  # fmt: skip
    process = subprocess.Popen(
        [*MAIN, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        stdin=subprocess.DEVNULL,
    )  # fmt: skip
    assert process.stderr is not None
    try:
        for line in process.stderr:
            if line.startswith("listening on "):
                yield process, line.split()[2]
                break
        else:
            raise AssertionError("it does not listen")
    finally:
        if process.poll() is None:
            process.kill()
            rest_of(process)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_without_a_source_it_answers_until_it_is_ended(
    small_bundle: Bundle, number: signal.Signals
) -> None:
    with running(small_bundle, "--http", "127.0.0.1:0") as (process, address):
        answers = [ask_at(address, "POST", "/infer", picture(seed)).json for seed in range(3)]
        ask_at(address, "POST", "/infer", b"no picture")
        process.send_signal(number)
        out, err = rest_of(process)
    assert process.returncode == 0, err
    *lines, last = map(json.loads, out.splitlines())
    assert [line["id"] for line in lines] == [answer["id"] for answer in answers]
    assert lines == answers
    assert last["summary"]["frames"] == 3
    assert "Traceback" not in err


def test_with_a_source_it_lasts_as_long(small_bundle: Bundle, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    options = ["--http", "127.0.0.1:0", "--source", f"watch:{folder}"]
    with running(small_bundle, *options) as (process, address):
        Image.new("RGB", (40, 30)).save(folder / "a.png")
        while ask_at(address, "GET", "/stats").json["frames"] < 1:
            pass
        ask_at(address, "POST", "/infer", picture())
        sources = ask_at(address, "GET", "/stats").json["sources"]
        process.send_signal(signal.SIGINT)
        out, _ = rest_of(process)
    assert process.returncode == 0
    assert [(each["name"], each["frames"]) for each in sources] == [
        (f"watch:{folder}", 1), ("http", 1),
    ]  # fmt: skip
    assert json.loads(out.splitlines()[-1])["summary"]["frames"] == 2


def test_a_port_in_use_is_one_line(small_bundle: Bundle, command: Command) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        done = command("run", "--bundle", small_bundle.folder, "--http", address)
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"error: --http cannot listen on {address}: Address already in use")


def test_other_machines_need_a_token(small_bundle: Bundle, command: Command) -> None:
    done = command("run", "--bundle", small_bundle.folder, "--http", "0.0.0.0:0")
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert "--http-token-file" in line


def test_neither_a_source_nor_the_service(small_bundle: Bundle, command: Command) -> None:
    done = command("run", "--bundle", small_bundle.folder, "--split", "local")
    assert done.returncode == 2
    assert "--source, --http, or both" in done.stderr
