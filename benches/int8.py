"""The peer of docs/performance.md's section on eight bits: OpenVINO on the same network, quantized by NNCF.

    pip install torch onnx onnxruntime openvino nncf
    python benches/int8.py exported.onnx --threads 2

`exported.onnx` is any network with one image as its input, such as `structtoken export MODEL -o exported.onnx` writes. Times are those
of one image, medians in milliseconds, of the file as it is in f32 and of the quantized one. It is calibrated on random images, which
does not change the time.
"""

import argparse
import json
import statistics
import time

import nncf
import numpy as np
import openvino as ov


def median(compiled, feed, count):
    for _ in range(2):
        compiled([feed])
    times = []
    for _ in range(count):
        begin = time.perf_counter()
        compiled([feed])
        times.append(1e3 * (time.perf_counter() - begin))
    return round(statistics.median(times), 1)


def main():
    parse = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parse.add_argument("model")
    parse.add_argument("--threads", type=int, default=2)
    parse.add_argument("-n", type=int, default=7)
    args = parse.parse_args()
    core = ov.Core()
    whole = core.read_model(args.model)
    shape = [side if side > 0 else 1 for side in (int(d.get_length()) if d.is_static else 1 for d in whole.input(0).partial_shape)]
    kind = whole.input(0).get_element_type().to_dtype()
    rng = np.random.default_rng(0)
    images = [(rng.integers(0, 256, shape)).astype(kind) if kind == np.uint8 else rng.standard_normal(shape).astype(kind) for _ in range(8)]
    small = nncf.quantize(whole, nncf.Dataset(images), model_type=nncf.ModelType.TRANSFORMER, subset_size=len(images))
    options = {"INFERENCE_NUM_THREADS": args.threads}
    for name, model, precision in [("f32", whole, "f32"), ("int8", small, "f32"), ("int8 and bf16", small, "bf16")]:
        compiled = core.compile_model(model, "CPU", {**options, "INFERENCE_PRECISION_HINT": precision})
        print(json.dumps({"peer": "openvino " + ov.__version__.split("-")[0], "precision": name, "shape": shape, "median_ms": median(compiled, images[0], args.n)}), flush=True)


if __name__ == "__main__":
    main()
