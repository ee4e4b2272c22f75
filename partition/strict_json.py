"""JSON as others read it: without the NaN and Infinity that Python writes by itself (RFC 8259)."""

from __future__ import annotations

import json
import math
from typing import Any


def to_json(document: Any, **how: Any) -> str:
    """The document as JSON, in which a number that is not finite is null.

    `how` goes to `json.dumps`. Raises `TypeError` for what JSON has no form for.
    """
    return json.dumps(_finite(document), allow_nan=False, **how)


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return value
