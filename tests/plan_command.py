"""`splitpoint plan` for a small bundle, and what its times are."""

from __future__ import annotations

import json
from collections.abc import Callable

from split_tables import codec_time, level, profile_of
from splitpoint.partition.bundle.bundle import Bundle
from splitpoint.partition.profile.profile import Profile

Plan = Callable[..., tuple[int, str, str]]

# What calibration saw: of 400 answers a JPEG changed four, which may be 2.54 % of all there are. At
# boundary 2 the codecs were not calibrated, nor was q4 anywhere.
LADDERS = {
    0: [level("jpeg", 9_900, agreed=396, loss=0.02)],
    3: [level("q8", 3_900, loss=0.001)],
}

# Boundaries 0 to 4. The device takes 10 ms a segment, the worker 1 ms. On a link of 8 Mbit/s and
# 20 ms the candidates are all on the device (40 ms), the input as jpeg (2 + 10 + 20.5 + 4 ms) or
# raw (100 + 20.5 + 4 ms), and boundaries 2 and 3 with what is left of them.
LINK = "8mbps,20ms"


def edge_profile(bundle: Bundle, **fields: object) -> Profile:
    codecs = [
        codec_time(0, "raw", 99_900),
        codec_time(0, "jpeg", 9_900, encode_ms=2),
        codec_time(2, "q8", 7_900, encode_ms=1),
        codec_time(3, "q8", 3_900, encode_ms=1),
        codec_time(3, "q4", 400, encode_ms=1),
    ]
    known = {
        "device": "a (AMD EPYC 7763 64-Core Processor)",
        "memory_mb": [10, 10, 10, 10],
        "digest": bundle.digest,
    }
    return profile_of([10] * 4, codecs, **{**known, **fields})


def cloud_profile(bundle: Bundle, **fields: object) -> Profile:
    known = {
        "device": "b (AMD EPYC 7763 64-Core Processor)",
        "runtime": "torch",
        "digest": bundle.digest,
    }
    return profile_of([1] * 4, [codec_time(0, "raw", 1)], **{**known, **fields})


def choice(plan: Plan, *options: str, link: str = LINK) -> tuple[int, str]:
    code, out, err = plan("--json", *options, link=link)
    assert code == 0, err
    chosen = json.loads(out)["chosen"]
    return chosen["boundary"], chosen["codec"]


def error(plan: Plan, *options: str, **arguments: object) -> str:
    """The one line that a failure says."""
    code, out, err = plan(*options, **arguments)
    assert code == 1
    assert out == ""
    (line,) = err.splitlines()
    assert line.startswith("error: ")
    return line
