"""Values of tensors as a hash of their names, the same here and in the tests (tests/it/golden.rs)."""

import math

import numpy as np


def uniform(name, count):
    key = 0xCBF29CE484222325
    for byte in name.encode():
        key = (key ^ byte) * 0x100000001B3 % 2**64
    with np.errstate(over="ignore"):
        z = np.uint64(key) + np.arange(1, count + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z = z ^ (z >> np.uint64(31))
    return (z >> np.uint64(40)).astype(np.float64) / 2**24


def filled(name, shape):
    """A parameter, in f32 as f64."""
    count = math.prod(shape)
    r = 2 * uniform(name, count) - 1
    if len(shape) >= 2:
        values = math.sqrt(3 / (count / shape[0])) * r
    elif name.endswith((".weight", "running_var", "gamma", "gamma_1", "gamma_2", "lambda1")):
        values = 1 + 0.3 * r
    else:
        values = 0.1 * r
    return torch_f64(values, shape)


def image(name, shape):
    return torch_f64(2 * (2 * uniform(name, math.prod(shape)) - 1), shape)


def torch_f64(values, shape):
    import torch  # not needed where only `uniform` is

    return torch.from_numpy(values.astype(np.float32).astype(np.float64).reshape(shape))
