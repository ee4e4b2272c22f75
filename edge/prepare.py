"""Gets the device ready: which model, which plan, and the segments that the plan needs."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from splitpoint.partition.bundle import Manifest, open_bundle
from splitpoint.partition.plan import Plan
from splitpoint.proto import splitpoint_pb2 as pb

from .cache import BundleCache
from .channel import WorkerChannel
from .errors import AgentError


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """What an agent needs before its first frame; `onnx` are the segments [0, plan.boundary)."""

    manifest: Manifest
    digest: str
    labels: list[str]
    plan: Plan
    onnx: list[Path]


async def prepare(
    server: str | None,
    *,
    bundle: Path | None,
    model: str,
    make_plan: Callable[[Manifest], Plan],
    cache: Path,
) -> Prepared:
    """Reads the local `bundle`, or fetches what is needed of the worker's into `cache`.

    Raises `AgentError` when the plan needs a worker and there is none, or when the worker serves
    no such model, and whatever the bundle, the plan, the wire and the cache raise.
    """
    if bundle is not None:
        prepared = await asyncio.to_thread(_from_bundle, bundle, make_plan)
        if server is None and prepared.plan.boundary < len(prepared.manifest.segments):
            raise AgentError(
                f"the split at boundary {prepared.plan.boundary} needs a worker",
                "give --server HOST:PORT, or --split local",
            )
        return prepared
    assert server is not None  # the agent was given one or the other
    channel = WorkerChannel(server)
    try:
        return await _from_worker(channel, model, make_plan, cache)
    finally:
        await channel.close()


def _from_bundle(folder: Path, make_plan: Callable[[Manifest], Plan]) -> Prepared:
    opened = open_bundle(folder)
    plan = make_plan(opened.manifest)
    needed = opened.manifest.segments[: plan.boundary]
    return Prepared(
        manifest=opened.manifest,
        digest=opened.digest,
        labels=opened.labels(),
        plan=plan,
        onnx=[opened.path(segment.onnx) for segment in needed],
    )


async def _from_worker(
    channel: WorkerChannel, model: str, make_plan: Callable[[Manifest], Plan], folder: Path
) -> Prepared:
    info = _pick_model((await channel.describe()).models, model, channel.server)
    cache = BundleCache(folder, info.digest, channel.fetch)
    manifest = await cache.manifest(info.manifest_bytes)
    plan = make_plan(manifest)
    onnx = []
    for segment in manifest.segments[: plan.boundary]:
        # The ONNX file refers to the weights beside it.
        await cache.get(segment.weights, manifest.files[segment.weights])
        onnx.append(await cache.get(segment.onnx, manifest.files[segment.onnx]))
    labels: list[str] = []
    if manifest.labels_file is not None:
        path = await cache.get(manifest.labels_file, manifest.files[manifest.labels_file])
        labels = path.read_text(encoding="utf-8").splitlines()
    return Prepared(manifest=manifest, digest=info.digest, labels=labels, plan=plan, onnx=onnx)


def _pick_model(models: Iterable[pb.ModelInfo], name: str, server: str) -> pb.ModelInfo:
    found = [model for model in models if name in ("", model.name)]
    if len(found) == 1:
        return found[0]
    names = ", ".join(sorted(model.name for model in models))
    if not found:
        raise AgentError(f"{server} does not serve {name!r}", f"it serves {names}")
    raise AgentError(f"{server} serves several models", f"name one with --model: {names}")
