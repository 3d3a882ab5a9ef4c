"""A real Prometheus, configured as in deploy/prometheus, scrapes a real bossd under load: its rules have values, the dashboard has data.

The server is given a fake of NVIDIA's management library, so that it has cards to report.

usage: prometheus_test.py BOSSD PROMETHEUS_FOLDER FAKE_NVML_FOLDER REPOSITORY
"""
import importlib
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import unittest
import urllib.error
import urllib.parse
import urllib.request

import grpc
from grpc_tools import protoc

BOSSD, PROMETHEUS_FOLDER, FAKE_NVML_FOLDER, REPOSITORY = sys.argv[1:5]
sys.path.insert(0, os.path.join(REPOSITORY, "tests/deploy/prometheus"))
import metric_names  # noqa: E402  beside the tests of the rules

TIMEOUT_S = 120  # of anything that is waited for
POLL_S = 0.1
# Series that are there only after something has gone wrong, and with TLS.
ON_EVENT = {"boss_journal_errors_total", "boss_store_errors_total", "boss_gpu_last_xid",
            "boss_tls_certificate_not_after_timestamp_seconds"}
# Panels that show nothing while all is well.
EMPTY_PANELS = {"Disk errors", "Calls that did not end well", "Latents decoded", "Certificate ends in"}


def generate_stubs(folder):
    names = [f"boss/v1/{name}.proto" for name in ("errors", "models", "sampling", "jobs")]
    os.mkdir(folder)
    arguments = [f"-I{REPOSITORY}/proto", f"--python_out={folder}", f"--grpc_python_out={folder}"]
    if protoc.main(["protoc", *arguments, *names]) != 0:
        raise RuntimeError("protoc cannot read the contract")
    sys.path.insert(0, folder)


def wait_for(condition, what, process):
    """What `condition` returns once it is neither None nor False; fails when the process has ended."""
    deadline = time.monotonic() + TIMEOUT_S
    while True:
        result = condition()
        if result is not None and result is not False:
            return result
        if time.monotonic() > deadline:
            raise AssertionError(f"still not: {what}")
        try:
            code = process.wait(POLL_S)
        except subprocess.TimeoutExpired:
            continue
        raise AssertionError(f"{process.args[0]} ended with {code} while waiting: {what}")


def end(process, log):
    """SIGTERM; fails unless it ends well. It is gone afterwards in any case."""
    process.send_signal(signal.SIGTERM)
    try:
        code = process.wait(TIMEOUT_S)
    finally:
        process.kill()
    with log:
        log.seek(0)
        if code != 0:
            raise AssertionError(f"{process.args[0]} ended with {code}:\n{log.read()}")


class Bossd:
    """On free ports, with points to train on."""

    def __init__(self, work, *arguments):
        port_file = os.path.join(work, "ports.json")
        sets = os.path.join(work, "sets")
        os.mkdir(sets)
        with open(os.path.join(sets, "points"), "wb") as file:  # LeCun's format, bytes: 64 points of two values
            file.write(bytes([0, 0, 8, 3, 0, 0, 0, 64, 0, 0, 0, 1, 0, 0, 0, 2]) + random.Random(1).randbytes(128))
        self.dataset = "idx:" + os.path.join(sets, "points")
        self.log = open(os.path.join(work, "bossd.log"), "w+")  # pylint: disable=consider-using-with
        self.process = subprocess.Popen(  # pylint: disable=consider-using-with
            [BOSSD, "--listen=127.0.0.1:0", "--metrics-listen=127.0.0.1:0", f"--port-file={port_file}",
             f"--data={os.path.join(work, 'data')}", f"--dataset-folder={sets}", "--threads=1",
             "--drain-seconds=0", *arguments],
            env={**os.environ, "LD_LIBRARY_PATH": FAKE_NVML_FOLDER}, stdout=self.log, stderr=self.log)

        def ports():
            try:
                with open(port_file) as file:
                    return json.load(file)
            except FileNotFoundError:
                return None

        try:
            ports = wait_for(ports, "bossd is ready", self.process)
        except BaseException:
            self.process.kill()
            raise
        self.address = f"127.0.0.1:{ports['grpc']}"
        self.metrics_address = f"127.0.0.1:{ports['metrics']}"

    def page(self):
        with urllib.request.urlopen(f"http://{self.metrics_address}/metrics", timeout=TIMEOUT_S) as answer:
            return answer.read().decode()

    def stop(self):
        end(self.process, self.log)


class Load:
    """Clients that sample until they are told to stop."""

    def __init__(self, sampler, sampling_pb2, model, clients):
        self.stopped = threading.Event()
        self.errors = []

        def run(client):
            seed = client * 1000
            while not self.stopped.is_set():
                seed += 4
                request = sampling_pb2.GenerateRequest(model=model, num_samples=4, steps=4, seed=seed)
                try:
                    list(sampler.Generate(request, timeout=TIMEOUT_S))
                except grpc.RpcError as error:
                    self.errors.append(str(error))
                    return

        # Daemons, so that they keep nobody from ending.
        self.threads = [threading.Thread(target=run, args=(client,), daemon=True) for client in range(clients)]
        for thread in self.threads:
            thread.start()

    def stop(self):
        self.stopped.set()
        for thread in self.threads:
            thread.join()


class Prometheus:
    """With deploy/prometheus, but faster, and for one server."""

    def __init__(self, work, target):
        configuration = os.path.join(work, "prometheus")
        shutil.copytree(os.path.join(REPOSITORY, "deploy/prometheus"), configuration)
        path = os.path.join(configuration, "prometheus.yml")
        with open(path) as file:
            text = file.read()
        for old, new in (("127.0.0.1:9464", target), (" 15s", " 1s")):
            if old not in text:
                raise AssertionError(f"no {old} in prometheus.yml")
            text = text.replace(old, new)
        with open(path, "w") as file:
            file.write(text)
        self.log = open(os.path.join(work, "prometheus.log"), "w+")  # pylint: disable=consider-using-with
        for attempt in range(10):
            # It cannot take port 0, so somebody else may be faster.
            with socket.socket() as probe:
                probe.bind(("127.0.0.1", 0))
                self.address = f"127.0.0.1:{probe.getsockname()[1]}"
            self.process = subprocess.Popen(  # pylint: disable=consider-using-with
                [os.path.join(PROMETHEUS_FOLDER, "prometheus"), f"--config.file={path}",
                 f"--storage.tsdb.path={os.path.join(work, f'tsdb{attempt}')}", f"--web.listen-address={self.address}"],
                stdout=self.log, stderr=self.log)
            try:
                wait_for(self.ready, "Prometheus is ready", self.process)
                return
            except AssertionError:
                self.process.kill()
                self.log.seek(0)
                if "address already in use" not in self.log.read():
                    raise
            except BaseException:
                self.process.kill()
                raise
        raise AssertionError("no port for Prometheus")

    def ready(self):
        try:
            with urllib.request.urlopen(f"http://{self.address}/-/ready", timeout=TIMEOUT_S) as answer:
                return answer.status == 200
        except (urllib.error.URLError, ConnectionError):
            return False

    def api(self, path, **parameters):
        url = f"http://{self.address}/api/v1/{path}?{urllib.parse.urlencode(parameters)}"
        try:
            with urllib.request.urlopen(url, timeout=TIMEOUT_S) as answer:
                return json.load(answer)["data"]
        except urllib.error.HTTPError as error:
            raise AssertionError(f"{path} {parameters}: {error.read().decode()}") from error

    def query(self, expression):
        """The values of an instant query, by labels."""
        result = self.api("query", query=expression)["result"]
        return [(series["metric"], float(series["value"][1])) for series in result]

    def wait_for_value(self, expression, condition=lambda value: True):
        """The first value once there is one for which the condition holds."""
        def value():
            return next((value for _, value in self.query(expression) if condition(value)), None)
        return wait_for(value, f"a value of {expression}", self.process)

    def stop(self):
        end(self.process, self.log)


class PrometheusTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        work = tempfile.TemporaryDirectory(prefix="boss-prometheus-")  # pylint: disable=consider-using-with
        cls.addClassCleanup(work.cleanup)
        generate_stubs(os.path.join(work.name, "stubs"))
        cls.jobs_pb2 = importlib.import_module("boss.v1.jobs_pb2")
        cls.sampling_pb2 = importlib.import_module("boss.v1.sampling_pb2")
        jobs_grpc = importlib.import_module("boss.v1.jobs_pb2_grpc")
        sampling_grpc = importlib.import_module("boss.v1.sampling_pb2_grpc")

        cls.bossd = Bossd(work.name)
        cls.addClassCleanup(cls.bossd.stop)
        channel = grpc.insecure_channel(cls.bossd.address)
        cls.addClassCleanup(channel.close)
        cls.jobs = jobs_grpc.JobsStub(channel)
        sampler = sampling_grpc.SamplerStub(channel)

        cls.prometheus = Prometheus(work.name, cls.bossd.metrics_address)
        cls.addClassCleanup(cls.prometheus.stop)
        # First a job alone, which makes the model.
        cls.run_job("TrainJob", cls.jobs_pb2.TrainJobRequest(spec=cls.jobs_pb2.TrainSpec(
            dataset=cls.bossd.dataset, output_model="points",
            architecture_json='{"model": {"architecture": "mlp", "dim": 2, "hidden": 16, "layers": 2}}',
            training=cls.jobs_pb2.TrainingOptions(train_steps=60, batch_size=8, checkpoint_interval=20))))
        cls.load = Load(sampler, cls.sampling_pb2, "points", clients=2)
        cls.addClassCleanup(cls.load.stop)
        # A job beside the load, whose metrics Prometheus sees grow: it has scraped the series of the first one.
        cls.prometheus.wait_for_value('boss_jobs_finished_total{kind="TRAIN",state="SUCCEEDED"}', lambda value: value >= 1)
        cls.run_job("TrainJob", cls.jobs_pb2.TrainJobRequest(spec=cls.jobs_pb2.TrainSpec(
            dataset=cls.bossd.dataset, output_model="points", init_model="points",
            training=cls.jobs_pb2.TrainingOptions(train_steps=60, batch_size=8, checkpoint_interval=20))))

    @classmethod
    def run_job(cls, method, request):
        job = getattr(cls.jobs, method)(request, timeout=TIMEOUT_S)
        events = list(cls.jobs.WatchJob(cls.jobs_pb2.WatchJobRequest(name=job.name), timeout=TIMEOUT_S))
        job = cls.jobs.GetJob(cls.jobs_pb2.GetJobRequest(name=job.name), timeout=TIMEOUT_S)
        if job.state != cls.jobs_pb2.Job.SUCCEEDED:
            raise AssertionError(f"{job}\n{events[-1]}")

    def test_the_server_is_scraped(self):
        # A scrape may take longer than it is given, which is a second here; the next one may not.
        target = wait_for(
            lambda: next((one for one in self.prometheus.api("targets")["activeTargets"]
                          if one["health"] == "up" and not one["lastError"]), None),
            "a target that is up", self.prometheus.process)
        self.assertEqual(target["labels"]["job"], "boss")

    def test_the_page_passes_promtool(self):
        result = subprocess.run([os.path.join(PROMETHEUS_FOLDER, "promtool"), "check", "metrics"],
                                input=self.bossd.page(), capture_output=True, text=True, check=False)
        self.assertEqual((result.returncode, result.stdout + result.stderr), (0, ""))

    def test_load_shows_in_what_is_recorded(self):
        positive = lambda value: value > 0
        share = lambda value: 0 < value <= 1
        value = self.prometheus.wait_for_value
        value("job:boss_requests:rate5m", positive)
        value('job_method_code:boss_requests:rate5m{method="/boss.v1.Sampler/Generate",code="OK"}', positive)
        value("job:boss_samples:rate5m", positive)
        for part in ("queue", "compute", "output"):
            value(f"job:boss_sampling_{part}_seconds:p90_5m", positive)
        value("job:boss_batch_fill:ratio_rate5m", share)
        value('instance_device_work:boss_device_busy:ratio_rate5m{device="cpu",work="sampling"}', share)
        value('instance_device_work:boss_device_busy:ratio_rate5m{device="cpu",work="training"}', share)
        value("instance:boss_data_free:ratio", share)
        value("job:boss_server_errors:ratio_rate6h", lambda ratio: ratio == 0)
        self.assertEqual(dict(self.card_values("instance_gpu:boss_gpu_memory_used:ratio")), {"0": 0.15, "1": 0.125})

    def card_values(self, expression):
        series = wait_for(lambda: self.prometheus.query(expression) or None, f"a value of {expression}",
                          self.prometheus.process)
        return [(labels["index"], value) for labels, value in series]

    def test_every_rule_is_evaluated_without_error(self):
        def rules():
            groups = self.prometheus.api("rules")["groups"]
            found = [rule for group in groups for rule in group["rules"]]
            return None if any(rule["health"] == "unknown" for rule in found) else found

        found = wait_for(rules, "every rule was evaluated", self.prometheus.process)
        for rule in found:
            self.assertEqual((rule["health"], rule.get("lastError", "")), ("ok", ""), rule["name"])
            if rule["type"] == "recording":
                self.prometheus.wait_for_value(rule["name"])
        self.assertEqual([rule["name"] for rule in found if rule.get("state") == "firing"], [])

    def test_the_dashboard_has_data(self):
        with open(os.path.join(REPOSITORY, "deploy/grafana/boss.json")) as file:
            outer = json.load(file)["panels"]
        panels = [panel for row in outer for panel in [row, *row.get("panels", [])] if panel["type"] != "row"]
        self.assertEqual(EMPTY_PANELS - {panel["title"] for panel in panels}, set())
        for panel in panels:
            expressions = [metric_names.fill_in(target["expr"]) for target in panel["targets"]]
            if panel["title"] in EMPTY_PANELS:
                for expression in expressions:
                    self.prometheus.query(expression)
            else:
                wait_for(lambda: any(self.prometheus.query(one) for one in expressions),  # pylint: disable=cell-var-from-loop
                         f"data for the panel {panel['title']}", self.prometheus.process)

    def test_what_the_files_name_the_server_has(self):
        page = self.bossd.page()
        present = {line.split()[2] for line in page.splitlines() if line.startswith("# TYPE ")}
        files = ["deploy/grafana/boss.json", "deploy/prometheus/rules/recording.yml", "deploy/prometheus/rules/alerts.yml"]
        named = set()
        for file in files:
            with open(os.path.join(REPOSITORY, file)) as text:
                named |= {name for name, _ in metric_names.selectors(text.read().replace('\\"', '"'))}
        documented = metric_names.documented(os.path.join(REPOSITORY, "docs/metrics.md"))
        families = {documented[name].name for name in named if name in documented}
        self.assertGreater(len(families), 40)
        self.assertEqual(families - present - ON_EVENT, set())

    def test_cards_come_from_the_driver(self):
        self.assertEqual(self.card_values("boss_gpu_power_watts"), [("0", 312.5), ("1", 20)])
        self.assertEqual(self.card_values("boss_gpu_utilization_ratio"), [("0", 0.37)])
        self.assertEqual(self.card_values('boss_gpu_clock_hertz{clock="sm"}'), [("0", 1755e6), ("1", 210e6)])
        self.assertEqual(self.card_values('boss_gpu_ecc_errors_total{kind="corrected"}'), [("0", 3)])

    def test_a_server_that_leaves_cards_alone_has_none(self):
        with tempfile.TemporaryDirectory(prefix="boss-prometheus-") as work:
            other = Bossd(work, "--device=cpu")
            try:
                page = other.page()
            finally:
                other.stop()
        self.assertIn("boss_build_info", page)
        self.assertNotIn("boss_gpu_", page)

    def test_clients_were_served(self):
        self.prometheus.wait_for_value("boss_samples_total", lambda value: value > 100)
        self.assertEqual(self.load.errors, [])


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        unittest.main(argv=sys.argv[:1], verbosity=2)
    finally:
        # What an interruption, or an output that is gone, has left.
        PrometheusTest.doClassCleanups()
