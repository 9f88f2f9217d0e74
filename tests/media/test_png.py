"""Our PNG writer is lossless, whatever the size."""

from __future__ import annotations

import sys
import zlib
from io import BytesIO

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw

from app.media.png import write_png
from tests.media.pictures import photo

MODES = ("L", "LA", "RGB", "RGBA")


def read(data: bytes) -> Image.Image:
    image = Image.open(BytesIO(data), formats=("PNG",))
    image.load()
    return image


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("size", [(1, 1), (1, 37), (37, 1), (17, 23), (256, 256), (1000, 1500), (3, 5000)])
def test_lossless(mode: str, size: tuple[int, int]) -> None:
    source = photo(mode, size)
    image = read(write_png(source))
    assert (image.mode, image.size, image.tobytes()) == (mode, size, source.tobytes())


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(MODES), st.integers(1, 40), st.integers(1, 40), st.integers(0, 3), st.randoms())
def test_lossless_on_noise(mode: str, width: int, height: int, level: int, random) -> None:  # type: ignore[no-untyped-def]
    pixels = random.randbytes(width * height * len(mode))
    source = Image.frombytes(mode, (width, height), pixels)
    assert read(write_png(source, level=level)).tobytes() == pixels


def test_a_row_longer_than_a_stripe() -> None:
    source = Image.effect_noise((1_100_000, 2), 50)
    assert read(write_png(source)).tobytes() == source.tobytes()


def test_each_stripe_has_the_filter_that_suits_it() -> None:
    """Text under filter Up is a tenth larger than as it is; a photograph under none is half as large again."""
    page = Image.new("L", (1024, 3072), 255)
    draw = ImageDraw.Draw(page)
    for row in range(96):
        draw.text((20 + row % 7, 4 + row * 32), "the quick brown fox jumps over the lazy dog " * 3, fill=0)
    page.paste(photo("L", (1024, 1024)), (0, 2048))
    data = write_png(page)
    assert read(data).tobytes() == page.tobytes()
    text, picture = zlib.decompress(_body(data))[0], zlib.decompress(_body(data))[-1025]
    assert (text, picture) == (0, 2)


def _body(data: bytes) -> bytes:
    """What the IDAT chunks hold."""
    body, at = b"", 8
    while at < len(data):
        size = int.from_bytes(data[at : at + 4])
        body += data[at + 8 : at + 8 + size] if data[at + 4 : at + 8] == b"IDAT" else b""
        at += 12 + size
    return body


def test_nothing_but_pixels_is_written() -> None:
    source = photo()
    source.info = {"icc_profile": b"x", "comment": b"y", "dpi": (300, 300)}
    data = write_png(source)
    assert [kind for kind in (b"iCCP", b"tEXt", b"pHYs", b"eXIf") if kind in data] == []


def test_other_modes_are_the_callers_affair() -> None:
    with pytest.raises(ValueError, match="CMYK"):
        write_png(photo("CMYK"))


@pytest.mark.parametrize("mode", MODES)
def test_without_isal_pillow_writes(mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "isal", None)
    assert read(write_png(photo(mode))).tobytes() == photo(mode).tobytes()
