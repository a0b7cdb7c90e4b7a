"""Several decoders trained on one budget, each run in a process of its own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from . import _native
from ._errors import Error, InputTypeError


def compare(
    recipe: str | os.PathLike[str] | None,
    out: str | os.PathLike[str],
    *,
    decoders: Sequence[str] = (),
    seeds: int | None = None,
    budget: str | None = None,
    iterations: int | None = None,
    evaluations: int | None = None,
    set: Sequence[str] = (),
    threads: int | None = None,
    device: str = "auto",
    on_line: Callable[[str], None] | None = None,
) -> dict[str, Any]:
    """Trains a recipe with several decoders and seeds, and says which is better.

    Every run is a process of its own, as by ``structtoken compare``. Runs of ``out`` that are finished are not made again; with
    ``recipe=None`` the comparison in ``out`` is continued.

    Parameters
    ----------
    recipe : path of a recipe, a TOML file
    out : folder of the comparison
    decoders : names such as "cse", "pwe"; all without it
    seeds : seeds per decoder
    budget : training time per run, such as "90s" or "20m"; or ``iterations`` per run
    evaluations : evaluations per run during training
    set : changes of the recipe, such as "train.batch_size=4"
    threads : CPU threads; one per core without it
    on_line : called with every line that is reported. What it raises stops the comparison; what was done is kept.

    Returns
    -------
    What ``compare.json`` holds: scores with their intervals, and the differences between decoders.

    Raises
    ------
    Error : a run failed, or the recipe cannot be used.
    NotFoundError : the recipe, its dataset, or the comparison to continue is not there.
    InputTypeError : something else where a list of texts belongs, a path that is none, or an ``on_line`` that cannot be called.
    KeyboardInterrupt : Ctrl-C. The runs have saved; call it again to continue.

    >>> import structtoken
    >>> found = structtoken.compare("recipe.toml", "comparison", decoders=["fcn", "cse"], seeds=1, iterations=2, evaluations=1)
    >>> sorted(entry["decoder"] for entry in found["decoders"])
    ['cse', 'fcn']
    """
    decoders = _names("decoders", decoders)
    set = _names("set", set)
    if on_line is not None and not callable(on_line):
        raise InputTypeError(f"on_line of type {type(on_line).__name__}", "pass a function, or leave it out")
    _native.check_comparison(recipe, out, set, device)
    # Whatever a value begins with, it is no option of its own.
    command = [sys.executable, "-m", "structtoken", "compare", f"--out={os.fspath(out)}", f"--device={device}"]
    if decoders:
        command.append(f"--decoders={','.join(decoders)}")
    options = {
        "--seeds": seeds,
        "--budget": budget,
        "--iterations": iterations,
        "--evaluations": evaluations,
        "--threads": threads,
    }
    for option, value in options.items():
        if value is not None:
            command.append(f"{option}={value}")
    command += [f"--set={change}" for change in set]
    if recipe is not None:
        command += ["--", os.fspath(recipe)]
    lines = _run(command, on_line)
    if lines is not None:
        raise _failed(lines)
    found: dict[str, Any] = json.loads((Path(out) / "compare.json").read_text(encoding="utf-8"))
    return found


def _names(what: str, texts: Any) -> list[str]:
    """The texts of a list."""
    if isinstance(texts, str):
        raise InputTypeError(f"{what} of type str", f"pass a list: {what}=[{texts!r}]")
    example = {"decoders": 'decoders=["cse", "pwe"]', "set": 'set=["train.batch_size=4"]'}[what]
    if isinstance(texts, (bytes, dict)) or not isinstance(texts, Iterable):
        raise InputTypeError(f"{what} of type {type(texts).__name__}", f"pass a list of str, {example}")
    found = list(texts)
    for at, text in enumerate(found):
        if not isinstance(text, str):
            raise InputTypeError(f"{what}[{at}] of type {type(text).__name__}", f"pass a list of str, {example}")
    return found


def _run(command: list[str], on_line: Callable[[str], None] | None) -> list[str] | None:
    """The last lines of a command that failed; None of one that did not."""
    lines: list[str] = []
    # In a session of its own: the terminal tells this process alone of Ctrl-C, and it passes that on, once.
    with subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        encoding="utf-8",
        errors="replace",
        start_new_session=True,
    ) as process:
        assert process.stderr is not None
        try:
            for line in process.stderr:
                line = line.rstrip("\n")
                lines = [*lines[-200:], line]
                if on_line is not None:
                    on_line(line)
            code = process.wait()
        except BaseException:
            # It saves; a second signal would end it at once.
            process.send_signal(signal.SIGINT if os.name == "posix" else signal.SIGTERM)
            process.stderr.close()
            process.wait()
            raise
    if code == 130:
        raise KeyboardInterrupt
    return lines if code else None


def _failed(lines: list[str]) -> Error:
    text = "\n".join(lines)
    _, found, after = text.rpartition("error: ")
    message, _, hint = after.partition("\n\nhint: ")
    # What the command adds of its own use is of no use here.
    message = message.partition("\n\nUsage:")[0].partition("\n\nFor more information")[0]
    if not found:
        return Error(f"the comparison failed: {text.strip() or 'it reported nothing'}")
    return Error(message.strip(), _native.in_python(hint.strip()) or None)
