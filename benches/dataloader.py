"""The peer of `structtoken bench RECIPE --data`: a torch DataLoader with the same transforms, images a second and worker.

    pip install torch torchvision albumentations pillow
    python benches/dataloader.py IMAGES MASKS [--workers 2] [--with torchvision|albumentations]

Random resize to 0.75 to 1.5 of (480, 360), crop of 336 drawn again while one class fills three quarters, flip,
brightness, contrast, saturation and hue: configs/camvid/dinov2-s_pwe.toml.
"""

import argparse, os, random, time

import numpy as np
import torch
from PIL import Image

parser = argparse.ArgumentParser()
parser.add_argument("images"); parser.add_argument("masks")
parser.add_argument("--workers", type=int, default=2); parser.add_argument("--batch", type=int, default=2)
parser.add_argument("--seconds", type=float, default=8); parser.add_argument("--with", dest="library", default="torchvision")
a = parser.parse_args()
SCALE, CROP = (480, 360), 336


def scaled(width, height):
    ratio = random.uniform(0.75, 1.5)
    long, short = max(SCALE) * ratio, min(SCALE) * ratio
    factor = min(long / max(width, height), short / min(width, height))
    return int(width * factor + 0.5), int(height * factor + 0.5)


def varied(mask):
    counts = np.bincount(mask.ravel(), minlength=256)[:255]
    return (counts > 0).sum() > 1 and counts.max() / counts.sum() < 0.75


def place(mask):
    for _ in range(10):
        y, x = random.randint(0, max(mask.shape[0] - CROP, 0)), random.randint(0, max(mask.shape[1] - CROP, 0))
        if varied(mask[y : y + CROP, x : x + CROP]):
            break
    return y, x


class Set(torch.utils.data.Dataset):
    def __init__(self):
        names = sorted(name for name in os.listdir(a.images) if name.endswith((".png", ".jpg")))
        self.pairs = [(f"{a.images}/{name}", f"{a.masks}/{os.path.splitext(name)[0]}.png") for name in names]
        if a.library == "torchvision":
            from torchvision.transforms import v2

            self.jitter = v2.ColorJitter(0.125, 0.5, 0.5, 0.05)
        else:
            import albumentations

            self.jitter = albumentations.ColorJitter((0.875, 1.125), (0.5, 1.5), (0.5, 1.5), (-0.05, 0.05), p=1)

    def __len__(self):
        return 1 << 30

    def __getitem__(self, index):
        image, mask = self.pairs[index % len(self.pairs)]
        if a.library == "torchvision":
            image, mask = Image.open(image).convert("RGB"), Image.open(mask)
            size = scaled(*image.size)
            image, mask = image.resize(size, Image.BILINEAR), np.asarray(mask.resize(size, Image.NEAREST))
            y, x = place(mask)
            image = self.jitter(image.crop((x, y, min(x + CROP, size[0]), min(y + CROP, size[1]))))
            image, mask = np.asarray(image), mask[y : y + CROP, x : x + CROP]
        else:
            import cv2

            cv2.setNumThreads(0)
            image, mask = cv2.imread(image)[:, :, ::-1], np.asarray(Image.open(mask))
            size = scaled(image.shape[1], image.shape[0])
            image, mask = cv2.resize(image, size), cv2.resize(mask, size, interpolation=cv2.INTER_NEAREST)
            y, x = place(mask)
            image, mask = image[y : y + CROP, x : x + CROP], mask[y : y + CROP, x : x + CROP]
            image = self.jitter(image=np.ascontiguousarray(image))["image"]
        if random.random() < 0.5:
            image, mask = image[:, ::-1], mask[:, ::-1]
        h, w = CROP - image.shape[0], CROP - image.shape[1]
        image = np.pad(image, ((0, h), (0, w), (0, 0)))
        mask = np.pad(mask, ((0, h), (0, w)), constant_values=255)
        return torch.from_numpy(image.copy()), torch.from_numpy(mask.copy())


torch.set_num_threads(1)
loader = iter(torch.utils.data.DataLoader(Set(), batch_size=a.batch, num_workers=a.workers, prefetch_factor=3 if a.workers else None))
for _ in range(8):
    next(loader)
start, images = time.perf_counter(), 0
while time.perf_counter() - start < a.seconds:
    images += len(next(loader)[0])
rate = images / (time.perf_counter() - start)
print(f"DataLoader, {a.library}: {rate:.1f} images/s by {a.workers} workers, {rate / max(a.workers, 1):.1f} by each")
