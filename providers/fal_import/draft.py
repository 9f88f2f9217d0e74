"""What was decided -> the text of a model file, with a `# review:` comment wherever a person has to look."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from datetime import datetime
from decimal import Decimal
from typing import Any

from .document import Endpoint, one_line
from .rows import Rows, find_rows

_PLAIN = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]*")
_WIDTH = 116  # characters of a line of comment
UNITS: Mapping[str, str] = {"image": "image", "images": "image", "megapixel": "megapixel", "megapixels": "megapixel"}


def draft(endpoint: Endpoint) -> str:
    """The YAML text. Raises ValueError."""
    return "\n".join(_lines(endpoint, find_rows(endpoint))) + "\n"


def _lines(endpoint: Endpoint, done: Rows) -> Iterator[str]:
    yield "# Drafted by `imagegate models import` from fal's published OpenAPI document of the endpoint below. Look at"
    yield "# each `review` line, correct what it is about, and delete it. Rows that are not here come from common.yaml."
    owner, _, path = endpoint.id.partition("/")
    yield f"id: {_text(path.replace('/', '-'))}"
    yield f"name: {_text(endpoint.name or ' '.join(re.split(r'[/_-]', path)).title())}"
    if owner == "fal-ai":
        yield from _review("", "who made the model? The document does not say")
        yield "creator: unknown"
    else:
        yield f"creator: {_text(owner)}"
    if endpoint.text:
        yield f"description: {_text(endpoint.text[:300])}"
    if released := _seconds(endpoint.released):
        yield f"released: {released}  # {endpoint.released}, on fal"
    yield f"modes: [{done.mode}]"
    yield "offers:"
    yield "  - provider: fal"
    yield f"    endpoint: {_text(endpoint.id)}"
    for text in done.reviews.get("", ()):
        yield from _review("    ", text)
    yield from _price(endpoint)
    if done.mode == "image-edit":
        for text in done.reviews.get("accepts", ()):
            yield from _review("    ", text)
        yield f"    accepts: {_flow(done.accepts)}"
    for text in done.reviews.get("sizing", ()):
        yield from _review("    ", text)
    yield "    sizing:"
    for name, value in done.sizes.settings.items():
        yield f"      {name}: {_flow(value)}"
    yield "    params:"
    for name, row in done.rows.items():
        for text in done.reviews.get(name, ()):
            yield from _review("      ", text)
        yield f"      {_text(name)}:"
        for key, value in row.items():
            yield f"        {key}: {_flow(value)}"


def _price(endpoint: Endpoint) -> Iterator[str]:
    if endpoint.price is None:
        yield from _review(
            "    ", "price: unknown, the document names none; quotes and costs are unknown until it is here"
        )
        return
    unit, amount = endpoint.price
    per = UNITS.get(unit.lower())
    if per is None:
        yield from _review("    ", f"price: {amount} USD per {unit or 'something'}: no unit that the gateway can count")
        return
    if per == "megapixel":
        yield from _review(
            "    ", "price: whether a started megapixel counts as a whole one (rounding: up) is not said"
        )
    source = "unit_price in the document's pricing"
    yield f"    price: {{per: {per}, amount: {_text(amount)}, source: {_text(source)}}}"


def _seconds(day: str) -> int | None:
    try:
        return int(datetime.fromisoformat(f"{day}T00:00:00+00:00").timestamp())
    except ValueError:
        return None


def _review(indent: str, text: str) -> Iterator[str]:
    """Comment lines of a bearable length."""
    line = f"{indent}# review:"
    for word in one_line(text).split():
        if len(line) + 1 + len(word) > _WIDTH:
            yield line
            line = f"{indent}#  "
        line += f" {word}"
    yield line


def _flow(value: Any) -> str:
    match value:
        case Mapping():
            return "{" + ", ".join(f"{_text(str(key))}: {_flow(one)}" for key, one in value.items()) + "}"
        case list() | tuple():
            return "[" + ", ".join(map(_flow, value)) + "]"
        case bool():
            return "true" if value else "false"
        case int():
            return str(value)
        case float():
            return format(Decimal(repr(value)), "f")
    return _text(str(value))


def _text(text: str) -> str:
    """A string that YAML takes for one, whatever is in it."""
    plain = _PLAIN.fullmatch(text) and text.lower() not in ("true", "false", "null", "yes", "no", "on", "off")
    return text if plain else json.dumps("".join(c for c in text if c.isprintable()), ensure_ascii=False)
