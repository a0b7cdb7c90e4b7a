"""Whether a wheel holds what it should, and runs wherever its platform tag says.

    python3 scripts/wheel_check.py WHEEL...

For Linux it needs auditwheel, which reads the versions of the system's symbols that the library needs.
"""

import configparser
import re
import subprocess
import sys
import zipfile
from pathlib import Path

WANTED = {
    "module": r"structtoken/__init__\.py",
    "library": r"structtoken/_native(\.abi3\.so|\.pyd)",
    "models": r"structtoken/models/.+\.safetensors",
    "types": r"structtoken/(py\.typed|_native\.pyi)",
    "licence MIT": r"structtoken-[^/]+\.dist-info/(licenses/)?LICENSE-MIT",
    "licence Apache-2.0": r"structtoken-[^/]+\.dist-info/(licenses/)?LICENSE-APACHE",
    "list of what it is made of": r"structtoken-[^/]+\.dist-info/sboms/.+",
}


def fail(wheel, why):
    sys.exit(f"error: {wheel.name}: {why}")


def oldest(wheel):
    """The version of glibc from which on it runs, by auditwheel."""
    done = subprocess.run([sys.executable, "-m", "auditwheel", "show", str(wheel)], capture_output=True, text=True, check=False)
    found = re.search(r'platform tag:\s*"(?:manylinux_(\d+)_(\d+)|(linux))_\w+"', " ".join(done.stdout.split()))
    if not found:
        fail(wheel, f"auditwheel says: {done.stdout}{done.stderr}")
    return None if found[3] else (int(found[1]), int(found[2]))


def check(wheel):
    name = re.fullmatch(r"structtoken-([^-]+)-cp310-abi3-(.+)\.whl", wheel.name)
    if not name:
        fail(wheel, "its name is not that of a wheel for Python 3.10 and later")
    with zipfile.ZipFile(wheel) as files:
        members = files.namelist()
        for what, pattern in WANTED.items():
            if not any(re.fullmatch(pattern, member) for member in members):
                fail(wheel, f"it has no {what}: {pattern}")
        scripts = configparser.ConfigParser()
        scripts.read_string(files.read(f"structtoken-{name[1]}.dist-info/entry_points.txt").decode())
        if scripts.get("console_scripts", "structtoken", fallback=None) != "structtoken.__main__:main":
            fail(wheel, "it does not install the command")
    tag = re.search(r"manylinux_(\d+)_(\d+)_", name[2])
    if "linux" not in name[2]:
        print(f"{wheel.name}: for {name[2]}")
        return
    needs = oldest(wheel)
    shown = "no glibc that is known" if needs is None else "glibc {}.{}".format(*needs)
    if tag and (needs is None or needs > (int(tag[1]), int(tag[2]))):
        fail(wheel, f"it needs {shown}, which is more than its tag says")
    print(f"{wheel.name}: needs {shown}")


for path in sys.argv[1:] or sys.exit(__doc__):
    check(Path(path))
