"""The models that a worker serves, which may come and go while it runs."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Awaitable, Callable, Set
from pathlib import Path

import torch
from splitpoint.partition.bundle.bundle import Bundle, open_bundle
from splitpoint.proto.limits import MAX_BATCH_PER_FRAME, max_frame_bytes

from .backend import Backend
from .compute.loaded_model import LoadedModel
from .errors import ServeError
from .fronts.front import Front
from .gpu.gpu import LAUNCHING


def frame_bytes(bundle: Bundle) -> int:
    """The largest message that a frame or an answer of this model can be."""
    boundaries = [boundary.tensors for boundary in bundle.manifest.boundaries]
    return max_frame_bytes(boundaries, MAX_BATCH_PER_FRAME)


class ModelSet:
    """Loads models into a backend, and lets them go again.

    `load` gives a bundle's model on the device of that number.
    Loading and timing a model is the compute thread's work, and frames of the others wait for it.
    `changed` is called after each change.
    """

    def __init__(
        self,
        backend: Backend,
        front: Front,
        load: Callable[[Path, int], LoadedModel],
        *,
        max_frame_bytes: int,
        changed: Callable[[str], Awaitable[None]],
    ) -> None:
        self._front, self._load = front, load
        self._models, self._engine = backend.models, backend.engine
        self._figures = backend.service.services.figures
        self._max_frame_bytes, self._changed = max_frame_bytes, changed
        self._kept: set[str] = set()

    @property
    def digests(self) -> Set[str]:
        """Of the bundles that are served."""
        return self._models.keys()

    async def add(self, folder: Path, *, keep: bool = False) -> str:
        """Serves the bundle in `folder` and tells its digest; with `keep` it is never removed.

        Raises `BundleError` or `ServeError` for one that cannot be served.
        """
        bundle = await asyncio.to_thread(open_bundle, folder, verify_files=False)
        if keep:
            self._kept.add(bundle.digest)
        if bundle.digest in self._models:
            return bundle.digest
        if frame_bytes(bundle) > self._max_frame_bytes:
            raise ServeError(
                f"frames of {bundle.manifest.name} take up to {frame_bytes(bundle) / 1e6:.0f} MB, "
                f"and the worker was started for {self._max_frame_bytes / 1e6:.0f} MB",
                "start it again with this bundle on the command line",
            )
        model = await self._engine.load_model(lambda number: self._load(folder, number))
        self._figures.of(model)
        try:
            await self._front.offer(model)
        except BaseException:
            self._engine.forget(model)
            self._figures.forget(bundle.digest)
            raise
        self._models[bundle.digest] = model
        await self._changed(f"{model.bundle.manifest.name} is served from {folder}")
        return bundle.digest

    async def remove(self, digest: str, grace_s: float) -> None:
        """Drains the model's streams, ends them, and frees its memory."""
        if digest in self._kept or digest not in self._models:
            return
        model = self._models.pop(digest)
        name = model.bundle.manifest.name
        await self._changed(f"{name} ({digest[:12]}) is not served any more")
        await self._front.withdraw(model, grace_s)
        self._engine.forget(model)
        self._figures.forget(digest)
        del model
        await asyncio.to_thread(_free_memory)


def _free_memory() -> None:
    """Modules and streams refer to themselves; and torch keeps what it had from the GPU."""
    with LAUNCHING:  # not while an engine captures, as its graphs go, too
        gc.collect()
        if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
            torch.cuda.empty_cache()
