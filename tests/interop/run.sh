#!/usr/bin/env bash
# Runs the tests of this folder against the real packages of requirements.txt, in an environment that is made for them and removed at the end. Says how
# long that took and how large it was.
#
# usage: tests/interop/run.sh [--build=FOLDER] [--python=PYTHON] [TEST ...]      all tests by default, e.g. schedules
#
# Build bossd, bossctl and quickstart first (build/release by default). --python names an interpreter that has the packages already.
set -euo pipefail

folder=$(cd "$(dirname "$0")" && pwd)
source_folder=$(cd "$folder/../.." && pwd)
build="$source_folder/build/release"
python=
tests=()
for argument in "$@"; do
  case "$argument" in
    --build=*) build=$(cd "${argument#*=}" && pwd) ;;
    --python=*) python=${argument#*=} ;;
    -*) sed -n '2,/^$/s/^# \{0,1\}//p' "$0" >&2; exit 2 ;;
    *) tests+=("$argument") ;;
  esac
done
if [ "${#tests[@]}" -eq 0 ]; then
  for file in "$folder"/*_test.py; do
    name=$(basename "$file")
    tests+=("${name%_test.py}")
  done
fi

bossd="$build/server/app/bossd" bossctl="$build/client/bossctl"
for program in "$bossd" "$bossctl"; do
  [ -x "$program" ] || { echo "$program is not there: build it first" >&2; exit 1; }
done

if [ -z "$python" ]; then
  work=$(mktemp -d)
  trap 'rm -rf "$work"' EXIT
  bash "$folder/install.sh" "$work/python"
  python="$work/python/bin/python"
fi

failed=0
for name in "${tests[@]}"; do
  echo "== $name"
  BOSS_INTEROP_REQUIRED=1 PYTHONDONTWRITEBYTECODE=1 "$python" "$folder/${name}_test.py" "$bossd" "$bossctl" "$source_folder" || failed=1
done
exit "$failed"
