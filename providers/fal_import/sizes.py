"""How an endpoint lets its caller choose the size -> the `sizing` of an offer, and the field that its rows write.

The styles are those that fal's documents show (read 2026-06-11): `image_size` as object, presets or listed sizes;
`aspect_ratio`, with `resolution` or without; `resolution_mode`; `width` and `height`; nothing.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from .document import Field

# PyPI fal 1.83.0, toolkit/image, table of size presets.
PRESETS: Mapping[str, str] = {
    "square_hd": "1024x1024",
    "square": "512x512",
    "portrait_4_3": "768x1024",
    "portrait_16_9": "576x1024",
    "landscape_4_3": "1024x768",
    "landscape_16_9": "1024x576",
}
# A scale of xK is (1024 x) squared: fal's models with `resolution` are Google's and xAI's, whose own pages count so.
TIERS: Mapping[str, int] = {"0.5K": 1 << 18, "1K": 1 << 20, "2K": 1 << 22, "3K": 9 << 20, "4K": 1 << 24}
MEGAPIXEL = 1 << 20  # the scale where a file says nothing else
# What nobody has to say: the model follows the picture.
FOLLOWS = ("auto", "match_input", "match_input_image")

# "Width and height must be between 1024 and 4096."
_SIDES = re.compile(r"\b(?:width and height|each side|sides)\b[^.]*?\bbetween (\d{2,5}) and (\d{2,5})\b", re.IGNORECASE)
_EXACT = re.compile(r"\d{2,5}x\d{2,5}")
_RATIO = re.compile(r"[1-9]\d{0,2}:[1-9]\d{0,2}")


@dataclass(slots=True)
class Sizes:
    """What was decided. `to`: the provider's field for each row of a size; "" = the row writes none."""

    settings: dict[str, Any] = field(default_factory=dict)
    to: dict[str, str] = field(default_factory=dict)
    used: set[str] = field(default_factory=set)  # fields that need no row of their own
    reviews: list[str] = field(default_factory=list)


def find_sizes(fields: Mapping[str, Field], *, edits: bool) -> Sizes:
    """The style of an endpoint. `edits`: it takes pictures, whose shape it can follow."""
    main = fields.get("image_size") or fields.get("size")
    if main is not None and (done := _by_size(main, edits)):
        return _with_leftovers(done, fields)
    if (mode := fields.get("resolution_mode")) is not None and (done := _by_ratio(mode, edits)):
        return done
    if (ratio := fields.get("aspect_ratio")) is not None and (done := _by_ratio(ratio, edits)):
        return _with_scale(done, fields.get("resolution"))
    if "width" in fields and "height" in fields and (sides := _by_sides(fields["width"], fields["height"], edits)):
        return _with_leftovers(sides, fields)
    done = Sizes({"write": "none", "default": "provider"}, {"size": "", "aspect_ratio": "", "resolution": ""})
    done.reviews.append("no size field is known to the importer: the model decides, `WxH` is fitted by the gateway")
    return _with_leftovers(done, fields)


def _by_size(main: Field, edits: bool) -> Sizes | None:
    exact = [word for word in main.words if _EXACT.fullmatch(word)]
    presets = {word: PRESETS[word] for word in main.words if word in PRESETS}
    others = [word for word in main.words if word not in presets and word not in exact and word not in FOLLOWS]
    done = Sizes(to=dict.fromkeys(("size", "aspect_ratio", "resolution"), main.name), used={main.name})
    if "size" in main.kinds:
        done.settings = {"write": "object", **_limits(main, done)}
        if presets:
            done.settings["presets"] = presets
    elif exact and not presets:
        done.settings = {"write": "string", "sizes": exact}
    elif presets:
        done.settings = {"write": "preset", "presets": presets}
        others += exact
    else:
        return None
    done.settings["default"] = _default(main, edits, done)
    if others:
        done.reviews.append(f"{main.name} also takes {', '.join(others)}: no size of the gateway's says that")
    return done


def _limits(main: Field, done: Sizes) -> dict[str, int]:
    told = _SIDES.search(main.text)
    if told and int(told[1]) <= int(told[2]) // 16 * 16:
        done.reviews.append(
            f"{main.name}: sides read from the description, and 16 is our guess of the grid: {main.text}"
        )
        return {"multiple_of": 16, "min_side": int(told[1]), "max_side": int(told[2])}
    low, high = main.side
    said = f"{main.name}: the document says {_number(low, 'nothing')} to {_number(high, 'nothing')} for a side"
    if low is not None and high is not None and low >= 64 and high <= 8192:
        done.reviews.append(f"{said}, and nothing of a grid: 16 is what diffusion models are trained on")
        return {"multiple_of": 16, "min_side": int(low), "max_side": int(high)}
    done.reviews.append(f"{said}, which no model makes: kept to what they are trained on")
    most = 2048 if high is None else min(2048, int(high))
    return {"multiple_of": 16, "min_side": min(256, most), "max_side": most}


def _by_sides(width: Field, height: Field, edits: bool) -> Sizes | None:
    if not all(one.kinds & {"integer", "number"} for one in (width, height)):
        return None
    to = {"size": "", "aspect_ratio": "", "resolution": "", "width": width.name, "height": height.name}
    done = Sizes(to=to, used={width.name, height.name})
    done.settings = {"write": "sides", **_limits(replace(width, side=(width.low, width.high)), done)}
    whole = all(isinstance(one.default, int) for one in (width, height))
    main = replace(width, default=f"{width.default}x{height.default}" if whole else None)
    done.settings["default"] = _default(main, edits, done)
    return done


def _by_ratio(ratio: Field, edits: bool) -> Sizes | None:
    ratios = [word for word in ratio.words if _RATIO.fullmatch(word)]
    if not ratios:
        return None
    done = Sizes({"write": "ratio", "ratios": ratios}, {"size": "", "aspect_ratio": ratio.name, "resolution": ""})
    done.used.add(ratio.name)
    done.settings["default"] = _default(ratio, edits, done)
    others = [word for word in ratio.words if word not in ratios and word not in FOLLOWS]
    if others:
        done.reviews.append(f"{ratio.name} also takes {', '.join(others)}: no shape of the gateway's says that")
    return done


def _with_scale(done: Sizes, scale: Field | None) -> Sizes:
    if scale is None:
        return done
    tiers = {word: TIERS[word.upper()] for word in scale.words if word.upper() in TIERS}
    if tiers and len(tiers) == len([word for word in scale.words if word not in FOLLOWS]):
        done.settings["tiers"] = tiers
        done.to["resolution"] = scale.name
        if isinstance(scale.default, str) and scale.default in tiers:
            done.settings["default_pixels"] = tiers[scale.default]
    else:
        done.reviews.append(f"resolution takes {_said(scale)}: its pixels are not known, it cannot be asked for")
    done.used.add(scale.name)
    return done


def _with_leftovers(done: Sizes, fields: Mapping[str, Field]) -> Sizes:
    """Fields whose names are the gateway's own words for something else than they would mean here."""
    for name in ("size", "aspect_ratio", "resolution", "resolution_mode"):
        if name in fields and name not in done.used and name != "resolution_mode":
            done.reviews.append(f"the field {name} ({_said(fields[name])}) is not written: the word is the gateway's")
            done.used.add(name)
    return done


def _default(main: Field, edits: bool, done: Sizes) -> str:
    """What happens when nobody says a size."""
    if main.default is None or main.default in FOLLOWS:
        return "provider"
    told = main.default if isinstance(main.default, str) else "x".join(map(str, _sides(main.default)))
    if not edits:
        return "provider"
    pixels = _pixels(PRESETS.get(told, told))
    if pixels not in (None, MEGAPIXEL):
        done.settings["default_pixels"] = pixels  # its own scale, if not its own shape
    done.reviews.append(f"{main.name} is {told} if nobody asks: the first picture's shape is asked for instead")
    return "match_first_input"


def _pixels(size: str) -> int | None:
    width, x, height = size.partition("x")
    return int(width) * int(height) if x and width.isdecimal() and height.isdecimal() else None


def _sides(value: Any) -> list[Any]:
    return [value.get("width"), value.get("height")] if isinstance(value, Mapping) else [value]


def _said(one: Field) -> str:
    return ", ".join(one.words) or "/".join(sorted(one.kinds)) or "anything"


def _number(value: float | None, otherwise: str) -> str:
    return otherwise if value is None else f"{value:g}"
