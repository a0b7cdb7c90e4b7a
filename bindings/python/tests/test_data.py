"""Training batches are a function of seed and number."""

from __future__ import annotations

import copy
import itertools
import logging
import pickle

import numpy as np
import pytest
from PIL import Image

import structtoken

SMALL = ["data.augment.crop=[32,40]", "data.shapes.size=48", "data.shapes.train=10"]


def first(data: structtoken.Dataset, count: int, start: int = 0):
    return list(itertools.islice(data.batches(start), count))


def same(one, other) -> bool:
    return one["names"] == other["names"] and all(
        np.array_equal(one[key], other[key]) for key in ["images", "labels", "content"]
    )


def test_batches_are_arrays_of_one_size():
    data = structtoken.Dataset("shapes", batch_size=3, set=SMALL)
    batch = next(iter(data))
    assert batch["images"].dtype == batch["labels"].dtype == np.uint8
    assert batch["images"].shape == (3, 32, 40, 3) and batch["labels"].shape == (3, 32, 40)
    assert len(batch["names"]) == 3 and batch["content"].shape == (3, 2)
    assert set(np.unique(batch["labels"])) <= {*range(len(data.classes)), 255}
    batch["images"][:] = 0


def test_threads_and_where_it_starts_change_nothing():
    make = lambda **options: structtoken.Dataset("shapes", batch_size=2, set=SMALL, **options)  # noqa: E731
    all_of = first(make(seed=3, workers=1), 7)
    assert all(map(same, all_of, first(make(seed=3, workers=4), 7)))
    assert all(map(same, all_of[5:], first(make(seed=3), 2, start=5)))
    assert not same(all_of[0], all_of[1]) and not same(all_of[0], first(make(seed=4), 1)[0])


def test_samples_are_pictures_with_labels(lab):
    data = structtoken.Dataset(recipe=lab.recipe, split="val")
    assert len(data) == 4 and len(data.palette) == len(data.classes) == 6
    image, labels = data[0]
    assert image.shape == (48, 48, 3) and labels.shape == (48, 48)
    np.testing.assert_array_equal(data[-4][0], image)
    for wrong in [4, -5]:
        with pytest.raises(IndexError):
            data[wrong]
    mean, std = data.normalization
    assert len(mean) == len(std) == 3


def test_a_folder_with_a_description(tmp_path):
    for kind in ["images", "masks"]:
        (tmp_path / kind).mkdir()
    rng = np.random.default_rng(0)
    masks = {}
    for at in range(3):
        Image.fromarray(rng.integers(0, 256, [20, 30, 3], dtype=np.uint8)).save(tmp_path / "images" / f"{at}.png")
        masks[f"{at}"] = rng.integers(0, 2, [20, 30], dtype=np.uint8)
        Image.fromarray(masks[f"{at}"]).save(tmp_path / "masks" / f"{at}.png")
    toml = tmp_path / "dataset.toml"
    toml.write_text(
        'name = "two"\nroot = "."\n[[classes]]\nname = "no"\nsource = [0]\n[[classes]]\nname = "yes"\nsource = [1]\n'
        '[train]\nimages = "images"\nmasks = "masks"\n'
    )
    data = structtoken.Dataset(toml, batch_size=2, set=["data.augment.crop=[16,16]", "data.augment.resize=\"none\""])
    assert data.classes == ["no", "yes"]
    for at in range(3):
        np.testing.assert_array_equal(data[at][1], masks[data.name(at)])
    assert next(iter(data))["images"].shape == (2, 16, 16, 3)
    (tmp_path / "masks" / "1.png").write_bytes(b"damaged")
    # A fresh one: decoded pictures are kept.
    data = structtoken.Dataset(toml, batch_size=2, set=["data.augment.crop=[16,16]", "data.augment.resize=\"none\""])
    with pytest.raises(structtoken.Error, match=r"1\.png"):
        first(data, 3)


def pairs(folder, names=("0", "1", "2", "3")):
    """A folder of images and masks of two values that nothing describes."""
    rng = np.random.default_rng(0)
    for kind in ["images", "masks"]:
        (folder / kind).mkdir(parents=True)
    for name in names:
        Image.fromarray(rng.integers(0, 256, [24, 32, 3], dtype=np.uint8)).save(folder / "images" / f"{name}.png")
        Image.fromarray(rng.integers(0, 2, [24, 32], dtype=np.uint8)).save(folder / "masks" / f"{name}.png")
    return folder


CROP = ["data.augment.crop=[16,16]", 'data.augment.resize="none"']


def test_a_folder_that_nothing_describes(tmp_path, caplog):
    folder = pairs(tmp_path / "set")
    with caplog.at_level(logging.INFO, "structtoken"):
        data = structtoken.Dataset(folder, batch_size=2, set=CROP)
    assert any("found " in line for line in caplog.messages)
    assert sorted(path.name for path in folder.iterdir()) == ["images", "masks"], "nothing is written to it"
    at = [data.name(at) for at in range(len(data))]
    assert set(at) <= {"0", "1", "2", "3"} and len(data.classes) == 2
    np.testing.assert_array_equal(data[0][1], np.asarray(Image.open(folder / "masks" / f"{at[0]}.png")))
    assert next(iter(data))["images"].shape == (2, 16, 16, 3)


def test_a_dataset_is_pickled_and_its_batches_are_not(lab, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    pairs(tmp_path / "set")
    description = 'name = "two"\nclasses = ["no", "yes"]\n[train]\nimages = "images"\nmasks = "masks"\n'
    (tmp_path / "there.toml").write_text(description)
    (tmp_path / "set" / "set.toml").write_text(description)
    recipe = lab.recipe.read_text().replace('dataset = "shapes"', 'dataset = "set/set.toml"').replace("[48, 48]\ncat", "[16, 16]\ncat")
    (tmp_path / "recipe.toml").write_text(recipe)
    made = [
        structtoken.Dataset("shapes", batch_size=2, seed=3, workers=1, set=SMALL),
        structtoken.Dataset("set", batch_size=3, set=CROP),
        structtoken.Dataset("set/set.toml", batch_size=2, set=CROP),
        structtoken.Dataset("there.toml", root="set", set=CROP + ["train.batch_size=2"]),
        structtoken.Dataset("there.toml", set=CROP + ["data.root=set"], batch_size=2),
        structtoken.Dataset(recipe="recipe.toml", batch_size=2),
        structtoken.Dataset(recipe=lab.recipe, split="val"),
    ]
    kept = [pickle.dumps(data) for data in made]
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    for data, pickled in zip(made, kept, strict=True):
        for again in [pickle.loads(pickled), copy.copy(data)]:
            assert (len(again), again.classes, again.name(0)) == (len(data), data.classes, data.name(0))
            assert all(map(same, first(data, 2), first(again, 2)))
    with pytest.raises(structtoken.InputTypeError, match="threads of this process") as caught:
        pickle.dumps(iter(made[0]))
    assert "batches(start)" in caught.value.hint


def test_faults_say_what_to_do(tmp_path):
    faults = [
        (lambda: structtoken.Dataset(), "neither"),
        (lambda: structtoken.Dataset("shapes", split="training"), "training"),
        (lambda: structtoken.Dataset("shapes", batch_size=0), "batch_size is 0"),
        (lambda: structtoken.Dataset("ade20"), "ade20"),
        (lambda: structtoken.Dataset(tmp_path / "none.toml"), "none.toml"),
        (lambda: structtoken.Dataset("shapes", set=["data.augment.crop=none"]), "crop"),
        (lambda: structtoken.Dataset(recipe=tmp_path / "none.toml"), "none.toml"),
    ]
    for make, says in faults:
        with pytest.raises(structtoken.Error) as caught:
            make()
        assert says in str(caught.value) and caught.value.hint, caught.value
