"""Tests docker/sbom.py: sbom_test.py SBOM_PY."""

import email
import importlib.util
import json
import pathlib
import subprocess
import sys
import tempfile
import unittest

from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

SBOM = pathlib.Path(sys.argv.pop(1))

STATUS = """\
Package: libpng16-16
Status: install ok installed
Architecture: amd64
Source: libpng1.6
Version: 1.6.39-2
Description: PNG library
 more of it
 .
 and more

Package: libgrpc++1.51
Status: install ok installed
Architecture: amd64
Source: grpc (1.51.1-3)
Version: 1.51.1-3+b1

Package: removed
Status: deinstall ok config-files
Architecture: all
Version: 1:2.0~rc1
"""

COMPILED_IN = """\
Package: nlohmann-json3-dev
Status: install ok installed
Architecture: all
Source: nlohmann-json3
Version: 3.11.2-2

Package: libpng16-16
Status: install ok installed
Architecture: amd64
Source: libpng1.6
Version: 1.6.39-2
"""

TORCH = "Metadata-Version: 2.4\nName: torch\nVersion: 2.11.0\nLicense-Expression: BSD-3-Clause\n\nA long description\n"
CUDA = "Metadata-Version: 2.2\nName: nvidia_cuda_runtime\nVersion: 13.0.96\nLicense: one line\n  and another\n"


def load():
    spec = importlib.util.spec_from_file_location("sbom", SBOM)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class SbomTest(unittest.TestCase):
    def setUp(self):
        self.sbom = load()

    def make(self, **arguments):
        return self.sbom.make_sbom(
            "boss-cpu", "0.1.0", self.sbom.parse_dpkg_status(STATUS), self.sbom.parse_dpkg_status(COMPILED_IN),
            [email.message_from_string(text) for text in (TORCH, CUDA)], "12", **arguments)

    def test_lists_what_is_installed_compiled_in_and_from_wheels_once_each(self):
        purls = [component["purl"] for component in self.make()["components"]]
        self.assertEqual(purls, [
            "pkg:deb/debian/libgrpc%2B%2B1.51@1.51.1-3%2Bb1?arch=amd64&distro=debian-12",
            "pkg:deb/debian/libpng16-16@1.6.39-2?arch=amd64&distro=debian-12",
            "pkg:deb/debian/nlohmann-json3-dev@3.11.2-2?arch=all&distro=debian-12",
            "pkg:pypi/nvidia-cuda-runtime@13.0.96",
            "pkg:pypi/torch@2.11.0",
        ])

    def test_names_source_packages_as_security_advisories_do(self):
        sources = {component["name"]: component["properties"][0]["value"]
                   for component in self.make()["components"] if "properties" in component}
        self.assertEqual(sources, {"libgrpc++1.51": "grpc@1.51.1-3", "libpng16-16": "libpng1.6@1.6.39-2",
                                   "nlohmann-json3-dev": "nlohmann-json3@3.11.2-2"})

    def test_gives_licences_of_one_line(self):
        licences = {component["name"]: component.get("licenses") for component in self.make()["components"]}
        self.assertEqual(licences["torch"], [{"license": {"name": "BSD-3-Clause"}}])
        self.assertIsNone(licences["nvidia_cuda_runtime"])

    def test_is_valid_cyclonedx(self):
        sbom = self.make(timestamp=1700000000)
        self.assertIsNone(JsonStrictValidator(SchemaVersion.V1_5).validate_str(json.dumps(sbom)))
        self.assertEqual(sbom["specVersion"], "1.5")

    def test_same_input_gives_the_same_document_and_other_input_another_serial_number(self):
        first = self.make()
        self.assertEqual(first, self.make())
        other = self.sbom.make_sbom("boss-cpu", "0.2.0", self.sbom.parse_dpkg_status(STATUS), [], [], "12")
        self.assertNotEqual(first["serialNumber"], other["serialNumber"])

    def test_refuses_a_file_that_is_no_dpkg_status(self):
        with self.assertRaisesRegex(ValueError, "no Package or no Status"):
            self.sbom.parse_dpkg_status("libpng16-16 1.6.39-2\n")

    def test_program_reads_files(self):
        with tempfile.TemporaryDirectory() as folder:
            work = pathlib.Path(folder)
            (work / "status").write_text(STATUS, encoding="utf-8")
            (work / "compiled-in").write_text(COMPILED_IN, encoding="utf-8")
            (work / "torch-2.11.0.dist-info").mkdir()
            (work / "torch-2.11.0.dist-info" / "METADATA").write_text(TORCH, encoding="utf-8")
            command = [sys.executable, str(SBOM), "--name", "boss-cpu", "--version", "0.1.0", "--dpkg-status", str(work / "status"),
                       "--compiled-in", str(work / "compiled-in"), "--wheels", folder, "--out", str(work / "sbom.json")]
            subprocess.run(command, check=True, env={"SOURCE_DATE_EPOCH": "1700000000"})
            sbom = json.loads((work / "sbom.json").read_text(encoding="utf-8"))
            self.assertEqual(len(sbom["components"]), 4)
            self.assertEqual(sbom["metadata"]["timestamp"], "2023-11-14T22:13:20Z")
            (work / "torch-2.11.0.dist-info" / "METADATA").unlink()
            self.assertNotEqual(subprocess.run(command, check=False, stderr=subprocess.DEVNULL).returncode, 0)


if __name__ == "__main__":
    unittest.main()
