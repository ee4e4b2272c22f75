"""Options of an agent: given as a record, as keywords, or both; checked where they are written."""

from __future__ import annotations

import inspect
from pathlib import Path

import pytest
from splitpoint.cli.commands.run import run
from splitpoint.edge import AgentError, AgentOptions, EdgeAgent
from splitpoint.partition.bundle.bundle import Bundle


async def test_keywords_override_the_record_and_none_leaves_it(
    small_bundle: Bundle, tmp_path: Path
) -> None:
    options = AgentOptions(split="2", bundle=small_bundle.folder, cache=tmp_path, codec="raw")
    async with EdgeAgent(None, options, split="local", bundle=None) as agent:
        assert agent.is_local
        assert agent.digest == small_bundle.digest


@pytest.mark.parametrize(
    ("option", "words"),
    [
        ({"slowdown": 0.5}, "a slowdown of 0.5 is not 1 or more"),
        ({"slowdown": float("nan")}, "a slowdown of nan"),
        ({"slowdown": float("inf")}, "a slowdown of inf"),
        ({"budget_ms": 0.0}, "a budget of 0 ms"),
        ({"budget_ms": float("nan")}, "a budget of nan ms"),
        ({"budget_ms": 2.0**32}, "a budget of"),
    ],
)
def test_what_no_agent_can_do_is_refused_at_once(option: dict[str, float], words: str) -> None:
    with pytest.raises(AgentError, match=words):
        AgentOptions(**option)
    with pytest.raises(AgentError, match=words):
        EdgeAgent("server:7070", **option)


def test_a_keyword_that_is_no_option_is_an_error() -> None:
    with pytest.raises(TypeError, match="budget"):
        EdgeAgent("server:7070", budget=300)


def test_neither_a_server_nor_a_bundle() -> None:
    with pytest.raises(AgentError, match="neither a server nor a bundle"):
        EdgeAgent(None)


def test_an_agent_that_was_not_entered_says_so(small_bundle: Bundle) -> None:
    with pytest.raises(AgentError, match="enter it"):
        _ = EdgeAgent(None, bundle=small_bundle.folder).plan


def test_the_command_has_the_same_defaults() -> None:
    said = inspect.signature(run).parameters
    options = AgentOptions()
    for name in ("split", "codec", "adapt", "runtime", "threads", "budget_ms", "max_cache_mb"):
        assert said[name].default == getattr(options, name)
