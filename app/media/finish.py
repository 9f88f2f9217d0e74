"""Turns what a provider made into what the client is owed: composited, fitted, converted, or left as it is.

A result that needs no change is not decoded: its container is walked to its end, so that a picture which is cut off is
noticed, and its metadata is cut out.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TypeVar, TypeVarTuple

from app.errors import ImageTooLarge, InvalidRequest, InvalidValue
from app.media.avif import Uncuttable
from app.media.blob import MemoryBlob, SplicedBlob
from app.media.buffer import view_of
from app.media.encode import check_side, holds
from app.media.pixels import (
    CHILD_BYTES,
    Composite,
    Decode,
    Encode,
    Failed,
    Fit,
    Job,
    Picture,
    Pixels,
    Step,
    Weigh,
    Written,
    estimate,
    in_process,
)
from app.media.sniff import MAX_PIXELS, describe, explained, is_accepted, read_facts, sniff_format
from app.media.strip import parts
from app.types import Delivery, ImageFormat, MaskStep, Size
from providers.base import Blob, Media

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

_USUAL = 4_000_000  # pixels that models make at most, most of them


class BadPicture(Exception):
    """A provider's result that is no whole picture of an accepted kind. `message` may be shown to the client."""

    def __init__(self, message: str, *, detail: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.detail = detail


@dataclass(frozen=True, slots=True)
class Finished:
    """A picture as it is delivered."""

    blob: Blob = field(repr=False)
    format: ImageFormat
    width: int
    height: int


def finish(blob: Blob, delivery: Delivery, index: int = 0, *, max_pixels: int = MAX_PIXELS) -> Finished:
    """`begin_finishing`, and its pixels worked on here. Blocks."""
    return in_process(begin_finishing(blob, delivery, index, max_pixels=max_pixels))


def begin_finishing(
    blob: Blob, delivery: Delivery, index: int = 0, *, max_pixels: int = MAX_PIXELS
) -> Finished | Pixels[Finished]:
    """The provider's picture number `index` (from 0) as the client gets it, or what is still to be done to its pixels.
    Blocks.

    Raises BadPicture if it is none, InvalidValue if mask and original differ in size or the format cannot hold the
    picture, InvalidImage if mask or original do not decode.
    """
    data = view_of(blob)
    kind = sniff_format(data[:64])
    if not is_accepted(kind):
        raise BadPicture(f"The provider's picture {index + 1} is {describe(kind, data[:64])}.")
    facts = _result(read_facts, data, kind, max_pixels, index=index)
    size = (facts.width, facts.height)
    wanted = delivery.format or kind
    if delivery.mask is None and wanted == kind and delivery.exact in (None, size) and facts.orientation == 1:
        with suppress(Uncuttable):
            kept = _result(parts, data, kind, index=index)
            bare = blob if kept is None else SplicedBlob(blob, kept)
            return Finished(bare, kind, *size)
    edit = Picture(blob, max_pixels, f"The provider's picture {index + 1}", None, kind, size[0] * size[1], facts.alpha)
    job = _job(edit, delivery, wanted)
    if delivery.format is None and not (holds(kind, _end_size(delivery) or size) and estimate(job) <= CHILD_BYTES):
        wanted = "png"  # nobody asked for the provider's own format, and png holds all
        job = _job(edit, delivery, wanted)

    def then(written: Written) -> Finished:
        return Finished(MemoryBlob(written.data), wanted, written.width, written.height)

    return Pixels(job, then, _blame)


def _job(edit: Picture, delivery: Delivery, format: ImageFormat) -> Job:
    pictures, steps = [edit], list[Step]((Decode(0),))
    if delivery.mask is not None:
        pictures += _originals(delivery.mask)
        steps = [Decode(2), Weigh(), Decode(1), Decode(0), Composite()]  # what is largest while decoded waits least
    if delivery.exact is not None:
        steps.append(Fit(*delivery.exact))
    steps.append(Encode(format, delivery.quality))
    return Job(tuple(pictures), tuple(steps))


def _end_size(delivery: Delivery) -> Size | None:
    """How large the picture will be; None: as the provider makes it."""
    if delivery.exact is not None or delivery.mask is None:
        return delivery.exact
    return delivery.mask.original.width, delivery.mask.original.height


def check_delivery(delivery: Delivery, *, format_word: str = "output_format", size_word: str = "size") -> None:
    """Before anything is bought: what is owed can be made of what the provider will send, as far as one can tell. The
    provider's picture is taken for an opaque one of the size that is owed, or of 4 megapixels if that is less.

    Raises InvalidValue or ImageTooLarge, by the caller's own words for the parameters. Pure.
    """
    size = _end_size(delivery)
    format = delivery.format or delivery.asked_format or "png"
    ours = delivery.mask is not None or (delivery.format is not None and delivery.format != delivery.asked_format)
    if size is None or not ours:
        return
    if delivery.format is not None:
        check_side(format, size, format_word)
    width, height = size
    edit = Picture(b"", MAX_PIXELS, "The provider's picture", pixels=min(width * height, _USUAL), kind="png")
    if estimate(_job(edit, delivery, format)) <= CHILD_BYTES:
        return
    if format != "png" and estimate(_job(edit, delivery, "png")) <= CHILD_BYTES:
        if delivery.format is None:
            return
        raise InvalidValue(
            f"A picture of {width}x{height} takes more memory to be written as {format.upper()} than there is for one "
            "picture. Use png.",
            param=format_word,
        )
    word = size_word if delivery.exact is not None or delivery.mask is None else delivery.mask.original_word
    raise ImageTooLarge(f"A picture of {width}x{height} takes more memory than there is for one picture.", param=word)


def mask_checks(step: MaskStep) -> tuple[Pixels[None], Pixels[None]]:
    """Whether the original and the mask decode, one by one: if a worker dies of one, it is known which."""
    original, mask = (Pixels(Job((picture,), (Decode(0),)), lambda _: None) for picture in _originals(step))
    return original, mask


def _originals(step: MaskStep) -> tuple[Picture, Picture]:
    """The original and the mask, by the caller's words."""
    return (
        _given(step.original, "The image", step.original_word),
        _given(step.mask, "The mask", step.mask_word),
    )


def _given(media: Media, name: str, word: str) -> Picture:
    pixels = media.width * media.height
    return Picture(media.blob, pixels, name, word, media.mime.removeprefix("image/"), pixels, media.alpha)


def _blame(failed: Failed) -> Exception:
    """The first picture is the provider's; all else is the caller's."""
    return BadPicture(failed.message, detail=failed.detail) if failed.picture == 0 else failed.error()


def _result(function: Callable[[*Ts], T], *args: *Ts, index: int) -> T:
    """function(*args); whatever it raises is the provider's fault."""
    name = f"The provider's picture {index + 1}"
    try:
        return explained(function, *args, name=name, param=None)
    except InvalidRequest as error:
        raise BadPicture(error.message.replace("The image", name, 1), detail=error.detail) from error
