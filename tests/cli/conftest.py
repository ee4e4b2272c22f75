"""A bundle with ladders, profiles for it, and `splitpoint plan` on them."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest
from command import Command
from plan_command import LADDERS, LINK, Plan, cloud_profile, edge_profile
from splitpoint.partition.bundle.bundle import Bundle, open_bundle, write_manifest


@pytest.fixture(scope="module")
def laddered(small_bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """The small one with ladders; `small_bundle` itself was not calibrated."""
    folder = tmp_path_factory.mktemp("calibrated") / "small.split"
    shutil.copytree(small_bundle.folder, folder)
    boundaries = tuple(
        dataclasses.replace(boundary, ladder=tuple(LADDERS.get(boundary.id, ())))
        for boundary in small_bundle.manifest.boundaries
    )
    write_manifest(folder, dataclasses.replace(small_bundle.manifest, boundaries=boundaries))
    return open_bundle(folder)


@pytest.fixture
def files(laddered: Bundle, tmp_path: Path) -> dict[str, Path]:
    assert len(laddered.manifest.segments) == 4
    edge_profile(laddered).save(tmp_path / "edge.json")
    cloud_profile(laddered).save(tmp_path / "cloud.json")
    return {
        "bundle": laddered.folder,
        "edge": tmp_path / "edge.json",
        "cloud": tmp_path / "cloud.json",
    }


@pytest.fixture
def plan(command: Command, files: dict[str, Path]) -> Plan:
    """Runs the command in this process: exit code, stdout, stderr."""

    def run(*options: str, link: str = LINK, edges: Sequence[Path] = ()) -> tuple[int, str, str]:
        arguments = ["plan", files["bundle"], "--cloud", files["cloud"]]
        for path in edges or [files["edge"]]:
            arguments += ["--edge", path]
        done = command(*arguments, "--link", link, *options)
        return done.returncode, done.stdout, done.stderr

    return run
