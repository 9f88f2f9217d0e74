"""Exact sizes, and edits through masks."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from app.errors import InvalidValue
from app.media import fit
from app.media.fit import composite, edit_weight, fit_exact
from tests.media.pictures import photo, psnr

RED, BLUE = (255, 0, 0), (0, 0, 255)


@settings(max_examples=60, deadline=None)
@given(
    st.tuples(st.integers(1, 300), st.integers(1, 300)),
    st.tuples(st.integers(1, 300), st.integers(1, 300)),
    st.sampled_from(["L", "LA", "RGB", "RGBA"]),
)
def test_the_size_is_exact(source: tuple[int, int], target: tuple[int, int], mode: str) -> None:
    image = fit_exact(Image.new(mode, source, 1), target)
    assert (image.size, image.mode) == (target, mode)


def test_the_right_size_is_not_touched() -> None:
    image = photo()
    assert fit_exact(image, image.size) is image


def test_the_middle_stays() -> None:
    image = Image.new("RGB", (300, 100), BLUE)
    image.paste(RED, (100, 0, 200, 100))
    assert fit_exact(image, (100, 100)).getcolors() == [(10_000, RED)]
    tall = image.transpose(Image.Transpose.ROTATE_90)
    assert (
        min(fit_exact(tall, (50, 50)).getchannel("R").tobytes()) > 230
    )  # Lanczos lets a trace of blue in at the edges


@pytest.mark.parametrize("target", [(90, 60), (600, 400), (1500, 1000), (37, 25)])
def test_scaling_keeps_the_picture(target: tuple[int, int]) -> None:
    source = photo(size=(600, 400))
    assert psnr(fit_exact(source, target).resize((60, 40)), source.resize((60, 40))) > 28


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_clear_pixels_lend_no_colour(mode: str) -> None:
    image = Image.new("RGBA", (100, 100), (0, 0, 0, 0))  # black, but nobody sees it
    image.paste((255, 255, 255, 255), (50, 0, 100, 100))
    small = fit_exact(image.convert(mode), (33, 33)).convert("RGBA")
    colours = {pixel[:3] for _, pixel in small.getcolors(5000) or [] if pixel[3] > 20}  # type: ignore[index]
    assert all(min(colour) > 240 for colour in colours)


def masks() -> list[tuple[str, Image.Image]]:
    """The same meaning, edit the left half, in every way that a mask can be written."""
    clear = Image.new("L", (40, 20), 255)
    clear.paste(0, (0, 0, 20, 20))
    white = Image.new("L", (40, 20), 0)
    white.paste(255, (0, 0, 20, 20))
    opaque = white.convert("RGBA")  # a canvas export: opaque all over
    return [
        ("RGBA", Image.merge("RGBA", (white, clear, white, clear))),
        ("LA", Image.merge("LA", (clear, clear))),
        ("L", white),
        ("RGB", white.convert("RGB")),
        ("opaque RGBA", opaque),
        ("opaque LA", opaque.convert("LA")),
    ]


@pytest.mark.parametrize(("name", "mask"), masks(), ids=[name for name, _ in masks()])
def test_polarity(name: str, mask: Image.Image) -> None:
    result = composite(Image.new("RGB", (40, 20), RED), Image.new("RGB", (40, 20), BLUE), mask)
    assert result.getpixel((5, 10)) == RED
    assert result.getpixel((35, 10)) == BLUE
    assert result.mode == "RGB"


def test_partial_alpha_blends() -> None:
    mask = Image.new("RGBA", (10, 10), (0, 0, 0, 64))
    mask.putpixel((0, 0), (0, 0, 0, 255))
    result = composite(Image.new("RGB", (10, 10), RED), Image.new("RGB", (10, 10), BLUE), mask)
    assert result.getpixel((5, 5)) == (191, 0, 64)
    assert result.getpixel((0, 0)) == BLUE


def test_what_is_kept_is_kept_to_the_bit() -> None:
    original = photo(size=(200, 150))
    mask = Image.new("L", original.size, 0)
    mask.paste(255, (50, 50, 100, 100))
    result = composite(photo(size=(208, 160)).rotate(180), original, mask)
    assert result.size == original.size
    result.paste(original.crop((50, 50, 100, 100)), (50, 50))
    assert result.tobytes() == original.tobytes()


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_what_is_kept_of_a_transparent_original_is_kept_to_the_bit(mode: str) -> None:
    original = photo(mode, size=(200, 150))
    mask = Image.new("L", original.size, 0)
    mask.paste(255, (50, 50, 100, 100))
    result = composite(photo(size=original.size).rotate(180), original, mask)
    result.paste(original.convert("RGBA").crop((50, 50, 100, 100)), (50, 50))
    assert result.tobytes() == original.convert("RGBA").tobytes()


def test_a_slightly_other_shape_is_stretched_so_that_it_lies_in_place() -> None:
    original = photo(size=(200, 150))
    edit = original.resize((208, 160))
    result = composite(edit, original, Image.new("L", original.size, 255))
    assert psnr(result, original) > 34


def test_another_shape_is_cropped_not_squeezed() -> None:
    edit = Image.new("RGB", (100, 100), BLUE)
    edit.paste(RED, (25, 25, 75, 75))
    result = composite(edit, Image.new("RGB", (200, 100)), Image.new("L", (200, 100), 255))
    reds = sum(value > 128 for value in result.crop((0, 50, 200, 51)).getchannel("R").tobytes())
    assert reds in range(98, 102)  # 50 of 100 becomes 100 of 200: both ways scaled by two


@pytest.mark.parametrize(
    ("edit", "original"), [("RGBA", "RGB"), ("RGB", "RGBA"), ("LA", "L"), ("L", "LA"), ("L", "RGB")]
)
def test_modes_mix(edit: str, original: str) -> None:
    size = (30, 20)
    result = composite(photo(edit, size), photo(original, size), Image.new("L", size, 128))
    assert result.size == size
    assert result.mode == ("RGBA" if "A" in edit + original else "RGB")


def test_a_blend_with_nothing_keeps_the_colour() -> None:
    nothing = Image.new("RGBA", (8, 8), (0, 0, 0, 0))
    result = composite(Image.new("RGBA", (8, 8), (*RED, 255)), nothing, Image.new("L", (8, 8), 128))
    red, green, blue, alpha = result.getpixel((4, 4))  # type: ignore[misc]
    assert red > 250
    assert (green, blue) == (0, 0)
    assert alpha == 128


def test_a_mask_of_another_size_is_refused_with_both_sizes() -> None:
    with pytest.raises(InvalidValue, match=r"30x20.*40x20") as caught:
        composite(photo(), Image.new("RGB", (40, 20)), Image.new("L", (30, 20)))
    assert caught.value.param == "mask"


def test_weight_is_the_alpha_turned_round() -> None:
    mask = Image.merge("LA", (Image.new("L", (256, 1)), Image.linear_gradient("L").rotate(90).crop((0, 0, 256, 1))))
    alpha = mask.getchannel("A").tobytes()
    assert edit_weight(mask).tobytes() == bytes(255 - value for value in alpha)


@pytest.mark.parametrize("edit", [("RGB", (200, 150)), ("RGB", (210, 150)), ("RGBA", (104, 80)), ("RGB", (300, 100))])
@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
def test_stripes_do_not_show(edit: tuple[str, tuple[int, int]], mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    original, weight = photo(mode, (200, 150)), photo("L", (200, 150))
    whole = composite(photo(*edit), original, weight)
    monkeypatch.setattr(fit, "_STRIPE", 7 * 200)  # rows that fit neither the height nor the scale
    striped = composite(photo(*edit), original, weight)
    assert (striped.mode, striped.size) == (whole.mode, whole.size)
    seen = [picture.convert("RGBA").convert("RGBa").tobytes() for picture in (striped, whole)]
    differences = zip(*seen, strict=True)
    assert max(abs(one - other) for one, other in differences) <= 2  # the rounding of resampling
