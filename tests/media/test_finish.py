"""Results as clients get them."""

from __future__ import annotations

import pytest
from PIL import Image

from app.errors import ImageTooLarge, InvalidImage, InvalidValue
from app.media.blob import MemoryBlob
from app.media.decode import decode
from app.media.finish import BadPicture, Finished, begin_finishing, check_delivery, finish
from app.media.pixels import Encode, Pixels
from app.media.sniff import MAX_PIXELS, inspect
from app.media.strip import strip_metadata
from app.types import Delivery, ImageFormat, MaskStep
from providers.base import Media
from tests.media.pictures import FORMATS, SECRET, photo, psnr, sample, saved


def media(image: Image.Image, param: str = "image") -> Media:
    return inspect(MemoryBlob(saved(image, "png")), "", index=0, param=param)


def finished(data: bytes, **delivery: object) -> Finished:
    result = finish(MemoryBlob(data), Delivery(**delivery), 0, max_pixels=MAX_PIXELS)  # type: ignore[arg-type]
    assert decode(result.blob.read()).size == (result.width, result.height)
    assert SECRET not in result.blob.read()
    return result


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("wanted", [None, "same"])
def test_nothing_owed_is_nothing_touched(format: ImageFormat, wanted: str | None) -> None:
    data = strip_metadata(sample(format), f"image/{format}")
    result = finished(data, format=format if wanted else None, exact=(64, 48))
    assert result.blob.read() is data
    assert (result.format, result.width, result.height) == (format, 64, 48)


@pytest.mark.parametrize("format", FORMATS)
def test_metadata_is_cut_without_decoding(format: ImageFormat) -> None:
    data = sample(format, metadata=True)
    result = finished(data)
    assert len(result.blob.read()) < len(data) or format == "avif"  # where it is blanked in place
    assert result.blob.read() != data
    assert decode(result.blob.read()).tobytes() == decode(data).tobytes()


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("wanted", FORMATS)
def test_formats(format: ImageFormat, wanted: ImageFormat) -> None:
    data = sample(format)
    result = finished(data, format=wanted, quality=80)
    assert result.format == wanted
    assert (result.blob.read() == data) == (format == wanted)


def test_the_true_format_counts_not_the_claimed_one() -> None:
    assert finished(sample("jpeg"), asked_format="png").format == "jpeg"


def test_quality_is_used() -> None:
    small, large = (finished(saved(photo(size=(300, 200)), "png"), format="jpeg", quality=q) for q in (10, 95))
    assert len(small.blob.read()) < len(large.blob.read()) / 3


@pytest.mark.parametrize("exact", [(1, 1), (63, 48), (100, 100), (37, 411)])
@pytest.mark.parametrize("wanted", [None, "webp"])
def test_exact_sizes(exact: tuple[int, int], wanted: ImageFormat | None) -> None:
    result = finished(sample("png"), exact=exact, format=wanted)
    assert ((result.width, result.height), result.format) == (exact, wanted or "png")


def test_a_turned_result_is_made_upright() -> None:
    result = finished(sample("jpeg", orientation=6))
    assert (result.width, result.height, result.format) == (48, 64, "jpeg")


def test_a_mask_is_emulated_at_the_originals_size() -> None:
    original = photo(size=(100, 75))
    mask = Image.new("RGBA", (100, 75), (0, 0, 0, 255))
    mask.paste((0, 0, 0, 0), (0, 0, 50, 75))
    step = MaskStep(media(original), media(mask, "mask"))
    edit = Image.new("RGB", (112, 80), (1, 2, 3))
    result = finished(saved(edit, "png"), mask=step)
    image = decode(result.blob.read())
    assert image.size == (100, 75)
    assert image.crop((50, 0, 100, 75)).tobytes() == original.crop((50, 0, 100, 75)).tobytes()
    assert image.crop((0, 0, 50, 75)).getcolors() == [(50 * 75, (1, 2, 3))]
    again = finished(saved(edit, "png"), mask=step, exact=(64, 48), format="webp")
    assert (again.width, again.height, again.format) == (64, 48, "webp")


def test_an_original_is_turned_before_the_mask_is_laid_on() -> None:
    data = sample("jpeg", orientation=6)
    original = inspect(MemoryBlob(data), "", index=0, param="image")
    mask = media(Image.new("L", (48, 64), 0), "mask")
    result = finished(saved(Image.new("RGB", (48, 64)), "png"), mask=MaskStep(original, mask))
    assert psnr(decode(result.blob.read()), decode(data, upright=True)) > 90


def test_a_mask_of_another_size_is_the_callers_mistake() -> None:
    step = MaskStep(media(photo()), media(Image.new("L", (10, 10)), "mask"))
    with pytest.raises(InvalidValue, match="10x10") as caught:
        finished(sample("png"), mask=step)
    assert caught.value.param == "mask"


def test_a_broken_original_is_the_callers_mistake() -> None:
    broken = Media(MemoryBlob(sample("png")[:200]), "image/png", 64, 48, "")
    with pytest.raises(InvalidImage) as caught:
        finished(sample("png"), mask=MaskStep(broken, media(Image.new("L", (64, 48)), "mask")))
    assert caught.value.param == "image"


@pytest.mark.parametrize(
    ("data", "found"),
    [
        (b"", "is empty"),
        (b"<html>Bad gateway</html>", "is an HTML page"),
        (b'{"detail": "expired"}', "is JSON"),
        (b"\0\0\0\x18ftypmp42", "is a video"),
        (b"\x89PNG\r\n\x1a\n", "is cut off"),
        (b"\xff\xd8\xff\xe0", "is cut off"),
    ],
)
def test_what_is_no_picture_is_the_providers_fault(data: bytes, found: str) -> None:
    with pytest.raises(BadPicture, match=f"^The provider's picture 3 {found}") as caught:
        finish(MemoryBlob(data), Delivery(), 2, max_pixels=MAX_PIXELS)
    assert caught.value.message == str(caught.value)


@pytest.mark.parametrize("format", FORMATS)
def test_results_that_are_cut_off_are_noticed(format: ImageFormat) -> None:
    data = strip_metadata(sample(format), f"image/{format}")
    for end in range(1, len(data) - 1, 11):
        for delivery in (Delivery(), Delivery(exact=(10, 10))):
            with pytest.raises(BadPicture):
                finish(MemoryBlob(data[:end]), delivery, 0, max_pixels=MAX_PIXELS)


def test_a_result_beyond_the_limit_is_the_providers_fault() -> None:
    with pytest.raises(BadPicture, match="64x48"):
        finish(MemoryBlob(sample("png")), Delivery(), 0, max_pixels=1000)


def test_a_format_that_cannot_hold_it_is_the_callers_mistake() -> None:
    with pytest.raises(InvalidValue, match="WEBP") as caught:
        finish(MemoryBlob(saved(Image.new("L", (17_000, 1)), "png")), Delivery(format="webp"), 0, max_pixels=MAX_PIXELS)
    assert caught.value.param == "output_format"


# ---- what cannot be made is said before anything is bought


def of_size(width: int, height: int) -> MaskStep:
    one = Media(MemoryBlob(b""), "image/png", width, height, "")
    return MaskStep(one, one, "picture")


@pytest.mark.parametrize(
    ("format", "size"),
    [
        ("webp", (16_384, 100)),
        ("jpeg", (65_501, 10)),
        ("gif", (65_536, 10)),
        ("avif", (32_769, 10)),
        ("avif", (7000, 7000)),
    ],
)
def test_a_format_that_cannot_hold_the_picture_is_refused_by_its_word(
    format: ImageFormat, size: tuple[int, int]
) -> None:
    for owed in ({"mask": of_size(*size)}, {"exact": size, "asked_format": "png"}):
        with pytest.raises(InvalidValue, match=f"{size[0]}x{size[1]}.*{format.upper()}.*Use png") as caught:
            check_delivery(Delivery(format=format, **owed), format_word="fmt")  # type: ignore[arg-type]
        assert caught.value.param == "fmt"
        check_delivery(Delivery(format="png", **owed))  # type: ignore[arg-type]
        check_delivery(Delivery(**owed))  # type: ignore[arg-type]


def test_what_no_format_can_hold_in_memory_is_refused_by_what_makes_it_large() -> None:
    with pytest.raises(ImageTooLarge) as caught:
        check_delivery(Delivery(format="png", exact=(20_000, 20_000)), size_word="width")
    assert caught.value.param == "width"
    with pytest.raises(ImageTooLarge) as caught:
        check_delivery(Delivery(mask=of_size(20_000, 20_000)))
    assert caught.value.param == "picture"


def test_what_the_provider_makes_by_itself_is_not_refused() -> None:
    check_delivery(Delivery(format="webp", asked_format="webp", exact=(20_000, 100)))
    check_delivery(Delivery(format="avif"))


@pytest.mark.parametrize("size", [(16_384, 20), (7000, 7000)])
def test_a_format_that_nobody_asked_for_gives_way_to_one_that_holds_the_picture(size: tuple[int, int]) -> None:
    edit = MemoryBlob(saved(photo(size=(60, 40)), "avif" if size == (7000, 7000) else "webp"))
    begun = begin_finishing(edit, Delivery(mask=of_size(*size)))
    assert isinstance(begun, Pixels)
    assert begun.job.steps[-1] == Encode("png")
