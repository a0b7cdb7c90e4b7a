"""The dicts that functions of `structtoken` take and give, for annotations.

They are classes for type checkers; what is passed at run time are plain dicts. Importing this module imports numpy.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypedDict

import numpy as np
from numpy.typing import NDArray

__all__ = ["Batch", "ClassScore", "EvaluationScores", "MetricScores", "Polygon", "Rle", "RleLike", "Run", "Step"]


class Rle(TypedDict):
    """What `structtoken.encode_rle` gives."""

    size: list[int]
    counts: str


class RleLike(TypedDict):
    """What `structtoken.decode_rle` takes, also as pycocotools gives it."""

    size: list[int]
    counts: str | bytes


Polygon = TypedDict(
    "Polygon",
    {"class": int, "area": int, "exterior": NDArray[np.int32], "holes": list[NDArray[np.int32]]},
)


class MetricScores(TypedDict):
    """What `structtoken.Metric.compute` gives."""

    miou: float | None
    macc: float | None
    aacc: float | None
    mdice: float | None
    iou: list[float | None]
    acc: list[float | None]
    dice: list[float | None]
    pixels: int
    ignored: int
    matrix: NDArray[np.uint64]


class ClassScore(TypedDict):
    """The scores of a class."""

    name: str
    iou: float | None
    acc: float | None
    dice: float | None
    pixels: int
    predicted_pixels: int
    absent: bool


class EvaluationScores(TypedDict):
    """What ``on_evaluation`` of `structtoken.train` gets."""

    miou: float | None
    macc: float | None
    aacc: float | None
    mdice: float | None
    pixels: int
    ignored_pixels: int
    absent: list[str]
    warnings: list[str]
    classes: list[ClassScore]
    matrix: list[list[int]]


class Step(TypedDict):
    """What ``on_step`` of `structtoken.train` gets."""

    iteration: int
    iterations: int
    loss: float
    parts: Any
    lr: float
    images_per_s: float
    wait_share: float
    eta_s: float


class Run(TypedDict):
    """What `structtoken.train` gives."""

    model: Path
    iteration: int
    best: tuple[int, float] | None
    took_s: float
    scores: EvaluationScores | None


class Batch(TypedDict):
    """What iterating over a `structtoken.Dataset` gives."""

    images: NDArray[np.uint8]
    labels: NDArray[np.uint8]
    names: list[str]
    content: NDArray[np.int64]
