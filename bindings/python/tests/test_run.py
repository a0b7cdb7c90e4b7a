"""Runs from Python are those of the command, and Ctrl-C saves them."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import structtoken
from structtoken import types

FEW = ["train.iterations=6", "train.eval_every=6", "train.save_every=3"]


def test_a_run_reports_and_ends_in_the_commands_bytes(lab, tmp_path):
    steps, evaluations, caller = [], [], threading.get_ident()

    def on_step(step):
        assert threading.get_ident() == caller
        steps.append(step)

    run = structtoken.train(
        lab.recipe, tmp_path / "a", set=FEW, on_step=on_step, on_evaluation=lambda *found: evaluations.append(found)
    )
    assert [step["iteration"] for step in steps] == [1, 2, 3, 4, 5, 6]
    assert all(step["iterations"] == 6 and step["loss"] > 0 and step["lr"] > 0 for step in steps)
    assert [at for at, _ in evaluations] == [6] and run["scores"] == evaluations[0][1]
    assert set(evaluations[0][1]) == set(types.EvaluationScores.__annotations__)
    assert set(evaluations[0][1]["classes"][0]) == set(types.ClassScore.__annotations__)
    assert all(f"``{key}``" in structtoken.train.__doc__ for key in evaluations[0][1])
    assert set(steps[0]) == set(types.Step.__annotations__) and set(run) == set(types.Run.__annotations__)
    assert isinstance(run["model"], Path)
    assert run["iteration"] == 6 and run["best"] == (6, run["scores"]["miou"])
    changes = [word for change in FEW for word in ("--set", change)]
    done = lab.command("train", lab.recipe, "--out", tmp_path / "b", *changes)
    assert done.returncode == 0, done.stderr
    # The files also hold what is said of the weights.
    assert Path(run["model"]).read_bytes() == (tmp_path / "b" / "model.safetensors").read_bytes()


@pytest.mark.parametrize("stop", ["exception", "signal"])
def test_what_stops_a_run_saves_it(lab, tmp_path, stop):
    whole = structtoken.train(lab.recipe, tmp_path / "whole", set=FEW)
    seen = []

    def on_step(step):
        seen.append(step["iteration"])
        if step["iteration"] == 2:
            if stop == "signal":
                signal.raise_signal(signal.SIGINT)
            raise KeyError("enough")

    kind = KeyError if stop == "exception" else KeyboardInterrupt
    with pytest.raises(kind):
        structtoken.train(lab.recipe, tmp_path / "run", set=FEW, on_step=on_step)
    assert seen == [1, 2]
    run = structtoken.train(None, tmp_path / "run", resume=True)
    assert run["iteration"] == 6
    assert Path(run["model"]).read_bytes() == Path(whole["model"]).read_bytes()


def test_ctrl_c_saves_a_run_without_callbacks(lab, tmp_path):
    script = (
        "import sys, structtoken\n"
        "try:\n"
        "    structtoken.train(sys.argv[1], sys.argv[2], set=['train.iterations=100000', 'train.eval_every=100000'])\n"
        "except KeyboardInterrupt:\n"
        "    print('interrupted')\n"
    )
    run = tmp_path / "run"
    process = subprocess.Popen([sys.executable, "-c", script, lab.recipe, run], stdout=subprocess.PIPE, text=True)
    while not (run / "log.ndjson").exists() or not (run / "log.ndjson").stat().st_size:
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    assert process.communicate()[0] == "interrupted\n" and process.returncode == 0
    assert any((run / "checkpoints").iterdir())


def test_ctrl_c_saves_a_run_of_the_command(lab, tmp_path):
    run = tmp_path / "run"
    words = [Path(sys.executable).with_name("structtoken"), "train", lab.recipe, "--out", run, "--set", "train.iterations=100000"]
    process = subprocess.Popen(words, stderr=subprocess.PIPE, text=True)
    while not (run / "log.ndjson").exists() or not (run / "log.ndjson").stat().st_size:
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    talk = process.communicate()[1]
    assert process.returncode == 130 and "saved after iteration" in talk, talk


@pytest.mark.skipif(sys.platform != "linux", reason="threads are counted in /proc")
def test_ctrl_c_ends_other_commands():
    words = ["bench", "--backbone", "vit-s", "--size", "512", "--device", "cpu", "--threads", "2", "--repeat", "100000"]
    null = subprocess.DEVNULL
    process = subprocess.Popen([Path(sys.executable).with_name("structtoken"), *words], stdout=null, stderr=null)
    # The command's own threads are there once it works.
    while len(list(Path(f"/proc/{process.pid}/task").iterdir())) < 3:
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    assert process.wait() in (-signal.SIGINT, 130)


def test_evaluate_is_the_command(lab):
    images = []
    found = structtoken.evaluate(lab.model, on_image=lambda done, of: images.append((done, of)))
    done = lab.command("eval", lab.model, "--json", "--labels-only")
    assert done.returncode == 0, done.stderr
    assert found == json.loads(done.stdout)
    assert images == [(at, 4) for at in range(1, 5)]
    metric = structtoken.Metric(6)
    model, data = structtoken.Model.open(lab.model), structtoken.Dataset(recipe=lab.recipe, split="val")
    for at in range(len(data)):
        image, truth = data[at]
        metric.update(model.predict(image), truth)
    assert metric.matrix.tolist() == found["matrix"] and metric.compute()["miou"] == found["miou"]
    more = structtoken.evaluate(lab.model, calibration=True, label_issues=2)
    assert more["calibration"] is not None and more["label_issues"] is not None
    named = structtoken.evaluate(lab.model, "shapes", set=["data.shapes.val=2"])
    assert named["images"] == 2


def described_by(classes, folder, images):
    """A folder of images and masks, with names of classes beside them."""
    for kind in ["images", "masks"]:
        (folder / kind).mkdir(parents=True)
    (folder / "classes.txt").write_text("\n".join(classes) + "\n")
    for at, (image, labels) in enumerate(images):
        Image.fromarray(image).save(folder / "images" / f"{at}.png")
        Image.fromarray(labels).save(folder / "masks" / f"{at}.png")
    return folder


def test_evaluate_takes_a_folder_as_the_command_does(lab, model, tmp_path, caplog):
    shapes = structtoken.Dataset(recipe=lab.recipe, split="val")
    folder = described_by(model.classes, tmp_path / "set", [shapes[at] for at in range(4)])
    with caplog.at_level("INFO", "structtoken"):
        found = structtoken.evaluate(lab.model, folder)
    assert any("found " in line for line in caplog.messages)
    done = lab.command("eval", lab.model, "--data", folder, "--json", "--labels-only")
    assert done.returncode == 0, done.stderr
    assert found == json.loads(done.stdout) and found["images"] == 4
    assert found["matrix"] == structtoken.evaluate(lab.model)["matrix"]
    assert structtoken.evaluate(lab.model, folder, split="all") == found
    assert structtoken.evaluate(lab.model, "shapes", split="all", set=["data.shapes.val=1", "data.shapes.train=1"])["images"] >= 2
    with pytest.raises(structtoken.InputError, match="no split `some`") as caught:
        structtoken.evaluate(lab.model, folder, split="some")
    assert '"all"' in caught.value.hint


def test_other_classes_are_refused_with_the_way_to_name_them(lab, tmp_path):
    rng = np.random.default_rng(0)
    images = [(rng.integers(0, 256, [48, 48, 3], dtype=np.uint8), np.eye(48, dtype=np.uint8)) for _ in range(3)]
    folder = described_by(["sea", "land"], tmp_path / "set", images)
    with pytest.raises(structtoken.Error, match="are not the model's") as caught:
        structtoken.evaluate(lab.model, folder)
    error = lab.command("eval", lab.model, "--data", folder, cwd=tmp_path)
    assert error.returncode == 1 and caught.value.message in error.stderr
    assert "structtoken data init" in caught.value.hint and 'data="other.toml"' in caught.value.hint, caught.value.hint
    (tmp_path / "other.toml").write_text('name = "o"\nclasses = ["sea"]\n[val]\nimages = "set/images"\nmasks = "set/masks"\n')
    with pytest.raises(structtoken.Error, match="are not the model's") as caught:
        structtoken.evaluate(lab.model, tmp_path / "other.toml")
    assert "rename classes" in caught.value.hint


def test_what_is_raised_ends_an_evaluation(lab):
    seen = []

    def on_image(done, of):
        seen.append(done)
        raise KeyError(done)

    with pytest.raises(KeyError):
        structtoken.evaluate(lab.model, on_image=on_image)
    assert seen == [1]


def test_compare_runs_processes_of_its_own(lab, tmp_path):
    lines = []
    found = structtoken.compare(
        lab.recipe, tmp_path / "c", decoders=["cse", "fcn"], seeds=1, iterations=2, evaluations=1, on_line=lines.append
    )
    assert found == json.loads((tmp_path / "c" / "compare.json").read_text())
    assert any("cse" in line for line in lines) and any("fcn" in line for line in lines)
    again: list[str] = []
    structtoken.compare(None, tmp_path / "c", on_line=again.append)
    assert any("2 of 2 runs are already finished" in line for line in again), again
    with pytest.raises(structtoken.Error) as caught:
        structtoken.compare(lab.recipe, tmp_path / "d", decoders=["nothing"])
    assert "nothing" in caught.value.message


def test_faults_say_what_to_do(lab, tmp_path):
    structtoken.train(lab.recipe, tmp_path / "run", set=["train.iterations=1"])
    faults = [
        (lambda: structtoken.train(None, tmp_path / "x"), "no recipe"),
        (lambda: structtoken.train("none.toml", tmp_path / "x"), "none.toml"),
        (lambda: structtoken.train(lab.recipe, tmp_path / "run"), "already holds a run"),
        (lambda: structtoken.train(None, tmp_path / "empty", resume=True), "empty"),
        (lambda: structtoken.evaluate("none.safetensors"), "none.safetensors"),
        (lambda: structtoken.evaluate(lab.model, split="some"), "some"),
        (lambda: structtoken.evaluate(lab.model, "none.toml"), "none.toml"),
    ]
    for call, says in faults:
        with pytest.raises(structtoken.Error) as caught:
            call()
        assert says in str(caught.value) and caught.value.hint, caught.value
