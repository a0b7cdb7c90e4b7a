#!/usr/bin/env python3
"""Labels ten images in a browser and on the command line, and compares: python3 scripts/web_check.py [MODEL…]

    cargo build --release --features full
    python3 -m venv venv && venv/bin/pip install --requirement .ci/web.txt
    venv/bin/python scripts/web_check.py --work web-files --table table.md
    venv/bin/python scripts/web_check.py --work web-files --train pwe-vit,eomt-vit --precision f32,f16     # some of the small models

Without models, small ones are trained, one for each decoder. Each is exported as a page, which is sent by a server of static files, once
with the headers that allow threads and once without. Chromium labels ten PNGs (browsers decode JPEG in ways of their own): as large as a
window, larger, smaller, of odd sides. Masks have to be those of `structtoken predict` in 99.99 % of the pixels of each; of a smaller precision
in 98 % (f16) or 90 % of all. A precision that the export refuses is named. No request may leave the server's address, and the page has to work after the network is gone. With --ui the page is
also used as a person would use it, and with --webgpu the graphics card is asked (--software-gpu emulates one): it must give the same
labels, and a page whose check it fails must take WebAssembly instead and say so.

Takes Debian's `chromium` if Playwright's own is not installed (CHROMIUM names another one). onnxruntime-web comes from npm, by the command
that `structtoken export --web` prints; --runtime names an unpacked one. Ends with 1 if anything is not as it should be.
"""

import argparse
import functools
import http.server
import io
import json
import os
import re
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy
from PIL import Image
from playwright.sync_api import sync_playwright

sys.path.insert(0, str(Path(__file__).parent / "serve"))
import page as ui

# The share of labels that a page must have in common with the program. What smaller precisions may change is settled when the page is
# written, on validation images; pictures drawn here are unlike those, and labels of networks that have learned little are close to a tie.
SAME = {"f32": 0.9999, "f16": 0.98, "int8": 0.9, "int8-dynamic": 0.9}
RECIPE = """
[model.backbone]
{backbone}
[model.decoder]
{decoder}
[data]
dataset = "shapes"
shapes = {{ size = 64, train = 400, val = 8 }}
[data.augment]
resize = "none"
crop = [64, 64]
[train]
iterations = {iterations}
batch_size = 4
eval_every = 0
[train.optimizer]
lr = 2e-3
[eval]
{eval}
"""
VIT = 'type = "vit"\nembed_dim = 48\ndepth = 2\nnum_heads = 3\npatch_size = 8\nimg_size = [64, 64]'
UNET = 'type = "unet"\nchannels = [16, 32, 64]\ndepths = [1, 1, 1]\nstem_stride = 2\nimg_size = [64, 64]'
RESNET = 'type = "resnet"\nlayers = 18\ndepths = [1, 1, 1, 1]\nstem_channels = 16\nchannels = [16, 32, 32, 64]'
WHOLE = 'mode = "whole"'
SLIDE = 'mode = "slide"\ncrop = [64, 64]\nstride = [42, 42]'
MODELS = {
    # Backbone, decoder, windows, iterations of training.
    "pwe-vit": (VIT, 'type = "structtoken"\nblock = "pwe"\nnum_blocks = 2', SLIDE, 150),
    "eomt-vit": (VIT, 'type = "eomt"\nnum_queries = 9\nnum_blocks = 1', SLIDE + "\nresize = [256, 96]", 25),
    "sse-unet": (UNET, 'type = "structtoken"\nblock = "sse"\nnum_blocks = 1', WHOLE, 150),
    "cse-vit": (VIT, 'type = "structtoken"\nblock = "cse"\nnum_blocks = 2', WHOLE, 150),
    "fcn-resnet": (RESNET, 'type = "fcn"\nchannels = 32', SLIDE + "\nscales = [1.0, 1.5]\nflip = true", 150),
    "segmenter-vit": (VIT, 'type = "segmenter"', SLIDE, 150),
    "knet-vit": (VIT, 'type = "knet"', SLIDE, 50),
    "maskformer-vit": (VIT, 'type = "maskformer"\nnum_queries = 9', SLIDE + "\nresize = [256, 96]", 10),
    "mask2former-vit": (VIT, 'type = "mask2former"\nnum_queries = 9', SLIDE, 5),
}


def run(*words, **options):
    done = subprocess.run([str(word) for word in words], capture_output=True, text=True, **options)
    if done.returncode:
        sys.exit(f"{' '.join(map(str, words))}\n{done.stdout}{done.stderr}")
    return done.stdout + done.stderr


def trained(binary, work, names):
    """Small models, of a decoder and a backbone each."""
    for name in names:
        backbone, decoder, settings, iterations = MODELS[name]
        model = work / "runs" / name / "model.safetensors"
        if not model.exists():
            recipe = work / f"{name}.toml"
            recipe.write_text(RECIPE.format(backbone=backbone, decoder=decoder, eval=settings, iterations=iterations))
            run(binary, "train", recipe, "--device", "cpu", "--out", model.parent)
        yield model


def package(binary, model, work):
    """onnxruntime-web, got as the command says that it is to be got."""
    done = subprocess.run([binary, "export", model, "--web", work / "none"], capture_output=True, text=True)
    found = re.search(r"hint: get it from npm: (.*?); then pass (--runtime \S+)", done.stderr.replace("\n", " "))
    ui.check("a missing runtime is told, with how to get it", done.returncode == 1 and found and not (work / "none").exists(), done.stderr)
    folder = work / found[2].split()[1]
    if not folder.exists():
        print(f"      {found[1]}")
        subprocess.run(found[1], shell=True, cwd=work, check=True, capture_output=True)
    return folder


def pictures(folder, height, width):
    """Ten PNGs with things on them, of sizes around that of a window."""
    folder.mkdir(parents=True, exist_ok=True)
    sizes = [(1, 1), (1, 1), (1.5, 1.2), (2, 3), (1, 2.3), (2.7, 1), (0.6, 0.8), (0.5, 1.7), (3.1, 2.9), (1.03, 1.01)]
    for at, (tall, wide) in enumerate(sizes):
        rng = numpy.random.default_rng(at)
        h, w = max(8, round(tall * height)), max(8, round(wide * width))
        y, x = numpy.mgrid[0:h, 0:w]
        image = rng.uniform(40, 200, 3) + 30 * numpy.sin(x / rng.uniform(5, 40) + y / rng.uniform(5, 40))[..., None]
        for _ in range(3 + h * w // 3000):
            cy, cx, r = rng.uniform(0, h), rng.uniform(0, w), rng.uniform(0.08, 0.3) * min(height, width)
            inside = abs(y - cy) + abs(x - cx) < r if rng.random() < 0.3 else (y - cy) ** 2 + (x - cx) ** 2 < r * r
            if rng.random() < 0.4:
                inside = (abs(y - cy) < r) & (abs(x - cx) < r)
            image[inside] = rng.uniform(0, 255, 3)
        image = numpy.clip(image + rng.normal(0, 8, image.shape), 0, 255).astype(numpy.uint8)
        Image.fromarray(image).save(folder / f"{at}.png")
    return sorted(folder.glob("*.png"))


def view_sizes(settings, height, width):
    """Heights and widths at which an image is seen, one for each scale."""
    for scale in settings["scales"]:
        if settings["resize"]:
            long, short = (int(side * scale) for side in sorted(settings["resize"], reverse=True))
            factor = min(long / max(height, width), short / min(height, width))
        else:
            factor = scale
        yield tuple(max(1, int(side * factor + 0.5)) for side in (height, width))


def native(binary, model, settings, images, folder):
    """What the program says of images, with windows as the page has them, and seconds an image. An image smaller than a window is given to it
    as the page sees it: continued by its mirror image."""
    inputs, cuts = folder / "inputs", {}
    inputs.mkdir(parents=True, exist_ok=True)
    for path in images:
        image = numpy.asarray(Image.open(path).convert("RGB"))
        sizes = list(view_sizes(settings, *image.shape[:2]))
        short = [max(0, crop - min(size[side] for size in sizes)) for side, crop in enumerate(settings["crop"])]
        if any(short) and sizes != [image.shape[:2]]:
            continue  # what is resized first cannot be given to the program as the page sees it
        cuts[path.name] = image.shape[:2]
        Image.fromarray(numpy.pad(image, [(0, short[0]), (0, short[1]), (0, 0)], "symmetric")).save(inputs / path.name)
    changes = [word for key in ("crop", "stride") for word in ("--set", f"eval.{key}={settings[key]}")]
    names = [inputs / name for name in cuts]
    began = time.perf_counter()
    run(binary, "predict", model, *names, "--out", folder / "masks", "--overwrite", "--device", "cpu", "--set", "eval.mode=slide", *changes)
    seconds = (time.perf_counter() - began) / len(names)
    masks = {name: numpy.asarray(Image.open(folder / "masks" / name))[: size[0], : size[1]] for name, size in cuts.items()}
    return masks, seconds


class Handler(http.server.SimpleHTTPRequestHandler):
    isolated = False
    first = {}  # what is sent in the place of a file when it is first asked for
    extensions_map = {**http.server.SimpleHTTPRequestHandler.extensions_map, ".mjs": "text/javascript", ".js": "text/javascript", ".wasm": "application/wasm"}

    def end_headers(self):
        if self.isolated:
            self.send_header("Cross-Origin-Opener-Policy", "same-origin")
            self.send_header("Cross-Origin-Embedder-Policy", "require-corp")
        super().end_headers()

    def do_GET(self):
        other = self.first.pop(self.path, None)
        if other is None:
            return super().do_GET()
        self.send_response(200)
        self.send_header("Content-Type", self.guess_type(self.path))
        self.send_header("Content-Length", str(len(other)))
        self.end_headers()
        self.wfile.write(other)

    def log_message(self, *_):
        pass


def served(folder, isolated, first=None):
    kind = type("Isolated" if isolated else "Plain", (Handler,), {"isolated": isolated, "first": first or {}})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(kind, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server, f"http://127.0.0.1:{server.server_address[1]}/"


def timing(page):
    """Seconds that the page says it took, by step, and what computed it."""
    text = page.inner_text("#timing")
    steps = re.findall(r"(decode|network|labels) ([\d.]+) (ms|s)\b", text)
    return sum(float(value) / (1000 if unit == "ms" else 1) for _, value, unit in steps), text.rsplit(" · ", 1)[-1]


def compared(browser, url, images, masks, same_at_least, query=""):
    """The page on every image: seconds to be ready, seconds an image, what computed it, and the share of labels that are the program's."""
    page = ui.opened(browser, url + query, viewport={"width": 1000, "height": 700})
    began, start, spent, same, pixels, by = time.perf_counter(), None, [], 0, 0, ""
    for at, path in enumerate(images):
        # What is there is that of the image before.
        page.evaluate("document.querySelector('.stage').classList.remove('ready'); document.getElementById('dismiss').click()")
        ui.drop(page, path, "image/png")
        page.wait_for_selector(".stage.ready, #problem:not([hidden])", timeout=ui.WAIT)
        if page.locator("#problem").is_visible():
            ui.check(f"{path.name} is labelled", False, page.inner_text("#problem"))
            continue
        start = start or time.perf_counter() - began
        seconds, by = timing(page)
        spent.append(seconds)
        _, data = ui.saved(page, "mask")
        mask = numpy.asarray(Image.open(io.BytesIO(data)))
        if at == len(images) - 2:
            page.context.set_offline(True)  # all that is needed is there
        if path.name in masks:
            agree = mask.shape == masks[path.name].shape and (mask == masks[path.name]).sum()
            if same_at_least == SAME["f32"]:
                ui.check(f"{path.name} of {mask.shape}: labels are the program's", agree >= same_at_least * mask.size - 1, f"{agree} of {mask.size}")
            same, pixels = same + int(agree), pixels + mask.size
    page.context.close()
    ui.check(f"{100 * same_at_least:g} % of all labels are the program's", same >= same_at_least * pixels - len(masks), f"{same} of {pixels}")
    return start, sum(spent) / max(1, len(spent)), by, same / max(1, pixels)


def spoiled(folder):
    """The stored labels of a page's stored image, each as another class."""
    labels = Image.open(folder / "golden-labels.png")
    values = (numpy.asarray(labels).astype(int) + 1) % len(json.loads((folder / "model.json").read_text())["classes"])
    changed, file = Image.fromarray(values.astype(numpy.uint8), "P"), io.BytesIO()
    changed.putpalette(labels.getpalette())
    changed.save(file, "PNG")
    return file.getvalue()


def falls_back(browser, folder, image, masks, same_at_least):
    """A page on which WebGPU seems to give other labels than the model: it is asked first, and gets spoiled ones to compare with."""
    first = {"/golden-labels.png": spoiled(folder)}
    server, url = served(folder, True, first)
    page = ui.opened(browser, url + "?by=webgpu", viewport={"width": 1000, "height": 700})
    ui.drop(page, image, "image/png")
    page.wait_for_selector(".stage.ready, #problem:not([hidden])", timeout=ui.WAIT)
    text = page.inner_text("#timing") or page.inner_text("#problem")
    ui.check("WebGPU that gives other labels is not used, and the page says so", "WebAssembly" in text and "WebGPU gives other labels" in text, text)
    ui.check("the spoiled labels were asked for", not first)
    mask = numpy.asarray(Image.open(io.BytesIO(ui.saved(page, "mask")[1])))
    ui.check("WebAssembly labels in its place", (mask == masks[image.name]).mean() >= same_at_least, mask.shape)
    page.context.close()
    server.shutdown()


def refused(browser, folder):
    """A page whose model says something else than it should is not used."""
    broken = folder.with_name(folder.name + "-broken")

    def write(name, data):
        (broken / name).write_bytes(data)

    spoils = {
        "another golden answer": lambda: write("golden-labels.png", spoiled(folder)),
        "a model cut short": lambda: write("model.onnx", (folder / "model.onnx").read_bytes()[:-100]),
        "a missing runtime": lambda: (broken / "ort/ort.wasm.min.mjs").unlink(),
    }
    told = set()
    for what, spoil in spoils.items():
        shutil.rmtree(broken, ignore_errors=True)
        shutil.copytree(folder, broken)
        spoil()
        server, url = served(broken, False)
        page = browser.new_context().new_page()
        page.goto(url + "?by=wasm")
        page.wait_for_selector("#knows:not([hidden])")
        ui.drop(page, folder / "golden.png", "image/png")
        page.wait_for_selector("#problem:not([hidden])", timeout=ui.WAIT)
        text = page.inner_text("#problem")
        ui.check(f"{what} is told", "undefined" not in text and len(text) > 30 and not page.locator(".stage.ready").is_visible(), text)
        print(f"      {text.splitlines()[0]}")
        told.add(text)
        page.context.close()
        server.shutdown()
    ui.check("each damage is told in its own words", len(told) == len(spoils), told)


def unserved(browser, folder):
    """A page that is opened from a disk says what it needs."""
    page = browser.new_context().new_page()
    page.goto((folder / "index.html").as_uri())
    page.wait_for_selector("#problem:not([hidden])", timeout=ui.WAIT)
    text = page.inner_text("#problem")
    ui.check("a page that is opened from a disk says what it needs", "web server" in text, text)
    page.context.close()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", type=Path)
    parser.add_argument("--train", default=",".join(MODELS), help="without models: which of the small ones, separated by commas")
    parser.add_argument("--binary", type=Path, default=Path("target/release/structtoken"))
    parser.add_argument("--work", type=Path, default=Path("web-files"))
    parser.add_argument("--runtime", type=Path)
    parser.add_argument("--size", help="as of `structtoken export`")
    parser.add_argument("--precision", default="f32", help="as of `structtoken export`, or several, separated by commas")
    parser.add_argument("--table", type=Path)
    parser.add_argument("--shots", type=Path)
    parser.add_argument("--ui", action="store_true")
    parser.add_argument("--webgpu", action="store_true")
    parser.add_argument("--software-gpu", action="store_true", help="--webgpu on an emulated graphics card")
    arguments = parser.parse_args()
    binary, work = arguments.binary.resolve(), arguments.work.resolve()
    work.mkdir(parents=True, exist_ok=True)
    models = [path.resolve() for path in arguments.models] or list(trained(binary, work, arguments.train.split(",")))
    runtime = arguments.runtime or package(binary, models[0], work)
    rows, webgpu = [], arguments.webgpu or arguments.software_gpu
    with sync_playwright() as playwright:
        if arguments.software_gpu:
            ui.OPTIONS += ["--enable-unsafe-webgpu", "--use-webgpu-adapter=swiftshader"]
        browser = ui.launch(playwright)
        last = None
        for model, precision in ((model, precision) for model in models for precision in arguments.precision.split(",")):
            name = (model.parent.name if model.stem == "model" else model.stem) + ("" if precision == "f32" else f"-{precision}")
            print(f"-- {name}", flush=True)
            folder = work / "pages" / name
            shutil.rmtree(folder, ignore_errors=True)
            folder.parent.mkdir(exist_ok=True)
            size = ["--size", arguments.size] if arguments.size else []
            words = [binary, "export", model, "--web", folder, "--runtime", runtime, "--precision", precision, *size]
            made = subprocess.run([str(word) for word in words], capture_output=True, text=True)
            if made.returncode:
                # Which a smaller precision may be too coarse for.
                ui.check(f"not exported: {made.stderr.strip()}", precision != "f32" and "is not the same model" in made.stderr)
                continue
            settings = json.loads((folder / "model.json").read_text())["settings"]
            images = pictures(work / "images" / "x".join(map(str, settings["crop"])), *settings["crop"])
            masks, seconds = native(binary, model, settings, images, work / "native" / name)
            megabytes = (folder / "model.onnx").stat().st_size / 1e6
            rows.append((name, settings["crop"], megabytes, "`structtoken predict`", None, seconds, None))
            ways = [(False, "?by=wasm"), (True, "?by=wasm")] + ([(True, "?by=webgpu")] if webgpu else [])
            for isolated, query in ways:
                server, url = served(folder, isolated)
                some = images
                if "webgpu" in query and arguments.software_gpu:  # which takes a second for a window
                    some = [path for path in images if path.name in masks][:2]
                start, each, by, same = compared(browser, url, some, masks, SAME[precision], query)
                wanted = "WebGPU" if "webgpu" in query else "WebAssembly, 1 thread" if not isolated or os.cpu_count() == 1 else "threads"
                # A graphics card that gave other labels is named too, behind what took its place.
                ui.check(f"computed by {wanted}", by.startswith(wanted) if wanted == "WebGPU" else wanted in by, by)
                rows.append((name, settings["crop"], megabytes, by, start, each, same))
                server.shutdown()
            last = folder, next(path for path in images if path.name in masks), masks, SAME[precision]
        if last is None:
            sys.exit("no page was written")
        folder, photo, masks, same = last
        refused(browser, folder)
        if webgpu:
            falls_back(browser, folder, photo, masks, same)
        if arguments.ui:
            server, url = served(folder, True)
            unserved(browser, folder)
            for part in (ui.desktop, ui.keyboard, ui.phone, ui.other_ways):
                print(f"-- {part.__name__}")
                part(browser, url, images[8], arguments.shots)
        browser.close()
    lines = ["| model | window | MB | by | ready after | seconds per image | same labels |", "|---|---|---|---|---|---|---|"]
    for name, crop, megabytes, by, start, each, same in rows:
        ready = "" if start is None else f"{start:.1f} s"
        agree = "" if same is None else f"{100 * same:.3f} %"
        lines.append(f"| {name} | {crop[0]} x {crop[1]} | {megabytes:.1f} | {by} | {ready} | {each:.3f} | {agree} |")
    print("\n".join(lines))
    if arguments.table:
        arguments.table.write_text("\n".join(lines) + "\n")
    print(f"{len(ui.failures)} failed")
    sys.exit(bool(ui.failures))


if __name__ == "__main__":
    main()
