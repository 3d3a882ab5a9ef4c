"""The quick starts of docs/quickstart.md, run as they are written there.

usage: quickstart_test.py BOSSD BOSSCTL SOURCE_FOLDER
"""
import json
import os
import shutil
import subprocess
import sys
import tempfile
import unittest

import harness
from snippets import code_blocks

harness.require("grpc", "grpc_tools.protoc")

QUICKSTART = os.path.join(harness.SOURCE_FOLDER, "docs", "quickstart.md")
PNG = b"\x89PNG\r\n\x1a\n"


def grpcurl_folder():
    """Where grpcurl is; None if it is nowhere."""
    path = shutil.which("grpcurl", path=os.pathsep.join([os.environ.get("PATH", ""), os.path.expanduser("~/go/bin")]))
    return path and os.path.dirname(path)


class QuickstartTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.bossd = harness.Bossd()
        cls.addClassCleanup(cls.bossd.__exit__)
        cls.bossd.import_golden("fashion-mnist")
        cls.blocks = code_blocks(QUICKSTART)

    def setUp(self):
        # Stands for the root of the repository, which the commands are run in.
        self.folder = self.enterContext(tempfile.TemporaryDirectory(prefix="boss-quickstart-"))
        os.symlink(os.path.join(harness.SOURCE_FOLDER, "proto"), os.path.join(self.folder, "proto"))

    def block(self, language, containing):
        found = [text for name, text in self.blocks if name == language and containing in text]
        self.assertEqual(len(found), 1, f"blocks of {language} with {containing}")
        return found[0]

    def run_here(self, arguments, folders=()):
        path = os.pathsep.join([os.path.dirname(sys.executable), *folders, os.environ.get("PATH", "")])
        done = subprocess.run(arguments, cwd=self.folder, capture_output=True, text=True, timeout=harness.TIMEOUT_S,
                              env={**os.environ, "BOSS_ADDRESS": self.bossd.address, "PATH": path})
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        return done.stdout

    def check_pictures(self):
        pictures = set()
        for index in range(4):
            with open(os.path.join(self.folder, f"sample-{index}.png"), "rb") as file:
                pictures.add(file.read())
        self.assertEqual(len(pictures), 4, "every sample is another picture")
        for picture in pictures:
            self.assertEqual(picture[:len(PNG)], PNG)

    def test_python(self):
        self.run_here(["sh", "-e", "-c", self.block("sh", "grpc_tools.protoc")])
        program = self.block("python", "SamplerStub")
        self.assertLessEqual(len(program.split("\n")) - 1, 10, "ten lines were promised")
        self.run_here([sys.executable, "-c", program])
        self.check_pictures()

    def test_cpp(self):
        with open(os.path.join(harness.SOURCE_FOLDER, "client", "examples", "quickstart.cc")) as file:
            self.assertEqual(self.block("cpp", "boss_client.h"), file.read())
        with open(os.path.join(harness.SOURCE_FOLDER, "client", "examples", "CMakeLists.txt")) as file:
            self.assertTrue(file.read().endswith(self.block("cmake", "find_package")))
        self.run_here([os.path.join(os.path.dirname(harness.BOSSCTL), "quickstart")])
        self.check_pictures()

    @unittest.skipUnless(grpcurl_folder(), "grpcurl is neither on PATH nor in ~/go/bin")
    def test_grpcurl(self):
        folders = [grpcurl_folder()]
        listed = self.run_here(["sh", "-e", "-c", self.block("sh", " list\n")], folders).split()
        self.assertIn("boss.v1.Sampler", listed)
        self.assertIn("inference.GRPCInferenceService", listed)
        described = self.run_here(["sh", "-e", "-c", self.block("sh", " describe ")], folders)
        self.assertIn("num_samples", described)
        decoder, text, events = json.JSONDecoder(), self.run_here(
            ["sh", "-e", "-c", self.block("sh", "boss.v1.Sampler/Generate")], folders), []
        while text.strip():
            event, end = decoder.raw_decode(text.lstrip())
            events.append(event)
            text = text.lstrip()[end:]
        self.assertEqual(events[0]["accepted"]["model"], "fashion-mnist@1")
        self.assertEqual(len([event for event in events if "sample" in event]), 2)
        self.assertEqual(events[-1]["summary"]["num_samples"], 2)


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1], verbosity=2)
