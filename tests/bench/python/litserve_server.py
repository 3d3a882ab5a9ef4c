"""LitServe with dynamic batching, serving the embedded model's network in PyTorch.

usage: litserve_server.py MODEL_FOLDER PORT THREADS MAX_BATCH_SIZE BATCH_TIMEOUT
"""
import base64
import collections
import sys

import litserve
import torch

from network import draw, load_network


class FlowApi(litserve.LitAPI):
    """Draws the samples of a batch together that have the same number of steps."""

    def __init__(self, folder, threads, **options):
        super().__init__(**options)
        self.folder, self.threads = folder, threads

    def setup(self, device):
        torch.set_num_threads(self.threads)
        self.network = load_network(self.folder).eval()

    def decode_request(self, request):
        return int(request["steps"])

    def batch(self, inputs):
        return inputs

    def unbatch(self, output):
        return output

    def predict(self, inputs):
        # One number where LitServe does not batch.
        steps_of_each = inputs if isinstance(inputs, list) else [inputs]
        outputs = [None] * len(steps_of_each)
        groups = collections.defaultdict(list)
        for index, steps in enumerate(steps_of_each):
            groups[steps].append(index)
        for steps, indices in groups.items():
            for index, pixels in zip(indices, draw(self.network, self.network.sample_shape, steps, len(indices))):
                outputs[index] = pixels.numpy().tobytes()
        return outputs if isinstance(inputs, list) else outputs[0]

    def encode_response(self, output):
        return {"pixels": base64.b64encode(output).decode()}


if __name__ == "__main__":
    folder, port, threads, max_batch_size, batch_timeout = sys.argv[1:]
    api = FlowApi(folder, int(threads), max_batch_size=int(max_batch_size), batch_timeout=float(batch_timeout))
    litserve.LitServer(api, accelerator="cpu").run(
        host="127.0.0.1", port=int(port), generate_client_file=False, log_level="warning")
