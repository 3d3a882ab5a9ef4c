#!/usr/bin/env python3
"""Writes the bill of materials of the image as CycloneDX 1.5 JSON.

Sources are what the package managers themselves record: the paragraphs of dpkg's status for Debian packages, and the METADATA of Python wheels,
which here carry libraries alone. The same input gives the same bytes; SOURCE_DATE_EPOCH, if it is set, is the time in the document.
"""

import argparse
import datetime
import email.parser
import json
import os
import pathlib
import sys
import urllib.parse
import uuid


def parse_dpkg_status(text):
    """The installed packages in a dpkg status file, as mappings of its fields."""
    parser = email.parser.Parser()
    packages = [parser.parsestr(paragraph) for paragraph in text.split("\n\n") if paragraph.strip()]
    for package in packages:
        if not package["Package"] or not package["Status"]:
            raise ValueError(f"a paragraph of dpkg's status has no Package or no Status: {package.as_string()[:80]!r}")
    return [package for package in packages if package["Status"].split()[-1] == "installed"]


def debian_component(package, compiled_in, release):
    name, version = package["Package"], package["Version"]
    # "name" or "name (version)"; the package's own if the field is missing.
    source = (package["Source"] or name).split()
    source_version = source[1].strip("()") if len(source) > 1 else version
    quoted = urllib.parse.quote(version, safe="")
    purl = f"pkg:deb/debian/{urllib.parse.quote(name, safe='')}@{quoted}?arch={package['Architecture']}&distro=debian-{release}"
    properties = [("boss:source", f"{source[0]}@{source_version}")]
    if compiled_in:
        properties.append(("boss:use", "headers compiled into the server"))
    return {
        "type": "library", "bom-ref": purl, "supplier": {"name": "Debian"}, "name": name, "version": version, "purl": purl,
        "properties": [{"name": key, "value": value} for key, value in properties],
    }


def wheel_component(metadata):
    name, version = metadata["Name"], metadata["Version"]
    purl = f"pkg:pypi/{name.lower().replace('_', '-')}@{urllib.parse.quote(version, safe='')}"
    component = {"type": "library", "bom-ref": purl, "name": name, "version": version, "purl": purl}
    # License is free text in which some put the whole licence.
    licence = metadata["License-Expression"] or metadata["License"]
    if licence and "\n" not in licence:
        component["licenses"] = [{"license": {"name": licence}}]
    return component


def make_sbom(name, version, installed, compiled_in, wheels, release, timestamp=None):
    """The document, from dpkg's paragraphs (see parse_dpkg_status) and wheels' metadata."""
    names = {package["Package"] for package in installed}
    components = [debian_component(package, False, release) for package in installed]
    components += [debian_component(package, True, release) for package in compiled_in if package["Package"] not in names]
    components += [wheel_component(metadata) for metadata in wheels]
    components.sort(key=lambda component: component["bom-ref"])
    root = f"pkg:generic/{name}@{urllib.parse.quote(version, safe='')}"
    metadata = {"component": {"type": "container", "bom-ref": root, "name": name, "version": version, "purl": root}}
    if timestamp is not None:
        metadata["timestamp"] = datetime.datetime.fromtimestamp(timestamp, datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
    references = [component["bom-ref"] for component in components]
    return {
        "bomFormat": "CycloneDX", "specVersion": "1.5",
        "serialNumber": f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_URL, ' '.join([root, *references]))}",
        "version": 1, "metadata": metadata, "components": components,
        "dependencies": [{"ref": root, "dependsOn": references}],
    }


def main():
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--name", required=True)
    arguments.add_argument("--version", required=True)
    arguments.add_argument("--dpkg-status", required=True, type=pathlib.Path, help="of the image")
    arguments.add_argument("--compiled-in", required=True, type=pathlib.Path, help="dpkg's status of packages whose headers were used")
    arguments.add_argument("--wheels", required=True, type=pathlib.Path, help="folder of the wheels' .dist-info folders")
    arguments.add_argument("--debian", default="12", help="release")
    arguments.add_argument("--out", required=True, type=pathlib.Path)
    options = arguments.parse_args()

    wheels = [email.parser.Parser().parsestr(path.read_text(encoding="utf-8"), headersonly=True)
              for path in sorted(options.wheels.glob("*.dist-info/METADATA"))]
    if not wheels:
        sys.exit(f"no *.dist-info/METADATA in {options.wheels}")
    epoch = os.environ.get("SOURCE_DATE_EPOCH")
    sbom = make_sbom(options.name, options.version, parse_dpkg_status(options.dpkg_status.read_text(encoding="utf-8")),
                     parse_dpkg_status(options.compiled_in.read_text(encoding="utf-8")), wheels, options.debian,
                     int(epoch) if epoch else None)
    options.out.write_text(json.dumps(sbom, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
