"""Fuzzes the codec's inner loops with libFuzzer, under AddressSanitizer and UBSan.

    run.py [--seconds 600] [--folder build/fuzz] [--keep]

Starts from the sound inputs of cases.py, from corpus.bin, and from what the last run found in the
folder. What breaks something is left there as `crash-...`. With --keep those inputs that reach
something of their own become the new corpus.bin.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from cases import write_cases
from corpus import inputs, keep, spread
from programs import CannotBuild, build

FUZZER = ("-fsanitize=fuzzer",)
MOST_BYTES = 2048


def fuzz(folder: Path, seconds: int, *, keeping: bool) -> int:
    """The exit code."""
    folder.mkdir(parents=True, exist_ok=True)
    target, found = build("target", folder, compiler="clang", flags=FUZZER), folder / "corpus"
    cases = write_cases(folder)
    spread(inputs(), found)
    for number, case in enumerate(cases):
        spread((bytes([number]) + seed for seed in case.seeds), found)
    environment = os.environ | {"SPLITPOINT_CASES": ":".join(str(case.path) for case in cases)}
    options = [f"-max_len={MOST_BYTES}", f"-artifact_prefix={folder}/", "-print_final_stats=1"]
    done = subprocess.run(
        [str(target), *options, f"-max_total_time={seconds}", str(found)],
        env=environment, stderr=subprocess.PIPE, text=True, check=False,
    )  # fmt: skip
    executed = re.search(r"number_of_executed_units: (\d+)", done.stderr)
    reached = re.findall(r"cov: (\d+) ft: (\d+) corp: (\d+)", done.stderr)
    if done.returncode != 0 or executed is None or not reached:
        print(done.stderr[-8000:], file=sys.stderr)
        print(f"error: it broke; the input lies in {folder}", file=sys.stderr)
        return 1
    edges, features, count = reached[-1]
    print(f"{executed[1]} inputs in {seconds} s, none broke anything: {edges} edges and "
          f"{features} features reached, by {count} inputs")  # fmt: skip
    if keeping:
        smallest = folder / "smallest"
        smallest.mkdir(exist_ok=True)
        subprocess.run(
            [str(target), *options, "-merge=1", str(smallest), str(found)],
            env=environment, stderr=subprocess.DEVNULL, check=True,
        )  # fmt: skip
        print(f"kept {keep(smallest)} inputs")
    return 0


def main() -> int:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--seconds", type=int, default=600)
    parser.add_argument("--folder", type=Path, default=Path("build", "fuzz"))
    parser.add_argument("--keep", action="store_true", help="write corpus.bin anew")
    options = parser.parse_args()
    try:
        return fuzz(options.folder, options.seconds, keeping=options.keep)
    except CannotBuild as error:
        print(f"error: {error}: install clang and its run-time libraries", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
