"""Several fake workers, and what may become of the link to one for as long as a block lasts."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from splitpoint.edge import FakeWorker
from splitpoint.edge.transport.fake_call import FakeTransport


def connect_to(*workers: FakeWorker) -> Callable[[str, int], FakeTransport]:
    """For agents that may use several."""
    by_address = {worker.address: worker for worker in workers}
    return lambda server, nbytes: by_address[server].connect(server, nbytes)


@contextmanager
def stalled(worker: FakeWorker) -> Iterator[None]:
    """Nothing moves within the block, and everything after it."""
    worker.link.stall()
    try:
        yield
    finally:
        worker.link.go_on()


@contextmanager
def gone(worker: FakeWorker) -> Iterator[None]:
    """Connections are reset, and none accepted within the block."""
    worker.cut()
    try:
        yield
    finally:
        worker.mend()


@contextmanager
def swallowed(worker: FakeWorker) -> Iterator[None]:
    """All bytes vanish within the block; then connections are reset."""
    with stalled(worker):
        try:
            yield
        finally:
            worker.cut()
            worker.mend()
