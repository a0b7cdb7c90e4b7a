"""Packs a folder as .tar.gz: the same bytes for the same files.

    python3 scripts/pack.py FOLDER OUT.tar.gz

Names are sorted, owners left out, and all times are SOURCE_DATE_EPOCH.
"""

import gzip
import os
import sys
import tarfile
from pathlib import Path

folder, out = Path(sys.argv[1]), Path(sys.argv[2])
time = int(os.environ.get("SOURCE_DATE_EPOCH", "0"))


def plain(entry):
    entry.uid = entry.gid = 0
    entry.uname = entry.gname = ""
    entry.mtime = time
    entry.mode = 0o755 if entry.isdir() or entry.mode & 0o100 else 0o644
    return entry


beside = out.with_name(out.name + ".part")
with open(beside, "wb") as file, gzip.GzipFile(filename="", mode="wb", fileobj=file, mtime=time) as packed:
    with tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as archive:
        archive.add(folder, folder.name, recursive=False, filter=plain)
        for path in sorted(folder.rglob("*")):
            archive.add(path, str(Path(folder.name) / path.relative_to(folder)), recursive=False, filter=plain)
beside.replace(out)
