#!/usr/bin/env bash
# Whether everything that libboss_cuda.so needs is in the libraries that are open before it: without a card it is never
# opened, so nothing else would tell.
#
#   cuda_symbols_test.sh LIBBOSS_CUDA TORCH_LIBRARIES CUDA_RUNTIME_LIBRARIES
set -euo pipefail

readonly boss_cuda=$1 torch=$2 runtime=$3
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

names() { awk '{print $NF}' | sed 's/@.*//' | sort -u; }

nm -D --undefined-only "$boss_cuda" | grep -v ' w ' | names > "$work/needed"
for library in "$torch"/libtorch_cuda.so "$torch"/libc10_cuda.so "$torch"/libc10.so "$torch"/libtorch_cpu.so \
               "$runtime"/libcudart.so.13 $(ldd "$boss_cuda" | awk '$1 ~ /^lib(c|m|stdc\+\+|gcc_s)\.so/ {print $3}'); do
  nm -D --defined-only "$library"
done | names > "$work/present"

grep -qx cudaGetDeviceProperties "$work/needed"  # that there was something to look for
missing=$(comm -23 "$work/needed" "$work/present")
if [ -n "$missing" ]; then
  printf 'libboss_cuda.so needs what no library has:\n%s\n' "$missing"
  exit 1
fi
nm -D --defined-only "$boss_cuda" | grep -q ' T boss_new_cuda_backend$'
