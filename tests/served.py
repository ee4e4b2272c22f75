"""A model as an ingest process knows it, without an engine."""

from __future__ import annotations

from splitpoint.cloud.compute.served_model import ServedModel
from splitpoint.cloud.schedule.batch_times import BatchTimes
from splitpoint.partition.bundle.bundle import Bundle
from splitpoint.partition.profile.cloud_times import CloudTimes
from splitpoint.partition.run.codecs import codecs_of


def served(bundle: Bundle, *, unpacks: bool = True) -> ServedModel:
    """Each segment takes 2 ms."""
    segments = len(bundle.manifest.segments)
    return ServedModel(
        bundle=bundle,
        times=CloudTimes(segment_ms=(1.5,) * segments, decode_ms={(1, "q8"): 0.25}),
        batch_times=BatchTimes([{1: 2.0, 8: 5.0}] * segments, 8),
        boundaries=[boundary.tensors for boundary in bundle.manifest.boundaries],
        codecs=codecs_of(bundle.manifest, bundle.folder),
        manifest_bytes=77,
        unpacks=unpacks,
    )
