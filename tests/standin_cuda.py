"""CUDA, played on the CPU: what a test needs to see that code would be wrong, or lost, on a GPU.

It keeps CUDA's rules for streams, events and graphs, and has those who break them bear it. Kernels
are torch's operations on the CPU, seen through a dispatch mode.

- A launch comes back at once; the device takes `launch_s` for it, which only an event shows.
- An operation goes to the current stream of the device that was entered. Only what goes to a
  stream that is capturing gets into its graph, and is not computed then.
- A replay reads and writes the memory that was there at the capture, and nothing else.
- One that reads what another stream writes, without having waited for it, is noted in `races`.
- A synchronisation breaks a capture, and in the mode "global" so does another thread's allocation.
- One whose end fails goes on for the allocator, as before torch 2.13: until it is ended there, the
  cache is not emptied, and its pool is lost to captures for ever.
- An index out of range is an assertion in a kernel, after which nothing works any more.

Longer than others: streams, events and graphs keep no rule without each other.
"""

from __future__ import annotations

import threading
import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import numpy as np
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map

SYNCHRONISE = {
    "aten::item", "aten::_local_scalar_dense", "aten::nonzero", "aten::is_nonzero", "aten::equal",
}  # fmt: skip
CAPTURING = "CUDA error: operation not permitted when stream is capturing"
INVALIDATED = "CUDA error: operation failed due to a previous error during capture"
ILLEGAL_ADDRESS = 700, "CUDA error: an illegal memory access was encountered"
ASSERTED = 710, "CUDA error: device-side assert triggered"


class Stream:
    """Work in its order. `seen` says how far other streams had come when it waited for them."""

    def __init__(self, cuda: StandInCuda, device: torch.device | None = None) -> None:
        self.cuda = cuda
        self.number = cuda.number(device)
        self.capturing: Graph | None = None
        self.done_s, self.launched = 0.0, 0
        self.seen: dict[Stream, int] = {}

    def launch(self) -> None:
        self.cuda.check()
        for stream, count in self.cuda.seen_by_host.items():
            self.seen[stream] = max(self.seen.get(stream, 0), count)
        self.launched += 1
        self.done_s = max(self.done_s, time.perf_counter()) + self.cuda.launch_s

    def wait_event(self, event: Event) -> None:
        self.done_s = max(self.done_s, event.done_s)
        for stream, count in event.seen.items():
            self.seen[stream] = max(self.seen.get(stream, 0), count)

    def wait_stream(self, other: Stream) -> None:
        event = Event(self.cuda)
        event.record(other)
        self.wait_event(event)

    def has_waited_for(self, writer: Stream, count: int) -> bool:
        return writer is self or self.seen.get(writer, 0) >= count


class Event:
    def __init__(self, cuda: StandInCuda) -> None:
        self.cuda, self.done_s = cuda, 0.0
        self.seen: dict[Stream, int] = {}

    def record(self, stream: Stream) -> None:
        self.done_s = stream.done_s
        self.seen = stream.seen | {stream: stream.launched}

    def synchronize(self) -> None:
        self.cuda.note("synchronize")
        self.cuda.refuse_while_capturing()
        while self.cuda.hangs.is_set():
            time.sleep(0.005)
        time.sleep(max(self.done_s - time.perf_counter(), 0))
        self.cuda.check()
        for stream, count in self.seen.items():
            have = self.cuda.seen_by_host.get(stream, 0)
            self.cuda.seen_by_host[stream] = max(have, count)


class Graph:
    """What was captured: operations with the very tensors that they were given."""

    def __init__(self, cuda: StandInCuda) -> None:
        self.cuda = cuda
        self.operations: list[tuple[Any, Any, Any, list[torch.Tensor]]] = []
        self.own: set[int] = set()  # tensors that were made in it
        self.kept: list[torch.Tensor] = []
        self.mode, self.thread, self.is_broken = "", 0, False
        self.pool: object = None
        self.stream: Stream | None = None

    def capture_begin(
        self, pool: object = None, capture_error_mode: str = "global", **_: Any
    ) -> None:
        self.cuda.note("capture")
        if self.cuda.captures:
            raise RuntimeError("CUDA error: another capture is underway")
        if pool in self.cuda.ended_badly:
            raise RuntimeError("beginAllocateToPool: already recording to mempool_id")
        self.stream, self.pool = self.cuda.current_stream(), pool
        self.mode, self.thread = capture_error_mode, threading.get_ident()
        self.stream.capturing = self
        self.cuda.captures.append(self)
        self.cuda.on_capture()

    def capture_end(self) -> None:
        assert self.stream is not None
        self.cuda.captures.remove(self)
        self.stream.capturing = None
        if self.is_broken:
            self.cuda.underway.append(self.pool)
            self.cuda.ended_badly.append(self.pool)
            raise RuntimeError(INVALIDATED)

    def record(self, function: Any, args: Any, kwargs: Any) -> Any:
        """The outputs, without what a kernel would put there."""
        if function._schema.name in SYNCHRONISE:
            self.is_broken = True
            raise RuntimeError(CAPTURING)
        given = [value for value in tree_flatten((args, kwargs))[0] if torch.is_tensor(value)]
        result = function(*args, **kwargs)
        made = [value for value in tree_flatten(result)[0] if torch.is_tensor(value)]
        self.cuda.allocate(made)
        storages = {_storage(value) for value in given}
        for value in made:
            if _storage(value) not in storages:
                self.own.add(_storage(value))
                value.fill_(float("nan") if value.is_floating_point() else 0)
        self.kept += made
        args, kwargs = tree_map(self._held, (args, kwargs))
        self.operations.append((function, args, kwargs, made))
        return result

    def _held(self, value: Any) -> Any:
        """What came from outside is nobody's reason to keep its memory."""
        if torch.is_tensor(value) and _storage(value) not in self.own:
            return weakref.ref(value)
        return value

    def replay(self) -> None:
        self.cuda.note("replay")
        self.cuda.check()
        stream = self.cuda.current()
        stream.launch()
        with torch.inference_mode():
            for function, args, kwargs, made in self.operations:
                args, kwargs = tree_map(self.cuda.alive, (args, kwargs))
                result = self.cuda.computed(function, args, kwargs)
                found = [value for value in tree_flatten(result)[0] if torch.is_tensor(value)]
                for target, value in zip(made, found, strict=True):
                    if target.data_ptr() != value.data_ptr():
                        target.copy_(value)
                self.cuda.written(made, stream)


class _Launches(TorchDispatchMode):
    """Every operation is a kernel."""

    def __init__(self, cuda: StandInCuda) -> None:
        super().__init__()
        self._cuda = cuda

    def __torch_dispatch__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        return self._cuda.launched(function, args, kwargs or {})


class StandInCuda:
    """All GPUs of a process, by the names of `torch.cuda`; and what a test does to them."""

    def __init__(self) -> None:
        self.launch_s = 0.0
        self.most_bytes = 1 << 62  # of one tensor: more is out of memory
        self.hangs = threading.Event()
        self.broken: tuple[int, str] | None = None  # for good: what every call says from now on
        self.on_capture: Callable[[], None] = lambda: None
        self.calls: list[tuple[str, str]] = []  # (thread, what)
        self.races: list[str] = []
        self.captures: list[Graph] = []
        self.graphs: list[Graph] = []
        self.pools: list[object] = []
        self.underway: list[object] = []  # pools that captures go on in, as the allocator has it
        self.ended_badly: list[object] = []
        self.seen_by_host: dict[Stream, int] = {}
        self._writers: dict[int, tuple[weakref.ref[torch.Tensor], Stream, int]] = {}
        self._local = threading.local()
        self._defaults: dict[int, Stream] = {}

    def gpu(self, number: int = 0) -> StandInGpu:
        """One of its GPUs, as the worker asks for it."""
        return StandInGpu(self, number)

    # By the names of torch.cuda. ------------------------------------------------------------

    def new_graph(self) -> Graph:
        self.graphs.append(Graph(self))
        return self.graphs[-1]

    def new_pool(self) -> object:
        self.pools.append(object())
        return self.pools[-1]

    def empty_cache(self) -> None:
        self.note("empty_cache")
        if self.underway:
            raise RuntimeError("captures_underway.empty() INTERNAL ASSERT FAILED")
        for graph in self.captures:
            graph.is_broken = True
            raise RuntimeError(CAPTURING)

    def end_allocating(self, pool: object) -> None:
        if pool not in self.underway:
            raise RuntimeError("endAllocatePool: not currently recording to mempool_id")
        self.underway.remove(pool)

    @contextmanager
    def device(self, device: torch.device) -> Iterator[None]:
        before = self.home, self.current_device
        self._local.home = self._local.device = self.number(device)
        try:
            with self._seen():
                yield
        finally:
            self._local.home, self._local.device = before

    @contextmanager
    def stream(self, stream: Stream) -> Iterator[None]:
        current = self._current
        before, device = current.get(stream.number), self.current_device
        current[stream.number], self._local.device = stream, stream.number
        try:
            with self._seen():
                yield
        finally:
            self._local.device = device
            if before is None:
                del current[stream.number]
            else:
                current[stream.number] = before

    def current_stream(self, device: torch.device | None = None) -> Stream:
        number = self.number(device)
        default = self._defaults.setdefault(number, Stream(self, torch.device("cpu", number)))
        return self._current.get(number, default)

    # How it works. --------------------------------------------------------------------------

    @property
    def home(self) -> int:
        """Where the tensors lie of whoever computes now: they cannot tell it themselves."""
        return getattr(self._local, "home", 0)

    @property
    def current_device(self) -> int:
        return getattr(self._local, "device", 0)

    @property
    def _current(self) -> dict[int, Stream]:
        if not hasattr(self._local, "streams"):
            self._local.streams = {}
        found: dict[int, Stream] = self._local.streams
        return found

    def number(self, device: torch.device | None) -> int:
        return self.current_device if device is None else device.index or 0

    def current(self) -> Stream:
        """Where an operation goes now."""
        return self.current_stream(torch.device("cpu", self.home))

    @contextmanager
    def _seen(self) -> Iterator[None]:
        if getattr(self._local, "is_seen", False):
            yield
            return
        self._local.is_seen = True
        try:
            with _Launches(self):
                yield
        finally:
            self._local.is_seen = False

    def launched(self, function: Any, args: Any, kwargs: Any) -> Any:
        stream = self.current()
        if stream.capturing is not None:
            return stream.capturing.record(function, args, kwargs)
        if function._schema.name in SYNCHRONISE:
            self.refuse_while_capturing()
        stream.launch()
        given = [value for value in tree_flatten((args, kwargs))[0] if torch.is_tensor(value)]
        for value in given:
            self._check_order(value, stream, function)
        result = self.computed(function, args, kwargs)
        made = [value for value in tree_flatten(result)[0] if torch.is_tensor(value)]
        self.allocate(made)
        self.written(made, stream)
        return result

    def computed(self, function: Any, args: Any, kwargs: Any) -> Any:
        try:
            return function(*args, **kwargs)
        except (IndexError, RuntimeError) as error:
            if "out of range" in str(error) or "out of bounds" in str(error):
                self.broken = ASSERTED
                self.check()
            raise

    def _check_order(self, value: torch.Tensor, stream: Stream, function: Any) -> None:
        kept, writer, count = self._writers.get(_storage(value), (None, stream, 0))
        if kept is not None and kept() is not None and not stream.has_waited_for(writer, count):
            self.races.append(f"{function} reads what another stream writes")

    def written(self, tensors: Sequence[torch.Tensor], stream: Stream) -> None:
        for value in tensors:
            self._writers[_storage(value)] = weakref.ref(value), stream, stream.launched

    def allocate(self, tensors: Sequence[torch.Tensor]) -> None:
        """It is not allowed beside a capture in the mode "global", and there is an end to it."""
        for graph in self.captures:
            if graph.mode == "global" and graph.thread != threading.get_ident():
                graph.is_broken = True
                raise RuntimeError(CAPTURING)
        if any(value.numel() * value.element_size() > self.most_bytes for value in tensors):
            for graph in self.captures:
                graph.is_broken |= graph.thread == threading.get_ident()
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate too much")

    def refuse_while_capturing(self) -> None:
        for graph in self.captures:
            if graph.thread == threading.get_ident() or graph.mode == "global":
                graph.is_broken = True
                raise RuntimeError(CAPTURING)

    def check(self) -> None:
        if self.broken is not None:
            raise accelerator_error(*self.broken)

    def alive(self, value: Any) -> Any:
        """Memory that was freed belongs to others by now."""
        if not isinstance(value, weakref.ref):
            return value
        found = value()
        assert found is not None, "a replay reads memory that was freed"
        return found

    def note(self, what: str) -> None:
        self.calls.append((threading.current_thread().name, what))


class StandInGpu:
    """See `splitpoint.cloud.gpu.gpu.Gpu`. Its tensors lie on the CPU."""

    def __init__(self, cuda: StandInCuda, number: int) -> None:
        self.cuda, self._number = cuda, torch.device("cpu", number)
        self.device = torch.device("cpu")

    @contextmanager
    def on(self, stream: Stream) -> Iterator[None]:
        with self.cuda.device(self._number), self.cuda.stream(stream):
            yield

    def new_stream(self) -> Stream:
        return Stream(self.cuda, self._number)

    def new_event(self) -> Event:
        return Event(self.cuda)

    def new_graph(self) -> Graph:
        return self.cuda.new_graph()

    def new_pool(self) -> object:
        return self.cuda.new_pool()

    def end_allocating(self, pool: object) -> None:
        with suppress(RuntimeError):
            self.cuda.end_allocating(pool)

    def pinned(self, array: np.ndarray) -> torch.Tensor:
        self.cuda.note("pinned")
        self.cuda.allocate([])
        return torch.from_numpy(np.array(array))

    def copied(self, pinned: torch.Tensor) -> torch.Tensor:
        self.cuda.note("copy")
        return pinned.clone()

    def used_on(self, tensor: torch.Tensor, stream: Stream) -> None:
        self.cuda.note("used_on")

    def free_unused(self) -> None:
        self.cuda.empty_cache()


def accelerator_error(code: int, words: str) -> Exception:
    """As torch raises it, with CUDA's number of the error."""
    error = torch.AcceleratorError(words)
    error.error_code = code  # type: ignore[attr-defined]
    return error


def _storage(value: torch.Tensor) -> int:
    return value.untyped_storage().data_ptr()
