"""The values that tests/fixtures/outlines.json holds, and a check of what the library writes, by the tools that others use.

    python -m venv venv && venv/bin/pip install numpy==2.2.6 pycocotools==2.0.11 label-studio-sdk==2.1.2 \
        shapely==2.2.0 opencv-python-headless==4.12.0.88
    venv/bin/python scripts/outlines.py make
    OUTLINES=/a/folder cargo test --release --lib outlines::golden::written -- --ignored
    venv/bin/python scripts/outlines.py check /a/folder

`make` writes, for a few label maps, pycocotools' run lengths, Label Studio's brush strokes, OpenCV's components and shapely's
unions of pixels. `check` reads what the ignored test writes of random label maps: polygons must be valid and oriented, share
their borders, cover the right pixels, and COCO's must be what pycocotools decodes to.
"""

import contextlib
import json
import sys
from pathlib import Path

import cv2
import numpy as np
import shapely
from label_studio_sdk.converter.brush import decode_rle, mask2rle
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO

FIXTURE = Path(__file__).parent.parent / "tests/fixtures/outlines.json"


def maps():
    """Small label maps: noise, discs, rings, saddles, one class, nothing."""
    rng = np.random.default_rng(20)
    yield rng.integers(0, 3, (6, 8))
    yield rng.choice([0, 1, 255], (2, 70), p=[0.6, 0.3, 0.1])
    y, x = np.mgrid[:20, :26]
    discs = np.zeros((20, 26), int)
    for cx, cy, r, c in [(7, 6, 5, 1), (7, 6, 3, 2), (15, 12, 6, 3), (17, 11, 2, 255), (24, 18, 4, 1)]:
        discs[(x - cx) ** 2 + (y - cy) ** 2 <= r * r] = c
    yield discs
    yield np.where((np.maximum(abs(x - 9), abs(y - 8)) // 2) % 2 == 0, 1, 254)[:17, :15]
    yield (x + y)[:3, :4] % 2
    yield np.full((4, 5), 7)
    yield np.full((3, 3), 255)
    yield np.array([[1, 1, 1, 255], [1, 255, 1, 255], [1, 1, 255, 255], [255, 1, 255, 255]])


def canonical(ring):
    """A ring without corners that are none, from its least corner on."""
    points = [tuple(map(int, point)) for point in ring.coords[:-1]]
    kept = []
    for at, p in enumerate(points):
        a, b = points[at - 1], points[(at + 1) % len(points)]
        if (p[0] - a[0]) * (b[1] - p[1]) != (p[1] - a[1]) * (b[0] - p[0]):
            kept.append(p)
    first = kept.index(min(kept))
    return kept[first:] + kept[:first]


def of_class(labels, value):
    mask = np.asfortranarray(labels == value).astype(np.uint8)
    compressed = coco_mask.encode(mask)
    count, components = cv2.connectedComponents(np.ascontiguousarray(mask), connectivity=4)
    polygons = []
    for component in range(1, count):
        rows, columns = np.nonzero(components == component)
        union = shapely.union_all([shapely.box(x, y, x + 1, y + 1) for x, y in zip(columns, rows)])
        union = shapely.geometry.polygon.orient(union)
        assert union.geom_type == "Polygon" and union.is_valid
        rings = [canonical(union.exterior), *sorted(map(canonical, union.interiors))]
        polygons.append({"area": int(union.area), "rings": rings})
    polygons.sort(key=lambda polygon: polygon["rings"])
    brush = mask2rle(mask * 255)
    assert (decode_rle(brush).reshape(*mask.shape, 4)[:, :, 3] == mask * 255).all()
    return {
        "class": int(value),
        "counts": compressed["counts"].decode(),
        "area": int(coco_mask.area(compressed)),
        "bbox": [int(side) for side in coco_mask.toBbox(compressed)],
        "brush": bytes(brush).hex(),
        "polygons": polygons,
    }


def make():
    cases = []
    for labels in maps():
        classes = [value for value in np.unique(labels) if value != 255]
        cases.append({
            "height": labels.shape[0],
            "width": labels.shape[1],
            "ids": labels.ravel().tolist(),
            "classes": [of_class(labels, value) for value in classes],
        })
    lines = ",\n".join(json.dumps(case, separators=(",", ":")) for case in cases)
    FIXTURE.write_text(f"[\n{lines}\n]\n")
    print(FIXTURE, FIXTURE.stat().st_size, "bytes")


def drawn(polygons, shape):
    """The pixels whose centres polygons hold."""
    y, x = np.mgrid[: shape[0], : shape[1]] + 0.5
    return shapely.contains_xy(shapely.union_all(polygons), x, y) if polygons else np.zeros(shape, bool)


def read_coco(path):
    """As COCO(path), which prints."""
    with contextlib.redirect_stdout(None):
        return COCO(path)


def check(folder):
    polygons_seen = changed = cut = 0
    names = sorted(path.name.removesuffix(".npy") for path in folder.glob("*.npy"))
    for name in names:
        labels = np.load(folder / f"{name}.npy")
        collection = json.loads((folder / f"{name}.geojson").read_text())
        tolerance = float(name.split("_")[1])
        features = [(f["properties"], shapely.geometry.shape(f["geometry"])) for f in collection["features"]]
        shapes = [shape for _, shape in features]
        for properties, shape in features:
            assert shape.is_valid, (name, shapely.is_valid_reason(shape))
            assert shape.exterior.is_ccw and not any(ring.is_ccw for ring in shape.interiors), name
            if tolerance == 0:
                assert shape.area == properties["area"], name
        assert shapely.coverage_is_valid(shapes), name
        polygons_seen += len(shapes)
        coco, runs = (read_coco(folder / f"{name}.{form}.json") for form in ("coco", "coco_rle"))
        task = json.loads((folder / f"{name}.task.json").read_text())
        brushes = {}
        for region in task["predictions"][0]["result"]:
            picture = decode_rle(region["value"]["rle"]).reshape(*labels.shape, 4)
            brushes[int(region["value"]["brushlabels"][0])] = picture[:, :, 3] > 0
        assert set(brushes) == set(np.unique(labels)) - {255}, name
        for value in set(np.unique(labels)) - {255}:
            mask = labels == value
            found = drawn([shape for p, shape in features if p["class_id"] == value], labels.shape)
            assert tolerance >= 0.5 or (found == mask).all(), name
            # A pixel centre that is within `tolerance` of the border is within `tolerance` + 0.71 of another pixel's centre.
            near = cv2.distanceTransform(np.pad(mask, 1).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)[1:-1, 1:-1]
            far = cv2.distanceTransform((~mask).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
            off = np.where(mask, near, far)[found != mask]
            assert (off <= tolerance + 0.7072).all(), (name, off.max())
            changed += len(off)
            category = int(value) + 1
            merged = np.zeros(labels.shape, np.uint8)
            for annotation in coco.loadAnns(coco.getAnnIds(catIds=[category])):
                cut += len(annotation["segmentation"]) > 1
                rings = [shapely.Polygon(np.reshape(ring, (-1, 2))) for ring in annotation["segmentation"]]
                assert all(ring.is_valid and ring.exterior.is_ccw for ring in rings), name
                assert shapely.coverage_is_valid(rings), name
                pixels = coco.annToMask(annotation)
                assert (merged & pixels).sum() == 0 or tolerance > 0, name
                merged |= pixels
                if tolerance == 0:
                    assert pixels.sum() == annotation["area"], name
                    assert list(coco_mask.toBbox(coco.annToRLE(annotation))) == annotation["bbox"], name
            if tolerance == 0:
                assert (merged == mask).all(), name
            (annotation,) = runs.loadAnns(runs.getAnnIds(catIds=[category]))
            assert (runs.annToMask(annotation) == mask).all() and annotation["area"] == mask.sum(), name
            assert list(coco_mask.toBbox(annotation["segmentation"])) == annotation["bbox"], name
            assert (brushes[value] == mask).all(), name
    print(f"{len(names)} label maps, {polygons_seen} polygons, {cut} of them cut, {changed} pixels changed sides: all as it should be")
    assert names and cut and changed


if __name__ == "__main__":
    if sys.argv[1:] == ["make"]:
        make()
    elif len(sys.argv) == 3 and sys.argv[1] == "check":
        check(Path(sys.argv[2]))
    else:
        sys.exit(__doc__)
