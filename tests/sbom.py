#!/usr/bin/python3
"""Checks a CycloneDX 1.5 list of the parts of a program, and the file with the licences of these
parts, against Cargo.lock and the crates that cargo would link:

    sbom.py FILE LICENCES PARTS-IN-C...

PARTS-IN-C also show which features the program has. CARGO is the cargo command to ask."""

import json
import os
import pathlib
import re
import shlex
import subprocess
import sys
import urllib.parse

tree = pathlib.Path(__file__).parent.parent
lock = (tree / "Cargo.lock").read_text()
checksums = {
    (name, version): checksum
    for name, version, checksum in re.findall(r'name = "(.*)"\nversion = "(.*)"\nsource = ".*"\nchecksum = "(.*)"', lock)
}


def linked_crates(parts_in_c):
    features = []
    if "libbpf" not in parts_in_c:
        features = ["--no-default-features"]
    elif "elfutils" in parts_in_c:
        features = ["--features=vendored"]
    cargo = shlex.split(os.environ.get("CARGO", "cargo"))
    command = [*cargo, "tree", "--locked", "--quiet", "--edges=normal", "--prefix=none", "--format={p}", *features]
    output = subprocess.run(command, cwd=tree, check=True, stdout=subprocess.PIPE, text=True).stdout
    lines = (line.split() for line in output.splitlines())
    return {(name, version.removeprefix("v")) for name, version, *_ in lines if name != "stalld"}


def has_licence(name, version, licences):
    # The name is a heading in NOTICES.txt, or among the files in Debian's copyright.
    name, version = re.escape(name), re.escape(version)
    return re.search(rf"^{name} {version}$|vendor/(?:\S*/)?{name}(?:-\*|/\*)$", licences, re.M)


def complaints(file, licences, parts_in_c):
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
    crates = {(part["name"], part["version"]) for part in listed if part["purl"].startswith("pkg:cargo/")}
    for name, version in sorted(crates ^ linked_crates(parts_in_c)):
        yield f"has {name} {version}, which is not linked" if (name, version) in crates else f"does not have {name} {version}"
    for component in listed:
        if not has_licence(component["name"], component["version"], licences.read_text()):
            yield f"has {component['name']}, of which {licences} has no licence"
    # cargo does not know the parts in C.
    generic = {component["name"] for component in listed if component["purl"].startswith("pkg:generic/")}
    if generic != set(parts_in_c):
        yield f"has these parts in C: {', '.join(sorted(generic))}"


found = list(complaints(sys.argv[1], pathlib.Path(sys.argv[2]), sys.argv[3:]))
print("\n".join(f"{sys.argv[1]} {complaint}" for complaint in found))
sys.exit(bool(found))
