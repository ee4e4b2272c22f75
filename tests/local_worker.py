"""A worker in the test's process, at a free port of this machine."""

from __future__ import annotations

from typing import Any

from splitpoint.cloud.worker import Worker
from splitpoint.partition.bundle.bundle import Bundle

INGEST = 0  # processes beside it, where a test's fixture does not say otherwise


def local_worker(*bundles: Bundle, **options: Any) -> Worker:
    """It computes on the CPU, where `options` do not say otherwise; see `WorkerOptions`."""
    given = {"listen": "127.0.0.1:0", "device": "cpu", "ingest": INGEST} | options
    return Worker([bundle.folder for bundle in bundles], **given)
