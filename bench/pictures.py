"""The pictures of the benchmarks: made anew each time, always the same, from one photograph and Pillow's drawing.

`photo` is the upload and the upstream's result: a megapixel that weighs what a real photograph does (about 1.5 MB as
PNG). An enlarged photograph alone would be too smooth, so it gets the grain of a sensor.
"""

from __future__ import annotations

import random
from functools import lru_cache
from io import BytesIO

from PIL import Image, ImageChops, ImageDraw, ImageFilter, ImageFont, ImageOps

from bench.machine import ROOT

SIDE = 1024


@lru_cache(maxsize=4)
def photo(side: int = SIDE) -> Image.Image:
    """RGB, side x side."""
    with Image.open(ROOT / "app" / "samples" / "coffee.jpg") as source:
        large = ImageOps.fit(source.convert("RGB"), (side, side), Image.Resampling.LANCZOS)
    return grained(large)


def grained(image: Image.Image, strength: int = 2) -> Image.Image:
    """With luminance noise of a few levels, as a camera leaves it."""
    dice = random.Random(2509)
    size = image.size
    # the sum of four dice is round enough for a bell
    noise = bytes(range(256))
    level = Image.frombytes("L", size, dice.randbytes(size[0] * size[1]))
    table = [round(strength * _bell(value)) for value in noise]
    plus = level.point([max(0, step) for step in table])
    minus = level.point([max(0, -step) for step in table])
    return ImageChops.subtract(ImageChops.add(image, Image.merge("RGB", (plus,) * 3)), Image.merge("RGB", (minus,) * 3))


def _bell(value: int) -> float:
    """Byte -> about -2.9 … 2.9, normally distributed if the bytes are uniform."""
    from statistics import NormalDist

    return NormalDist().inv_cdf((value + 0.5) / 256)


def png(image: Image.Image, level: int = 6) -> bytes:
    """As a client would have it: Pillow's own file."""
    out = BytesIO()
    image.save(out, "PNG", compress_level=level)
    return out.getvalue()


def noise(size: int) -> bytes:
    """A PNG of about so many bytes: noise does not compress, so its pixels can be counted out beforehand."""
    side = max(int((size / 3) ** 0.5), 16)
    return png(Image.frombytes("RGB", (side, side), random.Random(2509).randbytes(3 * side * side)), 1)


def jpeg(image: Image.Image, quality: int = 92) -> bytes:
    """As a camera would have it."""
    out = BytesIO()
    image.save(out, "JPEG", quality=quality)
    return out.getvalue()


def smooth() -> Image.Image:
    """The photograph without grain: as smooth as what a diffusion model paints."""
    with Image.open(ROOT / "app" / "samples" / "coffee.jpg") as source:
        return ImageOps.fit(source.convert("RGB"), (SIDE, SIDE), Image.Resampling.LANCZOS)


_WORDS = (
    "The quick brown fox jumps over the lazy dog while a gateway compiles each request into a plan, "
    "prices it, writes it down and only then spends anybody's money. "
)


def text() -> Image.Image:
    """A printed page: black on white, from 11 to 40 pixels."""
    page = Image.new("RGB", (SIDE, SIDE), "white")
    draw = ImageDraw.Draw(page)
    y, line = 30, 0
    while y < SIDE - 40:
        size = 40 if line % 12 == 0 else 11 + line % 9
        words = (_WORDS * 4)[line * 7 % 60 :][: 2000 // size]
        draw.text((40, y), words, fill=(20, 20, 24), font=ImageFont.load_default(size))
        y, line = y + round(size * 1.45), line + 1
    return page


def screenshot() -> Image.Image:
    """A window: flat panels, small text, buttons, a chart and one thumbnail of the photograph."""
    window = Image.new("RGB", (SIDE, SIDE), (246, 247, 249))
    draw = ImageDraw.Draw(window)
    draw.rectangle((0, 0, SIDE, 56), fill=(33, 41, 60))
    draw.rectangle((0, 56, 220, SIDE), fill=(232, 235, 241))
    for row in range(18):
        if row == 3:
            draw.rounded_rectangle((10, 76 + row * 44, 210, 112 + row * 44), 8, fill=(84, 105, 212))
        colour = (255, 255, 255) if row == 3 else (70, 78, 96)
        draw.text((28, 84 + row * 44), _WORDS[row * 5 :][:19], fill=colour, font=ImageFont.load_default(16))
    window.paste(smooth().resize((380, 250), Image.Resampling.LANCZOS), (250, 90))
    draw.rounded_rectangle((650, 90, 1000, 340), 12, fill="white", outline=(210, 214, 224))
    for bar in range(12):
        high = 30 + (bar * 53) % 170
        draw.rectangle((674 + bar * 26, 320 - high, 692 + bar * 26, 320), fill=(84, 105 + bar * 9, 212))
    for row in range(24):
        y = 370 + row * 26
        draw.line((250, y, 1000, y), fill=(222, 226, 234))
        for column in range(4):
            draw.text((258 + column * 190, y + 5), _WORDS[row + column * 31 :][:22], fill=(58, 64, 80))
    return window


def graphic() -> Image.Image:
    """A poster: saturated shapes with soft and hard edges on a gradient, and large letters."""
    ramp = Image.linear_gradient("L").resize((SIDE, SIDE), Image.Resampling.BICUBIC)
    poster = ImageOps.colorize(ramp, (255, 94, 58), (52, 30, 130), mid=(255, 42, 104))
    draw = ImageDraw.Draw(poster)
    draw.ellipse((540, 110, 900, 470), fill=(255, 214, 10))
    draw.polygon([(0, 1024), (300, 520), (560, 1024)], fill=(12, 160, 150))
    draw.polygon([(340, 1024), (720, 430), (1024, 1024)], fill=(6, 96, 128))
    halo = Image.new("L", (SIDE, SIDE))
    ImageDraw.Draw(halo).ellipse((90, 190, 370, 470), fill=220)
    poster.paste((90, 255, 230), mask=halo.filter(ImageFilter.GaussianBlur(24)))
    draw.text((70, 60), "imagegate", fill="white", font=ImageFont.load_default(150))
    draw.text((74, 900), "red on blue", fill=(230, 20, 30), font=ImageFont.load_default(70))
    return poster


def cutout() -> Image.Image:
    """RGBA: the photograph's cup on nothing, with a soft edge and a half transparent shadow."""
    mask = Image.new("L", (SIDE, SIDE))
    draw = ImageDraw.Draw(mask)
    draw.ellipse((200, 640, 900, 940), fill=110)
    mask = mask.filter(ImageFilter.GaussianBlur(20))
    ImageDraw.Draw(mask).ellipse((170, 130, 850, 810), fill=255)
    result = smooth().convert("RGBA")
    result.putalpha(mask.filter(ImageFilter.GaussianBlur(1.2)))
    return result


PICTURES = {
    "photo": photo,
    "smooth photo": smooth,
    "graphic": graphic,
    "screenshot": screenshot,
    "text": text,
    "cut-out": cutout,
}
