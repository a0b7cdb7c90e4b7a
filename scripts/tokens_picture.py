#!/usr/bin/env python3
"""Draws how structure tokens become a mask, from the report of a run: python3 scripts/tokens_picture.py REPORT.html IMAGE OUT.png CLASS...

One row: the photo, the largest token at each pixel stage by stage, and the truth; below it a row for each class with its own
token. Needs pillow.
"""
import base64
import html
import io
import re
import sys

from PIL import Image, ImageDraw, ImageFont

CELL, GAP, LABEL = (200, 150), 6, 22


def picture(data):
    return Image.open(io.BytesIO(base64.b64decode(data.split(",", 1)[1]))).convert("RGBA")


def article(page, name):
    """The part of the page about the tokens of one image."""
    begin = page.index('id="tokens"')
    for part in page[begin:].split('<details class="card tokens"')[1:]:
        if f"<h3>{name} " in part:
            return part.split("</details>")[0]
    sys.exit(f"{name} is not among the images whose tokens the report shows")


def images(part):
    """Alternative text to data URI."""
    return {html.unescape(alt): src for alt, src in re.findall(r'<img [^>]*alt="([^"]*)"[^>]*src="([^"]*)"', part)}


def truth_of(page, name):
    """The annotation of an image, from the part with predictions."""
    part = page[:page.index('id="tokens"')].split(f"<h3>{name} ", 1)
    return images(part[1].split("</article>")[0])[f"truth of {name}"] if len(part) == 2 else None


def main(report, name, out, *classes):
    page = open(report, encoding="utf-8").read()
    found = images(article(page, name))
    stages = [alt.split(", ")[1] for alt in found if alt.startswith("largest token")]
    photo = picture(found[name])
    size = lambda image, how: image.resize(CELL, how)
    columns, rows = 2 + len(stages), 1 + len(classes)
    sheet = Image.new("RGB", (columns * (CELL[0] + GAP) + GAP, rows * (CELL[1] + GAP) + GAP + LABEL), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(15)
    place = lambda row, column: (GAP + column * (CELL[0] + GAP), LABEL + GAP + row * (CELL[1] + GAP))
    for column, text in enumerate(["photo", *["output" if stage == "logits" else stage for stage in stages], "annotation"]):
        draw.text((place(0, column)[0] + 2, 4), text, "black", font)
    base = size(photo, Image.LANCZOS).convert("RGB")
    sheet.paste(base, place(0, 0))
    flat = [found[f"largest token at each pixel, {stage}"] for stage in stages] + [truth_of(page, name)]
    for column, src in enumerate(flat, 1):
        labels = size(picture(src), Image.NEAREST)
        labels.putalpha(labels.getchannel("A").point(lambda a: a * 3 // 4))
        over = base.copy()
        over.paste(labels, (0, 0), labels)
        sheet.paste(over, place(0, column))
    for row, label in enumerate(classes, 1):
        x, y = place(row, 0)
        draw.text((x + CELL[0] - 4, y + CELL[1] // 2), label, "black", font, anchor="rm")
        for column, stage in enumerate(stages, 1):
            sheet.paste(size(picture(found[f"structure token of {label}, {stage}"]), Image.NEAREST).convert("RGB"), place(row, column))
        mask = size(picture(found[f"true mask of {label}"]), Image.NEAREST)
        unknown = Image.new("RGB", CELL, "grey")  # what is transparent
        unknown.paste(mask.convert("RGB"), (0, 0), mask.getchannel("A"))
        sheet.paste(unknown, place(row, 1 + len(stages)))
    sheet.quantize(255, dither=Image.Dither.NONE).save(out, optimize=True)


main(*sys.argv[1:])
