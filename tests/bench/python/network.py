"""The embedded model's network, an NCSN++ U-Net, in PyTorch as one would write it there, and its Euler sampler."""
import json
import math
import pathlib
import struct
from types import SimpleNamespace

import torch
import torch.nn.functional as F
from torch import nn


def group_norm(channels):
    return nn.GroupNorm(min(channels // 4, 32), channels, eps=1e-6)


class ResBlock(nn.Module):
    def __init__(self, channels_in, channels_out, embedding, resample=None):
        super().__init__()
        self.resample = resample
        self.GroupNorm_0 = group_norm(channels_in)
        self.Conv_0 = nn.Conv2d(channels_in, channels_out, 3, padding=1)
        self.Dense_0 = nn.Linear(embedding, channels_out)
        self.GroupNorm_1 = group_norm(channels_out)
        self.Conv_1 = nn.Conv2d(channels_out, channels_out, 3, padding=1)
        has_shortcut = channels_in != channels_out or resample is not None
        self.Conv_2 = nn.Conv2d(channels_in, channels_out, 1) if has_shortcut else nn.Identity()

    def forward(self, x, embedding):
        h = F.silu(self.GroupNorm_0(x))
        if self.resample == "down":
            h, x = F.avg_pool2d(h, 2), F.avg_pool2d(x, 2)
        elif self.resample == "up":
            h, x = F.interpolate(h, scale_factor=2), F.interpolate(x, scale_factor=2)
        h = self.Conv_0(h) + self.Dense_0(embedding)[:, :, None, None]
        h = self.Conv_1(F.silu(self.GroupNorm_1(h)))
        return (self.Conv_2(x) + h) / math.sqrt(2)


class Nin(nn.Module):
    """A linear map of every pixel's channels."""

    def __init__(self, channels):
        super().__init__()
        self.W = nn.Parameter(torch.empty(channels, channels))
        self.b = nn.Parameter(torch.empty(channels))

    def forward(self, tokens):
        return tokens @ self.W + self.b


class Attention(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.GroupNorm_0 = group_norm(channels)
        self.NIN_0, self.NIN_1, self.NIN_2, self.NIN_3 = (Nin(channels) for _ in range(4))

    def forward(self, x):
        tokens = self.GroupNorm_0(x).flatten(2).transpose(1, 2)
        h = F.scaled_dot_product_attention(self.NIN_0(tokens), self.NIN_1(tokens), self.NIN_2(tokens))
        return (x + self.NIN_3(h).transpose(1, 2).reshape(x.shape)) / math.sqrt(2)


class Ncsnpp(nn.Module):
    """Without what the embedded model does not use: FIR filters, progressive inputs and outputs, Fourier features."""

    def __init__(self, model, time):
        super().__init__()
        nf, levels, blocks = model["nf"], len(model["ch_mult"]), model["num_res_blocks"]
        self.nf, self.patch_size, self.time = nf, model["patch_size"], time
        self.no_label = model["num_classes"]
        self.sample_shape = (model["channels"], model["image_size"], model["image_size"])
        image_channels, embedding = model["channels"] * self.patch_size**2, 4 * nf
        side = model["image_size"] // self.patch_size
        self.all_modules = nn.ModuleList()

        def add(module):
            self.all_modules.append(module)
            return module

        def attention(level, channels):
            return add(Attention(channels)) if side >> level in model["attn_resolutions"] else nn.Identity()

        # Plain lists, so that every module has one name only, in all_modules.
        self.embed = [add(nn.Linear(nf, embedding)), add(nn.Linear(embedding, embedding))]
        self.first = [add(nn.Conv2d(image_channels, nf, 3, padding=1))]
        self.down, self.up = [], []
        channels, skips = nf, [nf]
        for level, multiplier in enumerate(model["ch_mult"]):
            pairs = []
            for _ in range(blocks):
                pairs.append((add(ResBlock(channels, nf * multiplier, embedding)), attention(level, nf * multiplier)))
                channels = nf * multiplier
                skips.append(channels)
            resample = None
            if level + 1 < levels:
                resample = add(ResBlock(channels, channels, embedding, "down"))
                skips.append(channels)
            self.down.append(SimpleNamespace(blocks=pairs, resample=resample))
        self.middle = [add(ResBlock(channels, channels, embedding)), add(Attention(channels)),
                       add(ResBlock(channels, channels, embedding))]
        for level in reversed(range(levels)):
            row = []
            for _ in range(blocks + 1):
                row.append(add(ResBlock(channels + skips.pop(), nf * model["ch_mult"][level], embedding)))
                channels = nf * model["ch_mult"][level]
            self.up.append(SimpleNamespace(
                blocks=row, attention=attention(level, channels),
                resample=add(ResBlock(channels, channels, embedding, "up")) if level > 0 else None))
        self.last = [add(group_norm(channels)), add(nn.Conv2d(channels, image_channels, 3, padding=1))]
        self.class_embedding = nn.Embedding(model["num_classes"] + 1, embedding)

    def forward(self, x, t, labels=None):
        time = (t * (1 - self.time["eps"]) + self.time["eps"]) * self.time["scale"]
        half = self.nf // 2
        frequencies = torch.exp(torch.arange(half, dtype=t.dtype, device=t.device) * (-math.log(10000) / (half - 1)))
        phase = time[:, None] * frequencies
        embedding = self.embed[1](F.silu(self.embed[0](torch.cat([phase.sin(), phase.cos()], 1))))
        if labels is None:
            labels = torch.full((len(x),), self.no_label, device=x.device)
        embedding = F.silu(embedding + self.class_embedding(labels))

        h = self.first[0](F.pixel_unshuffle(x, self.patch_size))
        skips = [h]
        for level in self.down:
            for block, attention in level.blocks:
                h = attention(block(h, embedding))
                skips.append(h)
            if level.resample is not None:
                h = level.resample(h, embedding)
                skips.append(h)
        before, attention, after = self.middle
        h = after(attention(before(h, embedding)), embedding)
        for level in self.up:
            for block in level.blocks:
                h = block(torch.cat([h, skips.pop()], 1), embedding)
            h = level.attention(h)
            if level.resample is not None:
                h = level.resample(h, embedding)
        norm, conv = self.last
        return F.pixel_shuffle(conv(F.silu(norm(h))), self.patch_size)


def read_safetensors(path):
    data = bytearray(pathlib.Path(path).read_bytes())
    (length,) = struct.unpack_from("<Q", data)
    header = json.loads(data[8:8 + length])
    header.pop("__metadata__", None)
    return {name: torch.frombuffer(data, dtype=torch.float32, offset=8 + length + entry["data_offsets"][0],
                                   count=math.prod(entry["shape"])).view(entry["shape"]).clone()
            for name, entry in header.items()}


def load_network(folder):
    architecture = json.loads((pathlib.Path(folder) / "manifest.json").read_text())["architecture"]
    network = Ncsnpp(architecture["model"], architecture["time"])
    network.load_state_dict(read_safetensors(pathlib.Path(folder) / "model.safetensors"))
    return network


@torch.inference_mode()
def integrate(network, x, steps, labels=None):
    """Euler's method on `steps` equal steps from noise to data."""
    for step in range(steps):
        t = torch.full((len(x),), step / steps)
        x = x + network(x, t, labels) / steps
    return x


def draw(network, shape, steps, count):
    """Pixels of `count` samples: uint8 [count, channels, height, width]."""
    samples = integrate(network, torch.randn(count, *shape), steps)
    return ((samples + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)
