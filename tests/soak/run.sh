#!/usr/bin/env bash
# Mixed traffic against a real bossd that is restarted under it, and a table of what came of it: docs/reliability.md.
#
#   tests/soak/run.sh [--minutes N] [--seed S]     30 minutes if nothing else is said
#
# Builds what it needs in build/release. Exit status 1 for a lost job, an unexpected error, or a server that ends with
# another status than 0.
set -euo pipefail
cd "$(dirname "$0")/../.."
[[ -f build/release/build.ninja ]] || cmake --preset release >&2
cmake --build --preset release --target traffic_soak >&2
# LibTorch's threads would spin beside those of the clients.
OMP_NUM_THREADS=1 exec build/release/tests/soak/traffic_soak "$@"
