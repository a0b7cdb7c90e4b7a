"""A small model, pictures and a dataset to test with: made once, by the package itself."""

from __future__ import annotations

import importlib
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import structtoken

# A shell in the background leaves Ctrl-C ignored, and whatever it starts inherits that.
signal.signal(signal.SIGINT, signal.default_int_handler)

ROOT = Path(__file__).resolve().parents[3]
EXAMPLES = ROOT / "examples" / "python"

SMALL = """
[model.backbone]
type = "unet"
channels = [8, 16]
depths = [1, 1]
stem_stride = 2
norm = "group"
img_size = [48, 48]

[model.decoder]
type = "structtoken"
block = "pwe"
num_blocks = 2
drop_path_rate = 0.0

[data]
dataset = "shapes"
shapes = { size = 48, train = 64, val = 4, cue = "color" }

[data.augment]
resize = "none"
crop = [48, 48]
cat_max_ratio = 1.0
photometric = false

[train]
iterations = 120
batch_size = 4
eval_every = 120
save_every = 40
restarts = 0
loss = { dice = 1.0 }

[train.optimizer]
lr = 4e-3

[train.schedule]
warmup_iters = 5

[eval]
mode = "whole"
"""


def example(name: str):
    """An example as a module, under the name that other processes import it by."""
    if str(EXAMPLES) not in sys.path:
        sys.path.insert(0, str(EXAMPLES))
    return importlib.import_module(name)


class Lab:
    """A folder with `recipe.toml`, a trained `model.safetensors`, `photo.png`, and pictures in `photos`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.recipe = folder / "recipe.toml"
        self.recipe.write_text(SMALL)
        made = structtoken.train(self.recipe, folder / "trained")
        self.model = folder / "model.safetensors"
        self.model.write_bytes(Path(made["model"]).read_bytes())
        shapes = structtoken.Dataset(recipe=self.recipe, split="val")
        self.images = [shapes[at][0] for at in range(4)]
        Image.fromarray(self.images[0]).save(folder / "photo.png")
        self.photos = folder / "photos"
        self.photos.mkdir()
        rng = np.random.default_rng(7)
        self.images += [rng.integers(0, 256, [37, 61, 3], dtype=np.uint8), np.zeros([1, 1, 3], np.uint8)]
        for at, image in enumerate(self.images):
            Image.fromarray(image).save(self.photos / f"{at}.png")

    def command(self, *arguments: object, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
        """The installed command, run to its end."""
        program = Path(sys.executable).with_name("structtoken")
        words = [str(program), *map(str, arguments)]
        return subprocess.run(words, cwd=cwd or self.folder, capture_output=True, text=True, check=False, timeout=600)

    def masks(self, out: Path) -> list[bytes]:
        """The files that the command writes for all pictures, in order."""
        done = self.command("predict", self.model, self.photos, "--out", out)
        assert done.returncode == 0, done.stderr
        return [(out / f"{at}.png").read_bytes() for at in range(len(self.images))]


@pytest.fixture(scope="session")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Lab:
    return Lab(tmp_path_factory.mktemp("lab"))


@pytest.fixture(scope="session")
def model(lab: Lab) -> structtoken.Model:
    return structtoken.Model.open(lab.model)
