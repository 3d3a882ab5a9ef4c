"""An independent client with TLS and a token, and the commands of docs/security.md that make certificates, against a real bossd.

usage: python_security_test.py BOSSD BOSSCTL SECURITY_PAGE
"""
import json
import os
import subprocess
import sys
import tempfile
import unittest

import grpc

BOSSD, BOSSCTL, SECURITY_PAGE = map(os.path.abspath, sys.argv[1:4])
TIMEOUT_S = 120
WORK = tempfile.TemporaryDirectory(prefix="boss-python-security-")


def documented_commands():
    """The page's last indented block, without its last line, which starts the server."""
    with open(SECURITY_PAGE) as file:
        page = file.read()
    block = page[page.index("## Certificates for a test"):]
    block = block[:block.index("## What is left")]
    lines = [line[4:] for line in block.splitlines() if line.startswith("    ")]
    assert lines[0].startswith("openssl req -x509") and lines[-1].startswith("bossd "), lines
    return "\n".join(lines[:-1]), lines[-1].split()[1:]


class PythonSecurityTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        os.chdir(WORK.name)
        commands, flags = documented_commands()
        subprocess.run(["bash", "-euc", commands], check=True, capture_output=True)
        made = json.loads(subprocess.run([BOSSCTL, "tokens", "new", "--json", "--name=me", "--role=generate"], check=True,
                                         capture_output=True, text=True).stdout)
        cls.token = made["token"]
        with open("access.json", "w") as file:
            json.dump({"tokens": [made["entry"]]}, file)
        cls.process = subprocess.Popen([BOSSD, *flags, "--listen=127.0.0.1:0", "--metrics-listen=127.0.0.1:0",
                                        "--port-file=ports.json", "--threads=1", "--drain-seconds=0"],
                                       stderr=subprocess.PIPE, text=True)
        log = []
        while not any(" ready " in line for line in log):
            log.append(cls.process.stderr.readline())
            if not log[-1]:
                raise RuntimeError("bossd did not start:\n" + "".join(log))
        with open("ports.json") as file:
            cls.address = f"127.0.0.1:{json.load(file)['grpc']}"
        with open("ca.pem", "rb") as file:
            cls.ca = file.read()

    @classmethod
    def tearDownClass(cls):
        cls.process.terminate()
        cls.process.communicate(timeout=TIMEOUT_S)

    def code(self, method, token=None):
        """Of a call with an empty request."""
        credentials = grpc.ssl_channel_credentials(root_certificates=self.ca)
        if token is not None:
            credentials = grpc.composite_channel_credentials(credentials, grpc.access_token_call_credentials(token))
        with grpc.secure_channel(self.address, credentials) as channel:
            try:
                channel.unary_unary(method)(b"", timeout=TIMEOUT_S)
                return grpc.StatusCode.OK
            except grpc.RpcError as error:
                return error.code()

    def test_a_token_opens_the_methods_of_its_roles(self):
        self.assertEqual(self.code("/boss.v1.Models/ListModels", self.token), grpc.StatusCode.OK)
        self.assertEqual(self.code("/boss.v1.Jobs/ListJobs", self.token), grpc.StatusCode.PERMISSION_DENIED)
        self.assertEqual(self.code("/boss.v1.Models/ListModels", "wrong"), grpc.StatusCode.UNAUTHENTICATED)
        self.assertEqual(self.code("/boss.v1.Models/ListModels"), grpc.StatusCode.UNAUTHENTICATED)
        self.assertEqual(self.code("/grpc.health.v1.Health/Check"), grpc.StatusCode.OK)

    def test_there_is_nothing_in_the_clear(self):
        with grpc.insecure_channel(self.address) as channel:
            with self.assertRaises(grpc.RpcError) as refused:
                channel.unary_unary("/grpc.health.v1.Health/Check")(b"", timeout=TIMEOUT_S)
        self.assertEqual(refused.exception.code(), grpc.StatusCode.UNAVAILABLE)


if __name__ == "__main__":
    try:
        unittest.main(argv=sys.argv[:1], verbosity=2)
    finally:
        WORK.cleanup()
