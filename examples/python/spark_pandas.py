"""Labels images with PySpark: one model per Python worker, rows as they were with a column `mask` of PNG bytes.

    pip install structtoken pyspark pandas pyarrow
    python spark_pandas.py MODEL.safetensors IMAGES OUT

A task that fails is tried again by Spark (`spark.task.maxFailures`). The masks are the bytes that `structtoken predict` writes.
"""

from __future__ import annotations

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


def label(rows: DataFrame, model: str) -> DataFrame:
    """The rows, which have a column `content` of image files, with their masks."""
    # As many threads as Spark counts for a task.
    threads = int(rows.sparkSession.conf.get("spark.task.cpus", "1"))
    path = str(Path(model).absolute())

    def label_some(batches: Iterator[pandas.DataFrame]) -> Iterator[pandas.DataFrame]:
        opened = open_model(path, threads)
        for batch in batches:
            masks = [structtoken.encode_png(found, opened.palette) for found in opened.predict(list(batch["content"]))]
            yield batch.assign(mask=masks)

    return rows.mapInPandas(label_some, StructType([*rows.schema.fields, StructField("mask", BinaryType())]))


def main(model: str, images: str, out: str) -> None:
    spark = SparkSession.builder.master("local[2]").appName("structtoken").getOrCreate()
    # Workers are Python processes of the same environment.
    spark.conf.set("spark.sql.execution.arrow.maxRecordsPerBatch", "8")
    rows = spark.read.format("binaryFile").load(Path(images).absolute().as_uri())
    Path(out).mkdir(parents=True, exist_ok=True)
    for row in label(rows, model).toLocalIterator():
        (Path(out) / f"{Path(row['path']).stem}.png").write_bytes(row["mask"])
    spark.stop()


if __name__ == "__main__":
    main(*sys.argv[1:])
