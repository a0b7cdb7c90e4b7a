"""Threads, forks, signals and the end of the interpreter."""

from __future__ import annotations

import gc
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

import structtoken

ONE = ["train.iterations=1", "train.eval_every=1"]
forks = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
ignore_fork_warning = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")


def together(*works) -> None:
    threads = [threading.Thread(target=work) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def in_child(work) -> bytes:
    """What `work` returns in a process that was forked from this one."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.write(write, work())
        except BaseException as error:
            os.write(write, repr(error).encode())
        finally:
            os._exit(0)
    os.close(write)
    with os.fdopen(read, "rb") as found:
        text = found.read()
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    return text


def test_callbacks_may_use_what_calls_them(lab, tmp_path):
    # One thread: were it shared with the callback's, each would wait for the other.
    model, seen = structtoken.Model.open(lab.model, threads=1), []
    structtoken.train(
        lab.recipe, tmp_path / "a", set=ONE, threads=1, on_step=lambda _: seen.append(model.predict(lab.images[0]).shape)
    )
    structtoken.train(
        lab.recipe,
        tmp_path / "b",
        set=ONE,
        threads=1,
        on_step=lambda _: seen.append(structtoken.train(lab.recipe, tmp_path / "c", set=ONE, threads=1)["iteration"]),
    )
    structtoken.evaluate(lab.model, threads=1, on_image=lambda *_: seen.append(len(model.predict([lab.images[0]] * 2))))
    assert seen == [(48, 48), 1, 2, 2, 2, 2]


def test_several_runs_and_models_at_once(lab, tmp_path):
    one, two = structtoken.Model.open(lab.model, threads=1), structtoken.Model.open(lab.model, threads=2, set=["eval.flip=true"])
    expected = {model: model.probabilities(lab.images[0]) for model in (one, two)}
    wrong, bytes_of = [], []

    def labels(model):
        for _ in range(5):
            if not np.array_equal(model.probabilities(lab.images[0]), expected[model]):
                wrong.append(model)

    def trains(name):
        run = structtoken.train(lab.recipe, tmp_path / name, set=ONE, threads=1)
        bytes_of.append(Path(run["model"]).read_bytes())

    together(*[lambda model=model: labels(model) for model in (one, two)] * 2, *[lambda name=name: trains(name) for name in "ab"])
    assert not wrong and bytes_of[0] == bytes_of[1]


def test_a_folder_holds_one_run_at_a_time(lab, tmp_path):
    raised = []

    def again(_):
        try:
            structtoken.train(lab.recipe, tmp_path / "run", set=ONE)
        except structtoken.Error as error:
            raised.append(error)

    structtoken.train(lab.recipe, tmp_path / "run", set=ONE, on_step=again)
    assert len(raised) == 1


def test_a_metric_is_used_by_several_threads_whatever_is_collected():
    class Ends:
        """Lives in a cycle, so that its end comes at any allocation, and lets other threads run."""

        def __init__(self):
            self.own = self

        def __del__(self):
            threading.Event().wait(1e-5)

    metric, x, raised = structtoken.Metric(50), np.zeros([4], int), []

    def work():
        try:
            for _ in range(100):
                Ends()
                metric.update(x, x)
                metric.compute()
                assert metric == metric and metric.merge(structtoken.Metric(50)) is metric
        except BaseException as error:
            raised.append(error)

    before = gc.get_threshold()
    gc.set_threshold(1)
    try:
        together(*[work] * 4)
    finally:
        gc.set_threshold(*before)
    assert not raised and metric.compute()["pixels"] == 4 * 100 * 4


@forks
@ignore_fork_warning
def test_batches_belong_to_the_process_that_asked_for_them():
    data = structtoken.Dataset("shapes", batch_size=2, set=["data.augment.crop=[32,32]", "data.shapes.train=10"])
    batches = iter(data)
    next(batches)

    def inherited():
        nonlocal batches
        try:
            next(batches)
        except structtoken.InputError as error:
            del batches
            return error.message.encode()
        return b"no error"

    assert b"another process" in in_child(inherited)
    first = in_child(lambda: next(iter(data))["images"].tobytes())
    assert first == next(iter(data))["images"].tobytes()
    next(batches)


@forks
@ignore_fork_warning
def test_a_forked_process_does_all_that_its_parent_did(lab, tmp_path):
    def work() -> bytes:
        model = structtoken.Model.open(lab.model)
        labels = model.predict([lab.images[0], lab.folder / "photo.png"])[1]
        scores = structtoken.evaluate(lab.model, set=["data.shapes.val=2"])["miou"]
        run = structtoken.train(lab.recipe, tmp_path / f"run-{os.getpid()}", set=ONE)
        return json.dumps([structtoken.encode_rle(labels), len(structtoken.polygons(labels)), scores, run["iteration"]]).encode()

    assert in_child(work) == work()


@forks
@ignore_fork_warning
@pytest.mark.parametrize("method", ["fork", "forkserver", "spawn"])
def test_pools_of_processes_take_a_model(lab, model, method):
    expected = [model.predict(image) for image in lab.images]
    with multiprocessing.get_context(method).Pool(2) as pool:
        for found, labels in zip(pool.map(model.predict, lab.images), expected, strict=True):
            np.testing.assert_array_equal(found, labels)


AT_THE_END = """
import sys, threading, structtoken

model, started = structtoken.Model.open(sys.argv[1]), threading.Event()

def labels():
    while True:
        model.predict([sys.argv[2]] * 3)
        started.set()

def trains():
    structtoken.train(sys.argv[3], sys.argv[4], set=["train.iterations=100000"], on_step=lambda _: began.set())

began = threading.Event()
for work in [labels, labels, trains]:
    threading.Thread(target=work, daemon=True).start()
started.wait()
began.wait()
print("bye")
"""


def test_the_interpreter_ends_while_threads_work(lab, tmp_path):
    words = [sys.executable, "-c", AT_THE_END, lab.model, lab.folder / "photo.png", lab.recipe, tmp_path / "run"]
    done = subprocess.run([str(word) for word in words], capture_output=True, text=True, check=False, timeout=600)
    assert (done.returncode, done.stdout) == (0, "bye\n"), done.stderr


@pytest.mark.skipif(os.name != "posix", reason="sends signals")
def test_ctrl_c_ends_a_list_of_predictions(lab):
    script = (
        "import os, signal, sys, threading, structtoken\n"
        "model = structtoken.Model.open(sys.argv[1], threads=1)\n"
        "class Photos(list):\n"
        "    def __iter__(self):\n"
        "        threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT)).start()\n"
        "        return super().__iter__()\n"
        "try:\n"
        "    model.predict(Photos([sys.argv[2]] * 1_000_000))\n"
        "except KeyboardInterrupt:\n"
        "    print('interrupted')\n"
    )
    words = [sys.executable, "-c", script, lab.model, lab.folder / "photo.png"]
    done = subprocess.run([str(word) for word in words], capture_output=True, text=True, check=False, timeout=600)
    assert done.stdout == "interrupted\n", done.stderr


@pytest.mark.skipif(os.name != "posix", reason="sends signals")
@pytest.mark.parametrize("call", ["structtoken.polygons", "functools.partial(structtoken.label_studio, classes=list('abcd'), image='x')"])
def test_ctrl_c_is_heard_between_the_elements_of_an_answer(call):
    # Python looks for signals after an instruction of its own: `map` has none, so that only the function itself can.
    script = (
        "import functools, itertools, os, signal, threading\n"
        "import numpy, structtoken\n"
        "noise, found = numpy.random.default_rng(0).integers(0, 4, [256, 256], dtype=numpy.uint8), []\n"
        "threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT)).start()\n"
        "try:\n"
        f"    found.extend(map({call}, itertools.repeat(noise, 1000)))\n"
        "except KeyboardInterrupt:\n"
        "    print(len(found) < 1000)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False, timeout=600)
    assert done.stdout == "True\n", done.stderr


FAILING_POOLS = """
import resource, sys, threading, structtoken

structtoken.Model.open(sys.argv[1], threads=1)
go, found, opened = threading.Event(), [], []

def work(at):
    go.wait()
    for _ in range(30):
        try:
            opened.append(structtoken.Model.open(sys.argv[1], threads=900 + at))
        except MemoryError as error:
            found.append(error)
        except structtoken.Error as error:
            found.append(error)

sys.setswitchinterval(1e-6)
threads = [threading.Thread(target=work, args=[at]) for at in range(4)]
for thread in threads:
    thread.start()
used = int(open("/proc/self/statm").read().split()[0]) * 4096
resource.setrlimit(resource.RLIMIT_AS, (used + (1500 << 20),) * 2)
go.set()
for thread in threads:
    thread.join()
print(len(found) + len(opened), any("threads" in str(error) for error in found))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="limits its own memory")
def test_threads_that_cannot_be_started_stop_no_others(lab):
    words = [sys.executable, "-c", FAILING_POOLS, lab.model]
    done = subprocess.run([str(word) for word in words], capture_output=True, text=True, check=False, timeout=600)
    assert done.stdout == "120 True\n", done.stdout + done.stderr


def test_others_run_while_an_array_is_put_in_order():
    # Only what gives the interpreter's lock away lets the other thread run; the update ends before it counts anything.
    pred = np.asfortranarray(np.zeros([2048, 2048], np.uint8))
    true = pred.copy(order="F")
    true[-1, -1] = 7
    interval = sys.getswitchinterval()
    for _ in range(1000):
        go, ran = threading.Event(), []
        other = threading.Thread(target=lambda: (go.wait(), ran.append(True)))
        other.start()
        sys.setswitchinterval(1000)
        try:
            go.set()
            with pytest.raises(structtoken.InputError):
                structtoken.Metric(2).update(pred, true)
            seen = bool(ran)
        finally:
            sys.setswitchinterval(interval)
        other.join()
        if seen:
            return
    raise AssertionError("the lock is held all the time")


@pytest.mark.skipif(os.name != "posix", reason="sends signals")
def test_ctrl_c_saves_a_comparison(lab, tmp_path):
    seen = []

    def on_line(line):
        # As the terminal does, to the process that waits for the comparison, once the first training has begun.
        if not seen and line.startswith("fcn-s0"):
            seen.append(line)
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        structtoken.compare(
            lab.recipe, tmp_path / "c", decoders=["fcn", "cse"], seeds=1, iterations=40, evaluations=1, on_line=on_line
        )
    assert seen
    found = structtoken.compare(None, tmp_path / "c")
    assert sorted(entry["decoder"] for entry in found["decoders"]) == ["cse", "fcn"]
