"""Metadata is cut out, pixels are not touched."""

from __future__ import annotations

import re
import struct
from io import BytesIO

import pytest
from PIL import Image, ImageCms

from app.errors import InvalidImage
from app.media import avif
from app.media.avif import Uncuttable
from app.media.decode import decode
from app.media.sniff import inspect
from app.media.strip import strip_metadata
from tests.media.pictures import (
    FORMATS,
    SECRET,
    animated,
    jpeg_segment,
    photo,
    png_chunk,
    raw_png,
    sample,
    saved,
)


def stripped(data: bytes, format: str) -> bytes:
    result = strip_metadata(data, f"image/{format}")
    assert strip_metadata(result, f"image/{format}") is result  # idempotent
    return result


def frames(data: bytes) -> list[bytes]:
    """Every frame as a viewer without any of our code decodes it."""
    with Image.open(BytesIO(data)) as image:
        pixels = []
        for frame in range(getattr(image, "n_frames", 1)):
            image.seek(frame)
            pixels.append(image.convert("RGBA").tobytes())
        return pixels


@pytest.mark.parametrize("format", FORMATS)
def test_metadata_goes_and_pixels_stay(format: str) -> None:
    data = sample(format, metadata=True, orientation=6)
    assert SECRET in data
    result = stripped(data, format)
    assert SECRET not in result
    for word in (b"Exif", b"xmpmeta", b"eXIf", b"EXIF", b"XMP"):
        assert word not in result
    assert frames(result) == frames(data)
    assert decode(result).tobytes() == decode(data).tobytes()
    with Image.open(BytesIO(result)) as image:
        image.load()
        info = {key for key in image.info if key not in ("jfif", "jfif_version", "jfif_unit", "jfif_density", "dpi")}
    assert info <= {"progressive", "background", "loop", "duration", "timestamp", "version", "extension"} | (
        {"exif"} if format == "avif" else set()  # Pillow's word for the turn, which is no metadata there
    )


@pytest.mark.parametrize("format", FORMATS)
def test_nothing_to_cut_is_the_same_object(format: str) -> None:
    data = strip_metadata(sample(format), f"image/{format}")
    assert strip_metadata(data, f"image/{format}") is data


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("tail", [b"PK\3\4 zip", b"<script>alert(1)</script>", b"\0" * 100, b"\xff\xd9", b"x"])
def test_what_follows_the_picture_is_cut(format: str, tail: bytes) -> None:
    data = strip_metadata(sample(format), f"image/{format}")
    assert stripped(data + tail, format) == data


@pytest.mark.parametrize("format", FORMATS)
def test_cut_off_pictures_are_refused(format: str) -> None:
    data = sample(format, metadata=True)
    for end in {*range(60), *range(60, len(data) - 1, max(1, len(data) // 150)), len(data) - 1}:
        if format == "webp" and end == len(data) - 1:
            continue  # may be the pad byte
        with pytest.raises(InvalidImage):
            strip_metadata(data[:end], f"image/{format}")


@pytest.mark.parametrize("format", ["png", "webp", "gif", "avif"])
def test_animations_stay_animations(format: str) -> None:
    data = animated(format)
    result = stripped(data, format)
    assert frames(result) == frames(data)
    assert len(frames(result)) == 3


def test_the_loop_of_a_gif_is_kept_and_nothing_else() -> None:
    data = animated("gif")
    place = data.index(b"!\xff\x0bNETSCAPE2.0")
    foreign = b"!\xff\x0bXMP DataXMP" + bytes((len(SECRET),)) + SECRET + b"\0"
    fat = data[place : place + 18] + bytes((len(SECRET),)) + SECRET + b"\0"  # more in the loop than a loop
    result = stripped(data[:place] + foreign + fat + data[place:], "gif")
    assert result == data


def test_a_jpegs_colour_facts_are_kept() -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    data = saved(photo(), "jpeg", icc_profile=profile, dpi=(300, 300), comment=SECRET)
    result = stripped(data, "jpeg")
    with Image.open(BytesIO(result)) as image:
        assert image.info["icc_profile"] == profile
        assert image.info["dpi"] == (300, 300)
        assert "comment" not in image.info
    cmyk = saved(photo("CMYK"), "jpeg")
    assert b"Adobe" in stripped(cmyk, "jpeg")


def test_png_and_webp_profiles_are_kept() -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    for format in ("png", "webp", "avif"):
        with Image.open(BytesIO(stripped(saved(photo(), format, icc_profile=profile), format))) as image:
            assert image.info["icc_profile"] == profile


@pytest.mark.parametrize("marker", [0xE1, 0xE2, 0xE3, 0xEC, 0xED, 0xEE, 0xEF, 0xFE, 0xE0, 0xF7])
def test_jpeg_segments_of_no_use_go(marker: int) -> None:
    clean = saved(photo(), "jpeg")
    data = clean[:20] + jpeg_segment(marker, b"Anything\0" + SECRET) + clean[20:]
    assert stripped(data, "jpeg") == clean


def test_jpeg_metadata_between_scans_goes() -> None:
    clean = saved(photo(), "jpeg", progressive=True)
    second = clean.index(b"\xff\xda", clean.index(b"\xff\xda") + 2)
    comment = jpeg_segment(0xFE, SECRET)
    assert stripped(clean[:second] + comment + clean[second:], "jpeg") == clean


def test_a_thumbnail_with_an_end_of_its_own_does_not_end_the_picture() -> None:
    clean = saved(photo(), "jpeg")
    thumbnail = saved(photo(size=(16, 12)), "jpeg")
    data = clean[:2] + jpeg_segment(0xE1, b"Exif\0\0" + thumbnail) + clean[2:]
    assert stripped(data, "jpeg") == clean


def test_a_jfif_thumbnail_goes() -> None:
    clean = saved(photo(), "jpeg")
    app0 = jpeg_segment(0xE0, clean[6:18] + b"\2\2" + b"\x77" * 12)
    assert stripped(clean[:2] + app0 + clean[20:], "jpeg") == clean


def test_jpeg_restart_markers_and_fill_bytes_are_part_of_a_scan() -> None:
    data = saved(photo(size=(200, 150)), "jpeg", restart_marker_blocks=4)
    assert re.search(rb"\xff[\xd0-\xd7]", data)
    assert stripped(data, "jpeg") == data
    filled = data[:20] + b"\xff\xff\xff" + data[20:-2] + b"\xff\xff" + data[-2:]
    assert frames(stripped(filled, "jpeg")) == frames(data)


def test_an_mpo_becomes_its_first_picture() -> None:
    data = saved(photo(), "mpo", save_all=True, append_images=[photo().rotate(180)])
    result = stripped(data, "jpeg")
    assert result.count(b"\xff\xd8\xff") == 1
    assert b"MPF\0" not in result
    assert frames(result) == frames(data)[:1]


@pytest.mark.parametrize(
    "kind", [b"prVt", b"caBX", b"zzZz", b"tEXt", b"zTXt", b"iTXt", b"tIME", b"eXIf", b"hIST", b"sPLT"]
)
def test_png_chunks_of_no_use_go(kind: bytes) -> None:
    clean = raw_png((2, 1), 8, 2, [b"\1\2\3\4\5\6"])
    assert stripped(raw_png((2, 1), 8, 2, [b"\1\2\3\4\5\6"], [(kind, SECRET)]), "png") == clean
    late = clean[:-12] + png_chunk(kind, SECRET) + clean[-12:]
    assert stripped(late, "png") == clean


@pytest.mark.parametrize("kind", [b"gAMA", b"cHRM", b"sRGB", b"sBIT", b"cICP", b"pHYs", b"bKGD", b"tRNS", b"iCCP"])
def test_png_colour_facts_are_kept(kind: bytes) -> None:
    data = raw_png((2, 1), 8, 2, [b"\1\2\3\4\5\6"], [(kind, b"\0\0\0\0\0\0")])
    assert strip_metadata(data, "image/png") is data


@pytest.mark.parametrize("kind", [b"gAMA", b"cHRM", b"sRGB", b"iCCP", b"tRNS"])
def test_png_facts_with_a_wrong_checksum_go_as_decoders_have_it(kind: bytes) -> None:
    clean = raw_png((2, 1), 8, 2, [b"\1\2\3\4\5\6"])
    broken = png_chunk(kind, b"\0\0\0\0\0\0")[:-4] + b"\0\0\0\0"
    assert stripped(clean[:33] + broken + clean[33:], "png") == clean


def test_webp_flags_and_lengths_are_right() -> None:
    result = stripped(sample("webp", metadata=True), "webp")
    assert struct.unpack("<I", result[4:8])[0] == len(result) - 8
    assert result[20] & 0x0C == 0


def test_webp_frames_are_searched_too() -> None:
    data = animated("webp")
    place = data.index(b"ANMF")
    (length,) = struct.unpack_from("<I", data, place + 4)
    extra = b"SECR" + struct.pack("<I", len(SECRET) + 1) + SECRET + b"."
    frame = b"ANMF" + struct.pack("<I", length + len(extra)) + data[place + 8 : place + 8 + length] + extra
    body = data[12:place] + frame + data[place + 8 + length :]
    fat = b"RIFF" + struct.pack("<I", len(body) + 4) + b"WEBP" + body
    assert frames(fat) == frames(data)
    assert stripped(fat, "webp") == data


@pytest.mark.parametrize(
    ("format", "data"),
    [
        ("png", b"\x89PNG\r\n\x1a\n" + png_chunk(b"IDAT", b"") + png_chunk(b"IEND", b"")),
        ("png", raw_png((1, 1), 8, 0, [b"\0"], [(b"CgBI", b"\0\0\0\0")])),
        ("png", raw_png((1, 1), 8, 0, [b"\0"], [(b"a1b2", b"")])),
        ("jpeg", b"\xff\xd8\xff\xd9"),
        ("jpeg", b"\xff\xd8" + jpeg_segment(0xDA, b"\0" * 10) + b"\xff\xd9"),
        ("webp", b"RIFF\x04\0\0\0WEBP"),
        ("gif", b"GIF89a\1\0\1\0\0\0\0;"),
        ("avif", b"\0\0\0\x14ftypavif\0\0\0\0avif"),
    ],
)
def test_containers_without_a_picture_are_refused(format: str, data: bytes) -> None:
    with pytest.raises(InvalidImage):
        strip_metadata(data, f"image/{format}")


def test_foreign_boxes_of_an_avif_are_blanked() -> None:
    clean = saved(photo(), "avif")
    uuid = struct.pack(">I", 24 + len(SECRET)) + b"uuid" + b"\xd8\xfe\xc3\xd6\x1b\x0e\x48\x3c" * 2 + SECRET
    behind = stripped(clean + uuid, "avif")
    assert behind == clean
    mdat = clean.index(b"mdat") - 4
    (size,) = struct.unpack_from(">I", clean, mdat)
    assert mdat + size == len(clean)
    moved = bytearray(clean[:mdat] + uuid + clean[mdat:])
    offset = clean.index(b"iloc") + 18  # of the only extent of the only item
    moved[offset : offset + 4] = struct.pack(">I", int.from_bytes(moved[offset : offset + 4]) + len(uuid))
    result = stripped(bytes(moved), "avif")
    assert SECRET not in result
    assert b"uuid" not in result
    assert frames(result) == frames(clean)


def test_bytes_of_an_avif_that_no_picture_names_are_blanked() -> None:
    clean = saved(photo(), "avif")
    mdat = clean.index(b"mdat") - 4
    (size,) = struct.unpack_from(">I", clean, mdat)
    result = stripped(clean[:mdat] + struct.pack(">I", size + len(SECRET)) + clean[mdat + 4 :] + SECRET, "avif")
    assert SECRET not in result
    assert frames(result) == frames(clean)


def test_an_avif_with_alpha_keeps_it() -> None:
    exif = Image.Exif()
    exif[0x010F] = SECRET.decode()
    data = saved(photo("RGBA"), "avif", exif=exif)
    result = stripped(data, "avif")
    assert SECRET not in result
    assert frames(result) == frames(data)


def test_an_avif_sequence_with_metadata_has_to_be_decoded() -> None:
    exif = Image.Exif()
    exif[0x010F] = SECRET.decode()
    pictures = [photo(), photo().rotate(90)]
    data = saved(pictures[0], "avif", save_all=True, append_images=pictures[1:], exif=exif)
    assert SECRET in data
    with pytest.raises(Uncuttable):
        strip_metadata(data, "image/avif")


def test_an_avif_cannot_name_billions_of_extents() -> None:
    data = sample("avif", metadata=True)
    place = data.index(b"iloc")
    (size,) = struct.unpack_from(">I", data, place - 4)
    head = b"\0\0\0\0" + b"\0\0" + b"\0\2"  # version 0, every field of zero bytes, two items
    table = head + b"".join(struct.pack(">HHH", item, 0, 65_535) for item in range(2))
    hostile = data[: place + 4] + table.ljust(size - 8, b"\0") + data[place - 4 + size :]
    assert len(hostile) == len(data)
    with pytest.raises(InvalidImage, match="too many pieces"):
        strip_metadata(hostile, "image/avif")


def test_avif_sizes_are_known_before_decoding() -> None:
    size = avif.largest(saved(photo(size=(37, 21)), "avif"))
    assert size == (37, 21)


def test_stripping_does_not_change_what_inspect_says() -> None:
    from app.media.blob import MemoryBlob

    for format in FORMATS:
        data = sample(format, metadata=True)
        before, after = (
            inspect(MemoryBlob(part), "", index=0, param="image") for part in (data, stripped(data, format))
        )
        assert (before.width, before.height, before.mode, before.alpha, before.frames) == (
            after.width,
            after.height,
            after.mode,
            after.alpha,
            after.frames,
        )


def test_of_what_a_png_may_say_once_the_first_counts() -> None:
    plain = saved(photo(), "png")
    first, second = png_chunk(b"gAMA", (45455).to_bytes(4)), png_chunk(b"gAMA", (100000).to_bytes(4))
    data = plain[:33] + first + second * 5000 + plain[33:]
    assert strip_metadata(data, "image/png") == plain[:33] + first + plain[33:]
