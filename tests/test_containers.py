"""The container files of the worker and of the device, statement by statement."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from container_files import EDGE, ROOT, WORKER, arguments_of, statements
from PIL import Image
from processes import MAIN, background, free_port, rest_of
from splitpoint.cli.app import app
from splitpoint.partition.bundle.bundle import Bundle

KNOWN = {
    "FROM", "ARG", "ENV", "RUN", "COPY", "USER", "WORKDIR", "VOLUME", "EXPOSE", "STOPSIGNAL",
    "HEALTHCHECK", "ENTRYPOINT", "CMD",
}  # fmt: skip


def options_of(command: str) -> set[str]:
    group = typer.main.get_command(app)
    found = group.commands[command]  # type: ignore[attr-defined]
    return {option for parameter in found.params for option in parameter.opts}


@pytest.mark.parametrize("file", [EDGE, WORKER], ids=["edge", "worker"])
def test_it_builds_from_what_is_here(file: Path) -> None:
    assert {instruction for instruction, _ in statements(file)} <= KNOWN
    copied = set()
    for argument in arguments_of(file, "COPY"):
        if argument.startswith("--from=build "):
            continue
        *sources, target = argument.split()
        assert target.startswith("/src/")
        for source in sources:
            assert (ROOT / source).exists(), source
        copied |= set(sources)
    # Every package, and what pyproject.toml itself reads.
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    rooms = set(re.findall(r'^"splitpoint\.\w+" = "(\w+)"', project, re.MULTILINE))
    assert copied == rooms | {"pyproject.toml", "setup.py", "README.md", "LICENSE"}
    (extras,) = (each[6:] for each in arguments_of(file, "ARG") if each.startswith("EXTRA="))
    for extra in extras.split(","):
        assert re.search(rf"^{extra} = \[", project, re.MULTILINE), extra
    stages = [argument.split() for argument in arguments_of(file, "FROM")]
    assert stages[0][0] == stages[1][0]  # the environment's python is the one of both
    version = re.search(r":(3\.\d+)-", stages[0][0])
    assert version is not None
    assert version[1] >= "3.10"


def folders_for_anybody(file: Path) -> set[str]:
    """Where whoever it runs as may write."""
    lines = " ".join(arguments_of(file, "RUN"))
    (made,) = re.findall(r"install -d -m 1777((?: /[\w/]+)+)", lines)
    return set(made.split())


@pytest.mark.parametrize("file", [EDGE, WORKER], ids=["edge", "worker"])
def test_it_compiles_the_codec(file: Path) -> None:
    """What declares the extension is there, and what compiles it, when pip installs."""
    before = [argument for _, argument in statements(file)]
    before = before[: next(n for n, words in enumerate(before) if "pip install" in words)]
    assert any("setup.py" in words.split() for words in before)
    assert any({"gcc", "libc6-dev"} <= set(words.split()) for words in before)


@pytest.mark.parametrize("file", [EDGE, WORKER], ids=["edge", "worker"])
def test_it_starts_a_command_as_a_user_without_rights(file: Path) -> None:
    (entrypoint,), (command,) = arguments_of(file, "ENTRYPOINT"), arguments_of(file, "CMD")
    program, name = json.loads(entrypoint)
    assert (program, name) == ("splitpoint", "run" if file == EDGE else "serve")
    assert {word for word in json.loads(command) if word.startswith("-")} <= options_of(name)
    (user,) = arguments_of(file, "USER")
    assert int(user) > 0
    assert any(f"--uid {user}" in line for line in arguments_of(file, "RUN"))
    assert arguments_of(file, "STOPSIGNAL") == ["SIGTERM"]
    assert any("ORT_DISABLE_TELEMETRY=1" in line for line in arguments_of(file, "ENV"))


def test_the_workers_folder_and_ports_are_those_of_its_command() -> None:
    words = json.loads(arguments_of(WORKER, "CMD")[0])
    assert words.pop() == "--insecure"
    given = dict(zip(words[::2], words[1::2], strict=True))
    assert given["--watch"] in arguments_of(WORKER, "VOLUME")
    ports = {given[option].rpartition(":")[2] for option in ("--listen", "--metrics")}
    assert ports == set(arguments_of(WORKER, "EXPOSE")[0].split())


def test_the_device_keeps_its_cache_where_it_may_write() -> None:
    words = json.loads(arguments_of(EDGE, "CMD")[0])
    given = dict(zip(words[::2], words[1::2], strict=True))
    assert [given["--cache"]] == arguments_of(EDGE, "VOLUME")
    assert given["--cache"] in folders_for_anybody(EDGE)


def test_the_workers_command_serves(small_bundle: Bundle, tmp_path: Path) -> None:
    """As it stands in the file, with a folder and ports of this machine."""
    shutil.copytree(small_bundle.folder, tmp_path / "small.split")
    words = json.loads(arguments_of(WORKER, "CMD")[0])
    here = {"/models": str(tmp_path), "0.0.0.0:7070": f"0.0.0.0:{free_port()}",
            "0.0.0.0:9465": f"127.0.0.1:{free_port()}"}  # fmt: skip
    with background(["serve", *(here.get(word, word) for word in words)]) as address:
        assert address == here["0.0.0.0:7070"]


@pytest.mark.parametrize("file", [EDGE, WORKER], ids=["edge", "worker"])
def test_a_user_that_no_file_knows_has_a_home(file: Path) -> None:
    """Clusters run images as users of their own."""
    (home,) = re.findall(r"\bHOME=(\S+)", " ".join(arguments_of(file, "ENV")))
    assert home in folders_for_anybody(file)
    assert arguments_of(file, "WORKDIR") == [home]


def health_check(file: Path, port: str, here: int) -> list[str]:
    """The command of the file, with a port of this machine."""
    (argument,) = arguments_of(file, "HEALTHCHECK")
    program, *words = json.loads(argument.partition(" CMD ")[2])
    assert program == "python"
    assert port in arguments_of(file, "EXPOSE")[0].split()
    assert sum(port in word for word in words) == 1
    return [sys.executable, *(word.replace(port, str(here)) for word in words)]


def is_healthy(check: list[str]) -> bool:
    proxies = {"http_proxy": "http://127.0.0.1:9", "PATH": "/usr/bin:/bin"}  # it asks itself
    return subprocess.run(check, capture_output=True, timeout=60, env=proxies).returncode == 0


def test_the_workers_health_is_whether_it_serves(small_bundle: Bundle, tmp_path: Path) -> None:
    port = free_port()
    check = health_check(WORKER, "7070", port)
    assert not is_healthy(check)
    serve = ["serve", "--watch", str(tmp_path), "--listen", f"127.0.0.1:{port}"]
    with background(serve):
        assert not is_healthy(check)  # there is no model
        shutil.copytree(small_bundle.folder, tmp_path / "small.split")
        for _ in range(60):
            if is_healthy(check):
                break
        else:
            pytest.fail("it does not become healthy")


def test_the_devices_health_is_whether_it_answers(small_bundle: Bundle, tmp_path: Path) -> None:
    port = free_port()
    check = health_check(EDGE, "9464", port)
    assert not is_healthy(check)
    run = [
        "run", "--bundle", str(small_bundle.folder), "--split", "local",
        "--source", f"watch:{tmp_path}", "--metrics-port", str(port),
    ]  # fmt: skip
    process = subprocess.Popen([*MAIN, *run], stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    try:
        assert any("metrics on" in line for line in process.stderr)
        assert is_healthy(check)
    finally:
        process.send_signal(signal.SIGTERM)
        said = rest_of(process)[1]
    assert process.returncode == 0, said
    assert not is_healthy(check)


@pytest.mark.skipif(shutil.which("unshare") is None, reason="unshare is not installed")
def test_the_device_runs_as_a_user_that_no_file_knows(small_bundle: Bundle, tmp_path: Path) -> None:
    as_nobody = ["unshare", "--user", "--map-user=54321", "--map-group=54321"]
    if subprocess.run([*as_nobody, "true"], capture_output=True, check=False).returncode:
        pytest.skip("no user of one's own may be made here")
    photo = tmp_path / "in" / "photo.png"
    photo.parent.mkdir()
    Image.new("RGB", (40, 40), "red").save(photo)
    (tmp_path / "home").mkdir()
    run = [
        "run", "--bundle", str(small_bundle.folder), "--split", "local",
        "--source", str(photo), "--cache", str(tmp_path / "home" / "cache"),
    ]  # fmt: skip
    done = subprocess.run(
        [*as_nobody, *MAIN, *run], capture_output=True, text=True, timeout=120, check=False,
        env={"HOME": str(tmp_path / "home"), "PATH": os.environ["PATH"]},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "photo.png" in done.stdout
