"""`splitpoint plan`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table
from splitpoint.partition.bundle.bundle import Bundle, open_bundle
from splitpoint.partition.bundle.segment_files import INT8
from splitpoint.partition.energy.radio import RADIOS, radio_for
from splitpoint.partition.errors import PlanError
from splitpoint.partition.plan.breakeven import Interval
from splitpoint.partition.plan.costs import cost_table
from splitpoint.partition.plan.link import Link, parse_link
from splitpoint.partition.plan.objective import Constraints, Objective
from splitpoint.partition.plan.plan import check_codec_to_plan_with, name_of
from splitpoint.partition.plan.planner import Prediction, Report, make_plan
from splitpoint.partition.profile.cloud_times import CloudTimes
from splitpoint.partition.profile.devices import device_named
from splitpoint.partition.profile.profile import Profile, load_profile
from splitpoint.partition.profile.scale import scale_profile
from splitpoint.partition.significant import significant

from ..page.page import write_page
from ..page.three_answers import three_answers
from ..shell.output import human_bytes, out, print_json, say
from ..shell.shared_options import BundleArgument, MaxAccuracyDrop, MustRunOnEdge
from .profile import power_model_of

_CONDITIONS, _LIMITS, _OTHER = "Conditions", "Constraints", "Output"


def plan(
    bundle: BundleArgument,
    edge: Annotated[
        list[Path],
        typer.Option(help="Profile of the device; once for each runtime.", show_default=False),
    ],
    cloud: Annotated[
        Path, typer.Option(help="Profile of the worker's machine.", show_default=False)
    ],
    link: Annotated[
        str, typer.Option(help="3g, lte, wifi, ethernet, 5.85mbps,50ms, or a CSV trace.")
    ] = "lte",
    objective: Annotated[
        str,
        typer.Option(
            help="latency, energy, bytes, throughput, server-cost, or latency=2,energy=1."
        ),
    ] = "latency",
    queue_ms: Annotated[
        float,
        typer.Option(
            help="How long a frame waits at the worker.", min=0, rich_help_panel=_CONDITIONS
        ),
    ] = 0.0,
    server_slowdown: Annotated[
        float,
        typer.Option(
            help="How many times slower the worker is than its profile, under load.",
            min=0.01,
            rich_help_panel=_CONDITIONS,
        ),
    ] = 1.0,
    edge_device: Annotated[
        str,
        typer.Option(
            help="Scale the edge profile to this device: pi4, pi5, jetson-nano, … (modelled).",
            rich_help_panel=_CONDITIONS,
        ),
    ] = "",
    cloud_device: Annotated[
        str,
        typer.Option(
            help="Scale the cloud profile to this device: t4, a10, h100, … (modelled).",
            rich_help_panel=_CONDITIONS,
        ),
    ] = "",
    radio: Annotated[
        str,
        typer.Option(
            help="Whose energy the upload costs: lte, 3g, wifi, none (modelled).",
            show_default="by the link",
            rich_help_panel=_CONDITIONS,
        ),
    ] = "",
    power_model: Annotated[
        str,
        typer.Option(
            help="The device whose power is taken where a profile has none (modelled).",
            rich_help_panel=_CONDITIONS,
        ),
    ] = "",
    codec: Annotated[
        list[str] | None,
        typer.Option(help="Only this codec; repeatable.", rich_help_panel=_LIMITS),
    ] = None,
    deadline_ms: Annotated[
        float | None,
        typer.Option(
            help="For the 95th percentile; in `run` it is --budget-ms.", rich_help_panel=_LIMITS
        ),
    ] = None,
    max_accuracy_drop: MaxAccuracyDrop = None,
    max_edge_mb: Annotated[
        float | None, typer.Option(help="Memory of the agent.", rich_help_panel=_LIMITS)
    ] = None,
    max_kb_per_frame: Annotated[
        float | None, typer.Option(help="Upload of one frame.", rich_help_panel=_LIMITS)
    ] = None,
    min_fps: Annotated[
        float | None,
        typer.Option(
            help="Rate of a stream whose stages overlap; `run` goes by its source's.",
            rich_help_panel=_LIMITS,
        ),
    ] = None,
    must_run_on_edge: MustRunOnEdge = None,
    must_not_upload_input: Annotated[
        bool, typer.Option(help="The picture itself stays.", rich_help_panel=_LIMITS)
    ] = False,
    html: Annotated[
        Path | None,
        typer.Option(help="Write a page with charts, in one file.", rich_help_panel=_OTHER),
    ] = None,
    all_: Annotated[
        bool, typer.Option("--all", help="Print every candidate.", rich_help_panel=_OTHER)
    ] = False,
    json_: Annotated[
        bool,
        typer.Option("--json", help="One JSON document on stdout.", rich_help_panel=_OTHER),
    ] = False,
) -> None:
    """Choose the split: predict every boundary, codec and rival, and rank them for a link.

    Sending the input and running all on the device are candidates like the others.
    """
    opened = open_bundle(bundle)
    manifest = opened.manifest
    chosen_link = parse_link(link)
    edges = [load_profile(path, opened.digest) for path in edge]
    worker = load_profile(cloud, opened.digest)
    if worker.runtime == INT8:
        raise PlanError(
            f"{cloud} was measured in {INT8}, which no worker runs",
            "measure it with `splitpoint profile` on the worker's machine",
        )
    if radio and radio not in RADIOS:
        raise PlanError(f"unknown radio {radio!r}", f"use one of {', '.join(RADIOS)}")
    if edge_device:
        edges = [_scaled(profile, opened, edge_device) for profile in edges]
    if cloud_device:
        worker = _scaled(worker, opened, cloud_device)
    table = cost_table(
        manifest,
        edges,
        CloudTimes.from_profile(worker),
        radio=radio_for(radio or chosen_link.name),
        power=power_model_of(power_model or edge_device) if power_model or edge_device else None,
        codecs=frozenset(codec) if codec else None,
    )
    for name in codec or ():
        check_codec_to_plan_with(name)
        if name not in {part for found in table.codec for part in (found, found.partition("@")[0])}:
            say(
                f"note: no candidate uses {name}: no boundary carries it, or it was not calibrated "
                "(`splitpoint compile --calibrate`) or learned (`splitpoint learn`)"
            )
    report = make_plan(
        manifest,
        table,
        chosen_link,
        objective=Objective.parse(objective),
        constraints=Constraints(
            deadline_ms=deadline_ms,
            max_accuracy_drop=None if max_accuracy_drop is None else max_accuracy_drop / 100,
            max_edge_mb=max_edge_mb,
            max_kb_per_frame=max_kb_per_frame,
            min_fps=min_fps,
            must_run_on_edge=tuple(must_run_on_edge or ()),
            must_not_upload_input=must_not_upload_input,
        ),
        queue_ms=queue_ms,
        server_factor=server_slowdown,
    )
    for note in report.notes:
        say(f"note: {note}")
    for profile in [*edges, worker]:
        for how in (profile.modelled, profile.emulated):
            if how:
                say(f"note: {profile.device}: {how}")
    if html is not None:
        write_page(
            html,
            manifest,
            table,
            report,
            chosen_link,
            edges[0],
            worker,
            queue_ms=queue_ms,
            server_factor=server_slowdown,
        )
        say(f"written to {html}")
    if json_:
        found = {answer.question: answer.to_json() for answer in three_answers(report.candidates)}
        print_json(report.to_json() | {"answers": found})
        return
    _print(report, chosen_link, all_)


def _scaled(profile: Profile, bundle: Bundle, name: str) -> Profile:
    return scale_profile(profile, bundle.manifest.layers, device_named(name))


def _print(report: Report, link: Link, everything: bool) -> None:
    shown = report.candidates
    if not everything:  # the best codec of each boundary tells the story
        best: dict[tuple[int, str], Prediction] = {}
        for candidate in shown:
            best.setdefault((candidate.boundary, candidate.runtime), candidate)
        shown = tuple(best.values())
    table = Table(
        title=f"{link.name}: {significant(link.uplink_mbps)} Mbit/s up, "
        f"{significant(link.round_trip_ms)} ms round trip ({link.source})",
        title_justify="left",
    )
    table.add_column("candidate")
    several = len({candidate.runtime for candidate in report.candidates}) > 1
    for column in ("ms", "p95", "edge", "enc", "up", "cloud", "sent", "mJ", "drop", "MB", "fps"):
        table.add_column(column, justify="right")
    table.add_column("why", overflow="fold")
    for candidate in shown:
        stages = candidate.stages_ms
        table.add_row(
            name_of(candidate.boundary, candidate.codec)
            + (f" in {candidate.runtime}" if several else ""),
            f"{candidate.latency_ms:.1f}",
            f"{candidate.p95_ms:.1f}",
            f"{stages['edge']:.1f}",
            f"{stages['encode']:.1f}",
            f"{stages['uplink'] + stages['downlink']:.1f}",
            f"{stages['cloud'] + stages['queue']:.1f}",
            human_bytes(candidate.bytes_up),
            "" if candidate.energy_mj is None else f"{candidate.energy_mj:.0f}",
            _drop(candidate.accuracy_drop, candidate.drop_bound, candidate.worst_error),
            "" if candidate.edge_mb is None else f"{candidate.edge_mb:.0f}",
            f"{candidate.fps:.1f}",
            candidate.why,
            style=None if candidate.feasible else "dim",
        )
    out.print(table)
    kinds = {candidate.energy_kind for candidate in shown}
    out.print(f"energy of the device: {' or '.join(sorted(kinds))}", soft_wrap=True)
    chosen = report.chosen
    runtime = f" in {chosen.runtime}" if several else ""
    out.print(
        f"chosen: {name_of(chosen.boundary, chosen.codec)}{runtime}, {chosen.why}", soft_wrap=True
    )
    for answer in three_answers(report.candidates):
        out.print(answer.line, soft_wrap=True)
    out.print(f"by uplink: {in_words(report.uplinks, 'Mbit/s')}", soft_wrap=True)
    out.print(f"by waiting at the worker: {in_words(report.queues, 'ms')}", soft_wrap=True)


def _drop(drop: float | None, bound: float | None, error: float | None) -> str:
    """`3 % <6`: what calibration saw, and what it may be at most; `?` where nothing was seen.

    Of a model that is no classifier `error 0.4 %`, the worst of any value.
    """
    if drop is None or bound is None:
        return "?" if error is None else f"error {significant(100 * error, 2)} %"
    return "0" if bound == 0 else f"{100 * drop:.0f} % <{math.ceil(100 * bound)}"


def in_words(intervals: Sequence[Interval], unit: str) -> str:
    """`all on the device wins below 0.9 Mbit/s; the input as jpeg wins above 41 Mbit/s`."""
    parts = []
    for interval in intervals:
        where = interval.where(unit)
        where = f"from {where}" if where[0].isdigit() else where
        parts.append(f"{name_of(interval.boundary, interval.codec)} wins {where}")
    return "; ".join(parts)
