#!/usr/bin/env bash
# Prints the tables of what serving and training cost, all sides of a table in turn in one run:
#
#   1  the server against the bare network          4  small requests and training beside others
#   2  mixed load against uniform load              5  a train step and stage 1 against PyTorch
#   3  the server against PyTorch and LitServe      6  memory
#   7  importing published checkpoints, full size   8  multistep against Euler
#
# usage: tests/bench/run.sh [--build=FOLDER] [--python=PYTHON] [TABLE ...]      all tables by default
#
# Build bossd, serving_bench, network_bench, lanes_bench and import_bench first (build/release by default). Tables 3 and 5 need Python packages of
# several gigabytes, installed into an environment that is removed at the end; --python names one that has them already.
set -euo pipefail

source_folder=$(cd "$(dirname "$0")/../.." && pwd)
build="$source_folder/build/release"
python=
tables=()
for argument in "$@"; do
  case "$argument" in
    --build=*) build=$(cd "${argument#*=}" && pwd) ;;
    --python=*) python=${argument#*=} ;;
    [1-8]) tables+=("$argument") ;;
    *) sed -n '2,/^$/s/^# \{0,1\}//p' "$0" >&2; exit 2 ;;
  esac
done
[ "${#tables[@]}" -gt 0 ] || tables=(1 2 3 4 5 6 7 8)

for program in server/app/bossd tests/bench/serving_bench tests/bench/network_bench tests/bench/lanes_bench \
  tests/bench/import_bench; do
  [ -x "$build/$program" ] || { echo "$build/$program is not there: build it first" >&2; exit 1; }
done

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

compare() {
  if [ -z "$python" ]; then
    /usr/bin/python3 -m venv "$work/python"
    python="$work/python/bin/python"
    "$python" -m pip install -q --disable-pip-version-check \
      torch==2.11.0 litserve grpcio==1.85.1 grpcio-tools==1.85.1 httpx numpy
  fi
  PYTHONDONTWRITEBYTECODE=1 TORCHINDUCTOR_CACHE_DIR="$work/inductor" \
    "$python" "$source_folder/tests/bench/python/compare.py" --build="$build" --source="$source_folder" "$1"
}

uptime
grep -m 1 "model name" /proc/cpuinfo || true
for table in "${tables[@]}"; do
  case "$table" in
    1) "$build/tests/bench/serving_bench" throughput ;;
    2) "$build/tests/bench/serving_bench" mixed ;;
    3) compare serving ;;
    4) "$build/tests/bench/serving_bench" fairness ;;
    5) compare training ;;
    6) "$build/tests/bench/serving_bench" memory ;;
    7) TMPDIR="$work" "$build/tests/bench/import_bench" ;;
    8) "$build/tests/bench/serving_bench" multistep && "$build/tests/bench/lanes_bench" ;;
  esac
done
