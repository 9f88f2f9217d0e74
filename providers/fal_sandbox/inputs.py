"""Input pictures: from a data URI or from the sandbox's own CDN, read the way fal's toolkit reads them."""

from __future__ import annotations

import hashlib
import io
import warnings
from collections.abc import Callable
from typing import Any
from urllib.parse import unquote_to_bytes

import pybase64
from PIL import Image, ImageOps

from .replies import ModelRejection

Loc = tuple[str | int, ...]

FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "MPO")
"""What Pillow may open here; the rare and dangerous decoders stay shut."""


def read_picture(data: bytes, loc: Loc, given: str, max_pixels: int) -> Image.Image:
    """Decode to RGB: first frame only, turned upright by EXIF, transparency lost (SDK fal 1.83.0
    `read_image_from_url`).

    Raises ModelRejection image_load_error or image_too_large.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(data), formats=FORMATS) as opened:
                if opened.width * opened.height > max_pixels:
                    side = int(max_pixels**0.5)
                    raise ModelRejection(
                        "image_too_large",
                        "The image is too large.",
                        loc=loc,
                        ctx={"max_height": side, "max_width": side},
                        given=given,
                    )
                opened.seek(0)
                upright = ImageOps.exif_transpose(opened)
                # no matte: fal's reader converts, so a transparent pixel shows the colour hidden under it
                return upright.convert("RGB")
    except ModelRejection:
        raise
    except Exception:  # noqa: BLE001  decoders fail in any way they like; whatever it was, the picture does not load
        raise ModelRejection(
            "image_load_error", f"Could not load image from url: {given}", loc=loc, given=given
        ) from None


def read_url(url: str, loc: Loc, cdn: str, stored: Callable[[str], bytes | None], max_bytes: int) -> bytes:
    """The bytes behind a data URI or an address under `cdn`. Any other address is refused: the sandbox has no network.

    Raises ModelRejection file_download_error, file_too_large or image_load_error.
    """
    if url.startswith("data:"):
        data = _data_uri(url)
        if data is None:
            raise ModelRejection("image_load_error", f"Could not load image from url: {url}", loc=loc, given=url)
    else:
        found = stored(url[len(cdn) :].partition("?")[0]) if url.startswith(f"{cdn}/") else None
        if found is None:
            raise ModelRejection("file_download_error", f"Failed to download the file: {url}", loc=loc, given=url)
        data = found
    if len(data) > max_bytes:
        raise ModelRejection(
            "file_too_large", "The file is too large.", loc=loc, ctx={"max_size": max_bytes}, given=url
        )
    return data


_SUMMARY = {"sha256", "bytes", "mime", "width", "height"}


def summarise(value: Any) -> Any:
    """A payload for the books: each data URI becomes {sha256, bytes, mime, width, height}; all else stays as it is."""
    if isinstance(value, dict):
        return {key: summarise(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [summarise(inner) for inner in value]
    if not isinstance(value, str) or not value.startswith("data:"):
        return value
    data = _data_uri(value) or b""
    width = height = None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(io.BytesIO(data), formats=FORMATS) as opened:
                width, height = opened.size
    except Exception:  # noqa: BLE001  no picture, no size: the books keep the digest
        width = height = None
    return {
        "sha256": hashlib.sha256(data).hexdigest(),
        "bytes": len(data),
        "mime": value[5:].partition(",")[0].partition(";")[0],
        "width": width,
        "height": height,
    }


def listed(summary: Any) -> Any:
    """A payload as fal's list of requests shows it, from its summary: a short data URI stands for each picture, whose
    bytes are not kept."""
    if isinstance(summary, list):
        return [listed(inner) for inner in summary]
    if not isinstance(summary, dict):
        return summary
    if set(summary) == _SUMMARY:
        return f"data:{summary['mime']};sha256,{summary['sha256']}"
    return {key: listed(inner) for key, inner in summary.items()}


def _data_uri(url: str) -> bytes | None:
    head, comma, body = url.partition(",")
    if not comma:
        return None
    if not head.endswith(";base64"):
        return unquote_to_bytes(body)
    try:
        return pybase64.b64decode(body, validate=True)
    except ValueError:
        return None
