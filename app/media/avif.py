"""AVIF as far as metadata and completeness go: its boxes, without decoding.

An AVIF's pixels and metadata are addressed by absolute offsets, so nothing can be cut out. What is no picture is
blanked in place instead: of the bytes only those stay that a picture item names, the rest become zeros, and the other
items get a type that no reader knows (ISO/IEC 14496-12 §8.11: unknown item types are ignored). Every pixel stays where
it is.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from app.media.walk import Counter, Header, Malformed

_PIXEL_BOXES = {b"ftyp", b"meta", b"mdat", b"moov"}  # what a still or a sequence is made of
_META_BOXES = {b"hdlr", b"pitm", b"iloc", b"iinf", b"iref", b"iprp", b"idat", b"dinf", b"grpl"}
_PIXEL_ITEMS = {b"av01", b"grid", b"iovl", b"iden", b"tmap"}  # a picture, or how pictures make one
_BLANK = b"void"
_MAX_STORES = 64
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
    foreign = [box for box in boxes if box.kind not in _PIXEL_BOXES and box.end <= last]
    gaps: list[tuple[int, int]] = []
    void: list[_Item] = []
    meta = next((box for box in boxes if box.kind == b"meta"), None)
    if meta is not None:
        inner = list(_children(data, meta, 4))
        foreign += [box for box in inner if box.kind not in _META_BOXES]
        parts = {box.kind: box for box in inner}
        items = list(_items(data, parts[b"iinf"])) if b"iinf" in parts else []
        void = [item for item in items if item.kind not in _PIXEL_ITEMS and item.kind != _BLANK]
        moov = [box for box in boxes if box.kind == b"moov"]
        if moov:  # a sequence: its frames are named elsewhere, so one cannot tell what else is in its data
            words = (b"meta", b"udta", b"uuid")
            if void or any(word in data[box.body : box.end] for box in moov for word in words):
                raise Uncuttable("has metadata in an image sequence")
        else:
            stores = [box for box in (*boxes, *inner) if box.kind in (b"mdat", b"idat")]
            kept = {item.number for item in items if item.kind in _PIXEL_ITEMS}
            gaps = _gaps(stores, sorted(_spans(data, parts, kept, stores)))
    foreign = [box for box in foreign if box.kind != b"free" or any(data[box.body : box.end])]
    gaps = [(start, end) for start, end in gaps if any(data[start:end])]
    if not (foreign or void or gaps):
        return data if last == len(data) else data[:last]
    result = bytearray(data)
    for box in foreign:
        result[box.start + 4 : box.start + 8] = b"free"
    for item in void:
        result[item.kind_at : item.kind_at + 4] = _BLANK
    gaps += [(box.body, box.end) for box in foreign]
    gaps += [(item.kind_at + 4, item.end) for item in void]  # its name, and what it says it holds
    for start, end in gaps:
        result[start:end] = bytes(max(0, end - start))
    return bytes(result[:last])


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


def _number(data: bytes, start: int, length: int) -> int:
    if start + length > len(data):
        raise Malformed("has a broken AVIF box")
    return int.from_bytes(data[start : start + length])


def _boxes(data: bytes, start: int, end: int) -> Iterator[_Box]:
    position, counter = start, Counter()
    while position < end:
        counter.step()
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


def _spans(data: bytes, parts: dict[bytes, _Box], kept: set[int], stores: list[_Box]) -> Iterator[tuple[int, int]]:
    """Where the items that are kept have their bytes."""
    if b"iloc" not in parts:
        raise Malformed("holds no pixels")
    if len(stores) > _MAX_STORES:
        raise Uncuttable("is in too many pieces")
    for number, method, start, length in _extents(data, parts[b"iloc"]):
        if number not in kept:
            continue
        if method == 1 and b"idat" in parts:
            start += parts[b"idat"].body
        elif method != 0:
            raise Uncuttable("has its pixels in an unusual place")
        store = next((box for box in stores if box.body <= start < box.end), None)
        if store is None or start + length > store.end:
            raise Uncuttable("has its pixels in an unusual place")
        yield start, start + length if length else store.end  # no length: all that is left


def _gaps(stores: list[_Box], spans: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """What of the stores is in no span. Spans are sorted, and each lies within one store."""
    gaps = []
    for store in stores:
        reached = store.body
        for start, end in spans:
            if store.body <= start < store.end:
                if start > reached:
                    gaps.append((reached, start))
                reached = max(reached, end)
        gaps.append((reached, store.end))
    return gaps


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
