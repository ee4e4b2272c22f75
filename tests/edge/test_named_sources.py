"""Names, rates and parts of several sources, as users write them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from splitpoint.edge.errors import SourceError
from splitpoint.edge.sources.folder import FolderSource
from splitpoint.edge.sources.live import LiveSource
from splitpoint.edge.sources.named import NamedSource, SourceWords, named_sources
from splitpoint.edge.sources.paced import Pace, Paced


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "photos"
    path.mkdir()
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(path / "a.png")
    return path


def found(*texts: str, words: SourceWords | None = None) -> dict[str, NamedSource]:
    return {each.name: each for each in named_sources(texts, words or SourceWords())}


def test_one_source_needs_no_name(folder: Path, tmp_path: Path) -> None:
    assert found(str(folder)).keys() == {""}
    odd = tmp_path / "a=b,c=d"
    folder.rename(odd)
    assert found(str(odd)).keys() == {""}  # what is there under that name is meant


def test_several_in_one_text_or_one_each(folder: Path) -> None:
    camera = "http://cam/snapshot.jpg?a=1"
    together = found(f"yard={folder},front=rtsp://u:p@cam/1,door={camera}")
    assert together.keys() == {"yard", "front", "door"}
    assert isinstance(together["yard"].source, FolderSource)
    assert isinstance(together["front"].source, LiveSource)
    # A comma within an address is no end of it where each source stands alone.
    assert found(f"yard={folder}", f"door={camera},b=2").keys() == {"yard", "door"}


@pytest.mark.parametrize(
    ("texts", "said"),
    [
        (["a=0", "a=1"], "two sources are called a"),
        (["a=0", "rtsp://u:secret@cam"], "one of several sources has no name"),
        (["a=0,a=1"], "two sources are called a"),
    ],
)
def test_names_that_do_not_do(texts: list[str], said: str) -> None:
    with pytest.raises(SourceError, match=said) as caught:
        found(*texts)
    assert "secret" not in str(caught.value)


def test_values_for_all_and_for_one(folder: Path) -> None:
    words = SourceWords(fps=["b=2", "8"], region=["a=0,0,4,4"], motion=["1"])
    each = found(f"a={folder}", f"b={folder}", words=words)
    assert isinstance(each["a"].source, Paced)
    assert isinstance(each["b"].source, Paced)
    assert each["a"].lens.region is not None
    assert each["b"].lens.region is None
    # Two sources do not share what the last picture was.
    assert each["a"].lens.motion is not each["b"].lens.motion is not None
    with pytest.raises(SourceError, match=r"--fps names no source 'c': sources: a, b"):
        found(f"a={folder}", f"b={folder}", words=SourceWords(fps=["c=1"]))
    for bad in ("0", "-1", "nan", "inf", "many"):
        with pytest.raises(SourceError, match="is no number of frames"):
            found(str(folder), words=SourceWords(fps=[bad]))


def test_a_pace_keeps_the_mean_and_does_not_hurry_after_a_pause() -> None:
    pace, taken = Pace(10), []
    for step in range(400):  # frames come every 33 ms, and not between 4 and 6 s
        now_s = step * 0.033
        if not 4 < now_s < 6 and not pace.wait_s(now_s):
            pace.took(now_s)
            taken.append(now_s)
    before = [at for at in taken if at <= 4]
    assert len(before) == pytest.approx(40, abs=2)
    assert min(np.diff(taken)) > 0.06
    after = [at for at in taken if at >= 6]
    assert len(after) == pytest.approx(10 * (400 * 0.033 - 6), abs=3)
