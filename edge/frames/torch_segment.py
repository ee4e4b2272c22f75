"""A segment in torch, for devices that have it; the only module of the edge that imports it."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from splitpoint.codec import Array
from splitpoint.partition.bundle.segment_files import SegmentFiles
from splitpoint.partition.errors import SegmentError
from splitpoint.partition.run.torch_chain import load_segment

_CPU = torch.device("cpu")


class TorchSegment:
    """See `LoadedSegment`. `threads` above 0 is torch's count for the whole process."""

    def __init__(self, files: SegmentFiles, threads: int = 0) -> None:
        if threads:
            torch.set_num_threads(threads)
        self._inputs, self._outputs, self._module = load_segment(
            files.model, files.weights, files.entering, _CPU
        )

    def __call__(self, values: Mapping[str, Array]) -> dict[str, Array]:
        """The segment's own outputs. Raises `SegmentError` when torch fails."""
        try:
            with torch.inference_mode():
                given = (torch.tensor(values[name]) for name in self._inputs)
                results = self._module.forward(*given)
        except RuntimeError as error:
            raise SegmentError(f"torch failed ({str(error).splitlines()[0][:300]})") from error
        return {name: result.numpy() for name, result in zip(self._outputs, results, strict=True)}
