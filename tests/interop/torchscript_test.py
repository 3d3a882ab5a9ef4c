"""A network that PyTorch exports: imported, sampled from, searched for schedules, straightened, and read back into PyTorch.

usage: torchscript_test.py BOSSD BOSSCTL SOURCE_FOLDER
"""
import glob
import os
import subprocess
import sys
import unittest

import harness

torch, numpy = harness.require("torch", "numpy")

STEPS = 4
SAMPLES = 3


class TorchScriptTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.bossd = harness.Bossd("--allow-torchscript")
        cls.addClassCleanup(cls.bossd.__exit__)
        cls.module_path, cls.description_path = cls.path("net.pt"), cls.path("net.json")
        example = os.path.join(harness.SOURCE_FOLDER, "client", "examples", "export_torchscript.py")
        subprocess.run([sys.executable, example, cls.module_path, cls.description_path], check=True,
                       timeout=harness.TIMEOUT_S)
        cls.bossd.ctl("models", "import", cls.module_path, "--model", "net", "--architecture", cls.description_path,
                      "--torchscript")

    @classmethod
    def path(cls, name):
        return os.path.join(cls.bossd.work.name, name)

    def generate(self, model, noise, embedding, out):
        noise.numpy().tofile(self.path("noise.bin"))
        embedding.numpy().tofile(self.path("embedding.bin"))
        self.bossd.ctl("generate", "-m", model, "-k", STEPS, "-n", SAMPLES, "--schedule", "uniform", "--format", "float32",
                       "--noise", self.path("noise.bin"), "--condition", f"embedding={self.path('embedding.bin')}",
                       "--out", self.path(out))
        files = sorted(glob.glob(os.path.join(self.path(out), "*.npy")))
        self.assertEqual(len(files), SAMPLES)
        return torch.from_numpy(numpy.stack([numpy.load(file) for file in files]))

    def euler(self, module_path, noise, embedding):
        module = torch.jit.load(module_path)
        x = noise
        with torch.no_grad():
            for step in range(STEPS):
                x = x + module(x, torch.full((SAMPLES,), step / STEPS), embedding) / STEPS
        return x

    def test_samples_are_those_of_pytorch(self):
        torch.manual_seed(1)
        noise, embedding = torch.randn(SAMPLES, 2), torch.randn(SAMPLES, 3)
        samples = self.generate("net", noise, embedding, "served")
        torch.testing.assert_close(samples, self.euler(self.module_path, noise, embedding), rtol=1e-4, atol=1e-5)

    def test_is_straightened_and_read_back(self):
        self.bossd.ctl("jobs", "optimize-stepsizes", "-m", "net", "--k-max", 8, "--num-samples", 8, "--wait")
        self.bossd.ctl("jobs", "distill", "-m", "net", "--output", "straight", "--steps", STEPS, "--k-max", 8,
                       "--num-samples", 8, "--num-noises", 32, "--train-steps", 5, "--batch-size", 8, "--wait")
        exported = self.path("straight.pt")
        self.bossd.ctl("models", "export", "straight", "--out", exported)
        before, after = (dict(torch.jit.load(path).named_parameters()) for path in (self.module_path, exported))
        self.assertEqual(before.keys(), after.keys())
        self.assertTrue(any(not torch.equal(before[name], after[name]) for name in before))
        torch.manual_seed(2)
        noise, embedding = torch.randn(SAMPLES, 2), torch.randn(SAMPLES, 3)
        samples = self.generate("straight", noise, embedding, "straightened")
        torch.testing.assert_close(samples, self.euler(exported, noise, embedding), rtol=1e-4, atol=1e-5)

    def test_a_server_that_does_not_allow_it_refuses(self):
        with harness.Bossd() as strict:
            with self.assertRaisesRegex(RuntimeError, "PERMISSION_DENIED"):
                strict.ctl("models", "import", self.module_path, "--model", "net", "--architecture",
                           self.description_path, "--torchscript")


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1])
