"""Which size to ask a model for. Exact arithmetic throughout (integers and fractions), so that the same wish turned by
90 degrees gives the same answer turned by 90 degrees, and asking for what was answered gives it again.

Distances are between logarithms: of 4:1 and 8:1, 7:1 is nearer to 8:1 and 5.6:1 to 4:1. For positive numbers
|log a - log b| grows with max(a/b, b/a), and that is a fraction. Ties go to the larger.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from math import isqrt

from app.catalogue.schema import Sizing
from app.types import Size

# What the gateway itself will scale a result to (WebP ends at 16,383 pixels a side).
MAX_OUTPUT_SIDE = 16_383
MAX_OUTPUT_PIXELS = 50_000_000

_EXACT = re.compile(r"([0-9]{1,6})\s*[xX×*]\s*([0-9]{1,6})")
_RATIO = re.compile(r"([0-9]{1,6}(?:\.[0-9]{1,6})?)\s*[:/]\s*([0-9]{1,6}(?:\.[0-9]{1,6})?)")
_TIER = re.compile(r"([0-9]{1,3}(?:\.[0-9]{1,4})?)\s*([kK])")
_MEGAPIXELS = re.compile(r"([0-9]{1,4}(?:\.[0-9]{1,6})?)\s*(?:[mM][pP]?)?")


class ShapeNotPossible(ValueError):
    """The model's limits hold no picture of this shape."""


@dataclass(frozen=True, slots=True)
class Wish:
    """What the caller wants: exact pixels, or a shape, or a scale (pixels), or a shape at a scale."""

    exact: Size | None = None
    shape: Fraction | None = None
    pixels: Fraction | None = None


@dataclass(frozen=True, slots=True)
class Choice:
    """What to ask the model for. `size` is what it will make, as far as that can be known."""

    size: Size
    label: str = ""  # the preset's name, if it was chosen from presets
    ratio: Size | None = None  # the chosen one of `ratios`
    tier: str | None = None  # the chosen one of `tiers`
    scale_fitted: bool = False  # the wish's scale was beyond the limits


def parse_exact(text: str) -> Size | None:
    """`1920x1080` -> (1920, 1080)."""
    match = _EXACT.fullmatch(text.strip())
    return (int(match[1]), int(match[2])) if match else None


def parse_ratio(text: str) -> Fraction | None:
    """`16:9` -> 16/9; None if it is no ratio or one of its sides is zero."""
    match = _RATIO.fullmatch(text.strip())
    if not match:
        return None
    width, height = Fraction(match[1]), Fraction(match[2])
    return width / height if width and height else None


def parse_scale(text: str, sizing: Sizing) -> tuple[Fraction, str | None] | None:
    """`2K`, or `0.25` megapixels -> the pixels of the model's nearest tier, and its name.

    A model without tiers takes the scale as it is: xK is (1024 x) squared, a megapixel is 2^20 pixels.
    """
    text = text.strip()
    if tier := _TIER.fullmatch(text):
        pixels = (Fraction(tier[1]) * 1024) ** 2
    elif megapixels := _MEGAPIXELS.fullmatch(text):
        pixels = Fraction(megapixels[1]) * (1 << 20)
    else:
        return None
    if pixels <= 0:
        return None
    if not sizing.tiers:
        return pixels, None
    named = {name.lower(): name for name in sizing.tiers}
    name = named.get(text.lower()) or min(
        sizing.tiers, key=lambda tier: (_distance(Fraction(sizing.tiers[tier]), pixels), -sizing.tiers[tier])
    )
    return Fraction(sizing.tiers[name]), name


def choose(wish: Wish, sizing: Sizing, fallback_shape: Fraction) -> Choice:
    """The nearest that the model can make. Raises ShapeNotPossible if no size of that shape fits the limits."""
    if wish.exact:
        shape, pixels = Fraction(*wish.exact), Fraction(wish.exact[0] * wish.exact[1])
        if nearest := _nearest_point(wish.exact, sizing):
            return Choice(nearest)
    else:
        shape = wish.shape if wish.shape is not None else fallback_shape
        pixels = wish.pixels if wish.pixels is not None else Fraction(sizing.default_pixels)
    if sizing.write == "ratio":
        ratio = _nearest_shape(sizing.ratios, shape)
        tier = _nearest_tier(sizing, pixels)
        area = Fraction(sizing.tiers[tier]) if tier else Fraction(sizing.default_pixels)
        return Choice(_on_grid(Fraction(*ratio), area, 1), ratio=ratio, tier=tier)
    listed = sizing.sizes or (tuple(sizing.presets.values()) if sizing.write == "preset" else ())
    if listed:
        size = min(listed, key=lambda s: (_distance(Fraction(*s), shape), -_elongation(s), _area_distance(s, pixels)))
        label = next((name for name, value in sizing.presets.items() if value == size), "")
        return Choice(size, label=label)
    return _free(shape, pixels, sizing)


def shape_limits(sizing: Sizing) -> Fraction:
    """The longest shape (long side / short side) that the limits hold."""
    low, high = _side_limits(sizing)
    by_area = (Fraction(sizing.max_pixels, low * low), Fraction(high * high, sizing.min_pixels))
    return max(min(Fraction(high, low), Fraction(sizing.max_ratio), *by_area), Fraction(1))


def _nearest_point(exact: Size, sizing: Sizing) -> Size | None:
    """The grid's point next to these very pixels, each side by itself. None if the model is not free, or its limits do
    not hold it."""
    if sizing.write not in ("object", "string", "sides") or sizing.sizes:
        return None
    step = sizing.multiple_of
    width, height = (_nearest_multiple(side, step) for side in exact)
    low, high = _side_limits(sizing)
    fits = low <= min(width, height) and max(width, height) <= high
    return (width, height) if fits and _in_bounds((width, height), sizing) else None


def _in_bounds(size: Size, sizing: Sizing | _Bounds) -> bool:
    return sizing.min_pixels <= size[0] * size[1] <= sizing.max_pixels and _elongation(size) <= sizing.max_ratio


def _nearest_multiple(side: int, step: int) -> int:
    below = side // step * step
    above = below + step
    # Nearer by logarithms: below/side against side/above; ties to the larger.
    return below if below and (below == side or side * side < below * above) else above


@dataclass(frozen=True, slots=True)
class _Bounds:
    """What a model's size has to keep to."""

    multiple_of: int
    low: int
    high: int
    min_pixels: int
    max_pixels: int
    max_ratio: float


def _free(shape: Fraction, pixels: Fraction, sizing: Sizing) -> Choice:
    low, high = _side_limits(sizing)
    return _within(
        shape, pixels, _Bounds(sizing.multiple_of, low, high, sizing.min_pixels, sizing.max_pixels, sizing.max_ratio)
    )


@lru_cache(maxsize=1024)  # exact arithmetic takes its time, and callers' pictures are alike
def _within(shape: Fraction, pixels: Fraction, bounds: _Bounds) -> Choice:
    low, high = bounds.low, bounds.high
    long = max(shape, 1 / shape)
    least = max(low * low * long, Fraction(bounds.min_pixels))
    most = min(high * high / long, Fraction(bounds.max_pixels))
    if least > most or long > bounds.max_ratio:
        raise ShapeNotPossible
    area = min(max(pixels, least), most)
    candidates = [
        size
        for size in _neighbours(shape, area, bounds.multiple_of)
        if low <= min(size) and max(size) <= high and _in_bounds(size, bounds)
    ]
    if not candidates:
        raise ShapeNotPossible
    # A tier is a ceiling: fal bills each started megapixel, so a 1K picture of 1.01 megapixels would cost the double.
    within = [size for size in candidates if size[0] * size[1] <= area] or candidates
    size = min(within, key=lambda s: (_distance(Fraction(*s), shape), _area_distance(s, area)))
    return Choice(size, scale_fitted=area != pixels)


def _neighbours(shape: Fraction, area: Fraction, step: int) -> Iterable[Size]:
    """The up to four grid points around the ideal size."""
    wide = isqrt(int(area * shape / step**2))
    high = isqrt(int(area / shape / step**2))
    return {(w * step, h * step) for w in (wide, wide + 1) for h in (high, high + 1) if w and h}


def _on_grid(shape: Fraction, area: Fraction, step: int) -> Size:
    return min(_neighbours(shape, area, step), key=lambda s: (_distance(Fraction(*s), shape), _area_distance(s, area)))


def _side_limits(sizing: Sizing) -> tuple[int, int]:
    step = sizing.multiple_of
    return -(-sizing.min_side // step) * step, sizing.max_side // step * step


def _nearest_shape(ratios: Iterable[Size], shape: Fraction) -> Size:
    return min(ratios, key=lambda r: (_distance(Fraction(*r), shape), -_elongation(r)))


def _nearest_tier(sizing: Sizing, pixels: Fraction) -> str | None:
    if not sizing.tiers:
        return None
    return min(sizing.tiers, key=lambda t: (_distance(Fraction(sizing.tiers[t]), pixels), -sizing.tiers[t]))


def _distance(a: Fraction, b: Fraction) -> Fraction:
    over, under = a.numerator * b.denominator, a.denominator * b.numerator
    return Fraction(over, under) if over >= under else Fraction(under, over)


def _elongation(size: Size) -> Fraction:
    return max(Fraction(size[0], size[1]), Fraction(size[1], size[0]))


def _area_distance(size: Size, area: Fraction) -> tuple[Fraction, int]:
    pixels = size[0] * size[1]
    return _distance(Fraction(pixels), area), -pixels
