"""`splitpoint cache`: what the device has, and how it is let go."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from command import Command
from splitpoint.edge.store.cache_size import CacheUse
from splitpoint.edge.store.known_models import KnownModel, remember
from splitpoint.partition.bundle.bundle import MANIFEST, Bundle


@pytest.fixture
def cache(small_bundle: Bundle, tmp_path: Path) -> Path:
    """With a whole bundle, and the beginning of another."""
    folder = tmp_path / "cache"
    shutil.copytree(small_bundle.folder, folder / small_bundle.digest)
    (folder / ("0" * 64)).mkdir()
    length = (small_bundle.folder / MANIFEST).stat().st_size
    known = KnownModel(digest=small_bundle.digest, manifest_bytes=length)
    remember(folder, ["gate.example:7070"], {""}, known)
    return folder


def test_it_lists_bundles_with_who_serves_them(
    command: Command, cache: Path, small_bundle: Bundle
) -> None:
    document = json.loads(command("cache", "--cache", str(cache), "--json").stdout)
    assert document["cache"] == str(cache)
    found = {bundle["digest"]: bundle for bundle in document["bundles"]}
    whole, begun = found[small_bundle.digest], found["0" * 64]
    assert whole["name"] == "small"
    assert whole["servers"] == ["gate.example:7070"]
    assert whole["bytes"] >= whole["of_bytes"] > 0  # the digest's own file lies there, too
    assert (begun["name"], begun["bytes"], begun["servers"]) == ("", 0, [])
    out = command("cache", "--cache", str(cache)).stdout
    assert small_bundle.digest[:12] in out
    assert "gate.example:7070" in out
    assert "no manifest" in out


def test_it_removes_what_nobody_uses(command: Command, cache: Path, small_bundle: Bundle) -> None:
    digest = small_bundle.digest
    use = CacheUse(cache / digest)
    refused = command("cache", "--cache", str(cache), "--remove", digest[:12])
    assert refused.returncode == 1
    assert "in use" in refused.stderr
    use.close()
    command("cache", "--cache", str(cache), "--remove", digest[:12], "--remove", "00000000")
    assert not (cache / digest).exists()
    assert "no bundle is in the cache" in command("cache", "--cache", str(cache)).stderr


@pytest.mark.parametrize(
    ("given", "words"), [("12345678", "no bundle in the cache begins"), ("../..", "is no digest")]
)
def test_what_is_not_there_is_named(command: Command, cache: Path, given: str, words: str) -> None:
    refused = command("cache", "--cache", str(cache), "--remove", given)
    assert refused.returncode == 1
    assert words in refused.stderr
    assert len(list(cache.iterdir())) == 3
