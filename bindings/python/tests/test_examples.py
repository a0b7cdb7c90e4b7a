"""The examples give the command's bytes. Each is skipped where its engine is not installed."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import structtoken
from conftest import ROOT

EXAMPLES = ROOT / "examples" / "python"


def example(name: str):
    """An example as a module, under the name that other processes import it by."""
    if str(EXAMPLES) not in sys.path:
        sys.path.insert(0, str(EXAMPLES))
    os.environ["PYTHONPATH"] = str(EXAMPLES)
    return importlib.import_module(name)


def run(name: str, *arguments: object) -> None:
    done = subprocess.run([sys.executable, str(EXAMPLES / f"{name}.py"), *map(str, arguments)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("name", "needs"), [("ray_data", "ray"), ("dask_bag", "dask"), ("spark_pandas", "pyspark")], ids=["ray", "dask", "spark"]
)
def test_engines_write_the_commands_bytes(lab, tmp_path, name, needs):
    if importlib.util.find_spec(needs) is None:
        pytest.skip(f"needs {needs}")
    expected = lab.masks(tmp_path / "expected")
    run(name, lab.model, lab.photos, tmp_path / "out")
    found = [(tmp_path / "out" / f"{at}.png").read_bytes() for at in range(len(lab.images))]
    assert found == expected
    assert len(list((tmp_path / "out").iterdir())) == len(expected)


def test_a_killed_worker_of_ray_loses_no_row(lab, tmp_path):
    ray = pytest.importorskip("ray")
    marker = tmp_path / "killed"

    class Mortal(example("ray_data").Labeller):
        """Ends the first process that has labelled something, without a word."""

        def __call__(self, batch):
            found = super().__call__(batch)
            try:
                os.close(os.open(marker, os.O_CREAT | os.O_EXCL))
            except FileExistsError:
                return found
            os.kill(os.getpid(), signal.SIGKILL)

    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    try:
        rows = ray.data.from_items([{"at": at, "bytes": (lab.photos / f"{at}.png").read_bytes()} for at in range(6)])
        found = rows.map_batches(
            Mortal, fn_constructor_kwargs={"model": str(lab.model), "threads": 1}, batch_size=2, concurrency=1, num_cpus=1
        ).take_all()
    finally:
        ray.shutdown()
    assert marker.exists() and sorted(row["at"] for row in found) == list(range(6))
    expected = lab.masks(tmp_path / "expected")
    assert [row["mask"] for row in sorted(found, key=lambda row: row["at"])] == expected
    assert all(row["bytes"] == (lab.photos / f"{row['at']}.png").read_bytes() for row in found)


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


def test_masks_of_cvat_are_the_labels(lab, model):
    pytest.importorskip("cvat_sdk")
    function = example("cvat_function").create(str(lab.model))
    assert [label.name for label in function.spec.labels] == model.classes[1:]
    labels = model.predict(lab.images[0])
    drawn = np.zeros(labels.shape, np.uint8)
    for shape in function.detect(None, Image.fromarray(lab.images[0])):
        *runs, left, top, right, bottom = (int(value) for value in shape.points)
        bits = np.repeat(np.arange(len(runs)) % 2, runs).reshape(bottom - top + 1, right - left + 1)
        drawn[top : bottom + 1, left : right + 1][bits == 1] = shape.label_id
    np.testing.assert_array_equal(drawn, labels)


def test_tasks_of_label_studio_hold_the_labels(lab, model, tmp_path):
    run("label_studio_tasks", lab.model, lab.photos, tmp_path / "tasks.json")
    tasks = json.loads((tmp_path / "tasks.json").read_text())
    assert [task["data"]["image"] for task in tasks] == [f"/data/local-files/?d=photos/{at}.png" for at in range(6)]
    for task, image in zip(tasks, lab.images, strict=True):
        assert task == structtoken.label_studio(
            model.predict(image), model.classes, task["data"]["image"], version="model"
        )


def test_masks_of_fiftyone_are_files(lab, model, tmp_path):
    fiftyone = pytest.importorskip("fiftyone")
    samples = fiftyone.Dataset.from_images_dir(str(lab.photos))
    example("fiftyone_masks").add_predictions(samples, model, tmp_path / "out", "prediction")
    expected = lab.masks(tmp_path / "expected")
    for sample in samples:
        at = int(Path(sample.filepath).stem)
        assert Path(sample.prediction.mask_path).read_bytes() == expected[at]
    assert samples.mask_targets["prediction"][0] == "background"
