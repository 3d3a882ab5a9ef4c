"""Measures this project against what a Python user would run instead, both sides in turn.

usage: compare.py --build BUILD_FOLDER --source REPOSITORY TABLE...      TABLE is "serving" (3) or "training" (5)
"""
import argparse
import os
import pathlib
import platform
import signal
import sys
import tempfile

import torch

import serving
import training
from measure import load_average

TABLES = {"serving": serving.run, "training": training.run}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--build", type=pathlib.Path, required=True)
    parser.add_argument("--source", type=pathlib.Path, required=True)
    parser.add_argument("tables", nargs="+", choices=TABLES)
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that the servers end, too
    options.bossd = options.build / "server/app/bossd"
    options.network_bench = options.build / "tests/bench/network_bench"
    options.protos = options.source / "proto"
    options.models = options.source / "deploy/models"
    options.model = options.models / "fashion-mnist"
    print(f"PyTorch {torch.__version__}, Python {platform.python_version()}, {os.cpu_count()} processors")
    for table in options.tables:
        with tempfile.TemporaryDirectory(prefix="boss-bench-") as work:
            print(f"before: {load_average()}", flush=True)
            TABLES[table](options, work)
            print(f"after: {load_average()}\n", flush=True)


if __name__ == "__main__":
    main()
