"""What both tables need: medians, rates, rows, and network_bench's numbers."""
import os
import statistics
import subprocess
import time

ROUNDS = 3  # of each side, in turn


def cores():
    return len(os.sched_getaffinity(0))


def median(values):
    return statistics.median(values)


def seconds_per_call(work, window=1.0):
    """Seconds of one call, the mean over a window, after one call that does not count."""
    work()
    start, calls = time.perf_counter(), 0
    while calls == 0 or time.perf_counter() - start < window:
        work()
        calls += 1
    return (time.perf_counter() - start) / calls


def network_bench(binary, *arguments):
    """Seconds by what was measured and its batch size."""
    output = subprocess.run([binary, *arguments], check=True, stdout=subprocess.PIPE, text=True).stdout
    results = {}
    for line in output.splitlines():
        if line.startswith("result "):
            _, name, _, _, _, batch, _, seconds = line.split()
            results[name, int(batch)] = float(seconds)
    return results


def load_average():
    return "load average " + " ".join(f"{load:.2f}" for load in os.getloadavg())


def print_table(title, header, rows):
    cells = [header] + [[f"{cell:.3g}" if isinstance(cell, float) and abs(cell) < 10 else
                         f"{cell:.1f}" if isinstance(cell, float) else str(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*cells)]
    print(title)
    for row in cells:
        print("  ".join([row[0].ljust(widths[0])] + [cell.rjust(width) for cell, width in zip(row[1:], widths[1:])]))
    print(flush=True)
