"""A segment in onnxruntime, the edge's default runtime, in float32 or INT8."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from pathlib import Path

import onnxruntime
from splitpoint.codec import Array

from ..errors import BundleError, SegmentError
from .onnx_providers import CPU_ONLY, with_options


@functools.cache
def _share_memory() -> None:
    """Lets all sessions take their activations from one pool, which grows by what is asked for.

    Segments run one after the other; with a pool for each, every one keeps its own peak.
    """
    pool = onnxruntime.OrtMemoryInfo(
        "Cpu", onnxruntime.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, onnxruntime.OrtMemType.DEFAULT
    )
    exactly = onnxruntime.OrtArenaCfg({"arena_extend_strategy": 1})
    onnxruntime.create_and_register_allocator(pool, exactly)


class OnnxSegment:
    """Maps tensors by name to the tensors that the segment adds.

    `threads` is onnxruntime's intra-op thread count, 0 for one a core. With `profile_to`, a path
    without suffix, onnxruntime records the time of every kernel. `providers` are onnxruntime's
    names, the first choice first. Raises `BundleError` when the file is no model that onnxruntime
    can load.
    """

    def __init__(
        self,
        path: Path,
        threads: int = 0,
        profile_to: Path | None = None,
        providers: Sequence[str] = CPU_ONLY,
    ) -> None:
        options = onnxruntime.SessionOptions()
        if profile_to is not None:
            options.enable_profiling = True
            options.profile_file_prefix = str(profile_to)
        options.log_severity_level = 4  # what fails is raised, and clients decide what they send
        options.intra_op_num_threads = threads
        # Idle threads that spin take the cores from the network stack, and the battery's charge.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        _share_memory()
        options.add_session_config_entry("session.use_env_allocators", "1")
        options.enable_mem_pattern = False  # a second copy of what the arena holds already
        try:
            self._session = onnxruntime.InferenceSession(
                str(path), options, providers=with_options(providers, path.parent)
            )
        except Exception as error:
            reason = str(error).splitlines()[0][:300] if str(error) else type(error).__name__
            raise BundleError(
                f"onnxruntime cannot load {path} ({reason})", "compile the bundle again"
            ) from error
        self.providers = tuple(self._session.get_providers())  # those that could be set up
        self.inputs = [value.name for value in self._session.get_inputs()]
        self.outputs = [value.name for value in self._session.get_outputs()]

    def __call__(self, values: Mapping[str, Array]) -> dict[str, Array]:
        """The segment's own outputs; what passes through is the caller's to keep.

        Raises `SegmentError` when onnxruntime fails (it is out of memory, say).
        """
        try:
            results = self._session.run(self.outputs, {name: values[name] for name in self.inputs})
        except Exception as error:
            reason = str(error).splitlines()[0][:300] if str(error) else type(error).__name__
            raise SegmentError(f"onnxruntime failed ({reason})") from error
        return dict(zip(self.outputs, results, strict=True))

    def end_profiling(self) -> Path:
        """The file with the recorded kernels, in the trace-event format."""
        return Path(self._session.end_profiling())
