"""What a worker is made of behind its address, whether gRPC or Ray brings the calls."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from splitpoint.partition.run.torch_chain import describe_device

from .access.access import Access
from .access.quotas import Places
from .compute.loaded_model import LoadedModel
from .engine.engine import Engine
from .engine.engines import Engines
from .figures import Figures
from .frames.decoders import Decoders
from .frames.services import StreamServices
from .options import WorkerOptions
from .wire.service import SplitService

if TYPE_CHECKING:
    from .frames.tracing import FrameTraces


@dataclass(frozen=True, slots=True)
class Backend:
    """`models` are those that `service` serves, by digest; whoever loads one puts it there."""

    models: dict[str, LoadedModel]
    engine: Engines
    decoders: Decoders
    service: SplitService

    @property
    def is_serving(self) -> bool:
        """Whether frames are taken: models are there, can be computed, and nobody drains."""
        service = self.service
        usable = bool(self.models) and self.engine.can_compute
        return service.open and usable and not service.services.draining.worker

    async def stop(self) -> None:
        """Nothing is computed or decoded any more."""
        await self.engine.stop()
        self.decoders.shutdown()


def assemble(
    options: WorkerOptions,
    devices: Sequence[torch.device],
    access: Access,
    traces: FrameTraces | None = None,
) -> Backend:
    """An engine for each device, decoders, and the service in front of them."""
    models: dict[str, LoadedModel] = {}
    engine = Engines([
        Engine(
            max_batch=options.max_batch,
            max_queued_bytes=options.max_queued_bytes // len(devices),
            batching=options.batching,
            on_gpu=device.type != "cpu",
            compiling_s=60 * options.tune_minutes,
        )
        for device in devices
    ])  # fmt: skip
    decoders = Decoders(max(2, (os.cpu_count() or 2) // 2), options.max_queued_bytes)
    services = StreamServices(
        models=models,
        engine=engine,
        decoders=decoders,
        figures=Figures(),
        limits=options.limits,
        traces=traces,
    )
    limits = options.limits
    stream_places, fetch_places = [
        Places(limits.max_streams, limits.max_streams_per_client) for _ in range(2)
    ]
    service = SplitService(services, _words(devices), access, stream_places, fetch_places)
    return Backend(models, engine, decoders, service)


def _words(devices: Sequence[torch.device]) -> str:
    """As edges and people are told."""
    one = describe_device(devices[0])
    return one if len(devices) == 1 else f"{len(devices)} x {one}"
