"""A worker in memory for tests whose subject is the device."""

from __future__ import annotations

import pytest
from splitpoint.edge import FakeWorker
from splitpoint.partition.bundle.bundle import Bundle


@pytest.fixture
def worker(small_bundle: Bundle) -> FakeWorker:
    return FakeWorker(small_bundle)
