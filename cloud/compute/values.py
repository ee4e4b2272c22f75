"""What an engine is given of a frame."""

from __future__ import annotations

from collections.abc import Mapping

from splitpoint.codec import Array, Packed

Values = Mapping[str, Array | Packed]
"""Tensors by name, whole or `Packed`."""
