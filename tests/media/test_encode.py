"""Every format, every mode, every quality."""

from __future__ import annotations

from io import BytesIO

import pytest
from PIL import Image

from app.errors import InvalidValue
from app.media.decode import decode
from app.media.encode import encode
from app.media.strip import strip_metadata
from app.types import ImageFormat
from tests.media.pictures import FORMATS, photo, psnr

MODES = ("L", "LA", "RGB", "RGBA")
SIZE = (120, 90)


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("quality", [None, 0, 1, 50, 92, 93, 100])
def test_what_is_written_can_be_read(format: ImageFormat, mode: str, quality: int | None) -> None:
    source = photo(mode, SIZE)
    data = encode(source, format, quality)
    image = decode(data)
    assert image.size == SIZE
    least = 14 if quality in (0, 1) else 24
    if mode in ("LA", "RGBA") and format != "jpeg":
        assert "A" in image.mode
        shown = [Image.new("RGB", SIZE, "white") for _ in range(2)]
        for ground, layer in zip(shown, (source, image), strict=True):
            ground.paste(layer.convert("RGB"), mask=layer.getchannel("A"))
        assert psnr(*shown) > (10 if format == "gif" else least)  # gif: clear or opaque, nothing between
    else:
        flat = source
        if mode in ("LA", "RGBA"):
            flat = Image.new("RGB", SIZE, "white")
            flat.paste(source.convert("RGB"), mask=source.getchannel("A"))
        assert psnr(image.convert("RGB"), flat.convert("RGB")) > least


@pytest.mark.parametrize("format", ["jpeg", "webp", "avif"])
def test_better_quality_is_larger_and_nearer(format: ImageFormat) -> None:
    source = photo(size=SIZE)
    files = [encode(source, format, quality) for quality in (5, 40, 75, 95)]
    assert sorted(files, key=len) == files
    nearness = [psnr(decode(data), source) for data in files]
    assert sorted(nearness) == nearness


def test_webp_can_be_lossless() -> None:
    source = photo("RGBA", SIZE)
    assert decode(encode(source, "webp", lossless=True)).tobytes() == source.tobytes()


@pytest.mark.parametrize("format", FORMATS)
def test_nothing_but_pixels_is_written(format: ImageFormat) -> None:
    source = photo(size=SIZE)
    source.info = {
        "icc_profile": b"a" * 200,
        "exif": b"Exif\0\0abc",
        "comment": b"secret",
        "xmp": b"<x/>",
        "dpi": (9, 9),
    }
    data = encode(source, format)
    assert b"secret" not in data
    assert b"Exif" not in data
    assert strip_metadata(data, f"image/{format}") is data, "there is something to cut"
    with Image.open(BytesIO(data)) as image:
        assert "icc_profile" not in image.info
    assert source.info  # and the caller's picture is as it was


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("size", [(1, 1), (1, 7), (7, 1), (3, 5)])
def test_small_pictures(format: ImageFormat, size: tuple[int, int]) -> None:
    assert decode(encode(photo("RGBA", size), format)).size == size


@pytest.mark.parametrize(("format", "side"), [("webp", 16_383), ("jpeg", 65_500), ("gif", 65_535), ("avif", 32_768)])
def test_what_a_format_cannot_hold_is_refused(format: ImageFormat, side: int) -> None:
    with pytest.raises(InvalidValue, match=rf"{side:,}") as caught:
        encode(Image.new("L", (side + 1, 1)), format)
    assert caught.value.param == "output_format"


@pytest.mark.parametrize(("format", "side"), [("webp", 16_383), ("jpeg", 32_768), ("gif", 32_768), ("avif", 32_768)])
def test_the_largest_sides_can_be_written(format: ImageFormat, side: int) -> None:
    assert decode(encode(Image.new("L", (side, 3), 200), format)).size == (side, 3)


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L"])
def test_few_colours_survive_gif_exactly(mode: str) -> None:
    source = Image.new("RGB", (64, 64))
    source.putdata([(x * 4, y * 4, (x ^ y) & 4) for y in range(0, 64, 16) for _ in range(16) for x in range(64)][:4096])
    source = source.quantize(200, Image.Quantize.MEDIANCUT).convert(mode)
    assert decode(encode(source, "gif")).convert("RGB").tobytes() == source.convert("RGB").tobytes()


def test_gif_transparency_is_clear_or_opaque() -> None:
    source = photo("RGBA", SIZE)
    image = decode(encode(source, "gif"))
    assert set(image.getchannel("A").tobytes()) == {0, 255}
    pairs = zip(source.getchannel("A").tobytes(), image.getchannel("A").tobytes(), strict=True)
    assert all((before >= 128) == (after == 255) for before, after in pairs)


def test_gif_keeps_rare_colours() -> None:
    source = photo(size=(300, 300))
    source.paste((255, 140, 0), (40, 40, 52, 52))
    red, green, blue = decode(encode(source, "gif")).getpixel((46, 46))  # type: ignore[misc]
    assert abs(red - 255) < 25
    assert abs(green - 140) < 25
    assert blue < 40
