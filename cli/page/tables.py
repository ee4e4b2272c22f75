"""The tables at the end of the page of `splitpoint plan --html`."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from splitpoint.partition.bundle.bundle import Manifest
from splitpoint.partition.plan.plan import name_of
from splitpoint.partition.plan.planner import Report
from splitpoint.partition.profile.profile import Profile
from splitpoint.partition.significant import significant

from ..shell.output import human_bytes, human_count
from .candidates_chart import STAGES
from .svg import esc


def segments_table(manifest: Manifest, edge: Profile, cloud: Profile) -> str:
    """HTML: each segment's work and its times on both machines."""
    columns = ("segment", "<from", "layers", "FLOPs", "device ms", "p95", "mJ", "MB",
               "worker ms", "p95", "raw bytes in")  # fmt: skip
    rows = []
    pairs = zip(manifest.segments, edge.segments, cloud.segments, strict=True)
    for index, (segment, here, there) in enumerate(pairs):
        boundary = manifest.boundaries[index]
        count = sum(layer.segment == index for layer in manifest.layers)
        cells = (
            str(index),
            f"after {boundary.after}" if boundary.after else "the input",
            str(count),
            human_count(segment.flops),
            f"{here.ms:.2f}",
            f"{here.p95_ms:.2f}",
            _or_dash(here.mj, "{:.1f}"),
            _or_dash(here.memory_mb, "{:.1f}"),
            f"{there.ms:.2f}",
            f"{there.p95_ms:.2f}",
            human_bytes(boundary.nbytes),
        )
        rows.append(("", cells))
    return _table(columns, rows)


def candidates_table(report: Report) -> str:
    """HTML: everything that is predicted of every candidate, the best first."""
    columns = ("<candidate", "boundary", "<codec", "<runtime", "latency ms", "p95 ms",
               *(f"{stage} ms" for stage in STAGES), "energy mJ", "<energy is", "bytes up",
               "server ms", "changed", "at most", "worst error", "device MB", "fps", "<feasible",
               "<why")  # fmt: skip
    rows = []
    for rank, c in enumerate(report.candidates):
        cells = (
            name_of(c.boundary, c.codec),
            str(c.boundary),
            c.codec,
            c.runtime,
            f"{c.latency_ms:,.1f}",
            f"{c.p95_ms:,.1f}",
            *(f"{max(c.stages_ms[stage], 0):,.1f}" for stage in STAGES),
            _or_dash(c.energy_mj, "{:,.0f}"),
            c.energy_kind,
            f"{c.bytes_up:,}",
            f"{c.server_ms:,.1f}",
            "not known" if c.accuracy_drop is None else f"{100 * c.accuracy_drop:.1f} %",
            "not known" if c.drop_bound is None else f"{100 * c.drop_bound:.1f} %",
            "not known" if c.worst_error is None else f"{significant(100 * c.worst_error, 2)} %",
            _or_dash(c.edge_mb, "{:.0f}"),
            f"{c.fps:,.1f}",
            "yes" if c.feasible else "no",
            c.why,
        )
        rows.append(("best" if rank == 0 else "" if c.feasible else "out", cells))
    return _table(columns, rows)


def _table(columns: Sequence[str], rows: Iterable[tuple[str, Sequence[str]]]) -> str:
    """Columns whose name starts with `<` are words, the others figures; rows are (class, cells)."""
    words = [column.startswith("<") for column in columns]
    head = "".join(
        f"<th{' class=words' if left else ''}>{esc(column.lstrip('<'))}</th>"
        for column, left in zip(columns, words, strict=True)
    )
    body = "".join(
        f'<tr class="{kind}">'
        + "".join(
            f"<td{' class=words' if left else ''}>{esc(cell)}</td>"
            for cell, left in zip(cells, words, strict=True)
        )
        + "</tr>\n"
        for kind, cells in rows
    )
    return (
        f'<div class="scroll" tabindex="0"><table>\n<thead><tr>{head}</tr></thead>\n'
        f"<tbody>\n{body}</tbody>\n</table></div>"
    )


def _or_dash(value: float | None, form: str) -> str:
    return "–" if value is None or math.isnan(value) else form.format(value)
