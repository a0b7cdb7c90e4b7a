#!/usr/bin/env python3
"""Checks ONNX files with other programs: the format's own checker, ONNX Runtime and OpenVINO.

    STRUCTTOKEN_EXPORT_FOLDER=$PWD/onnx-files cargo test --release --features full --test it -- export::
    python scripts/onnx_check.py onnx-files [--table table.md]

Beside NAME.onnx lie NAME.input.npy, three images, and NAME.output.npy, what the model itself says of them. Each file is run on
all three at once and on the first alone. Fails where labels differ in more than 1 of 1000 pixels of these small images, or
scores by more than 1e-3 of the largest.

Needs onnx, onnxruntime, openvino and numpy; ran with the versions that .ci/onnx.txt names.
"""

import argparse
import pathlib
import sys

import numpy
import onnx
import onnxruntime
import openvino

LABELS = 1e-3
SCORES = 1e-3


def run_onnxruntime(path):
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda images: session.run(None, {name: images})[0]


def run_openvino(path):
    core = openvino.Core()
    # Without it, newer processors compute in bf16.
    compiled = core.compile_model(core.read_model(path), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return lambda images: compiled([images])[compiled.output(0)]


ENGINES = {"ONNX Runtime": run_onnxruntime, "OpenVINO": run_openvino}


def compare(given, own):
    """The largest difference, as a share of the largest value, and the share of equal labels."""
    if given.shape != own.shape or given.dtype != own.dtype:
        raise ValueError(f"{given.dtype} {given.shape} instead of {own.dtype} {own.shape}")
    if own.dtype == numpy.uint8:
        return None, float((given == own).mean())
    difference = numpy.abs(given - own).max() / numpy.abs(own).max()
    return float(difference), float((given.argmax(1) == own.argmax(1)).mean())


def check(path):
    """Lines of the table, and what is wrong."""
    model = onnx.load(path)
    onnx.checker.check_model(model, full_check=True)
    images = numpy.load(path.with_suffix(".input.npy"))
    own = numpy.load(path.with_suffix(".output.npy"))
    lines, wrong = [], []
    for engine, start in ENGINES.items():
        try:
            run = start(path)
            results = [compare(run(images), own), compare(run(images[:1]), own[:1])]
        except Exception as error:  # whatever the engine says of the file
            wrong.append(f"{path.name}: {engine}: {str(error).splitlines()[0]}")
            continue
        differences = [difference for difference, _ in results if difference is not None]
        difference = max(differences, default=None)
        labels = min(same for _, same in results)
        if not labels >= 1 - LABELS or (difference is not None and not difference <= SCORES):
            wrong.append(f"{path.name}: {engine}: difference {difference}, same labels {labels}")
        lines.append((path.stem.rsplit("-", 1)[0], engine, difference, labels))
    return lines, wrong


def table(lines):
    """The worst of all files of a model, a row each."""
    columns = "".join(f" {engine}: difference | same labels |" for engine in ENGINES)
    rows = [f"| model |{columns}", "|---|" + "---|---|" * len(ENGINES)]
    for model in sorted({line[0] for line in lines}):
        cells = [model.replace("_", " on ")]
        for engine in ENGINES:
            own = [line for line in lines if line[:2] == (model, engine)]
            cells.append(f"{max(line[2] or 0 for line in own):.1e}")
            cells.append(f"{min(line[3] for line in own) * 100:.3f} %")
        rows.append("| " + " | ".join(cells) + " |")
    return "\n".join(rows) + "\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("--table", type=pathlib.Path, help="also write the results as a table")
    arguments = parser.parse_args()
    files = sorted(arguments.folder.glob("*.onnx"))
    if not files:
        sys.exit(f"no ONNX file in {arguments.folder}")
    lines, wrong = [], []
    for path in files:
        try:
            found, faults = check(path)
        except Exception as error:  # the checker's verdict
            found, faults = [], [f"{path.name}: {str(error).splitlines()[0]}"]
        lines += found
        wrong += faults
    print(f"{len(files)} files, {len(lines)} runs, {len(wrong)} faults")
    if arguments.table:
        arguments.table.write_text(table(lines))
    if wrong:
        sys.exit("\n".join(wrong))


if __name__ == "__main__":
    main()
