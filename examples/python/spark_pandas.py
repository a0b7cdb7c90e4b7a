"""Labels images with PySpark: one model per Python worker, rows as they were with a column `mask` of PNG bytes.

    pip install structtoken pyspark pandas pyarrow
    python spark_pandas.py MODEL.safetensors IMAGES OUT [CORES] [THREADS]

A worker that is killed is started again by Spark, and its task is tried again (`spark.task.maxFailures`; on one machine the 4 of
`local[2,4]`). The masks are the bytes that `structtoken predict` writes.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

import pandas
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql.types import BinaryType, StructField, StructType

import structtoken


@lru_cache(maxsize=1)
def open_model(path: str, threads: int) -> structtoken.Model:
    return structtoken.Model.open(path, threads=threads)


def everywhere(model: str) -> str:
    """What stands for the model whatever the working folder: an absolute path, or a name such as `@nuclei`."""
    return model if model.startswith("@") else str(Path(model).absolute())


def label(rows: DataFrame, model: str) -> DataFrame:
    """The rows, which have a column `content` of image files, with their masks."""
    # As many threads as Spark counts for a task.
    threads = int(rows.sparkSession.conf.get("spark.task.cpus", "1"))
    path = everywhere(model)
    rows.sparkSession.sparkContext.addPyFile(__file__)

    def label_some(batches: Iterator[pandas.DataFrame]) -> Iterator[pandas.DataFrame]:
        # A worker imports this file once, and so has the model as long as it lives; what comes with a task ends with it.
        from spark_pandas import open_model

        opened = open_model(path, threads)
        for batch in batches:
            masks = [structtoken.encode_png(found, opened.palette) for found in opened.predict(list(batch["content"]))]
            yield batch.assign(mask=masks)

    return rows.mapInPandas(label_some, StructType([*rows.schema.fields, StructField("mask", BinaryType())]))


def session(cores: int, threads: int) -> SparkSession:
    # Workers are Python processes of the same environment.
    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    builder = SparkSession.builder.master(f"local[{cores},4]").appName("structtoken")
    builder = builder.config("spark.task.cpus", threads).config("spark.ui.enabled", "false")
    return builder.config("spark.sql.execution.arrow.maxRecordsPerBatch", 8).getOrCreate()


def main(model: str, images: str, out: str, cores: str = "2", threads: str = "1") -> None:
    spark = session(int(cores), int(threads))
    rows = spark.read.format("binaryFile").load(Path(images).absolute().as_uri())
    Path(out).mkdir(parents=True, exist_ok=True)
    for row in label(rows, model).toLocalIterator():
        (Path(out) / f"{Path(row['path']).stem}.png").write_bytes(row["mask"])
    spark.stop()


if __name__ == "__main__":
    main(*sys.argv[1:])
