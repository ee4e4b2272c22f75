"""`certs`, `serve` and `run` together; and mistakes, each told in one line."""

from __future__ import annotations

import hashlib
import json
import re
import shlex
from pathlib import Path

import pytest
import typer
from command import Command
from PIL import Image
from processes import background
from splitpoint.cli.app import app
from splitpoint.partition.bundle.bundle import Bundle

ROOT = Path(__file__).parents[2]


def test_from_certificates_to_answers(
    command: Command, small_bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The options that `certs` prints are those that work."""
    Image.new("RGB", (40, 40)).save(tmp_path / "a.png")
    out = tmp_path / "certs"
    done = command("certs", "--out", str(out), "--server", "localhost,127.0.0.1",
                      "--device", "cam", "--device", "gate")  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "tests and small fleets" in done.stderr
    lines = dict(re.findall(r"^(\w+): (--.*)$", done.stderr, re.MULTILINE))
    assert lines.keys() == {"worker", "cam", "gate"}
    tokens = tmp_path / "tokens.toml"
    digest = hashlib.sha256(b"secret").hexdigest()
    tokens.write_text(f'[cam]\nmodels = ["small"]\n[gate]\ntoken_sha256 = "{digest}"\n')
    (tmp_path / "token").write_text("secret\n")
    run = ["run", "--source", str(tmp_path / "a.png"), "--split", "1", "--json",
           "--cache", str(tmp_path / "cache")]  # fmt: skip
    serve = ["serve", str(small_bundle.folder), "--listen", "127.0.0.1:0", "--device", "cpu",
             "--tokens", str(tokens), *shlex.split(lines["worker"])]  # fmt: skip
    monkeypatch.delenv("SPLITPOINT_TOKEN", raising=False)
    with background(serve) as address:
        server = ["--server", f"localhost:{address.rpartition(':')[2]}"]
        token = ["--token-file", str(tmp_path / "token")]
        for options in (shlex.split(lines["cam"]), [*shlex.split(lines["gate"]), *token]):
            done = command(*run, *server, *options)
            assert done.returncode == 0, done.stderr
            frame, summary = map(json.loads, done.stdout.splitlines())
            assert frame["outcome"] == "answered"
            assert summary["summary"]["outcomes"]["answered"] == 1
        done = command(*run, *server, *shlex.split(lines["gate"]))
        assert done.returncode == 1
        (line,) = done.stderr.splitlines()
        assert "a token is needed" in line
        monkeypatch.setenv("SPLITPOINT_TOKEN", "wrong")
        done = command(*run, *server, *shlex.split(lines["gate"]))
        assert done.returncode == 1
        (line,) = done.stderr.splitlines()
        assert "the token is none of this worker's" in line
        monkeypatch.setenv("SPLITPOINT_TOKEN", "secret")
        assert command(*run, *server, *shlex.split(lines["gate"])).returncode == 0


def test_mistakes_of_serve(command: Command, small_bundle: Bundle, tmp_path: Path) -> None:
    (tmp_path / "tokens.toml").write_text("[a]\nmax_stream = 1\n")
    for options, words in (
        (["--listen", "0.0.0.0:0"], "--insecure"),
        (["--tls-cert", tmp_path / "a.pem"], "--tls-cert without --tls-key"),
        (["--tls-cert", tmp_path / "a.pem", "--tls-key", tmp_path / "a.key"], "cannot read"),
        (["--client-ca", tmp_path / "a.pem"], "--client-ca without --tls-cert"),
        (["--tokens", tmp_path / "tokens.toml"], "did you mean max_streams?"),
    ):
        done = command("serve", small_bundle.folder, *options)
        assert done.returncode == 1
        (line,) = done.stderr.splitlines()
        assert line.startswith("error: ")
        assert words in line


def test_mistakes_of_run(command: Command, tmp_path: Path) -> None:
    Image.new("RGB", (40, 40)).save(tmp_path / "a.png")
    (tmp_path / "token").write_text("secret")
    path = tmp_path / "a.pem"
    for options, words in (
        (["--tls-cert", path], "--tls-cert without --tls-key"),
        (["--tls-ca", path], "cannot read"),
        (["--token-file", tmp_path / "nothing"], "cannot read"),
        (["--token-file", tmp_path / "token"], "without TLS"),
    ):
        done = command(
            "run", "--server", "192.0.2.1:7070", "--source", tmp_path / "a.png", *options
        )
        assert done.returncode == 1
        (line,) = done.stderr.splitlines()
        assert words in line
        assert "secret" not in line


def test_mistakes_of_certs(command: Command, tmp_path: Path) -> None:
    done = command("certs", "--out", tmp_path / "new")
    assert done.returncode == 1
    assert done.stderr.splitlines() == [
        "error: no certificate to make: give --server NAME or --device NAME"
    ]
    assert not (tmp_path / "new").exists()


def test_the_page_names_options_that_exist() -> None:
    page = (ROOT / "docs" / "guides" / "secure.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```sh\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    joined = [block.replace("\\\n", " ") for block in blocks]
    commands = [shlex.split(line) for block in joined for line in block.splitlines()]
    group = typer.main.get_command(app)
    seen = set()
    for program, command, *words in commands:
        if program != "splitpoint":
            continue
        seen.add(command)
        known = {option for one in group.commands[command].params for option in one.opts}  # type: ignore[attr-defined]
        assert {word for word in words if word.startswith("--")} <= known
    assert seen == {"certs", "serve", "run"}
