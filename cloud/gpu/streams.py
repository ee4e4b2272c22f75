"""A chain's own streams on its GPU: one that computes, one that copies; and what is captured there.

Everything that a chain does on the device, it does on the first. What torch does on the default
stream does not wait for it, nor the other way round.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress

import torch
from splitpoint.codec import Array
from splitpoint.partition.run.chain import State

from .gpu import LAUNCHING, Gpu, Graph


class GpuStreams:
    """Use it from one thread. `gpu` is the device itself, or what plays one."""

    def __init__(self, gpu: Gpu) -> None:
        self.gpu = gpu
        self._computing, self._copying = gpu.new_stream(), gpu.new_stream()

    @contextmanager
    def computing(self) -> Iterator[None]:
        """Within it, operations on tensors are started on the stream that computes."""
        with torch.inference_mode(), self.gpu.on(self._computing):
            yield

    def carry(self, arrays: Sequence[Array]) -> list[torch.Tensor]:
        """Copies on the device, through page-locked memory: they run beside kernels.

        What is started after this on the stream that computes waits for them.
        """
        with torch.inference_mode(), self.gpu.on(self._copying):
            carried = [self.gpu.copied(self.gpu.pinned(array)) for array in arrays]
            copied = self.gpu.new_event()
            copied.record(self._copying)
        self._computing.wait_event(copied)
        for tensor in carried:
            self.gpu.used_on(tensor, self._computing)  # or its memory may go to the next copy
        return carried

    def wait(self) -> None:
        """Returns when all that was started to compute is done; raises what went wrong in it.

        It waits for this stream, not for the device: that would break another thread's capture,
        and wait for the other models, too.
        """
        done = self.gpu.new_event()
        done.record(self._computing)
        done.synchronize()

    def captured(self, run: Callable[[], State], pool: object) -> tuple[Graph, State]:
        """A graph of what `run` starts, and the tensors that each replay writes.

        Other threads may go on, as far as they do not launch under `LAUNCHING`. Raises what `run`
        raises, and not what becomes of a capture that was broken by it; `pool` is of no use then
        for another one. Whatever happens, the thread is on the stream again on which it was.
        """
        graph = self.gpu.new_graph()
        with LAUNCHING, _without_collection(), self.computing():
            # `torch.cuda.graph` would capture on a stream that all devices of a process share, and
            # leave the thread on it where `capture_end` raises.
            try:
                graph.capture_begin(pool, "thread_local")
                try:
                    outputs = run()
                except BaseException:
                    with suppress(RuntimeError):  # it is broken, which is no news
                        graph.capture_end()
                    raise
                graph.capture_end()
            except BaseException:
                # Or torch frees nothing any more that two streams have used, as each frame's input.
                self.gpu.end_allocating(pool)
                raise
        return graph, outputs


@contextmanager
def _without_collection() -> Iterator[None]:
    """A graph that is collected while another one is captured breaks that."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
