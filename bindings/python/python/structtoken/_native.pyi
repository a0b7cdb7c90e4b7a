from collections.abc import Callable, Iterator, Sequence
from os import PathLike
from typing import Any, Protocol, TypeAlias, final, overload

import numpy as np
from numpy.typing import NDArray

from .types import Batch, EvaluationScores, MetricScores, Polygon, Rle, RleLike, Run, Step

__all__ = [
    "Batches",
    "Dataset",
    "Metric",
    "Model",
    "__version__",
    "check_comparison",
    "decode_rle",
    "encode_png",
    "encode_rle",
    "evaluate",
    "in_python",
    "label_studio",
    "main",
    "polygons",
    "set_models_folder",
    "train",
]

__version__: str

class _Pillow(Protocol):
    """An image of PIL."""

    @property
    def mode(self) -> str: ...
    def getbands(self) -> tuple[str, ...]: ...

_Path: TypeAlias = str | PathLike[str]
# An array [height, width, 3] of uint8, a path, the bytes of a file, or an image of PIL.
_Image: TypeAlias = NDArray[np.uint8] | _Path | bytes | _Pillow
_Labels: TypeAlias = NDArray[np.uint8] | NDArray[np.bool_]

@final
class Model:
    def __new__(cls, path: _Path, threads: int | None = None, device: str = "auto", set: Sequence[str] = ()) -> Model: ...
    @staticmethod
    def open(path: _Path, threads: int | None = None, device: str = "auto", set: Sequence[str] = ()) -> Model: ...
    # A str is a sequence of str, and an image.
    @overload
    def predict(self, image: _Image) -> NDArray[np.uint8]: ...  # type: ignore[overload-overlap]
    @overload
    def predict(self, image: Sequence[_Image]) -> list[NDArray[np.uint8]]: ...
    def probabilities(self, image: _Image) -> NDArray[np.float32]: ...
    def tokens(self, image: _Image, block: int = -1) -> NDArray[np.float32]: ...
    @property
    def classes(self) -> list[str]: ...
    @property
    def palette(self) -> list[tuple[int, int, int]]: ...

@final
class Metric:
    def __new__(cls, k: int, ignore: int | None = 255) -> Metric: ...
    def update(self, pred: NDArray[Any], true: NDArray[Any]) -> Metric: ...
    def merge(self, other: Metric) -> Metric: ...
    def compute(self) -> MetricScores: ...
    @property
    def matrix(self) -> NDArray[np.uint64]: ...
    @property
    def k(self) -> int: ...
    @property
    def ignore(self) -> int | None: ...

@final
class Batches(Iterator[Batch]):
    def __iter__(self) -> Batches: ...
    def __next__(self) -> Batch: ...

@final
class Dataset:
    def __new__(
        cls,
        dataset: _Path | None = None,
        *,
        recipe: _Path | None = None,
        split: str = "train",
        batch_size: int | None = None,
        seed: int | None = None,
        workers: int | None = None,
        root: _Path | None = None,
        set: Sequence[str] = (),
    ) -> Dataset: ...
    def batches(self, start: int = 0) -> Batches: ...
    def name(self, index: int) -> str: ...
    def __iter__(self) -> Batches: ...
    def __len__(self) -> int: ...
    def __getnewargs_ex__(self) -> tuple[tuple[str], dict[str, Any]]: ...
    def __getitem__(self, index: int, /) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]: ...
    @property
    def classes(self) -> list[str]: ...
    @property
    def palette(self) -> list[tuple[int, int, int]]: ...
    @property
    def normalization(self) -> tuple[list[float], list[float]]: ...

def encode_rle(labels: _Labels, cls: int = 1) -> Rle: ...
def decode_rle(rle: Rle | RleLike) -> NDArray[np.uint8]: ...
def encode_png(labels: _Labels, palette: Sequence[tuple[int, int, int]] | NDArray[np.integer[Any]]) -> bytes: ...
def polygons(labels: _Labels, tolerance: float = 1.0, min_area: int = 0) -> list[Polygon]: ...
def label_studio(labels: _Labels, classes: Sequence[str], image: str, version: str = "structtoken") -> dict[str, Any]: ...
def train(
    recipe: _Path | None,
    out: _Path,
    *,
    set: Sequence[str] = (),
    resume: bool = False,
    on_step: Callable[[Step], object] | None = None,
    on_evaluation: Callable[[int, EvaluationScores], object] | None = None,
    threads: int | None = None,
    device: str = "auto",
) -> Run: ...
def evaluate(
    model: _Path,
    data: _Path | None = None,
    *,
    split: str | None = None,
    set: Sequence[str] = (),
    calibration: bool = False,
    label_issues: int = 0,
    on_image: Callable[[int, int], object] | None = None,
    threads: int | None = None,
    device: str = "auto",
) -> dict[str, Any]: ...
def check_comparison(recipe: _Path | None, out: _Path, set: Sequence[str], device: str) -> None: ...
def in_python(text: str) -> str: ...
def set_models_folder(folder: str) -> None: ...
def main(arguments: Sequence[str], program: Sequence[str]) -> int: ...
