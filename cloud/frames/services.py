"""What every stream of a worker needs of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from splitpoint.proto.session.unread import Unread

from ..compute.served_model import ServedModel
from ..engine.quarantine import Quarantine
from ..figures import Figures
from ..options import StreamLimits
from .computing import Computing
from .decoders import Decoders

if TYPE_CHECKING:
    from .tracing import FrameTraces


class Draining:
    """What takes no new frames: some models, or the whole worker."""

    def __init__(self) -> None:
        self.worker = False
        self.models: set[ServedModel] = set()

    def concerns(self, model: ServedModel) -> bool:
        """Whether a frame of this model is refused."""
        return self.worker or model in self.models


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamServices:
    """`models` are by bundle digest; `traces` is None where nobody collects them."""

    models: Mapping[str, ServedModel]
    engine: Computing
    decoders: Decoders
    figures: Figures
    limits: StreamLimits
    traces: FrameTraces | None = None
    quarantine: Quarantine = field(default_factory=Quarantine)
    draining: Draining = field(default_factory=Draining)
    unread: Unread = field(default_factory=Unread)
