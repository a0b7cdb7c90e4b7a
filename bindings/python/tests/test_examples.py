"""The examples for other tools. Each is skipped where its tool is not installed; engines are in test_engines.py."""

from __future__ import annotations

import importlib.util
import json
import logging
import subprocess
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
from PIL import Image

import structtoken
from conftest import EXAMPLES, example


class Anything(ModuleType):
    """A module that is not installed, whose names are classes without content."""

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return type(name, (), {"__init__": lambda self, *_, **__: None})


def test_engines_name_the_model_for_every_worker(monkeypatch, tmp_path):
    names = ["dask", "dask.bag", "distributed", "ray", "ray.data", "pandas", "pyspark", "pyspark.sql", "pyspark.sql.types"]
    absent = {top for top in (name.partition(".")[0] for name in names) if importlib.util.find_spec(top) is None}
    for name in names:
        if name.partition(".")[0] in absent:
            monkeypatch.setitem(sys.modules, name, Anything(name))
            if "." in name:
                monkeypatch.setattr(sys.modules[name.rpartition(".")[0]], name.rpartition(".")[2], sys.modules[name], raising=False)
    monkeypatch.chdir(tmp_path)
    seen = {}
    rows = SimpleNamespace(
        map_partitions=lambda _: None,
        map_batches=lambda *_, **options: seen.update(ray=options["fn_constructor_kwargs"]["model"]),
    )
    client = SimpleNamespace(register_plugin=lambda plugin: seen.update(dask=plugin.path))
    modules = {name: example(name) for name in ["dask_bag", "ray_data", "spark_pandas"]}
    for model, expected in [("@nuclei", "@nuclei"), ("a.safetensors", str(tmp_path / "a.safetensors"))]:
        modules["dask_bag"].label(rows, model, client)
        modules["ray_data"].label(rows, model)
        assert seen == {"dask": expected, "ray": expected}
        assert modules["spark_pandas"].everywhere(model) == expected
    for name in modules:
        # The next test that wants it may have it with what it needs.
        del sys.modules[name]


def run(name: str, *arguments: object) -> None:
    words = [sys.executable, str(EXAMPLES / f"{name}.py"), *map(str, arguments)]
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr


def test_detections_of_supervision_are_the_labels(lab, model, tmp_path):
    pytest.importorskip("supervision")
    module = example("supervision_detections")
    labels = model.predict(lab.images[0])
    found = module.detections(labels, model.classes)
    drawn = np.full(labels.shape, 255, np.uint8)
    for mask, cls, box in zip(found.mask, found.class_id, found.xyxy, strict=True):
        drawn[mask] = cls
        rows, columns = np.nonzero(labels == cls)
        assert box.tolist() == [columns.min(), rows.min(), columns.max(), rows.max()]
    np.testing.assert_array_equal(drawn, labels)
    assert list(found.data["class_name"]) == [model.classes[cls] for cls in found.class_id]
    assert len(module.detections(np.full([2, 2], 255, np.uint8), model.classes)) == 0
    run("supervision_detections", lab.model, lab.folder / "photo.png", tmp_path / "drawn.png")
    assert Image.open(tmp_path / "drawn.png").size == (48, 48)


def annotate(lab, monkeypatch, labels, **options):
    """What `cvat-cli task auto-annotate` sends to a server for a task of two frames, with all that its SDK checks."""
    driver = pytest.importorskip("cvat_sdk.auto_annotation.driver")
    cli = pytest.importorskip("cvat_cli._internal.common")
    function = cli.FunctionLoader(None, EXAMPLES / "cvat_function.py", {"model": str(lab.model)}).load()
    kind = options.pop("type", "mask")
    task_labels = [
        SimpleNamespace(id=100 + at, name=name, type=kind, sublabels=[], attributes=[])
        for at, name in enumerate(labels)
    ]
    samples = [
        SimpleNamespace(frame_index=at, frame_name=f"{at}.png", media=SimpleNamespace(load_image=lambda at=at: Image.fromarray(lab.images[at])))
        for at in range(2)
    ]
    monkeypatch.setattr(driver, "TaskDataset", lambda *_, **__: SimpleNamespace(labels=task_labels, samples=samples))
    sent = []

    def partial_update_annotations(action, task, patched_labeled_data_request):
        sent.append(patched_labeled_data_request)

    api = SimpleNamespace(partial_update_annotations=partial_update_annotations)
    client = SimpleNamespace(logger=logging.getLogger("cvat"), tasks=SimpleNamespace(api=api))
    driver.annotate_task(client, 1, function, **options)
    assert sent[0].tags == []
    return sent[0].shapes


def test_masks_of_cvat_are_the_labels(lab, model, monkeypatch):
    shapes = annotate(lab, monkeypatch, model.classes)
    assert {shape.frame for shape in shapes} == {0, 1} and all(shape.source == "auto" for shape in shapes)
    for frame in range(2):
        labels = model.predict(lab.images[frame])
        drawn = np.zeros(labels.shape, np.uint8)
        for shape in (shape for shape in shapes if shape.frame == frame):
            *runs, left, top, right, bottom = (int(value) for value in shape.points)
            bits = np.repeat(np.arange(len(runs)) % 2, runs).reshape(bottom - top + 1, right - left + 1)
            drawn[top : bottom + 1, left : right + 1][bits == 1] = shape.label_id - 100
        np.testing.assert_array_equal(drawn, labels)


def test_cvat_is_told_of_labels_that_the_task_lacks(lab, model, monkeypatch):
    errors = pytest.importorskip("cvat_sdk.auto_annotation")
    with pytest.raises(errors.BadFunctionError, match="is not in dataset"):
        annotate(lab, monkeypatch, ["something else"])
    shapes = annotate(lab, monkeypatch, model.classes[:3], allow_unmatched_labels=True)
    assert {shape.label_id for shape in shapes} <= {101, 102}


def test_polygons_of_cvat_are_borders(lab, model, monkeypatch):
    shapes = annotate(lab, monkeypatch, model.classes, conv_mask_to_poly=True, type="polygon")
    expected = [
        (frame, 100 + region["class"], region["exterior"].ravel().tolist())
        for frame in range(2)
        for region in structtoken.polygons(model.predict(lab.images[frame]))
        if region["class"] != 0
    ]
    assert [(shape.frame, shape.label_id, shape.points) for shape in shapes] == expected
    assert all(shape.type.value == "polygon" for shape in shapes)


def test_tasks_of_label_studio_hold_the_labels(lab, model, tmp_path):
    run("label_studio_tasks", lab.model, lab.photos, tmp_path / "tasks.json")
    tasks = json.loads((tmp_path / "tasks.json").read_text())
    assert [task["data"]["image"] for task in tasks] == [f"/data/local-files/?d=photos/{at}.png" for at in range(6)]
    for task, image in zip(tasks, lab.images, strict=True):
        assert task == structtoken.label_studio(
            model.predict(image), model.classes, task["data"]["image"], version="model"
        )


def test_label_studio_takes_the_tasks(lab, model):
    brush = pytest.importorskip("label_studio_sdk.converter.brush")
    interface = pytest.importorskip("label_studio_sdk.label_interface")
    labels = model.predict(lab.images[0])
    [prediction] = structtoken.label_studio(labels, model.classes, "/data/local-files/?d=a.png")["predictions"]
    tags = "".join(f'<Label value="{name}"/>' for name in model.classes)
    view = f'<View><Image name="image" value="$image"/><BrushLabels name="label" toName="image">{tags}</BrushLabels></View>'
    assert interface.LabelInterface(view).validate_prediction(prediction, return_errors=True) == []
    drawn = np.full(labels.shape, 255, np.uint8)
    for region in prediction["result"]:
        covered = np.array(brush.decode_rle(region["value"]["rle"]), np.uint8).reshape(*labels.shape, 4)[..., 3]
        drawn[covered > 0] = model.classes.index(region["value"]["brushlabels"][0])
    np.testing.assert_array_equal(drawn, labels)


def test_masks_of_fiftyone_are_files(lab, model, tmp_path, monkeypatch):
    # Its database is not that of whoever runs the test.
    monkeypatch.setenv("FIFTYONE_DATABASE_DIR", str(tmp_path / "database"))
    fiftyone = pytest.importorskip("fiftyone")
    samples = fiftyone.Dataset.from_images_dir(str(lab.photos))
    module, targets = example("fiftyone_masks"), dict(enumerate(model.classes))
    module.add_predictions(samples, model, tmp_path / "out", "prediction")
    samples.reload()
    assert samples.mask_targets["prediction"] == targets
    for sample in samples:
        assert sample.prediction.mask is None, "the database holds the path alone"
        np.testing.assert_array_equal(sample.prediction.get_mask(), model.predict(sample.filepath))
    assert len(list((tmp_path / "out").iterdir())) == len(samples) == 6
    scores = samples.evaluate_segmentations("prediction", gt_field="prediction", mask_targets=targets).metrics()
    assert scores["accuracy"] == 1
    # Of a view, too.
    module.add_predictions(samples.limit(2), model, tmp_path / "again", "again")
    assert sum(sample.again is not None for sample in samples) == 2
