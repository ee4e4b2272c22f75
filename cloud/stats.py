"""What a worker does now, as one JSON document: for a page that people look at, and for programs.

It is put together on the event loop, where everything in it changes. Nothing is kept for it: who
wants rates subtracts two documents.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from splitpoint.partition.energy.gpu_state import GpuState, open_gpu_state
from splitpoint.proto import splitpoint_pb2 as pb
from splitpoint.proto.printable import printable

from .backend import Backend
from .compute.served_model import ServedModel
from .figures import BoundaryFigures, Spread
from .fronts.front import Front
from .unexpected import Stage
from .wire.stream_rows import MOST_STREAMS


class WorkerStats:
    """Of one worker, from now on. Seconds are counted from here."""

    def __init__(self, backend: Backend, front: Front, gpus: Sequence[GpuState] = ()) -> None:
        self._backend, self._front, self._gpus = backend, front, gpus
        self._began_s = time.monotonic()

    @property
    def is_serving(self) -> bool:
        """Whether the worker takes frames now."""
        return self._backend.is_serving

    async def to_json(self) -> dict[str, Any]:
        """The document; call it on the worker's event loop. GPUs are asked in a thread."""
        gpus = await asyncio.to_thread(self._read_gpus) if self._gpus else []
        streams = await self._front.count()
        backend = self._backend
        services, engine, load = backend.service.services, backend.engine, backend.engine.load()
        unexpected = services.figures.unexpected.counts
        refusals = services.figures.refusals.counts
        return {
            "device": backend.service.device,
            "seconds": round(time.monotonic() - self._began_s, 1),
            "serving": self.is_serving,
            "draining": services.draining.worker,
            "queued_frames": load.queued,
            "queued_mb": round(engine.queued_bytes / 1e6, 3),
            "utilisation": round(load.utilisation, 3),
            "slowdown": round(load.slowdown, 2),
            "gpus": gpus,
            "models": [self._model(model) for model in backend.models.values()],
            "streams_open": sum(model.streams for model in services.figures.models.values()),
            "streams": streams[:MOST_STREAMS],
            "refusals": {reason.value: n for reason, n in refusals.items() if n},
            "unexpected_errors": {
                stage.value: unexpected[stage] for stage in Stage if unexpected[stage]
            },
            "quarantined_frames": services.quarantine.added,
            "engine_restarts": engine.restarts,
            "engine_errors": engine.errors,
            "ingest_restarts": services.figures.ingest_restarts,
        }

    def _model(self, model: ServedModel) -> dict[str, Any]:
        figures = self._backend.service.services.figures.of(model)
        waits_ms = list(self._backend.engine.load(model).wait_ms)
        manifest = model.bundle.manifest
        boundaries = [
            {
                "id": number,
                "after": printable(manifest.boundaries[number].after or "the input"),
                "wait_ms": round(waits_ms[number], 3) if number < len(waits_ms) else None,
                **_at(at),
            }
            for number, at in enumerate(figures.boundaries)
        ]
        return {
            "name": printable(manifest.name),
            "digest": model.bundle.digest,
            "streams": figures.streams,
            "boundaries": boundaries,
            "answers": _statuses(figures.boundaries),
            "refused_elsewhere": _statuses([figures.elsewhere]),
        }

    def _read_gpus(self) -> list[dict[str, float | None]]:
        readings = [gpu.read() for gpu in self._gpus]
        return [
            {
                "memory_used_mb": round(reading.memory_used_bytes / 1e6),
                "memory_mb": round(reading.memory_total_bytes / 1e6),
                "utilisation": reading.utilisation,
            }
            for reading in readings
            if reading is not None
        ]


def gpu_states(devices: Sequence[torch.device]) -> list[GpuState]:
    """What can be asked of the devices while they compute, if they are GPUs."""
    if devices[0].type != "cuda":
        return []
    uuids = [torch.cuda.get_device_properties(device).uuid for device in devices]
    states = [open_gpu_state(str(uuid)) for uuid in uuids]
    return [state for state in states if state is not None]


def _at(at: BoundaryFigures) -> dict[str, Any]:
    return {
        "answered": at.statuses[pb.OK],
        "answers": _statuses([at]),
        "mb_received": round(at.bytes_received / 1e6, 6),
        "mb_sent": round(at.bytes_sent / 1e6, 6),
        "mean_queue_ms": _mean(at.queue_s, 1e3),
        "mean_decode_ms": _mean(at.decode_s, 1e3),
        "mean_compute_ms": _mean(at.compute_s, 1e3),
        "mean_batch": _mean(at.batches, 1.0),
    }


def _statuses(places: Iterable[BoundaryFigures]) -> dict[str, int]:
    """How many answers of each status there were, without those that there were none of."""
    found = list(places)
    sums = {
        name.lower(): sum(at.statuses[number] for at in found) for name, number in pb.Status.items()
    }
    return {name: count for name, count in sums.items() if count}


def _mean(spread: Spread, scale: float) -> float | None:
    count = sum(spread.counts)
    return round(scale * spread.total / count, 3) if count else None
