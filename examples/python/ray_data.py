"""Labels images with Ray Data: one model per actor, rows as they were with a column `mask` of PNG bytes.

    pip install structtoken "ray[data]"
    python ray_data.py MODEL.safetensors IMAGES OUT [ACTORS] [THREADS]

An actor that is killed is started again by Ray, and its rows are labelled again. The masks are the bytes that `structtoken predict`
writes.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import ray
from numpy.typing import NDArray

import structtoken


class Labeller:
    """Opens the model once, where the actor runs. It has as many threads as Ray gives the actor processors."""

    def __init__(self, model: str, threads: int) -> None:
        self.model = structtoken.Model.open(model, threads=threads)

    def __call__(self, batch: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        labels = self.model.predict(list(batch["bytes"]))
        masks = [structtoken.encode_png(found, self.model.palette) for found in labels]
        return {**batch, "mask": np.array(masks, dtype=object)}


def everywhere(model: str) -> str:
    """What stands for the model whatever the working folder: an absolute path, or a name such as `@nuclei`."""
    return model if model.startswith("@") else str(Path(model).absolute())


def label(rows: ray.data.Dataset, model: str, actors: int = 1, threads: int = 1) -> ray.data.Dataset:
    """The rows, which have a column `bytes` of image files, with their masks. What makes the rows needs processors beside the actors'."""
    return rows.map_batches(
        Labeller,
        fn_constructor_kwargs={"model": everywhere(model), "threads": threads},
        batch_size=8,
        compute=ray.data.ActorPoolStrategy(size=actors),
        num_cpus=threads,
    )


def main(model: str, images: str, out: str, actors: str = "1", threads: str = "1") -> None:
    files = sorted(str(path.absolute()) for path in Path(images).iterdir())
    # Reading counts as no processor: where the actors have them all, it would wait for one without end.
    rows = ray.data.read_binary_files(files, include_paths=True, ray_remote_args={"num_cpus": 0})
    Path(out).mkdir(parents=True, exist_ok=True)
    for row in label(rows, model, int(actors), int(threads)).iter_rows():
        (Path(out) / f"{Path(row['path']).stem}.png").write_bytes(row["mask"])


if __name__ == "__main__":
    main(*sys.argv[1:])
