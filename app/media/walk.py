"""Walks through the containers PNG, JPEG, WebP and GIF without decoding a pixel (AVIF: `avif`).

A walk yields pieces, (kind, start, end) with the piece's own header inside, from the file's first byte to its last
meaningful one, and raises `Malformed` where the container breaks its own rules or is cut off. What lies between or
after the pieces belongs to no picture. Pixel data is stepped over without a copy: 20 MB take 1-6 ms (November 2026).
"""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Iterator

from app.media.buffer import Buffer

Piece = tuple[bytes, int, int]

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
MAX_SCANS = 100  # of a progressive JPEG: real ones have about ten; thousands are an attack on the decoder
MAX_SCANNED = 1_000_000_000  # pixels times scans of one: each scan goes over all pixels, at 1-2 ms a megapixel

MAX_PIECES = 250_000  # of any picture: 20 MB of empty JPEG segments would be five millions, and take seconds to walk

_FEW_PIECES = 300

_JPEG_MARKER = re.compile(rb"\xff[\x01-\xfe]")  # skips fill bytes as libjpeg does
_SCAN_END = re.compile(rb"\xff[\x01-\xcf\xd8-\xfe]")  # neither a stuffed zero nor a restart marker
FRAME_MARKERS = {bytes((0xFF, low)) for low in range(0xC0, 0xD0)} - {b"\xff\xc4", b"\xff\xc8", b"\xff\xcc"}
_PNG_CHUNK = struct.Struct(">I4s")
_FULL_BLOCKS = b"\xff" * 256  # the lengths of so many full sub-blocks of a GIF


class Malformed(ValueError):
    """The container is broken; the text completes "the picture …"."""


class Counter:
    """Stops a walk that takes too many steps."""

    def __init__(self) -> None:
        self._left = MAX_PIECES

    def step(self) -> None:
        """One more piece."""
        self._left -= 1
        if self._left < 0:
            raise Malformed("is in too many pieces")


def is_light(data: Buffer) -> bool:
    """Whether a walk takes a fraction of a millisecond for sure, so that it is not worth a thread: a PNG or WebP of few
    pieces. A row of a thousand IDATs is not few, and of the other kinds one cannot tell without walking."""
    position, total = (8, len(data)) if data[:8] == PNG_SIGNATURE else (12, len(data))
    if position == 12 and (data[:4] != b"RIFF" or data[8:12] != b"WEBP"):
        return False
    order, extra = (">I", 12) if position == 8 else ("<4xI", 8)
    for _ in range(_FEW_PIECES):
        if position + 8 > total:
            return True
        position += extra + struct.unpack_from(order, data, position)[0]
    return False


def png_chunks(data: Buffer) -> Iterator[Piece]:
    """The chunks of a PNG up to IEND, kind = chunk type. Pixels come in thousands of chunks: a row of IDATs is one."""
    if data[:8] != PNG_SIGNATURE:
        raise Malformed("is no PNG")
    position, total, previous, has_data = 8, len(data), b"", False
    left, read = MAX_PIECES, _PNG_CHUNK.unpack_from  # no Counter: of IDATs there are many, and each call shows
    while previous != b"IEND":
        left -= 1
        if position + 12 > total:
            raise Malformed("is cut off")
        length, kind = read(data, position)
        start, position = position, position + 12 + length
        if kind == b"IDAT" and previous:
            has_data = True
            while position + 12 <= total and left >= 0:
                length, following = read(data, position)
                if following != b"IDAT":
                    break
                left -= 1
                position += 12 + length
        elif not kind.isalpha() or (previous == b"") != (kind == b"IHDR") or (kind == b"IHDR" and length != 13):
            raise Malformed("has a broken PNG chunk")
        if left < 0:
            raise Malformed("is in too many pieces")
        if position > total:
            raise Malformed("is cut off")
        if kind[0] & 0x20 == 0 and kind not in (b"IHDR", b"PLTE", b"IDAT", b"IEND"):
            raise Malformed("has a critical PNG chunk that nobody knows")
        yield kind, start, position
        previous = kind
    if not has_data:
        raise Malformed("holds no pixels")


def is_sound(data: Buffer, start: int, end: int) -> bool:
    """Whether the checksum of a PNG's chunk is right."""
    with memoryview(data) as view:
        return zlib.crc32(view[start + 4 : end - 4]) == int.from_bytes(view[end - 4 : end])


def jpeg_segments(data: Buffer) -> Iterator[Piece]:
    """The segments of a JPEG's first picture up to EOI, kind = the two marker bytes. A scan goes with its SOS."""
    if data[:2] != b"\xff\xd8":
        raise Malformed("is no JPEG")
    yield b"\xff\xd8", 0, 2
    position, total, scans, has_frame = 2, len(data), 0, False
    counter = Counter()
    while True:
        counter.step()
        found = _JPEG_MARKER.search(data, position)
        if found is None:
            raise Malformed("is cut off")
        start, kind = found.start(), found[0]
        if kind == b"\xff\xd9":
            if not scans:
                raise Malformed("holds no pixels")
            yield kind, start, start + 2
            return
        if kind == b"\xff\xd8":
            raise Malformed("starts again before it has ended")
        if kind == b"\xff\x01" or 0xD0 <= kind[1] <= 0xD7:  # markers without a body, of no use here
            position = start + 2
            continue
        if start + 4 > total:
            raise Malformed("is cut off")
        length = int.from_bytes(data[start + 2 : start + 4])
        position = start + 2 + length
        if length < 2:
            raise Malformed("has a broken JPEG segment")
        if position > total:
            raise Malformed("is cut off")
        if kind in FRAME_MARKERS:
            if length < 8:
                raise Malformed("has a broken JPEG segment")
            has_frame = True
        elif kind == b"\xff\xda":
            scans += 1
            if not has_frame:
                raise Malformed("has a scan before its header")
            if scans > MAX_SCANS:
                raise Malformed(f"has more than {MAX_SCANS} scans")
            following = _SCAN_END.search(data, position)
            if following is None:
                raise Malformed("is cut off")
            position = following.start()
        yield kind, start, position


def riff_chunks(data: Buffer, start: int, end: int) -> Iterator[Piece]:
    """The chunks in data[start:end], kind = FourCC. A missing pad byte at the very end is forgiven."""
    position = start
    counter = Counter()
    while position < end:
        counter.step()
        if position + 8 > end:
            raise Malformed("has a broken WebP chunk")
        kind, length = struct.unpack_from("<4sI", data, position)
        stop = position + 8 + length
        if stop > end:
            raise Malformed("has a broken WebP chunk")
        yield kind, position, stop
        position = stop + (length & 1)


def webp_chunks(data: Buffer) -> Iterator[Piece]:
    """The chunks of a WebP, kind = FourCC, pad byte not counted."""
    if data[:4] != b"RIFF" or data[8:12] != b"WEBP":
        raise Malformed("is no WebP")
    end = 8 + int.from_bytes(data[4:8], "little")
    if end > len(data):
        raise Malformed("is cut off")
    has_pixels = False
    for piece in riff_chunks(data, 12, end):
        has_pixels = has_pixels or piece[0] in (b"VP8 ", b"VP8L", b"ANMF")
        yield piece
    if not has_pixels:
        raise Malformed("holds no pixels")


def gif_blocks(data: Buffer) -> Iterator[Piece]:
    """The blocks of a GIF up to its trailer: b"GIF" (header and palette), b"," (a frame), b"!?" (extension), b";"."""
    if data[:6] not in (b"GIF87a", b"GIF89a"):
        raise Malformed("is no GIF")
    if len(data) < 13:
        raise Malformed("is cut off")
    position, has_pixels = 13 + gif_palette(data[10]), False
    yield b"GIF", 0, position
    counter = Counter()
    while True:
        counter.step()
        start, kind = position, data[position : position + 1]
        if kind == b";":
            if not has_pixels:
                raise Malformed("holds no pixels")
            yield b";", start, start + 1
            return
        if kind == b"!":
            position = _gif_sub_blocks(data, start + 2)
            yield data[start : start + 2], start, position
        elif kind == b",":
            if start + 10 > len(data):
                raise Malformed("is cut off")
            position = _gif_sub_blocks(data, start + 11 + gif_palette(data[start + 9]))
            has_pixels = True
            yield b",", start, position
        elif kind == b"\0":  # stray zeros: every viewer steps over them
            position += 1
        else:
            raise Malformed("has a broken GIF block" if kind else "is cut off")


def gif_palette(flags: int) -> int:
    """How many bytes of palette follow a screen or a frame with these flags."""
    return 3 << ((flags & 7) + 1) if flags & 0x80 else 0


def _gif_sub_blocks(data: Buffer, position: int) -> int:
    try:
        while length := data[position]:
            if length == 255 and data[position : position + 65_536 : 256] == _FULL_BLOCKS:
                position += 65_536
            else:
                position += length + 1
    except IndexError:
        raise Malformed("is cut off") from None
    return position + 1
