"""Pictures for the tests: drawn, saved, and put together by hand where no library would write them."""

from __future__ import annotations

import math
import struct
import zlib
from collections.abc import Iterable
from io import BytesIO

from PIL import Image, ImageChops, ImageDraw, ImageStat

SECRET = b"GPS-SECRET-52.5163N"
FORMATS = ("png", "jpeg", "webp", "gif", "avif")
EXIF_ORIENTATION, EXIF_MAKE = 0x0112, 0x010F


def photo(mode: str = "RGB", size: tuple[int, int] = (64, 48)) -> Image.Image:
    """Gradients and shapes without any symmetry, in any mode."""
    width, height = size
    red = Image.linear_gradient("L").resize(size)
    green = Image.linear_gradient("L").rotate(90).resize(size)
    blue = Image.radial_gradient("L").resize(size)
    image = Image.merge("RGB", (red, green, blue))
    if min(size) >= 16:
        draw = ImageDraw.Draw(image)
        draw.rectangle((width // 8, height // 8, width // 3, height // 4), fill=(250, 40, 20))
        draw.ellipse((width // 2, height // 2, width - 2, height - 2), fill=(10, 60, 220))
    alpha = Image.linear_gradient("L").rotate(180).resize(size)
    if mode == "RGBA":
        image.putalpha(alpha)
        return image
    if mode == "LA":
        return Image.merge("LA", (image.convert("L"), alpha))
    if mode == "I;16":
        return image.convert("L").convert("I").point(lambda value: value * 257).convert("I;16")
    return image.convert(mode)


def saved(image: Image.Image, format: str, **options: object) -> bytes:
    out = BytesIO()
    image.save(out, format.upper(), **options)
    return out.getvalue()


def sample(format: str, *, size: tuple[int, int] = (64, 48), metadata: bool = False, orientation: int = 1) -> bytes:
    """A picture of that format, with every kind of metadata that Pillow can write if asked for."""
    options: dict[str, object] = {}
    exif = Image.Exif()
    if orientation != 1:
        exif[EXIF_ORIENTATION] = orientation
    if metadata:
        exif[EXIF_MAKE] = SECRET.decode()
        options = {"comment": SECRET} if format in ("gif", "jpeg") else {}
        if format != "gif":
            options["xmp"] = b"<x:xmpmeta>" + SECRET + b"</x:xmpmeta>"
        if format == "png":
            from PIL.PngImagePlugin import PngInfo

            text = PngInfo()
            text.add_text("Comment", SECRET.decode())
            text.add_itxt("XML:com.adobe.xmp", SECRET.decode())
            text.add_text("parameters", SECRET.decode(), zip=True)
            options["pnginfo"] = text
            del options["xmp"]
    if format != "gif" and len(exif):
        options["exif"] = exif
    return saved(photo(size=size), format, **options)


def animated(format: str, frames: int = 3) -> bytes:
    pictures = [photo(size=(40, 30)).rotate(90 * turn, fillcolor=(turn * 40, 0, 0)) for turn in range(frames)]
    return saved(pictures[0], format, save_all=True, append_images=pictures[1:], duration=100, loop=0)


def png_chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def raw_png(
    size: tuple[int, int], depth: int, colour: int, rows: Iterable[bytes], extra: Iterable[tuple[bytes, bytes]] = ()
) -> bytes:
    """A PNG of any depth; rows are packed already."""
    body = zlib.compress(b"".join(b"\0" + row for row in rows))
    chunks = [png_chunk(b"IHDR", struct.pack(">IIBBBBB", *size, depth, colour, 0, 0, 0))]
    chunks += [png_chunk(kind, content) for kind, content in extra]
    chunks += [png_chunk(b"IDAT", body), png_chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def jpeg_segment(marker: int, body: bytes) -> bytes:
    return bytes((0xFF, marker)) + struct.pack(">H", len(body) + 2) + body


def tiff_orientation(value: int, kind: int = 3, order: str = "<") -> bytes:
    """The smallest EXIF there is."""
    mark = b"II*\0" if order == "<" else b"MM\0*"
    packed = struct.pack(order + "HHI", 0x0112, kind, 1) + struct.pack(order + "H", value) + b"\0\0"
    return mark + struct.pack(order + "IH", 8, 1) + packed + b"\0\0\0\0"


def with_exif(format: str, exif: bytes, *, size: tuple[int, int] = (64, 48)) -> bytes:
    """A picture with this EXIF block, whatever Pillow thinks of it."""
    data = saved(photo(size=size), format)
    if format == "jpeg":
        return data[:2] + jpeg_segment(0xE1, b"Exif\0\0" + exif) + data[2:]
    assert format == "png"
    return data[:33] + png_chunk(b"eXIf", exif) + data[33:]


def psnr(one: Image.Image, other: Image.Image) -> float:
    stat = ImageStat.Stat(ImageChops.difference(one, other))
    error = sum(stat.sum2) / sum(stat.count)
    return 99.0 if error == 0 else 10 * math.log10(255 * 255 / error)
