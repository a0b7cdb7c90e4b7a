#!/usr/bin/env python3
"""CPU time of ONNX files in ONNX Runtime and OpenVINO: python3 scripts/onnx_time.py FILE…

    structtoken export runs/x/model.safetensors -o ours --profile hf
    python scripts/onnx_time.py ours/onnx/model.onnx torch.onnx

Files are run in turn, on one image of noise each, by one thread; what counts is the time that the process used, so that other programs hardly
matter. OpenVINO computes in f32.

Needs onnxruntime, openvino and numpy; ran with the versions that .ci/onnx.txt names.
"""

import argparse
import statistics
import time

import numpy
import onnxruntime
import openvino


def noise(shape, whole):
    rng = numpy.random.default_rng(0)
    return rng.integers(0, 255, shape, dtype=numpy.uint8) if whole else rng.standard_normal(shape, dtype=numpy.float32)


def in_onnxruntime(path):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    taken = session.get_inputs()[0]
    image = noise([side if isinstance(side, int) else 1 for side in taken.shape], taken.type == "tensor(uint8)")
    return lambda: session.run(None, {taken.name: image})


def in_openvino(path):
    core = openvino.Core()
    model = core.read_model(path)
    settings = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1}
    compiled = core.compile_model(model, "CPU", settings)
    taken = model.inputs[0]
    shape = [side.get_length() if side.is_static else 1 for side in taken.partial_shape]
    image = noise(shape, taken.element_type.get_type_name() == "u8")
    return lambda: compiled([image])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="+")
    parser.add_argument("--runs", type=int, default=5)
    arguments = parser.parse_args()
    for engine, load in {"ONNX Runtime": in_onnxruntime, "OpenVINO": in_openvino}.items():
        runs = [load(path) for path in arguments.files]
        spent = [[] for _ in runs]
        for _ in range(1 + arguments.runs):
            for run, times in zip(runs, spent):
                began = time.process_time()
                run()
                times.append(1e3 * (time.process_time() - began))
        for path, times in zip(arguments.files, spent):
            times = times[1:]  # the first run prepares
            print(f"{engine}  {path}  median {statistics.median(times):.0f} ms, {min(times):.0f} to {max(times):.0f}", flush=True)


if __name__ == "__main__":
    main()
