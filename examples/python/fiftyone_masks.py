"""Predictions in FiftyOne, as masks on the disk: the database holds their paths alone.

    pip install structtoken fiftyone pillow
    python fiftyone_masks.py MODEL.safetensors IMAGES OUT
"""

from __future__ import annotations

import sys
from pathlib import Path

import fiftyone
from PIL import Image

import structtoken


def add_predictions(samples: fiftyone.core.collections.SampleCollection, model: structtoken.Model, out: Path, field: str) -> None:
    """Labels the images of `samples`, writes the masks to `out`, and names them in `field`."""
    out.mkdir(parents=True, exist_ok=True)
    # FiftyOne takes 0 for what is not labelled, unless the targets name it.
    dataset = fiftyone.load_dataset(samples.view().dataset_name)
    dataset.mask_targets[field] = dict(enumerate(model.classes))
    dataset.save()
    for sample in samples.iter_samples(autosave=True, progress=True):
        # Images of several folders may have one name.
        mask = out / f"{Path(sample.filepath).stem}-{sample.id}.png"
        # Grey, a class number per pixel: of an indexed PNG, FiftyOne would read the colours.
        Image.fromarray(model.predict(sample.filepath)).save(mask)
        sample[field] = fiftyone.Segmentation(mask_path=str(mask.absolute()))


def main(model: str, images: str, out: str) -> None:
    samples = fiftyone.Dataset.from_images_dir(images)
    add_predictions(samples, structtoken.Model.open(model), Path(out), "prediction")
    fiftyone.launch_app(samples).wait()


if __name__ == "__main__":
    main(*sys.argv[1:])
