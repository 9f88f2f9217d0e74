"""Carries out what the plan says of an input picture before it is sent to the provider."""

from __future__ import annotations

from dataclasses import replace

from app.media.avif import Uncuttable
from app.media.blob import MemoryBlob, SplicedBlob
from app.media.buffer import view_of
from app.media.pixels import (
    Clear,
    Decode,
    Encode,
    Flatten,
    Invert,
    Job,
    Picture,
    Pixels,
    Step,
    Weigh,
    Written,
    in_process,
)
from app.media.sniff import MAX_PIXELS, explained, picture_name
from app.media.strip import parts
from app.types import MIME, ImageFormat, InputStep
from providers.base import Media

_QUALITY = 95  # of lossy pictures that have to be written anew: JPEG and AVIF at full colour resolution
_AS_MASK: dict[str, list[Step]] = {"white": [Weigh()], "black": [Weigh(), Invert()], "both": [Weigh(), Clear()]}
_FORMATS: dict[str, ImageFormat] = {mime: format for format, mime in MIME.items()}


def prepare(step: InputStep) -> Media:
    """`begin_preparing`, and its pixels worked on here. Blocks."""
    return in_process(begin_preparing(step))


def begin_preparing(step: InputStep) -> Media | Pixels[Media]:
    """The picture as the provider gets it, or what is still to be done to its pixels. Blocks.

    Where no pixel has to change only metadata is cut out, and the same Media comes back if there is none. Orientation
    lives in the metadata that goes, so a turned picture is always made upright. A picture that is handed on by its URL
    is not ours to change; of any other the URL is forgotten.
    """
    if step.hand_on:
        return step.media
    media = step.media if step.media.url is None else replace(step.media, url=None)
    kept: ImageFormat = _FORMATS[media.mime]
    if step.touches_pixels or media.orientation != 1:
        format = step.to_format or kept
        lossless = kept == format == "webp" and b"VP8L" in view_of(media.blob)[:64]
        return _rewriting(media, step, format, flatten=step.flatten, lossless=lossless)
    try:
        found = explained(parts, view_of(media.blob), kept, name=picture_name(step.index, step.word), param=step.word)
    except Uncuttable:
        return _rewriting(media, step, "png")
    if found is None:
        return media
    blob = SplicedBlob(media.blob, found)
    return replace(media, blob=blob, digest="")


def _rewriting(
    media: Media, step: InputStep, format: ImageFormat, *, flatten: bool = False, lossless: bool = False
) -> Pixels[Media]:
    pixels = media.width * media.height
    name = picture_name(step.index, step.word)
    picture = Picture(media.blob, max(MAX_PIXELS, pixels), name, step.word, _FORMATS[media.mime], pixels, media.alpha)
    steps: list[Step] = [Decode(0), *([Flatten()] if flatten else []), Encode(format, _QUALITY, lossless)]
    if step.mask:
        steps[1:1] = _AS_MASK[step.mask]

    def then(written: Written) -> Media:
        return replace(
            media,
            blob=MemoryBlob(written.data),
            mime=MIME[format],
            width=written.width,
            height=written.height,
            digest="",
            orientation=1,
            alpha=written.alpha,
            mode=written.mode,
            frames=1,
        )

    return Pixels(Job((picture,), tuple(steps)), then)
