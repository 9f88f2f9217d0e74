"""What a file is, by its bytes, and what its header says. File names and declared types are never believed.

Everything is read from the container (`header`), nothing is decoded, and limits are checked before anything is
allocated for pixels. Only `opened` needs Pillow.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import suppress
from io import BytesIO
from typing import TYPE_CHECKING, NamedTuple, TypeGuard, TypeVar, TypeVarTuple

from app.errors import ImageTooLarge, InvalidImage, InvalidRequest, UnsupportedImage
from app.formats import ImageFormat
from app.media.avif import Uncuttable
from app.media.buffer import Buffer, view_of
from app.media.header import Header, glance, read
from app.media.strip import joined, parts, still_png
from app.media.walk import Malformed
from providers.base import Blob, Media

if TYPE_CHECKING:
    from PIL import Image

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

ACCEPTED: tuple[ImageFormat, ...] = ("png", "jpeg", "webp", "gif", "avif")
MAX_PIXELS = 50_000_000
MAX_SIDE = 32_768

_PILLOW = {"png": "PNG", "jpeg": "JPEG", "webp": "WEBP", "gif": "GIF", "avif": "AVIF"}
_LABELS = {  # what an error calls it; unnamed kinds are called "… file" in capitals
    "html": "an HTML page",
    "json": "JSON",
    "text": "plain text",
    "xml": "an XML file",
    "svg": "an SVG file",
    "ico": "an icon (ICO)",
    "video": "a video",
    "eps": "an EPS file",
    "mp3": "a sound file",
}
_MAGIC = (
    (b"\x89PNG\r\n\x1a\n", "png"),
    (b"\xff\xd8\xff", "jpeg"),
    (b"GIF87a", "gif"),
    (b"GIF89a", "gif"),
    (b"%PDF-", "pdf"),
    (b"%!PS", "eps"),
    (b"II*\0", "tiff"),
    (b"MM\0*", "tiff"),
    (b"II+\0", "tiff"),
    (b"MM\0+", "tiff"),
    (b"8BPS", "psd"),
    (b"\0\0\1\0", "ico"),
    (b"\xff\x0a", "jxl"),
    (b"\0\0\0\x0cJXL \r\n", "jxl"),
    (b"\0\0\0\x0cjP  \r\n", "jp2"),
    (b"\xff\x4f\xff\x51", "jp2"),
    (b"PK\3\4", "zip"),
    (b"\x1f\x8b", "gzip"),
    (b"\x1aE\xdf\xa3", "video"),
    (b"ID3", "mp3"),
    (b"v/1\1", "exr"),
    (b"qoif", "qoi"),
    (b"DDS ", "dds"),
)
_HEIC_BRANDS = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs", b"mif1", b"msf1", b"mif2"}


class Facts(NamedTuple):
    """What the header of an accepted picture says. Width and height as a viewer shows them."""

    format: ImageFormat
    width: int
    height: int
    orientation: int
    alpha: bool
    mode: str
    frames: int
    depth: int = 8  # bits per sample
    progressive: bool = False  # a JPEG that needs all its coefficients in memory


class TooManyPixels(ValueError):
    """The text completes "the picture …"."""


def sniff_format(head: bytes) -> str | None:
    """The kind of file by its first bytes (64 are enough): one of `ACCEPTED`, a name for what is refused, or None."""
    for magic, name in _MAGIC:
        if head.startswith(magic):
            return name
    if head[:4] == b"RIFF":
        return {b"WEBP": "webp", b"AVI ": "video", b"WAVE": "wav"}.get(head[8:12])
    if head[4:8] == b"ftyp":
        size = int.from_bytes(head[:4])
        brands = {head[8:12]} | {head[at : at + 4] for at in range(16, min(size, len(head)), 4)}
        if brands & {b"avif", b"avis"}:
            return "avif"
        return "heic" if brands & _HEIC_BRANDS else "video"
    if head[:2] == b"BM" and head[6:10] == b"\0\0\0\0":
        return "bmp"
    return _sniff_text(head)


def is_accepted(kind: str | None) -> TypeGuard[ImageFormat]:
    """Whether pictures of this sniffed kind are taken."""
    return kind in ACCEPTED


def describe(kind: str | None, head: bytes) -> str:
    """What an error calls a file of this kind, with its article."""
    if not head:
        return "empty"
    if kind is None:
        return "a file of an unknown kind"
    article = "an" if kind[0] in "aefhilmnorsx" else "a"
    return _LABELS.get(kind, f"{article} {kind.upper()} file")


def picture_name(index: int, param: str) -> str:
    """How an error names the picture at `index` (from 0): the mask, or Image 2."""
    return "The mask" if param == "mask" else f"Image {index + 1}"


def size_of(data: Buffer) -> Header | None:
    """The size that the header gives, cheaply and without a check of anything else; None if it gives none."""
    kind = sniff_format(data[:64])
    return glance(data, kind) if is_accepted(kind) else None


def inspect(blob: Blob, digest: str, *, index: int, param: str, max_pixels: int = MAX_PIXELS) -> Media:
    """Reads the headers of a picture that came in; `index` counts from 0. Blocks: run it in a thread.

    Raises UnsupportedImage for another kind of file, InvalidImage for a broken one, ImageTooLarge beyond the limits.
    """
    data = view_of(blob)
    name = picture_name(index, param)
    kind = sniff_format(data[:64])
    if not len(data):
        raise InvalidImage(f"{name} is empty.", param=param)
    if not is_accepted(kind):
        kinds = "PNG, JPEG, WebP, GIF and AVIF pictures are accepted."
        raise UnsupportedImage(f"{name} is {describe(kind, data[:64])}. {kinds}", param=param)
    facts = explained(read_facts, data, kind, max_pixels, name=name, param=param)
    return Media(
        blob=blob,
        mime=f"image/{kind}",
        width=facts.width,
        height=facts.height,
        digest=digest,
        orientation=facts.orientation,
        alpha=facts.alpha,
        mode=facts.mode,
        frames=facts.frames,
    )


def explained(function: Callable[[*Ts], T], *args: *Ts, name: str, param: str | None) -> T:
    """function(*args), whatever it raises turned into one of our errors. Pillow raises nearly anything.

    `Uncuttable` alone goes through: the caller decodes instead.
    """
    try:
        return function(*args)
    except (InvalidRequest, Uncuttable):
        raise
    except TooManyPixels as error:
        raise ImageTooLarge(f"{name} {error}.", param=param) from error
    except Malformed as error:
        raise InvalidImage(f"{name} {error}.", param=param) from error
    except Exception as error:
        raise InvalidImage(
            f"{name} cannot be read: it is broken or cut off.", param=param, detail=repr(error)[:300]
        ) from error


def read_facts(data: Buffer, kind: ImageFormat, max_pixels: int) -> Facts:
    """The facts of a picture of a sniffed kind, from its container alone. Raises Malformed or TooManyPixels."""
    header = read(data, kind)
    width, height, frames = header.width, header.height, header.frames
    check_size(width, height, max_pixels)
    if frames > 1 and width * height * frames > max_pixels:
        raise TooManyPixels(
            f"has {frames} frames of {width}x{height}; at most {max_pixels:,} pixels are allowed in all"
        )
    if header.orientation >= 5:
        width, height = height, width
    return Facts(
        kind,
        width,
        height,
        header.orientation,
        header.alpha,
        header.mode,
        frames,
        header.depth,
        header.progressive,
    )


def opened(data: Buffer, kind: ImageFormat, max_pixels: int) -> Image.Image:
    """The picture with its header read and its limits checked, pixels not yet decoded.

    Pillow is shown the picture without metadata, so that none of its readers for EXIF, XMP and text runs on what a
    stranger sent, and of a PNG only what its own pixels need.
    """
    header = glance(data, kind)
    if header is not None:
        check_size(header.width, header.height, max_pixels)
    found = None
    with suppress(Uncuttable):
        found = still_png(data) if kind == "png" else parts(data, kind)
    bare = data[:] if found is None else joined(data, found)
    from PIL import AvifImagePlugin, Image, WebPImagePlugin  # noqa: F401 - known, Pillow need not load all its plug-ins

    image = Image.open(BytesIO(bare), formats=(_PILLOW[kind],))
    check_size(*image.size, max_pixels)
    return image


def check_size(width: int, height: int, max_pixels: int) -> None:
    """Raises TooManyPixels beyond the limits."""
    if width < 1 or height < 1:
        raise Malformed("has no pixels")
    if max(width, height) > MAX_SIDE:
        raise TooManyPixels(f"is {width}x{height}; a side may have at most {MAX_SIDE:,} pixels")
    if width * height > max_pixels:
        raise TooManyPixels(f"is {width}x{height}; at most {max_pixels:,} pixels are allowed")


def _sniff_text(head: bytes) -> str | None:
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    if text.startswith(b"<"):
        if re.match(rb"<!doctype html|<html|<head|<body|<!--|<script", text):
            return "html"
        return "svg" if b"<svg" in text else "xml"
    if not text or b"\0" in head:
        return None
    try:
        head[:-3].decode() if len(head) > 3 else head.decode()
    except UnicodeDecodeError:
        return None
    if any(byte < 32 and byte not in b"\t\n\r\f\x1b" for byte in head):
        return None
    return "json" if text[:1] in b"{[" else "text"
