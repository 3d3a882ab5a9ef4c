#!/usr/bin/env python3
"""Exports a small PyTorch network for `bossctl models import --torchscript`: the module, and the JSON that describes it.

usage: export_torchscript.py MODULE.pt DESCRIPTION.json

The network is a velocity of points in the plane with an embedding as its condition. To export one of your own, keep forward()'s arguments in step with
"inputs", and say in the description what it predicts (docs/torchscript.md).
"""
import json
import sys

import torch


class Velocity(torch.nn.Module):
    """v(x, t, embedding) of samples [2], data minus noise, t from noise (0) to data (1)."""

    def __init__(self):
        super().__init__()
        self.layers = torch.nn.Sequential(torch.nn.Linear(2 + 1 + 3, 32), torch.nn.SiLU(), torch.nn.Linear(32, 2))

    def forward(self, x: torch.Tensor, t: torch.Tensor, embedding: torch.Tensor) -> torch.Tensor:
        return self.layers(torch.cat([x, t.unsqueeze(1), embedding], dim=1))


DESCRIPTION = {
    "model": {
        "architecture": "torchscript",
        "sample_shape": [2],
        "conditioning": [{"name": "embedding", "shape": [3]}],
        "inputs": ["x", "t", "embedding"],
        "parameterisation": "velocity",
    }
}


def main(module_path, description_path):
    torch.manual_seed(0)
    # A scripted module takes batches of any size; a traced one, too, if nothing in its code depends on the size.
    torch.jit.script(Velocity().eval()).save(module_path)
    with open(description_path, "w") as file:
        json.dump(DESCRIPTION, file, indent=1)


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(*sys.argv[1:])
