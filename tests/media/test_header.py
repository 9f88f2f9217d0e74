"""What a container says of its picture is what a decoder says of it."""

from __future__ import annotations

import asyncio
import os
import struct
import subprocess
import sys
import time
import tracemalloc
from io import BytesIO
from pathlib import Path

import pytest
from PIL import Image

from app.errors import InvalidImage
from app.media.blob import FileBlob, MemoryBlob, SplicedBlob, Spool
from app.media.sniff import MAX_PIXELS, Facts, inspect, read_facts, sniff_format
from app.media.strip import joined, parts, strip_metadata
from providers.base import Blob
from tests.media.pictures import (
    FORMATS,
    animated,
    jpeg_segment,
    photo,
    png_chunk,
    raw_png,
    sample,
    saved,
    with_exif,
)

IHDR = slice(8, 33)


def facts(data: bytes) -> Facts:
    return read_facts(data, sniff_format(data[:64]), MAX_PIXELS)  # type: ignore[arg-type]


def by_pillow(data: bytes) -> tuple[object, ...]:
    with Image.open(BytesIO(data)) as image:
        turned = image.getexif().get(0x0112, 1)
        size = image.size[::-1] if turned >= 5 else image.size
        return size, turned, image.has_transparency_data, image.mode, getattr(image, "n_frames", 1)


def spooled(data: bytes) -> Blob:
    spool = Spool(0)
    spool.write(data)
    return spool.finish()[0]


def with_header(data: bytes, at: int, value: int) -> bytes:
    """A PNG with one byte of its header changed and a right checksum."""
    body = bytearray(data[16:29])
    body[at] = value
    return data[:8] + png_chunk(b"IHDR", bytes(body)) + data[33:]


def pictures() -> dict[str, bytes]:
    """Every layout that Pillow writes."""
    found: dict[str, bytes] = {}
    for mode in ("1", "L", "LA", "P", "RGB", "RGBA", "I;16"):
        found[f"png {mode}"] = saved(photo(mode), "png")
    for mode in ("1", "L", "P"):
        found[f"png {mode} with a clear colour"] = saved(photo(mode), "png", transparency=1)
    for depth, colour, row in ((16, 2, 6), (16, 4, 4), (16, 6, 8), (2, 0, 1), (4, 0, 1)):
        found[f"png {depth} bits, type {colour}"] = raw_png((1, 1), depth, colour, [bytes(row)])
    for mode in ("L", "RGB", "CMYK", "YCbCr"):
        for progressive in (False, True):
            found[f"jpeg {mode} {progressive}"] = saved(photo(mode), "jpeg", progressive=progressive)
    for mode in ("L", "P", "RGB", "RGBA"):
        found[f"gif {mode}"] = saved(photo(mode), "gif")
    for mode in ("RGB", "RGBA"):
        for lossless in (False, True):
            found[f"webp {mode} {lossless}"] = saved(photo(mode), "webp", lossless=lossless)
    for mode in ("L", "RGB", "RGBA"):
        found[f"avif {mode}"] = saved(photo(mode), "avif")
    for format in ("png", "gif", "webp", "avif"):
        found[f"{format} animated"] = animated(format)
        layers = [photo("RGBA"), photo("RGBA").rotate(90)]
        found[f"{format} animated, clear"] = saved(layers[0], format, save_all=True, append_images=layers[1:])
    layers = [photo(), photo().rotate(90)]
    found["png animated behind a still"] = saved(
        photo(), "png", save_all=True, append_images=layers, default_image=True
    )
    for format in ("png", "jpeg", "webp", "avif"):
        for value in range(1, 9):
            found[f"{format} turned {value}"] = sample(format, orientation=value, metadata=value % 2 == 0)
    return found


PICTURES = pictures()


@pytest.mark.parametrize("name", PICTURES)
def test_the_container_says_what_pillow_says(name: str) -> None:
    data = PICTURES[name]
    found = facts(data)
    assert ((found.width, found.height), *found[3:7]) == by_pillow(data)
    clean = strip_metadata(data, f"image/{found.format}") if "animated" not in name else data
    assert facts(clean)._replace(orientation=found.orientation, width=found.width, height=found.height) == found


@pytest.mark.parametrize("name", PICTURES)
def test_a_mapped_file_is_read_as_bytes_are(name: str) -> None:
    data = PICTURES[name]
    blob = spooled(data)
    assert isinstance(blob, FileBlob)
    view = blob.view()
    kind = sniff_format(data[:64])
    assert kind is not None
    assert read_facts(view, kind, MAX_PIXELS) == facts(data)  # type: ignore[arg-type]
    found = parts(view, kind)
    assert found == parts(data, kind)
    if found is not None:
        assert joined(view, found) == strip_metadata(data, f"image/{kind}")


def test_depth_and_progression_are_told() -> None:
    assert facts(saved(photo(), "jpeg", progressive=True)).progressive
    assert not facts(saved(photo(), "jpeg")).progressive
    assert facts(saved(photo("I;16"), "png")).depth == 16
    assert facts(saved(photo("1"), "png")).depth == 1
    assert facts(saved(photo(), "avif")).depth == 8


def test_reading_a_header_loads_no_decoder() -> None:
    code = "import app.media.sniff, sys; sys.exit('PIL' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False, cwd=Path.cwd()).returncode == 0


PNG = raw_png((1, 1), 8, 2, [b"\0\0\0"])
JPEG = saved(photo(), "jpeg")
SOF = JPEG.index(b"\xff\xc0")


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (with_header(PNG, 8, 3), "broken PNG header"),  # bits
        (with_header(PNG, 9, 5), "broken PNG header"),  # colour type
        (with_header(PNG, 9, 3), "no palette"),
        (with_header(PNG, 10, 1), "broken PNG header"),  # compression
        (with_header(PNG, 11, 1), "broken PNG header"),  # filter
        (with_header(PNG, 12, 2), "broken PNG header"),  # interlace
        (PNG[:29] + b"\0\0\0\0" + PNG[33:], "broken PNG header"),  # its checksum
        (raw_png((1, 1), 8, 3, [b"\0"], [(b"PLTE", bytes(4))]), "broken palette"),
        (JPEG[: SOF + 4] + b"\x0c" + JPEG[SOF + 5 :], "12 bits a sample"),
        (JPEG[: SOF + 9] + b"\2" + JPEG[SOF + 10 :], "2 colour components"),
        (JPEG[: SOF + 1] + b"\xc7" + JPEG[SOF + 2 :], "rare kind"),
        (JPEG[: SOF + 1] + b"\xcb" + JPEG[SOF + 2 :], "rare kind"),
        (JPEG[: SOF + 11] + b"\x51" + JPEG[SOF + 12 :], "broken JPEG header"),  # sampling
        (JPEG[:SOF] + JPEG[SOF : SOF + 19] + JPEG[SOF:], "two headers"),
        (sample("webp").replace(b"\x9d\x01\x2a", b"\x9d\x01\x2b"), "broken WebP header"),
        (saved(photo(), "webp", lossless=True).replace(b"\x2f", b"\x2e", 1), "broken WebP header"),
        (saved(photo("RGBA"), "avif").replace(b"pitm", b"pitn"), "no pixels"),
        (saved(photo("RGBA"), "avif").replace(b"ispe", b"ispf"), "broken AVIF header"),
    ],
)
def test_broken_headers_are_refused(data: bytes, why: str) -> None:
    with pytest.raises(InvalidImage, match=why):
        inspect(MemoryBlob(data), "", index=0, param="image")


def test_a_lossless_jpeg_is_a_jpeg() -> None:
    head = jpeg_segment(0xC3, struct.pack(">BHHB", 8, 8, 8, 1) + b"\1\x11\0")
    table = jpeg_segment(0xC4, b"\0" + b"\1" + bytes(15) + b"\0")
    data = b"\xff\xd8" + head + table + jpeg_segment(0xDA, b"\1\1\0\1\0\0") + bytes(8) + b"\xff\xd9"
    assert ((8, 8), *facts(data)[3:7]) == by_pillow(data)


def test_a_large_upload_is_never_in_memory() -> None:
    noise = os.urandom(500_000).replace(b"\xff", b"\xfe")
    jpeg = JPEG[:-2] + noise * 40 + JPEG[-2:]
    files = {
        "jpeg": with_exif("jpeg", b"II*\0" + bytes(60_000))[:60_030] + jpeg[2:],
        "png": PNG[:33] + png_chunk(b"tEXt", b"a\0b") + png_chunk(b"IDAT", noise) * 40 + png_chunk(b"IEND", b""),
        "avif": sample("avif") + struct.pack(">I", 8 + 40 * len(noise)) + b"uuid" + noise * 40,
    }
    for kind, data in files.items():
        blob = spooled(data)
        assert isinstance(blob, FileBlob)
        tracemalloc.start()
        try:
            started = time.process_time()
            inspect(blob, "", index=0, param="image")
            found = parts(blob.view(), kind)
            assert found is not None
            assert time.process_time() - started < 0.5
            cut = SplicedBlob(blob, found)
            asyncio.run(_drained(cut))
            assert tracemalloc.get_traced_memory()[1] < 3_000_000
        finally:
            tracemalloc.stop()


async def _drained(blob: Blob) -> None:
    async for piece in blob.chunks():
        assert len(piece) <= 512 * 1024


def test_a_gifs_blocks_are_counted_right_at_any_length() -> None:
    head = b"GIF89a" + struct.pack("<HH", 1, 1) + b"\0\0\0," + struct.pack("<HHHH", 0, 0, 1, 1) + b"\0\x08"
    for full in (0, 1, 255, 256, 257, 600):
        for rest in (b"", b"\x02ab", b"\xfe" + bytes(254)):
            data = head + (b"\xff" + bytes(255)) * full + rest + b"\0;"
            assert facts(data).frames == 1
            assert strip_metadata(data, "image/gif") is data
            for end in (len(data) - 1, len(data) - 3, len(data) // 2):
                with pytest.raises(InvalidImage):
                    strip_metadata(data[:end], "image/gif")


@pytest.mark.parametrize("format", FORMATS)
def test_what_was_cut_is_streamed_as_it_would_be_joined(format: str) -> None:
    data = sample(format, metadata=True, size=(300, 200))
    found = parts(data, format)
    assert found is not None
    assert joined(data, found) == strip_metadata(data, f"image/{format}")
