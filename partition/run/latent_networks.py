"""Encoder and decoder of a learned codec in onnxruntime: see `LatentNetworks`."""

from __future__ import annotations

from pathlib import Path
from threading import Lock

import numpy as np
from splitpoint.codec import Array

from ..bundle.learned_files import LearnedFiles, NetworkFiles
from ..errors import BundleError
from .onnx_segment import OnnxSegment

# Frames are encoded beside the segments of others, and decoded in several threads: one core each.
_THREADS = 1
# Samples of a frame that are computed together: activations of a decoder take some megabytes each.
_TOGETHER = 4


class OnnxNetworks:
    """Those of `files` in `folder`, each loaded when it is first needed.

    A device only ever needs the encoder, a worker the decoder. Raises `BundleError` for files that
    hold none, and `SegmentError` where onnxruntime fails.
    """

    def __init__(self, boundary: int, files: LearnedFiles, folder: Path) -> None:
        self.boundary = boundary
        self._encoder = _Network(files.encoder, folder)
        self._decoder = _Network(files.decoder, folder)

    def encoded(self, tensor: Array, octaves: float) -> Array:
        """The latent of a boundary's tensor."""
        return self._encoder(tensor, octaves)

    def decoded(self, latent: Array, octaves: float) -> Array:
        """The tensor that it stands for."""
        return self._decoder(latent, octaves)


class _Network:
    def __init__(self, files: NetworkFiles, folder: Path) -> None:
        self._path, self._loading = folder / files.onnx, Lock()
        self._segment: OnnxSegment | None = None

    def __call__(self, tensor: Array, octaves: float) -> Array:
        segment = self._loaded()
        found = [
            self._some(segment, tensor[start : start + _TOGETHER], octaves)
            for start in range(0, len(tensor), _TOGETHER)
        ]
        return found[0] if len(found) == 1 else np.concatenate(found)

    def _some(self, segment: OnnxSegment, tensor: Array, octaves: float) -> Array:
        first, second = segment.inputs
        given = {first: tensor, second: np.full((len(tensor), 1), octaves, np.float32)}
        (found,) = segment(given).values()
        if found.shape != tensor.shape or found.dtype != tensor.dtype:
            raise BundleError(f"{self._path} gives {found.dtype} {list(found.shape)}", "learn anew")
        return found

    def _loaded(self) -> OnnxSegment:
        with self._loading:
            if self._segment is None:
                found = OnnxSegment(self._path, _THREADS)
                if len(found.inputs) != 2 or len(found.outputs) != 1:
                    raise BundleError(f"{self._path} is no network of a codec", "learn anew")
                self._segment = found
            return self._segment
