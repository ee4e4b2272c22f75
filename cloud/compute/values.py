"""What an engine is given of a frame."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from splitpoint.codec import Array, Packed

Values = Mapping[str, Array | Packed]
"""Tensors by name, whole or `Packed`."""


def whole(value: Array | Packed) -> Array:
    """The tensor, which is unpacked on this processor if it has to be."""
    return value if isinstance(value, np.ndarray) else value.unpack()
