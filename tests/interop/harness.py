"""What the tests of this folder share: packages that may be absent, a real bossd, and bossctl.

Every test is called as TEST.py BOSSD BOSSCTL SOURCE_FOLDER and exits with SKIPPED where a package is absent, unless BOSS_INTEROP_REQUIRED is set.
"""
import importlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading

SKIPPED = 77
TIMEOUT_S = 240  # of any one command

BOSSD, BOSSCTL, SOURCE_FOLDER = sys.argv[1:4]


def require(*modules):
    """Imports the modules and returns them; ends the process as skipped if one is absent."""
    imported = []
    for name in modules:
        try:
            imported.append(importlib.import_module(name))
        except ModuleNotFoundError as error:
            if os.environ.get("BOSS_INTEROP_REQUIRED"):
                raise
            print(f"SKIPPED: {error}; tests/interop/run.sh installs what tests/interop/requirements.txt names")
            sys.exit(SKIPPED)
    return imported


class Bossd:
    """A bossd on free ports with a data folder of its own, as a context manager."""

    def __init__(self, *arguments):
        self.work = tempfile.TemporaryDirectory(prefix="boss-interop-")
        port_file = os.path.join(self.work.name, "ports.json")
        self.log = []
        self.process = subprocess.Popen(
            [BOSSD, "--listen=127.0.0.1:0", "--metrics-listen=127.0.0.1:0", f"--port-file={port_file}",
             f"--data={os.path.join(self.work.name, 'data')}", "--threads=1", "--drain-seconds=0",
             *arguments],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        ready = threading.Event()
        self.reader = threading.Thread(target=self._read_log, args=(ready,))
        self.reader.start()
        ready.wait()
        if not os.path.exists(port_file):
            self.process.wait()
            raise RuntimeError("bossd did not start:\n" + "".join(self.log))
        with open(port_file) as file:
            self.address = f"127.0.0.1:{json.load(file)['grpc']}"

    def _read_log(self, ready):
        for line in self.process.stdout:
            self.log.append(line)
            if " ready " in line:
                ready.set()
        ready.set()

    def ctl(self, *arguments):
        """What bossctl prints; an error with all that it said if it fails."""
        done = subprocess.run([BOSSCTL, "--address", self.address, *map(str, arguments)], capture_output=True,
                              text=True, timeout=TIMEOUT_S)
        if done.returncode != 0:
            raise RuntimeError(f"bossctl {' '.join(map(str, arguments))} ended with {done.returncode}: "
                               f"{done.stdout}{done.stderr}")
        return done.stdout

    def import_golden(self, name="golden"):
        """Publishes the small golden network, three channels of 16 x 16 pixels."""
        golden = os.path.join(SOURCE_FOLDER, "tests", "golden")
        with open(os.path.join(golden, "ddpmpp_tiny.json")) as file:
            description = json.load(file)
        architecture = os.path.join(self.work.name, "architecture.json")
        with open(architecture, "w") as file:
            json.dump({key: description[key] for key in ("model", "time")}, file)
        self.ctl("models", "import", os.path.join(golden, "ddpmpp_tiny.pth"), "--model", name, "--architecture",
                 architecture)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(timeout=TIMEOUT_S)
        finally:
            self.process.kill()
            self.reader.join()
            self.work.cleanup()
