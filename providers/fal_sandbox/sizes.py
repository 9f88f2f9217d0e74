"""From what the payload says about size to pixels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from .schema import PRESETS, Endpoint, pixels

_SQUARE_HD = PRESETS["square_hd"]
_AUTO_SIDES = {"auto_2K": 2048, "auto_3K": 3072, "auto_4K": 4096}

Size = tuple[int, int]
"""Width and height in pixels."""


def output_size(endpoint: Endpoint, values: Mapping[str, Any], inputs: Sequence[Size]) -> Size:
    """The size that this endpoint renders for checked `values`.

    A size field wins, or two: a preset, `{width, height}`, `1024x1536`, or a width and a height; `auto` or nothing
    means what the endpoint's schema says for an absent size. Otherwise an aspect ratio, times its resolution.
    """
    factor = endpoint.resolutions.get(str(values.get("resolution")), 1.0)
    if endpoint.ratios:
        width, height = _of_ratio(endpoint, values.get(endpoint.ratio_field), inputs)
        return round(width * factor), round(height * factor)
    sides = [values[name] for name in endpoint.side_fields if values.get(name)]
    if len(sides) == 2:
        return sides[0], sides[1]
    asked = values.get("image_size")
    if asked is None or asked == "auto":
        return _absent(endpoint, inputs)
    if isinstance(asked, str):
        if asked in _AUTO_SIDES:
            return _scaled(_absent(endpoint, inputs) if not inputs else inputs[0], _AUTO_SIDES[asked] ** 2)
        return PRESETS[asked] if asked in PRESETS else pixels(asked)
    if isinstance(asked, dict):  # a default of the schema file
        return asked["width"], asked["height"]
    return asked.width, asked.height


def _of_ratio(endpoint: Endpoint, asked: object, inputs: Sequence[Size]) -> Size:
    if isinstance(asked, str) and asked in endpoint.ratios:
        return endpoint.ratios[asked]
    if not inputs:
        return _SQUARE_HD
    wanted = inputs[0][0] / inputs[0][1]
    return min(endpoint.ratios.values(), key=lambda size: max(size[0] / size[1] / wanted, wanted * size[1] / size[0]))


def _absent(endpoint: Endpoint, inputs: Sequence[Size]) -> Size:
    rule = endpoint.size_absent
    if rule in ("first_input", "last_input"):
        return (inputs[0] if rule == "first_input" else inputs[-1]) if inputs else _SQUARE_HD
    return PRESETS[rule] if rule in PRESETS else pixels(rule)


def _scaled(size: Size, area: int) -> Size:
    """The same shape with about `area` pixels, in multiples of 16."""
    scale = (area / (size[0] * size[1])) ** 0.5
    return max(16, round(size[0] * scale / 16) * 16), max(16, round(size[1] * scale / 16) * 16)
