"""What all streams of a worker work with."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ..compute.served_model import ServedModel
from ..engine.engines import Engines
from ..engine.quarantine import Quarantine
from ..figures import Figures
from .decoders import Decoders
from .lifetime import StreamLimits
from .unread import Unread

if TYPE_CHECKING:
    from .tracing import FrameTraces


@dataclass(frozen=True, slots=True, kw_only=True)
class Tools:
    """`models` are by bundle digest; `is_draining` says whether one takes nothing new."""

    models: Mapping[str, ServedModel]
    engine: Engines
    decoders: Decoders
    quarantine: Quarantine
    figures: Figures
    traces: FrameTraces | None
    limits: StreamLimits
    is_draining: Callable[[ServedModel], bool]
    unread: Unread = field(default_factory=Unread)
