#!/usr/bin/env bash
# Installs what is missing, builds, and runs every test: first those that need no LibTorch under AddressSanitizer and ThreadSanitizer, then
# the fuzzers for some seconds each (docs/fuzzing.md), then all tests in the release build, and those of the client alone, which ccache has compiled by
# then. Ends with ctest's summary.
set -euo pipefail
cd "$(dirname "$0")/.."

bash docker/install-deps.sh

jobs=$(nproc)
for preset in asan tsan fuzz release client; do
  echo "== $preset"
  cmake --preset "$preset"
  cmake --build --preset "$preset" --parallel "$jobs"
  ctest --preset "$preset" --parallel "$jobs"
done
