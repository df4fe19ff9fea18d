#!/usr/bin/env bash
# Builds fastpose, runs the GPU tests and measures the GPU rows: one machine with an NVIDIA GPU, no network.
# Every result is in OUT as soon as there is one, so a call that is cut short still counts.
set -uo pipefail

usage() {
  cat <<'TEXT'
usage: bench/run_gpu.sh OUT [--only PATTERN] [--wheels DIR] [--minutes N] [--resume FILE] [--no-tests]

  OUT              folder for results.json, status.txt and a log of each stage
  --only PATTERN   rows to measure, such as 'heatmap/*' (default '*/cuda/*'); several with commas
  --wheels DIR     folder with wheels of packages that may be missing here (pybind11, pytest-benchmark, ...)
  --minutes N      end by itself before this long (default 9)
  --resume FILE    results.json of an earlier call; what it holds for the same sources is not measured again.
                   OUT/results.json of an earlier call into the same folder is resumed anyway.
  --no-tests       measure without running `pytest -m gpu tests` first

PYTHON chooses the interpreter (default python3). Without a git repository BENCH_COMMIT=SHA[+dirty] names the
commit. Exit status: 0 if every stage passed, 1 if one failed or ran out of time, 2 for wrong arguments.
TEXT
}

die() {
  echo "run_gpu.sh: $1" >&2
  echo "Try: bench/run_gpu.sh --help" >&2
  exit 2
}

out='' only='*/cuda/*' wheels='' minutes=9 resume='' tests=1
while [ $# -gt 0 ]; do
  case $1 in
    --help | -h) usage && exit 0 ;;
    --no-tests) tests=0 ;;
    --only | --wheels | --minutes | --resume)
      [ $# -ge 2 ] || die "$1: needs a value"
      case $1 in
        --only) only=$2 ;;
        --wheels) wheels=$2 ;;
        --minutes) minutes=$2 ;;
        --resume) resume=$2 ;;
      esac
      shift
      ;;
    -*) die "$1: unknown option" ;;
    *)
      [ -z "$out" ] || die "one OUT expected, got '$out' and '$1'"
      out=$1
      ;;
  esac
  shift
done
[ -n "$out" ] || die "OUT is missing"
[[ $minutes =~ ^[1-9][0-9]{0,2}$ ]] || die "--minutes: expected a whole number from 1 to 999, got '$minutes'"
[ -z "$wheels" ] || [ -d "$wheels" ] || die "--wheels: no folder '$wheels'"
[ -z "$resume" ] || [ -f "$resume" ] || die "--resume: no file '$resume'"
mkdir -p "$out" || die "OUT: '$out' cannot be created"
out=$(cd "$out" && pwd)
[ -z "$wheels" ] || wheels=$(cd "$wheels" && pwd)
[ -z "$resume" ] || [ -e "$out/results.json" ] || cp "$resume" "$out/results.json"
cd "$(dirname "$0")/.." || exit 1

python=${PYTHON:-python3}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export PYTHONPATH="$work/site:$PWD${PYTHONPATH:+:$PYTHONPATH}" PYTHONUNBUFFERED=1
export PIP_BREAK_SYSTEM_PACKAGES=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_INDEX=1
failed=0
check='import pathlib, sys
from bench.fingerprint import machine
from bench.record import Recorder
Recorder(pathlib.Path(sys.argv[1]), machine())'

left() { # seconds until the end, less 15 for stopping
  echo $((minutes * 60 - 15 - SECONDS))
}

stage() { # stage NAME SECONDS COMMAND...: output to OUT/NAME.log, one line about its end to OUT/status.txt
  local name=$1 limit=$2 began=$SECONDS status
  shift 2
  [ "$limit" -le "$(left)" ] || limit=$(left)
  if [ "$limit" -lt 5 ]; then
    echo "$name: not started, the time is up" | tee -a "$out/status.txt"
    failed=1
    return 1
  fi
  timeout --signal=INT --kill-after=10 "$limit" "$@" >>"$out/$name.log" 2>&1
  status=$?
  echo "$name: exit $status after $((SECONDS - began)) s$([ $status -ne 124 ] || echo ', stopped at its limit')" |
    tee -a "$out/status.txt"
  [ $status -eq 0 ] || failed=1
  return $status
}

install_missing() { # wheels of the folder whose package is not there yet
  "$python" - "$wheels" >"$work/missing" <<'CODE'
import importlib.metadata, pathlib, sys

for wheel in sorted(pathlib.Path(sys.argv[1]).glob("*.whl")):
    try:
        importlib.metadata.version(wheel.name.split("-")[0])
    except importlib.metadata.PackageNotFoundError:
        print(wheel)
CODE
  mapfile -t missing <"$work/missing"
  [ ${#missing[@]} -eq 0 ] ||
    stage wheels 120 "$python" -m pip install --quiet --no-deps --no-compile --target "$work/site" "${missing[@]}"
}

{ nvidia-smi; "$python" --version; "$python" -m pip list; } >"$out/machine.log" 2>&1
[ -z "$wheels" ] || install_missing

# Only this GPU's code: the build is on the clock.
capability=$(nvidia-smi --query-gpu=compute_cap --format=csv,noheader 2>/dev/null | head -n 1 | tr -d '. ')
[ -z "$capability" ] || export FASTPOSE_CUDA_ARCHS=${FASTPOSE_CUDA_ARCHS:-$capability}
quarter=$(($(left) / 4))
stage build $((quarter > 60 ? quarter : 60)) "$python" -m pip install --no-deps --no-build-isolation -e .

source=$("$python" -c 'from bench.fingerprint import ROOT, source_digest; print(source_digest(ROOT))' 2>/dev/null)
if [ $tests -eq 0 ]; then
  echo "tests: left out" | tee -a "$out/status.txt"
elif [ -n "$source" ] && grep -qsx "tests passed for $source" "$out/status.txt"; then
  echo "tests: passed before, with the same sources" | tee -a "$out/status.txt"
else
  stage tests $(($(left) / 2)) "$python" -m pytest -m gpu tests -q -rs -p no:cacheprovider &&
    echo "tests passed for $source" >>"$out/status.txt"
fi

# Results of another machine stay, but are not added to.
if [ -e "$out/results.json" ] && ! "$python" -c "$check" "$out/results.json" >>"$out/rows.log" 2>&1; then
  mv "$out/results.json" "$out/results.other.json"
  echo "rows: results.json is of another machine or form, kept as results.other.json" | tee -a "$out/status.txt"
fi
plain=()
! "$python" -c 'import pytest_benchmark' 2>/dev/null || plain=(--benchmark-only)
time_left=$(left)
stage rows "$time_left" "$python" -m pytest bench "${plain[@]}" -q -rs -p no:cacheprovider \
  --results "$out/results.json" --resume --only "$only" \
  --minutes "$(awk "BEGIN { print ($time_left > 40 ? $time_left - 20 : $time_left / 2) / 60 }")"
exit $failed
