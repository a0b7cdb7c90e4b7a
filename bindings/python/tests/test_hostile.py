"""Whatever is passed, an exception says what is wrong and what to do, and the process lives."""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

import structtoken

BIG = 10**30


@pytest.mark.parametrize("wrong", [BIG, -BIG, -1, 2**64, -(2**63)], ids=["10^30", "-10^30", "-1", "2^64", "-2^63"])
def test_numbers_that_no_parameter_takes(lab, model, wrong):
    image, labels = np.zeros([8, 8, 3], np.uint8), np.zeros([4, 4], np.uint8)
    data = structtoken.Dataset("shapes", set=["data.shapes.train=4", "data.augment.crop=[32,32]"])
    calls = [
        ("k is", lambda: structtoken.Metric(wrong)),
        ("ignore is", lambda: structtoken.Metric(3, ignore=wrong)),
        ("threads is", lambda: structtoken.Model.open(lab.model, threads=wrong)),
        ("cls is", lambda: structtoken.encode_rle(labels, wrong)),
        ("min_area is", lambda: structtoken.polygons(labels, min_area=wrong)),
        ("batch_size is", lambda: structtoken.Dataset("shapes", batch_size=wrong)),
        ("seed is", lambda: structtoken.Dataset("shapes", seed=wrong)),
        ("workers is", lambda: structtoken.Dataset("shapes", workers=wrong)),
        ("start is", lambda: data.batches(wrong)),
        ("label_issues is", lambda: structtoken.evaluate(lab.model, label_issues=wrong)),
        ("a side of `size` is", lambda: structtoken.decode_rle({"size": [wrong, 1], "counts": "0"})),
        ("a level of a colour is", lambda: structtoken.encode_png(labels, [(wrong, 0, 0)])),
    ]
    if wrong != -1:
        calls.append(("there are no tokens after block", lambda: model.tokens(image, wrong)))
        calls.append(("there is no sample", lambda: data.name(wrong)))
        with pytest.raises(IndexError):
            data[wrong]
    for says, call in calls:
        with pytest.raises(structtoken.InputError) as caught:
            call()
        assert says in caught.value.message and caught.value.hint.startswith("pass "), caught.value


def test_numbers_of_numpy_are_numbers(lab):
    for kind in [np.uint8, np.int64, np.uint64]:
        assert (structtoken.Metric(kind(3), ignore=kind(0)).k, structtoken.Metric(3, ignore=kind(0)).ignore) == (3, 0)
        assert structtoken.Model.open(lab.model, threads=kind(1)).classes
    for wrong in [1.5, "3", None, [3]]:
        with pytest.raises(TypeError):
            structtoken.Metric(wrong)


def test_arrays_beyond_memory_are_refused():
    huge = np.broadcast_to(np.zeros(1, int), 10**13)
    with pytest.raises(MemoryError) as caught:
        structtoken.Metric(2).update(huge, huge)
    assert isinstance(caught.value, structtoken.OutOfMemoryError) and "GB" in caught.value.message and caught.value.hint
    data = structtoken.Dataset("shapes", batch_size=1 << 16, set=["data.augment.crop=[8192,8192]"])
    with pytest.raises(structtoken.OutOfMemoryError, match="a batch of 65536"):
        iter(data)


SCARCE = """
import resource, sys
import numpy as np, structtoken

model = structtoken.Model.open(sys.argv[1], threads=1)
image = np.broadcast_to(np.zeros([1, 1, 3], np.uint8), [16000, 16000, 3])
calls = [
    lambda: model.predict(image),
    lambda: model.predict([image]),
    lambda: model.probabilities(image),
    lambda: structtoken.Metric(2).update(image, image),
    lambda: structtoken.Dataset("shapes", batch_size=999, set=["data.augment.crop=[999,999]"]).batches(),
]
resource.setrlimit(resource.RLIMIT_AS, (800_000_000, 800_000_000))
for call in calls:
    try:
        call()
        print("done")
    except MemoryError as error:
        print(type(error).__name__, "hint: " in str(error))
print(model.predict(image[:8, :8]).shape)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="limits its own memory")
def test_little_memory_ends_no_process(lab):
    done = subprocess.run([sys.executable, "-c", SCARCE, lab.model], capture_output=True, text=True, check=False, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    *found, last = done.stdout.splitlines()
    assert last == "(8, 8)" and found.count("OutOfMemoryError True") >= 4, done.stdout
    assert set(found) <= {"OutOfMemoryError True", "done"}


def test_what_is_no_image(model):
    image = np.zeros([8, 8, 3], np.uint8)
    for wrong in [(each for each in [image]), iter([image]), io.BytesIO(b"x"), bytearray(b"x"), memoryview(b"x"), {}, set(), object(), Image]:
        with pytest.raises(structtoken.InputTypeError) as caught:
            model.predict(wrong)
        assert caught.value.hint, wrong
    with pytest.raises(structtoken.Error, match="is a folder"):
        model.predict(os.curdir)
    for wrong in ["", "a\0b", "\udc80.png", os.devnull, b""]:
        with pytest.raises(structtoken.Error):
            model.predict(wrong)


def test_every_mode_of_pillow_is_taken_or_refused(model, lab, tmp_path):
    photo = Image.open(lab.folder / "photo.png")
    kept = 0
    for mode in ["1", "L", "P", "RGB", "RGBA", "CMYK", "YCbCr", "LA", "PA", "RGBX"]:
        picture = photo.convert("RGBA").convert("L").convert("LA") if mode == "LA" else None
        try:
            picture = picture or (photo.convert("P").convert("PA") if mode == "PA" else photo.convert(mode))
        except ValueError:
            continue
        labels = model.predict(picture)
        assert labels.shape == (48, 48)
        if mode in ("1", "L", "P", "RGB", "RGBA", "LA"):
            picture.save(tmp_path / f"{mode}.png")
            np.testing.assert_array_equal(labels, model.predict(tmp_path / f"{mode}.png"), err_msg=mode)
            kept += 1
    assert kept == 6
    for mode in ["I", "F", "I;16", "I;16B", "La"]:
        with pytest.raises(structtoken.InputError) as caught:
            model.predict(Image.new(mode, (8, 8)))
        assert f"`{mode}`" in caught.value.message and caught.value.hint


def test_pictures_of_pillow_that_cannot_be_read(model, lab):
    closed = Image.open(lab.folder / "photo.png")
    closed.close()
    whole = (lab.folder / "photo.png").read_bytes()
    for wrong in [closed, Image.open(io.BytesIO(whole[: len(whole) // 2])), Image.new("RGB", (0, 0))]:
        with pytest.raises(structtoken.InputError) as caught:
            model.predict(wrong)
        assert caught.value.hint
    assert model.predict(Image.open(lab.folder / "photo.png")).shape == (48, 48)

    class Own(Image.Image):
        pass

    own = Own()
    own.__dict__.update(Image.open(lab.folder / "photo.png").convert("RGB").__dict__)
    np.testing.assert_array_equal(model.predict(own), model.predict(lab.images[0]))


def test_files_of_16_bits_are_read_as_the_command_reads_them(model, lab, tmp_path):
    rng = np.random.default_rng(1)
    (tmp_path / "deep").mkdir()
    Image.fromarray(rng.integers(0, 1 << 16, [48, 48], dtype=np.uint16)).save(tmp_path / "deep" / "0.png")
    done = lab.command("predict", lab.model, tmp_path / "deep", "--out", tmp_path / "out")
    try:
        labels = model.predict(tmp_path / "deep" / "0.png")
    except structtoken.Error as error:
        assert done.returncode != 0 and error.message in done.stderr
    else:
        assert done.returncode == 0, done.stderr
        assert structtoken.encode_png(labels, model.palette) == (tmp_path / "out" / "0.png").read_bytes()


def test_what_others_raise_comes_through(model):
    class Path:
        def __fspath__(self):
            raise KeyError("no path")

    class Images(list):
        def __iter__(self):
            raise KeyError("no images")

    class Number:
        def __index__(self):
            raise KeyError("no number")

    class Array(np.ndarray):
        def copy(self, *_):
            return 3

    for call in [lambda: model.predict(Path()), lambda: model.predict(Images([1])), lambda: structtoken.Metric(Number())]:
        with pytest.raises(KeyError):
            call()
    unaligned = np.zeros(8 * 3 + 1, np.uint8)[1:].view("<i8").reshape(3).view(Array)
    assert structtoken.Metric(2).update(unaligned, unaligned).compute()["pixels"] == 3


def test_palettes_and_run_lengths(model):
    labels = np.array([[0, 1]], np.uint8)
    expected = structtoken.encode_png(labels, [(1, 2, 3), (4, 5, 6)])
    for same in [np.array([[1, 2, 3], [4, 5, 6]], np.uint8), ((1, 2, 3), [4, 5, 6]), np.array([[1, 2, 3], [4, 5, 6]])]:
        assert structtoken.encode_png(labels, same) == expected
    for wrong in [[(1, 2)], "abc", None, [(1.5, 0, 0)], [(0, 0, 0)] * 257, [(256, 0, 0)], 7]:
        with pytest.raises(structtoken.Error) as caught:
            structtoken.encode_png(labels, wrong)
        assert caught.value.hint, wrong
    rle = {"size": [2, 2], "counts": "0120"}
    for change in [{"size": [1, 2, 3]}, {"size": None}, {"size": "22"}, {"counts": [0, 1, 2, 1]}, {"counts": None}]:
        with pytest.raises(structtoken.Error) as caught:
            structtoken.decode_rle(rle | change)
        assert caught.value.hint, change
    for wrong in [[rle], None, {}, {"size": [2, 2]}]:
        with pytest.raises(structtoken.Error):
            structtoken.decode_rle(wrong)
    for size in [[2**40, 2**40], [0, 1], [16384, 16384]]:
        with pytest.raises(structtoken.Error):
            structtoken.decode_rle(rle | {"size": size})
    for tolerance in [float("nan"), float("inf"), -1]:
        with pytest.raises(structtoken.Error, match="tolerance"):
            structtoken.polygons(labels, tolerance=tolerance)
    for unnamed in [labels + 200, labels + 1]:
        with pytest.raises(structtoken.InputError, match="holds the class") as caught:
            structtoken.label_studio(unnamed, ["a", "b"][: 1 + (unnamed[0, 0] == 1)], "x.png")
        assert "Model.classes" in caught.value.hint
    assert structtoken.label_studio(labels * 255, ["a"], "x.png")["predictions"][0]["result"][0]["value"]["brushlabels"] == ["a"]


def test_labels_that_only_64_bits_hold_are_named():
    for kind, label in [(np.uint64, 2**64 - 1), (np.uint64, 2**63), (np.int64, -(2**63)), (np.uint16, 256)]:
        with pytest.raises(structtoken.InputError, match=f"the prediction holds the label {label} at"):
            structtoken.Metric(2, ignore=None).update(np.full([1], label, kind), np.zeros([1], kind))


def test_callbacks_that_cannot_be_called_are_refused_before_the_work(lab, tmp_path):
    calls = [
        lambda: structtoken.train(lab.recipe, tmp_path / "run", on_step=3),
        lambda: structtoken.train(lab.recipe, tmp_path / "run", on_evaluation="x"),
        lambda: structtoken.evaluate(lab.model, on_image=[]),
        lambda: structtoken.compare(lab.recipe, tmp_path / "run", on_line=3),
        lambda: structtoken.compare(lab.recipe, tmp_path / "run", decoders="cse"),
        lambda: structtoken.compare(lab.recipe, tmp_path / "run", set="train.iterations=1"),
    ]
    for call in calls:
        with pytest.raises(structtoken.InputTypeError) as caught:
            call()
        assert caught.value.hint
    assert not (tmp_path / "run").exists()
    with pytest.raises(structtoken.Error) as caught:
        structtoken.compare(lab.recipe, tmp_path / "run", seeds=-1)
    assert "seeds" in caught.value.message and "Usage" not in caught.value.message
    with pytest.raises(structtoken.Error, match="-x"):
        structtoken.compare("-x", tmp_path / "run")


def test_names_of_every_kind(lab, tmp_path):
    folder = tmp_path / "ß 日本 ' \" x"
    folder.mkdir()
    for name in ["model.safetensors", "photo.png", "recipe.toml"]:
        shutil.copy(lab.folder / name, folder / name)
    model = structtoken.Model.open(folder / "model.safetensors")
    assert model.predict(str(folder / "photo.png")).shape == (48, 48)
    run = structtoken.train(folder / "recipe.toml", folder / "run", set=["train.iterations=1", "train.eval_every=1"])
    assert structtoken.evaluate(run["model"], set=["data.shapes.val=1"])["images"] == 1
    found = structtoken.compare(folder / "recipe.toml", folder / "c", decoders=["fcn"], seeds=1, iterations=1, evaluations=1)
    assert [entry["decoder"] for entry in found["decoders"]] == ["fcn"]


def test_a_folder_or_a_file_where_the_other_belongs(lab, tmp_path):
    calls = [
        lambda: structtoken.Model.open(tmp_path),
        lambda: structtoken.Model.open(""),
        lambda: structtoken.train(tmp_path, tmp_path / "x"),
        lambda: structtoken.train(lab.recipe, lab.folder / "photo.png"),
        lambda: structtoken.evaluate(tmp_path),
        lambda: structtoken.evaluate(lab.model, tmp_path),
        lambda: structtoken.Dataset(tmp_path),
        lambda: structtoken.compare(None, tmp_path / "none"),
        lambda: structtoken.Model.open(lab.model, device="tpu"),
        lambda: structtoken.Model.open(lab.model, set=["eval.nothing=1"]),
    ]
    for call in calls:
        with pytest.raises(structtoken.Error):
            call()
