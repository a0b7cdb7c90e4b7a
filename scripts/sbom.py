"""What a build is made of, as CycloneDX 1.5, by `cargo tree`.

    python3 scripts/sbom.py TARGET [FEATURES]

Packages that only tests need are left out; those that only build others are named as excluded from the result.
"""

import json
import re
import subprocess
import sys

target, features = sys.argv[1], sys.argv[2] if len(sys.argv) > 2 else ""


def tree(kinds):
    """Every package as (name, version), with its licence and what it needs."""
    command = ["cargo", "tree", "--locked", "--package", "structtoken", "--target", target, "--features", features]
    command += ["--edges", kinds, "--prefix", "depth", "--format", "|{p}|{l}|"]
    lines = subprocess.run(command, check=True, capture_output=True, text=True, encoding="utf-8").stdout.splitlines()
    found, above = {}, []
    for line in lines:
        depth, package, licence, _ = line.split("|", 3)
        name, version = re.match(r"(\S+) v(\S+)", package).groups()
        at = (name, version)
        entry = found.setdefault(at, {"licence": licence, "needs": set()})
        above[int(depth) :] = [at]
        if int(depth) > 0:
            found[above[int(depth) - 1]]["needs"].add(at)
        entry["licence"] = licence or entry["licence"]
    return found


def purl(at):
    return f"pkg:cargo/{at[0]}@{at[1]}"


linked, all_of = tree("normal"), tree("normal,build")
root = next(iter(linked))


def component(at):
    found = {
        "type": "application" if at == root else "library",
        "bom-ref": purl(at),
        "name": at[0],
        "version": at[1],
        "scope": "required" if at in linked else "excluded",
        "purl": purl(at),
    }
    if all_of[at]["licence"]:
        found["licenses"] = [{"expression": all_of[at]["licence"].replace("/", " OR ")}]
    return found


order = sorted(all_of)
json.dump(
    {
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": {"component": component(root)},
        "components": [component(at) for at in order if at != root],
        "dependencies": [{"ref": purl(at), "dependsOn": sorted(map(purl, all_of[at]["needs"]))} for at in order],
    },
    sys.stdout,
    indent=1,
)
print()
