"""Labels are those of the command, from whatever an image comes in."""

from __future__ import annotations

import copy
import gc
import os
import pickle
import threading
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import structtoken


def test_masks_are_the_commands_bytes(lab, model, tmp_path):
    for image, expected in zip(lab.images, lab.masks(tmp_path / "out"), strict=True):
        labels = model.predict(image)
        assert labels.dtype == np.uint8 and labels.shape == image.shape[:2]
        assert structtoken.encode_png(labels, model.palette) == expected


def test_every_form_of_an_image_gives_the_same(lab, model):
    image, path = lab.images[0], lab.folder / "photo.png"
    expected = model.predict(image)
    assert len(np.unique(expected)) > 1, "the model tells classes apart"
    for form in [str(path), path, path.read_bytes(), Image.open(path), Image.open(path).convert("RGBA")]:
        np.testing.assert_array_equal(model.predict(form), expected)
    several = model.predict([image, str(path), Image.open(path), path.read_bytes()])
    assert isinstance(several, list) and len(several) == 4
    for labels in several:
        np.testing.assert_array_equal(labels, expected)
    assert model.predict([]) == [] and len(model.predict((image,))) == 1


def test_strides_and_flags_change_nothing(lab, model):
    image = lab.images[4]
    expected = model.predict(image)
    read_only = image.copy()
    read_only.flags.writeable = False
    wide = np.zeros([74, 61, 6], np.uint8)
    wide[::2, :, ::2] = image
    for same in [
        np.asfortranarray(image),
        read_only,
        wide[::2, :, ::2],
        image[::-1][::-1],
        image[..., ::-1].copy()[..., ::-1],
        image.transpose(1, 0, 2).copy().transpose(1, 0, 2),
    ]:
        np.testing.assert_array_equal(model.predict(same), expected)


def test_exif_turns_a_picture_as_the_command_does(lab, model, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    path = tmp_path / "turned.png"
    Image.fromarray(lab.images[4]).save(path, exif=exif)
    by_path = model.predict(path)
    assert by_path.shape == (61, 37)
    np.testing.assert_array_equal(model.predict(Image.open(path)), by_path)


def test_wrong_arrays_are_refused_with_a_hint(model):
    good = np.zeros([8, 8, 3], np.uint8)
    faults = [
        (good.astype(np.float32), structtoken.InputTypeError, "float32"),
        (good.astype(np.int64), structtoken.InputTypeError, "int64"),
        (good.astype(object), structtoken.InputTypeError, "object"),
        (good[..., 0], structtoken.InputError, "[8, 8]"),
        (good[..., :2], structtoken.InputError, "[8, 8, 2]"),
        (np.zeros([8, 8, 4], np.uint8), structtoken.InputError, "[8, 8, 4]"),
        (good.transpose(2, 0, 1), structtoken.InputError, "[3, 8, 8]"),
        (good[None], structtoken.InputError, "[1, 8, 8, 3]"),
        (good[:0], structtoken.InputError, "0 x 8"),
        (np.zeros([], np.uint8), structtoken.InputError, "[]"),
        (np.broadcast_to(np.zeros([1, 1, 3], np.uint8), [1 << 15, 1 << 15, 3]), structtoken.InputError, "tiles"),
        (None, structtoken.InputTypeError, "NoneType"),
        (7, structtoken.InputTypeError, "int"),
        ([[good]], structtoken.InputTypeError, "list"),
        ([good, None], structtoken.InputTypeError, "NoneType"),
        (Image.new("I;16", (4, 4)), structtoken.InputError, "I;16"),
    ]
    for wrong, kind, says in faults:
        with pytest.raises(kind) as caught:
            model.predict(wrong)
        assert says in str(caught.value) and caught.value.hint, caught.value
        assert isinstance(caught.value, structtoken.Error)


def test_faults_of_files_are_exceptions_with_a_hint(lab, model, tmp_path):
    with pytest.raises(FileNotFoundError) as caught:
        model.predict("nowhere.png")
    assert isinstance(caught.value, structtoken.NotFoundError) and "nowhere.png" in caught.value.message
    with pytest.raises(structtoken.Error):
        model.predict(b"not a picture")
    (tmp_path / "a.png").write_bytes(b"not a picture")
    with pytest.raises(structtoken.Error, match=r"a\.png"):
        model.predict(tmp_path / "a.png")
    with pytest.raises(structtoken.Error) as caught:
        structtoken.Model.open(lab.folder / "photo.png")
    assert "photo.png" in str(caught.value)
    with pytest.raises(structtoken.Error) as caught:
        structtoken.Model.open("@nucleus")
    assert "there is no model" in str(caught.value) and "@nuclei" in caught.value.hint
    again = pickle.loads(pickle.dumps(caught.value))
    assert (type(again), str(again), again.hint) == (type(caught.value), str(caught.value), caught.value.hint)
    for wrong in [0, 5000]:
        with pytest.raises(structtoken.InputError, match="threads"):
            structtoken.Model.open(lab.model, threads=wrong)


def test_probabilities_and_tokens(lab, model):
    image = lab.images[0]
    k = len(model.classes)
    probabilities = model.probabilities(image)
    assert probabilities.dtype == np.float32 and probabilities.shape == (k, 48, 48)
    np.testing.assert_allclose(probabilities.sum(0), 1, atol=1e-5)
    np.testing.assert_array_equal(probabilities.argmax(0), model.predict(image))
    blocks = [model.tokens(image, block) for block in range(3)]
    assert all(tokens.shape == blocks[0].shape and tokens.shape[0] == k for tokens in blocks)
    np.testing.assert_array_equal(model.tokens(image), blocks[2])
    np.testing.assert_array_equal(model.tokens(image, -3), blocks[0])
    np.testing.assert_array_equal(model.tokens(lab.images[1], 0), blocks[0])
    assert not np.array_equal(blocks[1], blocks[2])
    for wrong in [3, -4]:
        with pytest.raises(structtoken.InputError, match="no tokens after block"):
            model.tokens(image, wrong)


def test_what_a_model_says_of_itself(lab, model):
    assert len(model.classes) == len(model.palette) == 6 and model.classes[0] == "background"
    assert all(len(color) == 3 for color in model.palette)
    assert "classes=6" in repr(model)
    flipped = structtoken.Model.open(lab.model, set=["eval.flip=true"])
    assert not np.array_equal(flipped.probabilities(lab.images[0]), model.probabilities(lab.images[0]))


def test_a_model_is_pickled_by_its_path(lab, tmp_path, monkeypatch):
    monkeypatch.chdir(lab.folder)
    model = structtoken.Model.open("model.safetensors", threads=1)
    assert repr(model) == "Model('model.safetensors', classes=6)"
    kept = pickle.dumps(model)
    monkeypatch.chdir(tmp_path)
    # Where it was opened counts, and not where it is pickled.
    for again in [pickle.loads(kept), pickle.loads(pickle.dumps(model)), copy.copy(model), copy.deepcopy(model)]:
        np.testing.assert_array_equal(again.predict(lab.images[0]), model.predict(lab.images[0]))


def test_a_model_of_the_package_is_pickled_by_its_name(tmp_path, monkeypatch):
    for given in ["@nuclei", Path("@nuclei")]:
        model = structtoken.Model.open(given, threads=1, set=["eval.flip=true"])
        monkeypatch.chdir(tmp_path)
        image = np.zeros([8, 8, 3], np.uint8)
        for again in [pickle.loads(pickle.dumps(model)), copy.copy(model), copy.deepcopy(model)]:
            assert repr(again) == repr(model) == "Model('@nuclei', classes=2)"
            np.testing.assert_array_equal(again.probabilities(image), model.probabilities(image))
    (tmp_path / "@nuclei").write_bytes(b"")
    with pytest.raises(structtoken.Error, match="empty"):
        structtoken.Model.open("@nuclei")


def test_threads_share_a_model(lab, model):
    expected = [model.predict(image) for image in lab.images]
    found: dict[int, np.ndarray] = {}

    def work(at: int) -> None:
        found[at] = model.predict(lab.images[at % len(lab.images)])

    threads = [threading.Thread(target=work, args=(at,)) for at in range(18)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 18
    for at, labels in found.items():
        np.testing.assert_array_equal(labels, expected[at % len(expected)])


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_process_predicts(lab, model):
    expected = model.predict(lab.images[0])
    child = os.fork()
    if child == 0:
        same = np.array_equal(model.predict(lab.images[0]), expected)
        os._exit(0 if same else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def resident_mb() -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS")) / 1000


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs /proc")
def test_memory_is_flat_over_many_predictions(lab, model):
    def many(count: int) -> float:
        for at in range(count):
            model.predict(lab.images[at % len(lab.images)])
            if at % 50 == 0:
                model.probabilities(lab.images[0])
        gc.collect()
        return resident_mb()

    before = many(200)
    after = many(1000)
    print(f"memory after 200 predictions {before:.1f} MB, after 1200 {after:.1f} MB")
    # 1000 label maps are 2.3 MB, 1000 images 6.9 MB; pages that the allocator has not yet used come and go.
    assert after - before < 4, (before, after)
