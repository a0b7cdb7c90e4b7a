"""Semantic segmentation with structure tokens, from Python.

>>> import structtoken
>>> model = structtoken.Model.open("model.safetensors")
>>> labels = model.predict("photo.png")        # uint8, [height, width]
>>> labels.dtype, labels.ndim
(dtype('uint8'), 2)

Images are ``uint8`` arrays ``[height, width, 3]`` (RGB), label maps ``uint8`` arrays ``[height, width]`` of class indices, where
255 counts nowhere. Whatever fails raises `structtoken.Error` or one of its kinds, whose ``hint`` says what to do.

The command ``structtoken`` of the same package is the whole program; ``structtoken --help`` lists what it does.
"""

import os as _os

from . import _native
from ._compare import compare
from ._errors import Error, InputError, InputTypeError, NotFoundError, OutOfMemoryError
from ._native import (
    Batches,
    Dataset,
    Metric,
    Model,
    __version__,
    decode_rle,
    encode_png,
    encode_rle,
    evaluate,
    label_studio,
    polygons,
    train,
)

_native.set_models_folder(_os.path.join(_os.path.dirname(__file__), "models"))

__all__ = [
    "Batches",
    "Dataset",
    "Error",
    "InputError",
    "InputTypeError",
    "Metric",
    "Model",
    "NotFoundError",
    "OutOfMemoryError",
    "__version__",
    "compare",
    "decode_rle",
    "encode_png",
    "encode_rle",
    "evaluate",
    "label_studio",
    "polygons",
    "train",
]
