"""What a model file may say. A file that loads is a model that works: unknown keys, a `renamed` without `to`, a default
outside its own bounds stop the start, with file, model, row and reason (`app.catalogue.load`).

Rows are the heart: each says what one parameter becomes for one offer. Six readers live off the same rows: typing and
limits of what a caller sends, the engine, the models API, the playground, the README's table, the snapshot tests.
"""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from functools import cached_property
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import BeforeValidator, Discriminator, Field, model_validator

from app.fields import Bytes, Pair, Positive, Strict

Name = Annotated[str, BeforeValidator(lambda value: str(value) if isinstance(value, int | float) else value)]
# `any` is not looked at: it goes on as it came, which in a form is text. A form's `list` or `object` is JSON.
ValueType = Literal["string", "integer", "number", "boolean", "list", "object", "any", "image", "images"]
Mode = Literal["image-edit", "text-to-image"]

# OpenAI checks in this order (measured on its API, August 2026); the rest follow as they came, size comes last.
_FIRST = ("prompt", "image", "mask", "n", "quality", "background", "output_format", "output_compression")
_LAST = ("size", "aspect_ratio", "resolution")


SIDES = ("width", "height")  # rows of a size whose sides are two fields

T = TypeVar("T")


def _unless(wrong: list[str], model: T) -> T:
    """The model, unless something is wrong with it: then all of it is said, a line each."""
    if wrong:
        raise ValueError("\n".join(wrong))
    return model


class _Row(Strict):
    type: ValueType = "any"
    values: tuple[str, ...] = ()  # the allowed strings; empty = any
    min: float | None = None
    max: float | None = None
    max_length: int | None = None
    required: bool = False
    default: Any = None  # what happens when the caller says nothing: for readers, never sent
    aliases: tuple[str, ...] = ()  # other words that callers use for it
    doc: str = ""

    @model_validator(mode="after")
    def _bounds_make_sense(self) -> Self:
        wrong = []
        if (self.min is not None or self.max is not None) and self.type not in ("integer", "number"):
            wrong.append("min and max need type: integer or number")
        if self.min is not None and self.max is not None and self.min > self.max:
            wrong.append(f"min {self.min} is above max {self.max}")
        if self.max_length is not None and self.type != "string":
            wrong.append("max_length needs type: string")
        if self.values and self.type not in ("string", "any"):
            wrong.append("values needs type: string")
        if self.values and self.default is not None and self.default not in self.values:
            wrong.append(f"default {self.default!r} is not among values")
        return _unless(wrong, self)


class _Sent(_Row):
    along: dict[str, Any] = Field(default_factory=dict)  # the provider's fields that it needs beside it, unless given


class Passthrough(_Sent):
    """Sent as it is."""

    how: Literal["passthrough"]


class Renamed(_Sent):
    """The same value under the provider's own name."""

    how: Literal["renamed"]
    to: str = Field(min_length=1)


class Converted(_Row):
    """A value that is transformed. Rows with the same `by` are converted together (size, aspect_ratio, resolution)."""

    how: Literal["converted"]
    by: str
    to: str | None = None  # the provider's field that the converter writes for this row, if any
    words: dict[str, str | None] = Field(default_factory=dict)  # by: words; null = the model's own default, not sent

    @model_validator(mode="after")
    def _has_words(self) -> Self:
        wrong = []
        if self.by == "words" and not (self.words and self.to):
            wrong.append("by: words needs `words`, and `to`, the field that they go to")
        if self.by != "words" and self.words:
            wrong.append("words needs by: words")
        if self.by == "words" and self.values and set(self.values) != set(self.words):
            wrong.append("values and words must be the same: leave values out")
        return _unless(wrong, self)


class Emulated(_Row):
    """Done by the gateway where the provider lacks it. `native` names what the provider does itself."""

    how: Literal["emulated"]
    by: str = ""  # the emulator; empty: named like the parameter
    to: str | None = None  # the provider's field that native use writes, if any
    native: tuple[str, ...] = ()
    per_call: Positive = 1  # for n: pictures that one upstream job is asked for
    max_per_call: Positive | None = None  # for n: pictures that the provider would make at most in one job

    @model_validator(mode="after")
    def _fits_in_a_call(self) -> Self:
        if self.max_per_call is not None and self.per_call > self.max_per_call:
            raise ValueError(f"per_call {self.per_call} is above max_per_call {self.max_per_call}")
        return self


class Ignored(_Row):
    """A knob that this model does not have: accepted, noted, without effect."""

    how: Literal["ignored"]
    why: str = Field(min_length=1)


class Rejected(_Row):
    """A feature that cannot be formed: 400."""

    how: Literal["rejected"]
    why: str = Field(min_length=1)


def field_of(row: Row | None) -> str | None:
    """The provider's field that a row writes under a name of its own, if any."""
    return row.to if isinstance(row, Renamed | Converted | Emulated) else None


def words_of(row: Row) -> tuple[str, ...]:
    """What a caller may say, if it is a list; empty: anything."""
    return tuple(row.words) if isinstance(row, Converted) and row.words else row.values


Row = Annotated[Passthrough | Renamed | Converted | Emulated | Ignored | Rejected, Discriminator("how")]


class PriceCase(Strict):
    """Another amount, for jobs that ask for something: `{when: {resolution: 4K}, amount: "0.30"}`."""

    when: dict[str, Name] = Field(min_length=1)  # the provider's fields and the values that are sent, as text
    amount: Decimal = Field(ge=0)


class Price(Strict):
    """What one unit costs. `source` is the page and date that the amount comes from.

    The first case that holds gives the amount, else it is `amount`. A plan's price is one without cases: with `units`
    off, since fal does not say what a billable unit is where prices differ.
    """

    per: Literal["image", "megapixel"]
    amount: Decimal = Field(ge=0)
    cases: tuple[PriceCase, ...] = ()
    first: Decimal | None = Field(default=None, ge=0)  # what a job's first megapixel costs, where it is not `amount`
    inputs: Positive | None = None  # input pictures are billed, too, as so many megapixels at most each
    currency: Literal["USD"] = "USD"
    megapixel: Positive = 1_048_576  # pixels
    rounding: Literal["up", "none"] = "none"  # of each picture's megapixels
    units: bool = True  # whether the provider's own count of billable units is of what `amount` is for
    source: str = ""

    @model_validator(mode="after")
    def _counts_megapixels(self) -> Self:
        wrong = []
        if self.per == "image" and (self.first is not None or self.inputs is not None):
            wrong.append("first and inputs need per: megapixel")
        if self.cases and (self.first is not None or self.inputs is not None):
            wrong.append("cases cannot stand beside first or inputs")
        return _unless(wrong, self)


class Accepts(Strict):
    """What the provider takes as input pictures."""

    images: Positive = 1
    formats: tuple[Literal["png", "jpeg", "webp", "gif", "avif"], ...] = ("png", "jpeg", "webp")
    max_bytes: Bytes = 10_000_000
    max_pixels: Positive = 40_000_000
    alpha: bool = False  # False: flattened on white before it is sent
    # How the provider reads a mask, where it edits: openai = where it is transparent, white, black. both = openai or
    # white, it is not known which: it gets a mask that says the same either way.
    mask: Literal["openai", "white", "black", "both"] = "openai"
    urls: bool = False  # True: a caller's public https URL goes to the provider as it is, metadata and all
    exif_orientation: bool = False  # False: the gateway turns the pixels upright itself


class Sizing(Strict):
    """How the model lets a caller choose the output size. Lengths in pixels."""

    write: Literal["object", "string", "preset", "ratio", "sides", "none"]
    multiple_of: Positive = 1
    min_side: Positive = 1
    max_side: Positive = 16_384
    min_pixels: Positive = 1
    max_pixels: Positive = 1 << 28
    max_ratio: Positive = 16_384  # long side / short side
    default: Literal["match_first_input", "provider"] = "match_first_input"
    default_pixels: Positive = 1_048_576  # the scale when only a shape is known
    tiers: dict[Name, Positive] = Field(default_factory=dict)  # 1K, 2K … or megapixels 0.25, 1 … -> pixels
    ratios: tuple[Pair, ...] = ()  # write: ratio
    sizes: tuple[Pair, ...] = ()  # write: string, when only these are taken
    presets: dict[str, Pair] = Field(default_factory=dict)  # name -> pixels; write: preset, or the provider's own words

    @model_validator(mode="after")
    def _can_be_formed(self) -> Self:
        wrong = []
        if self.min_side > self.max_side:
            wrong.append(f"min_side {self.min_side} is above max_side {self.max_side}")
        elif -(-self.min_side // self.multiple_of) * self.multiple_of > self.max_side:
            wrong.append("no multiple of multiple_of lies between min_side and max_side")
        if self.min_pixels > self.max_pixels:
            wrong.append(f"min_pixels {self.min_pixels} is above max_pixels {self.max_pixels}")
        if self.write == "preset" and not self.presets:
            wrong.append("write: preset needs presets")
        if self.write == "ratio" and not self.ratios:
            wrong.append("write: ratio needs ratios")
        return _unless(wrong, self)


class Offer(Strict):
    """One way to get a model: a provider, its endpoint, its price, its limits, its rows."""

    provider: str
    endpoint: str
    modes: tuple[Mode, ...] = ()  # what it is for; empty: all that its model does
    price: Price | None = None  # None: unknown, and said so; never zero
    accepts: Accepts = Accepts()
    sizing: Sizing = Sizing(write="none", default="provider")
    constants: dict[str, Any] = Field(default_factory=dict)  # the provider's fields that every call has alike
    params: dict[str, Row]

    @cached_property
    def words(self) -> Mapping[str, str]:
        """Every word that means a row: its own name, its aliases, and the field of the provider that it writes."""
        words: dict[str, str] = {}
        for name, row in self.params.items():
            if to := field_of(row):
                # Several rows may write one field (size, aspect_ratio, resolution): the first is its twin.
                words.setdefault(to, name)
            for alias in row.aliases:
                words[alias] = name
        return words | {name: name for name in self.params}

    @cached_property
    def in_order(self) -> tuple[tuple[str, Row], ...]:
        """The rows in the order in which their values are checked."""
        middle = [name for name in self.params if name not in _FIRST and name not in _LAST]
        return tuple((name, self.params[name]) for name in (*_FIRST, *middle, *_LAST) if name in self.params)

    @cached_property
    def groups(self) -> Mapping[str, tuple[str, ...]]:
        """Converter -> the rows that it converts together."""
        groups: dict[str, list[str]] = {}
        for name, row in self.params.items():
            if row.how == "converted":
                groups.setdefault(row.by, []).append(name)
        return {by: tuple(names) for by, names in groups.items()}

    @cached_property
    def emulated(self) -> Mapping[str, tuple[str, Emulated]]:
        """Emulator -> its row, with its name."""
        return {(row.by or name): (name, row) for name, row in self.params.items() if isinstance(row, Emulated)}

    @model_validator(mode="after")
    def _rows_agree(self) -> Self:
        wrong = []
        by_dimensions = [name for name, row in self.params.items() if row.how == "converted" and row.by == "dimensions"]
        n = self.params.get("n")
        if n is not None and n.how in ("passthrough", "renamed", "converted"):
            wrong.append("row n: must be emulated, ignored or rejected: the gateway counts what it buys")
        if isinstance(n, Emulated) and n.per_call > 1 and n.to is None:
            wrong.append("row n: per_call above 1 needs `to`, the field that asks for so many")
        for name in by_dimensions:
            wanted = "integer" if name in SIDES else "string"
            if self.params[name].type != wanted:
                wrong.append(f"row {name}: converted by dimensions, so it needs type: {wanted}")
        if by_dimensions:
            wrong += self._unwritten(self.sizing, {name: field_of(self.params[name]) for name in by_dimensions})
        for name, row in self.params.items():
            written = name if row.how == "passthrough" else field_of(row)
            if written in self.constants:
                wrong.append(f"row {name}: writes {written}, which is among constants")
        fields = {field_of(row) or name for name, row in self.params.items()} | set(self.constants)
        for case in self.price.cases if self.price is not None else ():
            wrong += [f"price: no row sends {field!r}" for field in case.when if field not in fields]
        taken: dict[str, str] = {}
        for name, row in self.params.items():
            for alias in row.aliases:
                if alias in self.params or alias in taken:
                    wrong.append(f"row {name}: alias {alias!r} is already a name")
                taken[alias] = name
        return _unless(wrong, self)

    def _unwritten(self, sizing: Sizing, fields: Mapping[str, str | None]) -> list[str]:
        """What is lacking for a size to reach the provider. `fields`: those that the rows write."""
        if sizing.write == "none":
            return [f"row {name}: writes {to}, but sizing has write: none" for name, to in fields.items() if to]
        if sizing.write == "sides":
            lacking = [f"row {name}: write: sides needs it, with `to`" for name in SIDES if not fields.get(name)]
            others = [name for name, to in fields.items() if to and name not in SIDES]
            return lacking + [f"row {name}: width and height write the size" for name in others]
        if wrong := [f"row {name}: converted by dimensions needs write: sides" for name in SIDES if name in fields]:
            return wrong
        if sizing.write == "ratio":
            wrong = [] if fields.get("aspect_ratio") else ["row aspect_ratio: write: ratio needs it, with `to`"]
            if sizing.tiers and not fields.get("resolution"):
                wrong.append("row resolution: tiers need it, with `to`")
            return wrong
        return [] if any(fields.values()) else ["no row that is converted by dimensions has `to`, the size's field"]


class Model(Strict):
    """What callers name in `model`."""

    id: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._:/-]{0,127}$")
    name: str
    creator: str
    description: str = ""
    released: int = 0  # unix seconds, OpenAI's `created`
    rank: int = 100  # of its place in lists: the lower, the earlier; then by file
    aliases: tuple[str, ...] = ()
    modes: tuple[Mode, ...] = Field(min_length=1)
    offers: tuple[Offer, ...] = Field(min_length=1)

    def offers_for(self, mode: Mode) -> tuple[Offer, ...]:
        """Those that do it, in their order."""
        return tuple(offer for offer in self.offers if mode in (offer.modes or self.modes))

    @model_validator(mode="after")
    def _modes_agree(self) -> Self:
        wrong = [f"mode {mode}: no offer does it" for mode in self.modes if not self.offers_for(mode)]
        wrong += [
            f"offer {offer.endpoint}: mode {mode} is none of the model's"
            for offer in self.offers
            for mode in offer.modes
            if mode not in self.modes
        ]
        return _unless(wrong, self)
