"""A boundary whose values a codec refuses: the codec is left out there, and the bundle is used."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from built import built
from command import Command
from splitpoint.codec import NO_TABLES
from splitpoint.partition.bundle.bundle import MANIFEST, Bundle
from splitpoint.partition.bundle.samples import synthetic_samples
from splitpoint.partition.compile.compile import compile_model
from splitpoint.partition.errors import PlanError
from splitpoint.partition.model_spec import ModelSpec
from splitpoint.partition.picture import PictureInput
from splitpoint.partition.plan.plan import named_plan
from splitpoint.partition.profile.measure import measure, measure_server
from splitpoint.partition.run.onnx_chain import OnnxChain

WHY = "values beyond the range of fp16"


class Large(torch.nn.Module):
    """A million between its two convolutions."""

    def __init__(self) -> None:
        super().__init__()
        self.first = torch.nn.Conv2d(3, 4, 3, stride=2)
        self.second = torch.nn.Conv2d(4, 4, 3, stride=2)
        self.head = torch.nn.Linear(4, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.first(x) * 1e6
        y = self.head(torch.relu(self.second(y / 1e6)).mean((2, 3)))
        return y


@pytest.fixture(scope="module")
def large() -> Bundle:
    torch.manual_seed(0)
    spec = ModelSpec.of_picture_model(
        "large",
        Large(),
        PictureInput(resize_px=16, height_px=16, width_px=16),
        mean=(0.5,) * 3,
        std=(0.25,) * 3,
    )
    return built("large", lambda path: compile_model(spec, path, after=["mul", "second"]), __file__)


def test_the_bundle_says_which_and_why(command: Command, large: Bundle) -> None:
    codecs = {b.after: b.codecs for b in large.manifest.boundaries[1:-1]}
    assert codecs == {"mul": ["raw", "q8", "q4"], "second": ["raw", "fp16", "q8", "q4"]}
    shown = " ".join(command("inspect", large.folder).stdout.split())
    assert "no fp16" in shown
    document = json.loads(command("inspect", large.folder, "--json").stdout)
    assert document["codecs"]["1"] == ["raw", "q8", "q4"]
    assert list(document["left_out"]) == ["1"]
    assert WHY in document["left_out"]["1"]["fp16"]
    with pytest.raises(PlanError, match=WHY):
        named_plan(large.manifest, NO_TABLES, "1", "fp16")


def test_what_was_compiled_before_is_measured_without_it(large: Bundle, tmp_path: Path) -> None:
    """Older bundles do not say so; nor does one whose example inputs happened to fit."""
    record = json.loads((large.folder / MANIFEST).read_text())
    for boundary in record["boundaries"]:
        boundary.pop("left_out", None)
    manifest = type(large.manifest).from_bytes(json.dumps(record).encode(), "old")
    assert "fp16" in manifest.boundaries[1].codecs
    old = Bundle(folder=large.folder, manifest=manifest, digest="0" * 64)
    samples = synthetic_samples(manifest)
    found = measure(old, OnnxChain(old, 1), samples, max_seconds=0.1)
    measured = {(c.boundary, c.codec) for c in found.codecs}
    assert (1, "fp16") not in measured
    assert {(1, "q8"), (2, "fp16")} <= measured
    assert [note for note in found.notes if WHY in note and "boundary 1" in note]
    times = measure_server(old, OnnxChain(old, 1), NO_TABLES, max_seconds=0.1)
    assert (1, "fp16") not in times.decode_ms
    assert (1, "q8") in times.decode_ms
