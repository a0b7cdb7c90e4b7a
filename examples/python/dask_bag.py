"""Labels images with Dask: one model per worker, masks as PNG bytes.

    pip install structtoken dask distributed
    python dask_bag.py MODEL.safetensors IMAGES OUT [WORKERS] [THREADS]

A worker that is killed is started again by Dask, and its rows are labelled again. The masks are the bytes that `structtoken predict`
writes.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import cast

import dask.bag
import distributed

import structtoken


class OpenModel(distributed.WorkerPlugin):
    """Opens the model once in each worker, also in one that takes a killed one's place."""

    name = "structtoken"

    def __init__(self, path: str) -> None:
        self.path = path

    def setup(self, worker: distributed.Worker) -> None:
        # As many threads as Dask gives the worker, whose tasks share them.
        self.model = structtoken.Model.open(self.path, threads=worker.state.nthreads)


def label_some(rows: Iterable[tuple[str, bytes]]) -> list[tuple[str, bytes, bytes]]:
    """Each row, a name and the bytes of an image file, with its mask."""
    model = cast(OpenModel, distributed.get_worker().plugins[OpenModel.name]).model
    return [(name, image, structtoken.encode_png(model.predict(image), model.palette)) for name, image in rows]


def read(path: Path) -> tuple[str, bytes]:
    return path.stem, path.read_bytes()


def everywhere(model: str) -> str:
    """What stands for the model whatever the working folder: an absolute path, or a name such as `@nuclei`."""
    return model if model.startswith("@") else str(Path(model).absolute())


def label(rows: dask.bag.Bag, model: str, client: distributed.Client) -> dask.bag.Bag:
    """Rows of name, image and mask, in the order of `rows`."""
    client.register_plugin(OpenModel(everywhere(model)))
    return rows.map_partitions(label_some)


def main(model: str, images: str, out: str, workers: str = "2", threads: str = "1") -> None:
    files = sorted(path.absolute() for path in Path(images).iterdir())
    Path(out).mkdir(parents=True, exist_ok=True)
    with distributed.Client(n_workers=int(workers), threads_per_worker=int(threads), dashboard_address=None) as client:
        rows = dask.bag.from_sequence(files, npartitions=min(8 * int(workers), len(files))).map(read)
        for name, _, mask in label(rows, model, client).compute():
            (Path(out) / f"{name}.png").write_bytes(mask)


if __name__ == "__main__":
    main(*sys.argv[1:])
