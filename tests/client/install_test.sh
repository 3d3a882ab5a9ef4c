#!/usr/bin/env bash
# Installs the client library into a folder of its own, builds the examples against it as a user would, and runs them.
#
# usage: install_test.sh CMAKE BUILD_FOLDER EXAMPLES_FOLDER [COMPILER_LAUNCHER]
set -euo pipefail

cmake=$1 build=$2 examples=$3 launcher=${4:-}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

fail() { echo "FAILED: $*" >&2; exit 1; }

"$cmake" --install "$build" --prefix "$work/prefix" --component client > "$work/installed"
if grep -rlF -e "$build" -e torch "$work/prefix" --include='*.cmake'; then
  fail "what is installed names the build folder or LibTorch"
fi
"$work/prefix/bin/bossctl" --help > "$work/help" || fail "the installed bossctl does not run"
grep -q generate "$work/help" || fail "the installed bossctl has no commands"
! ldd "$work/prefix/bin/bossctl" | grep -q torch || fail "bossctl needs LibTorch"

"$cmake" -G Ninja -S "$examples" -B "$work/build" -DCMAKE_PREFIX_PATH="$work/prefix" -DCMAKE_CXX_COMPILER_LAUNCHER="$launcher"
"$cmake" --build "$work/build"
# Nobody listens there: it must say so, and the library must have tried.
code=0
BOSS_ADDRESS=127.0.0.1:1 "$work/build/quickstart" 2> "$work/error" || code=$?
[ "$code" -eq 1 ] || fail "quickstart ended with $code: $(cat "$work/error")"
grep -q UNAVAILABLE "$work/error" || fail "quickstart said: $(cat "$work/error")"
echo "installed, built and run"
