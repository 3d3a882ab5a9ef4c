"""The Helm chart as the tests beside this file render it. Their usage:

    TEST.py TOOLS_FOLDER BOSSD BOSSCTL PROMTOOL SOURCE_FOLDER        TOOLS_FOLDER is what tests/deploy/install.sh makes
"""
import os
import subprocess
import sys
import tomllib

try:
    import yaml
except ImportError as error:
    print(f"SKIPPED: {error}; tests/deploy/install.sh installs what is missing")
    sys.exit(77)

TOOLS, BOSSD, BOSSCTL, PROMTOOL, SOURCE = sys.argv[1:6]
CHART = os.path.join(SOURCE, "deploy", "helm", "boss")
VALUES = os.path.join(SOURCE, "tests", "deploy", "values")
HELM = os.path.join(TOOLS, "bin", "helm")
if not os.path.exists(HELM):
    print(f"SKIPPED: {HELM} is not there; tests/deploy/install.sh installs it")
    sys.exit(77)
# The oldest version that Chart.yaml allows, that of deploy/verify.sh, and the newest of the schemas.
KUBERNETES_VERSIONS = ("1.29", "1.34", "1.37")
# Renderings by name: the values that lie over the chart's own.
RENDERINGS = {
    "default": [f"{VALUES}/insecure.yaml"],
    "cpu": [f"{CHART}/values-cpu.yaml", f"{VALUES}/insecure.yaml"],
    "gpu": [f"{CHART}/values-gpu.yaml", f"{VALUES}/insecure.yaml"],
    "tls": [f"{VALUES}/tls.yaml"],
    "mtls": [f"{VALUES}/mtls.yaml"],
    "monitoring": [f"{VALUES}/monitoring.yaml"],
    "hpa": [f"{VALUES}/hpa.yaml"],
    "keda": [f"{VALUES}/keda.yaml"],
}


def helm(*arguments):
    environment = {**os.environ, "HELM_CACHE_HOME": "/nonexistent", "HELM_CONFIG_HOME": "/nonexistent", "HELM_DATA_HOME": "/nonexistent"}
    return subprocess.run([HELM, *arguments], capture_output=True, text=True, timeout=60, env=environment)


def render(values, *options, release="boss"):
    files = [option for path in values for option in ("--values", path)]
    return helm("template", release, CHART, "--namespace", "serving", *files, *options)


def objects(values, *options, release="boss"):
    """Of a rendering that must succeed, by (kind, name)."""
    done = render(values, *options, release=release)
    if done.returncode != 0:
        raise AssertionError(done.stderr)
    documents = [document for document in yaml.safe_load_all(done.stdout) if document]
    found = {(document["kind"], document["metadata"]["name"]): document for document in documents}
    if len(found) != len(documents):
        raise AssertionError("two objects have the same kind and name")
    return found


def of_kind(rendered, kind):
    return [document for (found, _), document in rendered.items() if found == kind]


def one(rendered, kind):
    (document,) = of_kind(rendered, kind)
    return document


def container(rendered):
    (found,) = one(rendered, "StatefulSet")["spec"]["template"]["spec"]["containers"]
    return found


def selects(selector, labels):
    return bool(selector) and selector.items() <= labels.items()


def bossd_config(rendered):
    (config,) = [found for found in of_kind(rendered, "ConfigMap") if "bossd.toml" in found["data"]]
    return tomllib.loads(config["data"]["bossd.toml"])
