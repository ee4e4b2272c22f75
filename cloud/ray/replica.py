"""One replica: the bundles, an engine and the service, behind Ray Serve's proxy.

Ray calls the methods by their names on the wire. It tells a replica nothing when it is to stop, but
waits until its calls have ended, which streams do not by themselves; see `_stopping`.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from grpc_health.v1 import health_pb2
from ray import serve
from splitpoint.partition.run.torch_chain import pick_device
from threadpoolctl import threadpool_limits

from ..access.security import Security
from ..backend import assemble
from ..compute.load import load_served_model
from ..compute.loaded_model import LoadedModel
from ..compute.precision import check_precision
from ..engine.measure_again import measure_again
from .call import CallInfo, RawMessage, RayCall, one
from .options import APP, DEPLOYMENT, RayOptions
from .policy import UTILISATION, WAIT

log = logging.getLogger("splitpoint.cloud")

# Ray asks a replica that runs for its health this often, and one that is to stop not any more.
HEALTH_S = 1.0
SILENT_S = 3.5 * HEALTH_S
# Between telling a device that its stream ends, and reading no more of it: what was on its way
# then is answered, too.
LAST_CALL_S = 0.25


class SplitReplica:
    """Serves until Ray stops it. Constructing it loads, times and starts everything."""

    async def __init__(self, options: RayOptions) -> None:  # type: ignore[misc]  # Ray waits
        threadpool_limits(1, "blas")  # the cores are the engine's
        self._options = options
        self._device = pick_device(options.device)
        check_precision(options.precision, self._device)
        security = Security(tokens=Path(options.tokens) if options.tokens else None, insecure=True)
        self._backend = assemble(options.of_worker(), [self._device], security.read().access())
        self._backend.engine.start()
        for folder in options.bundles:
            load = functools.partial(self._load, Path(folder))
            model = await self._backend.engine.load_model(load)
            self._backend.models[model.bundle.digest] = model
        self._backend.service.open = True
        self._calls: set[RayCall] = set()
        self._draining = False
        self._asked_s = time.monotonic()
        self._tasks = [  # Ray ends the process with them
            asyncio.create_task(self._drain_when_stopped()),
            asyncio.create_task(measure_again(self._backend.models, self._backend.engine)),
        ]

    def _load(self, folder: Path, number: int) -> LoadedModel:
        engine = self._backend.engine

        def progress(line: str) -> None:
            engine.came_further(number, line)
            log.info(line)

        return load_served_model(
            folder,
            self._device,
            self._options.of_worker(),
            profiles={},
            progress=progress,
            check=lambda: engine.came_further(number),
        )

    # What is called over the wire. ----------------------------------------------------------

    async def Describe(self, data: bytes, grpc_context: CallInfo) -> RawMessage:
        """What is served, and how busy this replica is."""
        call = RayCall(one(data), grpc_context)
        return RawMessage((await self._backend.service.describe(None, call)).SerializeToString())

    async def Fetch(self, data: bytes, grpc_context: CallInfo) -> AsyncIterator[RawMessage]:
        """A file of a bundle in chunks."""
        call = RayCall(one(data), grpc_context)
        async for chunk in call.answers(self._backend.service.fetch(None, call)):
            yield chunk

    async def Infer(self, messages: Any, grpc_context: CallInfo) -> AsyncIterator[RawMessage]:
        """A stream of frames, until the client ends it, it is old, or the replica stops."""
        call = RayCall(messages, grpc_context)
        self._calls.add(call)
        try:
            async for answer in call.answers(self._backend.service.infer(None, call)):
                yield answer
        finally:
            self._calls.discard(call)

    async def Check(self, data: bytes) -> RawMessage:
        """gRPC's health service, for balancers in front of the proxy."""
        answer = health_pb2.HealthCheckResponse
        status = answer.SERVING if self._backend.engine.can_compute else answer.NOT_SERVING
        return RawMessage(answer(status=status).SerializeToString())

    # What Ray asks. -------------------------------------------------------------------------

    async def check_health(self) -> None:
        """Ray has this replica serve. It raises, and is replaced, where its device is lost to it.

        A kernel that hangs on a CPU costs no replica.
        """
        self._asked_s = time.monotonic()
        if why := self._backend.engine.lost:
            raise RuntimeError(f"the device is lost: {why}")

    async def record_autoscaling_stats(self) -> dict[str, float]:
        """What the policy goes by: the longest wait of any model's frame, and the busy share."""
        loads = [self._backend.engine.load(model) for model in self._backend.models.values()]
        return {
            WAIT: max(load.queue_ms for load in loads),
            UTILISATION: max(load.utilisation for load in loads),
        }

    # How a stream ends. ---------------------------------------------------------------------

    async def _drain_when_stopped(self) -> None:
        while not self._draining:
            await asyncio.sleep(HEALTH_S / 4)
            if time.monotonic() - self._asked_s > SILENT_S:
                try:
                    self._draining = await asyncio.to_thread(_stopping)
                except Exception as error:  # noqa: BLE001 - whatever Ray raises, frames go on
                    log.info("Ray's controller does not answer: %r", error)
                    await asyncio.sleep(HEALTH_S)
        await asyncio.gather(
            self._backend.service.drain(self._options.grace_s, reopen=True),
            asyncio.sleep(LAST_CALL_S),
        )
        for call in self._calls:
            call.close()


def _stopping() -> bool:
    """Whether replicas are being stopped: one that also is not asked for its health is among them.

    Silence alone may as well be a controller that is away, during which frames are to go on.
    """
    application = serve.status().applications.get(APP)
    deployment = application.deployments.get(DEPLOYMENT) if application is not None else None
    return deployment is None or bool(deployment.replica_states.get("STOPPING"))
