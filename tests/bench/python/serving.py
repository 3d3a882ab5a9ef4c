"""Table 3: bossd against PyTorch loops and LitServe."""
import contextlib

import torch

from measure import ROUNDS, cores, median, network_bench, print_table, seconds_per_call
from network import draw, integrate, load_network
from servers import Bossd, LitServe, drive, load_stubs, mixed_steps

STEPS = 8
CLIENTS = 32
WINDOW = 4  # seconds of one measurement


def check_same_samples(bossd, network):
    """Both sides compute the same thing, or nothing is worth comparing."""
    noise = torch.randn(4, *network.sample_shape)
    labels = [0, 3, 7, -1]
    ours = torch.tensor([network.no_label if label < 0 else label for label in labels])
    rows = []
    client = bossd.client()
    for steps in (1, STEPS):
        with bossd.running():
            samples = client.generate(
                steps=steps, num_samples=4, class_labels=labels, output_format="OUTPUT_FORMAT_FLOAT32",
                initial_noise=bossd.models.Tensor(
                    dtype="DATA_TYPE_FLOAT32", shape=noise.shape, data=noise.numpy().tobytes()))
        served = torch.stack([torch.frombuffer(bytearray(samples[i]), dtype=torch.float32).view(network.sample_shape)
                              for i in range(4)])
        difference = (served - integrate(network, noise, steps, ours)).abs().max().item()
        if difference > 1e-3:
            raise RuntimeError(f"K = {steps}: bossd's samples differ from PyTorch's by {difference}")
        rows.append([f"K = {steps}", f"{difference:.2e}"])
    client.close()
    print_table("The same noise through bossd and through PyTorch", ["", "largest difference"], rows)


class Loop:
    """A batched sampling loop in PyTorch at its best batch size."""

    def __init__(self, name, network, shape, batches):
        self.name, self.network, self.shape = name, network, shape
        rates = {batch: self.rate(batch, 1.5) for batch in batches}
        self.batch = max(rates, key=rates.get)
        print(f"PyTorch, {name}, {STEPS} steps: " +
              "  ".join(f"batch {batch}: {rate:.1f}/s" for batch, rate in rates.items()), flush=True)

    def rate(self, batch, window):
        return batch / seconds_per_call(lambda: draw(self.network, self.shape, STEPS, batch), window)

    def measure(self):
        return self.rate(self.batch, WINDOW)


def make_loops(network):
    loops = [Loop("eager", network, network.sample_shape, (1, 8, 16, 32, 64, 128))]
    try:
        loops.append(Loop("torch.compile", torch.compile(network), network.sample_shape, (16, 32, 64)))
    except Exception as error:  # whatever its compiler raises
        print(f"torch.compile does not work here: {type(error).__name__}: {error}")
    print()
    return loops


def throughput(bossd, loops):
    rows = []
    for samples in (1, 64):
        ours, theirs, client_cpu = [], [[] for _ in loops], []
        drive(bossd, CLIENTS, lambda _: (STEPS, samples), 1)
        for _ in range(ROUNDS):
            load = drive(bossd, CLIENTS, lambda _: (STEPS, samples), WINDOW)
            ours.append(load["samples"])
            client_cpu.append(load["client_cpu"])
            for loop, rates in zip(loops, theirs):
                rates.append(loop.measure())
        for loop, rates in zip(loops, theirs):
            rows.append([f"{CLIENTS} clients, {samples} each", median(ours), f"{loop.name}, batch {loop.batch}",
                         median(rates), median(ours) / median(rates), f"{100 * median(client_cpu):.0f}%"])
    print_table(f"3a. bossd against a sampling loop in PyTorch, K = {STEPS}, samples/s (goal: at least 1.0)",
                ["bossd's load", "bossd", "loop", "PyTorch", "ratio", "clients' CPU"], rows)


def mixed_load(bossd, servers):
    def request(number):
        return mixed_steps(number), 1

    for server in [bossd, *servers]:
        drive(server, CLIENTS, request, 2)
    ours, theirs = [], [[] for _ in servers]
    for _ in range(ROUNDS):
        ours.append(drive(bossd, CLIENTS, request, WINDOW))
        for server, loads in zip(servers, theirs):
            loads.append(drive(server, CLIENTS, request, WINDOW))

    def row(name, loads):
        rate = median([load["samples"] for load in loads])
        return [name, rate, median([load["evaluations"] for load in loads]),
                1e3 * median([latency for load in loads for latency in load["latencies"]]),
                f"{100 * median([load['client_cpu'] for load in loads]):.0f}%",
                median([load["samples"] for load in ours]) / rate]

    rows = [row("bossd", ours)]
    for server, loads in zip(servers, theirs):
        rows.append(row(f"LitServe, batch_timeout {server.batch_timeout:g}", loads))
    print_table(f"3b. {CLIENTS} clients, one sample each, K = 2..16 (goal: at least 2 times LitServe's samples/s)",
                ["", "samples/s", "evaluations/s", "p50, ms", "clients' CPU", "bossd / this"], rows)


def overhead(bossd, servers, network, binary):
    def latency(server):
        return drive(server, 1, lambda _: (STEPS, 1), WINDOW)["latencies"]

    bare_ours, bare_theirs = [], []
    latencies = {server: [] for server in [bossd, *servers]}
    for server in latencies:
        drive(server, 1, lambda _: (STEPS, 1), 1)
    for _ in range(2 * ROUNDS):
        bare = network_bench(binary, "--rounds=1", f"--threads={cores()}", "--batch=1", "evaluations")
        bare_ours.append(STEPS * bare["evaluation", 1])
        bare_theirs.append(seconds_per_call(lambda: draw(network, network.sample_shape, STEPS, 1), WINDOW / 2))
        for server, seconds in latencies.items():
            seconds += latency(server)
    rows = []
    ours = median(latencies[bossd]) - median(bare_ours)
    for server, seconds in latencies.items():
        bare = median(bare_ours if server is bossd else bare_theirs)
        more = median(seconds) - bare
        name = "bossd" if server is bossd else (
            f"LitServe, max_batch_size {server.max_batch_size}, batch_timeout {server.batch_timeout:g}")
        rows.append([name, 1e3 * median(seconds), 1e3 * bare, 1e3 * more, f"{ours / more:.2f}"])
    print_table(f"3c. One client, one sample, K = {STEPS}: latency over the bare network (goal: 0.10 of LitServe's)",
                ["", "p50, ms", "bare, ms", "more, ms", "bossd / this"], rows)


def run(options, work):
    torch.set_num_threads(cores())
    network = load_network(options.model).eval()
    with contextlib.ExitStack() as stack:
        def started(server):
            stack.callback(server.stop)
            return server

        bossd = started(Bossd(options.bossd, options.models, cores(), load_stubs(options.protos, work), work))
        check_same_samples(bossd, network)
        throughput(bossd, make_loops(network))
        batching = [started(LitServe(options.model, cores(), 64, timeout, work)) for timeout in (0, 0.01)]
        mixed_load(bossd, batching)
        single = started(LitServe(options.model, cores(), 1, 0, work))
        overhead(bossd, [*batching, single], network, options.network_bench)
