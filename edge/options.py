"""What an agent is asked for: every option and its default."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from splitpoint.partition.kept_files import default_cache

from .dispatch.auto_plan import AutoPlan
from .errors import AgentError
from .store.bundles import first_digits
from .transport.credentials import Credentials

MOST_BUDGET_MS = 2**32  # what the wire has room for


@dataclass(frozen=True, kw_only=True)
class AgentOptions:
    """See `EdgeAgent`. Raises `AgentError` for what no agent can do."""

    model: str = ""  # which, where the worker serves several
    bundle: Path | None = None  # a local one, instead of what the worker serves
    # The first digits of a bundle's digest: that one, from the cache or a worker, whatever else
    # the workers serve. Without it the agent goes on with a newer one once they serve that.
    pin: str = ""

    # The split. `auto` measures this device and the link, and takes the best plan, as the option
    # of that name says; with `adapt` the plan follows the link, the worker's load and the device.
    split: str = "auto"
    codec: str = "auto"
    auto: AutoPlan = field(default_factory=AutoPlan)
    adapt: bool = True
    # A frame with a larger payload goes in the next coarser codec that was calibrated.
    max_frame_bytes: float = math.inf

    # Fetched bundles. Of those that nobody uses, the oldest go when there is more.
    cache: Path = field(default_factory=default_cache)
    max_cache_mb: float = 4_000.0

    # What runs the segments here, one of `RUNTIMES`: auto leaves that to the plan, and is
    # onnxruntime where `split` names one. `providers` are what onnxruntime computes with.
    runtime: str = "auto"
    providers: Sequence[str] = ()
    threads: int = 0  # the runtime's, 0: one a core
    slowdown: float = 1.0  # stretches edge compute to play a slower device (emulated)

    # What the cloud does not answer in time, the device finishes in float32, unless all segments
    # would need more than `max_edge_mb`. With `hedge` it does not wait for the budget's end, but
    # for 95 of 100 answers' time.
    budget_ms: float = 10_000.0
    finish_locally: bool = True
    max_edge_mb: float | None = None
    hedge: bool = False

    credentials: Credentials = field(default_factory=Credentials)  # for all workers

    def __post_init__(self) -> None:
        if self.pin:
            first_digits(self.pin)
            if self.bundle is not None:
                raise AgentError("both a bundle and the digest of one", "leave out one of them")
        if not 1 <= self.slowdown < math.inf:
            raise AgentError(f"a slowdown of {self.slowdown} is not 1 or more")
        if not 1 <= self.budget_ms < MOST_BUDGET_MS:
            raise AgentError(f"a budget of {self.budget_ms:g} ms", "give 1 ms to 49 days")
