#!/usr/bin/env bash
# Everything that a GPU is to be asked, in ten minutes and without a network: whether all networks
# answer there as unsplit, and how fast they are beside the device's own limit.
#
#   benchmarks/gpu.sh [--device cuda:0] [--bundles DIR] [--model resnet50] [--seconds 600] [--quick]
#
# Tables and JSON are written to benchmarks/results, with the GPU's name. Bundles that lie in DIR as
# resnet50.split are taken from there, others are compiled to there. Each step has its own most time:
# one that fails or takes too long stops no other, and one for which no time is left is skipped, with
# a line. It exits with 0 where all was done and right, 1 where a step failed, and 3 where none did,
# but something was left out. PYTHON is the interpreter that has splitpoint, its extras and torch.
set -euo pipefail

python=${PYTHON:-python}
device=cuda:0
model=resnet50
seconds=600
bundles=
quick=()

usage() {
  sed -n '2,13s/^# \{0,1\}//p' "$0" >&2
  exit 64
}

while (($#)); do
  case $1 in
    --quick) quick=(--quick) model=quick_model:small ;;
    --device | --bundles | --model | --seconds)
      (($# > 1)) || usage
      printf -v "${1#--}" '%s' "$2"
      shift
      ;;
    *) usage ;;
  esac
  shift
done
[[ $seconds =~ ^[0-9]+$ ]] || usage
if [[ -z $bundles ]]; then
  bundles=$(mktemp -d)
  trap 'rm -rf "$bundles"' EXIT
fi
mkdir -p "$bundles"
bundles=$(realpath "$bundles")
cd "$(dirname "$0")/.."

"$python" - "$device" << 'END'
import sys
from splitpoint.codec import SplitpointError
from splitpoint.partition.run.torch_chain import pick_device

try:
    pick_device(sys.argv[1])
except SplitpointError as error:
    sys.exit(str(error))
END

INCOMPLETE=3  # what gpu_exactness.py ends with when it ran out of time
LEAST_S=10    # nothing says anything in less
GRACE_S=10    # to end, before a step is killed
failed=()
left_out=()

left_s() { echo $((seconds - SECONDS - GRACE_S)); }

# The time that a step with this most may take now.
within_s() {
  local left
  left=$(left_s)
  echo $(($1 < left ? $1 : left))
}

# step NAME MOST_S COMMAND...
step() {
  local name=$1 limit code=0 began=$SECONDS
  limit=$(within_s "$2")
  shift 2
  if ((limit < LEAST_S)); then
    echo "== $name: skipped, the $seconds s are used up"
    left_out+=("$name")
    return
  fi
  echo "== $name: at most $limit s"
  timeout --kill-after="$GRACE_S" "$limit" "$@" || code=$?
  case $code in
    0) echo "== $name: done in $((SECONDS - began)) s" ;;
    "$INCOMPLETE")
      echo "== $name: right as far as it came, in $((SECONDS - began)) s"
      left_out+=("$name")
      ;;
    124 | 137)
      echo "== $name: failed, it was ended after $((SECONDS - began)) s"
      failed+=("$name")
      ;;
    *)
      echo "== $name: failed with $code after $((SECONDS - began)) s"
      failed+=("$name")
      ;;
  esac
}

# Its bundle, once there is one.
subject() {
  local bundle=$bundles/${model//:/-}.split
  if [[ -d $bundle ]]; then echo "$bundle"; else echo "$model"; fi
}

# As the compiler calls it.
network() {
  case $model in
    *:* | efficientnet-lite*) echo "$model" ;;
    *) echo "torchvision:$model" ;;
  esac
}

# Some of its time is for the report.
exactness_s=$(within_s 260)
step exactness 260 "$python" benchmarks/gpu_exactness.py --device "$device" "${quick[@]}" \
  --bundles "$bundles" --seconds $((exactness_s > 40 ? exactness_s - 30 : 10))
step serving 130 "$python" benchmarks/serving.py --device "$device" "${quick[@]}" \
  --models "$(subject)" --edges 128 --mixes uniform --open --rounds 2 --seconds 4
step limit 110 "$python" benchmarks/gpu_limit.py --device "$device" "${quick[@]}" \
  --model "$(subject)" --rounds 2 --seconds 3
step ingest 110 "$python" benchmarks/ingest.py --device "$device" "${quick[@]}" \
  --ingest 2 --streams 64 --rounds 2
step cloud_only 120 "$python" benchmarks/cloud_only.py --device "$device" "${quick[@]}" \
  --models "$(subject)" --clients 32 --rounds 1 --seconds 3
# One segment that is being compiled outlasts the seconds.
compiled_s=$(within_s 240)
step compiled 240 "$python" benchmarks/gpu_exactness.py --device "$device" "${quick[@]}" \
  --compiled --bundles "$bundles" --seconds $((compiled_s > 130 ? compiled_s - 120 : 10)) \
  "$(network)"

echo "== all: $SECONDS s; failed: ${failed[*]:-none}; left out: ${left_out[*]:-none}"
((${#failed[@]} == 0)) || exit 1
((${#left_out[@]} == 0)) || exit "$INCOMPLETE"
