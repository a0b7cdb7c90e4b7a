#!/usr/bin/env python3
"""Uses the page of a running server as a person would, in Chromium: python3 scripts/serve/page.py URL IMAGE [FOLDER]

    structtoken serve runs/x/model.safetensors &
    python3 -m venv venv && venv/bin/pip install playwright==1.65.2 pillow
    venv/bin/python scripts/serve/page.py http://127.0.0.1:8080/ photo.jpg shots/

Takes Debian's `chromium` if Playwright's own is not installed (CHROMIUM names another one). Ends with 1 if anything is not as it should be,
and writes screenshots to FOLDER if it is given. TOKEN in the environment is typed where the page asks for one.
"""

import base64
import io
import json
import os
import random
import shutil
import sys
from pathlib import Path

from PIL import Image, ImageChops
from playwright.sync_api import sync_playwright

WAIT = 600_000  # milliseconds for an answer, however slow the machine
OPTIONS = ["--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream", "--no-sandbox"]
failures = []


def check(name, holds, found=""):
    print(("ok    " if holds else "FAILED") + f" {name}" + (f": {found}" if found != "" and not holds else ""))
    if not holds:
        failures.append(name)


def launch(playwright):
    path = os.environ.get("CHROMIUM") or (None if Path(playwright.chromium.executable_path).exists() else shutil.which("chromium"))
    return playwright.chromium.launch(executable_path=path, args=OPTIONS)


def opened(browser, url, **options):
    """A page whose errors count as failures, with the models listed."""
    context = browser.new_context(accept_downloads=True, **options)
    page = context.new_page()
    page.set_default_timeout(WAIT)
    own = url.split("?")[0]
    page.on("pageerror", lambda error: check(f"no exception: {error}", False))
    page.on("console", lambda message: check(f"nothing in the console: {message.text}", False) if message.type == "error" and "status of 4" not in message.text else None)
    page.on("request", lambda request: check(f"asks nobody else: {request.url}", False) if not request.url.startswith((own, "blob:", "data:")) else None)
    page.goto(url)
    page.wait_for_selector("#knows:not([hidden]), #token-form:not([hidden])")
    if page.locator("#token-form").is_visible():
        page.fill("#token", os.environ["TOKEN"])
        page.keyboard.press("Enter")
        page.wait_for_selector("#knows:not([hidden])")
    return page


def drop(page, path, kind="image/jpeg"):
    """Drops a file on the page, as a file manager does."""
    data = list(Path(path).read_bytes())
    page.evaluate(
        """([data, name, type]) => {
            const transfer = new DataTransfer();
            transfer.items.add(new File([new Uint8Array(data)], name, { type }));
            for (const kind of ["dragenter", "dragover", "drop"]) {
                document.body.dispatchEvent(new DragEvent(kind, { bubbles: true, cancelable: true, dataTransfer: transfer }));
            }
        }""",
        [data, Path(path).name, kind],
    )


def settled(page, milliseconds=150):
    """Waits until what is to be drawn is drawn: two frames, however long these take, and a moment for transitions."""
    page.evaluate("() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(() => done())))")
    page.wait_for_timeout(milliseconds)


def labelled(page):
    page.wait_for_selector(".stage.ready", timeout=WAIT)
    settled(page, 400)


def pixels(page):
    """The labels as they are drawn, as an image with transparency."""
    data = page.evaluate("document.querySelector('.stage .labels').toDataURL()")
    return Image.open(io.BytesIO(base64.b64decode(data.split(",")[1]))).convert("RGBA")


def covered(image):
    """Share of the pixels on which a label is drawn, and how strongly the strongest covers."""
    alpha = image.getchannel("A")
    return 1 - alpha.histogram()[0] / (image.width * image.height), alpha.getextrema()[1]


def saved(page, kind):
    with page.expect_download(timeout=WAIT) as waiting:
        page.click(f"[data-file={kind}]")
    return waiting.value.suggested_filename, Path(waiting.value.path()).read_bytes()


def slide(page, selector, value):
    page.evaluate(
        "([selector, value]) => { const input = document.querySelector(selector); input.value = value; input.dispatchEvent(new Event('input', { bubbles: true })); }",
        [selector, value],
    )
    settled(page)


def until(page, what):
    """Waits for an expression; Playwright's own way of waiting would need `eval`, which the page's policy forbids."""
    for _ in range(WAIT // 100):
        if page.evaluate(what):
            return
        page.wait_for_timeout(100)
    raise TimeoutError(what)


def shot(page, folder, name, **options):
    if folder:
        page.screenshot(path=folder / f"{name}.png", **options)


def desktop(browser, url, image, folder):
    page = opened(browser, url, viewport={"width": 1280, "height": 860}, color_scheme="light")
    shot(page, folder, "start")
    width, height = Image.open(image).size
    drop(page, image)
    labelled(page)
    shot(page, folder, "light")
    share, strongest = covered(pixels(page))
    check("labels cover the photo", share > 0.05, share)

    slide(page, "#opacity", 0)
    check("opacity 0 takes the labels away", covered(pixels(page))[0] == 0)
    slide(page, "#opacity", 100)
    check("opacity 100 covers", covered(pixels(page))[1] == 255)
    check("opacity is said", page.inner_text("#opacity-value") == "100 %")
    slide(page, "#opacity", 55)

    box = page.locator(".stage .photo").bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    text = page.inner_text("#readout")
    names = page.locator(".legend b").all_inner_texts()
    check("hover says class, confidence and place", any(name in text for name in names) and "% confidence" in text and "x " in text, text)
    page.mouse.move(5, 5)
    check("and stops when the pointer leaves", "Point at" in page.inner_text("#readout"), page.inner_text("#readout"))

    first = page.locator(".legend .row").first
    whole = covered(pixels(page))[0]
    first.click()
    page.mouse.move(5, 5)
    settled(page)
    alone = covered(pixels(page))[0]
    check("a class is shown alone", first.get_attribute("aria-pressed") == "true" and (alone <= whole), (alone, whole))
    check("and all can be shown again", page.locator("#all").is_visible())
    page.click("#all")
    page.locator(".legend .icon").first.click()
    page.mouse.move(5, 5)
    settled(page)
    check("a class is hidden", abs(covered(pixels(page))[0] + alone - whole) < 0.02, (covered(pixels(page))[0], alone, whole))
    page.click("#all")
    page.check("#layer [value=confidence]")
    settled(page)
    shot(page, folder, "confidence")
    page.check("#layer [value=classes]")

    name, data = saved(page, "mask")
    mask = Image.open(io.BytesIO(data))
    check("the mask is an indexed PNG of the photo's size", name.endswith(".png") and mask.mode == "P" and mask.size == (width, height), (name, mask.mode, mask.size))
    name, data = saved(page, "overlay")
    overlay = Image.open(io.BytesIO(data)).convert("RGB")
    photo = Image.open(image).convert("RGB")
    check("the overlay is the photo with something over it", overlay.size == photo.size and ImageChops.difference(overlay, photo).getbbox() is not None)
    if page.locator("[data-file=geojson]").is_visible():
        name, data = saved(page, "geojson")
        check("the outlines are GeoJSON", name.endswith(".geojson") and json.loads(data)["type"] == "FeatureCollection")

    if page.locator("#tokens").is_visible():
        tokens(page, folder)
    models = page.locator("#model option").all_inner_texts()
    if len(models) > 1:
        page.select_option("#model", models[1])
        check("another model labels again", not page.locator(".stage.ready").is_visible())
        labelled(page)
        check("and is in the command", f"model={models[1]}" in page.inner_text("#command"))
    page.context.close()


def tokens(page, folder):
    last = int(page.get_attribute("#block", "max"))
    answer = pixels(page)
    slide(page, "#block", 0)
    check("the first block is shown and named", page.locator("#moment").is_visible() and page.inner_text("#moment") == page.inner_text("#block-name"))
    check("and looks otherwise than the answer", ImageChops.difference(pixels(page).convert("RGB"), answer.convert("RGB")).getbbox() is not None)
    shot(page, folder, "tokens", full_page=True)
    slide(page, "#block", last)
    check("the last position is the answer", not page.locator("#moment").is_visible() and ImageChops.difference(pixels(page), answer).getbbox() is None)
    check("a map for every class and block", page.locator(".maps td img").count() == last * page.locator(".maps tbody tr").count())
    check("all maps load", page.evaluate("Promise.all([...document.querySelectorAll('.maps img')].map((image) => image.decode().then(() => image.naturalWidth > 0, () => false))).then((all) => all.every(Boolean))"))
    page.click("#play")
    until(page, "document.getElementById('block').value === '0'")
    until(page, f"document.getElementById('block').value === '{last}'")
    check("it plays to the end", True)


def keyboard(browser, url, image, folder):
    page = opened(browser, url, viewport={"width": 1280, "height": 860}, color_scheme="dark")
    check("dark is dark", sum(map(int, page.evaluate("getComputedStyle(document.body).backgroundColor").strip("rgb()").split(","))) < 150)
    drop(page, image)
    labelled(page)
    shot(page, folder, "dark")
    seen = []
    page.focus(".skip")
    for _ in range(60):
        page.keyboard.press("Tab")
        found = page.evaluate(
            """() => { const one = document.activeElement; if (!one || one === document.body) return null;
                const held = one.type === "radio" ? one.nextElementSibling : one;
                return [one.id || one.dataset.file || one.className || one.tagName, getComputedStyle(held).outlineStyle !== "none"]; }"""
        )
        if found is None:
            break
        seen.append(found)
    reached = {name for name, _ in seen}
    files = [button.get_attribute("data-file") for button in page.locator("[data-file]").all() if button.is_visible()]
    for name in ["theme", "stage", "opacity", "row", *files]:
        check(f"Tab reaches {name}", name in reached, reached)
    check("focus is visible everywhere", all(visible for _, visible in seen), [name for name, visible in seen if not visible])
    page.focus("#stage")
    page.keyboard.press("ArrowRight")
    before = page.inner_text("#readout")
    page.keyboard.press("ArrowDown")
    check("arrow keys read the photo", "x " in before and before != page.inner_text("#readout"), before)
    page.focus("#theme")
    page.keyboard.press("Enter")
    check("the theme changes", page.get_attribute("html", "data-theme") == "light" and page.get_attribute("#theme", "aria-pressed") == "false")
    page.reload()
    check("and is kept", page.get_attribute("html", "data-theme") == "light")
    nameless = page.evaluate("[...document.querySelectorAll('button, input, select, canvas[role], img')].filter((one) => !(one.textContent.trim() || one.ariaLabel || one.alt || one.labels?.length || one.ariaHidden)).map((one) => one.outerHTML)")
    check("everything that is used has a name", not nameless, nameless)
    page.context.close()


def phone(browser, url, image, folder):
    page = opened(browser, url, viewport={"width": 375, "height": 740}, device_scale_factor=2, has_touch=True, is_mobile=True)
    shot(page, folder, "phone-start")
    page.set_input_files("#file", image)
    labelled(page)
    check("nothing is wider than a phone", page.evaluate("document.documentElement.scrollWidth") <= 375, page.evaluate("document.documentElement.scrollWidth"))
    box = page.locator(".stage .photo").bounding_box()
    page.touchscreen.tap(box["x"] + box["width"] / 3, box["y"] + box["height"] / 2)
    check("a tap reads the photo", "% confidence" in page.inner_text("#readout"), page.inner_text("#readout"))
    small = page.evaluate("[...document.querySelectorAll('button')].filter((one) => one.offsetParent && Math.min(one.offsetWidth, one.offsetHeight) < 24).map((one) => one.id || one.textContent)")
    check("buttons are large enough for a finger", not small, small)
    shot(page, folder, "phone", full_page=True)
    page.context.close()


def other_ways(browser, url, image, folder):
    page = opened(browser, url, viewport={"width": 1000, "height": 700}, permissions=["camera", "clipboard-read", "clipboard-write"])
    broken = Path(os.environ.get("TMPDIR", "/tmp")) / "no-image.jpg"
    broken.write_bytes(b"hello, this is not a picture")
    drop(page, broken)
    page.wait_for_selector("#problem:not([hidden])", timeout=WAIT)
    text = page.inner_text("#problem")
    check("what is no image is refused in words", len(page.inner_text("#problem .cause")) > 10 and "undefined" not in text and "[object" not in text, text)
    shot(page, folder, "error")
    page.click("#dismiss")
    check("the message can be closed", not page.locator("#problem").is_visible())

    page.evaluate(
        """(data) => { const transfer = new DataTransfer(); transfer.items.add(new File([new Uint8Array(data)], "pasted.png", { type: "image/png" }));
            document.dispatchEvent(new ClipboardEvent("paste", { bubbles: true, clipboardData: transfer })); }""",
        list(Path(image).read_bytes()),
    )
    labelled(page)
    check("a pasted photo is labelled", page.inner_text("#file-name") == "pasted.png")
    page.click("#work [data-camera]")
    page.wait_for_selector("#shoot:not([disabled])")
    shot(page, folder, "camera")
    page.click("#shoot")
    until(page, "document.getElementById('file-name').textContent === 'camera.jpg'")
    labelled(page)
    check("a photo of the camera is labelled", not page.locator("#problem").is_visible(), page.inner_text("#problem") if page.locator("#problem").is_visible() else "")
    page.context.close()


def reader(browser, url, image, folder):
    """The page's own reader of PNGs against Pillow's: class ids must not be off by one."""
    page = opened(browser, url)
    random.seed(7)
    for depth in (1, 2, 4, 8):
        for width, height in ((1, 1), (7, 5), (64, 9), (129, 40)):
            top = 1 << depth
            values = bytes(random.randrange(top) if (x // 9 + y) % 3 else (x + y) % top for y in range(height) for x in range(width))
            file = io.BytesIO()
            if depth == 8:
                one = Image.frombytes("L", (width, height), values)
                one.save(file, "PNG")
            else:
                one = Image.frombytes("P", (width, height), values)
                one.putpalette([value for id in range(top) for value in (id, 0, 255 - id)])
                one.save(file, "PNG", bits=depth)
            read = page.evaluate(
                "async (data) => { const { readPng } = await import('/png.js'); const { width, height, values } = await readPng(new Uint8Array(data)); return [width, height, [...values]]; }",
                list(file.getvalue()),
            )
            check(f"a PNG of {width} x {height}, {depth} bits", read == [width, height, list(values)])
    values = [random.randrange(256) for _ in range(13 * 10)]
    filters = page.evaluate(
        """async ([rows, width, height]) => {
            const { readPng } = await import('/png.js');
            const packed = new Uint8Array(await new Response(new Blob([new Uint8Array(rows)]).stream().pipeThrough(new CompressionStream('deflate'))).arrayBuffer());
            const chunk = (type, body) => { const out = new Uint8Array(12 + body.length); new DataView(out.buffer).setUint32(0, body.length); out.set([...type].map((c) => c.charCodeAt(0)), 4); out.set(body, 8); return out; };
            const head = new Uint8Array(13), view = new DataView(head.buffer);
            view.setUint32(0, width); view.setUint32(4, height); head[8] = 8;
            const file = await new Blob([new Uint8Array([137, 80, 78, 71, 13, 10, 26, 10]), chunk('IHDR', head), chunk('IDAT', packed)]).arrayBuffer();
            return [...(await readPng(new Uint8Array(file))).values];
        }""",
        [list(filtered(values, 13)), 13, 10],
    )
    check("all filters of rows", filters == values)
    page.context.close()


def filtered(values, width):
    """Rows as PNG stores them, each filtered in another way."""
    rows = [values[at : at + width] for at in range(0, len(values), width)]
    for y, row in enumerate(rows):
        kind, before = y % 5, rows[y - 1] if y else [0] * width
        yield kind
        for x, value in enumerate(row):
            a, b, c = row[x - 1] if x else 0, before[x], before[x - 1] if x else 0
            paeth = min((abs(b - c), 0, a), (abs(a - c), 1, b), (abs(a + b - 2 * c), 2, c))[2]
            yield (value - [0, a, b, (a + b) // 2, paeth][kind]) % 256


def main(url, image, folder=None):
    folder = folder and Path(folder)
    if folder:
        folder.mkdir(parents=True, exist_ok=True)
    with sync_playwright() as playwright:
        browser = launch(playwright)
        for part in (reader, desktop, keyboard, phone, other_ways):
            print(f"-- {part.__name__}")
            part(browser, url, image, folder)
        browser.close()
    print(f"{len(failures)} failed")
    sys.exit(bool(failures))


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    main(*sys.argv[1:4])
