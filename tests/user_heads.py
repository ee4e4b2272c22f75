"""A module of heads such as users write, in a test's folder, and bundles that name them."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from splitpoint.partition.bundle.bundle import Bundle
from splitpoint.partition.compile.compile import compile_model
from splitpoint.partition.model_spec import ModelSpec
from splitpoint.partition.tasks import user_head
from splitpoint.partition.tasks.task import Task
from splitpoint.partition.tasks.user_head import allow_head
from torch import nn

HEADS = """
import numpy as np

def boxes(outputs):
    assert not outputs["output"].flags.writeable
    x = outputs["output"]
    rows = [[0, 0, 8, 8, abs(x[0]) % 1, 1], [8, 8, 16, 24, 0.9, 0], [0, 0, 1, 1, 0.01, 2],
            [np.nan, 0, 1, 1, 0.8, 2]]
    return rows

def regions(outputs):
    x = outputs["output"]
    return (x[:6].reshape(2, 3) > 0).astype(np.uint8)

def figures(outputs):
    x = outputs["output"]
    return {"best": np.int64(x.argmax()), "spread": np.array([x.min(), x.max()])}

def picky(outputs):
    if outputs["output"][0] > 1e6:
        raise ValueError("too large for me")
    return {"first": outputs["output"][:1]}

def bad_boxes(outputs):
    return [[1, 2, 3]]

def bad_regions(outputs):
    return np.zeros((2, 2), np.int64)

def bad_figures(outputs):
    return 5

def leaves(outputs):
    if outputs["output"][0] > 1e6:
        raise SystemExit(3)
    return {"first": outputs["output"][:1]}

def words(outputs):
    return {"label": np.array(["cat"])}

def ragged(outputs):
    return {"fine": outputs["output"], "rows": [[1], [1, 2]]}

def too_large(outputs):
    return {"map": np.zeros((5000, 5000), np.float32)}

def grows(outputs):
    return {"first": outputs["output"][: 2 if outputs["output"][0] > 1e6 else 1]}

def fails(outputs):
    raise RuntimeError("not\\ntoday")
"""


@contextmanager
def heads_in(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The module `my_heads` in `folder`, which is the working one; none of its heads is allowed."""
    nobody_allows(monkeypatch)
    (folder / "my_heads.py").write_text(HEADS)
    monkeypatch.chdir(folder)
    try:
        yield
    finally:
        sys.modules.pop("my_heads", None)


def nobody_allows(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a process that has just begun: nothing is allowed, or imported."""
    monkeypatch.setattr(user_head, "_allowed", {})
    sys.modules.pop("my_heads", None)


def net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 9)).eval()


def compiled(name: str, kind: str, folder: Path) -> Bundle:
    head = f"my_heads:{name}"
    allow_head(head)
    spec = ModelSpec(
        source="m", module=net(), args=(torch.randn(2, 8),), task=Task.of_head(head, kind=kind)
    )
    return compile_model(spec, folder / f"{name}.split", boundaries=3)
