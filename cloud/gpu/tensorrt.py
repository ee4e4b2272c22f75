"""A segment in TensorRT, through onnxruntime: an engine is built on this GPU, in minutes, and kept.

It has been run on no GPU yet; tests run it on onnxruntime's CPU. What it relies on, by the sources
of onnxruntime's TensorRT execution provider (1.20 to 1.22):

- on a stream of the caller's it does not synchronise behind an engine, unless it has split the
  graph: what TensorRT does not take whole is refused, as it could not be captured;
- the end of a run synchronises, unless the run says otherwise;
- engines are found by names of graphs, not by weights or shapes: each segment has its own folder;
- TF32 is always allowed, and no option forbids it: float32 is left to others.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import onnxruntime
import torch
from splitpoint.codec import TensorSpec

from ..errors import NotCompiled
from ..options import BF16, FP16, TF32
from .compiler import Compiled, SegmentSource
from .device_errors import is_device_lost, is_out_of_memory

PROVIDER = "TensorrtExecutionProvider"
_FORMATS: dict[str, dict[str, Any]] = {
    TF32: {},
    BF16: {"trt_bf16_enable": True},
    FP16: {"trt_fp16_enable": True},
}
TUNED_FOR_SAMPLES = 8  # an engine is for any number, and best at one: some frames, no full batch


def by_tensorrt(source: SegmentSource, folder: Path, most_samples: int) -> Compiled:
    """Builds an engine for 1 to `most_samples` when it is first called; it stays below `folder`.

    Each number of samples has a session of its own, since TensorRT says that a captured graph needs
    an execution context of its own ("CUDA Graphs" in its developer guide): so each has the weights
    in memory, too. An engine of an earlier start that fails is built anew, once. Raises
    `NotCompiled` for float32, and where the module alone bounds indices.
    """
    if source.form.precision not in _FORMATS:
        raise NotCompiled("TensorRT computes in TF32 where it should in float32")
    if source.is_bounded:
        raise NotCompiled("it would read indices that only torch's form keeps in range")
    own = folder / f"{source.name}-{source.form.precision}"
    is_kept = own.exists()  # what is in it comes from an earlier start
    sessions: dict[int, onnxruntime.InferenceSession] = {}

    def compute(values: Sequence[torch.Tensor]) -> Sequence[torch.Tensor]:
        samples = source.samples(values[0])
        try:
            if samples not in sessions:
                sessions[samples] = _session(source, own, most_samples)
            return _run(sessions[samples], source, samples, values)
        except Exception as error:
            # It may be an engine that was cut off, or of another version of TensorRT.
            if not is_out_of_memory(error):
                shutil.rmtree(own, ignore_errors=True)
            raise

    def run(*values: torch.Tensor) -> Sequence[torch.Tensor]:
        nonlocal is_kept
        try:
            found = compute(values)
        except Exception as error:
            if not is_kept or is_out_of_memory(error) or is_device_lost(error):
                raise
            sessions.clear()
        else:
            is_kept = False
            return found
        is_kept = False  # which alone is no reason to be without TensorRT
        return compute(values)

    return run


def _session(
    source: SegmentSource, folder: Path, most_samples: int
) -> onnxruntime.InferenceSession:
    folder.mkdir(parents=True, exist_ok=True)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # what fails is raised
    options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
    given = {
        "device_id": source.device.index or 0,
        "user_compute_stream": str(torch.cuda.current_stream(source.device).cuda_stream),
        "trt_engine_cache_enable": True,
        "trt_engine_cache_path": str(folder),
        "trt_timing_cache_enable": True,
        "trt_timing_cache_path": str(folder),
        **_FORMATS[source.form.precision],
    }
    if most_samples > 1:
        tuned_for = min(TUNED_FOR_SAMPLES, most_samples)
        for which, samples in (("min", 1), ("opt", tuned_for), ("max", most_samples)):
            given[f"trt_profile_{which}_shapes"] = _shapes(source.inputs, samples)
    return onnxruntime.InferenceSession(
        str(source.onnx), options, providers=[(PROVIDER, given)], enable_fallback=0
    )


def _run(
    session: onnxruntime.InferenceSession,
    source: SegmentSource,
    samples: int,
    values: Sequence[torch.Tensor],
) -> Sequence[torch.Tensor]:
    """Into tensors of torch's, which are those of a graph while one is captured."""
    given = [value.contiguous() for value in values]
    outputs = [
        torch.empty(spec.shape_at(samples), dtype=getattr(torch, spec.dtype), device=source.device)
        for spec in source.outputs
    ]
    binding = session.io_binding()
    place = source.device.type, source.device.index or 0
    for specs, tensors, bind in (
        (source.inputs, given, binding.bind_input),
        (source.outputs, outputs, binding.bind_output),
    ):
        for spec, tensor in zip(specs, tensors, strict=True):
            bind(spec.name, *place, spec.numpy_dtype, tuple(tensor.shape), tensor.data_ptr())
    options = onnxruntime.RunOptions()
    options.add_run_config_entry("disable_synchronize_execution_providers", "1")
    session.run_with_iobinding(binding, options)
    return outputs


def _shapes(specs: Sequence[TensorSpec], samples: int) -> str:
    """As the provider reads them: `x:4x3x224x224,mask:4x16`."""
    return ",".join(f"{spec.name}:{'x'.join(map(str, spec.shape_at(samples)))}" for spec in specs)
