"""How long a device takes at least for some arithmetic and the bytes that it moves."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Speed:
    """What a device sustains: GFLOP/s in convolutions and products, GB/s; and μs per layer."""

    gflops: float
    gb_s: float
    overhead_us: float

    def ms(self, operations: float, nbytes: float) -> float:
        """The slower of computing and moving the bytes (Williams et al., CACM 52(4), 2009)."""
        limit_ms = max(operations / (1e6 * self.gflops), nbytes / (1e6 * self.gb_s))
        return limit_ms + self.overhead_us / 1e3
