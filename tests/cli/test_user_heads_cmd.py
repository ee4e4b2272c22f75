"""A user's head on the command line: what is said of one that will not do, and who allows it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from command import Command
from user_heads import heads_in, nobody_allows

NET = """
import torch
from splitpoint.partition.model_spec import ModelSpec

def net():
    module = torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.ReLU(), torch.nn.Linear(16, 9))
    return ModelSpec(source="m", module=module.eval(), args=(torch.randn(2, 8),))
"""
COMPILE = ("compile", "my_net:net", "--out", "m.split")


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """With a model and heads, of which none is allowed, and an input."""
    (tmp_path / "my_net.py").write_text(NET)
    np.save(tmp_path / "x.npy", np.zeros((1, 8), np.float32))
    with heads_in(tmp_path, monkeypatch):
        yield tmp_path


@pytest.mark.parametrize(("options", "words"), [
    (["--head", "no_heads:figures"], "no_heads:figures cannot be imported (ModuleNotFoundError: No "
                                     "module named 'no_heads')"),
    (["--head", "my_heads:figure"], "'my_heads' has no function 'figure'"),
    (["--head", "my_heads:np"], "my_heads:np is no function (module)"),
    (["--head", "my_heads:fig ure"], "unknown head 'my_heads:fig ure': use one of yolo,"),
    (["--head", "my_heads:fails"], "my_heads:fails fails (RuntimeError: not today)"),
    (["--head", "my_heads:bad_figures"], "returned int: for the task raw, return a dict of 1"),
    (["--head", "my_heads:words"], "returned dict of 'label' <U3 [1]: for the task raw"),
    (["--head", "my_heads:ragged"], "'fine' float32 [9], 'rows' list that is no array"),
    (["--head", "my_heads:too_large"], "'map' float32 [5000, 5000]: for the task raw, return a "
                                       "dict of 1 to 64 arrays of numbers by name, none of them "
                                       "empty, of 64 MB"),
    (["--head", "my_heads:bad_regions", "--task", "segment"], "returned int64 [2, 2]: for the task "
                                                              "segment, return an array uint8"),
    (["--head", "my_heads:bad_boxes", "--task", "detect"], "returned float32 [1, 3]: for the task "
                                                           "detect, return an array [n, 6]"),
    (["--head", "my_heads:figures", "--task", "classify"], "a function of yours answers detect, "
                                                           "segment, raw"),
])  # fmt: skip
def test_what_will_not_do_is_said_in_one_line(
    options: list[str], words: str, command: Command, folder: Path
) -> None:
    done = command(*COMPILE, *options, cwd=folder)
    assert done.returncode == 1
    *_, last = done.stderr.splitlines()
    assert last.startswith("error: ")
    assert words in last
    assert "Traceback" not in done.stderr
    assert not list(folder.glob("*.split"))


def test_from_compile_to_run(
    command: Command, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = command(
        *COMPILE, "--head", "my_heads:boxes", "--task", "detect", "--max-detections", 7, cwd=folder
    )
    assert done.returncode == 0, done.stderr
    assert "answers: detect (head my_heads:boxes)" in done.stderr
    done = command("inspect", "m.split", cwd=folder)
    assert "task detect, head my_heads:boxes: answers with detections float32 7x6" in done.stdout
    nobody_allows(monkeypatch)
    run = ["run", "--bundle", "m.split", "--source", "x.npy", "--split", "local"]
    done = command(*run, cwd=folder)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("error: the model answers by the function my_he")
    done = command(*run, "--allow-head", "my_heads:boxes", cwd=folder)
    assert done.returncode == 0, done.stderr
    done = command("serve", "m.split", "--allow-head", "my_heads:nothing", cwd=folder)
    assert done.returncode == 1
    assert "'my_heads' has no function 'nothing'" in done.stderr.splitlines()[-1]
    nobody_allows(monkeypatch)
    done = command("serve", "m.split", "--listen", "127.0.0.1:0", cwd=folder)
    assert done.returncode == 1
    assert "--allow-head my_heads:boxes" in done.stderr.splitlines()[-1]


def test_inspect_shows_one_number(
    command: Command, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert command(*COMPILE, "--head", "my_heads:figures", cwd=folder).returncode == 0
    nobody_allows(monkeypatch)
    done = command("inspect", "m.split", cwd=folder)
    assert "head my_heads:figures: answers with best int64 (one), spread float32 2\n" in done.stdout
    told = json.loads(command("inspect", "m.split", "--json", cwd=folder).stdout)
    assert told["task"]["head"] == "my_heads:figures"
    assert [tensor["shape"] for tensor in told["answer"]] == [[], [2]]


def test_a_profile_needs_it_too_and_says_so_before_it_measures(
    command: Command, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert command(*COMPILE, "--head", "my_heads:figures", cwd=folder).returncode == 0
    nobody_allows(monkeypatch)
    measure = ["profile", "m.split", "--max-seconds", 0.2, "--energy", "none"]
    done = command(*measure, cwd=folder)
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert "--allow-head my_heads:figures" in line
    done = command(*measure, "--allow-head", "my_heads:figures", "--json", cwd=folder)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["head_ms"] > 0


def test_a_file_of_options_allows_it(
    command: Command, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert command(*COMPILE, "--head", "my_heads:figures", cwd=folder).returncode == 0
    nobody_allows(monkeypatch)
    text = 'bundle = "m.split"\nsource = "x.npy"\nsplit = "local"\njson = true\n'
    (folder / "agent.toml").write_text(text + 'allow_head = ["my_heads:picky"]\n')
    done = command("run", "--config", "agent.toml", cwd=folder)
    assert done.returncode == 1
    assert "my_heads:figures, which is not allowed here" in done.stderr.splitlines()[-1]
    (folder / "agent.toml").write_text(text + 'allow_head = ["my_heads:picky", "my_heads:figures"]')
    done = command("run", "--config", "agent.toml", cwd=folder)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1])["summary"]["outcomes"]["local"] == 1
