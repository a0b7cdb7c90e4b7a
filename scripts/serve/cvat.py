"""A CVAT auto-annotation function that asks a structtoken server. CVAT then has a mask per class and frame, to be corrected by hand.

    pip install cvat-cli pillow numpy
    STRUCTTOKEN=http://127.0.0.1:8080 cvat-cli --server-host https://cvat.example.org --auth USER \\
        task auto-annotate TASK --function-file scripts/serve/cvat.py --allow-unmatched-labels

Environment: STRUCTTOKEN is the server's address, TOKEN its token if it asks for one, MODEL the model's name (the first one without it),
MIN_PIXELS the pixels below which a class is left out of a frame (16). Parameters of the command line go before them: `-p url=str:...`,
`-p model=str:...`. With --conv-mask-to-poly CVAT asks for polygons, and gets the server's.
"""

import io
import json
import os
import urllib.parse
import urllib.request

import cvat_sdk.auto_annotation as cvataa
import numpy as np
from cvat_sdk.masks import encode_mask
from PIL import Image


class Function:
    def __init__(self, url=None, model=None):
        self.url = (url or os.environ.get("STRUCTTOKEN", "http://127.0.0.1:8080")).rstrip("/")
        self.model = model or os.environ.get("MODEL")
        self.least = int(os.environ.get("MIN_PIXELS", "16"))
        models = json.loads(self._ask("/v1/models"))["models"]
        named = [one for one in models if self.model in (None, one["name"])]
        if not named:
            raise cvataa.BadFunctionError(f"the server has no model `{self.model}`, but {', '.join(one['name'] for one in models)}")
        self.model, self.classes = named[0]["name"], named[0]["classes"]
        self.spec = cvataa.DetectionFunctionSpec(labels=[cvataa.label_spec(one["name"], one["id"]) for one in self.classes])

    def _ask(self, path, body=None):
        headers = {"Authorization": f"Bearer {os.environ['TOKEN']}"} if "TOKEN" in os.environ else {}
        if body is not None:
            headers["Content-Type"] = "application/octet-stream"
        with urllib.request.urlopen(urllib.request.Request(self.url + path, data=body, headers=headers)) as answer:
            return answer.read()

    def detect(self, context, image):
        """A mask for each class of the frame, or a polygon for each of its regions."""
        file = io.BytesIO()
        image.convert("RGB").save(file, "PNG")
        query = {"model": self.model, "output": "geojson" if context.conv_mask_to_poly else "mask", "min_area": self.least}
        answer = self._ask(f"/v1/segment?{urllib.parse.urlencode(query)}", file.getvalue())
        if context.conv_mask_to_poly:
            # CVAT's polygons have no holes: the outer ring is what it takes.
            return [
                cvataa.polygon(feature["properties"]["class_id"], [float(value) for corner in feature["geometry"]["coordinates"][0][:-1] for value in corner])
                for feature in json.loads(answer)["features"]
            ]
        ids = np.asarray(Image.open(io.BytesIO(answer)))
        shapes = []
        for one in self.classes:
            bitmap = ids == one["id"]
            if bitmap.sum() >= self.least:
                shapes.append(cvataa.mask(one["id"], encode_mask(bitmap)))
        return shapes


def create(url=None, model=None):
    """What `cvat-cli` calls when parameters are given."""
    return Function(url, model)
