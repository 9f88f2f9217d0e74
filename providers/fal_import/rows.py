"""Each field of an endpoint -> the row of the parameter that it is: twins by name, the rest passes through for review.

The twins are those of the project's notes on fal (per-model documents of 2026-06-11): what fal calls `guidance_scale`
is everybody's `cfg_scale`, `num_images` is `n`, `image_url(s)` is `image`, `mask_url` and `mask_image_url` are `mask`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from .document import Endpoint, Field
from .sizes import Sizes, find_sizes

Row = dict[str, Any]

FORMATS = ("png", "jpeg", "jpg", "gif", "webp", "avif")  # what the gateway delivers
IMAGES = ("image_urls", "image_url", "images", "image")
MASKS = ("mask_url", "mask_image_url")
COUNTS = ("num_images", "n")
SEED_MAX = (1 << 53) - 1  # what every JSON reader keeps exactly


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


# Passed through under their own names: fal's knobs, and those that OpenAI's models on fal have under OpenAI's names.
KNOWN = _names(
    """acceleration background enable_prompt_expansion enable_safety_checker enable_web_search enhance_prompt
    enhance_prompt_mode input_fidelity limit_generations loras negative_prompt num_inference_steps prompt quality
    safety_tolerance seed strength style sync_mode system_prompt thinking_level use_turbo"""
)
ALIASES: Mapping[str, list[str]] = {"num_inference_steps": ["steps"], "cfg_scale": ["cfg"]}
# The gateway's own words: a field of this name that is nothing of the above cannot be reached under it.
RESERVED = _names(
    """api_base api_key base_url dryRun dry_run extra_headers fal_webhook image markup mask model n output_compression
    partial_images response_format stream user webhook webhook_url"""
)
# What callers of other models send, and what a model that lacks it does with it.
ABSENT: Mapping[str, tuple[str, str]] = {
    "seed": ("seed", "this model has no seed"),
    "negative_prompt": ("negative_prompt", "this model takes no negative prompt"),
    "cfg_scale": ("guidance_scale", "this model has no guidance scale"),
    "num_inference_steps": ("num_inference_steps", "this model lets nobody choose its steps"),
}


# "up to 3 images", "only the first four are used", "the last 10 are kept": more than these a caller is refused
_NUMBERS = {
    word: value
    for value, word in enumerate(["two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"], 2)
}
_LIMIT = re.compile(rf"\b(?:up to|at most|maximum(?: of)?|first|last) ([1-9]\d?|{'|'.join(_NUMBERS)})\b", re.IGNORECASE)


# "white areas are inpainted", "the black pixels will be edited"
_EDITED = re.compile(
    r"\b(white|black)(?: \w+)?(?: of the mask)? (?:is|are|will be|to be|get|gets) "
    r"(?:re)?(?:inpainted|edited|filled|replaced|generated|regenerated|changed|painted)\b",
    re.IGNORECASE,
)


@dataclass(slots=True)
class Rows:
    """What was decided for all fields. `reviews`: for a person, by row; "" = for the offer as a whole."""

    mode: str
    rows: dict[str, Row] = field(default_factory=dict)
    reviews: dict[str, list[str]] = field(default_factory=dict)
    accepts: dict[str, Any] = field(default_factory=dict)
    sizes: Sizes = field(default_factory=Sizes)

    def review(self, name: str, text: str) -> None:
        """Something that a person has to look at."""
        self.reviews.setdefault(name, []).append(text)


def find_rows(endpoint: Endpoint) -> Rows:
    """Rows for all fields of an endpoint. Raises ValueError if it has no prompt: then it is no model for this API."""
    fields = {one.name: one for one in endpoint.fields}
    if "prompt" not in fields:
        raise ValueError(f"{endpoint.id}: has no field `prompt`: it neither edits nor makes pictures by words")
    pictures = [fields[name] for name in IMAGES if name in fields and _takes_url(fields[name])]
    image = min(pictures, key=lambda one: not one.required, default=None)  # others are references, for a style say
    mask = next((fields[name] for name in MASKS if name in fields), None)
    count = next((fields[name] for name in COUNTS if name in fields), None)
    done = Rows("text-to-image" if image is None else "image-edit")
    done.sizes = find_sizes(fields, edits=image is not None)
    for one in endpoint.fields:
        if one is image:
            _image(done, one)
        elif one is mask:
            _mask(done, one)
        elif one is count:
            _count(done, one)
        elif one.name == "max_images":
            _reject_max_images(done)
        elif one.name == "output_format" and set(one.words) & set(FORMATS):
            _format(done, one)
        elif one.name == "guidance_scale":
            done.rows["cfg_scale"] = {"how": "renamed", "to": one.name, **_typed(done, "cfg_scale", one)}
        elif one.name not in done.sizes.used:
            _pass(done, one)
    _add_sizes(done)
    for name, (written, why) in ABSENT.items():
        if written not in fields and name not in done.rows:
            done.rows[name] = {"how": "ignored", "why": why}
    if "output_format" not in fields:
        done.review("", "no output_format field: the gateway converts what the model makes")
    if count is None:
        done.review("", "no count field: the gateway makes n pictures with n jobs")
    return done


def _takes_url(one: Field) -> bool:
    return "string" in one.kinds or ("array" in one.kinds and one.of in ("string", ""))


def _image(done: Rows, one: Field) -> None:
    many = "array" in one.kinds
    kind = "images" if many else "image"
    how: Row = {"how": "passthrough"} if one.name == "image" else {"how": "renamed", "to": one.name}
    done.rows["image"] = {**how, "type": kind, "required": True, **_doc(one)}
    if not one.required:
        done.review("image", f"{one.name} is optional: the model may also make pictures from words alone")
    if not many:
        done.accepts["images"] = 1
    elif one.max_items is not None:
        done.accepts["images"] = one.max_items
    elif told_limit := _LIMIT.search(one.text):
        done.accepts["images"] = _NUMBERS.get(told_limit[1].lower()) or int(told_limit[1])
        done.review("accepts", f"images: read from the description: {one.text}")
    else:
        done.accepts["images"] = max(one.examples, 1)
        told = f"its example has {one.examples}" if one.examples else "nor an example"
        done.review("accepts", f"images: the document names no limit, {told}: {one.text or 'no description'}")
    if one.advice:
        done.review("accepts", f"fal's toolkit applies to {one.name}: {one.advice}")


def _mask(done: Rows, one: Field) -> None:
    required: Row = {"required": True} if one.required else {}
    done.rows["mask"] = {"how": "renamed", "to": one.name, "type": "image", **required, **_doc(one)}
    if told := _EDITED.search(one.text):
        done.accepts["mask"] = told[1].lower()
        done.review("mask", f"{told[1].lower()} = edit is read from the description: {one.text}")
        return
    done.review(
        "mask",
        f"{one.name} gets OpenAI's mask as it is (transparent = edit); if this model wants white or black = edit, "
        "say so in accepts (mask: white)",
    )


def _count(done: Rows, one: Field) -> None:
    row: Row = {"how": "emulated", "to": one.name, "type": "integer", "min": 1, "max": 10, "default": 1, "per_call": 1}
    if one.high is not None and one.high >= 1:
        row["max_per_call"] = int(one.high)
    done.rows["n"] = row
    if one.default not in (None, 1):
        done.review("n", f"{one.name} is {one.default} if it is not sent")


def _reject_max_images(done: Rows) -> None:
    done.rows["max_images"] = {
        "how": "rejected",
        "why": "one job could make more pictures than are counted and paid for here: use n",
    }


def _format(done: Rows, one: Field) -> None:
    native = [word for word in FORMATS if word in one.words and word != "jpg"]
    if "jpg" in one.words and "jpeg" not in native:
        done.review("output_format", "the model says jpg, the gateway would send jpeg: only its other formats are used")
    row: Row = {"how": "emulated", "to": one.name, "type": "string", "values": list(FORMATS), "native": native}
    if one.default in FORMATS:
        row["default"] = one.default
    done.rows["output_format"] = row


def _pass(done: Rows, one: Field) -> None:
    if one.name in IMAGES:  # every caller's word for the picture itself
        name = f"reference_{one.name}"
        done.rows[name] = {"how": "renamed", "to": one.name, **_typed(done, name, one)}
        done.review(name, f"further pictures, by URL: the gateway does not upload them. {_facts(one)}")
        return
    if one.name in RESERVED:
        done.review("", f"the field {one.name} cannot be reached: the word is the gateway's. {_facts(one)}")
        return
    done.rows[one.name] = {"how": "passthrough", **_typed(done, one.name, one)}
    if one.name not in KNOWN:
        done.review(one.name, f"not known to the importer: {_facts(one)}")
    elif one.is_file:
        done.review(one.name, "takes the URL of a file, which the gateway does not upload")


def _add_sizes(done: Rows) -> None:
    for name, to in done.sizes.to.items():
        kind = "integer" if name in ("width", "height") else "string"
        row: Row = {"how": "converted", "by": "dimensions", "type": kind}
        if to:
            row["to"] = to
        if name == "aspect_ratio":
            row["aliases"] = ["aspectRatio"]
        done.rows[name] = row
    for text in done.sizes.reviews:
        done.review("sizing", text)


def _typed(done: Rows, name: str, one: Field) -> Row:
    """Type, limits, default and words of a row."""
    row: Row = {"type": _type(one)}
    if one.required:
        row["required"] = True
    if row["type"] == "string" and one.words:
        row["values"] = list(one.words)
    if row["type"] == "string" and one.max_length is not None:
        row["max_length"] = one.max_length
    if row["type"] in ("integer", "number"):
        row |= _bounds(done, name, one, whole=row["type"] == "integer")
    if isinstance(one.default, bool | int | float | str) and row.get("values", [one.default]).count(one.default):
        row["default"] = one.default
    if name in ALIASES:
        row["aliases"] = list(ALIASES[name])
    return row | _doc(one)


def _type(one: Field) -> str:
    if len(one.kinds) == 1 and not (one.numbers and one.words):
        kind = next(iter(one.kinds))
        if kind in ("string", "integer", "number", "boolean", "object"):
            return kind
        if kind in ("array", "size"):
            return "list" if kind == "array" else "object"
    return "number" if one.kinds == {"integer", "number"} else "any"


def _bounds(done: Rows, name: str, one: Field, *, whole: bool) -> Row:
    low, high = one.low, one.high
    if one.numbers:
        low, high = min(one.numbers), max(one.numbers)
        done.review(name, f"only these numbers are allowed: {', '.join(f'{value:g}' for value in one.numbers)}")
    if whole:
        low = low + 1 if low is not None and one.open_low else low
        high = high - 1 if high is not None and one.open_high else high
    for bound, is_open in ((low, one.open_low), (high, one.open_high)):
        if is_open and not whole:
            done.review(name, f"{bound:g} itself is not allowed")
    if name == "seed":
        if high is None:
            done.review(name, f"seed: the document names no largest one; {SEED_MAX} is what every JSON reader keeps")
        low, high = 0 if low is None else max(low, 0), SEED_MAX if high is None else high
    found = {"min": low, "max": high}
    return {
        word: int(value) if float(value).is_integer() else value for word, value in found.items() if value is not None
    }


def _facts(one: Field) -> str:
    """What the document says of a field, in one line."""
    return "; ".join(_said(one))


def _said(one: Field) -> Iterator[str]:
    yield "/".join(sorted(one.kinds)) or "no type"
    if one.words:
        yield f"one of {', '.join(one.words)}"
    if one.low is not None or one.high is not None:
        yield f"from {'…' if one.low is None else f'{one.low:g}'} to {'…' if one.high is None else f'{one.high:g}'}"
    if one.default is not None:
        yield f"default {one.default!r}"
    for fact, word in ((one.required, "required"), (one.nullable, "may be null"), (one.is_file, "a file's URL")):
        if fact:
            yield word
    if one.text:
        yield one.text[:200]


def _doc(one: Field) -> Row:
    return {"doc": one.text[:300]} if one.text else {}
