"""The client in another language, which was written after the page of the wire alone."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from processes import background
from splitpoint.edge import EdgeAgent
from splitpoint.edge.meaning import classes_in
from splitpoint.partition.bundle.bundle import Bundle

ROOT = Path(__file__).parents[1]
NODE, NPM = shutil.which("node"), shutil.which("npm")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(NODE is None or NPM is None, reason="Node is not installed"),
]


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The example with its packages, laid out as in the repository."""
    folder = tmp_path_factory.mktemp("repository")
    shutil.copytree(ROOT / "proto", folder / "proto")
    example = folder / "examples" / "node"
    shutil.copytree(
        ROOT / "examples" / "node", example, ignore=shutil.ignore_patterns("node_modules")
    )
    assert NPM is not None
    done = subprocess.run(
        [NPM, "install", "--no-audit", "--no-fund"],
        cwd=example, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    if done.returncode:
        pytest.skip(f"npm cannot install the packages: {done.stderr.strip()[-200:]}")
    return example / "client.mjs"


@pytest.fixture
def served(small_bundle: Bundle) -> Iterator[str]:
    with background(["serve", str(small_bundle.folder), "--listen", "127.0.0.1:0"]) as worker:
        yield worker


def run(client: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    assert NODE is not None
    return subprocess.run(
        [NODE, str(client), *arguments], capture_output=True, text=True, timeout=60,
        env={**os.environ, "SPLITPOINT_TOKEN": ""},
    )  # fmt: skip


async def test_it_gets_the_answers_that_the_agent_gets(
    client: Path, served: str, small_bundle: Bundle, tmp_path: Path
) -> None:
    rng, paths, said = np.random.default_rng(0), [], []
    async with EdgeAgent(None, bundle=small_bundle.folder, split="local") as agent:
        for number in range(9):  # more than there are credits
            paths.append(tmp_path / f"{number}.jpg")
            pixels = rng.integers(0, 256, (24, 24, 3)).astype(np.uint8)
            Image.fromarray(pixels).save(paths[-1], quality=95)
            decoded = np.asarray(Image.open(paths[-1]))[np.newaxis]
            best = classes_in(await agent.infer({"pixels": decoded}), 3)
            words = ", ".join(f"{each.label} {each.score:.3f}" for each in best)
            said.append(f"{paths[-1].name}  {words}")
    done = run(client, served, *map(str, paths))
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == said


def test_a_picture_of_another_size_costs_only_itself(
    client: Path, served: str, tmp_path: Path
) -> None:
    for name, size in (("good", 24), ("bad", 32)):
        Image.new("RGB", (size, size), (9, 90, 200)).save(tmp_path / f"{name}.jpg")
    (tmp_path / "none.jpg").write_bytes(b"no picture")
    names = ("bad", "good", "none")
    done = run(client, served, *(str(tmp_path / f"{name}.jpg") for name in names))
    assert done.returncode == 1
    bad, good, none = done.stdout.splitlines()
    assert bad.startswith("bad.jpg  UNDECODABLE: ")
    assert good.startswith("good.jpg  ")
    assert ":" not in good
    assert none.startswith("none.jpg  UNDECODABLE: ")


def test_where_nobody_answers(client: Path) -> None:
    done = run(client, "127.0.0.1:9", "x.jpg")
    assert done.returncode == 1
    assert len(done.stderr.strip().splitlines()) == 1
