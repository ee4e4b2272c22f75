"""Profiles as files: what comes back, and what is refused."""

from __future__ import annotations

import copy
import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import pytest
from metered import MADE_UP
from splitpoint.partition.profile.profile import (
    ProfileError,
    load_profile,
)


def saved(tmp_path: Path, record: Any) -> Path:
    path = tmp_path / "p.json"
    path.write_text(json.dumps(record))
    return path


def test_of_another_bundle(tmp_path: Path) -> None:
    path = saved(tmp_path, MADE_UP.to_json())
    with pytest.raises(ProfileError, match="is of the bundle 000000000000, not ffffffffffff"):
        load_profile(path, "f" * 64)


def test_the_first_schema_is_still_read(tmp_path: Path) -> None:
    """It knew neither codecs nor memory nor what a batch takes."""
    record = {
        "schema": 1,
        "device": "board",
        "runtime": "onnxruntime",
        "threads": 4,
        "date": "2025-01-01T00:00:00+00:00",
        "digest": "ab",
        "versions": {"numpy": "1"},
        "segments": [{"id": 0, "ms": 3.0, "p95_ms": 4.0, "samples": 20, "mj": None}],
        "layers": [{"name": "conv", "op": "conv2d", "ms": 3.0, "mj": None, "share": 1.0}],
    }
    found = load_profile(saved(tmp_path, record), "ab")
    assert found.codecs == found.notes == ()
    assert found.energy_kind == "none"
    assert (found.busy_w, found.base_mb) == (None, None)
    assert found.segments[0].batch_ms == {}
    assert found.segments[0].memory_mb is None
    assert found.layers[0].output_shape == ()


def test_what_an_older_version_said_of_the_answers_is_ignored(tmp_path: Path) -> None:
    """Calibration says that now, in the bundle."""
    record = MADE_UP.to_json()
    record["codecs"] = [entry | {"accuracy_drop": 0.5} for entry in record["codecs"]]
    assert load_profile(saved(tmp_path, record)) == MADE_UP


def test_keys_of_a_later_version_are_ignored(tmp_path: Path) -> None:
    record = MADE_UP.to_json()
    record["weather"] = "rain"
    for part in ("segments", "codecs"):
        record[part] = [entry | {"colour": 1} for entry in record[part]]
    assert load_profile(saved(tmp_path, record)) == MADE_UP


@pytest.mark.parametrize("schema", [0, 3, 99, "2", None, [2], 1.5])
def test_a_newer_schema_is_refused_in_words(tmp_path: Path, schema: object) -> None:
    path = saved(tmp_path, MADE_UP.to_json() | {"schema": schema})
    with pytest.raises(ProfileError, match=r"reads up to 2.*splitpoint profile"):
        load_profile(path)


NAN, INF = math.nan, math.inf
FIRST = ("segments", 0)
CODEC = ("codecs", 1)


@pytest.mark.parametrize(
    ("where", "value"),
    [
        *(((*FIRST, key), bad) for key in ("ms", "p95_ms") for bad in (NAN, INF, -1, "x", None)),
        *(((*FIRST, key), bad) for key in ("mj", "memory_mb") for bad in (NAN, -1, "x")),
        pytest.param((*FIRST, "ms"), 10**400, id="a number with 400 digits"),
        ((*FIRST, "id"), 1),
        ((*FIRST, "id"), "0"),
        ((*FIRST, "batch_ms"), {"2": NAN}),
        ((*FIRST, "batch_ms"), {"two": 1}),
        ((*FIRST, "batch_ms"), [1]),
        ((*FIRST,), 5),
        (("segments",), []),
        (("segments",), 5),
        (("segments",), None),
        (("layers",), 5),
        (("layers",), ["conv"]),
        (("layers",), [{"name": "a", "op": "b", "ms": NAN, "mj": None, "share": 1}]),
        *(
            ((*CODEC, key), bad)
            for key in ("nbytes", "p95_bytes", "encode_ms", "decode_ms")
            for bad in (NAN, -1, "x")
        ),
        *(((*CODEC, "boundary"), bad) for bad in (-1, 2, "1", None)),
        ((*CODEC,), 5),
        (("codecs",), None),
        *(((key,), bad) for key in ("busy_w", "idle_w", "base_mb") for bad in (NAN, -1, "x")),
        (("digest",), 5),
    ],
)  # fmt: skip
def test_damaged_figures(tmp_path: Path, where: tuple[str | int, ...], value: object) -> None:
    record: Any = copy.deepcopy(json.loads(json.dumps(MADE_UP.to_json())))
    *path, last = where
    place = record
    for step in path:
        place = place[step]
    place[last] = value
    with pytest.raises(ProfileError, match="splitpoint profile"):
        load_profile(saved(tmp_path, record), MADE_UP.digest)


@pytest.mark.parametrize(
    "missing", ["device", "runtime", "threads", "date", "digest", "versions", "segments", "layers"]
)
def test_missing_fields(tmp_path: Path, missing: str) -> None:
    record = {key: value for key, value in MADE_UP.to_json().items() if key != missing}
    with pytest.raises(ProfileError, match=f"damaged.*{missing}"):
        load_profile(saved(tmp_path, record))


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b"5", b"{}", b"\xff\xfe", b"[" * 100_000, b"null"]
)
def test_no_profile_at_all(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "p.json"
    path.write_bytes(content)
    with pytest.raises(ProfileError, match="is no profile"):
        load_profile(path)


def test_no_file(tmp_path: Path) -> None:
    for path in (tmp_path / "nothing.json", tmp_path):
        with pytest.raises(ProfileError, match="cannot read"):
            load_profile(path)


def test_what_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "folder").mkdir()
    for path in ("nowhere/p.json", "file/p.json", "folder"):
        with pytest.raises(ProfileError, match="cannot write"):
            MADE_UP.save(tmp_path / path)
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["file", "folder"]


def test_a_failed_write_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "p.json"
    MADE_UP.save(path)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(ProfileError, match="No space left"):
        dataclasses.replace(MADE_UP, device="other").save(path)
    assert load_profile(path) == MADE_UP
    assert [entry.name for entry in tmp_path.iterdir()] == ["p.json"]
