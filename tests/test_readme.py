"""The commands of README and guides are run as they are written; only ports are replaced."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import typer
from command import BRIEF_S, Command
from onnx_graphs import WEIGHT, graph, node
from PIL import Image
from processes import background, free_port
from splitpoint.cli.app import app
from splitpoint.partition.capture.capture import capture
from user_heads import nobody_allows
from videos import write_video

ROOT = Path(__file__).parents[1]
README, GUIDES = ROOT / "README.md", ROOT / "docs" / "guides"
TUTORIAL, MEASUREMENTS = ROOT / "docs" / "tutorial.md", ROOT / "docs" / "measurements.md"
# One after the other, in one folder: later pages use what earlier ones have made.
SESSION = [README, *(GUIDES / f"{name}.md" for name in (
    "compile", "run-the-device", "service", "answers-elsewhere", "plan", "run-the-worker",
))]  # fmt: skip
PAGES = [README, ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
PORTS = ("7070", "7071", "7072", "7443", "8080", "9464", "9465")
MAX_README_BYTES = 9_000
# For a process: an agent that plans measures its device, and here a first idea of it is enough.
BRIEF = f"from splitpoint.edge.dispatch import auto_plan; auto_plan.MAX_SECONDS = {BRIEF_S}"


def text_of(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def blocks(page: Path, language: str) -> list[tuple[str, str]]:
    """The title (as in ```toml title="agent.toml") and the text of each block."""
    fence = rf'^```{language}(?: title="([^"]*)")?\n(.*?)^```'
    return re.findall(fence, text_of(page), re.MULTILINE | re.DOTALL)


def commands(page: Path) -> list[list[str]]:
    """Those of `sh` blocks, then those in the text."""
    code = "\n".join(text for _, text in blocks(page, "sh")).replace("\\\n", " ")
    lines = [line for line in code.splitlines() if line.strip()]
    inline = re.findall(r"`(splitpoint [a-z][^`]*|python benchmarks/[^`]*)`", text_of(page))
    return [shlex.split(line) for line in [*lines, *inline]]


def is_named_in_passing(arguments: Sequence[str]) -> bool:
    return arguments[0] != "doctor" and (len(arguments) == 1 or "…" in arguments)


def test_the_readme_is_short() -> None:
    assert len(README.read_bytes()) <= MAX_README_BYTES


@pytest.mark.parametrize("page", [README, ROOT / "CONTRIBUTING.md"], ids=lambda page: page.stem)
def test_links_lead_to_files(page: Path) -> None:
    """Those of the site's pages are checked when it is built."""
    links = re.findall(r"\]\(([^)#:]+)(?:#[\w-]+)?\)", text_of(page))
    assert links
    for link in links:
        assert (ROOT / link).is_file(), link


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_commands_and_options_exist(page: Path) -> None:
    group = typer.main.get_command(app)
    for command in commands(page):
        program, *arguments = command
        if Path(program).name == "splitpoint":
            found = group.commands[arguments[0]]  # type: ignore[attr-defined]
            known = {each for option in found.params
                     for each in (*option.opts, *option.secondary_opts)}  # fmt: skip
            used = {word.partition("=")[0] for word in arguments if word.startswith("--")}
            assert used - {"--help"} <= known, command
        elif program == "python" and arguments[0].endswith(".py"):
            assert (ROOT / arguments[0]).is_file(), command
        elif program == "make":
            done = subprocess.run(["make", "-n", *arguments], cwd=ROOT, capture_output=True,
                                  text=True, check=False)  # fmt: skip
            assert done.returncode == 0, (command, done.stderr)


def run_pages(pages: Sequence[Path], folder: Path, command: Command) -> set[str]:
    """The commands of `pages` that ran, in their order; each must succeed and print something."""
    ports = {port: str(free_port()) for port in PORTS}

    def local(word: str) -> str:
        return re.sub("|".join(PORTS), lambda match: ports[match[0]], word)

    ran: set[tuple[str, ...]] = set()
    with ExitStack() as stack:
        for page in pages:
            for language in ("toml", "python"):
                for title, text in blocks(page, language):
                    is_model = language == "python" and "ModelSpec" in text
                    if title or is_model:
                        (folder / (title or "mine.py")).write_text(local(text), encoding="utf-8")
            for words in commands(page):
                if words[0] == "curl":
                    run_curl([local(word) for word in words], folder)
                if words[0] != "splitpoint" or words[1] == "demo" or "--ray" in words:
                    continue  # Ray's is run by tests/cloud/test_ray.py, in make test-ray
                arguments = [local(word) for word in words[1:]]
                if is_named_in_passing(arguments):
                    assert command(arguments[0], "--help").returncode == 0
                elif tuple(arguments) not in ran:
                    ran.add(tuple(arguments))
                    run_one(arguments, folder, stack, command)
            for _, text in blocks(page, "python"):
                if "EdgeAgent" in text:
                    run_python(local(text), folder)
    return {arguments[0] for arguments in ran}


def run_one(arguments: list[str], folder: Path, stack: ExitStack, command: Command) -> None:
    answers = "--http" in arguments and "--source" not in arguments
    if arguments[0] in ("serve", "emulate") or answers:
        kept = ["--cache", str(folder / "cache")] if answers else []
        stack.enter_context(background([*arguments, *kept], cwd=folder))
        return
    more = {"run": ["--cache", str(folder / "cache")], "profile": ["--max-seconds", "1"]}
    sys.modules.pop("mine", None)  # each page has one of its own
    done = command(*arguments, *more.get(arguments[0], ()), cwd=folder)
    assert done.returncode == 0, (arguments, done.stderr)
    assert done.stdout or arguments[0] == "certs"


def run_curl(words: list[str], folder: Path) -> None:
    if shutil.which("curl") is None:
        return
    done = subprocess.run(
        [*words, "--silent", "--fail", "--max-time", "60"], cwd=folder, capture_output=True,
        check=True,
    )  # fmt: skip
    assert isinstance(json.loads(done.stdout), dict)


def run_python(code: str, folder: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", f"{BRIEF}\n{code}"], capture_output=True, text=True, timeout=60,
        check=False,
        env={"XDG_CACHE_HOME": str(folder / "xdg"), "PATH": "/usr/bin:/bin"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("answered (1, 1000)")


@pytest.mark.slow
@pytest.mark.timeout(600)  # all commands of a session, one after the other
def test_readme_and_guides(photos: Path, tmp_path: Path, command: Command) -> None:
    """Compile, inspect, serve, run, plan, emulate and the Python examples."""
    shutil.copytree(photos, tmp_path / "photos")
    for folder in ("typical", "models"):
        (tmp_path / folder).mkdir()
    for path in photos.iterdir():
        with Image.open(path) as photo:
            for left in (0, 60, 120):
                crop = photo.crop((left, 0, left + 250, 250)).convert("RGB")
                crop.save(tmp_path / "typical" / f"{path.stem}{left}.png")
    write_video(tmp_path / "clip.mp4", 5, "mp4v")
    layers = [node("Conv", "x", "w", to="conv"), node("Relu", "conv")]
    graph(layers, tmp_path / "model.onnx", ("N", 3, 8, 8), weights={"w": WEIGHT})
    assert run_pages(SESSION, tmp_path, command) == {
        "compile", "inspect", "profile", "plan", "serve", "run", "emulate", "doctor", "certs",
    }  # fmt: skip
    assert "<svg" in (tmp_path / "plan.html").read_text(encoding="utf-8")


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_the_tutorial(photos: Path, tmp_path: Path, command: Command) -> None:
    shutil.copytree(photos, tmp_path / "photos")
    assert run_pages([TUTORIAL], tmp_path, command) == {
        "compile", "inspect", "profile", "plan", "serve", "run", "emulate",
    }  # fmt: skip
    inspected = command("inspect", "pets.split", "--json", cwd=tmp_path).stdout
    shown = re.findall(r"^\| (\d) \| ([\w.]+|\(the input\)) \|", text_of(TUTORIAL), re.MULTILINE)
    assert len(shown) == 7
    for _, after in shown[1:]:
        assert f'"after": "{after}"' in inspected


def test_a_head_of_ones_own(
    photos: Path, tmp_path: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The guide's model and head, as they are written, from compiling to answers of a worker."""
    page, port = GUIDES / "tasks.md", str(free_port())
    shutil.copytree(photos, tmp_path / "photos")
    for title, text in blocks(page, "python"):
        if title:
            (tmp_path / title).write_text(text, encoding="utf-8")
    ran = [[word.replace("7070", port) for word in words[1:]] for words in commands(page)
           if words[0] == "splitpoint" and not is_named_in_passing(words[1:])]  # fmt: skip
    nobody_allows(monkeypatch)
    with ExitStack() as stack:
        for name in ("my_heads", "my_model"):
            stack.callback(sys.modules.pop, name, None)
        for arguments in ran:
            run_one(arguments, tmp_path, stack, command)
        done = command(*ran[-1], "--json", "--cache", tmp_path / "cache", cwd=tmp_path)
    assert [arguments[0] for arguments in ran] == ["compile", "inspect", "serve", "run"]
    *frames, summary = map(json.loads, done.stdout.splitlines())
    assert len(frames) == summary["summary"]["frames"] > 0
    for frame in frames:
        assert frame["detections"]
        assert all(thing["score"] > 0.5 for thing in frame["detections"])


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
def test_make_targets() -> None:
    for target, must in (
        ("demo", "splitpoint demo"), ("test", "pytest"), ("test-all", "pytest"),
        ("test-aarch64", "tests/aarch64/run.py"), ("test-ray", "-m ray"), ("docs", "mkdocs build"),
    ):  # fmt: skip
        done = subprocess.run(
            ["make", "-n", target], cwd=ROOT, capture_output=True, text=True, check=True
        )
        assert must in done.stdout


def test_what_needs_root_or_podman_names_what_is_here() -> None:
    """The units and the container files have tests of their own."""
    seen = set()
    for command in [command for page in PAGES for command in commands(page)]:
        if command[:2] == ["sudo", "cp"]:
            assert (ROOT / command[2]).is_file()
        elif command[:3] == ["sudo", "systemctl", "enable"]:
            assert list(ROOT.glob(f"deploy/*/{command[-1]}.service"))
        elif command[:2] == ["podman", "build"]:
            assert (ROOT / command[command.index("-f") + 1]).is_file()
        else:
            continue
        seen.add(command[1])
    assert seen == {"cp", "systemctl", "build"}


def test_pip_commands_name_extras_that_exist() -> None:
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    section = project.partition("[project.optional-dependencies]")[2].partition("\n[")[0]
    extras = set(re.findall(r"^(\w+) = \[", section, re.MULTILINE))
    installs = [c[-1] for page in PAGES for c in commands(page) if c[:2] == ["pip", "install"]]
    assert installs
    for target in installs:
        match = re.fullmatch(r"\.(?:\[(.*)\])?", target)
        assert match is not None, target
        assert set((match[1] or "").split(",")) - {""} <= extras


def test_quoted_figures_stand_in_results() -> None:
    """The tables of measurements are those under benchmarks/results, to the letter."""
    results = [path.read_text() for path in (ROOT / "benchmarks" / "results").glob("*.md")]
    tables = re.findall(r"(?:^\| .*\n)+", text_of(MEASUREMENTS), re.MULTILINE)
    assert len(tables) == 21
    for table in tables:
        assert any(table in result for result in results), table[:100]


def test_the_readmes_figures_are_those_of_the_measurements() -> None:
    (table,) = re.findall(r"(?:^\| .*\n)+", text_of(README), re.MULTILINE)
    figures = set(re.findall(r"\d[\d.,e-]*\d|\d", table))
    assert len(figures) >= 20
    measured = text_of(MEASUREMENTS)
    for figure in figures:
        assert re.search(rf"(?<![\d.,]){re.escape(figure)}(?!\d)", measured), figure


@pytest.mark.parametrize(
    ("page", "layers"),
    [(README, {"sequences": 3, "photos": 4}),
     (GUIDES / "compile.md", {"sequences": 3, "wide_photos": 4})],
    ids=["readme", "compile"],
)  # fmt: skip
def test_models_of_ones_own(page: Path, layers: dict[str, int]) -> None:
    """The factories return what can be captured."""
    (code,) = (text for _, text in blocks(page, "python") if "ModelSpec" in text)
    names: dict[str, Any] = {}
    exec(code, names)
    specs = {name: names[name]() for name in layers}
    found = {name: capture(s.module, s.args, s.kwargs) for name, s in specs.items()}
    assert {name: len(model.layers) for name, model in found.items()} == layers
