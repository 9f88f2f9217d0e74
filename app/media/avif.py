"""AVIF as far as metadata and completeness go: its boxes, without decoding.

An AVIF's pixels and metadata are addressed by absolute offsets, so nothing can be cut out. What is no picture is
blanked in place instead: of the bytes only those stay that a picture item names, the rest become zeros, and the other
items get a type that no reader knows (ISO/IEC 14496-12 §8.11: unknown item types are ignored). Every pixel stays where
it is.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from app.media.buffer import Buffer
from app.media.walk import Counter, Malformed

_PIXEL_BOXES = {b"ftyp", b"meta", b"mdat", b"moov"}  # what a still or a sequence is made of
_META_BOXES = {b"hdlr", b"pitm", b"iloc", b"iinf", b"iref", b"iprp", b"idat", b"dinf", b"grpl"}
_PIXEL_ITEMS = {b"av01", b"grid", b"iovl", b"iden", b"tmap"}  # a picture, or how pictures make one
_BLANK = b"void"
_MAX_STORES = 64
_MAX_EXTENTS = 65_536  # an extent can be of zero bytes in the table: without a limit a small file could name 4 billion
_ZEROS = bytes(65_536)
_ALPHA = (b"urn:mpeg:mpegB:cicp:systems:auxiliary:alpha", b"urn:mpeg:hevc:2015:auxid:1")


class Uncuttable(Malformed):
    """Sound, but its metadata cannot be blanked in place: it has to be decoded and written anew."""


class _Box(NamedTuple):
    kind: bytes
    start: int
    body: int
    end: int


_NOWHERE = _Box(b"", 0, 0, 0)


class _Item(NamedTuple):
    number: int
    kind: bytes
    kind_at: int
    end: int


Parts = list[bytes | slice]  # what a cut picture is made of: stretches of the one it was, and bytes between them


class Facts(NamedTuple):
    """What an AVIF says of its picture, pixels as stored."""

    width: int
    height: int
    depth: int
    grey: bool
    alpha: bool
    frames: int
    orientation: int


def parts(data: Buffer) -> Parts:
    """What the same picture without metadata is made of. What follows its end is left out."""
    boxes = list(_top_boxes(data))
    last = max(box.end for box in boxes if box.kind in _PIXEL_BOXES)
    foreign = [box for box in boxes if box.kind not in _PIXEL_BOXES and box.end <= last]
    gaps: list[tuple[int, int]] = []
    void: list[_Item] = []
    meta = next((box for box in boxes if box.kind == b"meta"), None)
    if meta is not None:
        inner = list(_children(data, meta, 4))
        foreign += [box for box in inner if box.kind not in _META_BOXES]
        found = {box.kind: box for box in inner}
        items = list(_items(data, found[b"iinf"])) if b"iinf" in found else []
        void = [item for item in items if item.kind not in _PIXEL_ITEMS and item.kind != _BLANK]
        moov = [box for box in boxes if box.kind == b"moov"]
        if moov:  # a sequence: its frames are named elsewhere, so one cannot tell what else is in its data
            words = (b"meta", b"udta", b"uuid")
            if void or any(data.find(word, box.body, box.end) >= 0 for box in moov for word in words):
                raise Uncuttable("has metadata in an image sequence")
        else:
            stores = [box for box in (*boxes, *inner) if box.kind in (b"mdat", b"idat")]
            kept = {item.number for item in items if item.kind in _PIXEL_ITEMS}
            gaps = _gaps(stores, sorted(_spans(data, found, kept, stores)))
    changes = [(box.start + 4, box.start + 8, b"free") for box in foreign if box.kind != b"free"]
    changes += [(item.kind_at, item.kind_at + 4, _BLANK) for item in void]
    gaps += [(box.body, box.end) for box in foreign]
    gaps += [(item.kind_at + 4, item.end) for item in void]  # its name, and what it says it holds
    changes += [(start, end, b"") for start, end in gaps if not _is_blank(data, start, end)]
    return list(_spliced(sorted(changes), last))


def _spliced(changes: list[tuple[int, int, bytes]], last: int) -> Iterator[bytes | slice]:
    """The file up to `last` with the changes made: other bytes, or zeros where there are none."""
    reached = 0
    for start, end, new in changes:
        if start > reached:
            yield slice(reached, start)
            reached = start
        while reached < end:
            piece = new or _ZEROS[: end - reached]
            yield piece
            reached += len(piece)
    if last > reached:
        yield slice(reached, last)


def _is_blank(data: Buffer, start: int, end: int) -> bool:
    steps = range(start, end, len(_ZEROS))
    return all(data[at : min(at + len(_ZEROS), end)] == _ZEROS[: end - at] for at in steps)


def largest(data: Buffer) -> tuple[int, int] | None:
    """The largest size that any item declares (`ispe`); None if it cannot be read. Fit for a file's first bytes."""
    try:
        meta = next((box for box in _boxes(data, 0, len(data)) if box.kind == b"meta"), None)
        if meta is None:
            return None
        sizes = [_size(data, box) for box in _properties(data, _by_kind(data, meta, 4)) if box.kind == b"ispe"]
    except Malformed:
        return None
    return (max(w for w, _ in sizes), max(h for _, h in sizes)) if sizes else None


def read(data: Buffer) -> Facts:
    """The picture that libavif shows: the frames of a sequence, or the primary item. Clean apertures are not cut."""
    boxes = list(_top_boxes(data))
    top = {box.kind: box for box in reversed(boxes)}
    if b"moov" in top and (data[8:12] == b"avis" or b"meta" not in top or data[8:12] != b"avif"):
        return _sequence(data, top[b"moov"])
    if b"meta" not in top:
        raise Malformed("holds no pixels")
    meta = _by_kind(data, top[b"meta"], 4)
    if not {b"pitm", b"iinf", b"iloc", b"iprp"} <= meta.keys():
        raise Malformed("holds no pixels")
    pitm = meta[b"pitm"]
    primary = _number(data, pitm.body + 4, 4 if _number(data, pitm.body, 1) else 2)
    kinds = {item.number: item.kind for item in _items(data, meta[b"iinf"])}
    if kinds.get(primary) not in (b"av01", b"grid"):
        raise Malformed("holds no picture that can be read")
    owned = _owned(data, meta)
    links = list(_links(data, meta[b"iref"])) if b"iref" in meta else []
    tiles = {to for kind, one, to in links if kind == b"dimg" and one == primary}
    own = {box.kind: box for box in owned.get(primary, ())}
    coded = next((box for item in (primary, *tiles) for box in owned.get(item, ()) if box.kind == b"av1C"), None)
    if b"ispe" not in own or coded is None:
        raise Malformed("has a broken AVIF header")
    for number, method, start, length in _extents(data, meta[b"iloc"]):
        if (number == primary or number in tiles) and method == 0 and start + length > len(data):
            raise Malformed("is cut off")
    alpha = any(
        kind == b"auxl" and (to == primary or to in tiles) and any(_is_alpha(data, box) for box in owned.get(one, ()))
        for kind, one, to in links
    )
    return Facts(*_size(data, own[b"ispe"]), *_coding(data, coded), alpha, 1, _turn(data, own))


def _sequence(data: Buffer, moov: _Box) -> Facts:
    """The first track of pictures; another that is auxiliary to it is its alpha."""
    tracks = [_by_kind(data, box) for box in _children(data, moov) if box.kind == b"trak"]
    shown: Facts | None = None
    helped = False
    for track in tracks:
        if b"tkhd" not in track or b"mdia" not in track:
            continue
        media = _by_kind(data, track[b"mdia"])
        if b"minf" not in media or b"hdlr" not in media:
            continue
        table = _by_kind(data, _by_kind(data, media[b"minf"]).get(b"stbl", _NOWHERE))
        handler = data[media[b"hdlr"].body + 8 : media[b"hdlr"].body + 12]
        helped = helped or handler == b"auxv"
        if handler != b"pict" or b"stsz" not in table or b"stsd" not in table or shown is not None:
            continue
        stsd = table[b"stsd"]
        place = data.find(b"av1C", stsd.body, stsd.end)
        if place < 0:
            continue
        end = track[b"tkhd"].end
        width, height = _number(data, end - 8, 4) >> 16, _number(data, end - 4, 4) >> 16
        coding = _coding(data, _Box(b"av1C", place - 4, place + 4, stsd.end))
        shown = Facts(width, height, *coding, False, _number(data, table[b"stsz"].body + 8, 4), 1)
    if shown is None or shown.frames == 0:
        raise Malformed("holds no pixels")
    return shown._replace(alpha=helped)


def _turn(data: Buffer, own: dict[bytes, _Box]) -> int:
    """A turn against the clock, then a mirror, in EXIF's terms."""
    angle = _number(data, own[b"irot"].body, 1) & 3 if b"irot" in own else 0
    axis = _number(data, own[b"imir"].body, 1) & 1 if b"imir" in own else None
    return {None: (1, 8, 3, 6), 0: (4, 5, 2, 7), 1: (2, 7, 4, 5)}[axis][angle]


def _coding(data: Buffer, box: _Box) -> tuple[int, bool]:
    """Bits per sample, and whether there is no colour."""
    flags = _number(data, box.body + 2, 1)
    return 8 if not flags & 0x40 else 12 if flags & 0x20 else 10, bool(flags & 0x10)


def _size(data: Buffer, box: _Box) -> tuple[int, int]:
    return _number(data, box.body + 4, 4), _number(data, box.body + 8, 4)


def _is_alpha(data: Buffer, box: _Box) -> bool:
    return box.kind == b"auxC" and data[box.body + 4 : box.end].rstrip(b"\0") in _ALPHA


def _properties(data: Buffer, meta: dict[bytes, _Box]) -> list[_Box]:
    stores = _by_kind(data, meta.get(b"iprp", _NOWHERE))
    return list(_children(data, stores.get(b"ipco", _NOWHERE)))


def _owned(data: Buffer, meta: dict[bytes, _Box]) -> dict[int, list[_Box]]:
    """The properties of each item."""
    properties = _properties(data, meta)
    owned: dict[int, list[_Box]] = {}
    seen = 0
    for box in _children(data, meta[b"iprp"]):
        if box.kind != b"ipma":
            continue
        wide, long = 4 if _number(data, box.body, 1) else 2, 2 if _number(data, box.body + 3, 1) & 1 else 1
        position = box.body + 8
        for _ in range(_number(data, box.body + 4, 4)):
            item, count = _number(data, position, wide), _number(data, position + wide, 1)
            position += wide + 1
            seen += count + 1
            if position + count * long > box.end or seen > _MAX_EXTENTS:
                raise Malformed("has a broken AVIF box")
            for at in range(position, position + count * long, long):
                index = _number(data, at, long) & (0x7FFF if long == 2 else 0x7F)
                if 0 < index <= len(properties):
                    owned.setdefault(item, []).append(properties[index - 1])
            position += count * long
    return owned


def _links(data: Buffer, iref: _Box) -> Iterator[tuple[bytes, int, int]]:
    """(kind, from item, to item) for each reference."""
    wide = 4 if _number(data, iref.body, 1) else 2
    for box in _children(data, iref, 4):
        one = _number(data, box.body, wide)
        count = _number(data, box.body + wide, 2)
        first = box.body + wide + 2
        if first + count * wide > box.end:
            raise Malformed("has a broken AVIF box")
        for at in range(first, first + count * wide, wide):
            yield box.kind, one, _number(data, at, wide)


def _by_kind(data: Buffer, box: _Box, skip: int = 0) -> dict[bytes, _Box]:
    """The first box of each kind inside."""
    return {child.kind: child for child in reversed(list(_children(data, box, skip)))}


def _number(data: Buffer, start: int, length: int) -> int:
    if start + length > len(data):
        raise Malformed("has a broken AVIF box")
    return int.from_bytes(data[start : start + length])


def _boxes(data: Buffer, start: int, end: int) -> Iterator[_Box]:
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


def _children(data: Buffer, box: _Box, skip: int = 0) -> Iterator[_Box]:
    return _boxes(data, box.body + skip, box.end)


def _top_boxes(data: Buffer) -> Iterator[_Box]:
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


def _complete(data: Buffer, seen: set[bytes]) -> bool:
    return bool(seen & {b"meta", b"moov"}) and (b"mdat" in seen or data.find(b"idat") >= 0)


def _spans(data: Buffer, parts: dict[bytes, _Box], kept: set[int], stores: list[_Box]) -> Iterator[tuple[int, int]]:
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


def _items(data: Buffer, iinf: _Box) -> Iterator[_Item]:
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


def _extents(data: Buffer, iloc: _Box) -> Iterator[tuple[int, int, int, int]]:
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
