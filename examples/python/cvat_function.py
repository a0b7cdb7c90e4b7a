"""An auto-annotation function for CVAT: masks of a model's classes.

    pip install structtoken cvat-cli
    cvat-cli --server-host URL --auth USER task auto-annotate TASK --function-file cvat_function.py \
        -p model=str:model.safetensors --allow-unmatched-labels

The model runs where the command runs. Labels of the task and classes are matched by name. With `--conv-mask-to-poly` the borders
of regions are sent, as polygons, which cannot have holes.
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
        self.spec = cvataa.DetectionFunctionSpec(
            labels=[cvataa.label_spec(name, at, type="mask") for at, name in enumerate(model.classes) if name != background]
        )

    def detect(
        self, context: cvataa.DetectionFunctionContext, image: PIL.Image.Image
    ) -> list[cvataa.models.LabeledShapeRequest]:
        labels, shown = self._model.predict(image), [label.id for label in self.spec.labels]
        if context.conv_mask_to_poly:
            regions = [region for region in structtoken.polygons(labels) if region["class"] in shown]
            return [cvataa.polygon(region["class"], region["exterior"].ravel().tolist()) for region in regions]
        masks = [(at, labels == at) for at in shown]
        return [cvataa.mask(at, encode_mask(mask)) for at, mask in masks if mask.any()]


def create(model: str = "model.safetensors", background: str = "background") -> Function:
    """`background` is the class that no mask is drawn for."""
    return Function(structtoken.Model.open(model), background)
