"""Converters: named pure functions that turn one parameter, or a group of them, into fields of the payload.

A row names its converter in `by`; all rows of an offer with the same `by` are converted together, in one call, also
when the caller gave none of them (a model's default size may have to be said out loud).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import Any

from app.catalogue.schema import SIDES, Converted, Offer, Sizing, field_of, words_of
from app.errors import InvalidSize, InvalidValue
from app.params.sizing import (
    MAX_OUTPUT_PIXELS,
    MAX_OUTPUT_SIDE,
    Choice,
    ShapeNotPossible,
    Wish,
    choose,
    parse_exact,
    parse_ratio,
    parse_scale,
    shape_limits,
)
from app.params.values import listed, shown
from app.types import Given, Note, Size


@dataclass(frozen=True, slots=True)
class Conversion:
    """What a converter decided."""

    fields: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[Note, ...] = ()
    size: Size | None = None  # what the provider will make
    exact: Size | None = None  # what the client has to get


Converter = Callable[[Mapping[str, Given], Offer, Size | None], Conversion]


def dimensions(given: Mapping[str, Given], offer: Offer, first_input: Size | None) -> Conversion:
    """size, aspect_ratio and resolution, or width and height -> one size of the model.

    Precedence: `WxH`, or both sides > shape (`W:H` in size, else aspect_ratio) + resolution > shape alone > scale
    alone. A shape that nobody named is the first input's. Raises InvalidSize, InvalidValue.
    """
    sizing = offer.sizing
    wish, notes = _read(given, sizing)
    if sizing.write == "none":
        return Conversion(notes=tuple(_of_its_own(note, wish) for note in notes.values()), exact=wish.exact)
    if not (wish.exact or wish.shape or wish.pixels) and sizing.default == "provider":
        # Only `auto` can have been given.
        why = "auto: the model's own default, nothing is sent"
        return Conversion(notes=tuple(replace(note, why=why) for note in notes.values()))
    implied = Fraction(*first_input) if first_input else Fraction(1)
    choice, why = _choose(wish, sizing, implied, given)
    fields = _written(choice, offer, sizing)
    said = ", ".join(f"{name} {_plain(value)}" for name, value in fields.items())
    if not notes:
        origin = "the first picture's shape" if first_input else "a square"
        sent_as = next(iter(fields), None)
        notes["size"] = Note("size", "converted", sent_as, f"not given: {origin} at the model's scale, {said}{why}")
    else:
        notes = {
            name: note if note.how == "ignored" else _sent(note, offer, f"{note.why}asked for {said}{why}")
            for name, note in notes.items()
        }
    return Conversion(fields, tuple(notes.values()), choice.size, wish.exact)


def _of_its_own(note: Note, wish: Wish) -> Note:
    """What a size means to a model that takes none: pixels are the gateway's to make, the rest nobody can choose."""
    if note.how == "ignored":
        return note
    if wish.exact:
        width, height = wish.exact
        why = f"this model takes no size: the result is fitted to exactly {width}x{height}"
        return replace(note, how="emulated", why=why)
    if wish.shape or wish.pixels:
        return replace(note, how="ignored", why="this model makes pictures of a size of its own")
    return replace(note, why="auto: the model's own size, nothing is sent")


def words(given: Mapping[str, Given], offer: Offer, first_input: Size | None) -> Conversion:
    """Each word -> the provider's own for it, by the row's table; None in it: the model's own default, nothing is sent.
    Raises InvalidValue."""
    fields: dict[str, Any] = {}
    notes: list[Note] = []
    for name, value in given.items():
        row = offer.params[name]
        assert isinstance(row, Converted)
        assert row.to is not None  # the schema refuses such a row without it
        if value.value not in row.words:
            raise InvalidValue(
                f"Invalid value: '{shown(value.value)}'. Supported values are: {listed(words_of(row))}.",
                param=value.spelled,
            )
        word = row.words[value.value]
        if word is not None:
            fields[row.to] = word
        why = "the model's own default, nothing is sent" if word is None else f"asked for {word}"
        notes.append(Note(name, "converted", row.to if word is not None else None, why, value.spelled))
    return Conversion(fields, tuple(notes))


CONVERTERS: Mapping[str, Converter] = {"dimensions": dimensions, "words": words}


def _read(given: Mapping[str, Given], sizing: Sizing) -> tuple[Wish, dict[str, Note]]:
    """The wish that the given values add up to, and a note for each of them."""
    notes: dict[str, Note] = {}
    exact: Size | None = None
    shape: Fraction | None = None
    pixels: Fraction | None = None

    def note(name: str, how: str, why: str = "") -> None:
        notes[name] = Note(name, how, None, why, given[name].spelled)  # type: ignore[arg-type]

    size = _word(given, "size", sizing)
    if sides := [given[name] for name in SIDES if name in given]:
        exact = _sides(sides, given if size else {})
        for side in SIDES:
            note(side, "converted")
    elif size:
        exact = parse_exact(size)
        shape = None if exact else parse_ratio(size)
        if exact is not None:
            _check_exact(exact, given["size"])
        elif shape is None:
            raise InvalidSize(
                f"Invalid size '{shown(size)}'. Expected WIDTHxHEIGHT, for example '1824x1024', "
                "a shape such as '16:9', or 'auto'.",
                param=given["size"].spelled,
            )
        note("size", "converted")
    if ratio := _word(given, "aspect_ratio", sizing):
        parsed = parse_ratio(ratio)
        if parsed is None:
            raise InvalidSize(
                f"Invalid aspect_ratio '{shown(ratio)}'. Expected W:H, for example '16:9', or 'auto'.",
                param=given["aspect_ratio"].spelled,
            )
        if exact or shape:
            note("aspect_ratio", "ignored", f"{_fixed_by(given)} already fixes the shape")
        else:
            shape = parsed
            note("aspect_ratio", "converted")
    if scale := _word(given, "resolution", sizing):
        tier = parse_scale(scale, sizing)
        if tier is None:
            raise InvalidSize(
                f"Invalid resolution '{shown(scale)}'. Expected a tier such as '1K' or '2K', "
                "megapixels such as '0.25', or 'auto'.",
                param=given["resolution"].spelled,
            )
        if exact:
            note("resolution", "ignored", f"{_fixed_by(given)} already fixes the scale")
        else:
            pixels, name = tier
            same = name is None or name.lower() == scale.strip().lower()
            note("resolution", "converted", "" if same else f"{name} is the nearest tier, ")
    for name in given:
        if name not in notes:
            note(name, "converted", "auto, ")
    return Wish(exact, shape, pixels), notes


def _sides(sides: list[Given], beside: Mapping[str, Given]) -> Size:
    """Width and height, both or none of them, and no size beside them."""
    if "size" in beside:
        raise InvalidValue(
            f"'{sides[0].spelled}' and '{beside['size'].spelled}' fix the same thing: send one of them.",
            param=sides[0].spelled,
        )
    if len(sides) < len(SIDES):
        raise InvalidSize(
            f"Invalid '{sides[0].spelled}': width and height go together, and only one of them was sent.",
            param=sides[0].spelled,
        )
    exact = (sides[0].value, sides[1].value)
    _check_exact(exact, next((side for side in sides if not 1 <= side.value <= MAX_OUTPUT_SIDE), sides[0]))
    return exact


def _fixed_by(given: Mapping[str, Given]) -> str:
    return given["size"].spelled if "size" in given else " and ".join(given[name].spelled for name in SIDES)


def _word(given: Mapping[str, Given], name: str, sizing: Sizing) -> str | None:
    """The text of one of the three, None if absent or `auto`. The provider's own names of sizes count too."""
    if name not in given:
        return None
    value: str = given[name].value
    if value in sizing.presets:
        width, height = sizing.presets[value]
        return f"{width}x{height}"
    return None if value.strip().lower() == "auto" else value


def _check_exact(exact: Size, given: Given) -> None:
    width, height = exact
    if width < 1 or height < 1:
        raise InvalidSize(f"Invalid size '{width}x{height}'. Both sides must be at least 1.", param=given.spelled)
    if max(exact) > MAX_OUTPUT_SIDE:
        raise InvalidSize(
            f"Invalid size '{width}x{height}'. The longest edge must be less than or equal to {MAX_OUTPUT_SIDE}.",
            param=given.spelled,
        )
    if width * height > MAX_OUTPUT_PIXELS:
        raise InvalidSize(
            f"Invalid size '{width}x{height}'. A picture may have at most {MAX_OUTPUT_PIXELS} pixels.",
            param=given.spelled,
        )


def _choose(wish: Wish, sizing: Sizing, implied: Fraction, given: Mapping[str, Given]) -> tuple[Choice, str]:
    try:
        choice = choose(wish, sizing, implied)
    except ShapeNotPossible:
        limit = shape_limits(sizing)
        if wish.exact or wish.shape:
            word = given.get("size") if wish.exact or "aspect_ratio" not in given else given["aspect_ratio"]
            word = word or given.get("width")
            param = word.spelled if word else "size"
            raise InvalidSize(
                f"Invalid {param}: this model makes shapes up to {float(limit):g}:1 and 1:{float(limit):g}.",
                param=param,
            ) from None
        # Nobody named this shape, it is the picture's own: the nearest that can be made, and said so.
        nearest = limit if implied > 1 else 1 / limit
        choice = choose(Wish(None, nearest, wish.pixels), sizing, nearest)
        return choice, f"; the picture's own shape is beyond the model's {float(limit):g}:1"
    why = ""
    if wish.exact and choice.size != wish.exact:
        why = f", the nearest that the model makes; the result is fitted to exactly {wish.exact[0]}x{wish.exact[1]}"
    elif choice.scale_fitted and wish.pixels is not None:
        why = ", the nearest scale within the model's limits"
    return choice, why


def _written(choice: Choice, offer: Offer, sizing: Sizing) -> dict[str, Any]:
    """The payload's fields, under the names that the rows give."""
    rows = {n: r for n, r in offer.params.items() if isinstance(r, Converted) and r.by == "dimensions"}
    to = next((row.to for row in rows.values() if row.to), None)
    width, height = choice.size
    match sizing.write:
        case "object" if to:
            return {to: {"width": width, "height": height}}
        case "string" if to:
            return {to: f"{width}x{height}"}
        case "preset" if to:
            return {to: choice.label}
        case "sides":
            return {row.to: side for name, side in zip(SIDES, choice.size, strict=True) if (row := rows[name]).to}
        case "ratio":
            fields: dict[str, Any] = {}
            ratio_row, tier_row = rows.get("aspect_ratio"), rows.get("resolution")
            if choice.ratio and ratio_row and ratio_row.to:
                fields[ratio_row.to] = f"{choice.ratio[0]}:{choice.ratio[1]}"
            if choice.tier and tier_row and tier_row.to:
                fields[tier_row.to] = choice.tier
            return fields
    return {}


def _sent(note: Note, offer: Offer, why: str) -> Note:
    row = offer.params[note.name]
    to = row.to if isinstance(row, Converted) else None
    if to is None and offer.sizing.write == "sides":
        to = field_of(offer.params["width"])  # and the height's: a note names one field
    return Note(note.name, note.how, to, why, note.spelled)


def _plain(value: Any) -> str:
    if isinstance(value, Mapping):
        return "x".join(str(part) for part in value.values())
    return str(value)
