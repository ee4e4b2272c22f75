"""Several sources of one run, each with a name, a rate and a part of its pictures that counts."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from ..errors import SourceError
from .find import find_source
from .lens import Lens, Mask, Region, motion_of
from .paced import fps_of
from .source import Source

T = TypeVar("T")

_NAME = r"[A-Za-z0-9][A-Za-z0-9_-]{0,31}"
_NAMED = re.compile(rf"({_NAME})=(.+)", re.DOTALL)
_NEXT = re.compile(rf",(?={_NAME}=)")


@dataclass(frozen=True, slots=True, kw_only=True)
class NamedSource:
    """A source, what the user calls it ("" for the only one), and what of its pictures counts."""

    source: Source
    name: str = ""
    lens: Lens = field(default_factory=Lens)

    def __str__(self) -> str:
        """For lines that are said of it."""
        return self.name or "the source"


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceWords:
    """What a user says of sources: each a value for all, or `NAME=VALUE` for one."""

    fps: Sequence[str] = ()
    region: Sequence[str] = ()
    mask: Sequence[str] = ()
    motion: Sequence[str] = ()


def named_sources(
    texts: Sequence[str], words: SourceWords, *, watch: bool = False, repeat: int = 1
) -> list[NamedSource]:
    """What `find_source` finds for each of `texts`.

    Several are `NAME=SOURCE` each, or one text of such parts with commas between them. Raises
    `SourceError` for a name that is there twice or missing, and for words of no source.
    """
    found = _named(texts)
    names = [name for name, _ in found]
    fps = _by_name("--fps", words.fps, names, fps_of)
    regions = _by_name("--region", words.region, names, Region.parse)
    masks = _by_name("--mask", words.mask, names, lambda text: Mask(Path(text)))
    motions = _by_name("--motion", words.motion, names, lambda text: text)
    return [
        NamedSource(
            name=name,
            source=find_source(text, watch=watch, repeat=repeat, fps=fps.get(name, math.inf)),
            lens=Lens(
                region=regions.get(name),
                mask=masks.get(name),
                # Each remembers the last picture of its own source.
                motion=motion_of(motions[name]) if name in motions else None,
            ),
        )
        for name, text in found
    ]


def _named(texts: Sequence[str]) -> list[tuple[str, str]]:
    """Names and sources; a single one needs no name, and a file may be called `a=b.jpg`."""
    if len(texts) == 1:
        if _NAMED.fullmatch(texts[0]) is None or Path(texts[0]).exists():
            return [("", texts[0])]
        texts = _NEXT.split(texts[0])
    found: list[tuple[str, str]] = []
    for text in texts:
        match = _NAMED.fullmatch(text)
        if match is None:
            raise SourceError("one of several sources has no name", "write NAME=SOURCE for each")
        if match[1] in dict(found):
            raise SourceError(f"two sources are called {match[1]}", "give each another name")
        found.append((match[1], match[2]))
    return found


def _by_name(
    option: str, texts: Iterable[str], names: Sequence[str], parse: Callable[[str], T]
) -> dict[str, T]:
    """The value of each source that has one: its own, or else the one for all."""
    general: dict[str, T] = {}
    own: dict[str, T] = {}
    for text in texts:
        match = _NAMED.fullmatch(text)
        if match is None:
            general |= {name: parse(text) for name in names}
        elif match[1] not in names:
            known = ", ".join(filter(None, names)) or "the only source has no name"
            raise SourceError(f"{option} names no source {match[1]!r}", f"sources: {known}")
        else:
            own[match[1]] = parse(match[2])
    return general | own
