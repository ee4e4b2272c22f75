"""The codecs' inner loops on both machines: numpy's on x86 are the truth for the other three."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

import numpy as np
from splitpoint.codec import Array, TensorSpec

sys.path.insert(0, str(Path(__file__).parents[1]))
from fkt_tables import SPECS, coder_of, like_calibration, spec_of, table_of

SAMPLES, LEVELS = 3, (1, 4, 8)
LARGE = spec_of((1, 40, 28, 28))
TRUTH, FORMS = ("x86", "numpy"), (("x86", "C"), ("arm", "numpy"), ("arm", "C"))


def made() -> dict[str, Array]:
    """What loops.py is given: every shape at three levels, with spikes and large values."""
    found: dict[str, Array] = {}
    for name, spec in {**SPECS, "large": LARGE}.items():
        for level in sorted({min(level, table_of(spec).levels) for level in LEVELS}):
            case = f"{name}, level {level}"
            coder = coder_of(spec, level)
            tensor = _tensor(spec)
            found |= {f"{case}/table/{key}": own for key, own in coder.table.to_arrays().items()}
            found[f"{case}/spec"] = np.array(json.dumps(asdict(spec)))
            found[f"{case}/level"] = np.array(level)
            found[f"{case}/banded"] = coder.banded(tensor)
            found[f"{case}/rows"] = coder.table.grid.rows(tensor)[0]
    return found


def _tensor(spec: TensorSpec) -> Array:
    """Samples as usual, with a spike, and ten times as large."""
    tensor = like_calibration(spec, SAMPLES)
    samples = np.moveaxis(tensor.reshape(_split(spec)), spec.batch_dim, 0)
    samples[1].flat[3] += 200
    samples[2] *= 10
    return tensor


def _split(spec: TensorSpec) -> tuple[int, ...]:
    """The samples taken apart from their dimension's factor."""
    dim = spec.batch_dim
    return (*spec.shape[:dim], SAMPLES, *spec.shape[dim:])


def differing(found: Mapping[str, Mapping[str, Array]]) -> dict[tuple[str, str], list[str]]:
    """For each of `FORMS`, which arrays have not the bits of the truth; `found` by machine."""
    machine, form = TRUTH
    truth = {name: own for name, own in found[machine].items() if f"/{form}/" in name}
    wrong: dict[tuple[str, str], list[str]] = {each: [] for each in FORMS}
    for machine, other in FORMS:
        for name, wanted in truth.items():
            own = found[machine].get(name.replace(f"/{form}/", f"/{other}/"))
            same = own is not None and (own.dtype, own.shape) == (wanted.dtype, wanted.shape)
            if not same or own is None or own.tobytes() != wanted.tobytes():
                wrong[machine, other].append(name)
    return wrong


def payloads(found: Mapping[str, Array]) -> int:
    """How many there are among the arrays of one machine and form."""
    return sum("/numpy/payload/" in name or "/numpy/difference/" in name for name in found)
