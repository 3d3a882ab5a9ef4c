"""Code from the documents, and stubs from the contract, for tests that run them."""
import importlib
import os
import re
import sys

import harness


def code_blocks(path):
    """The fenced blocks of a document, in order, as (language, text)."""
    with open(path) as file:
        return re.findall(r"^```(\w+)\n(.*?)^```$", file.read(), re.MULTILINE | re.DOTALL)


def generated_stubs(bossd, protoc, grpc):
    """The messages of boss/v1/sampling.proto and a stub of its service, connected to `bossd`."""
    folder = os.path.join(bossd.work.name, "stubs")
    os.mkdir(folder)
    proto = os.path.join(harness.SOURCE_FOLDER, "proto")
    names = [f"boss/v1/{name}.proto" for name in ("errors", "models", "sampling")]
    # grpc_tools adds its own includes as a command only.
    well_known = os.path.join(os.path.dirname(protoc.__file__), "_proto")
    arguments = ["protoc", f"-I{proto}", f"-I{well_known}", f"--python_out={folder}", f"--grpc_python_out={folder}", *names]
    if protoc.main(arguments) != 0:
        raise RuntimeError("protoc cannot read the contract")
    sys.path.insert(0, folder)
    messages = importlib.import_module("boss.v1.sampling_pb2")
    services = importlib.import_module("boss.v1.sampling_pb2_grpc")
    return messages, services.SamplerStub(grpc.insecure_channel(bossd.address))
