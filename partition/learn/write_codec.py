"""A trained codec's files: its networks, and a table for each level, beside all of the bundle's."""

from __future__ import annotations

import math
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from splitpoint.codec import Array
from splitpoint.codec.codec_set import LEARNED
from splitpoint.codec.fkt.grid import Grid
from splitpoint.codec.fkt.table import FktTable

from ..bundle.boundary import Boundary
from ..bundle.bundle import Bundle, Manifest
from ..bundle.bundle_file import describe_file
from ..bundle.codec_tables import save_tables
from ..bundle.learned_files import LearnedFiles
from ..calibrate.fkt_fit import refit_table
from ..calibrate.fkt_ladder import MAX_FIT_COEFFICIENTS
from .codec_model import CodecModel
from .crop_store import CropStore
from .network_files import write_network
from .networks import FoldedEncoder, octaves_of

FITTED = 300  # crops that a level's table is fitted to, of large maps fewer


def with_codec(
    bundle: Bundle,
    boundary: Boundary,
    codec: CodecModel,
    table: FktTable,
    levels: Sequence[int],
    store: CropStore,
    draft: Path,
) -> Manifest:
    """The bundle's files and the codec's in `draft`, and the manifest, without the new rungs."""
    old = {} if boundary.learned is None else dict.fromkeys(boundary.learned.paths)
    files = {path: file for path, file in bundle.manifest.files.items() if path not in old}
    for path in files:
        (draft / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(bundle.path(path), draft / path)
    folder, octaves = f"learned/{boundary.id:02}", octaves_of(table, levels[0])
    (spec,) = boundary.tensors
    encoder = write_network(FoldedEncoder(codec.encoder), spec, octaves, draft, f"{folder}/encoder")
    decoder = write_network(codec.decoder, spec, octaves, draft, f"{folder}/decoder")
    tables = [
        refit_table(table, Grid.of(spec).rows(latents), int(table.log_step[level - 1]))
        for level in levels
        for latents in [_latents(codec, boundary, store, octaves_of(table, level))]
    ]
    save_tables(tables, draft / folder / "tables.safetensors")
    learned = LearnedFiles(
        tables=f"{folder}/tables.safetensors", levels=len(levels), encoder=encoder, decoder=decoder
    )
    files |= {path: describe_file(draft / path) for path in learned.paths}
    boundaries = list(bundle.manifest.boundaries)
    kept = tuple(level for level in boundary.ladder if not level.codec.startswith(LEARNED))
    boundaries[boundary.id] = replace(boundary, ladder=kept, learned=learned)
    return replace(bundle.manifest, boundaries=tuple(boundaries), files=files)


def _latents(codec: CodecModel, boundary: Boundary, store: CropStore, octaves: float) -> Array:
    """Of the first crops, at a step."""
    count = bounded(FITTED, boundary, store)
    with torch.inference_mode():
        return np.concatenate([
            codec.encoder(some, torch.full((len(some), 1), octaves)).numpy()
            for start in range(0, count, 25)
            for some in [store.some(range(start, min(start + 25, count)))]
        ])  # fmt: skip


def bounded(most: int, boundary: Boundary, store: CropStore) -> int:
    """So many of a store's crops, of large maps fewer."""
    size = sum(math.prod(spec.shape) for spec in boundary.tensors)
    return max(min(most, MAX_FIT_COEFFICIENTS // size, len(store)), 1)
