"""An auto-annotation function for CVAT: masks of a model's classes.

    pip install structtoken cvat-cli
    cvat-cli --server-host URL --auth USER task auto-annotate TASK --function-file cvat_function.py \
        -p model=str:model.safetensors --allow-unmatched-labels

The model runs where the command runs. Labels of the task and classes are matched by name.
"""

from __future__ import annotations

import cvat_sdk.auto_annotation as cvataa
import PIL.Image
from cvat_sdk.masks import encode_mask

import structtoken


class Function:
    """What `cvat-cli` calls for each frame."""

    def __init__(self, model: structtoken.Model, background: str) -> None:
        self._model = model
        self._background = background
        self.spec = cvataa.DetectionFunctionSpec(
            labels=[cvataa.label_spec(name, at, type="mask") for at, name in enumerate(model.classes) if name != background]
        )

    def detect(
        self, context: cvataa.DetectionFunctionContext, image: PIL.Image.Image
    ) -> list[cvataa.models.LabeledShapeRequest]:
        labels = self._model.predict(image)
        shapes = []
        for at, name in enumerate(self._model.classes):
            mask = labels == at
            if name == self._background or not mask.any():
                continue
            shapes.append(cvataa.mask(at, encode_mask(mask)))
        return shapes


def create(model: str = "model.safetensors", background: str = "background") -> Function:
    """`background` is the class that no mask is drawn for."""
    return Function(structtoken.Model.open(model), background)
