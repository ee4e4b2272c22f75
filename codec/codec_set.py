"""The codecs of one bundle: those that anybody has, and the calibrated ones of its boundaries."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

from .base import Codec
from .errors import CodecError
from .fkt.codec import Fkt
from .fkt.coefficients import CoefficientCoder
from .fkt.table import FktTable
from .fkt.video import FktVideo
from .registry import codec_named

FKT, FKT_VIDEO = "fkt", "fkt-video"


class CodecSource(Protocol):
    """Whatever knows the codecs of a model's boundaries."""

    def named(self, name: str, boundary: int) -> Codec:
        """The codec called `name` at `boundary`; `CodecError` if there is none."""
        ...


class CodecSet:
    """Tables are loaded when they are first asked for; `load` takes a boundary.

    It returns an empty mapping where nothing was calibrated, and may raise `CodecError`.
    """

    def __init__(self, load: Callable[[int], Mapping[str, FktTable]]) -> None:
        self._load = load
        self._tables: dict[int, Mapping[str, FktTable]] = {}
        self._made: dict[tuple[int, str], Codec] = {}

    def named(self, name: str, boundary: int) -> Codec:
        """See `CodecSource`. `fkt@1` is the coarsest level of the transform codec.

        `fkt-video@1` is that level for streams: an `FktVideo`.
        """
        if name.partition("@")[0] not in (FKT, FKT_VIDEO):
            return codec_named(name)
        made = self._made.get((boundary, name))
        if made is None:
            made = self._made[boundary, name] = self._fkt(name, boundary)
        return made

    def tables(self, boundary: int) -> Mapping[str, FktTable]:
        """The transform codec's tables by tensor, empty where it was not calibrated."""
        found = self._tables.get(boundary)
        if found is None:
            found = self._tables[boundary] = self._load(boundary)
        return found

    def _fkt(self, name: str, boundary: int) -> Codec:
        tables = self.tables(boundary)
        if not tables:
            raise CodecError(
                f"boundary {boundary} has no tables for {FKT}",
                "compile the model with --calibrate DIR, or choose another codec",
            )
        level, family = level_of(name), name.partition("@")[0]
        most = min(table.levels for table in tables.values())
        if not 1 <= level <= most:
            raise CodecError(f"unknown codec {name[:40]!r}", f"use {family}@1 to {family}@{most}")
        coders = {tensor: CoefficientCoder(table, level) for tensor, table in tables.items()}
        return FktVideo(name, coders) if name.startswith(FKT_VIDEO) else Fkt(name, coders)


def level_of(name: str) -> int:
    """The level in a name like `fkt@3`; 0 when it holds none."""
    setting = name.partition("@")[2]
    sensible = setting.isascii() and setting.isdecimal() and len(setting) <= 2
    return int(setting) if sensible else 0


NO_TABLES = CodecSet(lambda boundary: {})
"""For models that were not calibrated."""
