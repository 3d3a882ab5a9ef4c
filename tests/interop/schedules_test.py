"""Schedules that bossctl exports, as diffusers and flow_matching take them.

usage: schedules_test.py BOSSD BOSSCTL SOURCE_FOLDER
"""
import json
import math
import re
import sys
import unittest

import harness

torch, diffusers, solver = harness.require("torch", "diffusers", "flow_matching.solver")

STEPS = (1, 2, 4, 7, 12)
K_MAX = 12


class SchedulesTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.bossd = harness.Bossd()
        cls.addClassCleanup(cls.bossd.__exit__)
        cls.bossd.import_golden()
        cls.bossd.ctl("jobs", "optimize-stepsizes", "-m", "golden", "--k-max", K_MAX, "--num-samples", 4, "--wait")

    def export(self, steps, *arguments):
        return self.bossd.ctl("schedules", "export", "golden", "--steps", steps, *arguments)

    def times(self, steps):
        return json.loads(self.export(steps, "--format", "json"))["t"]

    def check_scheduler(self, steps, *arguments):
        """The scheduler that the export describes must end up at our sigmas, and at timesteps 1000 sigma."""
        exported = json.loads(self.export(steps, "--format", "diffusers", *arguments))
        self.assertEqual(exported["_class_name"], "FlowMatchEulerDiscreteScheduler")
        self.assertEqual(len(exported["sigmas"]), steps)
        scheduler = diffusers.FlowMatchEulerDiscreteScheduler.from_config(exported["scheduler_config"])
        scheduler.set_timesteps(sigmas=exported["sigmas"], **exported["set_timesteps"])
        sigmas = [1 - t for t in self.times(steps)]
        self.assertEqual(len(scheduler.sigmas), steps + 1)
        self.assertEqual(len(scheduler.timesteps), steps)
        for got, expected in zip(scheduler.sigmas.tolist(), sigmas):
            self.assertAlmostEqual(got, expected, delta=1e-6)
        for got, expected in zip(scheduler.timesteps.tolist(), sigmas):
            self.assertAlmostEqual(got / 1000, expected, delta=1e-6)

    def test_diffusers_neither_shifts_nor_replaces_the_sigmas(self):
        for steps in STEPS:
            self.check_scheduler(steps)

    def test_diffusers_static_shift_undoes_the_inversion(self):
        for steps in STEPS:
            for shift in (0.5, 3.0, 12.0):
                self.check_scheduler(steps, "--shift", shift)

    def test_diffusers_exponential_shift_undoes_the_inversion(self):
        for steps in STEPS:
            for mu in (-0.7, 0.5, 1.15):
                self.check_scheduler(steps, "--mu", mu)

    def test_diffusers_takes_our_steps(self):
        """The scheduler's steps with the opposite velocity are Euler's steps over our times."""
        exported = json.loads(self.export(4, "--format", "diffusers"))
        scheduler = diffusers.FlowMatchEulerDiscreteScheduler.from_config(exported["scheduler_config"])
        scheduler.set_timesteps(sigmas=exported["sigmas"], **exported["set_timesteps"])
        velocity = lambda x, t: torch.sin(3 * x) - t
        theirs = torch.linspace(-1, 1, 5, dtype=torch.float32)
        for timestep in scheduler.timesteps:
            theirs = scheduler.step(-velocity(theirs, 1 - timestep / 1000), timestep, theirs).prev_sample
        ours = torch.linspace(-1, 1, 5, dtype=torch.float32)
        times = self.times(4)
        for begin, end in zip(times, times[1:]):
            ours = ours + (end - begin) * velocity(ours, begin)
        self.assertLess((theirs - ours).abs().max().item(), 1e-5)

    def test_diffusers_own_sigmas_come_back_as_they_went(self):
        """The sigmas of a shifted scheduler, imported and exported for that very scheduler, are its default ones."""
        scheduler = diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0)
        scheduler.set_timesteps(5)
        sigmas = scheduler.sigmas.tolist()
        self.bossd.ctl("schedules", "import", "golden", "--name", "shifted", "--sigmas", ",".join(map(repr, sigmas)))
        exported = json.loads(self.export(5, "--name", "shifted", "--format", "diffusers", "--shift", 3))
        again = diffusers.FlowMatchEulerDiscreteScheduler.from_config(exported["scheduler_config"])
        again.set_timesteps(sigmas=exported["sigmas"], **exported["set_timesteps"])
        for got, expected in zip(again.sigmas.tolist(), sigmas):
            self.assertAlmostEqual(got, expected, delta=1e-6)

    def solve(self, literal, growth):
        """What ODESolver makes of dx/dt = -3 x over the exported times; `growth` is the factor of one step of size h."""
        class Decay(torch.nn.Module):
            def forward(self, x, t):
                return -3 * x

        names = {"torch": torch}
        exec(literal, names)
        grid = names["time_grid"].to(torch.float64)
        result = solver.ODESolver(velocity_model=Decay()).sample(
            x_init=torch.ones(2, 1, dtype=torch.float64), step_size=None, method=names["method"], time_grid=grid)
        times = grid.tolist()
        expected = math.prod(growth(end - begin) for begin, end in zip(times, times[1:]))
        self.assertAlmostEqual(result[0, 0].item(), expected, delta=1e-12)
        return times

    def test_flow_matching_solves_on_our_times(self):
        for steps in STEPS:
            times = self.solve(self.export(steps, "--format", "flow-matching"), lambda h: 1 - 3 * h)
            self.assertEqual(len(times), steps + 1)
            for got, expected in zip(times, self.times(steps)):
                self.assertAlmostEqual(got, expected, delta=1e-6)

    def test_flow_matching_takes_heun_steps(self):
        self.bossd.ctl("schedules", "import", "golden", "--name", "for-heun", "--times", "0,0.1,0.35,1", "--solver", "heun")
        literal = self.export(3, "--name", "for-heun", "--format", "flow-matching")
        times = self.solve(literal, lambda h: 1 - 3 * h + 4.5 * h * h)
        self.assertAlmostEqual(times[2], 0.35, delta=1e-6)

    def test_schedulers_without_our_solver_are_refused(self):
        self.bossd.ctl("schedules", "import", "golden", "--name", "trapezoid", "--times", "0,0.5,1", "--solver", "heun")
        for name in ("diffusers", "comfyui", "sd-cpp"):
            with self.assertRaisesRegex(RuntimeError, f"{name} cannot express the solver heun"):
                self.export(2, "--name", "trapezoid", "--format", name)

    def test_text_forms_are_the_sigmas(self):
        for steps in STEPS:
            sigmas = [1 - t for t in self.times(steps)]
            for name in ("comfyui", "sd-cpp"):
                text = self.export(steps, "--format", name)
                # A number with an exponent would be two to ComfyUI, which takes whatever looks like a decimal number.
                numbers = [float(number) for number in re.findall(r"[-+]?(?:\d*\.*\d+)", text)]
                self.assertEqual(len(numbers), steps + 1)
                for got, expected in zip(numbers, sigmas):
                    self.assertAlmostEqual(got, expected, delta=1e-12)


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1])
