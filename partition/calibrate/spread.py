"""How much outputs vary, from parts of them."""

from __future__ import annotations

import numpy as np
from splitpoint.codec import Array

from .truth import Outputs


class OutputSpread:
    """Standard deviations of several outputs over everything that was seen of them."""

    def __init__(self) -> None:
        self._sums: dict[str, Array] = {}

    def see(self, outputs: Outputs) -> None:
        """Counts some more."""
        for name, output in outputs.items():
            values = output.astype(np.float64).ravel()
            sums = np.array([values.size, values.sum(), values @ values])
            self._sums[name] = self._sums[name] + sums if name in self._sums else sums

    @property
    def deviations(self) -> dict[str, float]:
        """By output; never 0."""
        found = {}
        for name, (count, total, squares) in self._sums.items():
            variance = squares / count - (total / count) ** 2
            found[name] = max(float(np.sqrt(max(variance, 0.0))), 1e-15)
        return found
