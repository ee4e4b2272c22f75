"""The codecs of a bundle: tables and networks from its files, when they are first needed."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from splitpoint.codec.codec_set import CodecSet, LearnedParts
from splitpoint.codec.fkt.table import FktTable

from ..bundle.bundle import Manifest
from ..bundle.codec_tables import load_levels, load_tables
from .latent_networks import OnnxNetworks


def codecs_of(manifest: Manifest, folder: Path) -> CodecSet:
    """The codecs of a bundle whose files lie, or will lie by then, in `folder`."""

    def tables(boundary: int) -> Mapping[str, FktTable]:
        found = manifest.boundaries[boundary]
        return load_tables(folder / found.tables, found.tensors) if found.tables else {}

    def learned(boundary: int) -> LearnedParts | None:
        found = manifest.boundaries[boundary]
        if found.learned is None:
            return None
        (spec,) = found.tensors
        return LearnedParts(
            tables=load_levels(folder / found.learned.tables, spec, found.learned.levels),
            networks=OnnxNetworks(boundary, found.learned, folder),
        )

    return CodecSet(tables, learned)
