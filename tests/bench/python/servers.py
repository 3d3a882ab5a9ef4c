"""The two servers, their clients, and the load that clients make."""
import contextlib
import importlib
import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import threading
import time

import grpc
import grpc.experimental
import grpc_tools
import httpx
from grpc_tools import protoc

START_SECONDS = 120


def load_stubs(proto_folder, work):
    """Imports what protoc makes of boss/v1: messages of models.proto and sampling.proto, and the latter's stubs."""
    folder = pathlib.Path(work) / "stubs"
    folder.mkdir()
    common = pathlib.Path(grpc_tools.__file__).parent / "_proto"  # google/protobuf
    outputs = [f"--python_out={folder}", f"--grpc_python_out={folder}"]
    if protoc.main(["protoc", f"-I{proto_folder}", f"-I{common}", *outputs, "boss/v1/errors.proto", "boss/v1/models.proto",
                    "boss/v1/sampling.proto"]) != 0:
        raise RuntimeError("protoc cannot read the contract")
    sys.path.insert(0, str(folder))
    return [importlib.import_module(f"boss.v1.{name}") for name in ("models_pb2", "sampling_pb2", "sampling_pb2_grpc")]


class Process:
    """A server in a process group of its own that stands still (SIGSTOP) unless it is measured."""

    def __init__(self, command, log):
        self.log = log
        with open(log, "wb") as output:
            self.process = subprocess.Popen(command, stdout=output, stderr=output, start_new_session=True)

    def wait_until(self, is_ready):
        deadline = time.monotonic() + START_SECONDS
        while not is_ready():
            if self.process.poll() is not None or time.monotonic() > deadline:
                self.stop()
                raise RuntimeError(f"{self.process.args[:2]} did not start:\n{pathlib.Path(self.log).read_text()}")
            time.sleep(0.1)
        self.signal(signal.SIGSTOP)

    def signal(self, number):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, number)

    @contextlib.contextmanager
    def running(self):
        self.signal(signal.SIGCONT)
        try:
            yield self
        finally:
            self.signal(signal.SIGSTOP)

    def stop(self):
        self.signal(signal.SIGCONT)
        self.signal(signal.SIGTERM)
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            pass
        self.signal(signal.SIGKILL)
        self.process.wait()


class Bossd(Process):
    def __init__(self, binary, models, threads, stubs, work):
        work = pathlib.Path(work)
        port_file = work / "ports.json"
        super().__init__([binary, "--listen=127.0.0.1:0", "--metrics-listen=127.0.0.1:0", f"--port-file={port_file}",
                          f"--data={work / 'data'}", f"--seed-models={models}", f"--threads={threads}",
                          "--log-level=warn"], work / "bossd.log")
        self.wait_until(port_file.exists)
        self.address = f"127.0.0.1:{json.loads(port_file.read_text())['grpc']}"
        self.models, self.messages, self.stubs = stubs

    def client(self):
        return BossClient(self)


class BossClient:
    def __init__(self, server):
        # A connection of its own, and no thread of its own.
        self.channel = grpc.insecure_channel(server.address, options=[
            ("grpc.use_local_subchannel_pool", 1), (grpc.experimental.ChannelOptions.SingleThreadedUnaryStream, 1)])
        self.messages, self.sampler = server.messages, server.stubs.SamplerStub(self.channel)

    def generate(self, **fields):
        request = self.messages.GenerateRequest(model="fashion-mnist", schedule="SCHEDULE_KIND_UNIFORM", **fields)
        return {event.sample.index: event.sample.data for event in self.sampler.Generate(request)
                if event.HasField("sample")}

    def draw(self, steps, samples):
        return len(self.generate(steps=steps, num_samples=samples, output_format="OUTPUT_FORMAT_UINT8"))

    def close(self):
        self.channel.close()


class LitServe(Process):
    def __init__(self, model_folder, threads, max_batch_size, batch_timeout, work):
        self.max_batch_size, self.batch_timeout = max_batch_size, batch_timeout
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"
        program = pathlib.Path(__file__).with_name("litserve_server.py")
        super().__init__([sys.executable, program, model_folder, str(port), str(threads), str(max_batch_size),
                          str(batch_timeout)], pathlib.Path(work) / f"litserve-{port}.log")
        self.wait_until(self.is_healthy)

    def is_healthy(self):
        try:
            return httpx.get(f"{self.url}/health").status_code == 200
        except httpx.HTTPError:
            return False

    def client(self):
        return LitServeClient(self)


class LitServeClient:
    def __init__(self, server):
        self.http = httpx.Client(base_url=server.url, timeout=60, verify=False)  # plain HTTP

    def draw(self, steps, samples):
        assert samples == 1
        response = self.http.post("/predict", json={"steps": steps})
        response.raise_for_status()
        return len(response.json()["pixels"]) > 0

    def close(self):
        self.http.close()


def mixed_steps(number):
    """K = 2..16, each as often as the others."""
    return 2 + number * 7 % 15


def drive(server, clients, request, window):
    """`clients` threads that each send request(number) = (steps, samples) after another for `window` seconds.

    Returns samples and velocity evaluations a second, the latencies, and this process's own share of the processors.
    """
    lock, totals, latencies, errors = threading.Lock(), {"number": 0, "samples": 0, "evaluations": 0}, [], []

    def work(client):
        try:
            while time.monotonic() - start < window:
                with lock:
                    number = totals["number"]
                    totals["number"] += 1
                steps, samples = request(number)
                begin = time.monotonic()
                drawn = client.draw(steps, samples)
                end = time.monotonic()
                with lock:
                    latencies.append(end - begin)
                    totals["samples"] += drawn
                    totals["evaluations"] += drawn * steps
        except Exception as error:  # raised again below, in the thread that waits
            errors.append(error)
        finally:
            client.close()

    connections = [server.client() for _ in range(clients)]
    with server.running():
        start, cpu = time.monotonic(), time.process_time()
        threads = [threading.Thread(target=work, args=(client,)) for client in connections]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        seconds, cpu = time.monotonic() - start, time.process_time() - cpu
    if errors:
        raise errors[0]
    return {"samples": totals["samples"] / seconds, "evaluations": totals["evaluations"] / seconds,
            "latencies": latencies, "client_cpu": cpu / seconds / os.cpu_count()}
