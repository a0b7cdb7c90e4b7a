"""What the Python package costs: the time of its import, and of a prediction beside the loop inside `structtoken predict`.

    python3 -m venv venv && venv/bin/pip install --requirement .ci/python.txt ./bindings/python
    venv/bin/python benches/python_package.py [--rounds 7] [--size 512] [--threads 2] [--repeat 20]

Both sides read the same model and photo, and are run in turns: `benches/predict_loop.rs`, a program without Python, and `Model.predict` of
an array. The median over all repetitions of a round is one number; the quotient of each round's two is what is compared. Builds are
those of `cargo bench` and of maturin, both optimised.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
RECIPE = """
[model.backbone]
type = "vit"
size = "tiny"

[model.decoder]
type = "structtoken"
block = "pwe"

[data]
dataset = "shapes"
shapes = { size = 128, train = 4, val = 1 }

[data.augment]
resize = "none"
crop = [64, 64]

[train]
iterations = 1
batch_size = 1
eval_every = 1
save_every = 1
restarts = 0

[train.schedule]
warmup_iters = 0

[eval]
mode = "whole"
resize = "none"
"""


def imports(count: int) -> list[float]:
    """Seconds of `import structtoken` in fresh interpreters."""
    text = "import time; start = time.perf_counter(); import structtoken; print(time.perf_counter() - start)"
    return [float(subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, check=True).stdout) for _ in range(count)]


def by_python(model: str, photo: str, threads: int, repeat: int) -> list[float]:
    """Milliseconds of each prediction in this process."""
    import numpy
    import structtoken
    from PIL import Image

    opened, image = structtoken.Model.open(model, threads=threads, device="cpu"), numpy.asarray(Image.open(photo))
    found = []
    for _ in range(repeat + 2):
        start = time.perf_counter()
        opened.predict(image)
        found.append(1e3 * (time.perf_counter() - start))
    return found[2:]


def run(words: list[object]) -> list[float]:
    """The numbers that a program prints, one per line."""
    done = subprocess.run([str(word) for word in words], cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(done.stderr)
    return [float(line) for line in done.stdout.split()]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--repeat", type=int, default=20, help="predictions per round")
    parser.add_argument("--size", type=int, default=512, help="side of the image")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--model", help="a model file in place of a ViT-T with random weights")
    parser.add_argument("--side", nargs=2, help=argparse.SUPPRESS)
    a = parser.parse_args()
    if a.side:
        print(*by_python(*a.side, a.threads, a.repeat), sep="\n")
        return

    import numpy
    import structtoken
    from PIL import Image

    with tempfile.TemporaryDirectory() as folder:
        recipe, photo = Path(folder) / "recipe.toml", Path(folder) / "photo.png"
        recipe.write_text(RECIPE)
        model = a.model or structtoken.train(recipe, Path(folder) / "run")["model"]
        Image.fromarray(numpy.random.default_rng(0).integers(0, 256, [a.size, a.size, 3], dtype=numpy.uint8)).save(photo)
        loop = ["cargo", "bench", "--quiet", "--package", "structtoken-benches", "--bench", "predict_loop", "--"]
        loop += [model, photo, a.threads, a.repeat]
        package = [sys.executable, __file__, "--side", model, photo, "--threads", a.threads, "--repeat", a.repeat]
        run([*loop[:-1], 1])  # builds it
        rounds = []
        for at in range(a.rounds):
            # Who comes first changes.
            sides = {"loop": loop, "package": package} if at % 2 else {"package": package, "loop": loop}
            rounds.append({name: statistics.median(run(words)) for name, words in sides.items()})
        took = imports(3 * a.rounds)
    quotients = sorted(each["package"] / each["loop"] for each in rounds)
    median = {name: round(statistics.median(each[name] for each in rounds), 3) for name in ("loop", "package")}
    print(json.dumps({
        "import_s": {"median": round(statistics.median(took), 4), "max": round(max(took), 4), "n": len(took)},
        "ms_per_image": median,
        "package_over_loop": {"median": round(statistics.median(quotients), 4), "min": round(quotients[0], 4), "max": round(quotients[-1], 4)},
        "size": a.size, "threads": a.threads, "rounds": a.rounds, "repeat": a.repeat,
    }, indent=1))


if __name__ == "__main__":
    main()
