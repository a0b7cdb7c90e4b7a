"""Writes tests/fixtures/convolutional.safetensors: what timm's ResNet and ConvNeXt give, to be compared with ours.

    python scripts/convolutional.py        # torch, timm and safetensors; made with torch 2.15 and timm 1.0.31

Parameters, images and the gradients that come from above are functions of their names (FNV-1a and splitmix64, as
values.py has them), so that only results are stored: computed in f64, at most SAMPLES values of each, evenly picked.
The metadata holds, for each network, the names and shapes of its state dict.

Where a map is no whole number of patches, zeros are put at the bottom and the right of ConvNeXt's, as our network does; timm
would leave the rest out.
"""

import json
from pathlib import Path

import numpy as np
import timm
import torch
from safetensors.numpy import save_file

from values import filled, image

SAMPLES = {"map": 240, "grad": 16}
CASES = {
    "resnet18": ("resnet18", dict(channels=(8, 16, 24, 32)), (2, 3, 61, 75)),
    "resnet50": ("resnet50", dict(channels=(4, 8, 12, 16)), (2, 3, 75, 61)),
    "resnet26": ("resnet50", dict(channels=(4, 8, 12, 16), layers=(2, 2, 2, 2)), (4, 3, 75, 91)),
    "convnext_atto": ("convnext_atto", dict(dims=(8, 16, 24, 32)), (2, 3, 61, 75)),
    "convnext_tiny": ("convnext_tiny", dict(dims=(8, 12, 16, 24), depths=(1, 1, 2, 1)), (1, 3, 64, 96)),
}


def picked(tensor, kind):
    flat = tensor.detach().numpy().reshape(-1)
    return flat[:: -(-len(flat) // SAMPLES[kind]) | 1].astype(np.float32)


def pad(module, inputs):
    (x,) = inputs
    (h, w), (sh, sw) = x.shape[-2:], module.stride
    return torch.nn.functional.pad(x, (0, -w % sw, 0, -h % sh))


def stages(model, x):
    """The map of each stage; a ResNet's stem before them."""
    if hasattr(model, "layer1"):
        stem = model.act1(model.bn1(model.conv1(x)))
        x, maps = model.maxpool(stem), [stem]
        for layer in (model.layer1, model.layer2, model.layer3, model.layer4):
            x = layer(x)
            maps.append(x)
        return maps
    x, maps = model.stem(x), []
    for stage in model.stages:
        x = stage(x)
        maps.append(x)
    return maps


def main():
    torch.manual_seed(0)
    tensors, metadata = {}, {}
    for case, (network, changes, shape) in CASES.items():
        model = timm.create_model(network, num_classes=5, **changes).double()
        state = model.state_dict()
        metadata[case] = json.dumps({name: list(value.shape) for name, value in state.items()})
        counters = {name: value for name, value in state.items() if name.endswith("num_batches_tracked")}
        model.load_state_dict({name: filled(name, tuple(value.shape)) for name, value in state.items()} | counters)
        for module in model.modules():
            if isinstance(module, torch.nn.Conv2d) and module.stride == module.kernel_size and module.stride[0] > 1:
                module.register_forward_pre_hook(pad)
        for mode in ("eval", "train"):
            # ConvNeXt is the same; 53 batch norms one after the other, of a few pixels each, leave torch's own f32 1e-4 off.
            if mode == "train" and (case == "resnet50" or not hasattr(model, "layer1")):
                continue
            model.train(mode == "train")
            x = image(f"input.{case}", shape).requires_grad_()
            maps = stages(model, x)
            for i, y in enumerate(maps):
                tensors[f"{case}.{mode}.map{i}"] = picked(y, "map")
            names = range(len(maps) - 4, len(maps))
            loss = sum((y * image(f"dy.{case}.{i}", y.shape)).sum() for i, y in zip(range(4), (maps[n] for n in names)))
            model.zero_grad()
            loss.backward()
            tensors[f"{case}.{mode}.grad.input"] = picked(x.grad, "map")
            for name, parameter in model.named_parameters():
                if parameter.grad is not None:
                    tensors[f"{case}.{mode}.grad.{name}"] = picked(parameter.grad, "grad")
            if mode == "train":
                for name, value in model.state_dict().items():
                    if "running_" in name:
                        tensors[f"{case}.after.{name}"] = picked(value, "grad")
    path = Path(__file__).parent.parent / "tests/fixtures/convolutional.safetensors"
    save_file(tensors, path, metadata)
    print(f"{path}: {len(tensors)} tensors, {path.stat().st_size} bytes")


main()
