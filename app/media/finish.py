"""Turns what a provider made into what the client is owed: composited, fitted, converted, or left as it is.

A result that needs no change is not decoded: its container is walked to its end, so that a picture which is cut off is
noticed, and its metadata is cut out.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar, TypeVarTuple

from app.errors import InvalidRequest
from app.media.avif import Uncuttable
from app.media.decode import decode
from app.media.encode import encode
from app.media.fit import composite, fit_exact
from app.media.sniff import MAX_PIXELS, describe, explained, is_accepted, read_facts, sniff_format
from app.media.strip import cut
from app.types import Delivery, ImageFormat, MaskStep

if TYPE_CHECKING:
    from PIL import Image

T = TypeVar("T")
Ts = TypeVarTuple("Ts")


class BadPicture(Exception):
    """A provider's result that is no whole picture of an accepted kind. `message` may be shown to the client."""

    def __init__(self, message: str, *, detail: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.detail = detail


@dataclass(frozen=True, slots=True)
class Finished:
    """A picture as it is delivered. `touched` = its bytes are no longer those that the provider made."""

    data: bytes = field(repr=False)
    format: ImageFormat
    width: int
    height: int
    touched: bool


def finish(data: bytes, delivery: Delivery, index: int = 0, *, max_pixels: int = MAX_PIXELS) -> Finished:
    """The provider's picture number `index` (from 0) as the client gets it. Blocks.

    Raises BadPicture if it is none, InvalidValue if mask and original differ in size or the format cannot hold the
    picture, InvalidImage if mask or original do not decode.
    """
    kind = sniff_format(data[:64])
    if not is_accepted(kind):
        raise BadPicture(f"The provider's picture {index + 1} is {describe(kind, data[:64])}.")
    facts = _result(read_facts, data, kind, max_pixels, index=index)
    size = (facts.width, facts.height)
    wanted = delivery.format or kind
    if delivery.mask is None and wanted == kind and delivery.exact in (None, size) and facts.orientation == 1:
        with suppress(Uncuttable):
            bare = _result(cut, data, kind, index=index)
            return Finished(bare, kind, *size, touched=bare is not data)
    image = _result(_decoded, data, max_pixels, index=index)
    if delivery.mask is not None:
        image = composite(image, *decode_mask(delivery.mask))
    if delivery.exact is not None:
        image = fit_exact(image, delivery.exact)
    return Finished(encode(image, wanted, delivery.quality), wanted, *image.size, touched=True)


def decode_mask(step: MaskStep) -> tuple[Image.Image, Image.Image]:
    """The original and the mask. Blocks. Raises InvalidImage, by the caller's words, if one of them does not decode."""
    original, mask = step.original, step.mask
    return (
        decode(
            original.blob.read(),
            max_pixels=original.width * original.height,
            upright=True,
            name="The image",
            param=step.original_word,
        ),
        decode(
            mask.blob.read(), max_pixels=mask.width * mask.height, upright=True, name="The mask", param=step.mask_word
        ),
    )


def _decoded(data: bytes, max_pixels: int) -> Image.Image:
    return decode(data, max_pixels=max_pixels, upright=True)


def _result(function: Callable[[*Ts], T], *args: *Ts, index: int) -> T:
    """function(*args); whatever it raises is the provider's fault."""
    name = f"The provider's picture {index + 1}"
    try:
        return explained(function, *args, name=name, param=None)
    except InvalidRequest as error:
        raise BadPicture(error.message.replace("The image", name, 1), detail=error.detail) from error
