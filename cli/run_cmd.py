"""`splitpoint run`."""

from __future__ import annotations

import asyncio
import math
import re
import signal
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich.table import Table
from splitpoint.codec import Array
from splitpoint.edge import AutoPlan, EdgeAgent, Given, Result
from splitpoint.edge.sources import pictures
from splitpoint.partition.energy import choose_meter
from splitpoint.partition.errors import PictureError
from splitpoint.partition.link import parse_link
from splitpoint.partition.objective import Constraints, Objective
from splitpoint.partition.samples import find_pictures

from .output import human_bytes, out, print_json, say, setup_logging
from .profile_cmd import names_in, power_model_of

_TOP = 5


def run(
    source: Annotated[str, typer.Option(help="Image file, glob or folder.", show_default=False)],
    server: Annotated[str, typer.Option(help="The worker, HOST:PORT.", show_default=False)] = "",
    bundle: Annotated[
        Path | None,
        typer.Option(help="A local bundle instead of fetching from the worker."),
    ] = None,
    model: Annotated[str, typer.Option(help="Which, if the worker serves several.")] = "",
    split: Annotated[
        str,
        typer.Option(help="auto (measured and planned), input, local, or a boundary's number."),
    ] = "auto",
    codec: Annotated[
        str,
        typer.Option(
            help="auto, raw, fp16, q8, q4, fkt, fkt@3, fkt-video, jpeg, jpeg@75, webp, png."
        ),
    ] = "auto",
    objective: Annotated[
        str,
        typer.Option(help="What auto aims at: latency, energy, throughput, server-cost, or a mix."),
    ] = "latency",
    max_accuracy_drop: Annotated[
        float | None,
        typer.Option(
            help="Most answers that may change, in %: the upper bound of what calibration saw.",
            show_default="what a JPEG loses",
        ),
    ] = None,
    max_kb_per_frame: Annotated[
        float | None,
        typer.Option(help="Most kB of a frame's payload; larger ones go in a coarser level."),
    ] = None,
    link: Annotated[
        str,
        typer.Option(
            help="What auto plans for, as in lte or 5.85mbps,50ms.", show_default="probed"
        ),
    ] = "",
    profile: Annotated[
        Path | None,
        typer.Option(
            help="The device's profile for auto.",
            show_default="measured once and kept in the cache",
        ),
    ] = None,
    runtime: Annotated[
        str, typer.Option(help="auto, onnxruntime, onnxruntime-int8, or torch (if installed).")
    ] = "auto",
    providers: Annotated[
        str,
        typer.Option(
            help="onnxruntime's execution providers, as in cuda,cpu.",
            show_default="the fastest that are here",
        ),
    ] = "",
    threads: Annotated[int, typer.Option(help="The runtime's threads, 0: one a core.", min=0)] = 0,
    slowdown: Annotated[
        float, typer.Option(help="Stretch edge compute to play a slower device (emulated).", min=1)
    ] = 1.0,
    budget_ms: Annotated[
        float, typer.Option(help="Time for a frame; near its end the device finishes it.", min=1)
    ] = 10_000.0,
    finish_locally: Annotated[
        bool,
        typer.Option(help="Finish on the device what the cloud does not answer in time."),
    ] = True,
    repeat: Annotated[int, typer.Option(help="Go over the source so many times.", min=1)] = 1,
    in_flight: Annotated[
        int, typer.Option(help="Most frames under way, 0: what the worker allows.", min=0)
    ] = 0,
    cache: Annotated[
        Path | None, typer.Option(help="Where fetched segments are kept.", show_default=False)
    ] = None,
    save_outputs: Annotated[
        Path | None, typer.Option(help="Write every frame's outputs as DIR/ID-NAME.npy.")
    ] = None,
    json_: Annotated[
        bool, typer.Option("--json", help="One JSON line a frame, then a summary.")
    ] = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v")] = False,
) -> None:
    """Run the edge agent: the device's half of every frame.

    Segments are fetched from the worker once and kept in a verified cache.
    """
    setup_logging(verbose)
    paths = find_pictures(source)
    aim = Objective.parse(objective)
    needs_energy = "energy" in aim.weights
    power = power_model_of("") if needs_energy else None
    auto = AutoPlan(
        objective=aim,
        constraints=Constraints(
            max_accuracy_drop=None if max_accuracy_drop is None else max_accuracy_drop / 100,
            max_kb_per_frame=max_kb_per_frame,
        ),
        link=parse_link(link) if link else None,
        profile=profile,
        pictures=tuple(paths),
        meter=choose_meter("auto", model=power) if needs_energy else None,
        power=power,
        progress=_progress,
    )
    agent = EdgeAgent(
        server or None,
        bundle=bundle,
        model=model,
        split=split,
        codec=codec,
        auto=auto,
        cache=cache,
        runtime=runtime,
        providers=names_in(providers),
        threads=threads,
        slowdown=slowdown,
        budget_ms=budget_ms,
        finish_locally=finish_locally,
        max_frame_bytes=math.inf if max_kb_per_frame is None else 1e3 * max_kb_per_frame,
    )
    if save_outputs is not None:
        save_outputs.mkdir(parents=True, exist_ok=True)
    report = _Report(agent, as_json=json_, slowdown=slowdown, folder=save_outputs)
    asyncio.run(_run(agent, paths * repeat, in_flight, report))
    report.finish()
    if report.count and report.answered == 0:
        raise typer.Exit(1)


def _progress(what: str, done: int, total: int) -> None:
    if done == 0:
        say("measuring this device; the profile is kept in the cache")
    if done < total:
        say(f"[{done + 1}/{total}] {what}")


async def _run(agent: EdgeAgent, paths: list[Path], in_flight: int, report: _Report) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    starting = asyncio.create_task(agent.__aenter__())
    stopping = asyncio.create_task(stop.wait())
    await asyncio.wait((starting, stopping), return_when=asyncio.FIRST_COMPLETED)
    if not starting.done():
        starting.cancel()
        await asyncio.gather(starting, return_exceptions=True)
        return
    starting.result()
    try:
        picture = agent.manifest.picture
        if picture is None:
            raise PictureError(
                f"{agent.manifest.name} does not take pictures",
                "feed it from Python with splitpoint.edge.EdgeAgent",
            )
        boundary = agent.manifest.boundaries[agent.plan.boundary]
        say(
            f"{agent.manifest.name}: boundary {boundary.id} after {boundary.after or 'the input'}, "
            f"codec {agent.plan.codec}, in {agent.plan.runtime} ({agent.plan.why})"
        )
        if agent.link is not None:
            say(
                f"planned for {agent.link.uplink_mbps:.3g} Mbit/s up, "
                f"{agent.link.round_trip_ms:.3g} ms round trip ({agent.link.source})"
            )
        tensor = agent.manifest.boundaries[0].tensors[0].name
        frames = pictures(paths, picture, tensor)
        async for result in agent.stream(_until(frames, stop), in_flight):
            report.add(result)
    finally:
        stopping.cancel()
        await agent.__aexit__(None, None, None)


async def _until(frames: AsyncIterator[Given], stop: asyncio.Event) -> AsyncIterator[Given]:
    """Frames until the user stops; those that were taken are finished."""
    async for given in frames:
        if stop.is_set():
            return
        yield given


class _Report:
    """Prints each result, and the summary at the end."""

    def __init__(
        self, agent: EdgeAgent, *, as_json: bool, slowdown: float, folder: Path | None
    ) -> None:
        self._agent, self._as_json, self._folder = agent, as_json, folder
        self._slowdown = slowdown
        self._times: list[float] = []
        self._bytes_up = 0
        self._outcomes: Counter[str] = Counter()

    @property
    def count(self) -> int:
        return sum(self._outcomes.values())

    @property
    def answered(self) -> int:
        return self._outcomes["answered"] + self._outcomes["local"]

    def add(self, result: Result) -> None:
        self._outcomes[result.outcome.value] += 1
        self._bytes_up += result.bytes_up
        if result.outputs:
            self._times.append(result.total_ms)
        if self._folder is not None:
            _save(result, self._folder)
        top = self._top(result.outputs)
        if self._as_json:
            print_json(self._line(result, top))
        elif result.error is not None:
            say(f"{result.id} {result.metadata}: {result.outcome.value}: {result.error}")
        else:
            best = f"{top[0]['label']} {top[0]['score']:.3f}" if top else "done"
            stages = "  ".join(
                f"{name} {ms:.1f}" for name, ms in result.stages_ms.to_json().items() if ms
            )
            out.print(
                f"{result.id:>4}  {Path(str(result.metadata)).name}  {best}  "
                f"{result.total_ms:.1f} ms ({stages})  {human_bytes(result.bytes_up)} up",
                soft_wrap=True,
                markup=False,
            )

    def finish(self) -> None:
        """The summary line."""
        percentiles = {
            f"p{p}_ms": round(float(np.percentile(self._times, p)), 3) if self._times else None
            for p in (50, 95, 99)
        }
        outcomes = {
            name: self._outcomes[name] for name in ("answered", "local", "expired", "failed")
        }
        summary: dict[str, Any] = {
            "frames": self.count,
            "outcomes": outcomes,
            **percentiles,
            "bytes_up": self._bytes_up,
            "energy_mj": None,
            "energy_kind": "none",
        }
        if self._slowdown > 1:
            summary["emulated"] = f"edge compute slowed down {self._slowdown:g} times"
        if self._as_json:
            print_json({"summary": summary})
            return
        table = Table(show_header=False, box=None)
        table.add_row("frames", str(self.count))
        for name, number in outcomes.items():
            if number:
                table.add_row(name, str(number))
        for name, value in percentiles.items():
            if value is not None:
                table.add_row(name.removesuffix("_ms"), f"{value:.1f} ms")
        table.add_row("sent", human_bytes(self._bytes_up))
        if "emulated" in summary:
            table.add_row("emulated", summary["emulated"])
        out.print(table)

    def _line(self, result: Result, top: list[dict[str, Any]]) -> dict[str, Any]:
        line: dict[str, Any] = {
            "id": result.id,
            "source": result.metadata,
            "outcome": result.outcome.value,
            "split": result.boundary,
            "codec": result.codec,
            "bytes_up": result.bytes_up,
            "top": top,
            "stages_ms": result.stages_ms.to_json(),
            "total_ms": round(result.total_ms, 3),
        }
        if result.error is not None:
            line["error"] = str(result.error)
        if self._slowdown > 1:
            line["emulated"] = True
        return line

    def _top(self, outputs: Mapping[str, Array]) -> list[dict[str, Any]]:
        if not self._agent.manifest.classifies or not outputs:
            return []
        logits = next(iter(outputs.values()))[0].astype(np.float64)
        scores = np.exp(logits - logits.max())
        scores /= scores.sum()
        labels = self._agent.labels
        return [
            {
                "label": labels[i] if i < len(labels) else str(i),
                "index": int(i),
                "score": round(float(scores[i]), 6),
            }
            for i in np.argsort(-scores, kind="stable")[:_TOP]
        ]


def _save(result: Result, folder: Path) -> None:
    for name, array in result.outputs.items():
        safe = re.sub(r"[^A-Za-z0-9_.-]", "_", name)
        np.save(folder / f"{result.id:06}-{safe}.npy", array)
