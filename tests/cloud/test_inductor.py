"""A segment that torch's inductor has compiled, on the CPU: that is done for real."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
import torch
from segment_sources import source_of, values_of
from splitpoint.cloud.gpu import inductor
from splitpoint.cloud.gpu.inductor import by_inductor
from splitpoint.partition.bundle.bundle import Bundle

STARTS = (4, 1, 2, 8, 3, 1), (8, 4, 2, 1)  # that of a trial, and a later one: the largest first
HAS_COMPILER = any(shutil.which(name) for name in (os.environ.get("CXX", "g++"), "clang++"))


@pytest.fixture
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv(inductor.CACHE, "to be put back as it was")
    monkeypatch.delenv(inductor.CACHE)
    return tmp_path / "inductor"


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # inductor uses what torch deprecates
@pytest.mark.skipif(not HAS_COMPILER, reason="there is no C++ compiler")
def test_it_answers_for_every_size_as_torch_does_and_is_compiled_twice_and_kept(
    small_bundle: Bundle, cache: Path
) -> None:
    from torch._dynamo.utils import counters

    segments = len(small_bundle.manifest.segments)
    misses = []
    for sizes in STARTS:
        torch.compiler.reset()
        counters.clear()
        for index in range(segments):
            with torch.inference_mode():
                source = source_of(small_bundle, index)
                run = by_inductor(source, cache)
                for samples in sizes:
                    values = values_of(source, samples)
                    found, expected = run(*values), source.module.forward(*values)
                    for own, other in zip(found, expected, strict=True):
                        torch.testing.assert_close(own, other, rtol=1e-4, atol=1e-4)
        assert counters["stats"]["unique_graphs"] == 2 * segments
        misses.append(counters["inductor"]["fxgraph_cache_miss"])
    assert any(cache.iterdir())
    assert misses == [2 * segments, 0]
