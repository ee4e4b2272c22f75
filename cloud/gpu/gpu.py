"""What the worker needs of a GPU, and nothing more: small enough for a stand-in on a CPU.

Whatever there is beyond these calls is torch's own operations on tensors that lie on `device`.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from typing import Any, Protocol

import numpy as np
import torch
from splitpoint.codec import Array

# Held by whoever captures a graph, runs a segment operation by operation, or gives memory back.
# torch allows one capture at a time a process, and its flags for TF32 are the process's: with
# several GPUs, and an engine for each, nobody is to launch under another one's.
LAUNCHING = threading.RLock()


class Mark(Protocol):
    """A mark in a stream."""

    def record(self, stream: Any) -> None:
        """Is reached once everything is done that `stream` was given until now."""
        ...

    def synchronize(self) -> None:
        """Returns when it is reached, and lets other threads run; raises what failed before it."""
        ...


class Stream(Protocol):
    """Work that is done in its order."""

    def wait_event(self, event: Any) -> None:
        """What is started from now on waits for `event`; the caller does not."""
        ...


class Graph(Protocol):
    """Launches that are made again together, with the same memory."""

    def capture_begin(self, pool: Any = None, capture_error_mode: str = "global") -> None:
        """What is started on the current stream is noted from now on, and not done."""
        ...

    def capture_end(self) -> None:
        """It is ready, and the stream does again what it is given. Raises if it was broken."""
        ...

    def replay(self) -> None:
        """Starts all of it on the current stream."""
        ...


class Gpu(Protocol):
    """One GPU. Every call but `Mark.synchronize` comes back before the device has done it."""

    device: torch.device

    def on(self, stream: Stream) -> AbstractContextManager[None]:
        """Within it, what this thread starts on the device goes to `stream`."""
        ...

    def new_stream(self) -> Stream:
        """One that waits for no other."""
        ...

    def new_event(self) -> Mark:
        """One that lies in no stream yet."""
        ...

    def new_graph(self) -> Graph:
        """An empty one."""
        ...

    def new_pool(self) -> object:
        """A handle of memory that graphs share which are never replayed at the same time."""
        ...

    def end_allocating(self, pool: Any) -> None:
        """No capture takes memory from `pool`, should the allocator think that one does."""
        ...

    def pinned(self, array: Array) -> torch.Tensor:
        """A copy in memory of the host that the device reads by itself."""
        ...

    def copied(self, pinned: torch.Tensor) -> torch.Tensor:
        """A copy on the device, by the current stream."""
        ...

    def used_on(self, tensor: torch.Tensor, stream: Stream) -> None:
        """Its memory, which another stream was given, is not given away before `stream` is done."""
        ...

    def free_unused(self) -> None:
        """Gives memory back to the driver that torch keeps and nobody uses."""
        ...


class TorchGpu:
    """A `Gpu` of `torch.cuda`."""

    def __init__(self, device: torch.device) -> None:
        self.device = device

    @contextmanager
    def on(self, stream: Stream) -> Iterator[None]:
        """See `Gpu`. Of two GPUs, the stream alone does not say which one is meant."""
        with torch.cuda.device(self.device), torch.cuda.stream(stream):  # type: ignore[arg-type]
            yield

    def new_stream(self) -> Stream:
        """See `Gpu`."""
        return torch.cuda.Stream(self.device)  # type: ignore[no-untyped-call]

    def new_event(self) -> Mark:
        """See `Gpu`. Who waits for it sleeps: a core that spins is one that decodes nothing."""
        return torch.cuda.Event(blocking=True)  # type: ignore[no-untyped-call]

    def new_graph(self) -> Graph:
        """See `Gpu`."""
        return torch.cuda.CUDAGraph()

    def new_pool(self) -> object:
        """See `Gpu`."""
        return torch.cuda.graph_pool_handle()

    def end_allocating(self, pool: Any) -> None:
        """See `Gpu`. No public name of torch's does it."""
        with suppress(RuntimeError):  # it has ended: from 2.13 on, `capture_end` sees to that
            torch._C._cuda_endAllocateToPool(self.device.index or 0, pool)

    def pinned(self, array: Array) -> torch.Tensor:
        """See `Gpu`."""
        return filled(array, pin_memory=True)

    def copied(self, pinned: torch.Tensor) -> torch.Tensor:
        """See `Gpu`."""
        return pinned.to(self.device, non_blocking=True)

    def used_on(self, tensor: torch.Tensor, stream: Stream) -> None:
        """See `Gpu`."""
        tensor.record_stream(stream)  # type: ignore[arg-type]

    def free_unused(self) -> None:
        """See `Gpu`."""
        torch.cuda.empty_cache()


def filled(array: Array, *, pin_memory: bool = False) -> torch.Tensor:
    """A tensor of its own with the array's content, on the CPU."""
    empty = torch.from_numpy(np.empty(0, array.dtype))
    found = torch.empty(array.shape, dtype=empty.dtype, pin_memory=pin_memory)
    found.numpy()[...] = array
    return found
