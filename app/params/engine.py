"""compile_plan: the one place that understands a request. Everything after it acts on the Plan and nothing else.

For each given parameter its row decides: passthrough, renamed, converted, emulated, ignored, rejected. What has no row
passes straight through to the provider, except a field that the gateway itself writes: `num_images=9` would buy nine
pictures for the price of one. Such a raw name is read as its documented twin, under the twin's bounds.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from decimal import ROUND_CEILING, Decimal
from typing import Any

from app.catalogue.schema import Offer, Passthrough, Renamed, Row, field_of
from app.errors import InvalidValue, MissingParameter, TooManyImages, UnknownParameter, UnsupportedParameter
from app.params.convert import CONVERTERS
from app.params.emulate import EMULATORS, LOSSY, Situation, same_size
from app.params.inputs import plan_inputs, plan_mask
from app.params.values import check_text, coerce
from app.types import Call, Delivery, EditRequest, Given, InputStep, Note, Plan, Size, Slot
from providers.base import Media


@dataclass(slots=True)
class _Draft:
    """What is known so far. Lives and dies inside one compile_plan."""

    fields: dict[str, Any] = field(default_factory=dict)
    notes: list[Note] = field(default_factory=list)
    delivery: Delivery = field(default_factory=Delivery)
    inputs: tuple[InputStep, ...] = ()
    size: Size | None = None
    per_call: int = 1
    count_field: str | None = None


def compile_plan(request: EditRequest, model: str, offer: Offer) -> Plan:
    """The request as this offer will run it. Pure. Raises InvalidRequest and its kin, naming the caller's own word."""
    typed, extra = _typed(request, offer)
    draft = _Draft(dict(offer.constants), delivery=Delivery(base_url=request.base_url))
    images = _images(typed)
    _apply_rows(draft, typed, offer)
    _convert(draft, typed, offer, images)
    _emulate(draft, typed, offer, images, request)
    for name, value in extra.items():
        draft.fields[name] = value.value
        draft.notes.append(Note(name, "passthrough", name, "not a known parameter: sent as it is", value.spelled))
    _accompany(draft, typed, offer)
    calls = tuple(_calls(draft, offer))
    if len(calls) > 1:
        why = "moves by one for each picture, starting over past its maximum"
        draft.notes = [replace(note, why=note.why or why) if note.name == "seed" else note for note in draft.notes]
    offer = _priced(offer, calls[0].payload)
    besides = _billed_inputs(offer, draft.inputs)
    return Plan(model, offer, calls, draft.inputs, draft.delivery, tuple(draft.notes), draft.size, besides)


def _priced(offer: Offer, payload: Mapping[str, Any]) -> Offer:
    """The offer at the price of what is asked. All jobs of a plan ask for the same, but for seeds and counts."""
    price = offer.price
    if price is None or not price.cases:
        return offer
    holds = (
        case.amount
        for case in price.cases
        if all(_as_text(payload.get(name)) == value for name, value in case.when.items())
    )
    flat = price.model_copy(update={"amount": next(holds, price.amount), "cases": (), "units": False})
    return offer.model_copy(update={"price": flat})


def _as_text(value: Any) -> str:
    """A payload's value as a model file writes it."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def _billed_inputs(offer: Offer, inputs: tuple[InputStep, ...]) -> Decimal:
    """Megapixels that each job is billed for because of its input pictures."""
    price = offer.price
    if price is None or price.inputs is None:
        return Decimal(0)
    each = (Decimal(step.media.width * step.media.height) / price.megapixel for step in inputs)
    if price.rounding == "up":
        each = (megapixels.to_integral_value(ROUND_CEILING) for megapixels in each)
    return sum((min(megapixels, Decimal(price.inputs)) for megapixels in each), Decimal(0))


def check_parameters(request: EditRequest, offer: Offer) -> None:
    """Raise what is wrong with the words of a request, before its pictures are fetched and read."""
    typed, _ = _typed(request, offer)
    for by, names in offer.groups.items():
        if given := {name: typed[name] for name in names if name in typed}:
            CONVERTERS[by](given, offer, None)


def _typed(request: EditRequest, offer: Offer) -> tuple[dict[str, Given], dict[str, Given]]:
    """The given parameters typed and bounded by their rows, and those that have no row; nothing required is missing,
    nothing that cannot be formed is asked."""
    given, extra = _assign(request, offer)
    typed: dict[str, Given] = {}
    for name, row in offer.in_order:
        one = given.get(name)
        if one is not None:
            _check_verdict(row, one, strict=request.strict)
            typed[name] = Given(one.spelled, coerce(row, one), one.text)
        elif row.required:
            raise MissingParameter(name)
    return typed, extra


def _assign(request: EditRequest, offer: Offer) -> tuple[dict[str, Given], dict[str, Given]]:
    """Each given parameter to its row; what has none is extra. Refuses two words for one parameter."""
    words = offer.words
    given: dict[str, Given] = {}
    extra: dict[str, Given] = {}
    for name, value in request.params.items():
        row_name = words.get(name)
        if row_name is None:
            if name in offer.constants:
                raise UnsupportedParameter(
                    f"Unsupported parameter: '{value.spelled}': it is fixed for this model.", param=value.spelled
                )
            _check_extra(value, strict=request.strict)
            extra[name] = value
        elif row_name in given:
            other = given[row_name].spelled
            raise InvalidValue(
                f"'{value.spelled}' and '{other}' are the same parameter: send one of them.", param=value.spelled
            )
        else:
            given[row_name] = _as_twin(offer.params[row_name], value)
    _refuse_rivals(given, offer)
    return given, extra


def _refuse_rivals(given: Mapping[str, Given], offer: Offer) -> None:
    """A raw field of the provider stands for all rows that write it: none of them may be given beside it."""
    written = {name: field_of(offer.params[name]) for name in given}
    for name, value in given.items():
        raw = value.spelled == written[name] != name
        rivals = [other for other in given if other != name and written[other] == written[name]]
        if raw and rivals:
            raise InvalidValue(
                f"'{value.spelled}' and '{given[rivals[0]].spelled}' fix the same thing: send one of them.",
                param=value.spelled,
            )


def _as_twin(row: Row, value: Given) -> Given:
    """A size as an object (under the provider's raw name) or a number (JSON megapixels), in the converter's words."""
    size = value.value
    if row.how == "converted" and row.type == "string" and isinstance(size, int | float) and not isinstance(size, bool):
        return replace(value, value=f"{size:.15g}")
    if row.how == "converted" and isinstance(size, Mapping) and set(size) == {"width", "height"}:
        return replace(value, value=f"{size['width']}x{size['height']}")
    return value


def _check_extra(value: Given, *, strict: bool) -> None:
    if strict:
        raise UnknownParameter(f"Unknown parameter: '{value.spelled}'.", param=value.spelled)
    check_text(value.spelled, value.value)


def _check_verdict(row: Row, value: Given, *, strict: bool) -> None:
    if row.how == "rejected":
        raise UnsupportedParameter(f"Unsupported parameter: '{value.spelled}': {row.why}.", param=value.spelled)
    if row.how == "ignored" and strict:
        raise UnknownParameter(f"Unknown parameter: '{value.spelled}'.", param=value.spelled)


def _images(typed: Mapping[str, Given]) -> tuple[Media, ...]:
    image = typed.get("image")
    return image.value if image else ()


def _apply_rows(draft: _Draft, typed: Mapping[str, Given], offer: Offer) -> None:
    for name, value in typed.items():
        row = offer.params[name]
        match row.how:
            case "ignored":
                draft.notes.append(Note(name, "ignored", None, row.why, value.spelled))
            case "passthrough" | "renamed":
                to = row.to if row.how == "renamed" else name
                if row.type in ("image", "images"):
                    if name == "mask" and (images := _images(typed)):
                        same_size(images[0], value)
                    draft.fields[to], why = _pictures(draft, name, row, value, offer)
                else:
                    draft.fields[to], why = value.value, ""
                draft.notes.append(Note(name, row.how, to, why, value.spelled))


def _accompany(draft: _Draft, typed: Mapping[str, Given], offer: Offer) -> None:
    """What a given parameter needs beside it, where nothing else has written that field."""
    for name in typed:
        row = offer.params[name]
        if not isinstance(row, Passthrough | Renamed):
            continue
        for companion, value in row.along.items():
            if companion in draft.fields:
                continue
            draft.fields[companion] = value
            why = f"sent with {companion}={value!r}, which it needs"
            draft.notes = [replace(note, why=why) if note.name == name else note for note in draft.notes]


def _pictures(draft: _Draft, name: str, row: Row, value: Given, offer: Offer) -> tuple[Any, str]:
    """Slots for the pictures of one row, and their steps among the plan's inputs."""
    media: tuple[Media, ...] = value.value
    if row.type == "image" and len(media) > 1:
        raise TooManyImages(
            f"Invalid '{value.spelled}': this model takes one picture, but got {len(media)}.", param=value.spelled
        )
    first = len(draft.inputs)
    steps = (
        (plan_mask(media[0], offer.accepts, value.spelled),)
        if name == "mask"
        else plan_inputs(media, offer.accepts, value.spelled)
    )
    draft.inputs += steps
    slots = [Slot(first + index) for index in range(len(steps))]
    why = "; ".join(step.why for step in steps if step.why)
    return (slots[0] if row.type == "image" else slots), why


def _convert(draft: _Draft, typed: Mapping[str, Given], offer: Offer, images: tuple[Media, ...]) -> None:
    first_input = (images[0].width, images[0].height) if images else None
    for by, names in offer.groups.items():
        done = CONVERTERS[by]({name: typed[name] for name in names if name in typed}, offer, first_input)
        draft.fields.update(done.fields)
        draft.notes.extend(done.notes)
        draft.size = done.size or draft.size
        if done.exact:
            draft.delivery = replace(draft.delivery, exact=done.exact)


def _emulate(
    draft: _Draft, typed: Mapping[str, Given], offer: Offer, images: tuple[Media, ...], request: EditRequest
) -> None:
    shape_word = next((typed[name].spelled for name in ("size", "aspect_ratio") if name in typed), None)
    word = typed["image"].spelled if "image" in typed else "image"
    for by, emulator in EMULATORS.items():
        if by not in offer.emulated:
            continue
        name, row = offer.emulated[by]
        given = typed.get(name)
        done = emulator(
            Situation(row, name, given, images, word, shape_word, draft.size, request.response_format, draft.delivery)
        )
        draft.delivery = done.delivery
        draft.fields.update(done.fields)
        if by == "n":
            draft.per_call, draft.count_field = row.per_call, row.to
        if given is not None:
            draft.notes.append(Note(name, "emulated", done.sent_as, done.why, given.spelled))
    _explain_compression(draft)


def _explain_compression(draft: _Draft) -> None:
    """output_compression means nothing for a lossless file: say so rather than let it vanish."""
    wanted = draft.delivery.format
    if draft.delivery.quality is None or wanted in LOSSY:
        return
    why = f"{wanted} is lossless" if wanted else "no output_format was given, and the provider's own file is kept"
    draft.delivery = replace(draft.delivery, quality=None)
    draft.notes = [
        replace(note, how="ignored", why=why) if note.name == "output_compression" else note for note in draft.notes
    ]


def _calls(draft: _Draft, offer: Offer) -> Iterator[Call]:
    """One payload for each job. A fixed seed moves with it, else n pictures would be one picture."""
    row = offer.params.get("seed")
    field = field_of(row) or "seed"
    seed = _whole(draft.fields.get(field))
    count = draft.delivery.count
    for first in range(0, count, draft.per_call):
        payload = dict(draft.fields)
        here = min(draft.per_call, count - first)
        if draft.count_field:
            payload[draft.count_field] = here
        if seed is not None and first:
            moved = _moved(seed, first, row) if row else seed + first
            payload[field] = moved if isinstance(draft.fields[field], int) else str(moved)
        yield Call(payload, first, here)


def _whole(value: Any) -> int | None:
    """A seed that no row has typed may be a form's text."""
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 20:
        return int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _moved(seed: int, by: int, row: Row) -> int:
    """seed + by, starting over at the row's minimum past its maximum."""
    if row.max is None:
        return seed + by
    low, high = int(row.min or 0), int(row.max)
    return low + (seed - low + by) % (high - low + 1)
