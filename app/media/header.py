"""What a picture's container says of it, read without a library and without decoding.

`glance` looks at the first bytes and forgives everything: it serves whoever wants a size before anything is checked.
`read` walks the container once, to its end, and is as strict as a decoder about the fields that are fixed: what it
accepts can be decoded unless the pixels themselves are broken.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

from app.formats import ImageFormat
from app.media import avif
from app.media.buffer import Buffer
from app.media.orientation import from_exif
from app.media.walk import (
    FRAME_MARKERS,
    MAX_SCANNED,
    Malformed,
    gif_blocks,
    gif_palette,
    is_sound,
    jpeg_segments,
    png_chunks,
    riff_chunks,
    webp_chunks,
)

_PNG_MODES = {  # (bits per sample, colour type): the combinations that PNG allows, in Pillow's names
    **{(depth, 0): mode for depth, mode in ((1, "1"), (2, "L"), (4, "L"), (8, "L"), (16, "I;16"))},
    **{(depth, 3): "P" for depth in (1, 2, 4, 8)},
    **{(depth, 2): "RGB" for depth in (8, 16)},
    (8, 4): "LA",
    (16, 4): "RGBA",
    (8, 6): "RGBA",
    (16, 6): "RGBA",
}
_JPEG_MODES = {1: "L", 3: "RGB", 4: "CMYK"}
_JPEG_PROCESSES = {0xC0, 0xC1, 0xC2, 0xC3, 0xC9, 0xCA}  # what libjpeg-turbo reads: no hierarchy, no lossless arithmetic
_PROGRESSIVE = {0xC2, 0xCA}
_MOST_FRAMES = 0x8000_0000  # as PNG has it
_VP8_START = b"\x9d\x01\x2a"


class Header(NamedTuple):
    """What a picture's header says, pixels as stored."""

    width: int
    height: int
    depth: int = 8  # bits per sample
    progressive: bool = False
    mode: str = "RGB"  # Pillow's name
    alpha: bool = False  # has an alpha channel or a transparent colour
    frames: int = 1
    orientation: int = 1  # as EXIF counts


def glance(data: Buffer, kind: ImageFormat) -> Header | None:
    """Size and layout by the first bytes, nothing else; None if they do not say."""
    try:
        if kind == "png":
            width, height, depth = struct.unpack_from(">IIB", data, 16)
            return Header(width, height, depth) if data[12:16] == b"IHDR" else None
        if kind == "jpeg":
            for marker, start, _ in jpeg_segments(data):
                if marker in FRAME_MARKERS:
                    depth, height, width = struct.unpack_from(">BHH", data, start + 4)
                    return Header(width, height, depth, marker[1] in _PROGRESSIVE)
            return None
        if kind == "gif":
            return _gif_glance(data)
        if kind == "avif":
            size = avif.largest(data)
            return Header(*size) if size else None
        width, height, _ = _WEBP_SIZES.get(data[12:16], _vp8)(data, 12)
        return Header(width, height)
    except (Malformed, struct.error, IndexError):
        return None


def read(data: Buffer, kind: ImageFormat) -> Header:
    """The whole header. Raises Malformed for a container that is broken, cut off, or of a kind that nobody reads."""
    try:
        return _READERS[kind](data)
    except (struct.error, IndexError) as error:
        raise Malformed("has a broken header") from error


def _png(data: Buffer) -> Header:
    mode, depth, colour, alpha = "", 0, 0, False
    palette = pixels = framed = counted = False
    frames, exif = 0, b""
    for kind, start, end in png_chunks(data):
        if kind == b"IDAT":
            pixels = True
        elif kind == b"IHDR":
            depth, colour, *methods, interlace = data[start + 16 : start + 21]
            mode = _PNG_MODES.get((depth, colour), "")
            if not mode or any(methods) or interlace > 1 or not is_sound(data, start, end):
                raise Malformed("has a broken PNG header")
            alpha = colour in (4, 6)
        elif kind == b"eXIf":
            exif = exif or data[start + 8 : end - 4]
        elif pixels:
            continue  # what comes too late counts for nothing
        elif kind == b"PLTE":
            palette = True
            if end - start - 12 not in range(3, 769, 3) or not is_sound(data, start, end):
                raise Malformed("has a broken palette")
        elif kind == b"tRNS":
            alpha = alpha or is_sound(data, start, end)
        elif kind == b"fcTL":
            framed = True
        elif kind == b"acTL" and end - start >= 20:
            frames = 0 if counted else int.from_bytes(data[start + 8 : start + 12])  # counted twice: no animation
            counted = True
    if colour == 3 and not palette:
        raise Malformed("has no palette")
    if not 0 < frames <= _MOST_FRAMES:
        frames = 1
    elif not framed:
        frames += 1  # the still picture for those who know no animation
    width, height = struct.unpack_from(">II", data, 16)
    return Header(width, height, depth, mode=mode, alpha=alpha, frames=frames, orientation=from_exif(exif))


def _jpeg(data: Buffer) -> Header:
    frame, exif, scans = None, None, 0
    for marker, start, end in jpeg_segments(data):
        if marker in FRAME_MARKERS:
            if frame is not None:
                raise Malformed("has two headers")
            frame = _jpeg_frame(data, marker[1], start, end)
        elif marker == b"\xff\xe1" and exif is None and data[start + 4 : start + 10] == b"Exif\0\0":
            exif = data[start + 10 : end]
        scans += marker == b"\xff\xda"
    assert frame is not None  # or the walk would have ended at its scan
    most = MAX_SCANNED // max(frame.width * frame.height, 1)
    if scans > max(most, 1):
        raise Malformed(f"has {scans} scans of {frame.width}x{frame.height}; of that size it may have at most {most}")
    return frame._replace(orientation=from_exif(exif or b""))


def _jpeg_frame(data: Buffer, process: int, start: int, end: int) -> Header:
    depth, height, width, components = struct.unpack_from(">BHHB", data, start + 4)
    if process not in _JPEG_PROCESSES:
        raise Malformed("is a JPEG of a rare kind (hierarchical, or lossless arithmetic), which cannot be read")
    if depth != 8:
        raise Malformed(f"has {depth} bits a sample; of JPEGs only those with 8 can be read")
    if components not in _JPEG_MODES:
        raise Malformed(f"has {components} colour components; of JPEGs only those with 1, 3 or 4 can be read")
    factors = data[start + 11 : end : 3]
    if end - start != 10 + 3 * components or not all(0 < x >> 4 < 5 and 0 < x & 15 < 5 for x in factors):
        raise Malformed("has a broken JPEG header")
    return Header(width, height, depth, process in _PROGRESSIVE, _JPEG_MODES[components])


def _gif(data: Buffer) -> Header:
    width, height, flags = *struct.unpack_from("<HH", data, 6), data[10]
    frames, clear, grey = 0, False, _is_ramp(data[13 : 13 + gif_palette(flags)])
    for kind, start, _ in gif_blocks(data):
        if kind == b",":
            frames += 1
            if frames == 1:
                x, y, w, h, flags = struct.unpack_from("<HHHHB", data, start + 1)
                if flags & 0x80:
                    grey = _is_ramp(data[start + 10 : start + 10 + gif_palette(flags)])
                width, height = max(width, x + w), max(height, y + h)  # as browsers and Pillow have it
        elif kind == b"!\xf9" and not frames and data[start + 2] >= 4:
            clear = clear or bool(data[start + 3] & 1)
    return Header(width, height, mode="L" if grey else "P", alpha=clear, frames=frames)


def _is_ramp(palette: bytes) -> bool:
    """Whether a palette is no more than grey after grey."""
    return palette == bytes(index for index in range(len(palette) // 3) for _ in "rgb")


def _gif_glance(data: Buffer) -> Header:
    width, height = struct.unpack_from("<HH", data, 6)
    for kind, start, _ in gif_blocks(data):
        if kind == b",":  # a first frame beyond the screen makes the screen larger
            x, y, w, h = struct.unpack_from("<HHHH", data, start + 1)
            return Header(max(width, x + w), max(height, y + h))
    return Header(width, height)


def _webp(data: Buffer) -> Header:
    header, frames, exif = None, 0, b""
    for kind, start, end in webp_chunks(data):
        if header is None:
            if kind not in _WEBP_SIZES:
                raise Malformed("has a broken WebP header")
            width, height, alpha = _WEBP_SIZES[kind](data, start)
            header = Header(width, height, mode="RGBA" if alpha else "RGB", alpha=alpha)
        if kind in (b"VP8 ", b"VP8L"):
            if _WEBP_SIZES[kind](data, start)[:2] != header[:2]:
                raise Malformed("has a broken WebP header")
        elif kind == b"ALPH":
            header = header._replace(alpha=True)
        elif kind == b"ANMF":
            frames += 1
            _webp_frame(data, start, end, header)
        elif kind == b"EXIF":
            exif = exif or data[start + 8 : end]
    assert header is not None
    return header._replace(frames=max(frames, 1), orientation=from_exif(exif))


def _webp_frame(data: Buffer, start: int, end: int, canvas: Header) -> None:
    x, y, w, h = (int.from_bytes(data[at : at + 3], "little") for at in range(start + 8, start + 20, 3))
    sizes = [
        _WEBP_SIZES[kind](data, at)[:2]
        for kind, at, _ in riff_chunks(data, start + 24, end)
        if kind in (b"VP8 ", b"VP8L")
    ]
    if sizes != [(w + 1, h + 1)] or 2 * x + w >= canvas.width or 2 * y + h >= canvas.height:
        raise Malformed("has a broken WebP frame")


def _vp8x(data: Buffer, start: int) -> tuple[int, int, bool]:
    width, height = (int.from_bytes(data[at : at + 3], "little") + 1 for at in (start + 12, start + 15))
    return width, height, bool(data[start + 8] & 0x10)


def _vp8(data: Buffer, start: int) -> tuple[int, int, bool]:
    width, height = struct.unpack_from("<HH", data, start + 14)
    if data[start + 8] & 1 or data[start + 11 : start + 14] != _VP8_START:
        raise Malformed("has a broken WebP header")
    return width & 0x3FFF, height & 0x3FFF, False


def _vp8l(data: Buffer, start: int) -> tuple[int, int, bool]:
    mark, bits = struct.unpack_from("<BI", data, start + 8)
    if mark != 0x2F or bits >> 29:
        raise Malformed("has a broken WebP header")
    return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1, bool(bits >> 28 & 1)


def _avif(data: Buffer) -> Header:
    try:
        facts = avif.read(data)
    except avif.Uncuttable as error:  # that it cannot be cut is no matter here: it cannot be read
        raise Malformed(str(error)) from None
    return Header(
        facts.width,
        facts.height,
        facts.depth,
        mode=("L" if facts.grey else "RGB") + "A" * facts.alpha,
        alpha=facts.alpha,
        frames=facts.frames,
        orientation=facts.orientation,
    )


_WEBP_SIZES = {b"VP8X": _vp8x, b"VP8 ": _vp8, b"VP8L": _vp8l}
_READERS = {"png": _png, "jpeg": _jpeg, "gif": _gif, "webp": _webp, "avif": _avif}
