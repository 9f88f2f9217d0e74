"""The pictures of the benchmarks: made anew each time, always the same, from one photograph and Pillow's drawing.

`photo` is the upload and the upstream's result: a megapixel that weighs what a real photograph does (about 1.5 MB as
PNG). An enlarged photograph alone would be too smooth, so it gets the grain of a sensor.
"""

from __future__ import annotations

import random
from functools import lru_cache
from io import BytesIO

from PIL import Image, ImageChops, ImageOps

from bench.machine import ROOT

SIDE = 1024


@lru_cache(maxsize=1)
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


def jpeg(image: Image.Image, quality: int = 92) -> bytes:
    """As a camera would have it."""
    out = BytesIO()
    image.save(out, "JPEG", quality=quality)
    return out.getvalue()
