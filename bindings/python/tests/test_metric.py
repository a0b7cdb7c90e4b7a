"""Counts are exact, and scores those of torchmetrics and mmsegmentation."""

from __future__ import annotations

import pickle

import numpy as np
import pytest

import structtoken


def mmseg(pred: np.ndarray, true: np.ndarray, k: int, ignore: int | None) -> dict[str, np.ndarray]:
    """What mmsegmentation's `intersect_and_union` and `total_area_to_metrics` do."""
    keep = np.ones(true.shape, bool) if ignore is None else true != ignore
    pred, true = pred[keep], true[keep]
    areas = lambda values: np.histogram(values, bins=k, range=(0, k - 1))[0] if k > 1 else np.array([len(values)])  # noqa: E731
    intersect, predicted, label = areas(pred[pred == true]), areas(pred), areas(true)
    with np.errstate(all="ignore"):
        return {
            "iou": intersect / (predicted + label - intersect),
            "acc": intersect / label,
            "dice": 2 * intersect / (predicted + label),
            "aacc": intersect.sum() / label.sum(),
        }


def cases(count: int):
    """Random pairs, many of them with classes that are absent, ignored or never predicted."""
    rng = np.random.default_rng(3)
    for _ in range(count):
        k = int(rng.integers(1, 9))
        shape = tuple(rng.integers(1, 9, size=rng.integers(1, 4)))
        low = int(rng.integers(0, k))
        true = rng.integers(low, k, shape)
        pred = rng.integers(0, int(rng.integers(1, k + 1)), shape)
        if rng.random() < 0.6:
            true = np.where(rng.random(shape) < rng.choice([0.1, 0.5, 1.0]), 255, true)
        yield pred, true, k


def as_array(values) -> np.ndarray:
    return np.array([np.nan if value is None else value for value in values])


def test_scores_are_those_of_mmsegmentation():
    for pred, true, k in cases(1000):
        found = structtoken.Metric(k).update(pred, true).compute()
        expected = mmseg(pred, true, k, 255)
        for name in ["iou", "acc", "dice"]:
            np.testing.assert_allclose(as_array(found[name]), expected[name], rtol=1e-12)
        if (true == 255).all():
            assert found["miou"] is None and found["aacc"] is None and found["pixels"] == 0
            continue
        for name, of in [("miou", "iou"), ("macc", "acc"), ("mdice", "dice")]:
            np.testing.assert_allclose(found[name], np.nanmean(expected[of]), rtol=1e-12)
        np.testing.assert_allclose(found["aacc"], expected["aacc"], rtol=1e-12)
        assert found["matrix"].dtype == np.uint64 and found["matrix"].sum() == found["pixels"]
        assert found["pixels"] + found["ignored"] == true.size


def test_scores_are_those_of_torchmetrics():
    torch = pytest.importorskip("torch")
    metrics = pytest.importorskip("torchmetrics.functional.classification")
    compared = 0
    for pred, true, k in cases(1500):
        # Of one class, or of nothing, torchmetrics computes no scores.
        if k < 2 or (true == 255).all():
            continue
        compared += 1
        found = structtoken.Metric(k).update(pred, true).compute()
        given = (torch.from_numpy(pred), torch.from_numpy(true), k)
        options = {"ignore_index": 255}
        for average, name in [("macro", "miou"), (None, "iou")]:
            theirs = metrics.multiclass_jaccard_index(*given, average=average, **options).numpy()
            ours = found[name] if name == "miou" else np.nan_to_num(as_array(found[name]))
            np.testing.assert_allclose(ours, theirs, atol=1e-6)
        for average, name in [("macro", "mdice"), (None, "dice")]:
            theirs = metrics.multiclass_f1_score(*given, average=average, **options).numpy()
            ours = found[name] if name == "mdice" else np.nan_to_num(as_array(found[name]))
            np.testing.assert_allclose(ours, theirs, atol=1e-6)
        theirs = metrics.multiclass_confusion_matrix(*given, **options).numpy()
        np.testing.assert_array_equal(found["matrix"], theirs)
        theirs = metrics.multiclass_accuracy(*given, average="micro", **options).numpy()
        np.testing.assert_allclose(found["aacc"], theirs, atol=1e-6)
    assert compared >= 1000


def test_the_order_of_updates_and_merges_changes_nothing():
    rng = np.random.default_rng(5)
    pairs = [(rng.integers(0, 4, [5, 7]), rng.integers(0, 4, [5, 7])) for _ in range(12)]
    whole = structtoken.Metric(4)
    for pred, true in pairs:
        whole.update(pred, true)
    parts = [structtoken.Metric(4) for _ in range(3)]
    for at in rng.permutation(12):
        parts[at % 3].update(*pairs[at])
    merged = pickle.loads(pickle.dumps(parts[2])).merge(parts[0]).merge(parts[1])
    assert merged == whole and merged != parts[0]
    np.testing.assert_array_equal(merged.matrix, whole.matrix)
    twice = pickle.loads(pickle.dumps(whole))
    np.testing.assert_array_equal(twice.merge(twice).matrix, 2 * whole.matrix)


def test_an_ignored_class_counts_nowhere_in_the_truth():
    pred, true = np.array([0, 1, 1, 0]), np.array([0, 0, 1, 1])
    found = structtoken.Metric(2, ignore=0).update(pred, true).compute()
    assert found["matrix"].tolist() == [[0, 0], [1, 1]] and found["ignored"] == 2
    np.testing.assert_allclose(as_array(found["iou"]), mmseg(pred, true, 2, 0)["iou"])
    assert structtoken.Metric(2, ignore=None).update(pred, true).compute()["pixels"] == 4


def test_any_whole_numbers_are_counted():
    pred, true = np.array([[0, 1, 1]]), np.array([[0, 1, 0]])
    expected = structtoken.Metric(2).update(pred, true)
    for kind in ["bool", "uint8", "int8", "uint16", "int16", "int32", "uint32", "int64", "uint64"]:
        assert structtoken.Metric(2).update(pred.astype(kind), true.astype(kind)) == expected
    unaligned = np.frombuffer(b"\0" + pred.astype("<i8").tobytes(), np.uint8)[1:].view("<i8").reshape(1, 3)
    assert not unaligned.flags.aligned and structtoken.Metric(2).update(unaligned, true) == expected
    assert structtoken.Metric(2).update(pred[:, ::-1], true[:, ::-1]) == expected
    assert structtoken.Metric(2).update(np.zeros([0], int), np.zeros([0], int)) == structtoken.Metric(2)


def test_faults_count_nothing():
    metric = structtoken.Metric(2)
    good = np.zeros([2, 2], int)
    faults = [
        (good, np.zeros([2, 3], int), structtoken.InputError, "shape"),
        (good, good + 2, structtoken.InputError, "the truth holds the label 2 at [0, 0]"),
        (np.array([[0, 0], [0, 5]]), good, structtoken.InputError, "the prediction holds the label 5 at [1, 1]"),
        (good - 1, good, structtoken.InputError, "-1"),
        (good + 255, good, structtoken.InputError, "255"),
        (np.full([2, 2], 2**64 - 1, np.uint64), good, structtoken.InputError, "label"),
        (good * 1.0, good, structtoken.InputTypeError, "float64"),
        (good, [[0, 0], [0, 0]], structtoken.InputTypeError, "list"),
        (good.astype(">i8"), good, structtoken.InputTypeError, ">i8"),
    ]
    for pred, true, kind, says in faults:
        with pytest.raises(kind) as caught:
            metric.update(pred, true)
        assert says in str(caught.value) and caught.value.hint, caught.value
    assert metric == structtoken.Metric(2) and metric.compute()["miou"] is None
    for other in [structtoken.Metric(3), structtoken.Metric(2, ignore=None)]:
        with pytest.raises(structtoken.InputError):
            metric.merge(other)
    with pytest.raises(structtoken.InputTypeError):
        metric.merge({})
    for arguments in [(0,), (256,), (-1,), (2, 256), (2, -1)]:
        with pytest.raises(structtoken.InputError):
            structtoken.Metric(*arguments)
    assert repr(structtoken.Metric(3, ignore=None)) == "Metric(k=3, ignore=None)"
