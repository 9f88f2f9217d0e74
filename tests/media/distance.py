"""How far apart two pictures are, as an eye sees it: after a small blur, on the whole and in the worst place."""

from __future__ import annotations

from typing import NamedTuple

from PIL import Image, ImageChops, ImageFilter, ImageStat

TILE = 8


class Distance(NamedTuple):
    """Of 255: over the whole picture, and in the tile where they differ most."""

    mean: float
    tile: float


TOLERATED = Distance(5.0, 12.0)  # test_golden: half-resolution colour takes 3.6 and 10, the least mistake 2 and 13


def distance(one: Image.Image, other: Image.Image) -> Distance:
    """Each pixel differs by as much as that of its bands does which differs most; what is clear has no colour."""
    assert one.size == other.size
    apart = Image.new("L", one.size)
    for first, second in zip(_blurred(one), _blurred(other), strict=True):
        apart = ImageChops.lighter(apart, ImageChops.difference(first, second))
    tiles = apart.convert("F").reduce(TILE)
    return Distance(ImageStat.Stat(apart).mean[0], tiles.getextrema()[1])  # type: ignore[arg-type]


def _blurred(picture: Image.Image) -> list[Image.Image]:
    bands = picture.convert("RGBA").convert("RGBa").split()
    return [band.filter(ImageFilter.GaussianBlur(1)) for band in bands]


def alike(one: Image.Image, other: Image.Image) -> bool:
    found = distance(one, other)
    return found.mean <= TOLERATED.mean and found.tile <= TOLERATED.tile
