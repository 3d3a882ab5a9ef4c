#!/usr/bin/env bash
# From a checkout to a picture: builds, starts bossd on free loopback ports with the embedded model, samples, distils, and writes a report.
#
#   deploy/demo.sh [OUTPUT]       OUTPUT is build/demo unless given; what an earlier run left there is replaced
set -euo pipefail
cd "$(dirname "$0")/.."

out=$(realpath -m "${1:-build/demo}")
teacher=fashion-mnist@1
seed=2024
steps=4

bash docker/install-deps.sh
cmake --preset release >/dev/null
cmake --build --preset release --parallel "$(nproc)" --target bossd bossctl
started=$SECONDS

mkdir -p "$out"
rm -rf "$out/data" "$out"/*.png "$out"/*.html "$out"/*.json "$out"/*.log

build/release/server/app/bossd --listen 127.0.0.1:0 --metrics-listen 127.0.0.1:0 --data "$out/data" --seed-models deploy/models \
  --port-file "$out/ports.json" >"$out/bossd.log" 2>&1 &
server=$!
stop_server() {
  if kill -TERM "$server" 2>/dev/null; then wait "$server" || true; fi
}
trap stop_server EXIT

until [ -s "$out/ports.json" ]; do
  kill -0 "$server" 2>/dev/null || { cat "$out/bossd.log" >&2; exit 1; }
  sleep 0.1
done
BOSS_ADDRESS=127.0.0.1:$(python3 -c 'import json, sys; print(json.load(open(sys.argv[1]))["grpc"])' "$out/ports.json")
export BOSS_ADDRESS
bossctl() { build/release/client/bossctl "$@"; }

section() { printf '\n== %s\n' "$1"; }

section "Models"
bossctl models list

section "OptimizeStepsizesJob: schedules of every number of steps, and multistep ones of up to 8, no training"
bossctl jobs optimize-stepsizes --model "$teacher" --seed 1 --wait

section "The same 64 garments: fine teacher, $steps uniform steps, $steps Bellman steps, $steps multistep steps"
grid() { # NAME MODEL STEPS SCHEDULE SOLVER
  bossctl generate --model "$2" --steps "$3" --schedule "$4" --solver "$5" --num 64 --seed "$seed" --labels 0-9 --columns 8 --scale 2 \
    --grid "$out/$1.png"
}
grid teacher "$teacher" 100 uniform euler
grid uniform "$teacher" "$steps" uniform euler
grid bellman "$teacher" "$steps" bellman euler
grid multistep "$teacher" "$steps" bellman multistep

section "DistillJob: straightening to the Bellman steps, evaluation"
bossctl --json jobs distill --model "$teacher" --steps "$steps" --k-max 100 --num-noises 256 \
  --train-steps 400 --batch-size 32 --learning-rate 2e-4 --warmup-steps 50 --metrics-interval 10 --checkpoint-interval 100 --seed 1 \
  --evaluation-steps 2,4,8 --evaluation-num-samples 384 --other-solvers heun,multistep --alias demo >"$out/job.json"
job=$(python3 -c 'import json, sys; print(json.load(open(sys.argv[1]))["name"])' "$out/job.json")
bossctl jobs watch "$job"

section "The distilled version"
grid straightened fashion-mnist@demo "$steps" bellman euler

section "Result"
bossctl jobs get "$job"

bossctl report --job "$job" --title "Fashion-MNIST in $steps steps" --out "$out/report.html" \
  --grid "teacher, 100 uniform steps=$out/teacher.png" --grid "$steps uniform steps=$out/uniform.png" \
  --grid "$steps Bellman steps=$out/bellman.png" --grid "$steps multistep steps=$out/multistep.png" \
  --grid "straightened, $steps steps=$out/straightened.png"

trap - EXIT
kill -TERM "$server"
wait "$server" || { echo "bossd did not stop cleanly; its log is $out/bossd.log" >&2; exit 1; }

section "Written in $((SECONDS - started)) s after the build"
printf '%s\n' "$out"/{teacher,uniform,bellman,multistep,straightened}.png "$out/report.html" "$out/bossd.log"
