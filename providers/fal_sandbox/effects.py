"""The edits themselves: small functions from picture to picture, and the words of a prompt that ask for them.

All pictures are RGB. A `Touch` carries what may vary: a die (from the seed) and a strength around 1.0. With the same
touch an effect paints the same picture, so nothing here draws from any other source of chance.
"""

from __future__ import annotations

import colorsys
import random
import re
from collections.abc import Callable
from dataclasses import dataclass

from PIL import Image, ImageChops, ImageDraw, ImageEnhance, ImageFilter, ImageOps

Picture = Image.Image
Matrix = tuple[float, float, float, float, float, float, float, float, float, float, float, float]


@dataclass(frozen=True, slots=True)
class Touch:
    dice: random.Random
    strength: float
    """About 0.4 to 1.5; 1.0 is the model's default guidance."""
    prompt: str
    """Lower case, without quoted text."""


@dataclass(frozen=True, slots=True)
class Effect:
    name: str
    words: re.Pattern[str]
    paint: Callable[[Picture, Touch], Picture]


def curve(picture: Picture, function: Callable[[float], float]) -> Picture:
    """Apply a tone curve over 0..1 to all three channels."""
    table = [max(0, min(255, round(255 * function(level / 255)))) for level in range(256)]
    return picture.point(table * 3)


def matrix(picture: Picture, rows: Matrix) -> Picture:
    """Mix channels: three rows of (r, g, b, offset 0..255)."""
    return picture.convert("RGB", rows)


def noise(size: tuple[int, int], dice: random.Random, cell: int = 1) -> Picture:
    """Grey noise, `cell` pixels coarse and smooth between. Pillow's own noise cannot be seeded."""
    width, height = max(2, -(-size[0] // cell)), max(2, -(-size[1] // cell))
    grain = Image.frombytes("L", (width, height), dice.randbytes(width * height))
    return grain if grain.size == size else grain.resize(size, Image.Resampling.BICUBIC)


def fade(size: tuple[int, int], top: int, bottom: int) -> Picture:
    """A vertical ramp of grey from `top` to `bottom`."""
    ramp = Image.linear_gradient("L").point([round(top + (bottom - top) * level / 255) for level in range(256)])
    return ramp.resize(size, Image.Resampling.BICUBIC)


def corners(size: tuple[int, int], reach: float) -> Picture:
    """A mask, black in the middle and white in the corners; larger `reach` (0.3 to 0.8) begins further out."""
    start = 255 * reach
    ring = Image.radial_gradient("L").point(
        [max(0, min(255, round((v - start) * 255 / (255 - start) * 1.1))) for v in range(256)]
    )
    return ring.resize(size, Image.Resampling.BICUBIC)


def glow(
    picture: Picture, source: Picture, above: int, radius: float, tint: tuple[int, int, int], amount: float
) -> Picture:
    """Light that spills over `picture` from everything in `source` that is brighter than `above`."""
    lights = source.convert("L").point(
        [0 if v < above else round((v - above) * 255 / (256 - above)) for v in range(256)]
    )
    small = lights.resize((max(1, picture.width // 4), max(1, picture.height // 4)))
    halo = small.filter(ImageFilter.GaussianBlur(max(1.0, radius / 4))).resize(picture.size, Image.Resampling.BICUBIC)
    colour = ImageOps.colorize(halo.point([min(255, round(v * amount)) for v in range(256)]), "black", tint)
    return ImageChops.screen(picture, colour)


def unit(picture: Picture) -> float:
    """The length that all strokes and radii are measured in: 1.0 at a short side of 1024 pixels."""
    return min(picture.size) / 1024


def shade(hue: float, saturation: float, value: float) -> tuple[int, int, int]:
    red, green, blue = colorsys.hsv_to_rgb(hue % 1.0, saturation, value)
    return round(255 * red), round(255 * green), round(255 * blue)


def mirror(picture: Picture, touch: Touch) -> Picture:
    return ImageOps.flip(picture) if re.search(r"vertical", touch.prompt) else ImageOps.mirror(picture)


def rotate(picture: Picture, touch: Touch) -> Picture:
    """Clockwise by the number after the word, a quarter turn without one; the frame stays and is filled."""
    if "upside down" in touch.prompt:
        degrees = 180
    else:
        found = re.search(r"rotat\w*\D{0,30}?(\d{1,3})", touch.prompt)
        degrees = int(found[1]) if found else 90
        if re.search(r"counter|anti|left", touch.prompt):
            degrees = -degrees
    turned = picture.rotate(-degrees, Image.Resampling.BICUBIC, expand=degrees % 90 == 0)
    if degrees % 90:
        # zoom in until no corner is empty
        turned = ImageOps.fit(turned.crop(_inner(turned.size, 0.64)), picture.size, Image.Resampling.LANCZOS)
    return ImageOps.fit(turned, picture.size, Image.Resampling.LANCZOS)


def _inner(size: tuple[int, int], share: float) -> tuple[int, int, int, int]:
    width, height = size
    dx, dy = round(width * (1 - share) / 2), round(height * (1 - share) / 2)
    return dx, dy, width - dx, height - dy


def brighter(picture: Picture, touch: Touch) -> Picture:
    return curve(picture, lambda x: x ** (1 / (1 + 0.45 * touch.strength)))


def darker(picture: Picture, touch: Touch) -> Picture:
    return curve(picture, lambda x: x ** (1 + 0.6 * touch.strength) * 0.94)


def contrast(picture: Picture, touch: Touch) -> Picture:
    return ImageEnhance.Contrast(picture).enhance(1 + 0.45 * touch.strength)


def night(picture: Picture, touch: Touch) -> Picture:
    """Moonlight: dark and blue, with the lights still burning and stars where the sky would be."""
    dark = curve(picture, lambda x: x ** (1 + 0.55 * touch.strength) * 0.62)
    blue = matrix(dark, (0.42, 0.14, 0.06, 2, 0.12, 0.52, 0.16, 6, 0.14, 0.30, 0.86, 24))
    lit = glow(blue, picture, 188, 26 * unit(picture), (255, 190, 104), 0.85)
    stars = Image.new("L", picture.size)
    draw = ImageDraw.Draw(stars)
    for _ in range(150):
        x, y = touch.dice.uniform(0, picture.width), touch.dice.uniform(0, 1) ** 1.7 * picture.height * 0.55
        r = touch.dice.choice((0.6, 0.6, 0.9, 1.5)) * unit(picture)
        draw.ellipse((x - r, y - r, x + r, y + r), fill=touch.dice.randint(90, 235))
    stars = ImageChops.multiply(stars, fade(picture.size, 255, 0))
    return ImageChops.screen(lit, ImageOps.colorize(stars, "black", (225, 232, 255)))


def sunset(picture: Picture, touch: Touch) -> Picture:
    """A low sun: orange light from one side, violet shadows, a warm haze along the horizon."""
    warm = matrix(picture, (1.06, 0.12, 0.0, 8, 0.04, 0.82, 0.06, 2, 0.02, 0.06, 0.72, 10))
    top, low = Image.new("RGB", picture.size, (255, 170, 92)), Image.new("RGB", picture.size, (150, 62, 118))
    sky = Image.composite(low, top, fade(picture.size, 0, 255))
    washed = Image.blend(warm, ImageChops.soft_light(warm, sky), min(1.0, 0.85 * touch.strength))
    return _sun(washed, touch, (255, 190, 110), 0.75)


def _sun(picture: Picture, touch: Touch, tint: tuple[int, int, int], amount: float) -> Picture:
    side = round(max(picture.size) * 1.5)
    disc = ImageOps.invert(Image.radial_gradient("L")).point(
        [round(255 * (v / 255) ** 2.2 * amount) for v in range(256)]
    )
    spot = Image.new("L", picture.size)
    where = round(picture.width * touch.dice.uniform(0.1, 0.9)), round(picture.height * touch.dice.uniform(0.1, 0.35))
    spot.paste(disc.resize((side, side), Image.Resampling.BICUBIC), (where[0] - side // 2, where[1] - side // 2))
    return ImageChops.screen(picture, ImageOps.colorize(spot, "black", tint))


def dreamy(picture: Picture, touch: Touch) -> Picture:
    soft = picture.filter(ImageFilter.GaussianBlur(14 * unit(picture)))
    return Image.blend(picture, ImageChops.screen(picture, soft), min(0.8, 0.45 * touch.strength))


def warmer(picture: Picture, touch: Touch) -> Picture:
    s = 0.14 * touch.strength
    return matrix(picture, (1 + s, 0, 0, 6, 0, 1 + s * 0.2, 0, 2, 0, 0, 1 - s * 1.2, 0))


def cooler(picture: Picture, touch: Touch) -> Picture:
    s = 0.14 * touch.strength
    return matrix(picture, (1 - s * 1.2, 0, 0, 0, 0, 1, 0, 2, 0, 0, 1 + s, 8))


def vivid(picture: Picture, touch: Touch) -> Picture:
    return ImageEnhance.Contrast(ImageEnhance.Color(picture).enhance(1 + 0.6 * touch.strength)).enhance(1.08)


def pastel(picture: Picture, touch: Touch) -> Picture:
    light = curve(ImageEnhance.Color(picture).enhance(0.62), lambda x: 0.26 + 0.74 * x**0.8)
    return Image.blend(light, Image.new("RGB", picture.size, (255, 228, 232)), min(0.3, 0.12 * touch.strength))


def autumn(picture: Picture, touch: Touch) -> Picture:
    """Green leaves turn: green feeds red."""
    s = min(1.3, touch.strength)
    return matrix(picture, (1.0, 0.34 * s, -0.08, 4, 0.12, 0.82 - 0.08 * s, 0.0, 0, 0.02, 0.10, 0.66, 2))


def grayscale(picture: Picture, touch: Touch) -> Picture:
    return ImageEnhance.Contrast(ImageOps.grayscale(picture).convert("RGB")).enhance(1.02 + 0.1 * touch.strength)


def sepia(picture: Picture, _: Touch) -> Picture:
    return ImageOps.colorize(ImageOps.grayscale(picture), (38, 22, 10), (255, 240, 208), mid=(158, 118, 78))


def invert(picture: Picture, _: Touch) -> Picture:
    return ImageOps.invert(picture)


_COLOURS = {
    "red": 0.0,
    "orange": 0.07,
    "yellow": 0.14,
    "green": 0.34,
    "teal": 0.49,
    "cyan": 0.51,
    "blue": 0.60,
    "purple": 0.76,
    "violet": 0.76,
    "magenta": 0.86,
    "pink": 0.92,
}


def tint(picture: Picture, touch: Touch) -> Picture:
    """The colour that the prompt names first, laid over everything as light."""
    found = re.search("|".join(_COLOURS), touch.prompt)
    hue = _COLOURS[found[0]] if found else touch.dice.random()
    toned = ImageOps.colorize(
        ImageOps.grayscale(picture), shade(hue, 0.9, 0.14), shade(hue, 0.12, 1.0), mid=shade(hue, 0.68, 0.72)
    )
    return Image.blend(picture, toned, min(0.8, 0.5 * touch.strength))


def grade(picture: Picture, touch: Touch) -> Picture:
    """Without a known word: a film-like grade whose two hues come from the seed. Gentle, and not to be overlooked."""
    hue = touch.dice.random()
    toned = ImageOps.colorize(
        ImageOps.grayscale(picture),
        shade(hue, 0.75, 0.16),
        shade(hue + 0.45, 0.22, 1.0),
        mid=shade(hue + 0.52, 0.38, 0.62),
    )
    mixed = Image.blend(picture, toned, min(0.62, 0.44 * touch.strength))
    return vignette(ImageEnhance.Contrast(ImageEnhance.Color(mixed).enhance(1.18)).enhance(1.08), touch)


def blur(picture: Picture, touch: Touch) -> Picture:
    soft = picture.filter(ImageFilter.GaussianBlur(11 * touch.strength * unit(picture)))
    if not re.search(r"background|bokeh|depth of field|portrait", touch.prompt):
        return soft
    return Image.composite(soft, picture, corners(picture.size, 0.34))


def sharpen(picture: Picture, touch: Touch) -> Picture:
    return picture.filter(ImageFilter.UnsharpMask(2.2 * unit(picture) + 0.5, round(150 * touch.strength), 2))


def pixelate(picture: Picture, touch: Touch) -> Picture:
    cell = max(4, round(18 * unit(picture) * touch.strength))
    small = picture.resize((max(1, picture.width // cell), max(1, picture.height // cell)), Image.Resampling.BOX)
    return small.quantize(48, Image.Quantize.MEDIANCUT).convert("RGB").resize(picture.size, Image.Resampling.NEAREST)


def _flatten(picture: Picture, window: int) -> Picture:
    """Even patches with hard borders. Done at a small size: a median costs its window's area."""
    small = ImageOps.contain(picture, (448, 448), Image.Resampling.BOX).filter(ImageFilter.MedianFilter(window))
    return small.resize(picture.size, Image.Resampling.BICUBIC)


def _lines(picture: Picture, radius: float, gain: float) -> Picture:
    """Dark lines on white where the picture changes (a difference of blurs)."""
    grey = ImageOps.grayscale(picture)
    fine = grey.filter(ImageFilter.GaussianBlur(radius))
    wide = grey.filter(ImageFilter.GaussianBlur(radius * 2.2))
    difference = ImageChops.subtract(wide, fine)
    return difference.point([max(0, 255 - max(0, round((v - 3) * gain))) for v in range(256)])


def cartoon(picture: Picture, touch: Touch) -> Picture:
    flat = ImageOps.posterize(ImageEnhance.Color(_flatten(picture, 5)).enhance(1.5), 4)
    smooth = Image.blend(flat, _flatten(picture, 5), 0.35)
    ink = _lines(picture, 1.6 * unit(picture) + 0.3, 16 * touch.strength)
    return ImageChops.multiply(curve(smooth, lambda x: x**0.9), ink.convert("RGB"))


def sketch(picture: Picture, touch: Touch) -> Picture:
    """Pencil: a colour dodge of the picture over its blurred negative, on grained paper."""
    grey = ImageOps.autocontrast(ImageOps.grayscale(picture), 1)
    soft = grey.filter(ImageFilter.GaussianBlur(9 * unit(picture) + 1))
    # dodge, a/(1-(1-b)) = a/b, kept in 8 bit: 255 minus what the blur is lighter by
    strokes = ImageChops.invert(ImageChops.subtract(soft, grey, scale=0.42 / touch.strength))
    shadow = curve(grey.convert("RGB"), lambda x: 0.62 + 0.38 * min(1, x * 1.6)).convert("L")
    paper = noise(picture.size, touch.dice).point([232 + round(v * 23 / 255) for v in range(256)])
    page = ImageChops.multiply(ImageChops.multiply(strokes, shadow), paper)
    return ImageOps.colorize(page, (44, 42, 48), (252, 249, 241))


def painting(picture: Picture, touch: Touch) -> Picture:
    """Broad, even strokes with a little relief; `watercolor` is paler and bleeds into the paper."""
    flat = ImageEnhance.Color(_flatten(picture, 7)).enhance(1.35)
    if re.search(r"watercolou?r|aquarelle", touch.prompt):
        paper = noise(picture.size, touch.dice, 3).point([214 + round(v * 41 / 255) for v in range(256)]).convert("RGB")
        pale = ImageChops.multiply(curve(flat, lambda x: 0.2 + 0.8 * x**0.75), paper)
        edge = _lines(flat, 3 * unit(picture) + 0.5, 6).convert("RGB")
        white = Image.new("RGB", picture.size, (252, 250, 244))
        return Image.composite(white, ImageChops.multiply(pale, edge), corners(picture.size, 0.62))
    relief = flat.convert("L").filter(ImageFilter.EMBOSS).filter(ImageFilter.GaussianBlur(0.8))
    canvas = ImageChops.add(
        relief, noise(picture.size, touch.dice, 2).point([round(v / 9) for v in range(256)]), offset=-14
    )
    return ImageChops.overlay(flat, canvas.convert("RGB"))


def vintage(picture: Picture, touch: Touch) -> Picture:
    faded = curve(ImageEnhance.Color(picture).enhance(0.68), lambda x: 0.09 + 0.83 * x)
    warm = matrix(faded, (1.05, 0.05, 0, 8, 0.02, 0.98, 0, 3, 0, 0.05, 0.80, 6))
    return vignette(grain(warm, touch), touch)


def grain(picture: Picture, touch: Touch) -> Picture:
    speck = noise(picture.size, touch.dice).filter(ImageFilter.GaussianBlur(0.7 * unit(picture)))
    spread = 0.45 * touch.strength
    return ImageChops.overlay(
        picture, speck.point([round(128 + (v - 128) * spread) for v in range(256)]).convert("RGB")
    )


def neon(picture: Picture, touch: Touch) -> Picture:
    """Cyberpunk: night in magenta and cyan, with contours that glow."""
    dark = curve(picture, lambda x: x**1.5 * 0.78)
    toned = ImageOps.colorize(ImageOps.grayscale(dark), (10, 4, 34), (140, 250, 255), mid=(188, 30, 168))
    base = Image.blend(dark, toned, 0.72)
    edges = ImageOps.grayscale(picture).filter(ImageFilter.GaussianBlur(1)).filter(ImageFilter.FIND_EDGES)
    bright = edges.point([min(255, v * 3) if v > 14 else 0 for v in range(256)])
    bright.paste(0, (0, 0, picture.width, 2))  # FIND_EDGES lights the rim of the picture
    bright.paste(0, (0, picture.height - 2, picture.width, picture.height))
    bright.paste(0, (0, 0, 2, picture.height))
    bright.paste(0, (picture.width - 2, 0, picture.width, picture.height))
    tubes = ImageOps.colorize(bright, "black", shade(0.5 + touch.dice.uniform(-0.06, 0.4), 0.75, 1.0))
    halo = tubes.filter(ImageFilter.GaussianBlur(7 * unit(picture)))
    return ImageChops.screen(ImageChops.screen(base, halo), ImageEnhance.Brightness(tubes).enhance(0.7))


def glitch(picture: Picture, touch: Touch) -> Picture:
    red, green, blue = picture.split()
    shift = max(2, round(9 * unit(picture) * touch.strength))
    torn = Image.merge("RGB", (ImageChops.offset(red, shift, 0), green, ImageChops.offset(blue, -shift, 0)))
    for _ in range(9):
        top = touch.dice.randrange(picture.height)
        tall = touch.dice.randint(1, max(2, picture.height // 24))
        band = torn.crop((0, top, picture.width, min(picture.height, top + tall)))
        torn.paste(ImageChops.offset(band, touch.dice.randint(-6 * shift, 6 * shift), 0), (0, top))
    return torn


def vignette(picture: Picture, touch: Touch) -> Picture:
    dark = curve(picture, lambda x: x * max(0.1, 0.5 - 0.18 * (touch.strength - 1)))
    return Image.composite(dark, picture, corners(picture.size, 0.42))
