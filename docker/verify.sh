#!/usr/bin/env bash
# Builds the image without a container engine, runs it, and says what was proven:
#
#   docker/verify.sh [--variant cpu|cuda] [--jobs N] [--fresh]
#
# As root on Debian 12; installs buildah and debootstrap if they are missing. The base is made with debootstrap and stands in for
# docker.io/library/debian:bookworm-slim. Packages come from where apt and pip of this machine take them. Everything else lies under build/image, and
# is used again by the next run; --fresh begins anew.
set -euo pipefail
cd "$(dirname "$0")/.."

readonly base=docker.io/library/debian:bookworm-slim
out=$PWD/build/image
variant=cpu
jobs=$(nproc)
while [ "$#" -gt 0 ]; do
  case "$1" in
    --variant) variant=$2; shift 2 ;;
    --jobs) jobs=$2; shift 2 ;;
    --fresh) rm -rf "$out"; shift ;;
    *) echo "usage: $0 [--variant cpu|cuda] [--jobs N] [--fresh], got $1" >&2; exit 2 ;;
  esac
done
readonly out variant jobs image=localhost/boss:$variant

section() { printf '\n== %s\n' "$1"; }
fail() { echo "FAILED: $*" >&2; exit 1; }
[ "$(id -u)" -eq 0 ] || fail "must run as root, for mounts and for chroot"

missing=()
for package in buildah debootstrap iproute2 openssl python3 util-linux; do
  dpkg-query -W -f='${db:Status-Status}' "$package" 2>/dev/null | grep -qx installed || missing+=("$package")
done
if [ "${#missing[@]}" -gt 0 ]; then
  section "Installing ${missing[*]}"
  apt-get update -q
  DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends "${missing[@]}"
fi

# buildah keeps caches of builds below TMPDIR. That of the compiler is the one that builds on this machine use, if they use one.
export TMPDIR=$out/tmp
mkdir -p "$TMPDIR/buildah-cache/root/.cache"
if cache=$(ccache --get-config cache_dir 2>/dev/null) && [ ! -e "$TMPDIR/buildah-cache/root/.cache/ccache" ]; then
  mkdir -p "$cache"
  ln -s "$cache" "$TMPDIR/buildah-cache/root/.cache/ccache"
fi
b() { buildah --root "$out/storage" --runroot "$out/run" --storage-driver overlay "$@"; }

# A URI of each of Debian's suites that apt of this machine knows: lines "URI SUITE".
debian_sources() {
  # shellcheck disable=SC2016
  apt-get indextargets --format '$(REPO_URI) $(RELEASE) $(COMPONENT)' 'Identifier: Packages' 'Origin: Debian' |
    awk '$3 == "main" && $2 ~ /^bookworm/ { print $1, $2 }' | sort -u -k2,2
}

if ! b inspect --type image "$base" >/dev/null 2>&1; then
  section "Base: debootstrap --variant=minbase bookworm, as $base"
  [ -n "$(debian_sources)" ] || apt-get update -q
  sources=$(debian_sources)
  mirror=$(awk '$2 == "bookworm" { print $1 }' <<<"$sources")
  rm -rf "$out/base"
  debootstrap --variant=minbase bookworm "$out/base" "${mirror:-http://deb.debian.org/debian}" >"$out/debootstrap.log" ||
    { tail -n 20 "$out/debootstrap.log" >&2; fail "debootstrap"; }
  if [ -n "$sources" ]; then awk '{ print "deb", $0, "main" }' <<<"$sources" >"$out/base/etc/apt/sources.list"; fi
  # As the slim variant of Debian's own image does.
  printf '%s\n' 'path-exclude /usr/share/doc/*' 'path-include /usr/share/doc/*/copyright' 'path-exclude /usr/share/man/*' \
    'path-exclude /usr/share/info/*' 'path-exclude /usr/share/locale/*' >"$out/base/etc/dpkg/dpkg.cfg.d/slim"
  find "$out/base/usr/share/doc" -mindepth 2 ! -name copyright ! -type d -delete
  rm -rf "$out"/base/var/cache/apt/* "$out"/base/var/lib/apt/lists/* "$out"/base/var/log/* "$out"/base/usr/share/{man,info,locale}/*
  container=$(b from scratch)
  b add --quiet "$container" "$out/base" / >/dev/null
  b config --cmd bash --env PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin "$container"
  b commit --quiet --rm --format docker "$container" "$base" >/dev/null
  rm -rf "$out/base"
fi

# What pip of this machine is told, for pip in the build.
secrets=(--secret "id=pip.conf,src=$out/pip.conf")
{
  echo '[global]'
  if /usr/bin/python3 -m pip --version >/dev/null 2>&1; then
    /usr/bin/python3 -m pip config list |
      sed -nE "s/^(global|:env:)\.(default-)?(index-url|extra-index-url|trusted-host|proxy|timeout|retries)='(.*)'$/\3 = \4/p" | sort -u -k1,1
  fi
  if [ -e /etc/ssl/certs/ca-certificates.crt ]; then echo 'cert = /run/secrets/ca.crt'; fi
} >"$out/pip.conf"
if [ -e /etc/ssl/certs/ca-certificates.crt ]; then secrets+=(--secret "id=ca.crt,src=/etc/ssl/certs/ca-certificates.crt"); fi

section "buildah bud, $variant"
version=$(sed -nE 's/^project\(boss VERSION ([0-9.]+).*/\1/p' CMakeLists.txt)
revision=$(git rev-parse HEAD 2>/dev/null || echo unknown)
started=$SECONDS
b bud --isolation chroot --network host --pull-never --layers --format docker \
  "${secrets[@]}" --build-arg VARIANT="$variant" --build-arg JOBS="$jobs" --build-arg VERSION="$version" --build-arg REVISION="$revision" \
  --file docker/Dockerfile --tag "$image" . >"$out/build-$variant.log" 2>&1 ||
  { tail -n 40 "$out/build-$variant.log" >&2; fail "the build; all of it is in $out/build-$variant.log"; }
echo "built in $((SECONDS - started)) s"

section "What is in it"
container=$(b from --pull-never "$image")
root=$(b mount "$container")
trap 'b rm "$container" >/dev/null' EXIT
config() { b inspect --type image --format "{{$1}}" "$image"; }
list() { b inspect --type image --format "{{range .Docker.Config.$1}}{{println .}}{{end}}" "$image" | sed '/^$/d'; }

echo "user          $(config .Docker.Config.User)"
echo "entry point   $(list Entrypoint | paste -sd ' ')"
echo "health check  $(list Healthcheck.Test | paste -sd ' ')"
echo "stop signal   $(config .Docker.Config.StopSignal)"
echo "volume, ports $(config .Docker.Config.Volumes) $(config .Docker.Config.ExposedPorts)"
# shellcheck disable=SC2016
b inspect --type image --format '{{range $k, $v := .Docker.Config.Labels}}{{println "label        " $k "=" $v}}{{end}}' "$image" | sed '/^$/d'
du -xsm "$root" | awk '{ print "size          " $1 " MiB, of it:" }'
for part in usr opt/boss/torch opt/boss/nvidia opt/boss/bin opt/boss/lib opt/boss/share var etc; do
  if [ -e "$root/$part" ]; then du -xsm "$root/$part" | awk -v part="/$part" '{ printf "  %5d MiB  %s\n", $1, part }'; fi
done
python3 - "$root/usr/share/doc/boss/sbom.json" <<'EOF'
import json, sys
components = json.load(open(sys.argv[1]))["components"]
installed = [c for c in components if c["purl"].startswith("pkg:deb/") and all(p["name"] != "boss:use" for p in c["properties"])]
wheels = [c for c in components if c["purl"].startswith("pkg:pypi/")]
print(f"bill          {len(installed)} Debian packages installed, {len(components) - len(installed) - len(wheels)} compiled in by their headers, wheels:",
      ", ".join(f"{c['name']} {c['version']}" for c in wheels))
EOF
b run --isolation chroot --network host "$container" -- id | grep -q 'uid=10001(boss) gid=10001(boss)' ||
  fail "buildah run does not run as the user of the image"

section "Run it: own mounts, network and processes, root file system read-only, user without capabilities"
rm -rf "$out/data" "$out/result"
mkdir -p "$out/result"
install --directory --owner=10001 --group=10001 --mode=0700 "$out/data"
list Entrypoint >"$out/result/entrypoint"
list Healthcheck.Test | tail -n +2 >"$out/result/healthcheck"
list Env >"$out/result/environment"
unshare --mount --net --pid --ipc --uts --fork --kill-child bash docker/verify-run.sh "$root" "$out/data" "$out/result"

section "The picture"
python3 - "$out/result/sample.png" <<'EOF'
import struct, sys, zlib
data = open(sys.argv[1], "rb").read()
assert data[:8] == b"\x89PNG\r\n\x1a\n", "not a PNG"
at, chunks = 8, []
while at < len(data):
    length, kind = struct.unpack(">I4s", data[at:at + 8])
    body = data[at + 8:at + 8 + length]
    assert zlib.crc32(kind + body) == struct.unpack(">I", data[at + 8 + length:at + 12 + length])[0], f"checksum of {kind}"
    chunks.append((kind, body))
    at += 12 + length
assert chunks[0][0] == b"IHDR" and chunks[-1][0] == b"IEND", "IHDR first, IEND last"
width, height, depth, colour = struct.unpack(">IIBB", chunks[0][1][:10])
pixels = zlib.decompress(b"".join(body for kind, body in chunks if kind == b"IDAT"))
channels = {0: 1, 2: 3, 6: 4}[colour]
assert depth == 8 and len(pixels) == height * (1 + width * channels), "size of the pixels"
assert len(set(pixels)) > 50, "the picture is one colour"
print(f"{width} x {height}, {len(data)} bytes, {len(set(pixels))} different byte values: {sys.argv[1]}")
EOF
printf '\nverified: %s\n' "$image"
