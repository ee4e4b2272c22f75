"""What every candidate costs, as arrays: boundary x codec x runtime, the rivals among them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from ..bundle.bundle import Manifest
from ..bundle.segment_files import INT8, check_runtime
from ..energy.power_model import PowerModel
from ..energy.radio import Radio
from ..errors import PlanError
from ..profile.cloud_times import CloudTimes
from ..profile.profile import Profile
from .cost_rows import candidate_rows

Floats = npt.NDArray[np.float64]

# What the two ends spend on a frame beyond computing and beyond the round trip of an empty message
# (benchmarks/overhead.py).
OWN_MS = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Metrics:
    """The candidates under given conditions. Energy is NaN where it is not known.

    `bottleneck_ms` is the slowest of the stages that overlap in a stream: computing and encoding on
    the device, the link, the server.
    """

    latency_ms: Floats
    energy_mj: Floats
    nbytes: Floats
    bottleneck_ms: Floats
    server_ms: Floats


@dataclass(frozen=True, slots=True, kw_only=True)
class CostTable:
    """One entry a candidate; `sends` is 0 where everything runs on the device, else 1.

    `edge_ms` is compute alone; of the payloads' sizes `nbytes` is the mean and `p95_bytes` the 95th
    percentile. `server_ms` is decoding and compute. `spread_ms` is how far the
    95th percentile of computing lies above its median. `energy_mj` is what edge compute and
    encoding draw, `wait_w` the board's power while it waits, `radio_mj` the part of the radio's
    energy that goes with bytes and `radio_w` the part that goes with time; NaN where unknown.
    Calibration's figures are those of `Judged`: `accuracy_drop` and the upper end of its
    interval `drop_bound`, `loss`, how many inputs were `judged`, and `worst_error`; NaN and 0 where
    it measured nothing. `cores_ms` is how long a frame would keep all of the device's cores busy,
    0 where their number is not known.
    """

    boundary: npt.NDArray[np.int64]
    codec: tuple[str, ...]
    runtime: tuple[str, ...]
    sends: Floats
    edge_ms: Floats
    encode_ms: Floats
    nbytes: Floats
    p95_bytes: Floats
    server_ms: Floats
    spread_ms: Floats
    accuracy_drop: Floats
    drop_bound: Floats
    loss: Floats
    judged: Floats
    worst_error: Floats
    edge_mb: Floats
    energy_mj: Floats
    wait_w: Floats
    radio_mj: Floats
    radio_w: float
    energy_kind: tuple[str, ...]
    cores_ms: Floats

    def __len__(self) -> int:
        """How many candidates there are."""
        return len(self.codec)

    @property
    def device_ms(self) -> Floats:
        """What the device takes for each frame of a stream, `[n]`.

        It encodes a frame while it computes the next, in another thread. Both need cores: where
        computing keeps all of them busy, encoding makes it later by its share of them.
        """
        return np.maximum(np.maximum(self.edge_ms, self.encode_ms), self.cores_ms)

    def above_idle(self) -> CostTable:
        """The same with the energy that frames add to what an idle device draws.

        That is what can be saved where the device is on all the time, whichever way frames take.
        """
        idle_w = float(np.nan_to_num(self.wait_w).max())
        # A short measurement may say that computing takes less than nothing.
        own_mj = self.energy_mj - idle_w * (self.edge_ms + self.encode_ms)
        return replace(
            self, energy_mj=np.maximum(own_mj, 0.0), wait_w=np.maximum(self.wait_w - idle_w, 0.0)
        )

    def metrics(
        self,
        upload_ms: Floats,
        *,
        round_trip_ms: float,
        queue_ms: Floats | float,
        server_factor: float,
        edge_factor: float = 1.0,
    ) -> Metrics:
        """What each candidate costs when pushing its bytes takes `upload_ms`, `[n]`.

        `queue_ms` is how long a frame waits at the worker, the same for all or `[n]`. The worker's
        own times are multiplied by `server_factor`, the device's by `edge_factor`. Energy is what
        the board draws from the frame's start to its end, the radio included, without its tail.
        """
        server_ms = self.server_ms * server_factor
        away_ms = self.sends * (upload_ms + (round_trip_ms + queue_ms + OWN_MS)) + server_ms
        edge_ms = (self.edge_ms + self.encode_ms) * edge_factor
        return Metrics(
            latency_ms=edge_ms + away_ms,
            nbytes=self.sends * self.nbytes,
            energy_mj=self.energy_mj * edge_factor
            + self.wait_w * away_ms
            + self.radio_mj
            + self.radio_w * self.sends * upload_ms,
            bottleneck_ms=np.maximum(
                self.device_ms * edge_factor, np.maximum(self.sends * upload_ms, server_ms)
            ),
            server_ms=server_ms,
        )


def cost_table(
    manifest: Manifest,
    edges: Sequence[Profile],
    cloud: CloudTimes,
    *,
    radio: Radio,
    power: PowerModel | None = None,
    codecs: frozenset[str] | None = None,
) -> CostTable:
    """The table of all candidates: each edge profile is a runtime, `codecs` limits the codecs.

    In INT8 a candidate's drop and loss are those of the runtime and the codec together.

    `power` stands in where a profile has no energy. Raises `PlanError` for profiles that do not
    fit the bundle or lack what a plan needs.
    """
    count = len(manifest.segments)
    if len(cloud.segment_ms) != count:
        raise PlanError(
            f"the worker has times of {len(cloud.segment_ms)} segments, the bundle {count}"
        )
    if len(cloud.segment_p95_ms) not in (0, count):
        raise PlanError(
            f"the worker has {len(cloud.segment_p95_ms)} times for the 95th percentile of "
            f"{count} segments"
        )
    rows = []
    for profile in edges:
        if len(profile.segments) != count:
            raise PlanError(
                f"the profile of {profile.device} has {len(profile.segments)} segments, "
                f"the bundle {count}",
                "measure again with `splitpoint profile`",
            )
        if not profile.codecs:
            raise PlanError(
                f"the profile of {profile.device} has no codecs",
                "measure again with `splitpoint profile`",
            )
        check_runtime(manifest, profile.runtime)
        # Where the input is sent, no segment runs: that is one candidate, whatever the runtime.
        first = 1 if profile.runtime == INT8 and len(edges) > 1 else 0
        rows += candidate_rows(manifest, profile, cloud, radio, power, codecs, first)
    columns = {
        name: np.array([row[name] for row in rows], np.float64)
        for name in (
            "sends", "edge_ms", "encode_ms", "nbytes", "p95_bytes", "server_ms", "spread_ms",
            "accuracy_drop", "drop_bound", "loss", "judged", "worst_error", "edge_mb",
            "energy_mj", "wait_w", "radio_mj", "cores_ms",
        )
    }  # fmt: skip
    return CostTable(
        boundary=np.array([row["boundary"] for row in rows], np.int64),
        codec=tuple(str(row["codec"]) for row in rows),
        runtime=tuple(str(row["runtime"]) for row in rows),
        radio_w=radio.base_mw / 1e3,
        energy_kind=tuple(str(row["energy_kind"]) for row in rows),
        **columns,
    )
