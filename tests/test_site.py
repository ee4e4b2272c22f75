"""The site is built from what is here, every link of it leads somewhere, and nothing is fetched."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from splitpoint import edge
from splitpoint.cli.app import app
from splitpoint.cloud.options import WorkerOptions
from splitpoint.cloud.worker import Worker
from splitpoint.partition.bundle.bundle import open_bundle
from splitpoint.partition.compile.compile import compile_model
from splitpoint.proto.frames import CheckedFrame

pytest.importorskip("mkdocs", reason="the extra docs is not installed")

ROOT = Path(__file__).parents[1]
FETCHES = r"""<(?:script|link|img|iframe)\b[^>]*\b(?:src|href)="?(https?://[^">\s]+)"""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built in strict mode: a link, a heading or a name that is not there is an error."""
    folder = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)],
        cwd=ROOT, env=os.environ | {"NO_MKDOCS_2_WARNING": "1"},
        capture_output=True, text=True, timeout=200, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return folder


def test_every_page_is_in_the_site(site: Path) -> None:
    for page in (ROOT / "docs").rglob("*.md"):
        assert (site / page.relative_to(ROOT / "docs").with_suffix(".html")).is_file()


def test_a_reader_fetches_nothing_from_elsewhere(site: Path) -> None:
    for page in site.rglob("*.html"):
        outside = re.findall(FETCHES, page.read_text(encoding="utf-8"))
        assert not [link for link in outside if "canonical" not in link], page


def test_reference_has_every_command_and_option(site: Path) -> None:
    page = (site / "reference" / "commands.html").read_text(encoding="utf-8")
    for name, command in typer.main.get_command(app).commands.items():  # type: ignore[attr-defined]
        assert f"splitpoint {name}" in page
        for option in (option for each in command.params for option in each.opts):
            assert not option.startswith("--") or f"<code>{option}</code>" in page, option


def test_reference_has_the_public_names_of_the_agent(site: Path) -> None:
    page = (site / "reference" / "python.html").read_text(encoding="utf-8")
    for name in edge.__all__:
        if not name.endswith("Error"):
            assert f'id="splitpoint.edge.{name}"' in page, name


def test_reference_has_what_a_worker_and_a_script_of_a_fake_one_need(site: Path) -> None:
    page = (site / "reference" / "python.html").read_text(encoding="utf-8")
    for kind in (Worker, WorkerOptions, CheckedFrame, compile_model, open_bundle):
        assert f'id="{kind.__module__}.{kind.__qualname__}"' in page, kind
    assert "<code>pb.Status</code>" in page


def test_the_page_of_errors_has_those_of_the_code(site: Path) -> None:
    page = (site / "errors.html").read_text(encoding="utf-8")
    for name in ("CodecError", "AgentError", "UnauthenticatedError", "BundleError", "ServeError"):
        assert f"<code>{name}</code>" in page
