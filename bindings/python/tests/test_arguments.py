"""What is passed in the wrong form is refused with words that fit it."""

from __future__ import annotations

import errno
import os
import pickle

import numpy as np
import pytest
from PIL import Image

import structtoken
from structtoken import _native

IMAGE = np.zeros([8, 8, 3], np.uint8)
LABELS = np.zeros([4, 4], np.uint8)


def refused(call, kind=structtoken.InputTypeError):
    with pytest.raises(kind) as caught:
        call()
    # Of a file that is not there its name may say all.
    assert caught.value.hint or isinstance(caught.value, structtoken.NotFoundError), caught.value
    return caught.value


def test_a_text_is_no_list_of_texts(lab, tmp_path):
    change = "train.iterations=1"
    functions = [
        lambda given: structtoken.Model(lab.model, set=given),
        lambda given: structtoken.Model.open(lab.model, set=given),
        lambda given: structtoken.Dataset("shapes", set=given),
        lambda given: structtoken.train(lab.recipe, tmp_path / "run", set=given),
        lambda given: structtoken.evaluate(lab.model, set=given),
        lambda given: structtoken.compare(lab.recipe, tmp_path / "run", set=given),
    ]
    for call in functions:
        error = refused(lambda: call(change))
        assert (error.message, error.hint) == ("set of type str", f"pass a list: set=['{change}']")
        assert refused(lambda: call([change, 3])).message == "set[1] of type int"
        for wrong in [3, None]:
            assert refused(lambda: call(wrong)).message == f"set of type {type(wrong).__name__}"
    assert "decoders[0] of type int" in refused(lambda: structtoken.compare(lab.recipe, tmp_path / "run", decoders=[3])).message
    assert "decoders of type" in refused(lambda: structtoken.compare(lab.recipe, tmp_path / "run", decoders=3)).message
    assert not (tmp_path / "run").exists()
    error = refused(lambda: structtoken.label_studio(LABELS, "ab", "a.png"))
    assert (error.message, error.hint) == ("classes of type str", "pass a list: classes=['ab']")
    assert structtoken.Model.open(lab.model, set=("eval.flip=true",)).classes


def test_what_is_wrong_in_a_list_is_named(model, lab):
    photo = lab.folder / "photo.png"
    for wrong, kind, says in [
        (IMAGE.astype(float), structtoken.InputTypeError, "image [1] of the list: an image of dtype float64"),
        ("nowhere.png", structtoken.NotFoundError, "image [1] of the list: cannot open `nowhere.png`"),
        (b"\x89PNG\r\n", structtoken.Error, "image [1] of the list: "),
        (Image.new("F", (4, 4)), structtoken.InputError, "image [1] of the list: an image of Pillow's mode `F`"),
    ]:
        error = refused(lambda: model.predict([photo, wrong, photo]), kind)
        assert error.message.startswith(says) and str(error).startswith(says) and error.args[0] == error.message
    with pytest.raises(KeyError):

        class Path:
            def __fspath__(self):
                raise KeyError("no path")

        model.predict([Path()])


def test_one_image_where_one_is_taken(model):
    for method in ["probabilities", "tokens"]:
        error = refused(lambda: getattr(model, method)([IMAGE]))
        assert method in error.message and f"[model.{method}(image) for image in images]" in error.hint


def test_masks_of_arrays_are_not_dropped(model):
    hidden = np.ma.masked_array(LABELS, LABELS == 0)
    for call in [
        structtoken.encode_rle,
        structtoken.polygons,
        lambda labels: structtoken.label_studio(labels, ["a"], "a.png"),
        lambda labels: structtoken.encode_png(labels, [(0, 0, 0)]),
    ]:
        error = refused(lambda: call(hidden))
        assert "masked" in error.message and ".filled(255)" in error.hint
    assert ".filled(0)" in refused(lambda: model.predict(np.ma.masked_array(IMAGE, IMAGE == 0))).hint
    for ignore, number in [(255, 255), (7, 7), (None, 255)]:
        metric = structtoken.Metric(2, ignore=ignore)
        for pred, true in [(hidden, LABELS), (LABELS, hidden)]:
            error = refused(lambda: metric.update(pred, true))
            assert f"true.filled({number})" in error.hint and ("ignore=255" in error.hint) == (ignore is None)
    assert metric == structtoken.Metric(2, ignore=None)
    filled = np.ma.masked_array([0, 1], [False, True]).filled(255)
    assert structtoken.Metric(2).update(np.array([0, 0]), filled).compute()["ignored"] == 1


def test_hints_fit_the_dtype(model):
    images = {
        "bool": '* 255',
        "int64": 'array.astype("uint8")',
        "int16": 'array.astype("uint8")',
        "uint32": 'array.astype("uint8")',
        "uint16": "// 257",
        "float32": "(255 * array).round()",
        "float16": "(255 * array).round()",
        "object": "pass uint8",
        "U1": "pass uint8",
    }
    for dtype, says in images.items():
        error = refused(lambda: model.predict(IMAGE.astype(dtype)))
        assert says in error.hint, (dtype, error)
        assert ("255 * array" in error.hint) == dtype.startswith("float")
    for dtype, says in {"int64": '.astype("uint8")', "float32": ".argmax(axis)", "object": "pass class indices"}.items():
        assert says in refused(lambda: structtoken.polygons(LABELS.astype(dtype))).hint
    for dtype, says in {"float32": ".argmax(axis)", ">i4": "byte order", "object": "whole numbers"}.items():
        assert says in refused(lambda: structtoken.Metric(2).update(LABELS.astype(dtype), LABELS)).hint
    # What the hints say works.
    assert model.predict((255 * IMAGE.astype(float)).round().astype("uint8")).shape == (8, 8)
    assert model.predict(IMAGE.astype(bool).astype("uint8") * 255).shape == (8, 8)
    error = refused(lambda: model.predict(Image.new("F", (8, 8))), structtoken.InputError)
    assert "numpy.asarray(image)" in error.hint and "path" not in error.hint


def test_paths_are_texts(model, lab, tmp_path):
    class OfBytes:
        def __fspath__(self):
            return b"photo.png"

    for wrong in [b"photo.png", b"/data/photos/1.jpg", OfBytes()]:
        assert "os.fsdecode(b'" in refused(lambda: model.predict(wrong)).hint
    calls = [
        lambda: structtoken.Model.open(os.fsencode(lab.model)),
        lambda: structtoken.evaluate(os.fsencode(lab.model)),
        lambda: structtoken.evaluate(lab.model, b"photos"),
        lambda: structtoken.Dataset(b"shapes"),
        lambda: structtoken.Dataset(recipe=b"recipe.toml"),
        lambda: structtoken.train(b"recipe.toml", tmp_path / "run"),
        lambda: structtoken.train(lab.recipe, b"run"),
        lambda: structtoken.compare(b"recipe.toml", tmp_path / "run"),
        lambda: structtoken.compare(lab.recipe, b"run"),
        lambda: structtoken.Model.open(3),
        lambda: structtoken.Model.open(None),
    ]
    for call in calls:
        error = refused(call)
        assert "a path of type" in error.message and "os.PathLike" in error.hint


def test_what_is_not_there_is_a_file_that_is_not_found(lab, model, tmp_path):
    gone = tmp_path / "gone.safetensors"
    gone.write_bytes(lab.model.read_bytes())
    kept = pickle.dumps(structtoken.Model.open(gone))
    gone.unlink()
    toml = tmp_path / "set.toml"
    split = '\n[train]\nimages = "images"\nmasks = "masks"\n'
    toml.write_text('name = "a"\nclasses = ["a"]\n' + split)
    lists = tmp_path / "lists.toml"
    lists.write_text('name = "a"\nclasses = ["a"]\n' + split + 'list = "all.txt"\n')
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(lab.recipe.read_text().replace('dataset = "shapes"', 'dataset = "gone.toml"'))
    nowhere = str(tmp_path / "nowhere")
    calls = [
        (lambda: model.predict(f"{nowhere}.png"), f"{nowhere}.png"),
        (lambda: structtoken.Model.open(f"{nowhere}.safetensors"), f"{nowhere}.safetensors"),
        (lambda: structtoken.Model.open("@nucleus"), "@nucleus"),
        (lambda: pickle.loads(kept), str(gone)),
        (lambda: structtoken.evaluate(nowhere), nowhere),
        (lambda: structtoken.evaluate(lab.model, nowhere), nowhere),
        (lambda: structtoken.evaluate(lab.model, f"{nowhere}.toml"), f"{nowhere}.toml"),
        (lambda: structtoken.Dataset(nowhere), nowhere),
        (lambda: structtoken.Dataset("ade20"), "ade20"),
        (lambda: structtoken.Dataset(f"{nowhere}.toml"), f"{nowhere}.toml"),
        (lambda: structtoken.Dataset(recipe=nowhere), nowhere),
        (lambda: structtoken.Dataset(toml), str(tmp_path / "images")),
        (lambda: structtoken.Dataset(lists), str(tmp_path / "all.txt")),
        (lambda: structtoken.train(nowhere, tmp_path / "run"), nowhere),
        (lambda: structtoken.train(recipe, tmp_path / "run"), "gone.toml"),
        (lambda: structtoken.train(lab.recipe, tmp_path / "run", set=[f"train.pretrained={nowhere}.pth"]), f"{nowhere}.pth"),
        (lambda: structtoken.train(None, nowhere, resume=True), f"{nowhere}/config.toml"),
        (lambda: structtoken.compare(nowhere, tmp_path / "c"), nowhere),
        (lambda: structtoken.compare(recipe, tmp_path / "c"), "gone.toml"),
        (lambda: structtoken.compare(None, nowhere), nowhere),
    ]
    for call, filename in calls:
        error = refused(call, FileNotFoundError)
        assert isinstance(error, structtoken.NotFoundError)
        assert (error.errno, error.filename) == (errno.ENOENT, filename), error
        again = pickle.loads(pickle.dumps(error))
        assert (str(again), again.hint, again.errno, again.filename) == (str(error), error.hint, error.errno, error.filename)
    alone = structtoken.NotFoundError("there is none")
    assert (str(alone), alone.filename, pickle.loads(pickle.dumps(alone)).message) == ("there is none", None, "there is none")


def test_hints_are_in_words_of_python(lab, model, tmp_path):
    for said, here in {
        "use `--device cpu`": 'use `device="cpu"`',
        "wait, or choose another folder with --out": "wait, or choose another folder with `out`",
        "start it without --resume, or pass the right folder with --out": "start it without `resume=True`, or pass the right folder with `out`",
        "for instance `--set train.iterations=1000` or `--set a.b=cse`": 'for instance `set=["train.iterations=1000"]` or `set=["a.b=cse"]`',
        "hold out: --set 'data.fold={index=0,of=4}'": 'hold out: set=["data.fold={index=0,of=4}"]',
        "name one: `--decoders cse,pwe --seeds 3`": 'name one: `decoders=["cse", "pwe"], seeds=3`',
        "for instance `--budget 20m` or `--iterations 1000`": 'for instance `budget="20m"` or `iterations=1000`',
        "or use fewer --threads": "or use fewer `threads`",
        "it was: structtoken data init 'a b' --names c,d --out o.toml, and then --data o.toml": (
            "it was: structtoken data init 'a b' --names c,d --out o.toml, and then data=\"o.toml\""
        ),
        "use `eval RECIPE --weights FILE --set a=b` or `--device cpu`": 'use `eval RECIPE --weights FILE --set a=b` or `device="cpu"`',
        "`structtoken models` lists them; see --set": "`structtoken models` lists them; see `set`",
        "nothing -- at all": "nothing -- at all",
        "": "",
    }.items():
        assert _native.in_python(said) == here
    faults = [
        (lambda: structtoken.Model.open(lab.model, device="cuda"), 'device="cpu"'),
        (lambda: structtoken.train(lab.recipe, tmp_path / "run", device="cuda:0"), 'device="cpu"'),
        (lambda: structtoken.evaluate(lab.model, device="cuda:0"), 'device="cpu"'),
        (lambda: structtoken.compare(lab.recipe, tmp_path / "c", device="cuda:0"), 'device="cpu"'),
        (lambda: structtoken.Model.open(lab.model, device="cpu:1"), 'device="cpu:0"'),
        (lambda: structtoken.Model.open(lab.model, set=["eval"]), 'set=["train.iterations=1000"]'),
        (lambda: structtoken.train(None, tmp_path / "none", resume=True), "with `out`"),
        (lambda: structtoken.compare(lab.recipe, tmp_path / "c", seeds=1000), "seeds=3"),
    ]
    for call, says in faults:
        error = refused(call, structtoken.Error)
        assert says in error.hint and "--" not in error.hint and "cargo" not in error.hint, error
    # Names of files stay as they are.
    with pytest.raises(structtoken.Error, match="`--set a=b.png`"):
        model.predict("--set a=b.png")
