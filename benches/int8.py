"""The peer of docs/performance.md's section on eight bits: OpenVINO on the same network, quantized by NNCF.

    pip install onnx openvino nncf numpy pillow
    python benches/int8.py exported.onnx --threads 2
    python benches/int8.py exported.onnx --threads 2 --calibrate train/images --images val/images --masks val/masks --classes 11

`exported.onnx` is any network with one image as its input, such as `structtoken export MODEL -o exported.onnx` writes. Times are those
of one image, medians in milliseconds, of the file as it is in f32 and of the quantized one. It is calibrated on random images, which
does not change the time, or on every fourth image of --calibrate.

With --images, --masks and --calibrate also what eight bits cost: mIoU of either, and the share of pixels with the label of f32. Images
are padded on the right and below to the size of the file (profile `default`), and labels cut off again. Masks hold class indices; larger
values are ignored.
"""

import argparse
import json
import statistics
import time
from pathlib import Path

import nncf
import numpy as np
import openvino as ov
from PIL import Image


def median(compiled, feed, count):
    for _ in range(2):
        compiled([feed])
    times = []
    for _ in range(count):
        begin = time.perf_counter()
        compiled([feed])
        times.append(1e3 * (time.perf_counter() - begin))
    return round(statistics.median(times), 1)


def padded(path, shape):
    """The image in a file as one of the network's [1, h, w, 3], and its own height and width."""
    image = np.asarray(Image.open(path).convert("RGB"))
    height, width = image.shape[:2]
    if height > shape[1] or width > shape[2]:
        raise SystemExit(f"{path} has {height} x {width} pixels, and the file takes {shape[1]} x {shape[2]}")
    whole = np.empty(shape, np.uint8)
    whole[:] = (124, 116, 104)  # about zero once it is normalised
    whole[0, :height, :width] = image
    return whole, (height, width)


def labels(compiled, images, shape):
    for path in images:
        whole, (height, width) = padded(path, shape)
        yield compiled([whole])[0][0, :height, :width].copy()


def miou(maps, masks, classes):
    counts = np.zeros((classes, classes), np.int64)
    for found, path in zip(maps, masks):
        truth = np.asarray(Image.open(path))
        known = truth < classes
        counts += np.bincount(truth[known].astype(int) * classes + found[known], minlength=classes**2).reshape(classes, classes)
    union = counts.sum(0) + counts.sum(1) - counts.diagonal()
    return float(np.mean(counts.diagonal()[union > 0] / union[union > 0]))


def files(folder):
    return sorted(path for path in Path(folder).iterdir() if path.is_file())


def main():
    parse = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parse.add_argument("model")
    parse.add_argument("--threads", type=int, default=2)
    parse.add_argument("-n", type=int, default=7)
    parse.add_argument("--calibrate", metavar="DIR", help="images that it is calibrated on")
    parse.add_argument("--images", metavar="DIR")
    parse.add_argument("--masks", metavar="DIR")
    parse.add_argument("--classes", type=int)
    args = parse.parse_args()
    if args.images and not (args.masks and args.classes and args.calibrate):
        parse.error("--images goes with --masks, --classes and --calibrate")
    if args.images and [path.stem for path in files(args.images)] != [path.stem for path in files(args.masks)]:
        parse.error("--images and --masks hold files of other names")
    core = ov.Core()
    whole = core.read_model(args.model)
    shape = [side if side > 0 else 1 for side in (int(d.get_length()) if d.is_static else 1 for d in whole.input(0).partial_shape)]
    kind = whole.input(0).get_element_type().to_dtype()
    if args.calibrate and (kind != np.uint8 or len(shape) != 4 or shape[3] != 3):
        parse.error("images are given as bytes [1, h, w, 3]: export with --profile default")
    rng = np.random.default_rng(0)
    random = [(rng.integers(0, 256, shape)).astype(kind) if kind == np.uint8 else rng.standard_normal(shape).astype(kind) for _ in range(8)]
    images = [padded(path, shape)[0] for path in files(args.calibrate)[::4]] if args.calibrate else random
    small = nncf.quantize(whole, nncf.Dataset(images), model_type=nncf.ModelType.TRANSFORMER, subset_size=len(images))
    own = None
    options = {"INFERENCE_NUM_THREADS": args.threads}
    for name, model, precision in [("f32", whole, "f32"), ("int8", small, "f32"), ("int8 and bf16", small, "bf16")]:
        compiled = core.compile_model(model, "CPU", {**options, "INFERENCE_PRECISION_HINT": precision})
        found = {"peer": "openvino " + ov.__version__.split("-")[0], "precision": name, "shape": shape}
        found["median_ms"] = median(compiled, random[0], args.n)
        if args.images:
            maps = list(labels(compiled, files(args.images), shape))
            own = maps if own is None else own
            same = sum(int((a == b).sum()) for a, b in zip(maps, own)) / sum(a.size for a in maps)
            found |= {"miou": miou(maps, files(args.masks), args.classes), "same_labels_as_f32": same}
        print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main()
