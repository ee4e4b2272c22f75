"""Every option of `serve` reaches Ray's replicas, or is refused with them: none is ignored."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from types import UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

import pytest
import typer
from splitpoint.cli.commands import serve as serve_cmd
from splitpoint.cli.commands import serve_on_ray
from splitpoint.cli.commands.serve import serve
from splitpoint.cloud.ray.options import RayOptions

# Of the command itself, whatever serves: where options and lines come from and go to.
COMMAND = {"config", "ray", "verbose", "log_format"}
ONLY_RAY = {"replicas", "max_replicas", "http_port"}
OPTIONS = sorted(inspect.signature(serve).parameters.keys() - COMMAND)


def another(name: str) -> Any:
    """A value that the option does not have by default."""
    parameter = inspect.signature(serve).parameters[name]
    kind = get_args(get_type_hints(serve, include_extras=True)[name])[0]
    if get_origin(kind) in (Union, UnionType):
        kind = next(part for part in get_args(kind) if part is not type(None))
    if kind is bool:
        return not parameter.default
    if kind in (int, float):
        return parameter.default + 7
    return {str: "7", Path: Path("seven"), list[Path]: [Path("seven")], list[str]: ["a:b"]}[kind]


def given_to_ray(monkeypatch: pytest.MonkeyPatch, **options: Any) -> dict[str, Any]:
    given: dict[str, Any] = {}

    def take(listen: str, tell: Callable[[str], None], **fields: Any) -> None:
        given.update(fields, listen=listen)

    monkeypatch.setattr(serve_on_ray, "serve_on_ray", take)
    serve(**{"ray": True} | options)
    return given


@pytest.mark.parametrize("name", OPTIONS)
def test_every_option_reaches_ray_or_is_refused(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    before, refused = given_to_ray(monkeypatch), ""
    try:
        after = given_to_ray(monkeypatch, **{name: another(name)})
    except typer.BadParameter as error:
        after, refused = {}, str(error)
    if refused:
        assert refused == f"not for --ray: --{name.replace('_', '-')}"
        return
    changed = {key for key in before if before[key] != after[key]}
    assert len(changed) == 1, f"--{name} changes {changed or 'nothing'}"


def test_what_ray_gets_its_replicas_know(monkeypatch: pytest.MonkeyPatch) -> None:
    own = inspect.signature(serve_on_ray.serve_on_ray).parameters
    given = given_to_ray(monkeypatch)
    known = {field.name for field in fields(RayOptions)}
    assert {name for name in given if name not in own} <= known


@pytest.mark.parametrize("name", sorted(ONLY_RAY))
def test_options_of_ray_are_refused_without_it(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serve_cmd, "_serve", None)  # it does not come so far
    with pytest.raises(typer.BadParameter, match=name.replace("_", "-")):
        serve(**{name: another(name)})
