"""`--config`: every option by its name, and every mistake told in one line."""

from __future__ import annotations

import inspect
import json
import re
from pathlib import Path

import pytest
from command import Command
from PIL import Image
from splitpoint.cli.commands.run import run
from splitpoint.cli.shell.config_file import ConfigError, load_config
from splitpoint.partition.bundle.bundle import Bundle

EXAMPLE = Path(__file__).parents[2] / "deploy" / "edge" / "agent.toml"


def loaded(folder: Path, text: str) -> dict[str, object]:
    (folder / "agent.toml").write_text(text, encoding="utf-8")
    return load_config(folder / "agent.toml", run)


def test_the_example_is_understood() -> None:
    found = load_config(EXAMPLE, run)
    parameters = inspect.signature(run).parameters
    assert found.keys() <= parameters.keys()
    # It says what each key is by default, but for where frames come from and results go.
    differ = {name for name, value in found.items() if value != parameters[name].default}
    assert differ == {"server", "source", "json_", "metrics_port"}


def test_the_commented_keys_of_the_example_are_understood(tmp_path: Path) -> None:
    text = re.sub(r"^# (?=[a-z_]+ = )", "", EXAMPLE.read_text(encoding="utf-8"), flags=re.MULTILINE)
    found = loaded(tmp_path, text)
    assert found["power_model"] == "pi5"
    assert len(found) == len(re.findall(r"^[a-z_]+ = ", text, re.MULTILINE))
    assert len(found) > len(load_config(EXAMPLE, run))


def test_keys_and_values(tmp_path: Path) -> None:
    found = loaded(
        tmp_path,
        'server = ["a:1", "b:2"]\nsplit = 3\nsource = 0\nmax-kb-per-frame = 40\njson = true\n'
        'finish-locally = false\ncache = "c"\n',
    )
    assert found == {
        "server": "a:1,b:2", "split": "3", "source": ["0"], "max_kb_per_frame": 40, "json_": True,
        "finish_locally": False, "cache": "c",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('sever = "a:1"', "unknown key 'sever': did you mean server?"),
        ("budget-m = 1", "did you mean budget_ms?"),
        ('qqq = "a"', "unknown key 'qqq': see `splitpoint run -h`"),
        ('config = "other.toml"', "unknown key 'config'"),
        ("[run]\nsplit = 1", "unknown key 'run'"),
        ('budget_ms = "long"', "budget_ms = 'long': give a number"),
        ("budget_ms = true", "budget_ms = true: give a number"),
        ("in_flight = 1.5", "in_flight = 1.5: give a whole number"),
        ("json = 1", "json = 1: give true or false"),
        ("split = true", "split = true: give text"),
        ("server = [1]", "server = [1]: give text"),
        ("[server]\nhost = 1", "server = a table: give text"),
        ("cache = 1", "cache = 1: give a path"),
        ("slowdown = 0.5", "slowdown = 0.5: give 1 or more"),
        ("metrics_port = 70000", "metrics_port = 70000: give 65535 or less"),
        ("slowdown = nan", "slowdown = nan: give a finite number"),
        ("budget_ms = inf", "budget_ms = inf: give a finite number"),
        ("battery_wh = -inf", "battery_wh = -inf: give a finite number"),
        ("in_flight = 1\nin-flight = 2", "in_flight twice"),
        ("server = ", "is no TOML"),
    ],
)
def test_mistakes(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        loaded(tmp_path, text)
    assert words in str(caught.value)
    assert "agent.toml" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="No such file"):
        load_config(tmp_path / "nothing.toml", run)
    (tmp_path / "latin.toml").write_bytes(b'source = "\xff"')
    with pytest.raises(ConfigError, match="is no TOML"):
        load_config(tmp_path / "latin.toml", run)


def test_the_command_line_overrides_the_file(
    command: Command, small_bundle: Bundle, tmp_path: Path
) -> None:
    for name in ("a", "b"):
        Image.new("RGB", (40, 40)).save(tmp_path / f"{name}.png")
    (tmp_path / "agent.toml").write_text(
        f'bundle = "{small_bundle.folder}"\nsplit = "local"\njson = true\nrepeat = 3\n'
        f'source = "{tmp_path / "a.png"}"\n'
    )
    config = ["--config", str(tmp_path / "agent.toml")]
    for more, frames, name in (
        ([], 3, "a.png"),
        (["--repeat", "2"], 2, "a.png"),
        (["--source", str(tmp_path / "b.png")], 3, "b.png"),
    ):
        done = command("run", *config, *more)
        assert done.returncode == 0
        *lines, last = done.stdout.splitlines()
        assert json.loads(last)["summary"]["frames"] == frames == len(lines)
        assert json.loads(lines[0])["source"] == str(tmp_path / name)


def test_mistakes_end_the_command_in_one_line(command: Command, tmp_path: Path) -> None:
    (tmp_path / "agent.toml").write_text("sauce = 1")
    done = command("run", "--config", tmp_path / "agent.toml")
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: ")
    assert "did you mean source?" in line
