"""Writes tests/fixtures/dinov3.safetensors: what the DINOv3 and DINOv2-g of transformers and timm give, to be compared with ours.

    python scripts/dinov3.py       # torch, timm, transformers, scipy, safetensors; made with torch 2.15, timm 1.0.31, transformers 5.24

Parameters, images and the gradients that come from above are functions of their names (FNV-1a and splitmix64, as
values.py has them), so that only results are stored: computed in f64, of maps and of the image's gradient at most SAMPLES
values, evenly picked; gradients of parameters whole, under the names that the network has there, but for the largest tensors,
which are left out. The metadata holds, for each network, the names and shapes of its state dict.

Where an image is no whole number of patches, zeros are put at the bottom and the right, as our network does.
"""

import json
from pathlib import Path

import numpy as np
import timm
import torch
import transformers
from safetensors.numpy import save_file

from values import filled, image

SAMPLES = 240
LARGEST = 2500


def picked(tensor):
    flat = tensor.detach().numpy().reshape(-1)
    return flat[:: -(-len(flat) // SAMPLES) | 1].astype(np.float32)


def hugging_face(model, x):
    """The normalised maps of all blocks; channels first."""
    output = model(x, output_hidden_states=True)
    norm = model.norm if hasattr(model, "norm") else model.layernorm
    patch = model.config.patch_size
    h, w = x.shape[2] // patch, x.shape[3] // patch
    maps = [norm(state)[:, -h * w :] for state in output.hidden_states[1:]]
    return [y.transpose(1, 2).reshape(y.shape[0], -1, h, w) for y in maps]


def of_timm(model, x):
    return model.forward_intermediates(x, norm=True, intermediates_only=True)


def eomt(model, x):
    """Classes and masks of the queries, after the last block."""
    output = model(x)
    return [output.class_queries_logits[:, :, :, None], output.masks_queries_logits]


def dinov3(**changes):
    shape = dict(hidden_size=16, num_hidden_layers=2, num_attention_heads=2, num_register_tokens=4, image_size=64)
    return transformers.DINOv3ViTModel(transformers.DINOv3ViTConfig(**shape | changes))


def small_plus(name, **changes):
    shape = dict(embed_dim=16, depth=2, num_heads=2, patch_size=4, img_size=16, num_classes=0)
    return timm.create_model(name, **shape | changes)


def eomt_dinov3(**changes):
    shape = dict(hidden_size=16, num_hidden_layers=3, num_attention_heads=2, num_register_tokens=4, num_queries=5, num_blocks=2)
    config = transformers.EomtDinov3Config(**shape | dict(num_labels=3, patch_size=8, intermediate_size=24, **changes))
    model = transformers.EomtDinov3ForUniversalSegmentation(config)
    # It knows square images only, but nothing in it depends on that.
    model.grid_size = (5, 3)
    return model


# As the published configuration of the plus sizes has it; the class's own default is GELU.
GATED = dict(use_gated_mlp=True, hidden_act="silu")
CASES = {
    # Patches of 16, and an image that is no whole number of them.
    "small": (lambda: dinov3(intermediate_size=48, patch_size=16), hugging_face, 16, (2, 3, 45, 70)),
    "plus": (lambda: dinov3(intermediate_size=40, num_attention_heads=1, patch_size=4, **GATED), hugging_face, 4, (2, 3, 22, 9)),
    "timm": (lambda: small_plus("vit_small_patch16_dinov3"), of_timm, 4, (1, 3, 10, 27)),
    "timm_plus": (lambda: small_plus("vit_small_plus_patch16_dinov3_qkvb"), of_timm, 4, (1, 3, 13, 20)),
    "giant": (
        lambda: transformers.Dinov2Model(
            transformers.Dinov2Config(
                hidden_size=24, num_hidden_layers=2, num_attention_heads=2, use_swiglu_ffn=True, image_size=20, patch_size=4
            )
        ),
        hugging_face,
        4,
        (2, 3, 20, 20),
    ),
    # With GELU: transformers gives `hidden_act` to the heads too, whose activation EoMT's authors leave as it is.
    "eomt": (lambda: eomt_dinov3(image_size=40, num_upscale_blocks=1, layer_norm_eps=1e-5), eomt, 8, (2, 3, 40, 24)),
}


def main():
    torch.manual_seed(0)
    tensors, metadata = {}, {}
    for case, (make, run, patch, shape) in CASES.items():
        model = make().eval().double()
        state = model.state_dict()
        metadata[case] = json.dumps({name: list(value.shape) for name, value in state.items()})
        kept = {name: value for name, value in state.items() if name.endswith("attn_mask_probs")}
        model.load_state_dict({name: filled(name, tuple(value.shape)) for name, value in state.items()} | kept)
        x = image(f"input.{case}", shape).requires_grad_()
        padded = torch.nn.functional.pad(x, (0, -shape[3] % patch, 0, -shape[2] % patch))
        maps = run(model, padded)
        for i, y in enumerate(maps):
            tensors[f"{case}.map{i}"] = picked(y)
        sum((y * image(f"dy.{case}.{i}", y.shape)).sum() for i, y in enumerate(maps)).backward()
        tensors[f"{case}.grad.input"] = picked(x.grad)
        for name, parameter in model.named_parameters():
            if parameter.grad is not None and parameter.numel() <= LARGEST:
                tensors[f"{case}.grad.{name}"] = parameter.grad.numpy().astype(np.float32)
    path = Path(__file__).parent.parent / "tests/fixtures/dinov3.safetensors"
    save_file(tensors, path, metadata)
    print(f"{path}: {len(tensors)} tensors, {path.stat().st_size} bytes")


main()
