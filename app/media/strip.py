"""Cuts metadata (EXIF, GPS, XMP, comments) and everything foreign out of a picture, without decoding it.

What is kept is named; all else goes: a chunk that nobody knows may hold anything. Bytes after the picture's end go too,
so that neither a polyglot nor a phone's second picture (MPO) survives. Pixel data and colour facts stay byte for byte.
A container that cannot be walked is refused, never returned with its metadata in.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator

from app.errors import InvalidImage
from app.media import avif
from app.media.avif import Parts, Uncuttable
from app.media.buffer import Buffer
from app.media.walk import Malformed, Piece, gif_blocks, is_sound, jpeg_segments, png_chunks, riff_chunks, webp_chunks

_PNG_KEPT = frozenset(
    b"IHDR PLTE IDAT IEND tRNS gAMA cHRM sRGB iCCP sBIT cICP mDCV cLLI pHYs bKGD acTL fcTL fdAT".split()
)
_PNG_STILL = frozenset((b"IHDR", b"PLTE", b"IDAT", b"IEND", b"tRNS", b"gAMA", b"sRGB", b"iCCP"))
_PNG_UNCHECKED = frozenset((b"IHDR", b"PLTE", b"IDAT", b"IEND", b"fcTL", b"fdAT"))  # what must stay as it is
_PNG_LENGTHS = {b"gAMA": 4, b"sRGB": 1}
_MAX_ICC = 1 << 20  # inflated: what Pillow takes
_JPEG_KEPT = frozenset(  # SOF0-15 with DHT and DAC, SOI, EOI, SOS, DQT, DNL, DRI
    bytes((0xFF, low)) for low in (*range(0xC0, 0xD0), 0xD8, 0xD9, 0xDA, 0xDB, 0xDC, 0xDD)
)
_JFIF_LENGTH = 18  # marker and body of an APP0 without its thumbnail
_WEBP_KEPT = frozenset((b"VP8X", b"VP8 ", b"VP8L", b"ALPH", b"ICCP", b"ANIM", b"ANMF"))
_WEBP_FRAME_KEPT = frozenset((b"VP8 ", b"VP8L", b"ALPH"))
_GIF_LOOPS = (b"NETSCAPE2.0", b"ANIMEXTS1.0")
_GIF_LOOP_LENGTH = 19


def strip_metadata(data: bytes, mime: str) -> bytes:
    """The same picture without metadata; `data` itself if there is nothing to cut.

    Raises InvalidImage for a container that is broken or cut off, and `Uncuttable` (AVIF only) for a sound one whose
    metadata cannot be blanked in place: decode it and write it anew.
    """
    try:
        return cut(data, mime.removeprefix("image/"))
    except Uncuttable:
        raise
    except Malformed as error:
        raise InvalidImage(f"The image {error}.") from error


def cut(data: bytes, kind: str) -> bytes:
    """`strip_metadata` by sniffed name; raises Malformed."""
    found = parts(data, kind)
    return data if found is None else joined(data, found)


def parts(data: Buffer, kind: str) -> Parts | None:
    """What the picture without metadata is made of, as few as can be: stretches of `data`, and bytes between them.

    None if there is nothing to cut. Raises Malformed, and Uncuttable as `strip_metadata`. Copies no pixels.
    """
    kept: Parts = []
    for part in _PARTS[kind](data):
        last = kept[-1] if kept else None
        if isinstance(part, slice) and isinstance(last, slice) and last.stop == part.start:
            kept[-1] = slice(last.start, part.stop)
        else:
            kept.append(part)
    return None if kept == [slice(0, len(data))] else kept


def joined(data: Buffer, parts: Parts) -> bytes:
    """The parts in one."""
    with memoryview(data) as view:
        return b"".join([view[part] if isinstance(part, slice) else part for part in parts])


def _png(data: Buffer) -> Iterator[bytes | slice]:
    yield slice(0, 8)
    seen: set[bytes] = set()
    for kind, start, end in png_chunks(data):
        if kind in _PNG_KEPT and (kind in _PNG_UNCHECKED or (kind not in seen and is_sound(data, start, end))):
            seen.add(kind)  # of what says something of the whole picture the first counts, as libpng has it
            yield slice(start, end)


def still_png(data: Buffer) -> Parts:
    """What a PNG's own pixels need: no animation, and no chunk that other decoders step over and Pillow stumbles on."""
    found: Parts = []
    seen: set[bytes] = set()
    for kind, start, end in png_chunks(data):
        length = end - start - 12
        if kind not in _PNG_STILL or (kind not in _PNG_UNCHECKED and (kind in seen or not is_sound(data, start, end))):
            continue
        seen.add(kind)
        if length != _PNG_LENGTHS.get(kind, length) or (kind == b"iCCP" and not _is_profile(data[start + 8 : end - 4])):
            continue
        found.append(slice(start, end))
    return [slice(0, 8), *found]


def _is_profile(body: bytes) -> bool:
    """Whether an iCCP chunk holds what can be inflated, and is not too much."""
    name, _, packed = body.partition(b"\0")
    inflate = zlib.decompressobj()
    try:
        inflate.decompress(packed[1:], _MAX_ICC)
    except zlib.error:
        return False
    return 0 < len(name) < 80 and packed[:1] == b"\0" and inflate.eof


def _jpeg(data: Buffer) -> Iterator[bytes | slice]:
    for kind, start, end in jpeg_segments(data):
        body = data[start + 4 : start + 16]
        if kind == b"\xff\xe0" and body[:5] == b"JFIF\0" and end - start >= _JFIF_LENGTH:
            if end - start == _JFIF_LENGTH:
                yield slice(start, end)
            else:  # its thumbnail may show what was cut from the picture
                yield b"\xff\xe0\x00\x10" + body + b"\0\0"
        elif (
            kind in _JPEG_KEPT
            or (kind == b"\xff\xe2" and body[:12] == b"ICC_PROFILE\0")
            or (kind == b"\xff\xee" and body[:5] == b"Adobe")
        ):
            yield slice(start, end)


def _gif(data: Buffer) -> Iterator[bytes | slice]:
    for kind, start, end in gif_blocks(data):
        loop = data[start + 3 : start + 14] in _GIF_LOOPS and end - start == _GIF_LOOP_LENGTH
        if kind in (b"GIF", b",", b";", b"!\xf9") or (kind == b"!\xff" and loop):
            yield slice(start, end)


def _webp(data: Buffer) -> Iterator[bytes | slice]:
    yield from _riff(data, 0, 12, [piece for piece in webp_chunks(data) if piece[0] in _WEBP_KEPT])


def _riff(data: Buffer, start: int, body: int, pieces: list[Piece]) -> Iterator[bytes | slice]:
    """The chunk at `start` with only these chunks in it, which follow its own fields from `body` on."""
    inner = list(_webp_parts(data, pieces))
    length = (body - start - 8 + sum(map(_length, inner))).to_bytes(4, "little")
    yield slice(start, start + 4)
    yield slice(start + 4, start + 8) if data[start + 4 : start + 8] == length else length
    yield slice(start + 8, body)
    yield from inner


def _length(part: bytes | slice) -> int:
    length: int = part.stop - part.start if isinstance(part, slice) else len(part)
    return length


def _webp_parts(data: Buffer, pieces: list[Piece]) -> Iterator[bytes | slice]:
    for kind, start, end in pieces:
        if kind == b"VP8X" and end - start > 8 and data[start + 8] & 0x0C:
            yield slice(start, start + 8)
            yield bytes((data[start + 8] & ~0x0C,))  # no longer EXIF, no longer XMP
            yield slice(start + 9, end)
        elif kind == b"ANMF":
            if end - start < 24:
                raise Malformed("has a broken WebP frame")
            inner = [piece for piece in riff_chunks(data, start + 24, end) if piece[0] in _WEBP_FRAME_KEPT]
            yield from _riff(data, start, start + 24, inner)
            continue  # a frame is made of padded chunks: it is even
        else:
            yield slice(start, end)
        if (end - start) & 1:
            yield slice(end, end + 1) if data[end : end + 1] == b"\0" else b"\0"


_PARTS = {"png": _png, "jpeg": _jpeg, "gif": _gif, "webp": _webp, "avif": avif.parts}
