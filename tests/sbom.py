#!/usr/bin/python3
"""Checks a list of what is inside a program, in the form of CycloneDX 1.5, against Cargo.lock: sbom.py FILE PARTS-IN-C..."""

import json
import pathlib
import re
import sys
import urllib.parse

lock = (pathlib.Path(__file__).parent.parent / "Cargo.lock").read_text()
checksums = {
    (name, version): checksum
    for name, version, checksum in re.findall(r'name = "(.*)"\nversion = "(.*)"\nsource = ".*"\nchecksum = "(.*)"', lock)
}


def complaints(file, parts_in_c):
    bom = json.loads(pathlib.Path(file).read_text())
    if (bom["bomFormat"], bom["specVersion"]) != ("CycloneDX", "1.5"):
        yield "is not CycloneDX 1.5"
    listed = bom["components"]
    components = [bom["metadata"]["component"], *listed]
    if len({component["bom-ref"] for component in components}) != len(components):
        yield "names something twice"
    for component in components:
        name, version = component["name"], component["version"]
        if not all(version and "expression" in licence for licence in component["licenses"]):
            yield f"does not tell the version and the licence of {name}"
        kind, _, rest = component["purl"].partition("/")
        if urllib.parse.unquote(rest) != f"{name}@{version}":
            yield f"has another URL for {name}"
        if kind == "pkg:cargo":
            (checksum,) = component["hashes"]
            if (checksum["alg"], checksum["content"]) != ("SHA-256", checksums.get((name, version))):
                yield f"has another {name} than Cargo.lock"
    # What is C comes without cargo's knowing.
    generic = {component["name"] for component in listed if component["purl"].startswith("pkg:generic/")}
    if generic != set(parts_in_c):
        yield f"has these parts in C: {', '.join(sorted(generic))}"


found = list(complaints(sys.argv[1], sys.argv[2:]))
print("\n".join(f"{sys.argv[1]} {complaint}" for complaint in found))
sys.exit(bool(found))
