"""Options of a command from a TOML file; the command line overrides them."""

from __future__ import annotations

import difflib
import inspect
import math
import sys
import types
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Union, get_args, get_origin, get_type_hints

import typer
from splitpoint.codec import SplitpointError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

from .finite import FINITE


class ConfigError(SplitpointError):
    """A configuration file that cannot be read, or says what the command does not understand."""


Bounds = tuple[float | None, float | None]

# What a key may hold, by the type of its option. An int does for a word: `split = 3`.
_ACCEPTED: Mapping[type, tuple[tuple[type, ...], str]] = {
    bool: ((bool,), "true or false"),
    int: ((int,), "a whole number"),
    float: ((int, float), "a number"),
    str: ((str, int, float), "text"),
    Path: ((str,), "a path"),
}


def load_config(path: Path, command: Callable[..., object]) -> dict[str, Any]:
    """The file's values by the names of the command's parameters.

    The file is a flat table: each key is the long name of an option without its dashes, or the name
    of an argument, the words joined by `_` or `-`. Where an option takes text, a list of texts is
    joined by commas; where it may be given several times, a list gives them, and a table gives
    `NAME=VALUE` for each of its keys. Raises `ConfigError` for anything else.
    """
    options = _options(command)
    found: dict[str, Any] = {}
    for key, value in _table(path).items():
        name = key.replace("-", "_")
        if name not in options:
            near = difflib.get_close_matches(name, options, n=1)
            remedy = f"did you mean {near[0]}?" if near else f"see `splitpoint {_name(command)} -h`"
            raise ConfigError(f"{path} has the unknown key {key!r}", remedy)
        parameter, kind, bounds = options[name]
        if parameter in found:
            raise ConfigError(f"{path} has {name} twice", "leave out one of the two spellings")
        if get_origin(kind) is list:
            (each,) = get_args(kind)
            if isinstance(value, dict):
                value = [f"{name}={_checked(path, name, v, each, bounds)}"
                         for name, v in value.items()]  # fmt: skip
            parts = value if isinstance(value, list) else [value]
            found[parameter] = [_checked(path, key, part, each, bounds) for part in parts]
        else:
            found[parameter] = _checked(path, key, value, kind, bounds)
    return found


def _table(path: Path) -> dict[str, Any]:
    try:
        table: dict[str, Any] = tomllib.loads(path.read_text(encoding="utf-8"))
        return table
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror or error}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is no TOML: {error}") from error


def _options(command: Callable[..., object]) -> dict[str, tuple[str, type, Bounds]]:
    """By key: the parameter, the type of its value, and the least and most it may be."""
    found = {}
    hints = get_type_hints(command, include_extras=True)
    for parameter in inspect.signature(command).parameters:
        kind, option = get_args(hints[parameter])[:2]
        if option.is_eager:  # --config itself
            continue
        if get_origin(kind) in (Union, types.UnionType):
            kind = next(part for part in get_args(kind) if part is not type(None))
        # In an `Annotated`, typer takes the first name for the default value at this stage.
        names = (option.default, *(option.param_decls or ()))
        long = [name for name in names if isinstance(name, str) and name.startswith("--")]
        key = long[0].removeprefix("--").partition("/")[0] if long else parameter
        found[key.replace("-", "_")] = parameter, kind, (option.min, option.max)
    return found


def _checked(path: Path, key: str, value: Any, kind: type, bounds: Bounds) -> Any:
    accepted, words = _ACCEPTED[kind]
    if kind is str and isinstance(value, list) and all(isinstance(part, str) for part in value):
        return ",".join(value)
    if not isinstance(value, accepted) or (isinstance(value, bool) and kind is not bool):
        raise ConfigError(f"{path}: {key} = {_toml(value)}", f"give {words}")
    if isinstance(value, float) and not math.isfinite(value):
        raise ConfigError(f"{path}: {key} = {value}", FINITE)
    least, most = bounds
    if isinstance(value, (int, float)):
        if least is not None and not value >= least:
            raise ConfigError(f"{path}: {key} = {value}", f"give {least:g} or more")
        if most is not None and not value <= most:
            raise ConfigError(f"{path}: {key} = {value}", f"give {most:g} or less")
    return str(value) if kind is str else value


def _toml(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list) and not all(isinstance(part, (int, float)) for part in value):
        return "a list"  # not shown: an address may have a password in it
    if isinstance(value, dict):
        return "a table"
    return repr(value)[:60]


def _name(command: Callable[..., object]) -> str:
    return getattr(command, "__name__", "").rstrip("_")


def config_option(command: Callable[[], Callable[..., object]]) -> Any:
    """The option `--config FILE` of the command that `command()` returns."""

    def read(context: typer.Context, path: Path | None) -> Path | None:
        if path is not None:
            context.default_map = load_config(path, command())
        return path

    return typer.Option(
        "--config",
        callback=read,
        is_eager=True,
        help="A TOML file with these options, - written as _.",
        show_default=False,
    )
