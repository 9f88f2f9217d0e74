"""What is laid over a picture: weather, a frame, lettering, the other input pictures, the sandbox's mark."""

from __future__ import annotations

import math
import random
import re
from collections.abc import Sequence

from PIL import Image, ImageChops, ImageDraw, ImageEnhance, ImageFilter, ImageFont, ImageOps

from .effects import Picture, Touch, cooler, curve, fade, noise, unit

MARK = "imagegate sandbox"


def snow(picture: Picture, touch: Touch) -> Picture:
    """A pale, cold day and three depths of flakes; where they fall comes from the seed."""
    cold = cooler(ImageEnhance.Color(picture).enhance(0.6), touch)
    lifted = curve(cold, lambda x: 0.10 + 0.88 * x**0.88)
    ground = Image.composite(Image.new("RGB", picture.size, (244, 248, 255)), lifted, fade(picture.size, 0, 92))
    sky = Image.new("L", picture.size)
    for share, radius, soft, level in ((0.55, 1.7, 0.7, 190), (0.33, 3.4, 1.3, 225), (0.12, 8.0, 3.6, 235)):
        layer = Image.new("L", picture.size)
        draw = ImageDraw.Draw(layer)
        for _ in range(round(760 * share * touch.strength)):
            x, y = touch.dice.uniform(0, picture.width), touch.dice.uniform(0, picture.height)
            r = radius * touch.dice.uniform(0.6, 1.3) * unit(picture) + 0.4
            draw.ellipse((x - r, y - r, x + r, y + r), fill=level)
        sky = ImageChops.lighter(sky, layer.filter(ImageFilter.GaussianBlur(soft * unit(picture))))
    return Image.composite(Image.new("RGB", picture.size, "white"), ground, sky)


def rain(picture: Picture, touch: Touch) -> Picture:
    """Grey light, wet contrast and slanted streaks."""
    grey = curve(ImageEnhance.Color(cooler(picture, touch)).enhance(0.62), lambda x: x**1.25 * 0.86)
    streaks = Image.new("L", picture.size)
    draw = ImageDraw.Draw(streaks)
    slant = touch.dice.uniform(-0.3, 0.3)
    for _ in range(round(620 * touch.strength)):
        x, y = touch.dice.uniform(-0.2, 1.2) * picture.width, touch.dice.uniform(-0.1, 1) * picture.height
        tall = touch.dice.uniform(22, 80) * unit(picture)
        draw.line(
            (x, y, x + slant * tall, y + tall),
            fill=touch.dice.randint(50, 150),
            width=max(1, round(1.6 * unit(picture))),
        )
    wet = streaks.filter(ImageFilter.GaussianBlur(0.7 * unit(picture)))
    return Image.composite(Image.new("RGB", picture.size, (214, 226, 240)), grey, wet)


def fog(picture: Picture, touch: Touch) -> Picture:
    """Thick above, thin below, in drifting banks."""
    side = max(picture.size)
    banks = ImageChops.blend(
        noise(picture.size, touch.dice, max(1, side // 4)), noise(picture.size, touch.dice, max(1, side // 11)), 0.4
    )
    depth = ImageChops.blend(fade(picture.size, 230, 70), banks, 0.42)
    thick = depth.point([min(240, round(v * 0.95 * touch.strength)) for v in range(256)])
    pale = ImageEnhance.Color(picture).enhance(0.7)
    return Image.composite(Image.new("RGB", picture.size, (222, 227, 232)), pale, thick)


def frame(picture: Picture, _: Touch) -> Picture:
    """An instant print's white border, wide at the bottom, inside the same size."""
    edge, foot = round(0.045 * min(picture.size)), round(0.13 * min(picture.size))
    sheet = Image.new("RGB", picture.size, (250, 248, 243))
    window = picture.width - 2 * edge, picture.height - edge - foot
    if min(window) < 1:
        return picture
    sheet.paste(ImageOps.fit(picture, window, Image.Resampling.LANCZOS), (edge, edge))
    return sheet


def prints(picture: Picture, others: Sequence[Picture], dice: random.Random) -> Picture:
    """Lay the further inputs on the picture like small photographs, along the lower right, each a little askew."""
    result = picture
    tall = round(min(picture.size) * (0.27 if len(others) < 4 else 0.19))
    right = picture.width - round(0.03 * picture.width)
    for other in reversed(others):
        shape = max(0.66, min(1.5, other.width / other.height))
        edge = max(2, tall // 22)
        photo = ImageOps.fit(other, (max(1, round(tall * shape)), tall), Image.Resampling.LANCZOS)
        card = ImageOps.expand(photo, edge, (252, 251, 247)).convert("RGBA")
        card = card.rotate(dice.uniform(-5, 5), Image.Resampling.BICUBIC, expand=True)
        corner = right - card.width, picture.height - card.height - round(0.03 * picture.height)
        shadow = Image.new("L", picture.size)
        shadow.paste(
            card.getchannel("A").point([round(v * 0.62) for v in range(256)]), (corner[0] + edge // 2, corner[1] + edge)
        )
        shadow = shadow.filter(ImageFilter.GaussianBlur(edge * 1.4))
        result = Image.composite(Image.new("RGB", picture.size), result, shadow)
        result.paste(card, corner, card)
        right = corner[0] - edge
    return result


_QUOTED = re.compile(r"\"([^\"]{1,120})\"|“([^”]{1,120})”|«([^»]{1,120})»|(?<!\w)'([^']{1,120})'(?!\w)")


def quoted(prompt: str) -> list[str]:
    """What the prompt wants written: the parts in quotation marks."""
    return [text for match in _QUOTED.finditer(prompt) for text in match.groups() if text and text.strip()]


def without_quotes(prompt: str) -> str:
    return _QUOTED.sub(" ", prompt)


def letter(picture: Picture, text: str, prompt: str) -> Picture:
    """Write `text` big, in white with a dark rim; `top` or `bottom` in the prompt says where, else the middle."""
    draw = ImageDraw.Draw(picture)
    lines, size = _broken(text, picture)
    font = ImageFont.load_default(size=size)
    step = round(size * 1.16)
    block = step * len(lines)
    if re.search(r"\btop\b|above", prompt):
        y = round(0.06 * picture.height)
    elif re.search(r"\bbottom\b|below|caption|subtitle", prompt):
        y = picture.height - block - round(0.07 * picture.height)
    else:
        y = (picture.height - block) // 2
    rim = max(1, size // 16)
    for line in lines:
        middle = picture.width / 2, y + step / 2
        draw.text(middle, line, font=font, fill="white", anchor="mm", stroke_width=rim, stroke_fill=(18, 18, 24))
        y += step
    return picture


def _broken(text: str, picture: Picture) -> tuple[list[str], float]:
    """Lines and the largest letter size at which they fill nine tenths of the width and half of the height."""
    words = text.split()
    best: tuple[list[str], float] = ([text], 8.0)
    for count in range(1, min(5, len(words)) + 1):
        per_line = math.ceil(len(words) / count)
        lines = [" ".join(words[i : i + per_line]) for i in range(0, len(words), per_line)]
        width = max(ImageFont.load_default(size=100).getlength(line) for line in lines) / 100
        size = min(
            0.88 * picture.width / max(width, 0.1), 0.5 * picture.height / (1.16 * len(lines)), 0.24 * min(picture.size)
        )
        if size > best[1]:
            best = lines, max(8.0, math.floor(size))
    return best


def mark(picture: Picture) -> Picture:
    """The sandbox's name, small, in the lower left corner: nobody shall take its work for a model's."""
    size = max(9, round(17 * unit(picture)))
    font = ImageFont.load_default(size=size)
    if font.getlength(MARK) > 0.9 * picture.width:
        return picture
    layer = Image.new("L", picture.size)
    at = round(0.8 * size), picture.height - round(0.8 * size)
    ImageDraw.Draw(layer).text((at[0] + 1, at[1] + 1), MARK, font=font, fill=105, anchor="ls")
    shadowed = Image.composite(Image.new("RGB", picture.size, (20, 20, 20)), picture, layer)
    layer = Image.new("L", picture.size)
    ImageDraw.Draw(layer).text(at, MARK, font=font, fill=165, anchor="ls")
    return Image.composite(Image.new("RGB", picture.size, "white"), shadowed, layer)
