"""The package as it is installed."""

from __future__ import annotations

import ast
import doctest
import importlib.metadata
import importlib.resources
import inspect
import subprocess
import sys

import numpy as np
import pytest

import structtoken
from conftest import ROOT
from structtoken import _native


def documented():
    for name in structtoken.__all__:
        if not name.startswith("_"):
            yield name, getattr(structtoken, name)


def test_everything_has_a_docstring():
    for name, found in documented():
        assert (found.__doc__ or "").strip(), name
        for member, value in vars(found).items() if isinstance(found, type) else []:
            if not member.startswith("_") and callable(getattr(found, member)):
                assert (value.__doc__ or getattr(found, member).__doc__ or "").strip(), f"{name}.{member}"


def examples():
    finder = doctest.DocTestFinder(recurse=False)
    for name, found in [("structtoken", structtoken), *documented()]:
        yield from finder.find(found, name, module=False, globs={})
        for member in vars(found) if isinstance(found, type) else []:
            if not member.startswith("_") and callable(getattr(found, member)):
                yield from finder.find(getattr(found, member), f"{name}.{member}", module=False, globs={})


@pytest.mark.parametrize("test", [test for test in examples() if test.examples], ids=lambda test: test.name)
def test_examples_of_docstrings(test, lab, tmp_path, monkeypatch):
    for name in ["model.safetensors", "photo.png", "recipe.toml"]:
        (tmp_path / name).write_bytes((lab.folder / name).read_bytes())
    monkeypatch.chdir(tmp_path)
    runner = doctest.DocTestRunner(verbose=False)
    failures: list[str] = []
    runner.run(test, out=failures.append, clear_globs=False)
    assert not failures, "".join(failures)


def test_all_that_is_public_has_an_example():
    with_examples = {test.name for test in examples() if test.examples}
    for name in ["Model", "Model.open", "Model.predict", "Model.probabilities", "Model.tokens", "Metric", "Dataset"]:
        assert name in with_examples, name
    for name in ["encode_rle", "decode_rle", "encode_png", "polygons", "label_studio", "train", "evaluate", "compare", "Error"]:
        assert name in with_examples, name


def test_the_command_is_the_programs(lab):
    version = lab.command("--version")
    assert (version.returncode, version.stdout) == (0, f"structtoken {structtoken.__version__}\n")
    assert lab.command("predict").returncode == 2
    wrong = lab.command("predict", "none.safetensors", "photo.png")
    assert wrong.returncode == 1 and wrong.stderr.startswith("error: ") and not wrong.stdout
    models = lab.command("models")
    assert models.returncode == 0 and models.stdout.startswith("@nuclei  ")
    named = lab.command("predict", "@nucleus", "photo.png")
    assert named.returncode == 1 and "did you mean `@nuclei`?" in named.stderr
    module = subprocess.run([sys.executable, "-m", "structtoken", "--version"], capture_output=True, text=True, check=True)
    assert module.stdout == version.stdout


def test_a_model_comes_with_the_package():
    rows, columns = np.mgrid[:192, :256]
    discs = (rows % 64 - 32) ** 2 + (columns % 64 - 32) ** 2 < 196
    photo = np.where(discs, 170, 12).astype(np.uint8)[..., None].repeat(3, 2)
    model = structtoken.Model.open("@nuclei", threads=1)
    assert model.classes == ["background", "nucleus"]
    found = model.predict(photo) == 1
    assert (found & discs).sum() > 0.7 * (found | discs).sum()


def test_the_demo_runs_where_the_wheel_is_installed(lab, tmp_path):
    few = ["--set", "train.iterations=4", "--set", "train.eval_every=4"]
    done = lab.command("demo", "--out", tmp_path / "demo", *few, cwd=tmp_path)
    assert done.returncode == 0 and "mIoU" in done.stdout, done.stderr
    assert (tmp_path / "demo" / "report.html").stat().st_size > 0
    assert structtoken.Model.open(tmp_path / "demo" / "model.safetensors").predict(lab.images[0]).shape == (48, 48)


def test_several_runs_start_this_program_again(lab, tmp_path):
    few = ["--set", "train.iterations=1", "--set", "train.eval_every=1"]
    done = lab.command("train", lab.recipe, "--seeds", "2", "--out", tmp_path / "seeds", *few)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "seeds" / "summary.md").exists()


def test_it_is_typed_and_needs_numpy_alone():
    files = importlib.resources.files("structtoken")
    assert (files / "py.typed").is_file() and (files / "_native.pyi").is_file()
    for name in ["LICENSE-APACHE", "LICENSE-MIT"]:
        text = (ROOT / name).read_text()
        assert (ROOT / "bindings" / "python" / name).read_text() == text
        [found] = [file for file in importlib.metadata.files("structtoken") if file.name == name]
        assert found.read_text() == text
    text = "import structtoken, sys; print(*sorted({name.split('.')[0] for name in sys.modules}))"
    loaded = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, check=True).stdout.split()
    assert not {"torch", "numpy", "PIL"} & set(loaded), loaded


def test_the_stubs_name_what_is_there():
    stub = (importlib.resources.files("structtoken") / "_native.pyi").read_text()
    for name, found in documented():
        if getattr(found, "__module__", "").endswith(("_errors", "_compare")):
            continue
        assert f"class {name}" in stub or f"def {name}(" in stub, name
        for member in vars(found) if isinstance(found, type) else []:
            if not member.startswith("_"):
                assert f"def {member}(" in stub, f"{name}.{member}"


def test_the_stubs_name_what_the_module_has():
    stub = ast.parse((importlib.resources.files("structtoken") / "_native.pyi").read_text())
    [names] = [node.value for node in stub.body if isinstance(node, ast.Assign) and node.targets[0].id == "__all__"]
    assert sorted(ast.literal_eval(names)) == sorted(_native.__all__)


def functions(body, of):
    """The functions of a stub beside those of the package; overloads and properties are left out."""
    for node in body:
        if isinstance(node, ast.ClassDef) and hasattr(of, node.name):
            yield from functions(node.body, getattr(of, node.name))
        elif isinstance(node, ast.FunctionDef) and not node.name.startswith("__") and hasattr(of, node.name):
            names = {getattr(decorator, "id", None) for decorator in node.decorator_list}
            if not names & {"overload", "property"}:
                yield node, getattr(of, node.name)


def test_the_stubs_have_the_parameters_and_what_they_are_unless_stated():
    stub = ast.parse((importlib.resources.files("structtoken") / "_native.pyi").read_text())
    compared = 0
    for node, found in functions(stub.body, structtoken):
        arguments = node.args
        given = [argument.arg for argument in [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]]
        defaults = [ast.literal_eval(default) for default in [*arguments.defaults, *arguments.kw_defaults] if default]
        parameters = inspect.signature(found).parameters.values()
        assert [name for name in given if name != "self"] == [each.name for each in parameters if each.name != "self"], node.name
        assert defaults == [each.default for each in parameters if each.default is not inspect.Parameter.empty], node.name
        compared += 1
    assert compared >= 10
