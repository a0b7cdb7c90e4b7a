"""What a build is made of, as CycloneDX 1.5, from `cargo metadata` on stdin.

    cargo metadata --locked --format-version 1 --filter-platform TARGET | python3 scripts/sbom.py

Packages that only tests need are left out; those that only build others are named as excluded from the result.
"""

import json
import sys

data = json.load(sys.stdin)
packages = {package["id"]: package for package in data["packages"]}
nodes = {node["id"]: node for node in data["resolve"]["nodes"]}
root = next(at for at, package in packages.items() if package["name"] == "structtoken" and package["source"] is None)


def reachable(kinds):
    """The packages that the root needs by these kinds of dependencies."""
    seen, left = {root}, [root]
    while left:
        for dependency in nodes[left.pop()]["deps"]:
            if dependency["pkg"] in seen or not any(kind["kind"] in kinds for kind in dependency["dep_kinds"]):
                continue
            seen.add(dependency["pkg"])
            left.append(dependency["pkg"])
    return seen


def purl(package):
    return f"pkg:cargo/{package['name']}@{package['version']}"


linked, all_of = reachable([None]), reachable([None, "build"])


def component(at):
    package = packages[at]
    found = {
        "type": "application" if at == root else "library",
        "bom-ref": purl(package),
        "name": package["name"],
        "version": package["version"],
        "scope": "required" if at in linked else "excluded",
        "purl": purl(package),
    }
    if package["license"]:
        found["licenses"] = [{"expression": package["license"].replace("/", " OR ")}]
    return found


def depends(at):
    of = sorted({purl(packages[to["pkg"]]) for to in nodes[at]["deps"] if to["pkg"] in all_of})
    return {"ref": purl(packages[at]), "dependsOn": of}


order = sorted(all_of, key=lambda at: (packages[at]["name"], packages[at]["version"]))
json.dump(
    {
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": {"component": component(root)},
        "components": [component(at) for at in order if at != root],
        "dependencies": [depends(at) for at in order],
    },
    sys.stdout,
    indent=1,
)
print()
