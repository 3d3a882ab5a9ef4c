"""An independent client: stubs that Python's grpcio-tools generates from proto/, against a real bossd.

usage: python_client_test.py BOSSD PROTO_FOLDER GOLDEN_FOLDER
"""
import array
import hashlib
import importlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import unittest
import zlib

import grpc
from grpc_tools import protoc

BOSSD, PROTO_FOLDER, GOLDEN_FOLDER = sys.argv[1:4]
TIMEOUT_S = 120  # of any one call
WORK = tempfile.TemporaryDirectory(prefix="boss-python-client-")


def generate_stubs():
    """Imports what protoc makes of the contract; gRPC's own health protocol goes through its messages alone."""
    folder = os.path.join(WORK.name, "stubs")
    os.mkdir(folder)
    names = [f"boss/v1/{name}.proto" for name in ("errors", "models", "sampling", "jobs")]
    output = [f"--python_out={folder}", f"--grpc_python_out={folder}"]
    if protoc.main(["protoc", f"-I{PROTO_FOLDER}", *output, *names]) != 0:
        raise RuntimeError("protoc cannot read the contract")
    # Under its own root: the Python package "grpc" is grpcio's.
    if protoc.main(["protoc", f"-I{PROTO_FOLDER}/grpc/health/v1", output[0], "health.proto"]) != 0:
        raise RuntimeError("protoc cannot read the health protocol")
    sys.path.insert(0, folder)


generate_stubs()
errors_pb2 = importlib.import_module("boss.v1.errors_pb2")
models_pb2 = importlib.import_module("boss.v1.models_pb2")
models_grpc = importlib.import_module("boss.v1.models_pb2_grpc")
sampling_pb2 = importlib.import_module("boss.v1.sampling_pb2")
sampling_grpc = importlib.import_module("boss.v1.sampling_pb2_grpc")
jobs_pb2 = importlib.import_module("boss.v1.jobs_pb2")
jobs_grpc = importlib.import_module("boss.v1.jobs_pb2_grpc")
health_pb2 = importlib.import_module("health_pb2")


class Server:
    """A bossd on free ports with a data folder of its own."""

    def __init__(self):
        port_file = os.path.join(WORK.name, "ports.json")
        self.log = []
        self.process = subprocess.Popen(
            [BOSSD, "--listen=127.0.0.1:0", "--metrics-listen=127.0.0.1:0", f"--port-file={port_file}",
             f"--data={os.path.join(WORK.name, 'data')}", "--threads=1", "--drain-seconds=0"],
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

    def terminate(self):
        """Sends SIGTERM and returns the exit code."""
        self.process.send_signal(signal.SIGTERM)
        try:
            code = self.process.wait(timeout=TIMEOUT_S)
        finally:
            self.process.kill()
        self.reader.join()
        return code


def import_messages(name):
    """The golden checkpoint in chunks, as ImportModel takes it."""
    with open(os.path.join(GOLDEN_FOLDER, "ddpmpp_tiny.json")) as file:
        description = json.load(file)
    with open(os.path.join(GOLDEN_FOLDER, "ddpmpp_tiny.pth"), "rb") as file:
        weights = file.read()
    yield models_pb2.ImportModelRequest(start=models_pb2.ImportStart(
        model=name, format=models_pb2.ImportStart.TORCH_CHECKPOINT,
        architecture_json=json.dumps({key: description[key] for key in ("model", "time")}),
        total_bytes=len(weights), sha256=hashlib.sha256(weights).hexdigest()))
    for offset in range(0, len(weights), 100_000):
        data = weights[offset:offset + 100_000]
        yield models_pb2.ImportModelRequest(
            chunk=models_pb2.ImportChunk(offset=offset, data=data, crc32=zlib.crc32(data)))


def floats(sample):
    return array.array("f", sample.data)


class PythonClientTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.server = Server()
        cls.channel = grpc.insecure_channel(cls.server.address)
        cls.sampler = sampling_grpc.SamplerStub(cls.channel)
        cls.jobs = jobs_grpc.JobsStub(cls.channel)
        cls.models = models_grpc.ModelsStub(cls.channel)
        cls.check_health = cls.channel.unary_unary(
            "/grpc.health.v1.Health/Check", request_serializer=health_pb2.HealthCheckRequest.SerializeToString,
            response_deserializer=health_pb2.HealthCheckResponse.FromString)

    @classmethod
    def tearDownClass(cls):
        cls.channel.close()
        code = cls.server.terminate()
        if code != 0:
            raise AssertionError(f"bossd ended with {code} after SIGTERM:\n" + "".join(cls.server.log))

    def import_model(self, name):
        version = self.models.ImportModel(import_messages(name), timeout=TIMEOUT_S).version
        self.assertEqual((version.model, version.version), (name, "1"))

    def generate(self, **fields):
        """One call's accepted message, samples by index, and summary."""
        request = sampling_pb2.GenerateRequest(output_format=sampling_pb2.OUTPUT_FORMAT_FLOAT32, **fields)
        events = list(self.sampler.Generate(request, timeout=TIMEOUT_S))
        self.assertEqual(events[0].WhichOneof("event"), "accepted")
        self.assertEqual(events[-1].WhichOneof("event"), "summary")
        samples = [event.sample for event in events if event.WhichOneof("event") == "sample"]
        samples.sort(key=lambda sample: sample.index)
        self.assertEqual([sample.index for sample in samples], list(range(max(request.num_samples, 1))))
        return events[0].accepted, samples, events[-1].summary

    def assert_close(self, a, b):
        self.assertEqual(len(a), len(b))
        self.assertLess(max(abs(x - y) for x, y in zip(a, b)), 1e-3)

    def assert_fails(self, code, call):
        with self.assertRaises(grpc.RpcError) as caught:
            call()
        self.assertEqual(caught.exception.code(), code, caught.exception.details())
        return caught.exception

    def field_violations(self, error):
        """The fields that the error's details name."""
        details = dict(error.trailing_metadata())["grpc-status-details-bin"]
        fields = []
        for detail in errors_pb2.Status.FromString(details).details:
            if detail.type_url == "type.googleapis.com/google.rpc.BadRequest":
                violations = errors_pb2.BadRequest.FromString(detail.value).field_violations
                fields += [violation.field for violation in violations]
        return fields

    def watch(self, name, from_sequence=1):
        return self.jobs.WatchJob(jobs_pb2.WatchJobRequest(name=name, from_sequence=from_sequence), timeout=TIMEOUT_S)

    def test_health_is_told_for_the_server_and_each_service(self):
        for service in ("", "boss.v1.Sampler", "boss.v1.Jobs", "boss.v1.Models"):
            response = self.check_health(health_pb2.HealthCheckRequest(service=service), timeout=TIMEOUT_S)
            self.assertEqual(response.status, health_pb2.HealthCheckResponse.SERVING, service)
        request = health_pb2.HealthCheckRequest(service="boss.v1.Nothing")
        self.assert_fails(grpc.StatusCode.NOT_FOUND, lambda: self.check_health(request, timeout=TIMEOUT_S))

    def test_samples_depend_on_their_seeds_alone(self):
        self.import_model("sampled")
        accepted, whole, summary = self.generate(model="sampled", steps=3, num_samples=4, seed=70)
        self.assertEqual(accepted.model, "sampled@1")
        self.assertEqual(len(accepted.time_grid), 4)
        self.assertEqual(accepted.nfe, 3)
        self.assertEqual(summary.nfe, 3)
        self.assertEqual([sample.seed for sample in whole], [70, 71, 72, 73])
        self.assertEqual(list(whole[0].shape), [3, 16, 16])
        self.assertEqual(len(floats(whole[0])), 3 * 16 * 16)
        _, part, _ = self.generate(model="sampled@1", steps=3, num_samples=2, seed=72)
        for one, other in zip(whole[2:], part):
            self.assert_close(floats(one), floats(other))
        self.assertGreater(max(abs(x - y) for x, y in zip(floats(whole[0]), floats(whole[1]))), 0.1)

    def test_errors_name_the_field(self):
        self.import_model("refused")

        def generate(**fields):
            return lambda: list(self.sampler.Generate(sampling_pb2.GenerateRequest(**fields), timeout=TIMEOUT_S))

        self.assert_fails(grpc.StatusCode.NOT_FOUND, generate(model="nothing"))
        error = self.assert_fails(grpc.StatusCode.INVALID_ARGUMENT, generate(model="refused", steps=-1))
        self.assertEqual(self.field_violations(error), ["steps"])
        error = self.assert_fails(grpc.StatusCode.INVALID_ARGUMENT, generate(model="refused", num_samples=1_000_000))
        self.assertEqual(self.field_violations(error), ["num_samples"])
        error = self.assert_fails(grpc.StatusCode.FAILED_PRECONDITION, generate(
            model="refused", steps=2, schedule=models_pb2.SCHEDULE_KIND_BELLMAN))
        self.assertIn("OptimizeStepsizesJob", error.details())

    def test_a_job_runs_to_its_end_and_its_schedules_are_used(self):
        self.import_model("scheduled")
        job = self.jobs.OptimizeStepsizesJob(jobs_pb2.OptimizeStepsizesJobRequest(
            spec=jobs_pb2.OptimizeStepsizesSpec(model="scheduled", k_max=8, num_samples=4)), timeout=TIMEOUT_S)
        events = list(self.watch(job.name))
        self.assertEqual([event.sequence for event in events], list(range(1, len(events) + 1)))
        self.assertEqual(events[-1].state_change.to, jobs_pb2.Job.SUCCEEDED, events[-1])
        stages = {event.stage_change.to for event in events if event.WhichOneof("payload") == "stage_change"}
        self.assertIn(jobs_pb2.JOB_STAGE_TRAJECTORIES, stages)
        self.assertEqual(list(self.watch(job.name, from_sequence=3)), events[2:])

        schedules = self.models.GetSchedule(models_pb2.GetScheduleRequest(
            model="scheduled", steps=3, include_cost_matrix=True), timeout=TIMEOUT_S)
        self.assertEqual(len(schedules.cost_matrix), 81)
        self.assertEqual([schedule.steps for schedule in schedules.schedules], [3])
        grid = list(schedules.schedules[0].time_grid)
        self.assertEqual(grid, [knot / 8 for knot in schedules.schedules[0].knots])
        accepted, _, _ = self.generate(model="scheduled", steps=3, schedule=models_pb2.SCHEDULE_KIND_BELLMAN)
        self.assertEqual(list(accepted.time_grid), grid)

    def test_a_job_is_cancelled_while_it_trains(self):
        self.import_model("distilled")
        request = jobs_pb2.DistillJobRequest(request_id="python-client", spec=jobs_pb2.DistillSpec(
            model="distilled", steps=2, k_max=8, num_samples=4, num_noises=8,
            training=jobs_pb2.TrainingOptions(train_steps=1_000_000, batch_size=2, metrics_interval=1)))
        job = self.jobs.DistillJob(request, timeout=TIMEOUT_S)
        self.assertEqual(self.jobs.DistillJob(request, timeout=TIMEOUT_S).name, job.name)
        request.spec.steps = 3
        self.assert_fails(grpc.StatusCode.ALREADY_EXISTS, lambda: self.jobs.DistillJob(request, timeout=TIMEOUT_S))

        trained = 0
        last = None
        for last in self.watch(job.name):
            if last.WhichOneof("payload") != "metrics":
                continue
            trained += 1
            if trained == 2:
                self.jobs.CancelJob(jobs_pb2.CancelJobRequest(name=job.name), timeout=TIMEOUT_S)
        self.assertGreaterEqual(trained, 2)
        self.assertEqual(last.state_change.to, jobs_pb2.Job.CANCELLED)
        for method, message in ((self.jobs.GetJob, jobs_pb2.GetJobRequest), (self.jobs.CancelJob, jobs_pb2.CancelJobRequest)):
            self.assertEqual(method(message(name=job.name), timeout=TIMEOUT_S).state, jobs_pb2.Job.CANCELLED)
        # It published nothing.
        model = self.models.GetModel(models_pb2.GetModelRequest(model="distilled"), timeout=TIMEOUT_S)
        self.assertEqual([version.version for version in model.versions], ["1"])


if __name__ == "__main__":
    try:
        unittest.main(argv=sys.argv[:1], verbosity=2)
    finally:
        WORK.cleanup()
