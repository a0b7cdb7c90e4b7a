"""Regions of a label map as detections of `supervision`: masks, boxes, classes, ready for its annotators.

    pip install structtoken supervision pillow
    python supervision_detections.py MODEL.safetensors PHOTO OUT.png
"""

from __future__ import annotations

import sys

import numpy as np
import supervision
from numpy.typing import NDArray
from PIL import Image

import structtoken


def detections(labels: NDArray[np.uint8], classes: list[str]) -> supervision.Detections:
    """One detection per class that is there; 255 is none."""
    found = [cls for cls in np.unique(labels).tolist() if cls < len(classes)]
    if not found:
        return supervision.Detections.empty()
    masks = np.stack([labels == cls for cls in found])
    return supervision.Detections(
        xyxy=supervision.mask_to_xyxy(masks),
        mask=masks,
        class_id=np.array(found),
        data={"class_name": np.array([classes[cls] for cls in found])},
    )


def main(model: str, photo: str, out: str) -> None:
    opened = structtoken.Model.open(model)
    picture = np.array(Image.open(photo).convert("RGB"))
    found = detections(opened.predict(picture), opened.classes)
    colors = supervision.ColorPalette([supervision.Color(*color) for color in opened.palette])
    # Annotators take and give BGR.
    drawn = supervision.MaskAnnotator(color=colors).annotate(picture[..., ::-1].copy(), found)
    Image.fromarray(drawn[..., ::-1].copy()).save(out)


if __name__ == "__main__":
    main(*sys.argv[1:])
