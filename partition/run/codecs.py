"""The codecs of a bundle: tables and networks from its files, when they are first needed."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from splitpoint.codec.codec_set import LEARNED, CodecSet, LearnedParts
from splitpoint.codec.fkt.table import FktTable
from splitpoint.codec.learned import Learned

from ..bundle.bundle import Manifest
from ..bundle.codec_tables import load_levels, load_tables
from ..bundle.learned_files import LEARN_AGAIN
from ..errors import BundleError
from .latent_networks import OnnxNetworks


def ready_to_decode(manifest: Manifest, codecs: CodecSet, *, decoders: bool) -> None:
    """Has all tables in memory and, where they run here, `decoders`, each of which has run.

    What becomes of the files then is of no matter. Raises `BundleError`, `CodecError` or
    `SegmentError` for those that do not do.
    """
    for boundary in manifest.boundaries:
        if boundary.tables:
            codecs.tables(boundary.id)
        for level in range(1, boundary.learned.levels + 1 if boundary.learned else 0):
            codec = codecs.named(f"{LEARNED}@{level}", boundary.id)
            (spec,) = boundary.tensors
            found = np.zeros(0, np.float32)
            if decoders and isinstance(codec, Learned):
                found = codec.tensor(np.zeros(spec.shape_at(1), np.float32))
            if not np.isfinite(found).all():
                raise BundleError(
                    f"the decoder of boundary {boundary.id} gives NaN or infinity", LEARN_AGAIN
                )


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
