"""What a file is said to be, and what is refused."""

from __future__ import annotations

import struct
import time
import zlib
from io import BytesIO

import pytest
from PIL import Image

from app.errors import ImageTooLarge, InvalidImage, UnsupportedImage
from app.media.blob import MemoryBlob
from app.media.sniff import MAX_PIXELS, inspect, sniff_format
from providers.base import Media
from tests.media.pictures import (
    FORMATS,
    animated,
    jpeg_segment,
    photo,
    png_chunk,
    raw_png,
    sample,
    saved,
    tiff_orientation,
    with_exif,
)


def inspected(data: bytes, *, index: int = 0, param: str = "image", max_pixels: int = MAX_PIXELS) -> Media:
    return inspect(MemoryBlob(data), "digest", index=index, param=param, max_pixels=max_pixels)


HEADS = {
    "svg": b'<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg">',
    "xml": b"<?xml version='1.0'?><note/>",
    "html": b"\n<!DOCTYPE html><html>",
    "pdf": b"%PDF-1.7\n%\xe2\xe3\xcf\xd3",
    "eps": b"%!PS-Adobe-3.0 EPSF-3.0",
    "tiff": b"II*\0\x08\0\0\0",
    "psd": b"8BPS\0\x01",
    "bmp": b"BM\x46\0\0\0\0\0\0\0\x36",
    "heic": b"\0\0\0\x18ftypheic\0\0\0\0mif1heic",
    "ico": b"\0\0\1\0\1\0",
    "json": b'{"error": "not found"}',
    "text": "größe".encode(),
    "zip": b"PK\3\4\x14\0",
    "video": b"\0\0\0\x18ftypmp42\0\0\0\0mp42isom",
    "jxl": b"\xff\x0a\xfa\x1f",
    "jp2": b"\0\0\0\x0cjP  \r\n\x87\n",
    "gzip": b"\x1f\x8b\x08",
    "wav": b"RIFF\x24\0\0\0WAVEfmt ",
}


@pytest.mark.parametrize(("kind", "head"), HEADS.items())
def test_refused_kinds_are_named(kind: str, head: bytes) -> None:
    assert sniff_format(head) == kind
    with pytest.raises(UnsupportedImage, match=r"^Image 2 is .*PNG, JPEG, WebP, GIF and AVIF") as caught:
        inspected(head, index=1)
    assert caught.value.param == "image"


@pytest.mark.parametrize("format", FORMATS)
def test_accepted_kinds_are_told_by_their_bytes(format: str) -> None:
    data = sample(format)
    assert sniff_format(data[:64]) == format
    media = inspected(data)
    assert (media.mime, media.width, media.height, media.orientation, media.frames) == (
        f"image/{format}",
        64,
        48,
        1,
        1,
    )
    assert media.digest == "digest"
    assert media.size == len(data)


@pytest.mark.parametrize(("head", "found"), [(b"\0\1\2\3\4\5\6\7", "of an unknown kind"), (b"<html>", "an HTML page")])
def test_nothing_in_particular_is_refused(head: bytes, found: str) -> None:
    with pytest.raises(UnsupportedImage, match=found):
        inspected(head)


def test_nothing_at_all_is_called_empty() -> None:
    with pytest.raises(InvalidImage, match=r"^Image 1 is empty\.$"):
        inspected(b"")


def test_the_mask_is_called_the_mask() -> None:
    with pytest.raises(UnsupportedImage, match=r"^The mask is a PDF file"):
        inspected(b"%PDF-1.7", param="mask")


@pytest.mark.parametrize(
    ("format", "mode", "alpha"),
    [
        ("png", "1", False),
        ("png", "L", False),
        ("png", "LA", True),
        ("png", "P", False),
        ("png", "RGB", False),
        ("png", "RGBA", True),
        ("png", "I;16", False),
        ("jpeg", "L", False),
        ("jpeg", "RGB", False),
        ("jpeg", "CMYK", False),
        ("webp", "RGB", False),
        ("webp", "RGBA", True),
        ("avif", "RGB", False),
        ("avif", "RGBA", True),
        ("gif", "P", False),
    ],
)
def test_mode_and_alpha(format: str, mode: str, alpha: bool) -> None:
    media = inspected(saved(photo(mode), format))
    assert (media.mode, media.alpha) == (mode, alpha)


def test_a_transparent_colour_counts_as_alpha() -> None:
    assert inspected(saved(photo("P"), "png", transparency=3)).alpha
    used = photo("P").getpixel((0, 0))
    assert inspected(saved(photo("P"), "gif", transparency=used)).alpha
    assert inspected(raw_png((2, 1), 8, 2, [b"\0" * 6], [(b"tRNS", b"\0\0\0\0\0\0")])).alpha


@pytest.mark.parametrize("format", ["png", "webp", "gif", "avif"])
def test_frames_are_counted(format: str) -> None:
    assert inspected(animated(format)).frames == 3


def test_frames_count_against_the_limit_together() -> None:
    assert inspected(animated("gif"), max_pixels=3 * 1200).frames == 3
    with pytest.raises(ImageTooLarge, match="3 frames of 40x30"):
        inspected(animated("gif"), max_pixels=3 * 1200 - 1)


@pytest.mark.parametrize("format", ["png", "jpeg", "webp", "avif"])
@pytest.mark.parametrize("value", range(1, 9))
def test_size_is_as_a_viewer_shows_it(format: str, value: int) -> None:
    media = inspected(sample(format, orientation=value))
    assert media.orientation == value
    assert (media.width, media.height) == ((48, 64) if value >= 5 else (64, 48))


@pytest.mark.parametrize(
    "exif",
    [
        b"",
        b"garbage",
        b"II*\0",
        b"II*\0\xff\xff\xff\xff",
        tiff_orientation(99),
        tiff_orientation(0),
        tiff_orientation(6, kind=2),  # typed as ASCII
        tiff_orientation(6)[:14],
        b"II*\0" + struct.pack("<IH", 8, 65535),
    ],
)
@pytest.mark.parametrize("format", ["png", "jpeg"])
def test_broken_exif_is_no_orientation(format: str, exif: bytes) -> None:
    assert inspected(with_exif(format, exif)).orientation == 1


def test_both_byte_orders() -> None:
    assert inspected(with_exif("jpeg", tiff_orientation(6, order=">"))).orientation == 6
    assert inspected(with_exif("jpeg", tiff_orientation(8, order="<"))).orientation == 8


@pytest.mark.parametrize("kind", [3, 8])
def test_signed_orientations_count_as_other_readers_have_it(kind: int) -> None:
    assert inspected(with_exif("jpeg", tiff_orientation(6, kind=kind))).orientation == 6


def test_a_long_orientation_of_either_sign_counts() -> None:
    for kind in (4, 9):
        exif = b"II*\0" + struct.pack("<IHHHIiI", 8, 1, 0x0112, kind, 1, 6, 0)
        assert inspected(with_exif("jpeg", exif)).orientation == 6


def test_a_phones_mpo_is_a_jpeg() -> None:
    data = saved(photo(), "mpo", save_all=True, append_images=[photo().rotate(180)])
    with Image.open(BytesIO(data)) as image:
        assert image.format == "MPO"
    media = inspected(data)
    assert (media.mime, media.frames) == ("image/jpeg", 1)


def test_a_bomb_is_refused_by_its_header() -> None:
    data = b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", struct.pack(">IIBBBBB", 30_000, 30_000, 8, 2, 0, 0, 0))
    data += png_chunk(b"IDAT", zlib.compress(b"\0")) + png_chunk(b"IEND", b"")
    with pytest.raises(ImageTooLarge, match="30000x30000"):
        inspected(data)


@pytest.mark.parametrize(
    ("size", "limit"),
    [((32_769, 1), MAX_PIXELS), ((1, 32_769), MAX_PIXELS), ((101, 100), 10_000)],
)
def test_limits(size: tuple[int, int], limit: int) -> None:
    for format in ("png", "jpeg", "gif"):
        with pytest.raises(ImageTooLarge):
            inspected(saved(Image.new("L", size), format), max_pixels=limit)


@pytest.mark.parametrize("format", FORMATS)
def test_the_limit_is_inclusive(format: str) -> None:
    data = saved(photo(size=(100, 100)), format)
    assert inspected(data, max_pixels=10_000).width == 100
    with pytest.raises(ImageTooLarge, match=r"Image 1 is 100x100; at most 9,999 pixels"):
        inspected(data, max_pixels=9_999)


def test_a_zero_size_is_broken() -> None:
    with pytest.raises(InvalidImage):
        inspected(raw_png((0, 5), 8, 2, []))


def test_a_jpeg_of_too_many_scans() -> None:
    data = saved(photo("L"), "jpeg", progressive=True)
    last = data.rindex(b"\xff\xda")
    scan = data[last:-2]
    assert inspected(data).width == 64
    with pytest.raises(InvalidImage, match="more than 100 scans"):
        inspected(data[:-2] + scan * 100 + b"\xff\xd9")


def with_scans(size: tuple[int, int], scans: int) -> bytes:
    """A progressive JPEG of so many scans."""
    data = saved(Image.new("L", size, 90), "jpeg", progressive=True)
    last = data.rindex(b"\xff\xda")
    return data[:-2] + data[last:-2] * (scans - data.count(b"\xff\xda")) + b"\xff\xd9"


def test_the_larger_a_jpeg_the_fewer_scans_it_may_have() -> None:
    size = (5000, 4000)
    assert inspected(with_scans(size, 50), max_pixels=50_000_000).width == 5000
    with pytest.raises(InvalidImage, match="51 scans of 5000x4000; of that size it may have at most 50"):
        inspected(with_scans(size, 51), max_pixels=50_000_000)
    assert inspected(with_scans((1000, 1000), 100), max_pixels=50_000_000).width == 1000


def test_large_files_are_walked_fast() -> None:
    noise = saved(Image.effect_noise((1500, 1500), 90), "jpeg", quality=98)
    data = noise[:2] + b"".join(jpeg_segment(0xE5, b"\xff" * 65_000) for _ in range(120)) + noise[2:]
    assert len(data) > 8_000_000
    started = time.process_time()
    inspected(data)
    assert time.process_time() - started < 0.5


def test_text_bombs_are_not_inflated() -> None:
    bomb = b"k\0\0" + zlib.compress(b"\0" * 100_000_000, 9)
    data = raw_png((2, 1), 8, 2, [b"\0" * 6], [(b"zTXt", bomb)] * 50)
    started = time.process_time()
    assert inspected(data).width == 2
    assert time.process_time() - started < 1.0


def test_many_chunks_are_walked() -> None:
    data = raw_png((2, 1), 8, 2, [b"\0" * 6], [(b"tEXt", b"")] * 200_000)
    started = time.process_time()
    assert inspected(data).width == 2
    assert time.process_time() - started < 2.0


@pytest.mark.parametrize("format", FORMATS)
def test_too_many_pieces_are_refused_soon(format: str) -> None:
    data = sample(format)
    flood = {
        "png": lambda: data[:33] + png_chunk(b"tEXt", b"") * 1_000_000 + data[33:],
        "jpeg": lambda: data[:2] + b"\xff\xe1\0\2" * 1_000_000 + data[2:],
        "webp": lambda: b"RIFF" + struct.pack("<I", len(data) - 8 + 8_000_000) + data[8:] + b"abcd\0\0\0\0" * 1_000_000,
        "gif": lambda: data[:-1] + b"!\xfe\0" * 1_000_000 + b";",
        "avif": lambda: b"\0\0\0\x08free" * 1_000_000,
    }[format]()
    if format == "avif":
        flood = data[:32] + flood + data[32:]
    started = time.process_time()
    with pytest.raises(InvalidImage, match="too many pieces"):
        inspected(flood)
    assert time.process_time() - started < 2.0
