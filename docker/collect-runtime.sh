#!/usr/bin/env bash
# Gathers what the installed server needs at run time, so that no second list of it has to be kept:
#
#   docker/collect-runtime.sh cpu|cuda BUILD DEST
#
#   DEST/root         the server, the libraries of the Python wheels that it loads, and the wheels' licences, at their places
#   DEST/packages     the Debian packages whose libraries it loads
#   DEST/compiled-in  those whose headers were compiled into it, as dpkg's status has them
set -euo pipefail

if [ "$#" -ne 3 ]; then echo "usage: $0 cpu|cuda BUILD DEST" >&2; exit 2; fi
readonly variant=$1 build=$2 dest=$3
readonly prefix=/opt/boss
mkdir -p "$dest/root"

# Names that are looked up at run time are in no header of a library: CUDA is opened by the server, parts of cuDNN and NVRTC by themselves.
programs=("$prefix"/bin/bossd "$prefix"/bin/bossctl)
if [ "$variant" = cuda ]; then
  programs+=("$prefix"/torch/lib/{libtorch_cuda,libtorch_cuda_linalg,libcaffe2_nvrtc}.so)
  programs+=("$prefix"/nvidia/cudnn/lib/libcudnn*.so.* "$prefix"/nvidia/cu13/lib/libnvrtc-builtins.so.*)
elif [ "$variant" != cpu ]; then
  echo "expected cpu or cuda, got $variant" >&2; exit 2
fi

for program in "${programs[@]}"; do ldd "$program"; done >"$dest/ldd"
# The driver comes with the machine.
if grep 'not found' "$dest/ldd" | grep -v 'libcuda\.so\.1'; then
  echo "these libraries are not on this machine" >&2; exit 1
fi
mapfile -t libraries < <(awk '$2 == "=>" && $3 ~ /^\// { print $3 }' "$dest/ldd" | xargs realpath | sort -u)

# The package that has a file. dpkg knows some by their names from before /lib became a link to /usr/lib.
owner() {
  { dpkg-query --search "$1" 2>/dev/null || dpkg-query --search "${1#/usr}"; } | cut -d: -f1
}

packages=()
for library in "${libraries[@]}"; do
  case "$library" in
    "$prefix"/*) programs+=("$library") ;;
    *) packages+=("$(owner "$library")") ;;
  esac
done
printf '%s\n' "${packages[@]}" | sort -u >"$dest/packages"

printf '%s\n' "${programs[@]}" | sort -u | xargs cp --parents -t "$dest/root"
cp --parents -r "$prefix/lib/libboss_cuda.so" "$prefix/share/boss" "$dest/root"
# A fifth of LibTorch is symbols for debuggers. NVIDIA's libraries stay as they came.
strip --strip-unneeded "$dest/root$prefix"/torch/lib/*.so

# What the wheels say of themselves, of those that have a file here.
readonly wheels="$dest/root/usr/share/doc/boss/wheels"
mkdir -p "$wheels"
for info in "$prefix"/*.dist-info; do
  while IFS=, read -r file _; do
    if [ -f "$dest/root$prefix/$file" ]; then
      cp -r "$info" "$wheels"
      rm "$wheels/${info##*/}/RECORD"
      break
    fi
  done <"$info/RECORD"
done

# The headers that the compiler read.
ninja -C "$build" -t deps | awk '/^ +\/usr\/include/ { print $1 }' | sort -u | xargs dpkg-query --search | cut -d: -f1 | sort -u |
  xargs dpkg-query --status >"$dest/compiled-in"
