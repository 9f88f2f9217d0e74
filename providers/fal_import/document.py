"""fal's OpenAPI document of one endpoint -> its input fields, as facts.

Two wrappings are published: the document itself (fal.ai/api/openapi/queue/openapi.json?endpoint_id=…), and an entry of
the platform API's list (api.fal.ai/v1/models?expand=openapi-3.0), which holds the document under `openapi` beside
metadata. `anyOf: [X, null]`, `allOf: [X]` and `$ref` are resolved; `x-fal-order-properties` gives the order.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

_DEPTH = 20  # of references


@dataclass(frozen=True, slots=True)
class Field:
    """One property of the input. `kinds`: JSON types, and `size` for an object of width and height."""

    name: str
    kinds: frozenset[str]
    words: tuple[str, ...] = ()  # the strings of its enum
    numbers: tuple[float, ...] = ()  # the numbers of its enum
    low: float | None = None
    high: float | None = None
    open_low: bool = False  # the bound itself is not allowed
    open_high: bool = False
    max_length: int | None = None
    max_items: int | None = None
    of: str = ""  # the JSON type of an array's items
    default: Any = None
    nullable: bool = False
    required: bool = False
    text: str = ""  # the description, in one line
    examples: int = 0  # items of the longest example, for arrays
    side: tuple[float | None, float | None] = (None, None)  # bounds of a size's sides
    is_file: bool = False  # fal's page shows an upload button for it
    advice: str = ""  # x-fal: limits that fal's toolkit applies, in one line


@dataclass(frozen=True, slots=True)
class Endpoint:
    """An endpoint and what its document says of it."""

    id: str
    name: str  # "" if the document has none
    category: str
    text: str
    fields: tuple[Field, ...]
    price: tuple[str, str] | None  # unit, amount in USD
    released: str  # ISO date, or ""


def read_endpoint(raw: Any, wanted: str | None) -> Endpoint:
    """The endpoint `wanted`, or the only one. Raises ValueError."""
    found = [(entry, document) for entry, document in _documents(raw)]
    if not found:
        raise ValueError("this is no OpenAPI document: it has no `openapi` and no `paths`")
    named = [(_endpoint_id(entry, document), entry, document) for entry, document in found]
    chosen = [one for one in named if wanted in (None, one[0])]
    if len(chosen) != 1:
        ids = ", ".join(sorted(id for id, _, _ in named))
        raise ValueError(f"the document is about {ids}" + ("" if wanted is None else f", not {wanted}"))
    id, entry, document = chosen[0]
    schema = _input(document, id)
    meta = _mapping(entry.get("metadata")) or _mapping(_mapping(document.get("info")).get("x-fal-metadata"))
    return Endpoint(
        id,
        one_line(meta.get("display_name") or meta.get("title") or ""),
        str(meta.get("category") or ""),
        one_line(meta.get("description") or ""),
        tuple(_fields(document, schema)),
        _price(raw, entry, meta, id),
        str(meta.get("date") or "")[:10],
    )


def one_line(text: Any) -> str:
    """Text without line breaks and unprintable characters."""
    return " ".join("".join(c if c.isprintable() else " " for c in str(text)).split())


def _documents(raw: Any) -> Iterator[tuple[Mapping[str, Any], Mapping[str, Any]]]:
    entries = raw.get("models", [raw]) if isinstance(raw, Mapping) else raw
    for entry in entries if isinstance(entries, list) else []:
        if isinstance(entry, Mapping):
            document = entry.get("openapi") if isinstance(entry.get("openapi"), Mapping) else entry
            if isinstance(document, Mapping) and isinstance(document.get("paths"), Mapping):
                yield entry, document


def _endpoint_id(entry: Mapping[str, Any], document: Mapping[str, Any]) -> str:
    meta = _mapping(_mapping(document.get("info")).get("x-fal-metadata"))
    told = meta.get("endpointId") or entry.get("endpoint_id")
    if isinstance(told, str) and told:
        return told
    for path, operations in document["paths"].items():
        if "/requests/" not in path and "post" in _mapping(operations):
            return str(path).strip("/")
    raise ValueError("the document does not say which endpoint it is about")


def _input(document: Mapping[str, Any], id: str) -> Mapping[str, Any]:
    """What is posted to the queue."""
    for path, operations in document["paths"].items():
        post = _mapping(_mapping(operations).get("post"))
        if "/requests/" in path or not post:
            continue
        content = _mapping(_mapping(post.get("requestBody")).get("content"))
        schema = _resolved(document, _mapping(content.get("application/json")).get("schema"))
        if isinstance(schema.get("properties"), Mapping):
            return schema
    raise ValueError(f"{id}: the document has no POST with an object as its JSON body")


def _fields(document: Mapping[str, Any], schema: Mapping[str, Any]) -> Iterator[Field]:
    properties = _mapping(schema.get("properties"))
    order = [name for name in schema.get("x-fal-order-properties") or () if name in properties]
    required = schema.get("required") or ()
    for name in dict.fromkeys([*order, *properties]):
        yield _field(document, str(name), _mapping(properties[name]), name in required)


def _field(document: Mapping[str, Any], name: str, raw: Mapping[str, Any], required: bool) -> Field:
    branches = list(_branches(document, raw, 0))
    nullable = any(branch.get("type") == "null" or branch.get("nullable") is True for branch in (raw, *branches))
    branches = [branch for branch in branches if branch.get("type") != "null"]
    kinds = {_kind(branch) for branch in branches} - {""}
    enum = [value for branch in branches for value in _values(branch)]
    size = next((branch for branch in branches if _kind(branch) == "size"), {})
    items = next((_resolved(document, branch["items"]) for branch in branches if "items" in branch), {})
    examples = [one for one in (*(raw.get("examples") or ()), raw.get("example")) if isinstance(one, list)]
    lows = [_bound(branch, "minimum", "exclusiveMinimum") for branch in branches]
    highs = [_bound(branch, "maximum", "exclusiveMaximum") for branch in branches]
    low, high = next((b for b in lows if b), (None, False)), next((b for b in highs if b), (None, False))
    advice = _mapping(raw.get("x-fal")) or _mapping(items.get("x-fal"))
    return Field(
        name,
        frozenset(kinds),
        words=tuple(dict.fromkeys(value for value in enum if isinstance(value, str))),
        numbers=tuple(value for value in enum if isinstance(value, int | float) and not isinstance(value, bool)),
        low=low[0],
        high=high[0],
        open_low=low[1],
        open_high=high[1],
        max_length=_first(branches, "maxLength"),
        max_items=_first(branches, "maxItems"),
        of=str(items.get("type") or ""),
        default=raw.get("default", _first(branches, "default")),
        nullable=nullable,
        required=required,
        text=one_line(raw.get("description") or ""),
        examples=max(map(len, examples), default=0),
        side=_sides(document, size),
        is_file=any("x-fal-file-input" in one for one in (raw, items)),
        advice=", ".join(f"{key} {advice[key]}" for key in sorted(advice)),
    )


def _branches(document: Mapping[str, Any], raw: Mapping[str, Any], depth: int) -> Iterator[Mapping[str, Any]]:
    """The alternatives of a schema, flat."""
    raw = _resolved(document, raw)
    parts = [part for word in ("anyOf", "oneOf", "allOf") for part in raw.get(word) or ()]
    if not parts or depth > _DEPTH:
        yield raw
        return
    for part in parts:
        yield from _branches(document, _mapping(part), depth + 1)


def _resolved(document: Mapping[str, Any], raw: Any) -> Mapping[str, Any]:
    schema = _mapping(raw)
    for _ in range(_DEPTH):
        ref = schema.get("$ref")
        if not isinstance(ref, str):
            return schema
        target: Any = document
        for part in ref.removeprefix("#/").split("/"):
            target = _mapping(target).get(part)
        if not isinstance(target, Mapping):
            raise ValueError(f"{ref}: there is nothing")
        schema = target
    raise ValueError("references that lead in a circle")


def _kind(branch: Mapping[str, Any]) -> str:
    properties = _mapping(branch.get("properties"))
    if {"width", "height"} <= set(properties):
        return "size"
    if isinstance(branch.get("type"), str):
        return str(branch["type"])
    return "string" if any(isinstance(value, str) for value in _values(branch)) else ""


def _values(branch: Mapping[str, Any]) -> list[Any]:
    if "const" in branch:
        return [branch["const"]]
    values = branch.get("enum")
    return values if isinstance(values, list) else []


def _bound(branch: Mapping[str, Any], word: str, exclusive: str) -> tuple[float, bool] | None:
    """OpenAPI 3.0's `exclusiveMinimum` is a flag, 3.1's a number; fal's documents hold either."""
    if _is_number(branch.get(exclusive)):
        return branch[exclusive], True
    return (branch[word], branch.get(exclusive) is True) if _is_number(branch.get(word)) else None


def _sides(document: Mapping[str, Any], size: Mapping[str, Any]) -> tuple[float | None, float | None]:
    width = _resolved(document, _mapping(size.get("properties")).get("width"))
    low, high = _bound(width, "minimum", "exclusiveMinimum"), _bound(width, "maximum", "exclusiveMaximum")
    return (low[0] + low[1] if low else None), (high[0] - high[1] if high else None)


def _price(raw: Any, entry: Mapping[str, Any], meta: Mapping[str, Any], id: str) -> tuple[str, str] | None:
    """As /v1/models/pricing tells it, where somebody has saved it with the document."""
    listed = raw.get("prices") if isinstance(raw, Mapping) else None
    places = [entry.get("pricing"), meta.get("pricing"), *(listed if isinstance(listed, list) else ())]
    for price in map(_mapping, places):
        amount = str(price.get("unit_price", ""))
        ours = price.get("endpoint_id", id) == id and price.get("currency", "USD") == "USD"
        if ours and re.fullmatch(r"\d{1,9}(\.\d{1,12})?", amount):
            return str(price.get("unit") or ""), amount
    return None


def _first(branches: list[Mapping[str, Any]], word: str) -> Any:
    return next((branch[word] for branch in branches if word in branch), None)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}
