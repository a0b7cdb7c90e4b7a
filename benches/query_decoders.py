"""Times training steps of MaskFormer, Mask2Former and EoMT as Hugging Face has them, on a plain ViT, one JSON line each.

    pip install torch transformers==4.57.1 scipy
    python benches/query_decoders.py --size s --image 512 --classes 150 --batch 2 --threads 2

The counterpart of `structtoken bench --decoder mask2former --train`: random weights and images, the truth in squares of 64
pixels of at most 12 classes, forward, all losses, backward, AdamW. MaskFormer and Mask2Former get the ViT's last map through
a simple feature pyramid (ViTDet), as they do here.
"""
import argparse, json, statistics, time
import torch
from torch import nn
from transformers import (EomtConfig, EomtForUniversalSegmentation, Mask2FormerConfig, Mask2FormerForUniversalSegmentation,
                          MaskFormerConfig, MaskFormerForInstanceSegmentation, SwinConfig, ViTConfig, ViTModel)
from transformers.modeling_outputs import BackboneOutput
from transformers.models.mask2former.modeling_mask2former import Mask2FormerPixelDecoder
from transformers.models.maskformer.modeling_maskformer import MaskFormerPixelDecoder

SIZES = {"t": (192, 12, 3), "s": (384, 12, 6), "b": (768, 12, 12)}
p = argparse.ArgumentParser()
p.add_argument("--size", default="s"); p.add_argument("--image", type=int, default=512); p.add_argument("--classes", type=int, default=150)
p.add_argument("--batch", type=int, default=2); p.add_argument("--threads", type=int, default=2); p.add_argument("-n", type=int, default=5)
p.add_argument("--decoders", default="eomt,maskformer,mask2former"); p.add_argument("--infer", action="store_true")
a = p.parse_args()
torch.set_num_threads(a.threads)
torch.manual_seed(0)
dim, depth, heads = SIZES[a.size]


class ChannelNorm(nn.LayerNorm):
    def forward(self, x):
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class VitPyramid(nn.Module):
    """A ViT and the simple feature pyramid: strides 4, 8, 16, 32."""

    def __init__(self, out=256):
        super().__init__()
        self.vit = ViTModel(ViTConfig(hidden_size=dim, num_hidden_layers=depth, num_attention_heads=heads, intermediate_size=4 * dim,
                                      image_size=a.image, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0, layer_norm_eps=1e-6),
                            add_pooling_layer=False)
        smooth = lambda c: [nn.Conv2d(c, out, 1, bias=False), ChannelNorm(out, 1e-6), nn.Conv2d(out, out, 3, padding=1, bias=False), ChannelNorm(out, 1e-6)]
        up = lambda i, o: nn.ConvTranspose2d(i, o, 2, 2)
        self.levels = nn.ModuleList([
            nn.Sequential(up(dim, dim // 2), ChannelNorm(dim // 2, 1e-6), nn.GELU(), up(dim // 2, dim // 4), *smooth(dim // 4)),
            nn.Sequential(up(dim, dim // 2), *smooth(dim // 2)), nn.Sequential(*smooth(dim)),
            nn.Sequential(nn.MaxPool2d(2), *smooth(dim))])
        self.channels = [out] * 4

    def forward(self, x):
        tokens = self.vit(x).last_hidden_state[:, 1:]
        side = a.image // 16
        grid = tokens.transpose(1, 2).reshape(x.shape[0], dim, side, side)
        return BackboneOutput(feature_maps=tuple(level(grid) for level in self.levels))


def build(name):
    swin = SwinConfig(embed_dim=32, depths=[1, 1, 1, 1], num_heads=[1, 2, 4, 8], image_size=64, out_features=["stage1", "stage2", "stage3", "stage4"])
    if name == "eomt":
        return EomtForUniversalSegmentation(EomtConfig(
            hidden_size=dim, num_hidden_layers=depth, num_attention_heads=heads, image_size=a.image, patch_size=16, num_blocks=4,
            num_queries=100, num_register_tokens=0, num_labels=a.classes, use_swiglu_ffn=False))
    if name == "maskformer":
        model = MaskFormerForInstanceSegmentation(MaskFormerConfig(backbone_config=swin, num_labels=a.classes, use_auxiliary_loss=True))
        model.model.pixel_level_module.encoder = VitPyramid()
        model.model.pixel_level_module.decoder = MaskFormerPixelDecoder(in_features=256, feature_size=256, mask_feature_size=256, lateral_widths=[256] * 3)
        return model
    config = Mask2FormerConfig(backbone_config=swin, num_labels=a.classes, num_queries=100)
    model = Mask2FormerForUniversalSegmentation(config)
    model.model.pixel_level_module.encoder = VitPyramid()
    model.model.pixel_level_module.decoder = Mask2FormerPixelDecoder(config, feature_channels=[256] * 4)
    return model


x = torch.randn(a.batch, 3, a.image, a.image)
squares = torch.randint(0, min(a.classes, 12), (a.batch, -(-a.image // 64), -(-a.image // 64)))
labels = squares.repeat_interleave(64, 1).repeat_interleave(64, 2)[:, :a.image, :a.image]
classes = [label.unique() for label in labels]
masks = [torch.stack([label == c for c in present]).float() for label, present in zip(labels, classes)]

for name in a.decoders.split(","):
    model = build(name)
    if a.infer:
        model.eval()

        @torch.no_grad()
        def step():
            out = model(x)
            m = torch.nn.functional.interpolate(out.masks_queries_logits, (a.image, a.image), mode="bilinear").sigmoid()
            torch.einsum("bqc,bqhw->bchw", out.class_queries_logits.softmax(-1)[..., :-1], m).argmax(1)
    else:
        model.train()
        optimizer = torch.optim.AdamW(model.parameters(), 1e-4)

        def step():
            optimizer.zero_grad()
            # Without them MaskFormer has nothing to judge its earlier layers by.
            hidden = {"output_hidden_states": True} if name == "maskformer" else {}
            model(x, mask_labels=masks, class_labels=classes, **hidden).loss.backward()
            optimizer.step()
    step()
    times = []
    for _ in range(a.n):
        start = time.perf_counter()
        step()
        times.append((time.perf_counter() - start) * 1e3)
    work = "labels" if a.infer else "train step"
    print(json.dumps({"peer": "transformers", "work": f"{name} vit-{a.size} {a.image} k{a.classes} b{a.batch} {work}",
                      "median_ms": round(statistics.median(times), 1), "min_ms": round(min(times), 1), "n": a.n}), flush=True)
