"""The study of docs/structure.md: trains every network of it, resumes where it stopped, and prints the tables.

    python3 scripts/structure.py --binary target/release/structtoken --out runs/structure [--jobs 2]
    python3 scripts/structure.py --tables

A run is a folder, `SET/NETWORK/rate-RATE/seed-SEED`, and a line of docs/structure.jsonl once it has ended: one that is there is not
trained again. Each run has one thread.
"""

import argparse
import itertools
import json
import math
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Lock

STRUCTTOKEN = 'type = "structtoken"\nnum_blocks = 1\ndrop_path_rate = 0.0\nblock = '
NETWORKS = {
    "pwe": STRUCTTOKEN + '"pwe"',
    "sse": STRUCTTOKEN + '"sse"',
    "cse": STRUCTTOKEN + '"cse"',
    "pwe-uniform": STRUCTTOKEN + '"pwe"\ntokens = "uniform"',
    "pwe-frozen": STRUCTTOKEN + '"pwe"\ntokens = "frozen"',
    "pwe-zero": STRUCTTOKEN + '"pwe"\ntokens = "zero"',
    "fcn": 'type = "fcn"\nnum_convs = 0\ndropout_ratio = 0.0',
    # As many multiply-accumulates as PWE has.
    "fcn-convs": 'type = "fcn"\nnum_convs = 2\nchannels = 34\nconcat_input = false\ndropout_ratio = 0.0',
    "segmenter": 'type = "segmenter"\nnum_layers = 2\nnum_heads = 4\ndrop_path_rate = 0.0',
    "knet": 'type = "knet"\nnum_convs = 1\nchannels = 32\nfeat_channels = 32\nnum_heads = 4\nfeedforward_channels = 64\ndropout_ratio = 0.0',
}
SETS = {
    "shape": 'size = 48, train = 10000, val = 200, cue = "shape"',
    "texture": 'size = 48, train = 10000, val = 200, cue = "texture"',
    "color": 'size = 48, train = 10000, val = 200, cue = "color"',
    "both": 'size = 48, train = 10000, val = 200, cue = "both", conflict = 0.5',
    "parts": 'size = 64, train = 10000, val = 200, cue = "parts"',
    "shape-10": 'size = 48, train = 10, val = 200, cue = "shape"',
    "shape-100": 'size = 48, train = 100, val = 200, cue = "shape"',
    "shape-1000": 'size = 48, train = 1000, val = 200, cue = "shape"',
}
RATES = ["1e-3", "2e-3", "4e-3"]
SEEDS = range(5)
TUNING_SEED = 100
FEW = ["shape-10", "shape-100", "shape-1000"]
# Of the intervals of a question, all together.
LEVEL = 0.05

RECIPE = """[model.backbone]
type = "unet"
channels = [24, 48, 96]
depths = [1, 1, 2]
stem_stride = 2
norm = "group"
img_size = [{size}, {size}]

[model.decoder]
{decoder}

[data]
dataset = "shapes"
shapes = {{ {shapes} }}

[data.augment]
resize = "none"
crop = [{size}, {size}]
cat_max_ratio = 1.0
photometric = false

[train]
iterations = {iterations}
batch_size = 8
seed = {seed}
loss_mean = "valid"
eval_every = 0

[train.optimizer]
lr = {rate}
decoder_lr_mult = 1
betas = [0.9, 0.98]
clip_norm = 1.0

[train.schedule]
warmup_iters = 100

[eval]
mode = "whole"
"""


def networks_of(data):
    return ["pwe", "fcn"] if data in FEW else list(NETWORKS)


class Runs:
    """Those that have ended, in a file with a line each, and their folders."""

    def __init__(self, path, out=None, binary=None):
        self.path, self.out, self.binary, self.lock = path, out, binary, Lock()
        lines = path.read_text().splitlines() if path.exists() else []
        self.found = {tuple(line.pop(key) for key in ["set", "network", "rate", "seed", "iterations"]): line for line in map(json.loads, lines)}

    def miou(self, *run):
        return self.found[run]["miou"]

    def best_rate(self, data, network, half):
        return max(RATES, key=lambda rate: self.miou(data, network, rate, TUNING_SEED, half))

    def train(self, data, network, rate, seed, iterations):
        run = data, network, rate, seed, iterations
        if run in self.found:
            return
        path = self.out / data / network / f"rate-{rate}" / f"seed-{seed}-of-{iterations}"
        path.parent.mkdir(parents=True, exist_ok=True)
        recipe = path.parent / f"{path.name}.toml"
        size = 64 if data == "parts" else 48
        recipe.write_text(RECIPE.format(size=size, decoder=NETWORKS[network], shapes=SETS[data], iterations=iterations, seed=seed, rate=rate))
        command = [self.binary, "train", str(recipe), "--out", str(path)]
        if (path / "config.toml").exists():
            command = [self.binary, "train", "--resume", "--out", str(path)]
        done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "RAYON_NUM_THREADS": "1"})
        if done.returncode:
            raise SystemExit(f"{' '.join(command)}\n{done.stderr}")
        miou = json.loads((path / "scores.json").read_text())["miou"]
        with self.lock, self.path.open("a") as file:
            self.found[run] = {"miou": miou}
            file.write(json.dumps({"set": data, "network": network, "rate": rate, "seed": seed, "iterations": iterations, "miou": round(miou, 6)}) + "\n")
        print(f"{path}: mIoU {miou:.4f}", file=sys.stderr, flush=True)


def quantile_of_t(p, freedom):
    """By bisection of the distribution function, which is an integral of the density by Simpson's rule."""
    factor = math.gamma((freedom + 1) / 2) / math.sqrt(freedom * math.pi) / math.gamma(freedom / 2)
    density = lambda x: factor * (1 + x * x / freedom) ** (-(freedom + 1) / 2)

    def below(x, steps=2000):
        width = x / steps
        inner = sum((4 if i % 2 else 2) * density(i * width) for i in range(1, steps))
        return 0.5 + (density(0) + inner + density(x)) * width / 3

    low, high = 0.0, 200.0
    for _ in range(80):
        middle = (low + high) / 2
        low, high = (middle, high) if below(middle) < p else (low, middle)
    return low


def comparison(first, second, comparisons):
    """Mean difference in points, and half of its interval at a level shared by this many comparisons (Bonferroni)."""
    differences = [100 * (a - b) for a, b in zip(first, second)]
    n = len(differences)
    mean = sum(differences) / n
    spread = math.sqrt(sum((d - mean) ** 2 for d in differences) / (n - 1))
    return mean, quantile_of_t(1 - LEVEL / 2 / comparisons, n - 1) * spread / math.sqrt(n)


def verdict(mean, half):
    if mean - half > 0 and mean >= 2:
        return "yes"
    if mean + half < 0 and mean <= -2:
        return "the reverse"
    return "no" if -2 <= mean - half and mean + half <= 2 else "open"


STRUCTURED, OTHERS = ["pwe", "sse", "cse"], ["fcn", "segmenter", "knet"]
ALL = ["shape", "texture", "color", "both", "parts"]
QUESTIONS = [
    ("Q1", ["shape", "parts"], list(itertools.product(STRUCTURED, OTHERS))),
    ("Q2", ["texture", "color"], list(itertools.product(STRUCTURED, OTHERS))),
    ("Q3", ALL, [("pwe", "pwe-uniform")]),
    ("Q4", ALL, [("pwe", "pwe-frozen"), ("pwe", "pwe-zero")]),
    ("Q5", ALL, [("pwe", "fcn-convs")]),
    ("Q6", ["both"], list(itertools.product(STRUCTURED, OTHERS))),
    ("Q7", [*FEW, "shape"], [("pwe", "fcn")]),
]


def tables(runs, iterations):
    found = {}
    for data in SETS:
        for network in networks_of(data):
            try:
                rate = runs.best_rate(data, network, iterations // 2)
                found[data, network] = rate, [runs.miou(data, network, rate, seed, iterations) for seed in SEEDS]
            except KeyError:
                pass
    print("| set | " + " | ".join(NETWORKS) + " |\n|---|" + "---:|" * len(NETWORKS))
    for data in SETS:
        cells = [found.get((data, network)) for network in NETWORKS]
        print(f"| `{data}` | " + " | ".join(cell and f"{100 * sum(cell[1]) / len(cell[1]):.1f} ({cell[0]})" or "" for cell in cells) + " |")
    print("\n| question | set | compared | difference, points | answer |\n|---|---|---|---:|---|")
    for name, sets, pairs in QUESTIONS:
        comparisons = len(sets) * len(pairs)
        for data, (a, b) in itertools.product(sets, pairs):
            if (data, a) in found and (data, b) in found:
                mean, half = comparison(found[data, a][1], found[data, b][1], comparisons)
                print(f"| {name} | `{data}` | {a} - {b} | {mean:+.1f} [{mean - half:+.1f}, {mean + half:+.1f}] | {verdict(mean, half)} |")


def main():
    parse = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parse.add_argument("--binary", default="target/release/structtoken")
    parse.add_argument("--out", type=Path, default=Path("runs/structure"))
    parse.add_argument("--scores", type=Path, default=Path(__file__).parent.parent / "docs" / "structure.jsonl", help="the runs that have ended")
    parse.add_argument("--iterations", type=int, default=1200)
    parse.add_argument("--jobs", type=int, default=2)
    parse.add_argument("--sets", nargs="+", default=list(SETS))
    parse.add_argument("--tables", action="store_true", help="of what is there")
    args = parse.parse_args()
    runs = Runs(args.scores, args.out, args.binary)
    if not args.tables:
        half = args.iterations // 2
        for data in args.sets:
            with ThreadPoolExecutor(args.jobs) as pool:
                tuning = itertools.product(networks_of(data), RATES)
                list(pool.map(lambda job: runs.train(data, *job, TUNING_SEED, half), tuning))
                rates = {network: runs.best_rate(data, network, half) for network in networks_of(data)}
                final = itertools.product(SEEDS, networks_of(data))
                list(pool.map(lambda job: runs.train(data, job[1], rates[job[1]], job[0], args.iterations), final))
    tables(runs, args.iterations)


if __name__ == "__main__":
    main()
