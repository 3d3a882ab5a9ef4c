#!/usr/bin/env bash
# install.sh FOLDER: makes a Python environment in FOLDER with the packages that these tests run against, and says how long that took and how large it is.
set -euo pipefail

started=$(date +%s)
/usr/bin/python3 -m venv "$1"
"$1/bin/python" -m pip install -q --no-cache-dir --disable-pip-version-check -r "$(dirname "$0")/requirements.txt"
echo "installed the packages of tests/interop in $(($(date +%s) - started)) s, $(du -sm "$1" | cut -f1) MB"
