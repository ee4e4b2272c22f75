"""A model as the engine's process describes it to an ingest process, which opens its bundle."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from splitpoint.partition.bundle.bundle import open_bundle
from splitpoint.partition.bundle.bundle_file import verify_file
from splitpoint.partition.errors import BundleError
from splitpoint.partition.profile.cloud_times import CloudTimes
from splitpoint.partition.run.codecs import codecs_of, ready_to_decode
from splitpoint.partition.run.read_indexes import read_indexes
from splitpoint.proto.limits import MAX_BATCH_PER_FRAME

from ..compute.served_model import ServedModel
from ..schedule.batch_times import BatchTimes


def times_of(model: ServedModel) -> dict[str, Any]:
    """What it takes, for `take_times`: of batches only those that one frame can be."""
    times, rows = model.times, model.batch_times
    most = min(rows.max_batch, MAX_BATCH_PER_FRAME)
    return {
        "segment_ms": list(times.segment_ms),
        "segment_p95_ms": list(times.segment_p95_ms),
        "decode_ms": [[at, codec, ms] for (at, codec), ms in times.decode_ms.items()],
        "max_batch": most,
        "rows_s": [row[1 : most + 1] for row in rows.seconds],
    }


def take_times(model: ServedModel, told: Mapping[str, Any]) -> None:
    """The model takes that from now on."""
    model.times, model.batch_times = _times(told)


def offer_of(model: ServedModel) -> dict[str, Any]:
    """All of it, for `open_offer`."""
    return {
        "folder": str(model.bundle.folder.resolve()),
        "digest": model.bundle.digest,
        "manifest_bytes": model.manifest_bytes,
        "unpacks": model.unpacks,
        "times": times_of(model),
    }


def open_offer(told: Mapping[str, Any]) -> ServedModel:
    """The model, from its files here; raises `BundleError` where they are not those any more."""
    bundle = open_bundle(Path(told["folder"]), verify_files=False)
    if bundle.digest != told["digest"]:
        raise BundleError(
            f"{bundle.folder} holds another model than the one that is served",
            "leave a bundle's folder as it is while it is served",
        )
    manifest, codecs = bundle.manifest, codecs_of(bundle.manifest, bundle.folder)
    for path in (path for boundary in manifest.boundaries for path in boundary.codec_files):
        verify_file(bundle.path(path), manifest.files[path])
    ready_to_decode(manifest, codecs, decoders=not told["unpacks"])
    times, batch_times = _times(told["times"])
    return ServedModel(
        bundle=bundle,
        times=times,
        batch_times=batch_times,
        boundaries=[boundary.tensors for boundary in bundle.manifest.boundaries],
        codecs=codecs,
        manifest_bytes=told["manifest_bytes"],
        unpacks=told["unpacks"],
        indexes=read_indexes(bundle),
    )


def _times(told: Mapping[str, Any]) -> tuple[CloudTimes, BatchTimes]:
    times = CloudTimes(
        segment_ms=tuple(told["segment_ms"]),
        segment_p95_ms=tuple(told["segment_p95_ms"]),
        decode_ms={(at, codec): ms for at, codec, ms in told["decode_ms"]},
    )
    rows = [{n: 1e3 * s for n, s in enumerate(row, start=1)} for row in told["rows_s"]]
    return times, BatchTimes(rows, told["max_batch"])
