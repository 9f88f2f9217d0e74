"""Results compared with pictures that a person has looked at: masks, exact sizes, formats, all through `finish`.

The goldens in `golden/` are the cases' own results, in fewer colours where they are large. After a change that is
meant, write them anew, and look at every one that changed before it is committed:

    python -m tests.media.test_golden

They are compared as an eye compares, not by bytes: another version of an encoder or a resampler shall pass. That the
distance sees what it must is shown by other masks and by MISTAKES: each has to be farther off than is tolerated.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, ImageChops, ImageDraw, ImageFilter, ImageOps

from app.media.blob import MemoryBlob
from app.media.finish import finish
from app.media.sniff import MAX_PIXELS, inspect
from app.types import Delivery, MaskStep
from providers.base import Media
from tests.conftest import PHOTO
from tests.media.distance import alike, distance
from tests.media.pictures import EXIF_ORIENTATION, psnr, saved

GOLDEN = Path(__file__).parent / "golden"
MAX_BYTES = 20_000
SIZE = (144, 96)
Point = tuple[int, int]


# What the pictures are made from


@functools.cache
def coffee(size: Point = SIZE) -> Image.Image:
    with Image.open(PHOTO) as photo:
        return photo.resize(size, Image.Resampling.LANCZOS)


def blue(size: Point = SIZE) -> Image.Image:
    """The edit: the same cup, but all that is red is blue."""
    red, green, bluish = coffee(size).split()
    return Image.merge("RGB", (bluish, green, red))


def cup(size: Point = SIZE) -> Image.Image:
    """White where the cup with its handle is."""
    mask = Image.new("L", (600, 400))
    draw = ImageDraw.Draw(mask)
    draw.ellipse((170, 14, 412, 212), fill=255)
    draw.polygon([(173, 130), (409, 130), (380, 200), (330, 270), (270, 285), (215, 260), (180, 190)], fill=255)
    draw.ellipse((192, 228, 262, 312), fill=255)
    return mask.resize(size, Image.Resampling.BOX)


def sharpened(weight: Image.Image, least: int = 128) -> Image.Image:
    """All or nothing: no pixel blends."""
    return weight.point([0] * least + [255] * (256 - least))


def hard() -> Image.Image:
    """The cup for masks that know black and white alone."""
    return sharpened(cup())


def soft() -> Image.Image:
    """The cup, its edge ten pixels wide."""
    return cup().filter(ImageFilter.GaussianBlur(4))


def clear_where(weight: Image.Image) -> Image.Image:
    """OpenAI's mask: what is to be edited is clear. Its colours mean nothing: here they are the opposite."""
    return Image.merge("RGBA", [ImageOps.invert(weight)] * 4)


def paletted(mask: Image.Image) -> Image.Image:
    """The same picture, by a palette whose order is not that of the greys."""
    indexed = mask.point([1] * 128 + [0] * 128)
    indexed = Image.frombytes("P", indexed.size, indexed.tobytes())
    indexed.putpalette([255, 255, 255, 0, 0, 0])
    return indexed


def clear_entry(mask: Image.Image) -> Image.Image:
    """A palette whose first entry is clear, and whose colours mean the opposite."""
    indexed = paletted(mask)
    indexed.putpalette([0, 0, 0, 255, 255, 255])
    indexed.info["transparency"] = 0
    return indexed


def badge(size: Point = (96, 96)) -> Image.Image:
    """An orange disc with a green bar and a soft shadow on nothing. What nobody sees is magenta."""
    large = (size[0] * 4, size[1] * 4)
    width, height = large
    shadow = Image.new("L", large)
    ImageDraw.Draw(shadow).ellipse((width // 5, height // 4, width * 19 // 20, height * 19 // 20), fill=150)
    shadow = shadow.filter(ImageFilter.GaussianBlur(width // 30))
    picture = Image.merge("RGBA", [shadow.point([0] * 256)] * 3 + [shadow])
    draw = ImageDraw.Draw(picture)
    draw.ellipse((width // 10, height // 12, width * 5 // 6, height * 5 // 6), fill=(250, 140, 20, 255))
    draw.rectangle((width // 4, height // 5, width // 2, height // 3), fill=(20, 140, 70, 255))
    picture = picture.resize(size, Image.Resampling.BOX)
    unseen = picture.getchannel("A").point([255] + [0] * 255)
    picture.paste((255, 0, 255, 0), mask=unseen)
    return picture


def ruler(size: Point) -> Image.Image:
    """Rings of eight pixels, from the edge inwards, a disc in the middle and a mark in one corner."""
    picture = Image.new("RGB", size, "white")
    draw = ImageDraw.Draw(picture)
    colours = ["#c03028", "#f0c020", "#2870c0", "#f4f4f4"]
    for ring, colour in enumerate(colours):
        inset = ring * 8
        draw.rectangle((inset, inset, size[0] - 1 - inset, size[1] - 1 - inset), fill=colour)
    x, y = size[0] // 2, size[1] // 2
    draw.ellipse((x - 16, y - 16, x + 15, y + 15), fill="#207048")
    draw.rectangle((28, 28, 39, 33), fill="black")
    return picture


def with_alpha(picture: Image.Image, alpha: Image.Image) -> Image.Image:
    picture = picture.copy()
    picture.putalpha(alpha)
    return picture


def deep(picture: Image.Image) -> Image.Image:
    """Grey of 16 bits."""
    return picture.convert("L").convert("I").point(lambda value: value * 257).convert("I;16")


def cut_out() -> Image.Image:
    """The coffee with a soft edge, on nothing."""
    alpha = Image.new("L", SIZE)
    ImageDraw.Draw(alpha).ellipse((14, 2, 120, 93), fill=255)
    return with_alpha(coffee(), alpha.filter(ImageFilter.GaussianBlur(3)))


def turned(orientation: int) -> bytes:
    """The coffee as a camera stores it that was held so: upright only to whom reads EXIF."""
    back = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}  # ROTATE_90 for 6: the opposite of what a reader does
    picture = coffee() if orientation == 1 else coffee().transpose(Image.Transpose(back[orientation]))
    exif = Image.Exif()
    exif[EXIF_ORIENTATION] = orientation
    return saved(picture, "jpeg", quality=95, subsampling=0, exif=exif)


def film() -> bytes:
    """A GIF whose first frame is the badge, with a palette and a clear colour, and whose others are not."""
    disc = with_alpha(badge(), sharpened(badge().getchannel("A"), 200))  # without its shadow
    frames = [disc, ImageOps.mirror(disc), Image.new("RGBA", (96, 96), "red")]
    return saved(frames[0], "gif", save_all=True, append_images=frames[1:], duration=100, loop=0)


# The cases


@dataclass(frozen=True)
class Case:
    """What the provider made and what is owed; the golden is what must come of it."""

    golden: str
    edit: bytes = field(repr=False)
    original: bytes | None = field(default=None, repr=False)
    mask: Image.Image | None = field(default=None, repr=False)
    owed: dict[str, Any] = field(default_factory=dict)
    name: str = ""  # if it shares its golden with another

    def result(self, mask: Image.Image | None = None) -> Image.Image:
        """As any other reader sees the file: not by our own decoder."""
        owed = dict(self.owed)
        if self.original is not None:
            one = mask or self.mask
            assert one is not None
            owed["mask"] = MaskStep(media(self.original), media(saved(one, "png"), "mask"))
        done = finish(MemoryBlob(self.edit), Delivery(**owed), 0, max_pixels=MAX_PIXELS)
        with Image.open(BytesIO(done.blob.read())) as image:
            assert (image.format or "").lower() == owed.get("format", done.format)
            assert image.size == (done.width, done.height)
            image.load()
            return image.convert("RGBA") if image.has_transparency_data else image.convert("RGB")


def media(data: bytes, param: str = "image") -> Media:
    return inspect(MemoryBlob(data), "", index=0, param=param)


def png(picture: Image.Image) -> bytes:
    return saved(picture, "png")


def wide() -> Image.Image:
    return ruler((160, 96))


MASKED = [
    Case("soft_edge", png(blue()), png(coffee()), clear_where(soft())),
    Case("white_edits", png(blue()), png(coffee()), cup()),
    Case("hard_edge", png(blue()), png(coffee()), hard()),
    Case("hard_edge", png(blue()), png(coffee()), hard().convert("1"), name="one bit"),
    Case("hard_edge", png(blue()), png(coffee()), paletted(hard()), name="palette"),
    Case("hard_edge", png(blue()), png(coffee()), clear_entry(hard()), name="palette with a clear entry"),
    *(
        Case("white_edits", png(blue()), turned(orientation), cup(), name=f"orientation {orientation}")
        for orientation in range(1, 9)
    ),
    Case("small_edit", png(blue((72, 48))), png(coffee()), cup()),
    Case("white_edits", png(blue((304, 208))), png(coffee()), cup(), name="of a large edit"),  # on a grid of 16
    Case("clear_original", png(blue()), png(cut_out()), clear_where(soft())),
    Case("clear_edit", png(badge((144, 96))), png(coffee()), clear_where(soft())),
    Case("mask_and_exact", png(blue()), png(coffee()), cup(), {"exact": (112, 72)}),
    Case("white_edits", png(blue()), png(coffee()), cup(), {"format": "jpeg", "quality": 90}, name="to jpeg"),
    Case("white_edits", png(blue()), png(coffee()), cup(), {"format": "webp"}, name="to webp"),
]
PLAIN = [
    Case("fit_up", png(coffee((72, 48))), owed={"exact": (150, 100)}),
    Case("fit_down", png(coffee((600, 400))), owed={"exact": (120, 80)}),
    Case("fit_crop", png(wide()), owed={"exact": (152, 96)}),
    Case("fit_crop_scaled", png(ruler((144, 96))), owed={"exact": (100, 75)}),
    Case("fit_clear", png(badge((24, 24))), owed={"exact": (96, 96)}),
    Case("on_white", png(badge()), owed={"format": "jpeg"}),
    Case("grey", png(deep(coffee())), owed={"format": "jpeg"}, name="16 bits to jpeg"),
    Case("grey", png(deep(coffee((288, 192)))), owed={"exact": SIZE}, name="16 bits to png"),
    Case("cmyk", saved(coffee().convert("CMYK"), "jpeg", quality=95), owed={"format": "png"}, name="to png"),
    Case("cmyk", saved(coffee((288, 192)).convert("CMYK"), "jpeg", quality=95), owed={"exact": SIZE}, name="to jpeg"),
    Case("first_frame", film(), owed={"format": "png"}),
]


def named(cases: list[Case]) -> list[Any]:
    return [pytest.param(case, id=f"{case.golden} {case.name}".strip()) for case in cases]


@functools.cache
def golden(name: str) -> Image.Image:
    with Image.open(GOLDEN / f"{name}.png") as image:
        return image.convert("RGBA")


def first_of(name: str) -> Case:
    return next(case for case in MASKED + PLAIN if case.golden == name)


@pytest.mark.parametrize("case", named(MASKED + PLAIN))
def test_the_result_looks_like_its_golden(case: Case) -> None:
    result = case.result()
    assert alike(result, golden(case.golden)), distance(result, golden(case.golden))


def test_every_golden_is_small_and_used() -> None:
    assert {path.stem for path in GOLDEN.iterdir()} == {case.golden for case in MASKED + PLAIN}
    assert all(path.stat().st_size <= MAX_BYTES for path in GOLDEN.iterdir())


# What the distance must see


def shifted(x: int, y: int) -> Callable[[Image.Image], Image.Image]:
    return lambda mask: ImageChops.offset(mask, x, y)


def inverted(mask: Image.Image) -> Image.Image:
    if mask.has_transparency_data:
        return clear_where(mask.convert("RGBA").getchannel("A"))
    return ImageOps.invert(mask.convert("L"))


@pytest.mark.parametrize("case", named(MASKED))
@pytest.mark.parametrize(
    "wrong",
    [
        pytest.param(inverted, id="inverted"),
        pytest.param(ImageOps.mirror, id="mirrored"),
        pytest.param(ImageOps.flip, id="upside down"),
        *(pytest.param(shifted(x, y), id=f"shifted {x} {y}") for x, y in [(8, 0), (-8, 0), (0, 8), (0, -8)]),
    ],
)
def test_another_mask_is_seen(case: Case, wrong: Callable[[Image.Image], Image.Image]) -> None:
    assert case.mask is not None
    result = case.result(wrong(case.mask))
    assert not alike(result, golden(case.golden)), distance(result, golden(case.golden))


def over(edit: Image.Image, original: Image.Image, weight: Image.Image) -> Image.Image:
    return Image.composite(edit, original, weight)


def premultiplied_never(image: Image.Image, size: Point) -> Image.Image:
    """Resized band by band: what is clear lends its colour to the edge."""
    bands = [band.resize(size, Image.Resampling.LANCZOS) for band in image.split()]
    return Image.merge(image.mode, bands)


def frame_of(data: bytes, frame: int) -> Image.Image:
    with Image.open(BytesIO(data)) as image:
        image.seek(frame)
        return image.convert("RGBA")


MISTAKES: dict[str, tuple[str, Callable[[], Image.Image]]] = {
    "no edge is soft": ("soft_edge", lambda: over(blue(), coffee(), sharpened(soft()))),
    "the blend is squared": (
        "soft_edge",
        lambda: over(blue(), coffee(), soft().point([v * v // 255 for v in range(256)])),
    ),
    "the whole edit": ("white_edits", blue),
    "the whole original": ("white_edits", coffee),
    "the mask lies on the picture as stored": (
        "white_edits",
        lambda: over(blue(), coffee(), cup().transpose(Image.Transpose.ROTATE_90).resize(SIZE)),
    ),
    "the edit is laid in the corner, not scaled": (
        "small_edit",
        lambda: over(blue((72, 48)).crop((0, 0, *SIZE)), coffee(), cup()),
    ),
    "transparency is lost": ("clear_original", lambda: over(blue(), coffee(), soft())),
    "the edit is clear where the original is": (
        "clear_original",
        lambda: with_alpha(over(blue(), coffee(), soft()), cut_out().getchannel("A")),
    ),
    "fitted before the mask was laid on": ("mask_and_exact", lambda: blue((112, 72))),
    "cut on the right alone": ("fit_crop", lambda: wide().crop((0, 0, 152, 96))),
    "cut on the left alone": ("fit_crop", lambda: wide().crop((8, 0, 160, 96))),
    "squeezed": ("fit_crop", lambda: wide().resize((152, 96), Image.Resampling.LANCZOS)),
    "squeezed and scaled": ("fit_crop_scaled", lambda: ruler((144, 96)).resize((100, 75))),
    "padded": ("fit_crop_scaled", lambda: ImageOps.pad(ruler((144, 96)), (100, 75))),
    "a fringe of what was clear": ("fit_clear", lambda: premultiplied_never(badge((24, 24)), (96, 96))),
    "on black": ("on_white", lambda: Image.alpha_composite(Image.new("RGBA", (96, 96), "black"), badge())),
    "alpha is dropped": ("on_white", lambda: badge().convert("RGB")),
    "16 bits clipped to white": ("grey", lambda: Image.new("L", SIZE, 255)),
    "inverted as Adobe's CMYK": ("cmyk", lambda: ImageOps.invert(coffee())),
    "the second frame": ("first_frame", lambda: frame_of(film(), 1)),
}


@pytest.mark.parametrize(("name", "mistake"), MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_is_seen(name: str, mistake: Callable[[], Image.Image]) -> None:
    assert not alike(mistake(), golden(name)), distance(mistake(), golden(name))


# What no distance may excuse


def outside(picture: Image.Image, weight: Image.Image) -> bytes:
    """The pixels that the mask keeps; the others are black."""
    kept = picture.copy()
    kept.paste(0, mask=weight.point([0] + [255] * 255))
    return kept.tobytes()


@pytest.mark.parametrize(
    ("name", "original", "weight"),
    [
        ("soft_edge", coffee(), soft()),
        ("hard_edge", coffee(), hard()),
        ("small_edit", coffee(), cup()),
        ("white_edits", coffee(), cup()),
        ("clear_original", cut_out(), soft()),
        ("clear_edit", coffee().convert("RGBA"), soft()),
    ],
)
def test_what_the_mask_keeps_is_the_originals_to_the_bit(name: str, original: Image.Image, weight: Image.Image) -> None:
    result = first_of(name).result().convert(original.mode)
    assert outside(result, weight) == outside(original, weight)
    assert result.tobytes() != original.tobytes()


@pytest.mark.parametrize("format", ["jpeg", "webp", "avif"])
def test_what_the_mask_keeps_survives_a_lossy_format(format: str) -> None:
    owed = {"format": format}
    near = cup().filter(ImageFilter.MaxFilter(17))  # an encoder's blocks carry the edit over the edge
    pictures = [Case("", png(blue()), png(coffee()), cup(), owed).result(), Case("", png(coffee()), owed=owed).result()]
    result, unmasked, original = (Image.frombytes("RGB", SIZE, outside(one, near)) for one in (*pictures, coffee()))
    assert psnr(result, original) > psnr(unmasked, original) - 0.5


def test_every_pixel_blends_as_arithmetic_has_it() -> None:
    result, weights = first_of("soft_edge").result().tobytes(), soft().tobytes()
    edit, original = blue().tobytes(), coffee().tobytes()
    for index, value in enumerate(result):
        weight = weights[index // 3]
        assert abs(value - (edit[index] * weight + original[index] * (255 - weight)) / 255) <= 1


def write_goldens() -> None:
    """Anew, each from the first of its cases."""
    for name in dict.fromkeys(case.golden for case in MASKED + PLAIN):
        result = first_of(name).result()
        if len(png(result)) <= MAX_BYTES:
            pass
        elif result.mode == "RGB":
            result = result.quantize(256, Image.Quantize.MEDIANCUT, kmeans=3, dither=Image.Dither.NONE)
        else:
            result = result.point([value & 0xF8 | value >> 5 for value in range(256)] * 4)
            result.paste((0, 0, 0, 0), mask=result.getchannel("A").point([255] + [0] * 255))
        result.save(GOLDEN / f"{name}.png", optimize=True)


if __name__ == "__main__":
    write_goldens()
