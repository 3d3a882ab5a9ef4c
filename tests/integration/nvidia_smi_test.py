"""What bossd says of the cards against what nvidia-smi says of them. Skipped without nvidia-smi, or if it finds no card.

usage: nvidia_smi_test.py BOSSD
"""
import os
import re
import signal
import subprocess
import sys
import tempfile
import urllib.request

SKIPPED = 77  # as CMakeLists.txt says
MEBI = 1024 * 1024
# nvidia-smi's column; our series without uuid and index; what ours is divided by to have nvidia-smi's unit; how far ours may lie outside of what
# nvidia-smi says before and after: absolutely, and as a share.
COLUMNS = [
    ("utilization.gpu", "boss_gpu_utilization_ratio", 0.01, 30, 0),
    ("memory.used", "boss_gpu_memory_used_bytes", MEBI, 2048, 0),  # bossd itself comes in between
    ("memory.total", "boss_gpu_memory_total_bytes", MEBI, 1, 0),
    ("power.draw", "boss_gpu_power_watts", 1, 20, 0.2),
    ("temperature.gpu", "boss_gpu_temperature_celsius", 1, 3, 0),
    ("clocks.sm", 'boss_gpu_clock_hertz{clock="sm"}', 1e6, 100, 0.2),
    ("clocks.mem", 'boss_gpu_clock_hertz{clock="memory"}', 1e6, 100, 0.2),
    ("clocks.gr", 'boss_gpu_clock_hertz{clock="graphics"}', 1e6, 100, 0.2),
    ("ecc.errors.corrected.volatile.total", 'boss_gpu_ecc_errors_total{kind="corrected"}', 1, 0, 0),
    ("ecc.errors.uncorrected.volatile.total", 'boss_gpu_ecc_errors_total{kind="uncorrected"}', 1, 0, 0),
]


def nvidia_smi():
    """By UUID, nvidia-smi's values by column; None where it has none. No cards if it cannot be run."""
    columns = ["uuid", "index"] + [column for column, *_ in COLUMNS]
    try:
        output = subprocess.run(["nvidia-smi", "--query-gpu=" + ",".join(columns), "--format=csv,noheader,nounits"],
                                capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return {}
    cards = {}
    for line in output.splitlines():
        fields = [field.strip() for field in line.split(",")]
        cards[fields[0]] = {column: float(field) if re.fullmatch(r"-?[0-9.]+", field) else None
                            for column, field in zip(columns[1:], fields[1:])}
    return cards


def served(bossd):
    """By UUID, the values of a bossd's page by series without uuid and index; and the index."""
    with tempfile.TemporaryDirectory(prefix="boss-nvidia-smi-") as work:
        port_file = os.path.join(work, "ports.json")
        with subprocess.Popen([bossd, "--listen=127.0.0.1:0", "--metrics-listen=127.0.0.1:0", f"--data={work}/data",
                               f"--port-file={port_file}", "--drain-seconds=0"], stderr=subprocess.PIPE, text=True) as process:
            log = ""
            for line in process.stderr:
                log += line
                if " ready " in line:
                    break
            if process.poll() is not None:
                raise RuntimeError("bossd did not start:\n" + log)
            port = re.search(r"metrics_port=(\d+)", log).group(1)
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=60) as answer:
                page = answer.read().decode()
            process.send_signal(signal.SIGTERM)
            process.stderr.read()
    cards = {}
    for name, labels, value in re.findall(r"^(boss_gpu_\w+)\{([^}]*)\} (\S+)$", page, re.MULTILINE):
        labels = dict(re.findall(r'(\w+)="([^"]*)"', labels))
        card = cards.setdefault(labels.pop("uuid"), {})
        card["index"] = float(labels.pop("index"))
        rest = ",".join(f'{label}="{text}"' for label, text in labels.items())
        card[f"{name}{{{rest}}}" if rest else name] = float(value)
    return cards


def compare(before, ours, after):
    """Prints a table, and returns whether all agree."""
    agree = set(before) == set(ours)
    if not agree:
        print(f"nvidia-smi has the cards {sorted(before)}, bossd {sorted(ours)}")
    for uuid in sorted(set(before) & set(ours)):
        print(f"{uuid}\n{'':38}{'nvidia-smi':>22}{'bossd':>14}")
        for column, series, unit, absolute, relative in [("index", "index", 1, 0, 0)] + COLUMNS:
            values = [values for values in (before[uuid][column], after.get(uuid, {}).get(column)) if values is not None]
            own = ours[uuid].get(series)
            if own is not None:
                own /= unit
            if own is None or not values:
                right = own is None and not values
            else:
                slack = absolute + relative * max(values)
                right = min(values) - slack <= own <= max(values) + slack
            theirs = " .. ".join(f"{value:g}" for value in values) or "none"
            print(f"{column:38}{theirs:>22}{'none' if own is None else f'{own:.6g}':>14}{'' if right else '   DIFFERS'}")
            agree = agree and right
    return agree


def main():
    before = nvidia_smi()
    if not before:
        print("skipped: nvidia-smi is not there or finds no card")
        return SKIPPED
    ours = served(sys.argv[1])
    return 0 if compare(before, ours, nvidia_smi()) else 1


if __name__ == "__main__":
    sys.exit(main())
