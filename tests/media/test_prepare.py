"""Input pictures as providers get them."""

from __future__ import annotations

from io import BytesIO
from typing import Literal

import pytest
from PIL import Image, ImageOps

from app.errors import InvalidImage
from app.media.blob import MemoryBlob
from app.media.decode import decode
from app.media.prepare import prepare
from app.media.sniff import inspect
from app.media.strip import strip_metadata
from app.types import ImageFormat, InputStep
from providers.base import Media
from tests.media.pictures import FORMATS, SECRET, animated, photo, psnr, sample, saved


def media(data: bytes) -> Media:
    return inspect(MemoryBlob(data), "", index=0, param="image")


def checked(result: Media) -> Media:
    """Whatever was done, the facts are those of the bytes, and no secret is in them."""
    data = result.blob.read()
    again = media(data)
    for fact in ("mime", "width", "height", "orientation", "alpha", "mode", "frames", "size"):
        assert getattr(result, fact) == getattr(again, fact), fact
    assert SECRET not in data
    return result


@pytest.mark.parametrize("format", FORMATS)
def test_nothing_to_do_is_the_same_media(format: str) -> None:
    source = media(strip_metadata(sample(format), f"image/{format}"))
    assert prepare(InputStep(source)) is source


@pytest.mark.parametrize("format", FORMATS)
def test_metadata_is_cut_without_decoding(format: str) -> None:
    source = media(sample(format, metadata=True))
    result = checked(prepare(InputStep(source)))
    assert result.mime == source.mime
    assert decode(result.blob.read()).tobytes() == decode(source.blob.read()).tobytes()


@pytest.mark.parametrize("format", ["png", "jpeg", "webp", "avif"])
@pytest.mark.parametrize("upright", [True, False])
@pytest.mark.parametrize("value", [2, 3, 6, 7])
def test_a_turned_picture_is_always_made_upright(format: str, upright: bool, value: int) -> None:
    source = media(sample(format, metadata=True, orientation=value))
    result = checked(prepare(InputStep(source, upright=upright)))
    assert (result.mime, result.width, result.height) == (source.mime, source.width, source.height)
    assert result.orientation == 1
    with Image.open(BytesIO(source.blob.read())) as image:
        expected = ImageOps.exif_transpose(image).convert("RGB")
    assert psnr(decode(result.blob.read()).convert("RGB"), expected) > (30 if format != "png" else 98)


def test_a_lossless_webp_stays_lossless() -> None:
    exif = Image.Exif()
    exif[0x0112] = 3
    source = media(saved(photo("RGBA"), "webp", lossless=True, exact=True, exif=exif))
    result = checked(prepare(InputStep(source)))
    assert decode(result.blob.read()).tobytes() == photo("RGBA").rotate(180).tobytes()


@pytest.mark.parametrize("to", FORMATS)
@pytest.mark.parametrize("format", FORMATS)
def test_conversion(format: str, to: ImageFormat) -> None:
    result = checked(prepare(InputStep(media(sample(format, metadata=True)), to_format=to)))
    assert result.mime == f"image/{to}"
    least = 98 if to == "png" else 24
    assert psnr(decode(result.blob.read()).convert("RGB"), decode(sample(format)).convert("RGB")) > least


def test_jpegs_are_written_at_full_colour_resolution() -> None:
    result = prepare(InputStep(media(sample("png")), to_format="jpeg"))
    with Image.open(BytesIO(result.blob.read())) as image:
        assert image.layer[0][1:3] == (1, 1)  # type: ignore[attr-defined]


@pytest.mark.parametrize("format", ["png", "webp", "avif", "gif"])
def test_flattening_puts_it_on_white(format: str) -> None:
    source = photo("RGBA")
    source.paste((0, 0, 0, 0), (0, 0, 20, 20))
    options = {"lossless": True, "exact": True} if format == "webp" else {}
    result = checked(prepare(InputStep(media(saved(source, format, **options)), flatten=True)))
    assert not result.alpha
    assert min(decode(result.blob.read()).convert("RGB").getpixel((5, 5))) > 245  # type: ignore[arg-type,type-var]


@pytest.mark.parametrize("format", ["gif", "webp", "png", "avif"])
def test_an_animation_becomes_its_first_frame(format: str) -> None:
    result = checked(prepare(InputStep(media(animated(format)), to_format="png")))
    assert result.frames == 1
    assert psnr(decode(result.blob.read()).convert("RGB"), photo(size=(40, 30))) > 20


@pytest.mark.parametrize("mode", ["1", "P", "I;16", "LA", "L"])
def test_odd_layouts_become_plain(mode: str) -> None:
    result = checked(prepare(InputStep(media(saved(photo(mode), "png")), to_format="png")))
    assert result.mode in ("L", "LA", "RGB", "RGBA")


def test_cmyk_becomes_rgb() -> None:
    result = checked(prepare(InputStep(media(saved(photo("CMYK"), "jpeg")), to_format="jpeg")))
    assert result.mode == "RGB"


def test_an_avif_that_cannot_be_cut_becomes_a_png() -> None:
    exif = Image.Exif()
    exif[0x010F] = SECRET.decode()
    pictures = [photo(), photo().rotate(90)]
    source = media(saved(pictures[0], "avif", save_all=True, append_images=pictures[1:], exif=exif))
    result = checked(prepare(InputStep(source)))
    assert (result.mime, result.frames) == ("image/png", 1)


def test_a_url_is_handed_on() -> None:
    source = Media(MemoryBlob(b""), "image/png", 10, 10, "", url="https://example.com/a.png")
    assert prepare(InputStep(source, hand_on=True)) is source


def test_a_url_that_is_not_handed_on_is_forgotten() -> None:
    source = Media(MemoryBlob(sample("png")), "image/png", 64, 48, "", url="https://example.com/a.png")
    assert prepare(InputStep(source)).url is None


def test_a_picture_that_breaks_off_is_noticed_when_it_is_decoded() -> None:
    data = sample("png")
    place = data.index(b"IDAT") + 30
    source = media(data[:place] + bytes(20) + data[place + 20 :])  # the header is fine
    with pytest.raises(InvalidImage):
        prepare(InputStep(source, to_format="jpeg"))


@pytest.mark.parametrize("read", ["white", "black", "both"])
@pytest.mark.parametrize("meant", ["clear", "white", "white, alpha channel opaque"])
def test_a_mask_says_the_same_however_it_was_meant(read: Literal["white", "black", "both"], meant: str) -> None:
    """Edited: the left half. By alpha, or by white where there is no transparency."""
    half = Image.new("L", (64, 48), 0)
    half.paste(255, (0, 0, 32, 48))
    colours = Image.new("RGB", half.size, (90, 30, 200))
    if meant == "clear":
        colours.putalpha(half.point(lambda value: 255 - value))
        mask = colours
    else:
        mask = half.convert("RGB" if meant == "white" else "RGBA")
    result = checked(prepare(InputStep(media(saved(mask, "png")), "png", mask=read)))
    assert result.mime == "image/png"
    with Image.open(BytesIO(result.blob.read())) as image:
        colours = half.point(lambda value: 255 - value) if read == "black" else half
        assert image.convert("RGB").convert("L").tobytes() == colours.tobytes(), "read by its colours"
        if read != "both":
            assert image.mode == "L"
        else:
            assert image.getchannel("A").tobytes() == half.point(lambda value: 255 - value).tobytes(), "by its alpha"
