#!/usr/bin/env bash
# The part of verify.sh that runs in namespaces of its own, as a container engine would make them: starts the server of the image mounted at ROOT with
# DATA as its volume, uses it, stops it, and leaves what it said under RESULT, where verify.sh has put the image's entry point, health check and
# environment, one word a line.
#
#   verify-run.sh ROOT DATA RESULT
set -euo pipefail

readonly root=$1 data=$2 result=$3
mapfile -t entrypoint <"$result/entrypoint"
mapfile -t healthcheck <"$result/healthcheck"
mapfile -t environment <"$result/environment"

proven() { echo "proven: $*"; }
fail() { echo "FAILED: $*" >&2; if [ -e "$result/bossd.log" ]; then tail -n 20 "$result/bossd.log" >&2; fi; exit 1; }

mount --make-rprivate /
mount --bind "$root" "$root"
mount -o remount,bind,ro,nosuid,nodev "$root"
mount --bind "$data" "$root/data"
mount -o remount,bind,nosuid,nodev,noexec "$root/data"
mount -t proc -o nosuid,nodev,noexec proc "$root/proc"
mount -t sysfs -o ro,nosuid,nodev,noexec sysfs "$root/sys"
mount -t tmpfs -o mode=0755,nosuid,noexec dev "$root/dev"
for device in null zero full random urandom; do
  touch "$root/dev/$device"
  mount --bind "/dev/$device" "$root/dev/$device"
done
mount -o remount,ro "$root/dev"
ip link set lo up

# A program of the image, as its user: no capability, none to be had, no write but to the volume.
use_environment() { # NAME=VALUE...
  as_user=(chroot "$root" /usr/bin/env -i -C /data "${environment[@]}" "$@" setpriv --reuid 10001 --regid 10001 --clear-groups --no-new-privs
           --bounding-set=-all --inh-caps=-all)
}
use_environment
inside() { "${as_user[@]}" "$@"; }

# Waits until a command succeeds, for at most five minutes, as long as the server lives.
wait_until() {
  local deadline=$((SECONDS + 300))
  until "$@" >/dev/null 2>&1; do
    kill -0 "$server" 2>/dev/null || fail "the server ended while waiting for: $*"
    [ "$SECONDS" -lt "$deadline" ] || fail "waited five minutes for: $*"
    sleep 0.2
  done
}

# One thread, as threads wait for each other where the machine has other work.
start() { # FLAG...
  "${as_user[@]}" "${entrypoint[@]}" --threads 1 "$@" >"$result/bossd.log" 2>&1 &
  server=$!
  wait_until inside "${healthcheck[@]}"
}

stop() {
  local status=0
  kill -TERM "$server"
  wait "$server" || status=$?
  [ "$status" -eq 0 ] || fail "after SIGTERM the server ended with $status"
}

# Folders that the user cannot read end find with an error.
writable=$({ inside find / -path /proc -prune -o -path /sys -prune -o -path /dev -prune -o ! -type l -writable -print 2>/dev/null || true; } |
  paste -sd ' ')
[ "$writable" = /data ] || fail "the user can write to: $writable"
! inside touch /tmp/probe 2>/dev/null || fail "the root file system is not read-only"
proven "nothing but /data is writable, /tmp neither"

special=$(find "$root" -xdev -type f -perm /6000)
[ -z "$special" ] || fail "set-user-id or set-group-id: $special"
for tool in gcc g++ cc c++ clang ld as make ninja cmake git pip python3 curl wget; do
  ! inside bash -c "command -v $tool" >/dev/null || fail "$tool is in the image"
done
proven "no set-user-id file, no compiler, build tool, interpreter of Python or downloader"

if inside "${entrypoint[@]}" --version >"$result/version"; then proven "bossd $(cat "$result/version") finds its libraries"; else fail "bossd --version"; fi

start
proven "the entry point starts, and the image's health check passes: ${healthcheck[*]}"
grep -E '^(Uid|CapEff|CapBnd|NoNewPrivs):' "$root/proc/$server/status" | tr '\t\n' '  ' >"$result/status"
[[ "$(cat "$result/status")" =~ Uid:\ 10001.*CapEff:\ 0000000000000000\ CapBnd:\ 0000000000000000\ NoNewPrivs:\ 1 ]] ||
  fail "the server runs with $(cat "$result/status")"
proven "it runs with $(cat "$result/status")"

inside bossctl models list | tee "$result/models"
grep -q fashion-mnist "$result/models" || fail "the seed model is not served"
inside bossctl generate --model fashion-mnist --steps 4 --num 16 --labels 0-9 --seed 7 --grid /data/sample.png
proven "bossctl of the image generates with the seed model"
inside bossctl jobs optimize-stepsizes --model fashion-mnist --k-max 10 --num-samples 4 --wait >"$result/job" 2>&1 || fail "the job: $(cat "$result/job")"
proven "a job runs to its end"
exec 3<>/dev/tcp/127.0.0.1/9464
printf 'GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n' >&3
grep -a '^boss_' <&3 >"$result/metrics" || fail "no boss_ series on the port of the metrics"
exec 3>&-
proven "$(wc -l <"$result/metrics") series of metrics are served"
stop
proven "SIGTERM ends it with status 0"
mv "$data/sample.png" "$result"

if inside timeout 300 "${entrypoint[@]}" --listen 0.0.0.0:50051 >"$result/refused" 2>&1; then fail "it listens everywhere without credentials"; fi
grep -q -e --insecure "$result/refused" || fail "it does not start, but says: $(cat "$result/refused")"
proven "without credentials it refuses to listen on other addresses than loopback"

# Secrets as a read-only volume of their own.
mount -t tmpfs -o mode=0755,nosuid,nodev,noexec secrets "$root/run"
mkdir "$root/run/boss"
(
  cd "$root/run/boss"
  openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=boss-ca -keyout "$result/ca.key" -out ca.pem
  openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=bossd -keyout tls.key -out "$result/tls.csr"
  openssl x509 -req -in "$result/tls.csr" -CA ca.pem -CAkey "$result/ca.key" -days 2 -out tls.crt -extfile <(echo "subjectAltName=DNS:boss.test")
  inside bossctl --json tokens new --name verify --role generate >"$result/token.json"
  python3 - "$result/token.json" <<'EOF'
import json, sys
token = json.load(open(sys.argv[1]))
json.dump({"tokens": [token["entry"]]}, open("access.json", "w"))
open("token", "w").write(token["token"])
EOF
  chown 10001:10001 tls.key access.json token
  chmod 0400 tls.key access.json token
) 2>"$result/secrets.log" || fail "making the secrets: $(cat "$result/secrets.log")"
mount -o remount,ro "$root/run"

use_environment BOSS_TLS_CA=/run/boss/ca.pem BOSS_TLS_SERVER_NAME=boss.test
start --listen 0.0.0.0:50051 --tls-certificate /run/boss/tls.crt --tls-key /run/boss/tls.key --access-file /run/boss/access.json
if inside bossctl models list >"$result/refused" 2>&1; then fail "it serves a caller without a token"; fi
grep -q UNAUTHENTICATED "$result/refused" || fail "a caller without a token is told: $(cat "$result/refused")"
use_environment BOSS_TLS_CA=/run/boss/ca.pem BOSS_TLS_SERVER_NAME=boss.test BOSS_TOKEN_FILE=/run/boss/token
inside bossctl generate --model fashion-mnist --steps 2 --num 1 --labels 3 --grid /data/sample.png >"$result/generated"
stop
proven "a second container on the same volume listens on all addresses with TLS and tokens, is healthy, and serves the model to the token's holder alone"
