"""Predictions as tasks for Label Studio, in one file to be imported.

    pip install structtoken
    python label_studio_tasks.py MODEL.safetensors IMAGES TASKS.json

Label Studio opens the images through local storage, whose document root is the folder above IMAGES. Its interface needs the tags
`<Image name="image" value="$image"/>` and `<BrushLabels name="label" toName="image">` with the model's classes.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from urllib.parse import quote

import structtoken


def main(model: str, images: str, tasks: str) -> None:
    opened = structtoken.Model.open(model)
    folder = Path(images).absolute()
    found = []
    for path in sorted(folder.iterdir()):
        link = "/data/local-files/?d=" + quote(str(path.relative_to(folder.parent)))
        found.append(structtoken.label_studio(opened.predict(path), opened.classes, link, version=Path(model).stem))
    Path(tasks).write_text(json.dumps(found), encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
