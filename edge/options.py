"""What an agent was asked for; see `EdgeAgent`, whose parameters these are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from .dispatch.auto_plan import AutoPlan
from .errors import AgentError
from .link.credentials import Credentials
from .link.workers import parse_servers


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """Raises `AgentError` for what no agent can do."""

    servers: Sequence[str]
    bundle: Path | None
    model: str
    split: str
    codec: str
    auto: AutoPlan
    adapt: bool
    cache: Path
    max_cache_mb: float
    runtime: str
    providers: tuple[str, ...]
    threads: int
    slowdown: float
    budget_ms: float
    max_frame_bytes: float
    max_edge_mb: float | None
    finish_locally: bool
    hedge: bool
    credentials: Credentials | None

    def __post_init__(self) -> None:
        if self.slowdown < 1:
            raise AgentError(f"a slowdown of {self.slowdown} is below 1")
        if not 1 <= self.budget_ms < 2**32:
            raise AgentError(f"a budget of {self.budget_ms:g} ms", "give 1 ms to 49 days")
        if not self.servers and self.bundle is None:
            raise AgentError("neither a server nor a bundle", "give --server or --bundle")


def servers_of(server: str | Sequence[str] | None) -> list[str]:
    """HOST:PORT, several of them with commas or as a list, or None for none."""
    if server is None:
        return []
    return parse_servers(server if isinstance(server, str) else ",".join(server))
