"""What a frame may do: the candidates of the cost table that can be best for one."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from splitpoint.partition.bundle.segment_files import ONNX
from splitpoint.partition.plan.costs import CostTable, Floats

MOST_ARMS = 8  # more cost time in each decision, and are nearly alike
# Two arms are told apart by what they take beyond this: below it, noise decides.
LEAST_S, LEAST_BYTES = 1e-3, 200.0


@dataclass(frozen=True, slots=True)
class Arms:
    """Seconds and bytes of each arm, `[n]`, on a device and a worker that are as profiled.

    `index` is its place in the cost table. `rest_s` is what finishing on the device takes from its
    boundary, infinite where the device cannot. `price` is what it costs of what the objective
    aims at, from 0 for nothing to 1 for the dearest arm; `loss` the same for accuracy.
    """

    index: npt.NDArray[np.int64]
    edge_s: Floats
    encode_s: Floats
    nbytes: Floats
    server_s: Floats
    rest_s: Floats
    price: Floats
    loss: Floats

    def __len__(self) -> int:
        """How many there are."""
        return len(self.index)

    @classmethod
    def of(cls, table: CostTable, allowed: npt.NDArray[np.bool_], price: Floats) -> Arms:
        """The arms among the candidates that are `allowed`; all on the device is always one.

        `price` is that of each candidate, `[n]`, in any unit.
        """
        own = [table.edge_ms / 1e3, table.encode_ms / 1e3, table.nbytes]
        here = table.sends == 0
        kept = _distinct(
            np.flatnonzero(allowed),
            np.stack([own[0], own[0] + own[1], own[2], price], 1),
            np.array([LEAST_S, LEAST_S, LEAST_BYTES, 1e-9 + 0.02 * float(np.max(price))]),
            kept=np.flatnonzero(allowed & here),
        )
        rest_ms = finish_ms(table)
        rest_s = np.array([rest_ms.get(int(at), np.inf) / 1e3 for at in table.boundary])
        loss = np.nan_to_num(table.loss[kept])
        return cls(
            index=kept,
            edge_s=own[0][kept],
            encode_s=own[1][kept],
            nbytes=own[2][kept],
            server_s=table.server_ms[kept] / 1e3,
            rest_s=np.maximum(rest_s, 0.0)[kept],
            price=price[kept] / max(float(np.max(price[kept])), 1e-12),
            loss=loss / max(float(loss.max()), 1e-12),
        )


def finish_ms(table: CostTable) -> dict[int, float]:
    """What the device is predicted to take from each boundary to the end.

    Frames are finished in float32 onnxruntime, whatever they began in. Empty where the profiles
    have no times in that: those of another runtime say nothing of it.
    """
    until_ms = {
        int(boundary): float(ms)
        for boundary, ms, name in zip(table.boundary, table.edge_ms, table.runtime, strict=True)
        if name == ONNX
    }
    alone_ms = until_ms.get(int(table.boundary.max()))
    return {} if alone_ms is None else {at: alone_ms - ms for at, ms in until_ms.items()}


def _distinct(
    found: npt.NDArray[np.int64],
    sizes: Floats,
    least: Floats,
    kept: npt.NDArray[np.int64],
) -> npt.NDArray[np.int64]:
    """Those of `found` that no other beats in all `sizes`, without those most like others.

    What is `kept` stays.
    """
    logs = np.log(sizes[found] + least)
    # worse[i, j]: by how much j exceeds i in the size in which it does most.
    worse = (logs[np.newaxis] - logs[:, np.newaxis]).max(-1)
    np.fill_diagonal(worse, np.inf)
    alive, fixed = list(range(len(found))), {int(i) for i in np.searchsorted(found, kept)}
    while len(alive) > 1:
        # The one that is best replaced by another; of twins, the later.
        harm = {i: worse[i, [j for j in alive if j != i]].min() for i in alive if i not in fixed}
        if not harm:
            break
        least_missed = min(harm, key=lambda i: (harm[i], -i))
        if harm[least_missed] > 0 and len(alive) <= MOST_ARMS:
            break
        alive.remove(least_missed)
    return np.asarray(found[alive])
