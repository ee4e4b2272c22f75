"""Whole runs as processes: sources that do not end, signals, metrics, systemd."""

from __future__ import annotations

import json
import os
import queue
import signal
import socket
import subprocess
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from command import Command
from patience import PATIENCE_S
from PIL import Image
from processes import MAIN, background, rest_of
from prometheus_client.parser import text_string_to_metric_families
from splitpoint.partition.bundle.bundle import Bundle
from videos import damage, jpeg, mjpeg_server, write_video

SIGNALS = [signal.SIGINT, signal.SIGTERM]


def save(path: Path, count: int) -> None:
    path.mkdir(exist_ok=True)
    for i in range(count):
        Image.new("RGB", (40, 30), (i, i, i)).save(path / f"{i:03}.png")


class Manager:
    """systemd's end of the socket; it reads at once, for the socket holds a few datagrams only."""

    def __init__(self, path: Path) -> None:
        self.path, self.told = path, queue.SimpleQueue[str]()
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(path))
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self._thread.start()

    def _listen(self) -> None:
        while said := self._socket.recv(100):
            self.told.put(said.decode())

    def close(self) -> None:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as own:
            own.sendto(b"", str(self.path))
        self._thread.join()
        self._socket.close()
        self.path.unlink()


class Run:
    """A `splitpoint run --json` in the background; systemd's socket says what it is doing."""

    def __init__(self, process: subprocess.Popen[str], manager: Manager) -> None:
        self.process, self._manager = process, manager

    def told(self) -> str:
        return self._manager.told.get(timeout=PATIENCE_S)

    def wait_until_ready(self) -> None:
        while self.told() != "READY=1":
            pass

    def end(self) -> tuple[list[dict[str, Any]], dict[str, Any], str]:
        """Its lines, its summary and what it said."""
        out, err = rest_of(self.process)
        *lines, last = map(json.loads, out.splitlines())
        return lines, last["summary"], err


@contextmanager
def running(folder: Path, *arguments: str, stdin: int = subprocess.DEVNULL) -> Iterator[Run]:
    manager = Manager(folder / "notify")
    environ = {**os.environ, "NOTIFY_SOCKET": str(manager.path), "WATCHDOG_USEC": "200000"}
    process = subprocess.Popen(
        [*MAIN, "run", "--json", *arguments], env=environ, stdin=stdin, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    try:
        yield Run(process, manager)
    finally:
        process.kill()
        process.communicate()
        manager.close()


def check(lines: list[dict[str, Any]], summary: dict[str, Any]) -> None:
    """The counts add up, and every frame has its line."""
    assert summary["frames"] == len(lines) == sum(summary["outcomes"].values())
    for outcome, count in summary["outcomes"].items():
        assert sum(line["outcome"] == outcome for line in lines) == count
    assert {line["id"] for line in lines} == set(range(1, len(lines) + 1))


@pytest.mark.parametrize("number", SIGNALS)
def test_a_watched_folder_until_a_signal(
    small_bundle: Bundle, tmp_path: Path, number: signal.Signals
) -> None:
    save(tmp_path / "in", 3)
    with background(["serve", str(small_bundle.folder), "--listen", "127.0.0.1:0"]) as address:
        arguments = ["--server", address, "--split", "2", "--cache", str(tmp_path / "cache")]
        with running(tmp_path, *arguments, "--source", f"watch:{tmp_path / 'in'}") as run:
            run.wait_until_ready()
            assert run.told() == "WATCHDOG=1"
            save(tmp_path / "more", 10)
            for path in sorted((tmp_path / "more").iterdir()):
                path.rename(tmp_path / "in" / f"new{path.name}")
            assert run.process.stdout is not None
            first = [run.process.stdout.readline() for _ in range(13)]
            run.process.send_signal(number)
            lines, summary, err = run.end()
            lines = [*map(json.loads, first), *lines]
            while (said := run.told()) != "STOPPING=1":
                assert said == "WATCHDOG=1"
            assert run.process.returncode == 0, err
    check(lines, summary)
    assert summary["outcomes"]["answered"] == 13
    names = [Path(line["source"]).name for line in lines]
    assert names[3:] == [f"new{i:03}.png" for i in range(10)]
    assert sorted(names[:3]) == [f"{i:03}.png" for i in range(3)]


@pytest.mark.parametrize("number", SIGNALS)
def test_a_stream_until_a_signal(
    small_bundle: Bundle, tmp_path: Path, number: signal.Signals
) -> None:
    def parts(visit: int) -> Iterator[bytes]:
        while True:
            yield jpeg(100)
            time.sleep(0.02)

    local = ["--bundle", str(small_bundle.folder), "--split", "local"]
    with mjpeg_server(parts) as url, running(tmp_path, *local, "--source", url) as run:
        run.wait_until_ready()
        assert run.process.stdout is not None
        first = [run.process.stdout.readline() for _ in range(5)]
        run.process.send_signal(number)
        lines, summary, err = run.end()
        assert run.process.returncode == 0, err
    lines = [*map(json.loads, first), *lines]
    check(lines, summary)
    assert summary["energy_kind"] in ("measured", "modelled")
    assert "secret" not in "".join(first) + err


def test_a_silent_stream_does_not_hold_up_the_end(small_bundle: Bundle, tmp_path: Path) -> None:
    over = threading.Event()

    def parts(visit: int) -> Iterator[bytes]:
        for _ in range(30):
            yield jpeg(100)
        over.wait(2 * PATIENCE_S)

    local = ["--bundle", str(small_bundle.folder), "--split", "local"]
    with mjpeg_server(parts) as url, running(tmp_path, *local, "--source", url) as run:
        run.wait_until_ready()
        assert run.process.stdout is not None
        first = [run.process.stdout.readline()]
        run.process.send_signal(signal.SIGTERM)
        lines, summary, err = run.end()  # while the stream is silent: it says nothing until then
        assert run.process.returncode == 0, err
        over.set()
    lines = [*map(json.loads, first), *lines]
    check(lines, summary)


def test_paths_on_stdin(small_bundle: Bundle, tmp_path: Path) -> None:
    save(tmp_path / "in", 3)
    local = ["--bundle", str(small_bundle.folder), "--split", "local", "--source", "-"]
    with running(tmp_path, *local, stdin=subprocess.PIPE) as run:
        run.wait_until_ready()
        assert run.process.stdin is not None
        for i in (2, 0, 7, 1):
            run.process.stdin.write(f"{tmp_path}/in/{i:03}.png\n")
        run.process.stdin.close()
        run.process.stdin = None
        lines, summary, _ = run.end()
        assert run.process.returncode == 0
    check(lines, summary)
    assert [Path(line["source"]).stem for line in lines] == ["002", "000", "007", "001"]
    assert summary["outcomes"]["failed"] == 1
    # A pipe that stays open does not hold up the end.
    with running(tmp_path, *local, stdin=subprocess.PIPE) as run:
        run.wait_until_ready()
        run.process.send_signal(signal.SIGTERM)
        assert run.process.wait(PATIENCE_S) == 0


def test_a_second_ctrl_c_ends_at_once(small_bundle: Bundle, tmp_path: Path) -> None:
    save(tmp_path / "in", 3)
    local = ["--bundle", str(small_bundle.folder), "--split", "local", "--slowdown", "1e6"]
    with running(tmp_path, *local, "--source", str(tmp_path / "in")) as run:
        run.wait_until_ready()
        for _ in range(5):  # half a second of its own
            assert run.told() == "WATCHDOG=1"
        run.process.send_signal(signal.SIGINT)
        assert run.process.stderr is not None
        while "stopping: frames under way" not in run.process.stderr.readline():
            assert run.process.poll() is None  # a frame is under way
        run.process.send_signal(signal.SIGINT)
        assert run.process.wait(PATIENCE_S) == 130


def test_a_signal_while_it_starts(tmp_path: Path) -> None:
    save(tmp_path / "in", 1)
    with socket.create_server(("127.0.0.1", 0)) as silent:  # accepts, and never answers
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        with running(tmp_path, "--server", address, "--source", str(tmp_path / "in")) as run:
            silent.settimeout(PATIENCE_S)
            connection, _ = silent.accept()
            with connection:
                time.sleep(0.3)
                run.process.send_signal(signal.SIGTERM)
                lines, summary, err = run.end()
                assert run.process.returncode == 0, err
    assert (lines, summary["frames"]) == ([], 0)


def test_metrics_equal_the_outcomes(command: Command, small_bundle: Bundle, tmp_path: Path) -> None:
    video = damage(write_video(tmp_path / "v.avi", 12), [4])
    (tmp_path / "in").mkdir()
    save(tmp_path / "in", 6)
    (tmp_path / "in" / "broken.jpg").write_bytes(b"no picture")
    local = ["--bundle", str(small_bundle.folder), "--split", "local", "--metrics-port", "0"]
    with running(tmp_path, *local, "--source", "-", stdin=subprocess.PIPE) as run:
        assert run.process.stderr is not None
        assert run.process.stdin is not None
        assert run.process.stdout is not None
        url = run.process.stderr.readline().split()[-1]
        run.wait_until_ready()
        paths = sorted((tmp_path / "in").iterdir())
        for path in paths:
            print(path, file=run.process.stdin, flush=True)
        first = [run.process.stdout.readline() for _ in paths]
        with urllib.request.urlopen(url, timeout=PATIENCE_S) as response:
            text = response.read().decode()
        counted = {
            sample.labels["outcome"]: sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
            if sample.name == "splitpoint_frames_total"
        }
        run.process.stdin.close()
        run.process.stdin = None
        lines, summary, _ = run.end()
    lines = [*map(json.loads, first), *lines]
    check(lines, summary)
    assert summary["outcomes"] == {
        "answered": 0,
        "local": 6,
        "expired": 0,
        "failed": 1,
        "skipped": 0,
    }
    assert counted == summary["outcomes"]
    done = command("run", *local, "--source", video, "--json")
    assert json.loads(done.stdout.splitlines()[-1])["summary"]["outcomes"]["failed"] == 1
    assert done.returncode == 0


def test_energy_is_what_was_asked_for(
    command: Command, small_bundle: Bundle, tmp_path: Path
) -> None:
    save(tmp_path / "in", 2)
    local = ["--bundle", str(small_bundle.folder), "--split", "local", "--json",
             "--source", str(tmp_path / "in")]  # fmt: skip
    for more, kind in (
        (["--energy", "none"], "none"),
        (["--energy", "model", "--power-model", "pi5"], "modelled"),
        (["--power-model", "pi5", "--slowdown", "2"], "modelled"),
    ):
        done = command("run", *local, *more)
        summary = json.loads(done.stdout.splitlines()[-1])["summary"]
        assert summary["energy_kind"] == kind
        assert (summary["energy_mj"] is None) is (kind == "none")
        if kind == "modelled":
            assert summary["energy_meter"] == "pi5"


@pytest.mark.parametrize("more", [["--objective", "energy"], ["--battery-wh", "50"]])
def test_what_needs_energy_is_refused_without(
    command: Command, small_bundle: Bundle, tmp_path: Path, more: list[str]
) -> None:
    save(tmp_path / "in", 1)
    local = ["--bundle", str(small_bundle.folder), "--source", str(tmp_path / "in")]
    done = command("run", *local, "--energy", "none", *more)
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert "--energy none leaves nothing to say" in line


def test_errors_of_sources_and_ports(
    command: Command, small_bundle: Bundle, tmp_path: Path
) -> None:
    save(tmp_path / "in", 1)
    local = ["--bundle", str(small_bundle.folder), "--split", "local", "--source"]
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        cases = {
            (*local, "watch:nowhere"): "cannot watch nowhere",
            (*local, "99"): "camera 99 cannot be opened",
            (*local, str(tmp_path / "in"), "--metrics-port", port): f"127.0.0.1:{port}: Address",
            (*local, str(tmp_path / "in"), "--power-model", "pi99"): "pi99",
            (*local, str(tmp_path / "in"), "--energy", "sun"): "unknown energy meter",
            (*local, "-", "--repeat", "2"): "cannot be repeated",
        }
        for arguments, words in cases.items():
            done = command("run", *arguments)
            line = done.stderr.splitlines()[-1]
            assert done.returncode == 1
            assert line.startswith("error: "), done.stderr
            assert words in line


def test_a_missing_extra_is_named(small_bundle: Bundle, tmp_path: Path) -> None:
    """In a process of its own, where none of them was imported before."""
    (tmp_path / "v.mp4").write_bytes(b"a video")
    cases = (
        ("cv2", "video", ["--source", "0"]),
        ("cv2", "video", ["--source", "v.mp4"]),
        ("cv2", "video", ["--source", "rtsp://camera/1"]),
        ("prometheus_client", "metrics", ["--source", "-", "--metrics-port", "0"]),
    )
    code = (
        "import sys\n"
        "from splitpoint.cli.main import main\n"
        "given = sys.argv\n"
        f"for module, _, arguments in {cases!r}:\n"
        "    sys.modules[module] = None\n"
        "    sys.argv = [*given, *arguments]\n"
        "    try:\n"
        "        main()\n"
        "    except SystemExit as ended:\n"
        "        assert ended.code == 1\n"
    )
    done = subprocess.run(
        [*MAIN[:-1], code, "run", "--bundle", str(small_bundle.folder), "--split", "local"],
        capture_output=True, text=True, timeout=300, check=False, cwd=tmp_path,
        stdin=subprocess.DEVNULL,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stderr.splitlines() == [
        f'error: {module} is not installed: pip install "splitpoint[{extra}]"'
        for module, extra, _ in cases
    ]
