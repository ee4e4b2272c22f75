"""gRPC's standard health service, for everybody: it asks for no token.

The one that comes with gRPC keeps as many watchers as come for as long as they like, and waits for
each to take its message before the next one is told, or the worker may go on.
"""

from __future__ import annotations

import asyncio
import time
from typing import Any

import grpc
from grpc_health.v1 import health
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from splitpoint.proto.limits import SERVICE

from ..access.rate_limit import RateLimit
from ..access.token_bucket import Clock
from ..access.waiting_room import Displaced, WaitingRoom
from .abort import abort
from .mask_errors import mask_errors
from .unary import Answering, asker, read_request

# A request that is being read may grow to gRPC's limit of a message, and here anybody may ask.
MOST_ASKING = 8
MOST_WATCHING = 128
# From one address or IPv6 network. One that is turned away unread costs a quarter of one that is
# answered.
WATCHES_PER_S = 20.0
NAMES = ("", SERVICE)


class Health:
    """NOT_SERVING until it is told otherwise, and for good once it was stopped."""

    def __init__(self, clock: Clock = time.monotonic) -> None:
        self._status = HealthCheckResponse.NOT_SERVING
        self._stopped, self._changed = False, asyncio.Event()
        self.asking, self.watching = WaitingRoom(MOST_ASKING), WaitingRoom(MOST_WATCHING)
        self._answering, self._rate_limit = Answering(), RateLimit(WATCHES_PER_S, clock)

    def handler(self) -> grpc.GenericRpcHandler:
        """The methods as gRPC wants them."""
        serialize = HealthCheckResponse.SerializeToString
        return grpc.method_handlers_generic_handler(
            health.SERVICE_NAME,
            {
                "Check": grpc.stream_stream_rpc_method_handler(
                    self._answering.method(self.check), response_serializer=serialize
                ),
                "Watch": grpc.stream_stream_rpc_method_handler(
                    self.watch, response_serializer=serialize
                ),
            },
        )

    def set(self, *, serving: bool) -> None:
        """Tells whoever watches."""
        if not self._stopped:
            self._tell(HealthCheckResponse.SERVING if serving else HealthCheckResponse.NOT_SERVING)

    def stop(self) -> None:
        """NOT_SERVING from now on."""
        self._stopped = True
        self._tell(HealthCheckResponse.NOT_SERVING)

    def _tell(self, status: HealthCheckResponse.ServingStatus) -> None:
        self._status = status
        self._changed.set()
        self._changed = asyncio.Event()

    @mask_errors
    async def check(self, _requests: Any, context: Any) -> HealthCheckResponse:
        """The status now."""
        request = await self._request(context)
        if request.service not in NAMES:
            await abort(context, grpc.StatusCode.NOT_FOUND, "there is no such service")
        return HealthCheckResponse(status=self._status)

    @mask_errors
    async def watch(self, _requests: Any, context: Any) -> None:
        """The status now, and again with each change."""
        who = asker(context)
        if not self._rate_limit.take(who):
            words = f"{who} may begin to watch {WATCHES_PER_S:g} times a second; watch on, or check"
            await abort(context, grpc.StatusCode.RESOURCE_EXHAUSTED, words)
        request = await self._request(context)
        try:
            await self.watching.stay(who, self._follow(request.service, context))
        except Displaced:
            await abort(context, grpc.StatusCode.RESOURCE_EXHAUSTED, "others want to watch")

    async def _request(self, context: Any) -> HealthCheckRequest:
        return await read_request(context, HealthCheckRequest, self.asking, asker(context))

    async def _follow(self, service: str, context: Any) -> None:
        while True:
            changed = self._changed
            status = self._status if service in NAMES else HealthCheckResponse.SERVICE_UNKNOWN
            await context.write(HealthCheckResponse(status=status))
            await changed.wait()
