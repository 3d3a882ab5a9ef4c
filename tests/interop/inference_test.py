"""The Open Inference Protocol, as Triton's own client speaks it.

usage: inference_test.py BOSSD BOSSCTL SOURCE_FOLDER
"""
import os
import queue
import subprocess
import sys
import unittest

import harness
from snippets import code_blocks, generated_stubs

numpy, grpc, protoc, triton, triton_utils = harness.require(
    "numpy", "grpc", "grpc_tools.protoc", "tritonclient.grpc", "tritonclient.utils")

SHAPE = (3, 16, 16)  # of the golden network's samples


def tensor(name, array):
    result = triton.InferInput(name, array.shape, triton_utils.np_to_triton_dtype(array.dtype))
    result.set_data_from_numpy(array)
    return result


def request_inputs(num_samples=2, steps=3, seed=42):
    return [tensor("steps", numpy.array([steps], dtype=numpy.int32)),
            tensor("seed", numpy.array([seed], dtype=numpy.int64)),
            tensor("num_samples", numpy.array([num_samples], dtype=numpy.int32)),
            tensor("deterministic", numpy.array([True]))]


class InferenceTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.bossd = harness.Bossd()
        cls.addClassCleanup(cls.bossd.__exit__)
        cls.bossd.import_golden()
        cls.sampling_pb2, cls.sampler = generated_stubs(cls.bossd, protoc, grpc)
        cls.client = triton.InferenceServerClient(cls.bossd.address)
        cls.addClassCleanup(cls.client.close)

    def generate(self, output_format, **fields):
        """What our own interface gives for request_inputs()."""
        request = self.sampling_pb2.GenerateRequest(
            **{"model": "golden", "num_samples": 2, "steps": 3, "seed": 42, "deterministic": True,
               "output_format": output_format, **fields})
        responses = self.sampler.Generate(request, timeout=harness.TIMEOUT_S)
        samples = {r.sample.index: r.sample.data for r in responses if r.HasField("sample")}
        return [samples[index] for index in sorted(samples)]

    def floats(self, **fields):
        data = b"".join(self.generate("OUTPUT_FORMAT_FLOAT32", **fields))
        return numpy.frombuffer(data, dtype=numpy.float32).reshape((-1,) + SHAPE)

    def test_the_server_and_its_models_are_found(self):
        self.assertTrue(self.client.is_server_live())
        self.assertTrue(self.client.is_server_ready())
        self.assertTrue(self.client.is_model_ready("golden"))
        self.assertTrue(self.client.is_model_ready("golden", "1"))
        self.assertFalse(self.client.is_model_ready("golden", "2"))
        self.assertEqual(self.client.get_server_metadata().name, "boss")
        metadata = self.client.get_model_metadata("golden")
        self.assertEqual(list(metadata.versions), ["1"])
        outputs = {output.name: (output.datatype, list(output.shape)) for output in metadata.outputs}
        self.assertEqual(outputs["samples"], ("FP32", [-1, *SHAPE]))
        self.assertIn("steps", {tensor.name for tensor in metadata.inputs})

    def test_numpy_inputs_give_the_samples_of_generate(self):
        result = self.client.infer("golden", request_inputs(), request_id="r1")
        numpy.testing.assert_array_equal(result.as_numpy("samples"), self.floats())
        numpy.testing.assert_array_equal(result.as_numpy("seeds"), [42, 43])
        numpy.testing.assert_allclose(result.as_numpy("time_grid"), [0, 1 / 3, 2 / 3, 1])
        self.assertEqual(result.get_response().model_version, "1")
        self.assertEqual(result.get_response().id, "r1")

    def test_text_noise_and_parameters_are_taken(self):
        noise = numpy.random.default_rng(1).standard_normal((2, *SHAPE)).astype(numpy.float32)
        inputs = [tensor("initial_noise", noise), tensor("solver", numpy.array([b"heun"], dtype=numpy.object_)),
                  tensor("steps", numpy.array([2], dtype=numpy.int64))]
        result = self.client.infer("golden", inputs, model_version="1", parameters={"deterministic": True},
                                   outputs=[triton.InferRequestedOutput("samples")])
        ours = {"dtype": "DATA_TYPE_FLOAT32", "shape": noise.shape, "data": noise.tobytes()}
        numpy.testing.assert_array_equal(result.as_numpy("samples"),
                                         self.floats(initial_noise=ours, solver="SOLVER_HEUN", steps=2))
        self.assertIsNone(result.as_numpy("seeds"))

    def test_pictures_and_pixels(self):
        files = self.client.infer("golden", request_inputs(), parameters={"format": "png"}).as_numpy("samples")
        self.assertEqual(list(files), self.generate("OUTPUT_FORMAT_PNG"))
        pixels = self.client.infer("golden", request_inputs(), parameters={"format": "uint8"}).as_numpy("samples")
        self.assertEqual(pixels.shape, (2, 16, 16, 3))
        self.assertEqual(pixels.dtype, numpy.uint8)
        self.assertEqual(pixels.tobytes(), b"".join(self.generate("OUTPUT_FORMAT_UINT8")))

    def test_errors_have_their_codes(self):
        with self.assertRaisesRegex(triton_utils.InferenceServerException, "steps") as caught:
            self.client.infer("golden", [tensor("steps", numpy.array([2.0], dtype=numpy.float32))])
        self.assertEqual(caught.exception.status(), "StatusCode.INVALID_ARGUMENT")
        with self.assertRaises(triton_utils.InferenceServerException) as caught:
            self.client.infer("nothing", request_inputs())
        self.assertEqual(caught.exception.status(), "StatusCode.NOT_FOUND")
        with self.assertRaises(triton_utils.InferenceServerException) as caught:
            self.client.get_inference_statistics()
        self.assertEqual(caught.exception.status(), "StatusCode.UNIMPLEMENTED")

    def stream(self, requests):
        """Sends the requests on one stream and gathers (result, error) pairs until every request has had its end."""
        answers = queue.Queue()
        self.client.start_stream(lambda result, error: answers.put((result, error)))
        try:
            for arguments in requests:
                self.client.async_stream_infer(**arguments)
            gathered, ends = [], 0
            while ends < len(requests):
                result, error = answers.get(timeout=harness.TIMEOUT_S)
                gathered.append((result, error))
                if error is not None:
                    ends += 1
                else:
                    ends += result.get_response().parameters["triton_final_response"].bool_param
            return gathered
        finally:
            self.client.stop_stream()

    def test_a_stream_brings_each_sample_and_says_when_it_is_done(self):
        expected = self.floats()
        for wants_empty in (False, True):
            answers = self.stream([{"model_name": "golden", "inputs": request_inputs(), "request_id": "r1",
                                    "enable_empty_final_response": wants_empty}])
            self.assertEqual([error for _, error in answers], [None] * (3 if wants_empty else 2))
            if wants_empty:
                self.assertEqual(len(answers[-1][0].get_response().outputs), 0)
            samples = {}
            for result, _ in answers[:2]:
                response = result.get_response()
                self.assertEqual(response.id, "r1")
                samples[response.parameters["sample_index"].int64_param] = result.as_numpy("samples")
            numpy.testing.assert_array_equal(numpy.concatenate([samples[0], samples[1]]), expected)

    def test_a_request_that_fails_leaves_its_stream_alive(self):
        answers = self.stream([{"model_name": "nothing", "inputs": request_inputs()},
                               {"model_name": "golden", "inputs": request_inputs(num_samples=1)}])
        errors = [str(error) for _, error in answers if error is not None]
        self.assertEqual(len(errors), 1)
        self.assertIn("NOT_FOUND", errors[0])
        results = [result for result, error in answers if error is None]
        self.assertEqual(len(results), 1)
        numpy.testing.assert_array_equal(results[0].as_numpy("samples"), self.floats(num_samples=1))

    def test_the_example_of_the_documentation_runs_as_written(self):
        self.bossd.import_golden("fashion-mnist")
        blocks = code_blocks(os.path.join(harness.SOURCE_FOLDER, "docs", "inference-protocol.md"))
        self.assertEqual([language for language, _ in blocks], ["python"])
        done = subprocess.run([sys.executable, "-c", blocks[0][1]], capture_output=True, text=True,
                              timeout=harness.TIMEOUT_S, env={**os.environ, "BOSS_ADDRESS": self.bossd.address})
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual(done.stdout.split(), ["(4,", "3,", "16,", "16)"])


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1])
