"""`splitpoint run`.

Longer than others: each option takes some lines.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from splitpoint.edge import AgentOptions, AutoPlan, EdgeAgent
from splitpoint.edge.discovery.search import LOOK_S
from splitpoint.edge.errors import AgentError
from splitpoint.edge.figures.run_costs import RunCosts, Tariff
from splitpoint.edge.figures.run_energy import RunEnergy
from splitpoint.edge.figures.run_stats import RunStats
from splitpoint.edge.finding import ANYWHERE
from splitpoint.edge.meaning import MIN_SCORE
from splitpoint.edge.sinks.events import MOST_MB
from splitpoint.edge.sinks.sink import Sink
from splitpoint.edge.sources.find import sayable
from splitpoint.edge.sources.named import NamedSource, SourceWords, named_sources
from splitpoint.partition.energy.find import choose_meter
from splitpoint.partition.energy.meter import EnergyMeter
from splitpoint.partition.energy.power_model import PowerModel
from splitpoint.partition.plan.link import parse_link
from splitpoint.partition.plan.objective import Constraints, Objective
from splitpoint.partition.tasks.user_head import allow_head as trust_head
from splitpoint.proto.tasks import run_in_loop

from ..run.live_table import LiveTable
from ..run.no_source import NoSource
from ..run.result_lines import FrameDocument, JsonLines, PlainLines
from ..run.session import RunSession
from ..run.sinks import SinkWords, slow_sinks
from ..run.slow_sinks import SlowSinks
from ..run.source_counts import SourceCounts
from ..run.summary import print_summary
from ..run.together import Together
from ..shell.config_file import config_option
from ..shell.credentials_options import Insecure, TlsCa, TlsCert, TlsKey, TokenFile, credentials_of
from ..shell.output import err, say, setup_logging
from ..shell.shared_options import (
    AllowHead,
    Energy,
    MaxAccuracyDrop,
    MustRunOnEdge,
    PowerModelName,
    Providers,
)
from .profile import names_in, power_model_of

if TYPE_CHECKING:
    from splitpoint.edge.metrics import MetricsSink

    from ..service.service import HttpService

SOURCES, SINKS = "Sources", "Answers elsewhere"


def _command() -> Callable[..., object]:
    return run


def run(
    source: Annotated[
        list[str] | None,
        typer.Option(
            help="Image, video, .npy or .npz file, glob, folder, watch:FOLDER, a camera's index, "
            "picamera, rtsp://… or http://… (MJPEG or snapshots), or - for paths of files on "
            "stdin, one a line. Several: NAME=SOURCE each. Needed unless --http is given.",
            show_default=False,
        ),
    ] = None,
    config: Annotated[Path | None, config_option(_command)] = None,
    server: Annotated[
        str,
        typer.Option(
            help="The worker, HOST:PORT; several with commas; auto: those that announce "
            "themselves in the local network (mDNS).",
            show_default=False,
        ),
    ] = "",
    tls_ca: TlsCa = None,
    tls_cert: TlsCert = None,
    tls_key: TlsKey = None,
    token_file: TokenFile = None,
    insecure: Insecure = False,
    bundle: Annotated[
        Path | None,
        typer.Option(help="A local bundle instead of fetching from the worker."),
    ] = AgentOptions.bundle,
    model: Annotated[
        str, typer.Option(help="Which, if the worker serves several.")
    ] = AgentOptions.model,
    allow_head: AllowHead = None,
    pin: Annotated[
        str,
        typer.Option(
            help="Only the bundle with this digest (its first digits), from the cache or a worker.",
            show_default="the one that the workers serve",
        ),
    ] = AgentOptions.pin,
    fps: Annotated[
        list[str] | None,
        typer.Option(
            help="Most frames a second, or NAME=FPS for one source.",
            show_default="all; snapshots: 1",
            rich_help_panel=SOURCES,
        ),
    ] = None,
    region: Annotated[
        list[str] | None,
        typer.Option(
            help="Only this part of the pictures: x,y,width,height in pixels; or NAME=REGION.",
            rich_help_panel=SOURCES,
        ),
    ] = None,
    mask: Annotated[
        list[str] | None,
        typer.Option(
            help="A picture whose black parts are hidden from the model; or NAME=FILE.",
            rich_help_panel=SOURCES,
        ),
    ] = None,
    motion: Annotated[
        list[str] | None,
        typer.Option(
            help="Skip frames of which no more than so many percent of the area have changed, "
            "as in 0.5; or NAME=PERCENT.",
            rich_help_panel=SOURCES,
        ),
    ] = None,
    watch: Annotated[
        bool, typer.Option("--watch", help="Go on with what is written into the folder.")
    ] = False,
    split: Annotated[
        str,
        typer.Option(help="auto (measured and planned), input, local, or a boundary's number."),
    ] = AgentOptions.split,
    codec: Annotated[
        str,
        typer.Option(
            help="auto, raw, fp16, q8, q4, fkt, fkt@3, fkt-video, learned, learned-video, jpeg, "
            "jpeg@75, webp, png."
        ),
    ] = AgentOptions.codec,
    adapt: Annotated[
        bool, typer.Option(help="With --split auto: choose for each frame, not once.")
    ] = AgentOptions.adapt,
    objective: Annotated[
        str,
        typer.Option(
            help="What auto aims at: latency, energy (beyond idle), bytes, throughput, "
            "server-cost, or a mix."
        ),
    ] = "latency",
    max_accuracy_drop: MaxAccuracyDrop = None,
    max_kb_per_frame: Annotated[
        float | None,
        typer.Option(
            help="Most kB of a frame's payload; larger ones go in a coarser level.",
            rich_help_panel="Constraints",
        ),
    ] = None,
    max_edge_mb: Annotated[
        float | None,
        typer.Option(
            help="Most MB that the segments on the device may take.", rich_help_panel="Constraints"
        ),
    ] = AgentOptions.max_edge_mb,
    must_run_on_edge: MustRunOnEdge = None,
    must_not_upload_input: Annotated[
        bool,
        typer.Option(
            "--must-not-upload-input",
            help="The picture itself stays.",
            rich_help_panel="Constraints",
        ),
    ] = False,
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
    price_per_gb: Annotated[
        float | None,
        typer.Option(help="What a GB up costs: the summary says what a month would."),
    ] = None,
    battery_wh: Annotated[
        float | None,
        typer.Option(help="What a full battery holds: the summary says how long it would last."),
    ] = None,
    energy: Energy = "auto",
    power_model: PowerModelName = "",
    runtime: Annotated[
        str, typer.Option(help="auto, onnxruntime, onnxruntime-int8, or torch (if installed).")
    ] = AgentOptions.runtime,
    providers: Providers = "",
    threads: Annotated[
        int, typer.Option(help="The runtime's threads, 0: one a core.", min=0)
    ] = AgentOptions.threads,
    slowdown: Annotated[
        float, typer.Option(help="Stretch edge compute to play a slower device (emulated).", min=1)
    ] = AgentOptions.slowdown,
    budget_ms: Annotated[
        float,
        typer.Option(
            help="Time for a frame, like --deadline-ms of `plan`; near its end the device "
            "finishes it.",
            min=1,
        ),
    ] = AgentOptions.budget_ms,
    finish_locally: Annotated[
        bool,
        typer.Option(help="Finish on the device what the cloud does not answer in time."),
    ] = AgentOptions.finish_locally,
    hedge: Annotated[
        bool,
        typer.Option(help="Begin to finish on the device what is later than 95 % of the answers."),
    ] = AgentOptions.hedge,
    repeat: Annotated[int, typer.Option(help="Go over the files so many times.", min=1)] = 1,
    in_flight: Annotated[
        int, typer.Option(help="Most frames under way, 0: what the worker allows.", min=0)
    ] = 0,
    cache: Annotated[
        Path | None, typer.Option(help="Where fetched segments are kept.", show_default=False)
    ] = None,
    max_cache_mb: Annotated[
        float, typer.Option(help="Most MB of fetched bundles; the oldest go first.", min=0)
    ] = AgentOptions.max_cache_mb,
    save_outputs: Annotated[
        Path | None, typer.Option(help="Write every frame's outputs as DIR/ID-NAME.npy.")
    ] = None,
    save_annotated: Annotated[
        Path | None,
        typer.Option(help="Write every photo as DIR/ID-NAME.jpg with what was found drawn on it."),
    ] = None,
    mqtt: Annotated[
        str,
        typer.Option(
            help="Publish each frame's JSON to a broker: mqtt://user@host:1883/topic, or mqtts://.",
            show_default=False,
            rich_help_panel=SINKS,
        ),
    ] = "",
    mqtt_password_file: Annotated[
        Path | None,
        typer.Option(help="The password for it.", show_default=False, rich_help_panel=SINKS),
    ] = None,
    mqtt_ca: Annotated[
        Path | None,
        typer.Option(
            help="The CA (PEM) of the broker's certificate.",
            show_default="the system's",
            rich_help_panel=SINKS,
        ),
    ] = None,
    webhook: Annotated[
        str,
        typer.Option(
            help="POST each frame's JSON to an http:// or https:// address.",
            show_default=False,
            rich_help_panel=SINKS,
        ),
    ] = "",
    webhook_token_file: Annotated[
        Path | None,
        typer.Option(help="A Bearer token for it.", show_default=False, rich_help_panel=SINKS),
    ] = None,
    events: Annotated[
        Path | None,
        typer.Option(
            help="Append each frame's JSON to DIR/DAY.NUMBER.jsonl.",
            show_default=False,
            rich_help_panel=SINKS,
        ),
    ] = None,
    events_max_mb: Annotated[
        float,
        typer.Option(
            help="Most MB of these files; the oldest go first.", min=1, rich_help_panel=SINKS
        ),
    ] = MOST_MB,
    min_score: Annotated[
        float, typer.Option(help="Detections below this score are not shown.", min=0, max=1)
    ] = MIN_SCORE,
    metrics_port: Annotated[
        int | None,
        typer.Option(help="Serve Prometheus metrics here; 0: any free port.", min=0, max=65535),
    ] = None,
    metrics_host: Annotated[str, typer.Option(help="The address for that.")] = "127.0.0.1",
    http: Annotated[
        str,
        typer.Option(
            help="Answer HTTP requests at HOST:PORT while the run lasts, and show it on a page.",
            show_default=False,
        ),
    ] = "",
    http_token_file: Annotated[
        Path | None,
        typer.Option(
            help="A file with the token that --http asks for; needed if other machines reach it.",
            show_default=False,
        ),
    ] = None,
    json_: Annotated[
        bool, typer.Option("--json", help="One JSON line a frame, then a summary.")
    ] = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Log more.")] = False,
) -> None:
    """Run the edge agent: the device's half of every frame.

    Segments are fetched from the worker once and kept in a verified cache. Ctrl-C or SIGTERM
    finishes the frames that are under way; a second one ends at once.
    """
    setup_logging(verbose)
    for head in allow_head or ():
        trust_head(head)
    credentials = credentials_of(tls_ca, tls_cert, tls_key, token_file, insecure)
    aim = Objective.parse(objective)
    tariff = Tariff(price_per_gb=price_per_gb, battery_wh=battery_wh)
    power = power_model_of(power_model)
    constraints = Constraints(
        max_accuracy_drop=None if max_accuracy_drop is None else max_accuracy_drop / 100,
        max_kb_per_frame=max_kb_per_frame,
        max_edge_mb=max_edge_mb,
        must_run_on_edge=tuple(must_run_on_edge or ()),
        must_not_upload_input=must_not_upload_input,
    )
    words = SourceWords(fps=fps or (), region=region or (), mask=mask or (), motion=motion or ())
    if not source and not http:
        raise typer.BadParameter("nothing to do: give --source, --http, or both")
    sources = (
        named_sources(source, words, watch=watch, repeat=repeat)
        if source
        else [NamedSource(source=NoSource())]
    )
    needs_energy = "energy" in aim.weights
    if energy == "none" and (needs_energy or battery_wh is not None):
        raise AgentError(
            "--energy none leaves nothing to say of energy",
            "leave it out, or --objective energy and --battery-wh",
        )
    auto = AutoPlan(
        objective=aim,
        constraints=constraints,
        link=parse_link(link) if link else None,
        profile=profile,
        pictures=tuple(picture for each in sources for picture in each.source.examples),
        meter=choose_meter(energy, model=power) if needs_energy else None,
        power=power if needs_energy else None,
        progress=_progress,
    )
    agent = EdgeAgent(
        server or None,
        credentials=credentials,
        bundle=bundle,
        model=model,
        pin=pin,
        split=split,
        codec=codec,
        auto=auto,
        cache=cache,
        max_cache_mb=max_cache_mb,
        runtime=runtime,
        providers=names_in(providers),
        threads=threads,
        slowdown=slowdown,
        budget_ms=budget_ms,
        finish_locally=finish_locally,
        hedge=hedge,
        adapt=adapt,
        max_edge_mb=max_edge_mb,
        max_frame_bytes=math.inf if max_kb_per_frame is None else 1e3 * max_kb_per_frame,
    )
    stats, costs, counts = RunStats(), RunCosts(tariff), SourceCounts()
    spent = RunEnergy(_run_meter(energy, power, slowdown), lambda: stats.busy_ms)
    sinks: list[Sink] = [stats, costs, counts]
    service = None
    if http:
        service = _service(
            spent, listen=http, token_file=http_token_file,
            sources=tuple(each.name or sayable(source[0]) for each in sources) if source else (),
            budget_ms=budget_ms, min_score=min_score, emulated=slowdown > 1,
            keeps_all=save_annotated is not None,
        )  # fmt: skip
    metrics = None if metrics_port is None else _metrics(metrics_host, metrics_port)
    if metrics is not None:
        sinks.append(metrics)
    table = None
    if json_:
        sinks.append(
            JsonLines(FrameDocument(agent=agent, emulated=slowdown > 1, min_score=min_score))
        )
    elif sys.stdout.isatty() and err.is_terminal:
        table = LiveTable(agent, spent, min_score=min_score)
        sinks.append(table)
    else:
        sinks.append(PlainLines(agent, min_score))
    together = Together(sources)
    slow = SlowSinks(
        slow_sinks(
            SinkWords(
                outputs=save_outputs,
                annotated=save_annotated,
                mqtt=mqtt,
                mqtt_password_file=mqtt_password_file,
                mqtt_ca=mqtt_ca,
                webhook=webhook,
                webhook_token_file=webhook_token_file,
                insecure=insecure,
                events=events,
                events_max_mb=events_max_mb,
                min_score=min_score,
                emulated=slowdown > 1,
            ),
            [each.name for each in sources],
        )
    )
    session = RunSession(
        agent=agent,
        sources=together,
        sinks=sinks,
        energy=spent,
        table=table,
        metrics=metrics,
        in_flight=in_flight,
        slow=slow,
        service=service,
    )
    if server == ANYWHERE:
        say(f"looking for workers in the local network for {LOOK_S:g} s")
    stopped = run_in_loop(session.run())
    print_summary(
        stats,
        costs,
        spent.reading,
        counts,
        slow.summary(),
        drift=agent.drift.of_limit if stats.frames else None,  # or it was stopped before
        slowdown=slowdown,
        as_json=json_,
    )
    nothing = stats.frames and not stats.answers and not stopped
    if nothing or together.failed:
        raise typer.Exit(1)


def _run_meter(energy: str, power: PowerModel, slowdown: float) -> EnergyMeter:
    """What adds up the run's energy; a device that is played by waiting cannot be measured."""
    meter = choose_meter(energy, model=power)
    return power if slowdown > 1 and meter.kind == "measured" else meter


def _metrics(host: str, port: int) -> MetricsSink:
    from splitpoint.edge.metrics import MetricsSink

    sink = MetricsSink(host, port)
    say(f"metrics on http://{sink.address}/metrics")
    return sink


def _service(energy: RunEnergy, **options: Any) -> HttpService:
    from ..service.service import HttpService, ServiceOptions

    return HttpService(ServiceOptions(**options), energy)


def _progress(what: str, done: int, total: int) -> None:
    if done == 0:
        say("measuring this device; the profile is kept in the cache")
    if done < total:
        say(f"[{done + 1}/{total}] {what}")
