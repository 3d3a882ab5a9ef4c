#!/usr/bin/env bash
# Installs the server's component into a folder of its own and starts what is there.
#
# usage: install_test.sh CMAKE BUILD_FOLDER VERSION
set -euo pipefail

cmake=$1 build=$2 version=$3
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

fail() { echo "FAILED: $*" >&2; exit 1; }

"$cmake" --install "$build" --prefix "$work/prefix" --component server >"$work/installed"
[ "$("$work/prefix/bin/bossd" --version)" = "$version" ] || fail "bossd says it is $("$work/prefix/bin/bossd" --version)"
"$work/prefix/bin/bossctl" --help >/dev/null || fail "bossctl does not run"
! readelf -d "$work/prefix/bin/bossd" "$work/prefix/lib/libboss_cuda.so" | grep -F "$build" || fail "what is installed looks into the build folder"
[ -s "$work/prefix/share/boss/models/fashion-mnist/model.safetensors" ] || fail "the seed model is not there"

# What the image's stages build and copy has these places.
found=$(cd "$work/prefix" && find . -maxdepth 2 -mindepth 2 | sort | paste -sd ' ')
[ "$found" = "./bin/bossctl ./bin/bossd ./lib/libboss_cuda.so ./share/boss" ] || fail "installed are $found"
echo "installed and run"
