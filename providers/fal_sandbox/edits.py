"""From prompt and pictures to one picture: which effects the words ask for, in which order, how strong, and with
which chance.

* The first input is cropped to cover the output size (a diffusion model renders the scene anew in the asked frame; a
  cover crop is the nearest honest thing), then edited; further inputs are laid on it as small prints so that their
  part is seen.
* Words choose effects, several combine in the order of `EFFECTS`; a word in the negative prompt takes its effect
  away; text in quotes is written on the picture; without any known word the picture gets a colour grade.
* The seed moves the framing, the exposure and the warmth a little, and every random detail. Same inputs, same seed:
  same bytes.
* `guidance_scale` sets the strength (4 is normal); fewer than ten steps leave the picture soft, as an unfinished
  sampling does.
"""

from __future__ import annotations

import itertools
import random
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from PIL import Image, ImageChops, ImageDraw, ImageFilter, ImageOps

from . import effects, overlays
from .effects import Effect, Picture, Touch


@dataclass(frozen=True, slots=True)
class Brush:
    """Everything but the pictures that decides how the result looks."""

    prompt: str
    negative: str
    guidance: float | None
    steps: int | None
    seed: int

    @property
    def strength(self) -> float:
        return 1.0 if self.guidance is None else min(1.5, 0.45 + 0.55 * self.guidance / 4)


def _effect(name: str, words: str, paint: Callable[[Picture, Touch], Picture]) -> Effect:
    return Effect(name, re.compile(rf"\b(?:{words})\b"), paint)


EFFECTS: tuple[Effect, ...] = (
    _effect("mirror", r"mirror\w*|flip\w*", effects.mirror),
    _effect("rotate", r"rotat\w*|upside down|turn(?:ed)? (?:left|right)", effects.rotate),
    _effect("brighter", r"bright\w*|lighter|overexposed", effects.brighter),
    _effect("darker", r"dark\w*|dim|moody|underexposed", effects.darker),
    _effect("contrast", r"contrast\w*|hdr|dramatic", effects.contrast),
    _effect("autumn", r"autumn\w*|fall colou?rs", effects.autumn),
    _effect("warmer", r"warm\w*|summer|sunny", effects.warmer),
    _effect("cooler", r"cool\w*|cold\w*|icy|frozen", effects.cooler),
    _effect("vivid", r"vivid|vibrant|saturat\w*|colou?rful|pop art", effects.vivid),
    _effect("pastel", r"pastel\w*|muted|desaturat\w*", effects.pastel),
    _effect("tint", r"red|orange|yellow|green|teal|cyan|blue|purple|violet|magenta|pink", effects.tint),
    _effect("sunset", r"sunset|sunrise|golden hour|dusk|dawn", effects.sunset),
    _effect("night", r"night\w*|midnight|moonl\w*|starry", effects.night),
    _effect("neon", r"neon|cyberpunk|synthwave", effects.neon),
    _effect("blur", r"blur\w*|bokeh|depth of field|out of focus", effects.blur),
    _effect("sharpen", r"sharp\w*|crisp|deblur", effects.sharpen),
    _effect("cartoon", r"cartoon\w*|comic\w*|anime|posteri\w*|ghibli|manga", effects.cartoon),
    _effect("painting", r"paint\w*|oil|watercolou?r\w*|aquarelle|impressionis\w*|van gogh", effects.painting),
    _effect("sketch", r"sketch\w*|pencil|drawing|line art|charcoal", effects.sketch),
    _effect("pixelate", r"pixel\w*|8-bit|mosaic", effects.pixelate),
    _effect("invert", r"invert\w*|negative", effects.invert),
    _effect("grayscale", r"gr[ae]yscale|gr[ae]y|black[ -]and[ -]white|b&w|monochrome|noir", effects.grayscale),
    _effect("sepia", r"sepia", effects.sepia),
    _effect("vintage", r"vintage|retro|old photo\w*|analog\w*|polaroid|1970s|70s", effects.vintage),
    _effect("fog", r"fog\w*|mist\w*|haz[ey]|smok[ey]", overlays.fog),
    _effect("snow", r"snow\w*|winter\w*|blizzard|christmas", overlays.snow),
    _effect("rain", r"rain|rains|rainy|raining|rainfall|storm\w*|wet", overlays.rain),
    _effect("dreamy", r"dream\w*|glow\w*|ethereal|soft light", effects.dreamy),
    _effect("glitch", r"glitch\w*|vhs", effects.glitch),
    _effect("grain", r"grain\w*|film|noisy|35mm", effects.grain),
    _effect("vignette", r"vignett\w*", effects.vignette),
    _effect("frame", r"frame[ds]?|border\w*|polaroid", overlays.frame),
)
"""In the order in which they are applied: geometry, light, colour, style, weather, print."""


def chosen(prompt: str, negative: str = "") -> tuple[Effect, ...]:
    """The effects that the words ask for and the negative prompt does not forbid."""
    wanted, refused = overlays.without_quotes(prompt).lower(), negative.lower()
    return tuple(effect for effect in EFFECTS if effect.words.search(wanted) and not effect.words.search(refused))


def edit(pictures: Sequence[Picture], mask: Image.Image | None, size: tuple[int, int], brush: Brush) -> Picture:
    """The first of `pictures` edited at `size` (width, height). White in `mask` may change (None: all)."""
    dice = _dice(brush)
    result = _finish(_styled(_framed(pictures[0], size, dice, mask is None), brush, dice), pictures[1:], brush, dice)
    if mask is not None:
        base = ImageOps.fit(pictures[0], size, Image.Resampling.LANCZOS)
        soft = ImageOps.fit(mask, size, Image.Resampling.BILINEAR).filter(
            ImageFilter.GaussianBlur(3 * effects.unit(base))
        )
        result = Image.composite(result, base, soft)
    return overlays.mark(result)


def imagine(size: tuple[int, int], brush: Brush) -> Picture:
    """Text to image: a landscape drawn from the prompt and the seed, then edited by the same words."""
    dice = _dice(brush)
    return overlays.mark(_finish(_styled(_landscape(size, dice), brush, dice, plain=False), (), brush, dice))


def _dice(brush: Brush) -> random.Random:
    return random.Random(f"{brush.seed}\x1f{brush.prompt}")  # noqa: S311  it must repeat, it need not surprise


def _framed(picture: Picture, size: tuple[int, int], dice: random.Random, loose: bool) -> Picture:
    """Cover crop, a little tighter and off centre by the seed. Not under a mask: its edges must meet the original."""
    if not loose:
        return ImageOps.fit(picture, size, Image.Resampling.LANCZOS)
    scale = min(picture.width / size[0], picture.height / size[1])
    trim = dice.uniform(0.004, 0.022)
    width, height = size[0] * scale * (1 - 2 * trim), size[1] * scale * (1 - 2 * trim)
    left = (picture.width - width) / 2 + dice.uniform(-1, 1) * trim * width
    top = (picture.height - height) / 2 + dice.uniform(-1, 1) * trim * height
    return picture.resize(size, Image.Resampling.LANCZOS, (left, top, left + width, top + height))


def _styled(picture: Picture, brush: Brush, dice: random.Random, plain: bool = True) -> Picture:
    words = overlays.without_quotes(brush.prompt).lower()
    touch = Touch(dice, brush.strength, words)
    exposure, warmth = dice.uniform(0.95, 1.06), dice.uniform(-0.035, 0.035)
    result = effects.matrix(
        picture, (exposure * (1 + warmth), 0, 0, 0, 0, exposure, 0, 0, 0, 0, exposure * (1 - warmth), 0)
    )
    asked = chosen(brush.prompt, brush.negative)
    for effect in asked:
        result = effect.paint(result, touch)
    if not asked and plain and not overlays.quoted(brush.prompt):
        result = effects.grade(result, touch)
    return result


def _finish(picture: Picture, others: Sequence[Picture], brush: Brush, dice: random.Random) -> Picture:
    result = picture
    if brush.steps is not None and brush.steps < 10:
        result = result.filter(ImageFilter.GaussianBlur((10 - brush.steps) * 0.35 * effects.unit(result)))
    if others:
        result = overlays.prints(result, others, dice)
    if texts := overlays.quoted(brush.prompt):
        result = overlays.letter(result, " ".join(texts), overlays.without_quotes(brush.prompt).lower())
    return result


def _landscape(size: tuple[int, int], dice: random.Random) -> Picture:
    """A sky, a sun and four ranges of hills in a palette of the die. No picture comes in, so it may be pretty."""
    width, height = size
    hue = dice.random()
    high, low = effects.shade(hue, 0.62, 0.62), effects.shade(hue + 0.36, 0.42, 1.0)
    picture = Image.composite(Image.new("RGB", size, low), Image.new("RGB", size, high), effects.fade(size, 0, 255))
    x, y, r = dice.uniform(0.15, 0.85) * width, dice.uniform(0.16, 0.42) * height, dice.uniform(0.05, 0.1) * min(size)
    disc = Image.new("L", size)
    ImageDraw.Draw(disc).ellipse((x - r, y - r, x + r, y + r), fill=255)
    halo = (
        disc.resize((max(1, width // 8), max(1, height // 8)))
        .filter(ImageFilter.GaussianBlur(max(1.0, r / 6)))
        .resize(size)
    )
    light = ImageOps.colorize(
        ImageChops.lighter(disc, halo.point([round(v * 0.75) for v in range(256)])), "black", (255, 240, 208)
    )
    picture = ImageChops.screen(picture, light)
    for layer in range(4):
        line = height * (0.5 + 0.13 * layer)
        colour = effects.shade(hue + 0.04 * layer, 0.34 + 0.12 * layer, 0.62 - 0.14 * layer)
        ridge = _ridge(width, line, height * (0.13 - 0.014 * layer), dice)
        hill = Image.new("L", size)
        ImageDraw.Draw(hill).polygon([(0, height), *ridge, (width, height)], fill=255)
        ground = Image.composite(
            Image.new("RGB", size, colour), Image.new("RGB", size, low), effects.fade(size, 196 + 18 * layer, 255)
        )
        picture = Image.composite(ground, picture, hill.filter(ImageFilter.GaussianBlur(0.8 * effects.unit(hill))))
    return picture


def _ridge(width: int, line: float, rise: float, dice: random.Random) -> list[tuple[float, float]]:
    """A mountain line by midpoint displacement: 129 points from the left edge to the right."""
    heights = [dice.uniform(-0.4, 0.4), dice.uniform(-0.4, 0.4)]
    roughness = 1.0
    for _ in range(7):
        roughness *= 0.52
        finer = [heights[0]]
        for left, right in itertools.pairwise(heights):
            finer += [(left + right) / 2 + dice.uniform(-roughness, roughness), right]
        heights = finer
    return [(index * width / (len(heights) - 1), line - height * rise) for index, height in enumerate(heights)]
