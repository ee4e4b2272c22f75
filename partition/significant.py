"""Numbers as people read them: so many digits, and no exponent."""

from __future__ import annotations

import math


def significant(value: float, digits: int = 3) -> str:
    """`15,400`, `12.3`, `0.0123`: what `:.3g` says, without its `1.54e+04`."""
    if not value or not math.isfinite(value):
        return f"{value:g}"
    places = digits - 1 - math.floor(math.log10(abs(value)))
    text = f"{round(value, places):,.{max(places, 0)}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text
