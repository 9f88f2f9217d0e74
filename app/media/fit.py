"""Makes a picture exactly as large as it was asked to be, and puts an edit back into its original through a mask."""

from __future__ import annotations

from typing import TYPE_CHECKING

from app.errors import InvalidValue
from app.formats import Size

if TYPE_CHECKING:
    from PIL import Image

_SAME_SHAPE = 1.04  # ratio of aspect ratios up to which an edit is stretched onto its original rather than cropped
_STRIPE = 1 << 20  # pixels of an edit that are blended at a time


def fit_exact(image: Image.Image, size: Size) -> Image.Image:
    """Scaled to cover `size`, cut equally on both sides to exactly that. Transparency does not bleed colours."""
    if image.size == size:
        return image
    return _resized(image, size, _covering(image, size))


def _covering(image: Image.Image, size: Size) -> tuple[float, float, float, float]:
    """The largest part in the middle that has the shape of `size`."""
    width, height = size
    scale = max(width / image.width, height / image.height)
    w, h = min(width / scale, image.width), min(height / scale, image.height)
    left, top = (image.width - w) / 2, (image.height - h) / 2
    return left, top, left + w, top + h


def _as(image: Image.Image, mode: str) -> Image.Image:
    """In that mode; itself if it is."""
    return image if image.mode == mode else image.convert(mode)


def composite(edit: Image.Image, original: Image.Image, mask: Image.Image) -> Image.Image:
    """`blend` through a mask as it came, into a copy of the original.

    OpenAI's meaning: alpha 0 = edit, partial alpha blends. A mask without transparency: white = edit, black = keep. An
    alpha channel that is opaque all over is no transparency: file formats drop it at will.
    """
    return blend(edit, original.copy(), edit_weight(mask))


def blend(edit: Image.Image, original: Image.Image, weight: Image.Image) -> Image.Image:
    """The original with the edit where the weight (L, 0-255) says so, at the original's size: RGB, or RGBA if either
    has transparency. Done in stripes, inside the original, which is used up: beside the pictures it takes next to
    nothing, where whole layers took 24 bytes a pixel.

    An edit of nearly the original's shape is stretched onto it, as models stretch their input to multiples of 16:
    cropped it would no longer lie on what it replaces. Another shape is cropped. Raises InvalidValue if the mask is not
    of the original's size.
    """
    from PIL import Image

    if weight.size != original.size:
        raise InvalidValue(
            f"The mask is {weight.width}x{weight.height} and the image is {original.width}x{original.height}: "
            "they must be of the same size.",
            param="mask",
        )
    size = width, height = original.size
    clear = "A" in edit.mode or "A" in original.mode
    original = _as(original, "RGBA" if clear else "RGB")
    # In premultiplied colours a blend of something and nothing keeps the colour of the something.
    edit = _as(_as(edit, "RGBA"), "RGBa") if clear else _as(edit, "RGB")
    stretch = (edit.width * height) / (edit.height * width)
    box = (0.0, 0.0, float(edit.width), float(edit.height))
    if not 1 / _SAME_SHAPE <= stretch <= _SAME_SHAPE:
        box = _covering(edit, size)
    if box[2] - box[0] > width or box[3] - box[1] > height:  # made smaller, so that all of it takes less than it did
        edit, box = _resized(edit, size, box), (0.0, 0.0, float(width), float(height))
    scale = (box[3] - box[1]) / height
    rows = max(1, _STRIPE // width)
    for top in range(0, height, rows):
        bottom = min(top + rows, height)
        place = (0, top, width, bottom)
        # A stripe's rows see their neighbours beyond it: they come out as they do in the whole.
        part = (box[0], box[1] + top * scale, box[2], min(box[1] + bottom * scale, box[3]))
        shown = weight.crop(place)
        if edit.size == size:
            over = edit.crop(place)
        else:
            over = edit.resize((width, bottom - top), Image.Resampling.LANCZOS, box=part)
        if not clear:
            original.paste(over, place, shown)
            continue
        # Premultiplied colours round, so what the mask keeps is not written at all.
        under = original.crop(place).convert("RGBa")
        mixed = Image.composite(over, under, shown).convert("RGBA")
        original.paste(mixed, place, shown.point([0] + [255] * 255))
    return original


def edit_weight(mask: Image.Image) -> Image.Image:
    """How much of the edit shows, 0-255, in mode L."""
    if mask.mode in ("LA", "RGBA"):
        alpha = mask.getchannel("A")
        lowest, _ = alpha.getextrema()
        if lowest != 255:
            return alpha.point([255 - value for value in range(256)])
        mask = mask.convert(mask.mode[:-1])
    return mask.convert("L")


def clear_where_white(weight: Image.Image) -> Image.Image:
    """A mask of mode L, white = edit, as one of mode LA that says it by transparency, too."""
    from PIL import Image

    return Image.merge("LA", (weight, weight.point([255 - value for value in range(256)])))


def negative(weight: Image.Image) -> Image.Image:
    """A mask of mode L, white = edit, as one where black is."""
    return weight.point([255 - value for value in range(256)])


def _resized(image: Image.Image, size: Size, box: tuple[float, float, float, float]) -> Image.Image:
    from PIL import Image

    # Lanczos; Pillow premultiplies LA and RGBA by itself. A much larger source is first reduced by a whole factor.
    return image.resize(size, Image.Resampling.LANCZOS, box=box, reducing_gap=3.0)
