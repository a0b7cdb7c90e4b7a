#!/usr/bin/env python3
"""Times pages that `structtoken export --web` writes, beside `structtoken predict`: python3 scripts/web_time.py --work web-times

    cargo build --release --features full
    python3 -m venv venv && venv/bin/pip install --requirement .ci/web.txt
    venv/bin/python scripts/web_time.py --work web-times --prepare          # models and pages, which are kept
    venv/bin/python scripts/web_time.py --work web-times --table table.md   # times them

StructToken-PWE with weights that were trained for two iterations, since time does not depend on them. An image is as large as a window, so
that the network sees it once. Of the page: seconds until the first image is labelled, from opening it with an empty cache on this
machine, and the median of the following images, from the file to the labels. Of the program: seconds of the command for one image, and of
each further one.
"""

import argparse
import statistics
import sys
import time
from pathlib import Path

from playwright.sync_api import sync_playwright

sys.path.insert(0, str(Path(__file__).parent))
import web_check as check
from web_check import ui

MODELS = {"ViT-T 256": ("tiny", 256), "ViT-T 384": ("tiny", 384), "ViT-S 512": ("small", 512)}
PRECISIONS = ["f32", "f16", "int8", "int8-dynamic"]
RECIPE = """
[model.backbone]
type = "vit"
size = "{size}"
img_size = [{side}, {side}]
[model.decoder]
type = "structtoken"
block = "pwe"
[data]
dataset = "shapes"
shapes = {{ size = {side}, train = 4, val = 1 }}
[data.augment]
resize = "none"
crop = [{side}, {side}]
[train]
iterations = 2
batch_size = 1
eval_every = 0
[eval]
mode = "slide"
crop = [{side}, {side}]
stride = [{side}, {side}]
"""


def prepared(binary, work, runtime, name, precision):
    """A model, its page, and a picture of its size; made where they are not there."""
    size, side = MODELS[name]
    model, page, picture = work / f"{size}{side}" / "model.safetensors", work / f"page-{size}{side}-{precision}", work / f"{side}.png"
    if not model.exists():
        recipe = work / f"{size}{side}.toml"
        recipe.write_text(RECIPE.format(size=size, side=side))
        check.run(binary, "train", recipe, "--device", "cpu", "--out", model.parent)
    if not page.exists():
        runtime = runtime or check.package(binary, model, work)
        check.run(binary, "export", model, "--web", page, "--runtime", runtime, "--precision", precision, "--images", "1")
    if not picture.exists():
        check.pictures(work / "drawn", side, side)[0].rename(picture)
    return model, page, picture


def native(binary, model, picture, work, count):
    """Seconds of one image more: what `count` of them take longer than one does."""

    def predict(many):
        images = [work / "inputs" / f"{at}.png" for at in range(many)]
        images[0].parent.mkdir(exist_ok=True)
        for path in images:
            path.write_bytes(picture.read_bytes())
        began = time.perf_counter()
        check.run(binary, "predict", model, *images, "--out", work / "masks", "--overwrite", "--device", "cpu")
        return time.perf_counter() - began

    alone = predict(1)
    return alone, (predict(1 + count) - alone) / count


def in_browser(browser, folder, picture, isolated, count):
    """Seconds until the first image is labelled, and those of each further one."""
    server, url = check.served(folder, isolated)
    began = time.perf_counter()
    page = ui.opened(browser, url + "?by=wasm", viewport={"width": 1000, "height": 700})
    spent = []
    for at in range(1 + count):
        page.evaluate("document.querySelector('.stage').classList.remove('ready')")
        ui.drop(page, picture, "image/png")
        page.wait_for_selector(".stage.ready, #problem:not([hidden])", timeout=ui.WAIT)
        if page.locator("#problem").is_visible():
            sys.exit(page.inner_text("#problem"))
        seconds, by = check.timing(page)
        start = start if at else time.perf_counter() - began
        spent.append(seconds)
    page.context.close()
    server.shutdown()
    return by, start, statistics.median(spent[1:])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--binary", type=Path, default=Path("target/release/structtoken"))
    parser.add_argument("--work", type=Path, default=Path("web-times"))
    parser.add_argument("--runtime", type=Path, help="onnxruntime-web, unpacked")
    parser.add_argument("--models", default=",".join(MODELS), help="some of these, separated by commas")
    parser.add_argument("--precision", default="f32", help="one or several of " + ", ".join(PRECISIONS))
    parser.add_argument("--images", type=int, default=3, help="after the first")
    parser.add_argument("--prepare", action="store_true", help="only make what is to be timed")
    parser.add_argument("--table", type=Path)
    arguments = parser.parse_args()
    binary, work = arguments.binary.resolve(), arguments.work.resolve()
    work.mkdir(parents=True, exist_ok=True)
    cases = [(name, precision) for name in arguments.models.split(",") for precision in arguments.precision.split(",")]
    made = {case: prepared(binary, work, arguments.runtime, *case) for case in cases}
    if arguments.prepare:
        return
    lines = ["| model | MB | by | first image after | seconds per image |", "|---|---|---|---|---|"]
    with sync_playwright() as playwright:
        browser = ui.launch(playwright)
        for (name, precision), (model, folder, picture) in made.items():
            if precision == "f32":
                first, each = native(binary, model, picture, work, arguments.images)
                lines.append(f"| {name} | {model.stat().st_size / 1e6:.0f} | `structtoken predict` | {first:.1f} s | {each:.2f} |")
            size = (folder / "model.onnx").stat().st_size / 1e6
            for isolated in (False, True) if precision == "f32" else (True,):
                by, first, each = in_browser(browser, folder, picture, isolated, arguments.images)
                lines.append(f"| {name}, {precision} | {size:.0f} | {by} | {first:.1f} s | {each:.2f} |")
                print(lines[-1], flush=True)
        browser.close()
    print("\n".join(lines))
    if arguments.table:
        arguments.table.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
