"""torch's chatter, kept off the user's terminal."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import torch.export._trace


@contextmanager
def quiet_torch() -> Iterator[None]:
    """Inside it, neither torch's deprecation notes nor what its export logs and prints is shown."""
    logger, export = logging.getLogger("torch"), vars(torch.export._trace)
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    export["print"] = _nothing  # it prints the graph as far as it came, before it raises
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
        export.pop("print", None)  # it may have been entered twice


def _nothing(*text: object, **options: object) -> None:
    """Prints nothing."""
