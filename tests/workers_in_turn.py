"""One address where another worker may stand later, as after a restart with a newer model."""

from __future__ import annotations

from splitpoint.edge import FakeWorker
from splitpoint.edge.transport.transport import Call, Transport


class WorkersInTurn:
    """Calls whichever `worker` is there then."""

    def __init__(self, worker: FakeWorker) -> None:
        self.worker = worker

    def connect(self, server: str, max_message_bytes: int) -> Transport:
        """For `EdgeAgent(connect=…)`."""
        return _InTurn(self)

    def replace(self, worker: FakeWorker) -> None:
        """The one before ends, and this one starts."""
        before, self.worker = self.worker, worker
        before.cut()


class _InTurn:
    def __init__(self, turns: WorkersInTurn) -> None:
        self._turns = turns
        self._transports: list[Transport] = []

    def open(
        self, method: str, request: bytes | None = None, timeout_s: float | None = None
    ) -> Call:
        worker = self._turns.worker
        self._transports.append(worker.connect(worker.address, 0))
        return self._transports[-1].open(method, request, timeout_s)

    async def close(self, grace_s: float | None = None) -> None:
        for transport in self._transports:
            await transport.close(grace_s)
