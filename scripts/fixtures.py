"""Writes tests/fixtures/golden: the reference's numbers, reduced to what the tests need.

    python scripts/fixtures.py GOLDEN WEIGHTS       # numpy; made with numpy 2.4.6

GOLDEN is the folder of all numbers, 51 MB, which has the same layout; WEIGHTS the file of DINOv2 ViT-S/14. Both lie outside of
the repository (CONTRIBUTING.md). A second run writes the same bytes.

A tensor of a reduced file is one of these; tests/it/golden.rs reads them:
- *filled*: a parameter that is a function of its name. Only its shape is kept, under `filled` in the metadata, and its factor
  under `scaled` where it has one.
- *hashed*: an input or a label map that is a function of another name: `hashed` in the metadata has name, kind and shape.
- *sampled*: more than WHOLE values. One value of each of SAMPLES equal parts is kept, of tensors of more than LARGE values
  of each of LARGE_SAMPLES; where in its part, a hash of the tensor's name says. `sampled` in the metadata has the shape and the
  largest absolute value, by which differences are judged.
- *whole*: everything else, as it was.

That filled and hashed tensors are what their name gives is checked to the last bit before they are left out. Of weight files
that PyTorch wrote, all bytes but the tensors' are kept, compressed, with the places to put these.
"""

import gzip
import hashlib
import json
import math
import re
import sys
from pathlib import Path

import numpy as np

from values import uniform

WHOLE, SAMPLES = 128, 96
LARGE, LARGE_SAMPLES = 8192, 640
CLASSES = 7
TO = Path(__file__).parent.parent / "tests/fixtures/golden"
DTYPES = {"F32": "<f4", "F16": "<f2", "I32": "<i4", "I64": "<i8", "U8": "u1"}

# Written byte for byte: small, and compared pixel by pixel.
COPIED = [f"structtoken/pipeline/{name}.safetensors" for name in ("interpolate", "metrics", "pipeline")]
# Of JSON files: the keys that tests read, or all of them.
JSON = {
    "eomt/eomt.json": ["loss"],
    "fill_check2.json": None,
    "mask2former/mask2former.json": ["loss"],
    "maskformer/maskformer.json": ["loss"],
    "ops/ops.json": ["hungarian"],
    "structtoken/fill_check.json": None,
    "structtoken/heads/fcn_full.json": ["loss"],
    "structtoken/heads/fcn_linear.json": ["loss"],
    "structtoken/heads/fcn_linear_nofinalnorm.json": ["loss"],
    "structtoken/heads/knet.json": ["loss"],
    "structtoken/heads/segmenter.json": ["loss"],
    "structtoken/params_flops.json": None,
    "structtoken/params_flops_other_heads.json": None,
    "structtoken/pipeline/init_stats_vit_t.json": None,
    "structtoken/pipeline/lr.json": None,
    "structtoken/pipeline/metrics.json": None,
    "structtoken/pipeline/official_configs_resolved.json": None,
    "structtoken/pipeline/param_groups.json": None,
    "structtoken/pipeline/pipeline.json": None,
    "structtoken/tiny/st_tiny_cse.json": ["train_steps"],
    "structtoken/tiny/st_tiny_pwe.json": ["train_steps"],
    "structtoken/tiny/st_tiny_sse.json": ["train_steps"],
}
HOLLOW = [f"structtoken/tiny/st_tiny_{name}.pth" for name in ("cse", "cse_legacy", "pwe")]
# What no test compares: parts of costs, points, classes where they are nearly constant, activations with dropped paths.
UNUSED = re.compile(r"\.(match|points)\.|argmax$|\.sem_low$|^sem\.|^dp\.")


def read(path):
    """Metadata and tensors of a safetensors file."""
    data = path.read_bytes()
    start = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:start])
    metadata = header.pop("__metadata__", {})
    tensors = {}
    for name, entry in sorted(header.items()):
        first, last = (start + at for at in entry["data_offsets"])
        tensors[name] = np.frombuffer(data[first:last], DTYPES[entry["dtype"]]).reshape(entry["shape"])
    return metadata, tensors


def write(path, tensors, metadata):
    header, at = {"__metadata__": metadata}, 0
    codes = {np.dtype(code): name for name, code in DTYPES.items()}
    # The largest elements first, so that all are aligned.
    order = sorted(tensors, key=lambda name: (-tensors[name].itemsize, name))
    for name in order:
        tensor = tensors[name]
        header[name] = dict(dtype=codes[tensor.dtype], shape=tensor.shape, data_offsets=[at, at + tensor.nbytes])
        at += tensor.nbytes
    text = compact(header).encode()
    text += b" " * (-len(text) % 8)
    save(path, len(text).to_bytes(8, "little") + text + b"".join(tensors[name].tobytes() for name in order))


def save(path, data):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def compact(value):
    return json.dumps(value, separators=(",", ":"))


def parameter(name, shape):
    """The values of a parameter by its name."""
    r = 2 * uniform(name, math.prod(shape)) - 1
    last = name.split(".")[-1]
    if last in ("pos_embed", "cls_token", "kernels", "cls_emb", "register_tokens"):
        values = 0.5 * r
    elif len(shape) >= 2:
        values = math.sqrt(3 / (math.prod(shape) / shape[0])) * r
    elif last in ("weight", "lambda1", "running_var"):
        values = 1 + 0.3 * r
    else:
        values = 0.1 * r
    return values.astype(np.float32).reshape(shape)


def classes(name, shape):
    ids = np.floor(uniform(name, math.prod(shape)) * (CLASSES + 1)).reshape(shape)
    return np.where(ids == CLASSES, 255, ids)


def hashed(kind, name, shape):
    """An input or a label map by its name."""
    if kind == "image":
        return (2 * (2 * uniform(name, math.prod(shape)) - 1)).astype(np.float32).reshape(shape)
    if kind == "labels":
        return classes(name, shape)
    # Cells of 8 x 8 pixels. The n-th image lacks the last n classes.
    cells = classes(name, (shape[0], shape[1] // 8, shape[2] // 8))
    lacking = CLASSES - np.arange(shape[0]).reshape(-1, 1, 1)
    cells = np.where(cells >= lacking, 255, cells)
    return cells.repeat(8, axis=1).repeat(8, axis=2)


def source(file, name):
    """Kind and name of what an input or a label map is a hash of."""
    tag = {"grads": "a", "droppath": "dp"}.get(file.stem.split("_")[-1])
    if name == "input":
        return "image", f"input.{tag}"
    if name == "label":
        return "labels", f"label.{tag}"
    if match := re.fullmatch(r"([a-z])\.(input|label|feat\.s\d+|input_(\d+x\d+))", name):
        tag, what, size = match.groups()
        if what == "label":
            return "cells", f"label.{tag}"
        if size:
            return "image", f"input.{tag}.{size}"
        return "image", f"input.{tag}" if what == "input" else f"input.feat.{tag}.{what[5:]}"
    return None


def positions(name, count):
    """Which values of a tensor are kept."""
    samples = LARGE_SAMPLES if count > LARGE else SAMPLES
    within = (uniform("sample." + name, samples) * 2**24).astype(int)
    return [((part << 24) + int(u)) * count // (samples << 24) for part, u in enumerate(within)]


def reduced(file, path):
    """The tensors of a file that are kept, and the metadata that say what the others were."""
    metadata, tensors = read(path)
    about = {"filled": {}, "scaled": {}, "hashed": {}, "sampled": {}}
    kept = {}
    is_parameters = not re.search(r"golden|grads|train|droppath|ops", file.stem)
    # The operators' inputs are many and small.
    whole = 4096 if file.stem == "ops" else WHOLE
    for name, tensor in tensors.items():
        shape = list(tensor.shape)
        assert not np.issubdtype(tensor.dtype, np.floating) or np.isfinite(tensor).all(), name
        if UNUSED.search(name):
            continue
        if is_parameters and tensor.dtype == "<f4":
            values = parameter(name, shape)
            factor = 2.0**-8 if not np.array_equal(values, tensor) else 1
            if np.array_equal(values * np.float32(factor), tensor):
                about["filled"][name] = shape
                if factor != 1:
                    about["scaled"][name] = factor
                continue
            assert tensor.size <= WHOLE, f"{file}: `{name}` is not what its name gives"
        if found := source(file, name):
            assert np.array_equal(hashed(*found, shape), tensor), f"{file}: `{name}` is not what {found} gives"
            about["hashed"][name] = dict(kind=found[0], of=found[1], shape=shape)
        elif tensor.size > whole and not name.endswith(".pred"):
            largest = float(np.abs(tensor.astype(np.float64)).max())
            about["sampled"][name] = dict(shape=shape, max=largest)
            kept[name] = tensor.reshape(-1)[positions(name, tensor.size)]
        else:
            kept[name] = tensor
    return kept, {**metadata, **{key: compact(value) for key, value in about.items() if value}}


def hollow(path, tensors):
    """The bytes of a weight file without those of its tensors, which lie in it one after the other somewhere."""
    data = bytearray(path.read_bytes())
    report = {"sha256": hashlib.sha256(data).hexdigest(), "places": {}}
    original = bytes(data)
    for name, tensor in tensors.items():
        values = tensor.tobytes()
        at = original.index(values)
        assert original.find(values, at + 1) < 0, f"{path}: `{name}` is there twice"
        data[at : at + len(values)] = bytes(len(values))
        report["places"][name] = at
    return gzip.compress(bytes(data), 9, mtime=0), report


def main(golden, weights):
    for path in sorted(golden.rglob("*.safetensors")):
        file = path.relative_to(golden)
        if str(file) in COPIED:
            save(TO / file, path.read_bytes())
        else:
            write(TO / file, *reduced(file, path))
    for file, keys in JSON.items():
        values = json.loads((golden / file).read_text())
        if keys:
            values = {key: values[key] for key in keys}
        if "init_stats" in file:
            values = {
                kind: {name: {key: stats[key] for key in ("mean", "std")} for name, stats in tensors.items()}
                for kind, tensors in values.items()
            }
        save(TO / file, (compact(values) + "\n").encode())
    reports = {}
    for file in HOLLOW:
        _, tensors = read(golden / file.replace("_legacy", "").replace(".pth", ".safetensors"))
        data, reports[Path(file).name] = hollow(golden / file, tensors)
        save(TO / f"{file}.gz", data)
    save(TO / "structtoken/tiny/hollow.json", (compact(reports) + "\n").encode())
    _, tensors = read(weights)
    shapes = {name: list(tensor.shape) for name, tensor in tensors.items()}
    save(TO / "dinov2/dinov2_vits14.json", (compact(shapes) + "\n").encode())


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
