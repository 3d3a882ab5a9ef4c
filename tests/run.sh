#!/usr/bin/env bash
# Installs what is missing, builds, and runs every test: first those that need no LibTorch under AddressSanitizer and ThreadSanitizer, then
# the fuzzers for some seconds each (docs/fuzzing.md), then those of the client alone, then all tests in the release build, with the real counterparts of
# tests/interop in a Python environment that is removed again (5 GB; where it cannot be installed, these tests are skipped). Ends with ctest's summary.
set -euo pipefail
cd "$(dirname "$0")/.."

bash docker/install-deps.sh

interop=$(mktemp -d)
trap 'rm -rf "$interop"' EXIT
if bash tests/interop/install.sh "$interop"; then
  export BOSS_INTEROP_PYTHON="$interop/bin/python" BOSS_INTEROP_REQUIRED=1
else
  echo "the packages of tests/interop cannot be installed: its tests will be skipped" >&2
fi

jobs=$(nproc)
for preset in asan tsan fuzz client release; do
  echo "== $preset"
  cmake --preset "$preset"
  cmake --build --preset "$preset" --parallel "$jobs"
  ctest --preset "$preset" --parallel "$jobs"
done
