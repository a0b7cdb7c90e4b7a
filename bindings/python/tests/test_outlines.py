"""Label maps in the forms of others."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image, ImageDraw

import structtoken


def maps():
    rng = np.random.default_rng(11)
    yield np.zeros([3, 5], np.uint8)
    yield np.array([[0, 255], [1, 1]], np.uint8)
    for _ in range(20):
        coarse = rng.integers(0, 4, rng.integers(1, 9, 2), dtype=np.uint8)
        coarse[coarse == 3] = 255
        yield np.kron(coarse, np.ones(rng.integers(1, 6, 2), np.uint8))


def test_run_lengths_are_those_of_the_columns():
    for labels in maps():
        for cls in [0, 1, 2]:
            rle = structtoken.encode_rle(labels, cls)
            assert json.loads(json.dumps(rle)) == rle and rle["size"] == list(labels.shape)
            np.testing.assert_array_equal(structtoken.decode_rle(rle), labels == cls)
            as_bytes = {"size": rle["size"], "counts": rle["counts"].encode()}
            np.testing.assert_array_equal(structtoken.decode_rle(as_bytes), labels == cls)
        np.testing.assert_array_equal(structtoken.decode_rle(structtoken.encode_rle(labels == 1)), labels == 1)
        assert structtoken.encode_rle(np.asfortranarray(labels), 1) == structtoken.encode_rle(labels, 1)


def test_run_lengths_are_those_of_pycocotools():
    mask = pytest.importorskip("pycocotools.mask")
    for labels in maps():
        theirs = mask.encode(np.asfortranarray(labels == 1, dtype=np.uint8))
        ours = structtoken.encode_rle(labels, 1)
        assert (ours["size"], ours["counts"].encode()) == (list(theirs["size"]), theirs["counts"])


def test_exact_polygons_cover_the_pixels():
    for labels in maps():
        drawn = np.full(labels.shape, 255, np.uint8)
        covered = {cls: 0 for cls in range(3)}
        for polygon in structtoken.polygons(labels, tolerance=0):
            assert polygon["exterior"].dtype == np.int32 and polygon["exterior"].shape[1] == 2
            covered[polygon["class"]] += polygon["area"]
            # Eight times as large, centres of pixels are no points of borders.
            canvas = Image.new("1", (8 * labels.shape[1] + 1, 8 * labels.shape[0] + 1))
            pen = ImageDraw.Draw(canvas)
            pen.polygon([(8 * x, 8 * y) for x, y in polygon["exterior"].tolist()], fill=1)
            for hole in polygon["holes"]:
                pen.polygon([(8 * x, 8 * y) for x, y in hole.tolist()], fill=0)
            drawn[np.asarray(canvas)[4::8, 4::8]] = polygon["class"]
        np.testing.assert_array_equal(drawn, labels)
        assert covered == {cls: int((labels == cls).sum()) for cls in range(3)}


def test_small_regions_are_dropped():
    labels = np.zeros([9, 9], np.uint8)
    labels[4, 4] = 1
    assert len(structtoken.polygons(labels)) == 2
    [whole] = structtoken.polygons(labels, min_area=2)
    assert whole["area"] == 81 and whole["holes"] == []


def test_a_task_of_label_studio_is_json():
    labels = np.array([[0, 0, 1], [255, 1, 1]], np.uint8)
    task = structtoken.label_studio(labels, ["road", "car"], "/data/local-files/?d=a.png", version="v1")
    assert json.loads(json.dumps(task)) == task
    [prediction] = task["predictions"]
    assert prediction["model_version"] == "v1" and task["data"] == {"image": "/data/local-files/?d=a.png"}
    assert [region["value"]["brushlabels"] for region in prediction["result"]] == [["road"], ["car"]]
    assert all((region["original_width"], region["original_height"]) == (3, 2) for region in prediction["result"])


def test_a_png_holds_the_labels_and_the_palette(tmp_path):
    labels = np.array([[0, 1, 255], [1, 1, 0]], np.uint8)
    (tmp_path / "a.png").write_bytes(structtoken.encode_png(labels, [(1, 2, 3), (4, 5, 6)]))
    picture = Image.open(tmp_path / "a.png")
    assert picture.mode == "P" and picture.getpalette()[:6] == [1, 2, 3, 4, 5, 6]
    np.testing.assert_array_equal(np.asarray(picture), labels)


def test_wrong_maps_are_refused_with_a_hint():
    good = np.zeros([4, 4], np.uint8)
    faults = [
        (good.astype(int), structtoken.InputTypeError, "int64"),
        (good[None], structtoken.InputError, "[1, 4, 4]"),
        (good[:, :0], structtoken.InputError, "4 x 0"),
        ([[0]], structtoken.InputTypeError, "list"),
    ]
    for wrong, kind, says in faults:
        for call in [
            structtoken.encode_rle,
            structtoken.polygons,
            lambda labels: structtoken.label_studio(labels, ["a"], "a.png"),
            lambda labels: structtoken.encode_png(labels, []),
        ]:
            with pytest.raises(kind) as caught:
                call(wrong)
            assert says in str(caught.value) and caught.value.hint
    with pytest.raises(structtoken.Error, match="tolerance"):
        structtoken.polygons(good, tolerance=-1)
    for damaged in [{"size": [2, 2], "counts": "0"}, {"size": [2, 2], "counts": "\x7f"}, {"size": [2, 2]}]:
        with pytest.raises(structtoken.Error) as caught:
            structtoken.decode_rle(damaged)
