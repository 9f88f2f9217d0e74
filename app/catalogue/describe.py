"""A model as the outside sees it: OpenAI's four fields, ours, and the table of its parameters. Derived from the rows
that run, never written twice.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping
from decimal import Decimal
from typing import Any

from app.catalogue.schema import (
    Converted,
    Emulated,
    Mode,
    Model,
    Offer,
    Passthrough,
    Price,
    Renamed,
    Row,
    Sizing,
    field_of,
    words_of,
)

_CAPABILITIES = {"image-edit": "editing", "text-to-image": "generation"}


def describe(model: Model, labels: Mapping[str, str], stand_ins: Collection[str] = ()) -> dict[str, Any]:
    """An entry of the models list. `labels` are the providers' names as people read them; `stand_ins` those providers
    whose sandbox makes the pictures."""
    first = model.offers[0]
    prices = [offer.price for offer in model.offers if offer.price is not None]
    lowest = min(prices, key=_least) if prices else None
    return {
        "id": model.id,
        "object": "model",
        "created": model.released,
        "owned_by": model.creator.lower(),
        "name": model.name,
        "description": model.description,
        "creator_organization": model.creator,
        "capabilities": [word for mode, word in _CAPABILITIES.items() if mode in model.modes],
        "modality": "image",
        "modes": list(model.modes),
        "starting_price": float(_least(lowest)) if lowest else None,
        "price_unit": lowest.per if lowest else None,
        "price_currency": lowest.currency if lowest else None,
        "aliases": list(model.aliases),
        "providers": [_offer(offer, model.modes, labels, stand_ins) for offer in model.offers],
        "parameters": sorted(name for name, row in first.params.items() if row.how not in ("ignored", "rejected")),
    }


def schema(model: Model, labels: Mapping[str, str], stand_ins: Collection[str] = ()) -> dict[str, Any]:
    """The entry with its whole parameter table, what pictures may come in and what sizes go out, for each offer."""
    entry = describe(model, labels, stand_ins)
    for shown, offer in zip(entry["providers"], model.offers, strict=True):
        edits = "image-edit" in shown["modes"]
        shown["accepts"] = offer.accepts.model_dump(mode="json") if edits else None
        shown["constants"] = offer.constants
        shown["sizing"] = _sizing(offer.sizing)
        shown["parameters"] = [parameter(name, row) for name, row in offer.params.items()]
    return entry


def bound(row: Row, value: float | None) -> float | None:
    """A limit of the row, whole where its values are."""
    return value if value is None or row.type != "integer" or not value.is_integer() else int(value)


def parameter(name: str, row: Row) -> dict[str, Any]:
    """One row: what the caller may send, and what becomes of it."""
    shown: dict[str, Any] = {"name": name, "how": row.how, "type": row.type, "required": row.required}
    optional = {
        "sent_as": field_of(row),
        "values": list(words_of(row)) or None,
        "min": bound(row, row.min),
        "max": bound(row, row.max),
        "max_length": row.max_length,
        "default": row.default,
        "aliases": list(row.aliases) or None,
        "along": (row.along or None) if isinstance(row, Passthrough | Renamed) else None,
        "words": (row.words or None) if isinstance(row, Converted) else None,
        "description": row.doc or getattr(row, "why", None),
    }
    if isinstance(row, Emulated):
        optional["native"] = list(row.native) or None
        if name == "n":
            optional |= {"per_call": row.per_call, "max_per_call": row.max_per_call}
    return shown | {key: value for key, value in optional.items() if value is not None}


def markdown(offer: Offer) -> str:
    """The parameter table as the README shows it: what callers may send, sorted by what becomes of it."""
    lines = ["| parameter | what becomes of it | type | allowed | default |", "|---|---|---|---|---|"]
    for how in ("passthrough", "renamed", "converted", "emulated"):
        for name, row in offer.params.items():
            if row.how != how:
                continue
            to = field_of(row)
            sent = f" → `{to}`" if to and to != name else ""
            default = "" if row.default is None else f"`{json.dumps(row.default)}`"
            required = " (required)" if row.required else ""
            lines.append(f"| `{name}`{required} | {how}{sent} | {row.type} | {_allowed(row)} | {default} |")
    ignored = ", ".join(f"`{name}`" for name, row in offer.params.items() if row.how == "ignored")
    return "\n".join([*lines, "", f"Accepted without effect, and noted in the answer: {ignored}."])


def overview(models: Iterable[Model]) -> str:
    """All models as docs/models.md shows them, an offer a line."""
    lines = ["| model | mode | endpoint | pictures | size is sent as | price in USD |", "|---|---|---|---|---|---|"]
    for model in models:
        for offer in model.offers:
            modes = offer.modes or model.modes
            pictures = str(offer.accepts.images) if "image-edit" in modes else ""
            endpoint = f"{offer.provider}: `{offer.endpoint}`"
            cells = (f"`{model.id}`", ", ".join(modes), endpoint, pictures, _size_sent(offer), _price_said(offer.price))
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _size_sent(offer: Offer) -> str:
    rows = [row for row in offer.params.values() if isinstance(row, Converted) and row.by == "dimensions"]
    fields = " and ".join(f"`{name}`" for name in dict.fromkeys(row.to for row in rows if row.to))
    if not fields:
        return ""
    forms = {"object": "width and height", "string": "`WxH`", "preset": "a preset", "ratio": "a shape"}
    return f"{fields}: {forms.get(offer.sizing.write, 'pixels')}"


def _price_said(price: Price | None) -> str:
    if price is None:
        return "unknown"
    said = f"{price.amount} {'an image' if price.per == 'image' else 'a megapixel'}"
    if price.first is not None:
        said = f"{price.first} for the first {price.per}, then {price.amount}"
    if price.inputs is not None:
        said += ", inputs included"
    others = (
        f"{case.amount} with {' and '.join(f'`{name}` {value}' for name, value in case.when.items())}"
        for case in price.cases
    )
    return "; ".join((said, *others))


def _allowed(row: Row) -> str:
    if values := words_of(row):
        return ", ".join(f"`{value}`" for value in values)
    low, high = (None if bound is None else f"{bound:.17g}" for bound in (row.min, row.max))
    if low is not None or high is not None:
        return f"{low or '…'} to {high or '…'}"
    return f"up to {row.max_length} characters" if row.max_length else ""


def _least(price: Price) -> Decimal:
    """What a unit costs at least."""
    if price.first is not None:
        return price.first
    return min((price.amount, *(case.amount for case in price.cases)))


def _price(price: Price) -> dict[str, Any]:
    return {
        "per": price.per,
        "amount": float(price.amount),
        "first": None if price.first is None else float(price.first),
        "cases": [{"when": dict(case.when), "amount": float(case.amount)} for case in price.cases],
        "input_megapixels": price.inputs,
        "currency": price.currency,
        "source": price.source,
    }


def _offer(
    offer: Offer, modes: tuple[Mode, ...], labels: Mapping[str, str], stand_ins: Collection[str]
) -> dict[str, Any]:
    price = offer.price
    return {
        "id": offer.provider,
        "name": labels.get(offer.provider, offer.provider),
        "sandbox": offer.provider in stand_ins,
        "endpoint": offer.endpoint,
        "modes": list(offer.modes or modes),
        "price": None if price is None else _price(price),
        "max_images": offer.accepts.images if "image-edit" in (offer.modes or modes) else None,
    }


def _sizing(sizing: Sizing) -> dict[str, Any]:
    """Pairs as people write them: 16:9 and 1024x768. Lengths in pixels."""
    return {
        "write": sizing.write,
        "multiple_of": sizing.multiple_of,
        "min_side": sizing.min_side,
        "max_side": sizing.max_side,
        "min_pixels": sizing.min_pixels,
        "max_pixels": sizing.max_pixels,
        "max_ratio": sizing.max_ratio,
        "default": sizing.default,
        "tiers": dict(sizing.tiers),
        "ratios": [f"{width}:{height}" for width, height in sizing.ratios],
        "sizes": [f"{width}x{height}" for width, height in sizing.sizes],
        "presets": {name: f"{width}x{height}" for name, (width, height) in sizing.presets.items()},
    }
