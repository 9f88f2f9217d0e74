"""AVIF as far as metadata and completeness go: its boxes, without decoding.

An AVIF's pixels and metadata are addressed by absolute offsets, so nothing can be cut out. Metadata is blanked in place
instead: its bytes become zeros and its item gets a type that no reader knows (ISO/IEC 14496-12 §8.11: unknown item
types are ignored). Every other byte, and so every pixel, stays where it is.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from app.media.walk import Header, Malformed

_PIXEL_BOXES = {b"ftyp", b"meta", b"mdat", b"moov"}  # what a still or a sequence is made of
_METADATA_ITEMS = {b"Exif", b"mime", b"uri "}  # Exif; XMP and everything else that is typed by name
_BLANK = b"void"
_MAX_EXTENTS = 65_536  # an extent can be of zero bytes in the table: without a limit a small file could name 4 billion


class Uncuttable(Malformed):
    """Sound, but its metadata cannot be blanked in place: it has to be decoded and written anew."""


class _Box(NamedTuple):
    kind: bytes
    start: int
    body: int
    end: int


class _Item(NamedTuple):
    number: int
    kind: bytes
    kind_at: int
    end: int


def blanked(data: bytes) -> bytes:
    """The same picture without metadata; `data` itself if it has none. Cuts what follows the picture's end."""
    boxes = list(_top_boxes(data))
    last = max(box.end for box in boxes if box.kind in _PIXEL_BOXES)
    result: bytearray | None = None
    for box in boxes:
        if box.kind == b"moov" and any(word in data[box.body : box.end] for word in (b"udta", b"uuid", b"meta")):
            raise Uncuttable("has metadata in an image sequence")
        spans: list[tuple[int, int]] = []
        names: list[int] = []
        if box.kind == b"meta":
            spans, names = _metadata(data, box)
        elif (
            box.kind not in _PIXEL_BOXES and box.end <= last and (box.kind != b"free" or any(data[box.body : box.end]))
        ):
            spans = [(box.body, box.end)]
            result = result if result is not None else bytearray(data)
            result[box.start + 4 : box.start + 8] = b"free"
        if spans or names:
            result = result if result is not None else bytearray(data)
            for start, end in spans:
                result[start:end] = bytes(end - start)
            for place in names:
                result[place : place + 4] = _BLANK
    if result is not None:
        return bytes(result[:last])
    return data if last == len(data) else data[:last]


def header(data: bytes) -> Header | None:
    """The largest size that any item declares (`ispe`); None if it cannot be read."""
    try:
        meta = next((box for box in _top_boxes(data) if box.kind == b"meta"), None)
        if meta is None:
            return None
        sizes = [
            (_number(data, box.body + 4, 4), _number(data, box.body + 8, 4))
            for outer in _children(data, meta, 4)
            if outer.kind == b"iprp"
            for store in _children(data, outer)
            if store.kind == b"ipco"
            for box in _children(data, store)
            if box.kind == b"ispe"
        ]
    except Malformed:
        return None
    return Header(max(w for w, _ in sizes), max(h for _, h in sizes)) if sizes else None


def _is_padding(data: bytes, box: _Box) -> bool:
    return box.kind == b"free" and not any(data[box.body : box.end])


def _number(data: bytes, start: int, length: int) -> int:
    if start + length > len(data):
        raise Malformed("has a broken AVIF box")
    return int.from_bytes(data[start : start + length])


def _boxes(data: bytes, start: int, end: int) -> Iterator[_Box]:
    position = start
    while position < end:
        if position + 8 > end:
            raise Malformed("has a broken AVIF box")
        size, kind, body = _number(data, position, 4), data[position + 4 : position + 8], position + 8
        if size == 1:
            size, body = _number(data, position + 8, 8), position + 16
        elif size == 0:
            size = end - position
        stop = position + size
        if stop < body or stop > end:
            raise Malformed("is cut off" if stop > end else "has a broken AVIF box")
        yield _Box(kind, position, body, stop)
        position = stop


def _children(data: bytes, box: _Box, skip: int = 0) -> Iterator[_Box]:
    return _boxes(data, box.body + skip, box.end)


def _top_boxes(data: bytes) -> Iterator[_Box]:
    """All boxes of the file; what cannot be read after a complete picture is left out."""
    if data[4:8] != b"ftyp":
        raise Malformed("is no AVIF")
    seen: set[bytes] = set()
    end = 0
    try:
        for box in _boxes(data, 0, len(data)):
            seen.add(box.kind)
            end = box.end
            yield box
    except Malformed:
        if data[end + 4 : end + 8] in _PIXEL_BOXES or not _complete(data, seen):
            raise
    if not _complete(data, seen):
        raise Malformed("is cut off")


def _complete(data: bytes, seen: set[bytes]) -> bool:
    return bool(seen & {b"meta", b"moov"}) and (b"mdat" in seen or b"idat" in data)


def _metadata(data: bytes, meta: _Box) -> tuple[list[tuple[int, int]], list[int]]:
    """Where metadata items have their bytes, and where their types are written."""
    parts = {box.kind: box for box in _children(data, meta, 4)}
    if b"iinf" not in parts:
        return [], []
    items = {item.number: item for item in _items(data, parts[b"iinf"]) if item.kind in _METADATA_ITEMS}
    if not items:
        return [], []
    if b"iloc" not in parts:
        raise Uncuttable("has metadata without a place")
    spans = []
    for number, method, start, length in _extents(data, parts[b"iloc"]):
        if number not in items:
            continue
        if method == 1 and b"idat" in parts:
            start += parts[b"idat"].body
        elif method != 0:
            raise Uncuttable("has metadata in an unusual place")
        if length == 0 or start + length > len(data):
            raise Uncuttable("has metadata in an unusual place")
        spans.append((start, start + length))
    if sum(end - start for start, end in spans) > len(data):
        raise Malformed("has metadata that overlaps itself")
    spans += [(item.kind_at + 4, item.end) for item in items.values()]  # its name and what it says it holds
    return spans, [item.kind_at for item in items.values()]


def _items(data: bytes, iinf: _Box) -> Iterator[_Item]:
    wide = _number(data, iinf.body, 1) > 0
    for box in _children(data, iinf, 8 if wide else 6):
        version = _number(data, box.body, 1)
        if box.kind != b"infe":
            continue
        if version < 2:
            raise Uncuttable("has items of an old kind")
        length = 2 if version == 2 else 4
        place = box.body + 4 + length + 2
        yield _Item(_number(data, box.body + 4, length), data[place : place + 4], place, box.end)


def _extents(data: bytes, iloc: _Box) -> Iterator[tuple[int, int, int, int]]:
    """(item, construction method, start, length) for each extent."""
    version, sizes = _number(data, iloc.body, 1), _number(data, iloc.body + 4, 2)
    if version > 2:
        raise Uncuttable("has a table of places of a new kind")
    offset_size, length_size, base_size, index_size = sizes >> 12, sizes >> 8 & 15, sizes >> 4 & 15, sizes & 15
    index_size = index_size if version else 0
    wide = 4 if version == 2 else 2
    position = iloc.body + 6
    count, position = _number(data, position, wide), position + wide
    seen = 0
    for _ in range(count):
        number, position = _number(data, position, wide), position + wide
        method = 0
        if version:
            method, position = _number(data, position, 2) & 15, position + 2
        position += 2  # data reference
        base, position = _number(data, position, base_size), position + base_size
        extents, position = _number(data, position, 2), position + 2
        seen += extents
        if seen > _MAX_EXTENTS:
            raise Malformed("is in too many pieces")
        for _ in range(extents):
            position += index_size
            offset, position = _number(data, position, offset_size), position + offset_size
            length, position = _number(data, position, length_size), position + length_size
            if position > iloc.end:
                raise Malformed("has a broken AVIF box")
            yield number, method, base + offset, length
