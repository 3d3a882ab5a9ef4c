"""Table 5: a train step and stage 1 against PyTorch's."""
import copy

import torch
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from measure import ROUNDS, cores, median, network_bench, print_table, seconds_per_call
from network import load_network

TRAIN_BATCH = 32
PAIRS = 256
STAGE1_SAMPLES = 32
K_MAX = 50
WINDOW = 2  # seconds of one measurement


class Straightening:
    """Adam, gradients clipped to norm 1, an exponential moving average of the weights, random pairs."""

    def __init__(self, network, fused):
        self.network = copy.deepcopy(network).train()
        self.parameters = list(self.network.parameters())
        self.optimizer = torch.optim.Adam(self.parameters, lr=2e-4, betas=(0.9, 0.999), fused=fused)
        self.average = AveragedModel(self.network, multi_avg_fn=get_ema_multi_avg_fn(0.999))
        self.x_start = torch.randn(PAIRS, *network.sample_shape)
        self.x_end = torch.randn(PAIRS, *network.sample_shape)
        self.t_start = torch.rand(PAIRS) * 0.5
        self.t_end = self.t_start + 0.25
        self.labels = torch.randint(network.no_label, (PAIRS,))

    def step(self):
        batch = torch.randint(PAIRS, (TRAIN_BATCH,))
        x_start, t_start = self.x_start[batch], self.t_start[batch]
        chord = (self.x_end[batch] - x_start) / (self.t_end[batch] - t_start)[:, None, None, None]
        loss = (self.network(x_start, t_start, self.labels[batch]) - chord).square().mean()
        self.optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.parameters, 1.0)
        self.optimizer.step()
        self.average.update_parameters(self.network)
        return loss.item()


@torch.inference_mode()
def trajectories(network, noise):
    """States [k_max + 1, N, ...] and velocities [k_max, N, ...] of a fine Euler run."""
    states, velocities = [noise], []
    for i in range(K_MAX):
        velocities.append(network(states[-1], torch.full((len(noise),), i / K_MAX)))
        states.append(states[-1] + velocities[-1] / K_MAX)
    return torch.stack(states), torch.stack(velocities)


@torch.inference_mode()
def cost_matrix(states, velocities):
    """c[i][j] = mean || x_i + (t_j - t_i) v_i - x_j ||^2, row by row from the formula, in float64."""
    x, v = states.flatten(2).double(), velocities.flatten(2).double()
    times = torch.arange(K_MAX + 1, dtype=torch.float64) / K_MAX
    cost = torch.zeros(K_MAX + 1, K_MAX + 1, dtype=torch.float64)
    for i in range(K_MAX):
        jump = x[i] + (times[i + 1:] - times[i])[:, None, None] * v[i]
        cost[i, i + 1:] = (jump - x[i + 1:]).square().sum(-1).mean(-1)
    return cost


@torch.inference_mode()
def cost_matrix_einsum(states, velocities):
    """The same from Gram matrices, as one who has thought about it would write it."""
    x, v = states.flatten(1).double(), velocities.flatten(1).double()
    times = torch.arange(K_MAX + 1, dtype=torch.float64) / K_MAX
    h = times - times[:-1, None]
    xx, vx = torch.einsum("ia,ja->ij", x, x), torch.einsum("ia,ja->ij", v, x)
    square = xx.diagonal()
    cost = (square[:-1, None] - 2 * xx[:-1] + square + h**2 * v.square().sum(1)[:, None] +
            2 * h * (vx.diagonal()[:, None] - vx))
    return torch.triu(cost.clamp(min=0), diagonal=1) / states.shape[1]


def train_step_rows(options, network, threads):
    sides = {"PyTorch": Straightening(network, fused=None), "PyTorch, fused Adam": Straightening(network, fused=True)}
    ours, theirs = [], {name: [] for name in sides}
    for _ in range(ROUNDS):
        results = network_bench(options.network_bench, f"--threads={threads}", "--rounds=1", "train")
        ours.append(results["train_step", TRAIN_BATCH])
        for name, side in sides.items():
            theirs[name].append(seconds_per_call(side.step, WINDOW))
    return [[f"train step, batch {TRAIN_BATCH}", threads, 1e3 * median(ours), name, 1e3 * median(seconds),
             median(ours) / median(seconds)] for name, seconds in theirs.items()]


def stage1_rows(options, network, threads):
    noise = torch.randn(STAGE1_SAMPLES, *network.sample_shape)
    ways = {"PyTorch, row by row": cost_matrix, "PyTorch, einsum": cost_matrix_einsum}
    recorded = trajectories(network, noise)
    reference = cost_matrix(*recorded)
    if not torch.allclose(reference[:-1], cost_matrix_einsum(*recorded), rtol=1e-6, atol=1e-9 * reference.max()):
        raise RuntimeError("the two ways to the cost matrix disagree")
    ours_run, ours_cost, run, cost = [], [], [], {name: [] for name in ways}
    for _ in range(ROUNDS):
        results = network_bench(options.network_bench, f"--threads={threads}", "--rounds=1", "stage1")
        ours_run.append(results["trajectories", STAGE1_SAMPLES])
        ours_cost.append(results["cost_matrix", STAGE1_SAMPLES])
        run.append(seconds_per_call(lambda: trajectories(network, noise), WINDOW))
        for name, way in ways.items():
            cost[name].append(seconds_per_call(lambda: way(*recorded), WINDOW / 4))
    rows = [["trajectories", threads, 1e3 * median(ours_run), "PyTorch", 1e3 * median(run),
             median(ours_run) / median(run)]]
    for name, seconds in cost.items():
        rows.append(["cost matrix", threads, 1e3 * median(ours_cost), name, 1e3 * median(seconds),
                     median(ours_cost) / median(seconds)])
    for name, seconds in cost.items():
        ours, theirs = median(ours_run) + median(ours_cost), median(run) + median(seconds)
        rows.append(["stage 1, both", threads, 1e3 * ours, name, 1e3 * theirs, ours / theirs])
    return rows


def run(options, work):
    network = load_network(options.model)
    rows = []
    for threads in sorted({1, cores()}):
        torch.set_num_threads(threads)
        rows += train_step_rows(options, network, threads)
        rows += stage1_rows(options, network.eval(), threads)
    print_table(f"5. A train step (goal: at most 0.9) and stage 1 with N = {STAGE1_SAMPLES}, k_max = {K_MAX} "
                "(goal: at most 0.6) against PyTorch eager",
                ["", "threads", "ours, ms", "against", "PyTorch, ms", "ratio"], rows)
