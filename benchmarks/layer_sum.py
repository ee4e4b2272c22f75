"""Do the times of the layers add up to that of the whole model, and what does cutting it cost?

The profile's layer table against a model that was never cut (compiled with no inner boundary), both
in onnxruntime: in turn, in one process, on the same input.

    python benchmarks/layer_sum.py [--quick]
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

from quick_bundle import QUICK
from report import Table, write_report
from splitpoint.partition.bundle.bundle import Bundle
from splitpoint.partition.bundle.samples import synthetic_samples
from splitpoint.partition.compile.compile import compile_model
from splitpoint.partition.models.find import load_model
from splitpoint.partition.profile.measure import measure
from splitpoint.partition.run.onnx_chain import OnnxChain

MODELS = ("torchvision:vgg16", "torchvision:resnet50", "efficientnet-lite0")
LIMIT = 0.05
PAUSE_S = 0.05  # as in a profile


def run_ms(chain: OnnxChain, bundle: Bundle) -> float:
    """Milliseconds of one pass through all segments."""
    state = chain.place(synthetic_samples(bundle.manifest).inputs[0])
    time.sleep(PAUSE_S)
    start = time.perf_counter()
    for index in range(len(chain)):
        state |= chain.step(index, state)
    return 1e3 * (time.perf_counter() - start)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a few layers, nothing written")
    args = parser.parse_args()
    rows, worst = [], 0.0
    for name in [QUICK] if args.quick else MODELS:
        spec = load_model(name, "none" if ":" in name else "default")
        with tempfile.TemporaryDirectory() as folder:
            cut = compile_model(spec, Path(folder) / "cut.split")
            whole = compile_model(spec, Path(folder) / "whole.split", boundaries=2)
            chains = {"cut": (OnnxChain(cut), cut), "whole": (OnnxChain(whole), whole)}
            times: dict[str, list[float]] = {"cut": [], "whole": [], "layers": []}
            for chain, _ in chains.values():
                for index in range(len(chain)):
                    chain.load(index)
            for _ in range(1 if args.quick else 3):
                profile = measure(cut, chains["cut"][0], synthetic_samples(cut.manifest),
                                  max_seconds=0.5 if args.quick else 2)  # fmt: skip
                times["layers"].append(sum(layer.ms for layer in profile.layers))
                for _ in range(10):
                    for key, (chain, bundle) in chains.items():
                        times[key].append(run_ms(chain, bundle))
        layers, one, cut_ms = (statistics.median(times[k]) for k in ("layers", "whole", "cut"))
        worst = max(worst, abs(layers / cut_ms - 1))
        rows.append(
            [
                name.rpartition(":")[2],
                str(len(profile.layers)),
                f"{layers:.2f}",
                f"{cut_ms:.2f}",
                f"{100 * (layers / cut_ms - 1):+.1f} %",
                f"{one:.2f}",
                f"{100 * (layers / one - 1):+.1f} %",
            ]
        )
    columns = ["model", "layers", "sum of layers, ms", "segments in one go, ms", "difference",
               "never cut, ms", "difference "]  # fmt: skip
    write_report(
        "layer_sum", __doc__.splitlines()[0], Table(columns, rows),
        {"worst": worst, "within_5_percent": worst <= LIMIT}, save=not args.quick,
    )  # fmt: skip


if __name__ == "__main__":
    main()
