"""The peer of docs/results.md's first table: what PyTorch learns from the same images in the same CPU time.

    pip install torch timm segmentation_models_pytorch pillow numpy safetensors
    python benches/first_model.py nuclei --data nuclei/ --cpu-seconds 600
    python benches/first_model.py camvid --data camvid/ --cpu-seconds 1800 --weights dinov2_vits14.f16.safetensors

Without --weights: the U-Net of segmentation_models.pytorch with a ResNet-18 from scratch, trained on Dice and cross entropy.
With --weights: DINOv2 ViT-S/14 with a linear classifier, all of it trained, on cross entropy.
CPU seconds are those of all threads of this process while it trains; reading images before and evaluation after do not count.
"""

import argparse
import json
import math
import resource
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

IGNORE = 255
MEAN, STD = np.array([0.485, 0.456, 0.406], np.float32), np.array([0.229, 0.224, 0.225], np.float32)


def cpu_seconds():
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def label_table(dataset, root):
    """From the values in masks to classes, and the number of classes."""
    table = np.full(256, IGNORE, np.uint8)
    if dataset == "nuclei":
        table[:2] = [0, 1]
        return table, 2
    if dataset == "camvid":
        table[:11] = range(11)
        return table, 11
    groups = [line.split("\t") for line in (root / "groups14.tsv").read_text().splitlines()[1:]]
    for group in groups:
        table[int(group[0])] = int(group[2])
    return table, 14


def read(root, split, table, size):
    """All pairs of a split, in memory, resized to fit `size` (width, height) if it is given."""
    pairs = []
    for path in sorted((root / split / "images").iterdir()):
        mask = root / split / "masks" / (path.stem + ".png")
        image, mask = Image.open(path).convert("RGB"), Image.open(mask)
        full = table[np.asarray(mask)]
        if size:
            ratio = min(max(size) / max(image.size), min(size) / min(image.size))
            shape = [max(1, round(side * ratio)) for side in image.size]
            image = image.resize(shape, Image.BILINEAR)
            mask = Image.fromarray(full).resize(shape, Image.NEAREST)
            pairs.append((np.asarray(image), np.asarray(mask), full))
        else:
            pairs.append((np.asarray(image), full, full))
    return pairs


def augment(pair, crop, rng, scales, rotate):
    """A crop of (width, height): scaled, rotated, cut, mirrored, with another brightness and contrast."""
    image, mask = Image.fromarray(pair[0]), Image.fromarray(pair[1])
    ratio = rng.uniform(*scales)
    shape = [max(1, round(side * ratio)) for side in image.size]
    image, mask = image.resize(shape, Image.BILINEAR), mask.resize(shape, Image.NEAREST)
    if rotate:
        angle = rng.uniform(-30, 30)
        image = image.rotate(angle, Image.BILINEAR)
        mask = mask.rotate(angle, Image.NEAREST, fillcolor=IGNORE)
    image, mask = np.asarray(image, np.float32), np.asarray(mask)
    down, right = max(0, crop[1] - image.shape[0]), max(0, crop[0] - image.shape[1])
    image = np.pad(image, ((0, down), (0, right), (0, 0)))
    mask = np.pad(mask, ((0, down), (0, right)), constant_values=IGNORE)
    top, left = rng.integers(image.shape[0] - crop[1] + 1), rng.integers(image.shape[1] - crop[0] + 1)
    image, mask = image[top : top + crop[1], left : left + crop[0]], mask[top : top + crop[1], left : left + crop[0]]
    if rng.random() < 0.5:
        image, mask = image[:, ::-1], mask[:, ::-1]
    if rotate and rng.random() < 0.5:
        image, mask = image[::-1], mask[::-1]
    image = np.clip((image - 128) * rng.uniform(0.8, 1.2) + 128 + rng.uniform(-25, 25), 0, 255)
    return ((image / 255 - MEAN) / STD).transpose(2, 0, 1).astype(np.float32), mask.astype(np.int64)


def dice_loss(logits, target):
    classes = logits.shape[1]
    valid = (target != IGNORE).unsqueeze(1)
    truth = F.one_hot(target.clamp(max=classes - 1), classes).permute(0, 3, 1, 2) * valid
    shares = logits.softmax(1) * valid
    both, total = (shares * truth).sum((0, 2, 3)), (shares + truth).sum((0, 2, 3))
    present = truth.sum((0, 2, 3)) > 0
    return (1 - 2 * both / total.clamp(min=1e-6))[present].mean()


class LinearOnDino(torch.nn.Module):
    """DINOv2 ViT-S/14 and a 1x1 convolution over its last map."""

    def __init__(self, classes, weights):
        super().__init__()
        import timm
        from safetensors.torch import load_file

        self.backbone = timm.create_model("vit_small_patch14_dinov2", img_size=518, dynamic_img_size=True, num_classes=0)
        state = {name: value.float() for name, value in load_file(weights).items()}
        missing, _ = self.backbone.load_state_dict(state, strict=False)
        assert not missing, missing
        self.head = torch.nn.Conv2d(384, classes, 1)

    def forward(self, image):
        height, width = image.shape[2] // 14, image.shape[3] // 14
        tokens = self.backbone.forward_features(image)[:, self.backbone.num_prefix_tokens :]
        logits = self.head(tokens.transpose(1, 2).unflatten(2, (height, width)))
        return F.interpolate(logits, size=image.shape[2:], mode="bilinear")


def evaluate(model, pairs, classes, multiple):
    """Confusion matrix over whole images, padded to a multiple, at the masks' own size."""
    confusion = np.zeros((classes, classes), np.int64)
    model.eval()
    with torch.inference_mode():
        for image, _, full in pairs:
            height, width = image.shape[:2]
            down, right = -height % multiple, -width % multiple
            image = np.pad(image, ((0, down), (0, right), (0, 0)), mode="edge")
            image = torch.from_numpy(((image / 255 - MEAN) / STD).transpose(2, 0, 1).astype(np.float32))[None]
            logits = model(image)[:, :, :height, :width]
            labels = F.interpolate(logits, size=full.shape, mode="bilinear").argmax(1)[0].numpy()
            valid = full != IGNORE
            confusion += np.bincount(full[valid].astype(np.int64) * classes + labels[valid], minlength=classes**2).reshape(classes, classes)
    return confusion


def main():
    parse = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parse.add_argument("dataset", choices=["nuclei", "camvid", "ccp14"])
    parse.add_argument("--data", type=Path, required=True)
    length = parse.add_mutually_exclusive_group(required=True)
    length.add_argument("--cpu-seconds", type=float, help="train for so long")
    length.add_argument("--images", type=int, help="train on so many crops: the same result on a machine that does other work")
    parse.add_argument("--weights", type=Path)
    parse.add_argument("--seed", type=int, default=0)
    parse.add_argument("--batch", type=int, default=None)
    parse.add_argument("--crop", type=int, nargs=2, default=None, metavar=("WIDTH", "HEIGHT"))
    parse.add_argument("--lr", type=float, default=None)
    parse.add_argument("--threads", type=int, default=2)
    args = parse.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    rng = np.random.default_rng(args.seed)
    nuclei = args.dataset == "nuclei"
    table, classes = label_table(args.dataset, args.data)
    size = {"nuclei": None, "camvid": (480, 360), "ccp14": (448, 308)}[args.dataset]
    if args.weights:
        model, multiple = LinearOnDino(classes, args.weights), 14
        crop = args.crop or {"nuclei": (252, 252), "camvid": (336, 336), "ccp14": (308, 448)}[args.dataset]
        lr, batch = args.lr or 4e-5, args.batch or 4
        groups = [{"params": model.backbone.parameters(), "lr": lr}, {"params": model.head.parameters(), "lr": lr * 15}]
    else:
        import segmentation_models_pytorch as smp

        model, multiple = smp.Unet("resnet18", encoder_weights=None, classes=classes), 32
        crop = args.crop or {"nuclei": (256, 256), "camvid": (224, 224), "ccp14": (224, 320)}[args.dataset]
        lr, batch = args.lr or 1e-3, args.batch or 8
        groups = [{"params": model.parameters(), "lr": lr}]
    optimizer = torch.optim.AdamW(groups, weight_decay=0.01)
    schedule = [group["lr"] for group in optimizer.param_groups]
    train = read(args.data, "train", table, size)
    begin, wall, images, order = cpu_seconds(), time.time(), 0, []
    model.train()
    progress = (lambda: images / args.images) if args.images else (lambda: (cpu_seconds() - begin) / args.cpu_seconds)
    while (done := progress()) < 1:
        for group, rate in zip(optimizer.param_groups, schedule):
            group["lr"] = rate * min(1, (done + 1e-3) / 0.05) * (1 - done) ** 0.9
        while len(order) < batch:
            order.extend(rng.permutation(len(train)))
        crops = [augment(train[order.pop()], crop, rng, (0.75, 1.5), nuclei) for _ in range(batch)]
        image = torch.from_numpy(np.stack([pair[0] for pair in crops]))
        target = torch.from_numpy(np.stack([pair[1] for pair in crops]))
        logits = model(image)
        loss = F.cross_entropy(logits, target, ignore_index=IGNORE)
        if not args.weights:
            loss = loss + dice_loss(logits, target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        images += batch
        if not math.isfinite(loss.item()):
            raise SystemExit("the loss is not finite")
    used, wall = cpu_seconds() - begin, time.time() - wall
    confusion = evaluate(model, read(args.data, "val", table, size), classes, multiple)
    union = confusion.sum(0) + confusion.sum(1) - confusion.diagonal()
    iou = 100 * confusion.diagonal() / np.maximum(union, 1)
    print(json.dumps({"dataset": args.dataset, "model": "linear on DINOv2-S" if args.weights else "smp U-Net ResNet-18", "seed": args.seed,
                      "mIoU": round(float(iou.mean()), 2), "IoU": [round(float(value), 1) for value in iou], "images": images,
                      "cpu_seconds": round(used, 1), "wall_seconds": round(wall, 1), "batch": batch, "crop": crop, "lr": lr}))


if __name__ == "__main__":
    main()
