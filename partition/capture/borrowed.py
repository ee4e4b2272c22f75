"""A user's module on loan: it is the oracle, and nobody else's to change.

Forward methods keep things: attention biases by device, anchors of the last picture's size. During
an export these are tensors without data, and a module that keeps one cannot be run any more.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from types import MethodType
from typing import Any

import torch

from .module_check import check_module


@contextmanager
def borrowed(module: torch.nn.Module) -> Iterator[None]:
    """In eval mode inside; afterwards its modes and all its attributes are what they were.

    Parts of it that torch.compile has wrapped run as they are written: what torch would make of
    them takes minutes to build, and is not needed for a few samples.

    Attributes are followed into lists, dicts and sets, and modules in them. The values of
    parameters and buffers are not copied: neither an export nor a run in eval mode writes to them.
    Raises `ModelError` for a module that cannot be used so.
    """
    check_module(module)
    was_training = [part for part in module.modules() if part.training]
    kept = _contents(module)
    for part in module.modules():
        if is_exported(part):  # torch puts a method that only raises before that of the class
            vars(part)["train"] = MethodType(torch.nn.Module.train, part)
            vars(part)["eval"] = MethodType(torch.nn.Module.eval, part)
    try:
        module.eval()
        with torch.compiler.set_stance("force_eager"):
            yield
    finally:
        for part in was_training:
            if not part.training:
                part.train()  # undoes what its own method did for eval mode, such as merged weights
        for container, content in kept:
            if not _same(container, content):
                container.clear()
                fill = container.extend if isinstance(container, list) else container.update
                fill(content)


def is_exported(module: torch.nn.Module) -> bool:
    """Whether it is the module of a `torch.export` program, which has one mode."""
    return isinstance(module, torch.fx.GraphModule) and "train" in vars(module)


def _contents(module: torch.nn.Module) -> list[tuple[Any, Any]]:
    """Every container that can be reached from the module's attributes, and what is in it now."""
    found: dict[int, tuple[Any, Any]] = {}
    waiting: list[Any] = [module]
    while waiting:
        value = waiting.pop()
        if isinstance(value, torch.nn.Module):
            value = vars(value)
        if isinstance(value, tuple):
            waiting += value
        if not isinstance(value, (dict, list, set)) or id(value) in found:
            continue
        found[id(value)] = value, (dict(value) if isinstance(value, dict) else list(value))
        waiting += value.values() if isinstance(value, dict) else value
    return list(found.values())


def _same(container: Any, content: Any) -> bool:
    if len(container) != len(content):
        return False
    if isinstance(container, dict):
        pairs = zip(container.items(), content.items(), strict=True)
        return all(a is b and v is w for (a, v), (b, w) in pairs)
    return all(a is b for a, b in zip(container, content, strict=True))
