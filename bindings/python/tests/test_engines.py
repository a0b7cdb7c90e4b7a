"""Ray, Dask and Spark: the command's bytes, one model per worker, its threads, and nothing lost with a worker that is killed.

Each is skipped where its engine is not installed. Other tools are in test_examples.py.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import shutil
import subprocess
import sys

import pytest

from conftest import EXAMPLES, example

# Every process of an engine reads this when it starts: it notes which process opens a model, with how many threads, and ends the first
# one that has labelled something, without a word.
WATCH = '''
import os, signal, structtoken

opened, log, kill = structtoken.Model.open, os.environ["WATCH_LOG"], os.environ.get("WATCH_KILL")


class Watched:
    def __init__(self, model):
        self.model = model

    def __getattr__(self, name):
        return getattr(self.model, name)

    def predict(self, image):
        found = self.model.predict(image)
        if kill:
            try:
                os.close(os.open(kill, os.O_CREAT | os.O_EXCL))
            except FileExistsError:
                return found
            os.kill(os.getpid(), signal.SIGKILL)
        return found


class Model:
    @staticmethod
    def open(path, **options):
        with open(log, "a") as lines:
            lines.write(f"{os.getpid()} {options.get('threads')}\\n")
        return Watched(opened(path, **options))


structtoken.Model = Model
'''

# The example, what it needs, and its arguments after the folders: two processors, and so many threads for each model.
ENGINES = {
    "ray": ("ray_data", ["ray"], lambda threads: [2 // threads, threads]),
    "dask": ("dask_bag", ["dask", "distributed"], lambda threads: [2 // threads, threads]),
    "spark": ("spark_pandas", ["pyspark", "pandas", "pyarrow"], lambda threads: [2, threads]),
}


def installed(engine: str) -> None:
    for needs in ENGINES[engine][1]:
        if importlib.util.find_spec(needs) is None:
            pytest.skip(f"needs {needs}")
    if engine == "spark" and shutil.which("java") is None:
        pytest.skip("needs a Java runtime")


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("killed", [False, True], ids=["all-live", "one-is-killed"])
def test_engines_write_the_commands_bytes(lab, tmp_path, engine, killed):
    installed(engine)
    name, _, arguments = ENGINES[engine]
    threads = 1 if killed else 2
    (tmp_path / "watch").mkdir()
    (tmp_path / "watch" / "sitecustomize.py").write_text(WATCH)
    environment = os.environ | {"PYTHONPATH": f"{tmp_path / 'watch'}", "WATCH_LOG": f"{tmp_path / 'log'}"}
    if killed:
        environment["WATCH_KILL"] = f"{tmp_path / 'killed'}"
    words = [sys.executable, EXAMPLES / f"{name}.py", lab.model, lab.photos, tmp_path / "out", *arguments(threads)]
    done = subprocess.run([str(word) for word in words], env=environment, capture_output=True, text=True, check=False, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    found = [(tmp_path / "out" / f"{at}.png").read_bytes() for at in range(len(lab.images))]
    assert found == lab.masks(tmp_path / "expected")
    assert len(list((tmp_path / "out").iterdir())) == len(found)
    opened = [line.split() for line in (tmp_path / "log").read_text().splitlines()]
    processes = [process for process, _ in opened]
    assert len(set(processes)) == len(processes), "a worker has opened the model more than once"
    assert {count for _, count in opened} == {f"{threads}"}
    assert (tmp_path / "killed").exists() == killed and (not killed or len(processes) > 1)


def rows_of_ray(lab, given):
    ray = importlib.import_module("ray")
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    try:
        rows = ray.data.from_items([{"bytes": image, "at": at, "name": name} for at, (name, image) in enumerate(given)])
        found = example("ray_data").label(rows, str(lab.model)).take_all()
    finally:
        ray.shutdown()
    assert {"bytes", "at", "name", "mask"} == set(found[0])
    return [(row["name"], row["bytes"], row["mask"]) for row in sorted(found, key=lambda row: row["at"])]


def rows_of_dask(lab, given):
    bag, distributed = importlib.import_module("dask.bag"), importlib.import_module("distributed")
    with distributed.Client(n_workers=1, threads_per_worker=2, dashboard_address=None) as client:
        return example("dask_bag").label(bag.from_sequence(given, npartitions=3), str(lab.model), client).compute()


def rows_of_spark(lab, given):
    module = example("spark_pandas")
    spark = module.session(2, 1)
    try:
        rows = spark.createDataFrame([(name, bytearray(image)) for name, image in given], "name string, content binary")
        found = module.label(rows, str(lab.model))
        assert found.columns == ["name", "content", "mask"] and found.schema.fields[:2] == rows.schema.fields
        return [(row["name"], bytes(row["content"]), bytes(row["mask"])) for row in found.collect()]
    finally:
        spark.stop()


@pytest.mark.parametrize("engine", ENGINES)
def test_rows_stay_as_they_were(lab, tmp_path, engine, monkeypatch):
    installed(engine)
    monkeypatch.setenv("PYTHONPATH", str(EXAMPLES))
    given = [(f"photo {at}", (lab.photos / f"{at}.png").read_bytes()) for at in range(len(lab.images))]
    found = {"ray": rows_of_ray, "dask": rows_of_dask, "spark": rows_of_spark}[engine](lab, given)
    assert [(name, image) for name, image, _ in found] == given
    assert [mask for *_, mask in found] == lab.masks(tmp_path / "expected")
