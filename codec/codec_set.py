"""The codecs of one bundle: those that anybody has, and the calibrated ones of its boundaries."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from .base import Codec
from .errors import CodecError
from .fkt.codec import Fkt
from .fkt.coefficients import CoefficientCoder
from .fkt.table import OCTAVE, FktTable
from .fkt.video import FktVideo
from .learned import LatentNetworks, Learned, LearnedVideo
from .registry import codec_named

FKT, FKT_VIDEO = "fkt", "fkt-video"
LEARNED, LEARNED_VIDEO = "learned", "learned-video"
CALIBRATED = (FKT, LEARNED)
"""Families of levels, which are called `fkt@1` and so on, the coarsest first."""

FOR_STREAMS = {FKT: FKT_VIDEO, LEARNED: LEARNED_VIDEO}
"""What a family is called where its frames build on those before them."""

OF_STREAMS = {of_streams: family for family, of_streams in FOR_STREAMS.items()}
"""And the other way round."""


class CodecSource(Protocol):
    """Whatever knows the codecs of a model's boundaries."""

    def named(self, name: str, boundary: int) -> Codec:
        """The codec called `name` at `boundary`; `CodecError` if there is none."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class LearnedParts:
    """What the learned codec of a boundary is made of: a table of one level for each level.

    `tables` begins with the coarsest.
    """

    tables: Sequence[FktTable]
    networks: LatentNetworks


def nothing_learned(boundary: int) -> LearnedParts | None:
    """Of a model whose boundaries have no learned codec."""
    return None


class CodecSet:
    """Tables are loaded when they are first asked for; `load` takes a boundary, as does `learned`.

    It returns an empty mapping where nothing was calibrated, `learned` None where nothing was
    learned; both may raise `CodecError`.
    """

    def __init__(
        self,
        load: Callable[[int], Mapping[str, FktTable]],
        learned: Callable[[int], LearnedParts | None] = nothing_learned,
    ) -> None:
        self._load, self._load_learned = load, learned
        self._tables: dict[int, Mapping[str, FktTable]] = {}
        self._learned: dict[int, LearnedParts] = {}
        self._made: dict[tuple[int, str], Codec] = {}

    def named(self, name: str, boundary: int) -> Codec:
        """See `CodecSource`. `fkt@1` is the coarsest level of the transform codec.

        `fkt-video@1` is that level for streams: a `StreamCodec`. `learned@1` and `learned-video@1`
        are the same of the learned codec.
        """
        family = name.partition("@")[0]
        make = {
            FKT: self._fkt, FKT_VIDEO: self._fkt,
            LEARNED: self._of_networks, LEARNED_VIDEO: self._of_networks,
        }.get(family)  # fmt: skip
        if make is None:
            return codec_named(name)
        made = self._made.get((boundary, name))
        if made is None:
            made = self._made[boundary, name] = make(name, family, boundary)
        return made

    def tables(self, boundary: int) -> Mapping[str, FktTable]:
        """The transform codec's tables by tensor, empty where it was not calibrated."""
        found = self._tables.get(boundary)
        if found is None:
            found = self._tables[boundary] = self._load(boundary)
        return found

    def _fkt(self, name: str, family: str, boundary: int) -> Codec:
        tables = self.tables(boundary)
        if not tables:
            raise CodecError(
                f"boundary {boundary} has no tables for {FKT}",
                "compile the model with --calibrate DIR, or choose another codec",
            )
        level = _checked(name, family, min(table.levels for table in tables.values()))
        coders = {tensor: CoefficientCoder(table, level) for tensor, table in tables.items()}
        return FktVideo(name, coders) if family == FKT_VIDEO else Fkt(name, coders)

    def _of_networks(self, name: str, family: str, boundary: int) -> Codec:
        parts = self._learned.get(boundary)
        if parts is None:
            parts = self._load_learned(boundary)
            if parts is None:
                raise CodecError(
                    f"boundary {boundary} has no {LEARNED} codec",
                    "train one with `splitpoint learn`, or choose another codec",
                )
            self._learned[boundary] = parts
        level = _checked(name, family, len(parts.tables))
        table = parts.tables[level - 1]
        coders = {table.spec.name: CoefficientCoder(table, 1)}
        octaves = int(table.log_step[0]) / OCTAVE
        if family == LEARNED_VIDEO:
            return LearnedVideo(name, FktVideo(name, coders), parts.networks, level, octaves)
        return Learned(name, Fkt(name, coders), parts.networks, level, octaves)


def _checked(name: str, family: str, most: int) -> int:
    level = level_of(name)
    if not 1 <= level <= most:
        raise CodecError(f"unknown codec {name[:40]!r}", f"use {family}@1 to {family}@{most}")
    return level


def level_of(name: str) -> int:
    """The level in a name like `fkt@3`; 0 when it holds none."""
    setting = name.partition("@")[2]
    # A level has one name: what is known by it, a time for one, is then known of it.
    sensible = setting.isascii() and setting.isdecimal() and len(setting) <= 2
    sensible = sensible and not setting.startswith("0")
    return int(setting) if sensible else 0


NO_TABLES = CodecSet(lambda boundary: {})
"""For models that were not calibrated."""
