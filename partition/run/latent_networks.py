"""Encoder and decoder of a learned codec in onnxruntime: see `LatentNetworks`."""

from __future__ import annotations

from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING

import numpy as np
from splitpoint.codec import Array

from ..bundle.learned_files import LEARN_AGAIN, LearnedFiles, NetworkFiles
from ..errors import BundleError

if TYPE_CHECKING:
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

    @property
    def can_decode(self) -> bool:
        """See `LatentNetworks`."""
        return self._decoder.is_here

    def load_encoder(self) -> None:
        """See `LatentNetworks`."""
        self._encoder.loaded()

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
        self._failed = ""  # why

    def __call__(self, tensor: Array, octaves: float) -> Array:
        segment = self.loaded()
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
            raise BundleError(f"{self._path} gives {found.dtype} {list(found.shape)}", LEARN_AGAIN)
        return found

    @property
    def is_here(self) -> bool:
        """Whether its file is."""
        return self._path.is_file()

    def loaded(self) -> OnnxSegment:
        """The network, which is loaded by then."""
        with self._loading:
            if self._segment is None and not self._failed:  # trying again costs as much each time
                self._load()
            if self._segment is None:  # an error of its own for each: it holds who has asked
                raise BundleError(self._failed, LEARN_AGAIN)
            return self._segment

    def _load(self) -> None:
        from .onnx_segment import OnnxSegment  # not where payloads are only unpacked

        try:
            found = OnnxSegment(self._path, _THREADS)
        except BundleError as error:
            self._failed = error.what
        else:
            if len(found.inputs) == 2 and len(found.outputs) == 1:
                self._segment = found
            else:
                self._failed = f"{self._path} is no network of a codec"
