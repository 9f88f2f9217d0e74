"""Carries out what the plan says of an input picture before it is sent to the provider."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import TYPE_CHECKING

from app.media.avif import Uncuttable
from app.media.blob import MemoryBlob, SplicedBlob, view_of
from app.media.decode import decode
from app.media.encode import encode, on_white
from app.media.sniff import MAX_PIXELS, explained, picture_name, read_facts
from app.media.strip import parts
from app.types import MIME, ImageFormat, InputStep
from providers.base import Media

if TYPE_CHECKING:
    from PIL import Image

_QUALITY = 95  # of lossy pictures that have to be written anew: JPEG and AVIF at full colour resolution
_FORMATS: dict[str, ImageFormat] = {mime: format for format, mime in MIME.items()}


def prepare(step: InputStep) -> Media:
    """The picture as the provider gets it. Blocks.

    Where no pixel has to change only metadata is cut out, and the same Media comes back if there is none. Orientation
    lives in the metadata that goes, so a turned picture is always made upright. A picture that is handed on by its URL
    is not ours to change; of any other the URL is forgotten.
    """
    if step.hand_on:
        return step.media
    media = step.media if step.media.url is None else replace(step.media, url=None)
    kept: ImageFormat = _FORMATS[media.mime]
    if not step.touches_pixels and media.orientation == 1:
        try:
            found = explained(
                parts, view_of(media.blob), kept, name=picture_name(step.index, step.word), param=step.word
            )
        except Uncuttable:
            return _written(media, _decoded(media.blob.read(), step), "png")
        if found is None:
            return media
        blob = SplicedBlob(media.blob, found)
        return replace(media, blob=blob, digest=blob.digest())
    data = media.blob.read()
    image = _decoded(data, step)
    lossless = kept == "webp" and b"VP8L" in data[:64]
    return _written(media, on_white(image) if step.flatten else image, step.to_format or kept, lossless=lossless)


def _decoded(data: bytes, step: InputStep) -> Image.Image:
    pixels = step.media.width * step.media.height
    name = picture_name(step.index, step.word)
    return decode(data, max_pixels=max(MAX_PIXELS, pixels), upright=True, name=name, param=step.word)


def _written(media: Media, image: Image.Image, format: ImageFormat, *, lossless: bool = False) -> Media:
    data = encode(image, format, _QUALITY, lossless=lossless)
    facts = read_facts(data, format, image.width * image.height)
    return replace(
        media,
        blob=MemoryBlob(data),
        mime=MIME[format],
        width=facts.width,
        height=facts.height,
        digest=hashlib.sha256(data).hexdigest(),
        orientation=1,
        alpha=facts.alpha,
        mode=facts.mode,
        frames=1,
    )
