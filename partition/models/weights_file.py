"""A file of weights, loaded into a user's module."""

from __future__ import annotations

import importlib
import pickle
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch

from ..errors import ModelError

# Where training scripts put the state dict in a checkpoint, and what wrappers put before its keys.
_UNDER = ("state_dict", "model_state_dict", "model")
_PREFIXES = ("module.", "_orig_mod.", "model.")  # DataParallel, torch.compile, Lightning
_EXTRA = "_extra_state"  # what a layer keeps beside tensors, under torch's own key
_NAMED = 3


def load_weights_file(module: torch.nn.Module, path: Path) -> None:
    """Loads the state dict in `path` into `module`, which it must fit exactly.

    The file is .safetensors, or what `torch.load` reads with `weights_only=True`: a state dict, or
    a checkpoint with one. Keys may bear the prefix of a wrapper. Raises `ModelError`, naming the
    first keys that are missing, unexpected or of another shape.
    """
    own = module.state_dict()
    given = _without_prefixes(_state_dict(_read(path), path), own)
    state = {key: value for key, value in given.items() if key in own}
    shapes = [
        f"{key} {list(value.shape)}, not {list(own[key].shape)}"
        for key, value in state.items()
        if isinstance(own[key], torch.Tensor) and value.shape != own[key].shape
    ]
    unexpected = [key for key in given if key not in own]
    missing: list[str] = []
    if not shapes:
        # torch knows which keys older versions of a layer did not have yet.
        missing = list(module.load_state_dict(state, strict=False).missing_keys)
        # Of weights that two layers share, safetensors holds one.
        loaded = {own[key].data_ptr() for key in state if isinstance(own[key], torch.Tensor)}
        missing = [key for key in missing if not _shares(own[key], loaded)]
    wrong = [
        _some(keys, what)
        for keys, what in (
            (missing, "missing"),
            (unexpected, "unexpected"),
            (shapes, "of another shape"),
        )
        if keys
    ]
    if wrong:
        raise ModelError(
            f"the weights in {path} do not fit {type(module).__name__}: {'; '.join(wrong)}",
            "give the state dict of this very module",
        )


def _shares(value: Any, loaded: set[int]) -> bool:
    return isinstance(value, torch.Tensor) and value.data_ptr() in loaded


def _read(path: Path) -> Any:
    try:
        if path.suffix == ".safetensors":
            return importlib.import_module("safetensors.torch").load_file(path)
        return torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise ModelError(f"there is no file of weights {path}", "give --weights FILE") from error
    except Exception as error:
        text = " ".join(str(error).split())
        if "TorchScript" in text:
            reason = "it is a TorchScript program"
        elif isinstance(error, pickle.UnpicklingError):
            reason = "it holds Python objects, which may run code when they are loaded"
        else:
            reason = (text or type(error).__name__)[:200]
        raise ModelError(
            f"cannot load weights from {path} ({reason})",
            "write them with torch.save(model.state_dict(), FILE), or as .safetensors",
        ) from error


def _state_dict(loaded: Any, path: Path) -> dict[str, Any]:
    """What belongs to layers, by key, out of a checkpoint if it lies in one."""
    for key in _UNDER:
        if isinstance(loaded, Mapping) and isinstance(loaded.get(key), Mapping):
            loaded = loaded[key]
    items = loaded.items() if isinstance(loaded, Mapping) else ()
    state = {
        str(key): value
        for key, value in items
        if isinstance(value, torch.Tensor) or str(key).endswith(_EXTRA)
    }
    if not state:
        names = f" but {_some(list(loaded), 'keys')}" if isinstance(loaded, Mapping) else ""
        raise ModelError(
            f"{path} holds no state dict{names}",
            f"write the state dict itself, or under one of {', '.join(_UNDER)}",
        )
    return state


def _without_prefixes(state: dict[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """`state` without what a wrapper put before every key, as long as `own` keys lack it."""
    for prefix in (p for _ in _PREFIXES for p in _PREFIXES):
        if _all_start(state, prefix) and not _all_start(own, prefix):
            state = {key.removeprefix(prefix): value for key, value in state.items()}
    return state


def _all_start(keys: Iterable[str], prefix: str) -> bool:
    return all(key.startswith(prefix) for key in keys)


def _some(keys: list[Any], what: str) -> str:
    """`5 missing (a, b, c, …)`."""
    named = ", ".join(str(key)[:60] for key in keys[:_NAMED])
    return f"{len(keys)} {what} ({named}{', …' if len(keys) > _NAMED else ''})"
