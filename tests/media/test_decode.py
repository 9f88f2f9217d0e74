"""Everything becomes 8-bit L, LA, RGB or RGBA in sRGB, or is refused."""

from __future__ import annotations

import struct
import zlib
from io import BytesIO

import pytest
from PIL import Image, ImageCms, ImageOps

from app.errors import ImageTooLarge, InvalidImage, InvalidRequest, UnsupportedImage
from app.media.decode import decode
from tests.media.pictures import FORMATS, animated, photo, png_chunk, psnr, raw_png, sample, saved

GREYS = range(0, 65536, 257)


def grey16(values: list[int], extra: tuple[tuple[bytes, bytes], ...] = ()) -> bytes:
    return raw_png((len(values), 1), 16, 0, [struct.pack(f">{len(values)}H", *values)], extra)


@pytest.mark.parametrize(
    ("format", "mode", "becomes"),
    [
        ("png", "1", "L"),
        ("png", "L", "L"),
        ("png", "LA", "LA"),
        ("png", "P", "RGB"),
        ("png", "RGB", "RGB"),
        ("png", "RGBA", "RGBA"),
        ("png", "I;16", "L"),
        ("jpeg", "L", "L"),
        ("jpeg", "RGB", "RGB"),
        ("jpeg", "CMYK", "RGB"),
        ("webp", "RGB", "RGB"),
        ("webp", "RGBA", "RGBA"),
        ("gif", "RGB", "RGB"),
        ("gif", "RGBA", "RGBA"),
        ("avif", "RGB", "RGB"),
        ("avif", "RGBA", "RGBA"),
    ],
)
def test_modes(format: str, mode: str, becomes: str) -> None:
    source = photo(mode)
    image = decode(saved(source, format, **({"lossless": True, "exact": True} if format == "webp" else {})))
    assert (image.mode, image.size, image.info) == (becomes, source.size, {})
    if format in ("png", "webp") and mode != "I;16":
        assert image.tobytes() == source.convert(becomes).tobytes()
    elif becomes == "RGB":
        assert psnr(image, source.convert("RGB")) > 20


def test_sixteen_bits_are_scaled_not_clipped() -> None:
    assert list(decode(grey16(list(GREYS))).tobytes()) == list(range(256))
    assert list(decode(grey16([0, 128, 129, 40000, 65535])).tobytes()) == [0, 0, 1, 156, 255]


def test_sixteen_bit_colour() -> None:
    row = struct.pack(">6H", 0, 0x8000, 0xFFFF, 0x1234, 0xABCD, 0x00FF)
    assert list(decode(raw_png((2, 1), 16, 2, [row])).tobytes()) == [0, 0x80, 0xFF, 0x12, 0xAB, 0]
    row = struct.pack(">4H", 0x1200, 0x3400, 0x5600, 0x7800)
    assert decode(raw_png((1, 1), 16, 6, [row])).tobytes() == b"\x12\x34\x56\x78"
    assert decode(raw_png((1, 1), 16, 4, [row[:4]])).convert("LA").tobytes() == b"\x12\x34"


@pytest.mark.parametrize(
    ("depth", "packed", "key", "greys", "alphas"),
    [
        (1, b"\xa0", 1, [255, 0, 255], [0, 255, 0]),
        (1, b"\xa0", 0, [255, 0, 255], [255, 0, 255]),
        (2, b"\x1b", 2, [0, 85, 170, 255], [255, 255, 0, 255]),
        (4, b"\x5f\x00", 5, [85, 255, 0], [0, 255, 255]),
        (8, b"\x07\x08", 7, [7, 8], [0, 255]),
        (16, b"\x12\x34\x12\x35", 0x1234, [18, 18], [0, 255]),
    ],
)
def test_a_transparent_grey_of_any_depth(
    depth: int, packed: bytes, key: int, greys: list[int], alphas: list[int]
) -> None:
    image = decode(raw_png((len(greys), 1), depth, 0, [packed], [(b"tRNS", struct.pack(">H", key))]))
    assert image.mode == "LA"
    assert list(image.getchannel("L").tobytes()) == greys
    assert list(image.getchannel("A").tobytes()) == alphas


def test_a_transparent_colour() -> None:
    key = struct.pack(">3H", 1, 2, 3)
    image = decode(raw_png((2, 1), 8, 2, [b"\1\2\3\4\5\6"], [(b"tRNS", key)]))
    assert image.tobytes() == b"\1\2\3\0\4\5\6\xff"
    row = struct.pack(">6H", 0x0100, 0x0200, 0x0300, 0x0400, 0x0500, 0x0600)
    image = decode(raw_png((2, 1), 16, 2, [row], [(b"tRNS", row[:6])]))
    assert image.tobytes() == b"\1\2\3\0\4\5\6\xff"


def test_palettes_with_alpha() -> None:
    extra = [(b"PLTE", bytes(range(9))), (b"tRNS", b"\x00\x80")]
    image = decode(raw_png((3, 1), 8, 3, [b"\0\1\2"], extra))
    assert image.tobytes() == b"\0\1\2\x00\3\4\5\x80\6\7\x08\xff"


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        (b"iCCP", b"name\0\0" + zlib.compress(bytes(3_000_000))),
        (b"iCCP", b"name\0\0garbage"),
        (b"iCCP", b"name\0\1" + zlib.compress(b"x")),
        (b"iCCP", b""),
        (b"gAMA", b""),
        (b"sRGB", b""),
        (b"cHRM", b"\0"),
        (b"pHYs", b"\0"),
        (b"acTL", b"\0\0\0\1\0\0\0\0"),
        (b"fcTL", b"\0"),
    ],
)
def test_odd_chunks_that_decoders_step_over_are_no_obstacle(kind: bytes, body: bytes) -> None:
    row = b"\1\2\3\4\5\6"
    assert decode(raw_png((2, 1), 8, 2, [row], [(kind, body)])).tobytes() == row


def test_a_wrong_checksum_costs_only_its_chunk() -> None:
    data = raw_png((2, 1), 8, 2, [b"\1\2\3\4\5\6"], [(b"tRNS", b"\0\1\0\2\0\3")])
    place = data.index(b"tRNS") + 10
    assert decode(data).mode == "RGBA"
    assert decode(data[:place] + b"\0\0\0\0" + data[place + 4 :]).mode == "RGB"


@pytest.mark.parametrize("mode", ["L", "LA", "RGB", "RGBA", "P"])
def test_another_gamma_is_applied(mode: str) -> None:
    source = photo(mode)
    plain = saved(source, "png")
    for value, exponent in ((100_000, 0.45455), (55_556, 0.45455 / 0.55556), (45_455, 1.0)):
        data = plain[:33] + png_chunk(b"gAMA", struct.pack(">I", value)) + plain[33:]
        curve = [round(255 * (level / 255) ** exponent) for level in range(256)]
        pixels, expected = decode(data).convert("RGBA"), source.convert("RGBA")
        lit = Image.merge("RGBA", [*(band.point(curve) for band in expected.split()[:3]), expected.getchannel("A")])
        assert pixels.tobytes() == lit.tobytes()
        named = plain[:33] + png_chunk(b"sRGB", b"\0") + data[33:]
        assert decode(named).convert("RGBA").tobytes() == expected.tobytes()


def test_cmyk_is_not_inverted() -> None:
    image = decode(saved(Image.new("CMYK", (16, 16), (0, 255, 255, 0)), "jpeg"))
    red, green, blue = image.getpixel((8, 8))  # type: ignore[misc]
    assert red > 200
    assert green < 60
    assert blue < 60


@pytest.mark.parametrize("format", ["png", "jpeg", "webp"])
@pytest.mark.parametrize("value", range(1, 9))
def test_orientation_is_applied_when_asked_for(format: str, value: int) -> None:
    data = sample(format, orientation=value)
    with Image.open(BytesIO(data)) as image:
        expected = ImageOps.exif_transpose(image).convert("RGB")
        stored = image.convert("RGB")
    upright = decode(data, upright=True)
    assert (upright.size, upright.tobytes()) == (expected.size, expected.tobytes())
    assert decode(data).tobytes() == stored.tobytes()


@pytest.mark.parametrize("value", range(1, 9))
def test_an_avifs_turn_is_a_property(value: int) -> None:
    data = sample("avif", orientation=value)
    with Image.open(BytesIO(data)) as image:
        expected = ImageOps.exif_transpose(image)
    upright = decode(data, upright=True)
    assert (upright.size, upright.tobytes()) == (expected.size, expected.tobytes())


def test_the_first_frame_counts() -> None:
    for format in ("gif", "png", "webp", "avif"):
        assert psnr(decode(animated(format)).convert("RGB"), photo(size=(40, 30))) > 20


def swapped_profile() -> bytes:
    """A profile under which red is green: any use of it shows."""
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    profile = profile.replace(b"rXYZ", b"tmp!").replace(b"gXYZ", b"rXYZ").replace(b"tmp!", b"gXYZ")
    return profile.replace("sRGB".encode("utf-16-be"), "swap".encode("utf-16-be")).replace(b"sRGB", b"swap")


@pytest.mark.parametrize("format", ["png", "jpeg", "webp"])
def test_profiles_are_applied(format: str) -> None:
    options = {"icc_profile": swapped_profile()}
    image = decode(saved(Image.new("RGB", (16, 16), (255, 0, 0)), format, **options))
    red, green, _ = image.getpixel((8, 8))  # type: ignore[misc]
    assert (red < 90, green > 200) == (True, True)


def test_profiles_leave_alpha_alone() -> None:
    image = decode(saved(photo("RGBA"), "png", icc_profile=swapped_profile()))
    assert image.mode == "RGBA"
    assert image.getchannel("A").tobytes() == photo("RGBA").getchannel("A").tobytes()


@pytest.mark.parametrize("mode", ["L", "LA", "RGB", "RGBA", "CMYK"])
@pytest.mark.parametrize(
    "profile",
    [
        b"no profile",
        b"\0" * 200,
        swapped_profile()[:200],
        ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes(),
        ImageCms.ImageCmsProfile(ImageCms.createProfile("XYZ")).tobytes(),
    ],
)
def test_profiles_of_no_use_are_ignored(mode: str, profile: bytes) -> None:
    format = "jpeg" if mode == "CMYK" else "png"
    image = decode(saved(photo(mode), format, icc_profile=profile))
    assert image.tobytes() == decode(saved(photo(mode), format)).tobytes()


@pytest.mark.parametrize("format", FORMATS)
def test_cut_off_pictures_are_refused(format: str) -> None:
    data = sample(format, size=(30, 20))
    for end in range(0, len(data) - 2, 7):
        with pytest.raises(InvalidRequest) as caught:
            decode(data[:end], name="The mask", param="mask")
        assert isinstance(caught.value, (InvalidImage, UnsupportedImage))
        assert caught.value.message.startswith("The mask ")
        assert caught.value.param == "mask"


@pytest.mark.parametrize("format", FORMATS)
def test_limits_hold(format: str) -> None:
    with pytest.raises(ImageTooLarge):
        decode(sample(format), max_pixels=1000)


def test_other_kinds_are_refused() -> None:
    with pytest.raises(UnsupportedImage, match="TIFF"):
        decode(saved(photo(), "tiff"))
