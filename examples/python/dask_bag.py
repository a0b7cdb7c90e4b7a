"""Labels images with Dask: one model per worker process, masks as PNG bytes.

    pip install structtoken dask
    python dask_bag.py MODEL.safetensors IMAGES OUT [WORKERS]

The masks are the bytes that `structtoken predict` writes.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path

import dask.bag

import structtoken


@lru_cache(maxsize=1)
def open_model(path: str) -> structtoken.Model:
    """Opened once in each worker, which is one processor to Dask: so it has one thread."""
    return structtoken.Model.open(path, threads=1)


def label_some(rows: Iterable[tuple[str, bytes]], model: str) -> list[tuple[str, bytes, bytes]]:
    """Each row, a name and the bytes of an image file, with its mask."""
    opened = open_model(model)
    return [(name, image, structtoken.encode_png(opened.predict(image), opened.palette)) for name, image in rows]


def read(path: Path) -> tuple[str, bytes]:
    return path.stem, path.read_bytes()


def label(images: list[Path], model: str, pieces: int = 4) -> dask.bag.Bag:
    """Rows of name, image and mask, in the order of the images."""
    rows = dask.bag.from_sequence(images, npartitions=min(pieces, len(images))).map(read)
    return rows.map_partitions(label_some, str(Path(model).absolute()))


def main(model: str, images: str, out: str, workers: str = "2") -> None:
    files = sorted(path.absolute() for path in Path(images).iterdir())
    Path(out).mkdir(parents=True, exist_ok=True)
    found = label(files, model).compute(scheduler="processes", num_workers=int(workers))
    for name, _, mask in found:
        (Path(out) / f"{name}.png").write_bytes(mask)


if __name__ == "__main__":
    main(*sys.argv[1:])
