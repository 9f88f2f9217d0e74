"""Emulators: what the gateway does where a provider lacks it. Each is a pure function that writes the delivery.

They run in the order of EMULATORS, each seeing what those before it decided: the file format comes last, because
whether the provider should make it depends on what else has to happen to the pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, cast

from app.catalogue.schema import Emulated
from app.errors import InvalidValue, TooManyImages
from app.types import Delivery, Given, ImageFormat, MaskStep, ResponseFormat, Size
from providers.base import Media

SHAPE_DRIFT = 1.04  # how far an edit's shape may be from the original's: the grid's rounding
LOSSY: frozenset[ImageFormat] = frozenset({"jpeg", "webp", "avif"})


@dataclass(frozen=True, slots=True)
class Situation:
    """What an emulator may look at."""

    row: Emulated
    name: str
    given: Given | None  # typed and bounded already; None = the caller said nothing
    images: tuple[Media, ...]
    image_word: str  # the caller's own
    size_word: str | None  # what fixes the shape, in the caller's own word; None = nothing does
    asked_size: Size | None
    default_response_format: ResponseFormat
    delivery: Delivery


@dataclass(frozen=True, slots=True)
class Emulation:
    """What an emulator decided: the delivery so far, fields for every call, and why."""

    delivery: Delivery
    fields: Mapping[str, Any] = field(default_factory=dict)
    sent_as: str | None = None
    why: str = ""


Emulator = Callable[[Situation], Emulation]


def n(at: Situation) -> Emulation:
    """Several pictures from jobs that make `per_call` each; the engine splits."""
    count = at.given.value if at.given else 1
    jobs = -(-count // at.row.per_call)
    sent_as = at.row.to if at.row.per_call > 1 else None
    return Emulation(
        replace(at.delivery, count=count), sent_as=sent_as, why=f"{jobs} parallel jobs" if jobs > 1 else "one job"
    )


def stream(at: Situation) -> Emulation:
    """Server-sent events instead of one JSON answer."""
    on = bool(at.given and at.given.value)
    return Emulation(replace(at.delivery, stream=on), why="the gateway sends the events" if on else "one answer")


def response_format(at: Situation) -> Emulation:
    """A link or the picture itself, whatever the provider gives."""
    wanted = cast(ResponseFormat, at.given.value) if at.given else at.default_response_format
    return Emulation(replace(at.delivery, response_format=wanted), why="formed by the gateway")


def mask(at: Situation) -> Emulation:
    """Composite the edit over the original. Raises InvalidValue when mask and first picture differ in size."""
    if at.given is None:
        return Emulation(at.delivery)
    masks: tuple[Media, ...] = at.given.value
    if len(masks) != 1:
        raise TooManyImages(f"'{at.given.spelled}' takes one picture, but got {len(masks)}.", param=at.given.spelled)
    if not at.images:
        return Emulation(at.delivery)  # the missing picture is an error of its own
    original, the_mask = at.images[0], masks[0]
    same_size(original, at.given)
    _keeps_shape(at, original)
    return Emulation(
        replace(at.delivery, mask=MaskStep(original, the_mask, at.image_word, at.given.spelled)),
        why="the model knows no masks: the edit is composited over the original, "
        + ("then fitted" if at.delivery.exact else "at the original's size"),
    )


def same_size(original: Media, given: Given) -> None:
    """Raises InvalidValue when the first picture and the mask that was given for it differ in size."""
    mask: Media = given.value[0]
    if (original.width, original.height) != (mask.width, mask.height):
        raise InvalidValue(
            f"Invalid mask: it is {mask.width}x{mask.height}, but the first picture is "
            f"{original.width}x{original.height}. Both must have the same size.",
            param=given.spelled,
        )


def _keeps_shape(at: Situation, original: Media) -> None:
    """An edit of another shape than the original would lie beside what it is to replace."""
    if at.asked_size is None:
        return
    drift = (at.asked_size[0] * original.height) / (at.asked_size[1] * original.width)
    if not 1 / SHAPE_DRIFT <= drift <= SHAPE_DRIFT:
        word = at.size_word or (at.given.spelled if at.given else "mask")
        raise InvalidValue(
            f"Invalid '{word}': with a mask the picture keeps the shape of the original, "
            f"{original.width}x{original.height}; this asks for {at.asked_size[0]}x{at.asked_size[1]}.",
            param=word,
        )


def output_compression(at: Situation) -> Emulation:
    """The quality of lossy formats."""
    if at.given is None:
        return Emulation(at.delivery)
    return Emulation(replace(at.delivery, quality=at.given.value), why="quality of the gateway's own encoder")


def output_format(at: Situation) -> Emulation:
    """The provider's own format where it has it and nothing else has to happen to the pixels; otherwise a lossless
    one from the provider, converted once."""
    wanted = _format(at.given.value) if at.given else None
    native = {_format(name) for name in at.row.native}
    delivery = replace(at.delivery, format=wanted)
    refit = delivery.exact is not None and delivery.exact != at.asked_size
    recompress = delivery.quality is not None and wanted in LOSSY
    must_touch = refit or delivery.mask is not None or recompress
    if wanted in native and not must_touch:
        asked, why = wanted, "made by the provider"
    elif wanted is None and not must_touch:
        return Emulation(delivery, why="as the provider made it")
    elif "png" in native and at.row.to:
        asked = "png"
        why = (
            "as png from the provider"
            if wanted in (None, "png")
            else f"png from the provider, converted to {wanted} once"
        )
    else:
        asked, why = None, f"converted to {wanted} by the gateway" if wanted else "as the provider made it"
    if asked and at.row.to:
        return Emulation(replace(delivery, asked_format=asked), {at.row.to: asked}, at.row.to, why)
    return Emulation(delivery, why=why)


# In this order.
EMULATORS: Mapping[str, Emulator] = {
    "n": n,
    "stream": stream,
    "mask": mask,
    "response_format": response_format,
    "output_compression": output_compression,
    "output_format": output_format,
}


def _format(name: str) -> ImageFormat:
    return cast(ImageFormat, "jpeg" if name == "jpg" else name)
