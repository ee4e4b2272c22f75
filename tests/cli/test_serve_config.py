"""`serve --config`, its log lines, and what it tells systemd."""

from __future__ import annotations

import inspect
import json
import logging
import os
import re
import signal
import socket
import subprocess
from pathlib import Path

import pytest
from command import Command
from processes import MAIN
from splitpoint.cli.commands.serve import serve
from splitpoint.cli.shell.config_file import ConfigError, load_config
from splitpoint.cli.shell.log_lines import JsonLine, LogFormatError, setup_log_lines
from splitpoint.partition.bundle.bundle import Bundle

EXAMPLE = Path(__file__).parents[2] / "deploy" / "worker" / "worker.toml"


def loaded(folder: Path, text: str) -> dict[str, object]:
    (folder / "worker.toml").write_text(text, encoding="utf-8")
    return load_config(folder / "worker.toml", serve)


def test_the_example_is_understood() -> None:
    found = load_config(EXAMPLE, serve)
    parameters = inspect.signature(serve).parameters
    assert found.keys() <= parameters.keys()
    # It says what each key is by default, but for where models come from and metrics go.
    differ = {name for name, value in found.items() if value != parameters[name].default}
    assert differ == {"watch", "metrics"}


def test_the_commented_keys_of_the_example_are_understood(tmp_path: Path) -> None:
    text = re.sub(r"^# (?=[a-z_]+ = )", "", EXAMPLE.read_text(encoding="utf-8"), flags=re.MULTILINE)
    found = loaded(tmp_path, text)
    assert found["bundles"] == ["/srv/splitpoint/resnet50.split"]
    assert found["profile"] == ["/srv/resnet50.json"]
    assert len(found) == len(re.findall(r"^[a-z_]+ = ", text, re.MULTILINE))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('bundle = "a.split"', "unknown key 'bundle': did you mean bundles?"),
        ('max_que_mb = "a"', "did you mean max_queued_mb?"),
        ("bundles = [1]", "bundles = 1: give a path"),
        ("max_batch = 0", "max_batch = 0: give 1 or more"),
        ("qqq = 1", "see `splitpoint serve -h`"),
    ],
)
def test_mistakes(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        loaded(tmp_path, text)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "arguments", "words"),
    [
        ("bundels = []", [], "did you mean bundles?"),
        ('bundles = ["nowhere.split"]', [], "there is no bundle nowhere.split"),
        ('bundles = ["nowhere.split"]', ["other.split"], "there is no bundle other.split"),
        ("", [], "there is nothing to serve"),
        ('log_format = "xml"', [], "there is no log format 'xml'"),
    ],
)
def test_mistakes_end_the_command_in_one_line(
    command: Command, tmp_path: Path, text: str, arguments: list[str], words: str
) -> None:
    (tmp_path / "worker.toml").write_text(text)
    config = ["--config", "worker.toml", "--listen", "127.0.0.1:0"]
    done = command("serve", *arguments, *config, cwd=tmp_path)
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: ")
    assert words in line


def test_a_json_line() -> None:
    record = logging.LogRecord(
        "splitpoint.cloud", logging.WARNING, "f", 1, "%s\n%d", ("é", 3), None
    )
    record.created = 1_700_000_000.25
    assert json.loads(JsonLine().format(record)) == {
        "time": "2023-11-14T22:13:20.250+00:00",
        "level": "warning",
        "logger": "splitpoint.cloud",
        "message": "é\n3",
    }
    record.client, record.frame, record.other = "someone", 7, "left out"
    try:
        raise ValueError("why")
    except ValueError as error:
        record.exc_info = (ValueError, error, error.__traceback__)
    text = JsonLine().format(record)
    line = json.loads(text)
    assert "\n" not in text
    assert (line["client"], line["frame"]) == ("someone", 7)
    assert "other" not in line
    assert "ValueError: why" in line["exception"]


def test_an_unknown_log_format() -> None:
    with pytest.raises(LogFormatError, match="text or json"):
        setup_log_lines("yaml", verbose=False)


def test_a_worker_from_a_file(small_bundle: Bundle, tmp_path: Path) -> None:
    """Every line is a JSON object; systemd hears of its life; SIGTERM ends it with 0."""
    (tmp_path / "worker.toml").write_text(
        f'bundles = ["{small_bundle.folder}"]\nlisten = "127.0.0.1:0"\ndevice = "cpu"\n'
        'metrics = "127.0.0.1:0"\nlog_format = "json"\nmax_batch = 4\n'
    )
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(60)
        process = subprocess.Popen(
            [*MAIN, "serve", "--config", "worker.toml"],
            stderr=subprocess.PIPE,
            text=True,
            cwd=tmp_path,
            env={**os.environ, "NOTIFY_SOCKET": manager.getsockname(), "WATCHDOG_USEC": "400000"},
        )
        try:
            told = [manager.recv(100).decode() for _ in range(3)]
        finally:
            process.send_signal(signal.SIGTERM)
        lines = [json.loads(line) for line in process.communicate(timeout=30)[1].splitlines()]
        manager.setblocking(False)
        while told[-1] != "STOPPING=1":
            told.append(manager.recv(100).decode())
    assert process.returncode == 0, lines
    assert told[:3] == ["READY=1", "WATCHDOG=1", "WATCHDOG=1"]
    assert all(line.keys() >= {"time", "level", "logger", "message"} for line in lines)
    messages = [line["message"] for line in lines]
    assert messages[-2:] == ["draining", "stopped"]
    assert any(re.fullmatch(r"listening on 127\.0\.0\.1:\d+", each) for each in messages)
    assert any(re.fullmatch(r"metrics on http://127.0.0.1:\d+/metrics", each) for each in messages)
