"""The Helm chart's configuration is what bossd understands. Usage: see chart.py."""
import json
import os
import subprocess
import sys
import tempfile
import unittest

from chart import BOSSCTL, BOSSD, RENDERINGS, container, objects, of_kind


class RealServer(unittest.TestCase):
    """bossd with the rendered configuration, asked by the rendered probes."""

    def start(self, rendering, folder):
        rendered = objects(RENDERINGS[rendering], "--set", "config.device=cpu")
        (config,) = [found for found in of_kind(rendered, "ConfigMap") if "bossd.toml" in found["data"]]
        text = config["data"]["bossd.toml"]
        for path in ("/run/boss", "/opt/boss/share/boss/models", "/datasets/photos"):
            text = text.replace(path, folder + path)
            os.makedirs(folder + path, exist_ok=True)
        with open(os.path.join(folder, "bossd.toml"), "w") as file:
            file.write(text)
        ports = os.path.join(folder, "ports.json")
        # Flags go before the file: another folder and free ports, but the rest as rendered.
        server = subprocess.Popen([BOSSD, "--config", os.path.join(folder, "bossd.toml"), "--listen=0.0.0.0:0", "--metrics-listen=127.0.0.1:0", f"--data={folder}/data",
                                   "--port-file", ports, "--drain-seconds=0"], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        self.addCleanup(server.stderr.close)
        self.addCleanup(server.wait)
        self.addCleanup(server.kill)
        log = []
        for line in server.stderr:  # until it is ready or ends
            log.append(line)
            if os.path.exists(ports):
                break
        self.assertTrue(os.path.exists(ports), "".join(log))
        with open(ports) as file:
            return rendered, server, json.load(file)

    def environment(self, rendered, port, folder):
        variables = {variable["name"]: variable["value"].replace("/run/boss", folder + "/run/boss") for variable in container(rendered)["env"]}
        self.assertEqual(variables["BOSS_ADDRESS"], "127.0.0.1:50051")
        return {**os.environ, **variables, "BOSS_ADDRESS": f"127.0.0.1:{port}"}

    def stop(self, server):
        server.terminate()
        self.assertEqual(server.wait(60), 0)

    def test_starts_and_answers_the_probes(self):
        with tempfile.TemporaryDirectory(prefix="boss-chart-") as folder:
            rendered, server, ports = self.start("default", folder)
            environment = self.environment(rendered, ports["grpc"], folder)
            for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
                service = container(rendered)[probe]["grpc"].get("service", "")
                done = subprocess.run([BOSSCTL, "health", *([service] if service else [])], env=environment, capture_output=True, text=True, timeout=60)
                self.assertEqual((done.returncode, done.stdout), (0, "SERVING\n"), done.stderr)
            self.stop(server)

    def test_starts_with_certificates_and_answers_the_probes_over_tls(self):
        for rendering, server_name in (("tls", "boss.serving.svc"), ("mtls", "boss.example.com")):
            with self.subTest(rendering=rendering), tempfile.TemporaryDirectory(prefix="boss-chart-") as folder:
                self.make_secrets(folder, server_name)
                rendered, server, ports = self.start(rendering, folder)
                environment = self.environment(rendered, ports["grpc"], folder)
                for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
                    command = container(rendered)[probe]["exec"]["command"]
                    done = subprocess.run([BOSSCTL, *command[1:]], env=environment, capture_output=True, text=True, timeout=60)
                    self.assertEqual((done.returncode, done.stdout), (0, "SERVING\n"), done.stderr)
                environment["BOSS_TLS_SERVER_NAME"] = "another.example.com"
                done = subprocess.run([BOSSCTL, "health"], env=environment, capture_output=True, text=True, timeout=60)
                self.assertNotEqual(done.returncode, 0, done.stdout)
                self.stop(server)

    def make_secrets(self, folder, server_name):
        """What the secrets hold, where the pods mount them."""
        def openssl(*arguments):
            done = subprocess.run(["openssl", *arguments], cwd=folder, capture_output=True, text=True, timeout=60)
            self.assertEqual(done.returncode, 0, done.stderr)

        key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
        openssl("req", "-x509", *key, "-days", "2", "-subj", "/CN=boss-ca", "-keyout", "ca.key", "-out", "ca.crt")
        for secret, name in (("tls", server_name), ("probe", "probe")):
            mounted = os.path.join(folder, "run", "boss", secret)
            os.makedirs(mounted)
            with open(os.path.join(folder, "names"), "w") as file:
                file.write(f"subjectAltName=DNS:{name}\n")
            openssl("req", *key, "-subj", f"/CN={name}", "-keyout", f"{mounted}/tls.key", "-out", "request")
            openssl("x509", "-req", "-in", "request", "-CA", "ca.crt", "-CAkey", "ca.key", "-CAcreateserial", "-days", "2", "-extfile", "names", "-out", f"{mounted}/tls.crt")
            with open(os.path.join(folder, "ca.crt")) as source, open(os.path.join(mounted, "ca.crt"), "w") as target:
                target.write(source.read())
        os.makedirs(os.path.join(folder, "run", "boss", "access"))
        with open(os.path.join(folder, "run", "boss", "access", "access.json"), "w") as file:
            json.dump({"tokens": [{"name": "ops", "sha256": "0" * 64, "roles": ["admin"]}]}, file)


if __name__ == "__main__":
    unittest.main(argv=[sys.argv[0], *sys.argv[6:]])
