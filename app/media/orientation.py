"""EXIF orientation: read without a library, applied to pixels.

Only this one number is read from EXIF. A reader of ten lines cannot be led into a loop of IFDs, and whatever it does
not understand is orientation 1, as browsers have it.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL import Image

_TAG = 0x0112
_WIDTHS = {1: "B", 3: "H", 4: "I", 6: "b", 8: "h", 9: "i"}  # whole numbers of any type: writers use them for it


def from_exif(exif: bytes) -> int:
    """The orientation (1-8) that a TIFF structure names in its first directory; 1 if it names none or is broken."""
    exif = exif.removeprefix(b"Exif\0\0")
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(exif[:4])
    if order is None:
        return 1
    try:
        (place,) = struct.unpack_from(order + "I", exif, 4)
        (count,) = struct.unpack_from(order + "H", exif, place)
        for entry in range(place + 2, place + 2 + 12 * count, 12):
            tag, kind, values = struct.unpack_from(order + "HHI", exif, entry)
            if tag == _TAG:
                if kind not in _WIDTHS or values != 1:
                    return 1
                (value,) = struct.unpack_from(order + _WIDTHS[kind], exif, entry + 8)
                return value if 1 <= value <= 8 else 1
    except struct.error:
        pass
    return 1


def turned(image: Image.Image, value: int) -> Image.Image:
    """The pixels as a viewer shows them."""
    from PIL import Image

    move = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_270,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_90,
    }.get(value)
    return image if move is None else image.transpose(move)
