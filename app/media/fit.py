"""Makes a picture exactly as large as it was asked to be, and puts an edit back into its original through a mask."""

from __future__ import annotations

from typing import TYPE_CHECKING

from app.errors import InvalidValue
from app.formats import Size

if TYPE_CHECKING:
    from PIL import Image

_SAME_SHAPE = 1.04  # ratio of aspect ratios up to which an edit is stretched onto its original rather than cropped


def fit_exact(image: Image.Image, size: Size) -> Image.Image:
    """Scaled to cover `size`, cut equally on both sides to exactly that. Transparency does not bleed colours."""
    if image.size == size:
        return image
    width, height = size
    scale = max(width / image.width, height / image.height)
    w, h = min(width / scale, image.width), min(height / scale, image.height)
    left, top = (image.width - w) / 2, (image.height - h) / 2
    return _resized(image, size, (left, top, left + w, top + h))


def composite(edit: Image.Image, original: Image.Image, mask: Image.Image) -> Image.Image:
    """The original with the edit where the mask says so, at the original's size.

    OpenAI's meaning: alpha 0 = edit, partial alpha blends. A mask without transparency: white = edit, black = keep. An
    alpha channel that is opaque all over is no transparency: file formats drop it at will.
    An edit of nearly the original's shape is stretched onto it, as models stretch their input to multiples of 16:
    cropped it would no longer lie on what it replaces. Another shape is cropped.
    """
    from PIL import Image

    if mask.size != original.size:
        raise InvalidValue(
            f"The mask is {mask.width}x{mask.height} and the image is {original.width}x{original.height}: "
            "they must be of the same size.",
            param="mask",
        )
    weight = edit_weight(mask)
    stretch = (edit.width * original.height) / (edit.height * original.width)
    if 1 / _SAME_SHAPE <= stretch <= _SAME_SHAPE:
        edit = edit if edit.size == original.size else _resized(edit, original.size, (0, 0, *edit.size))
    else:
        edit = fit_exact(edit, original.size)
    if "A" not in edit.mode and "A" not in original.mode:
        return Image.composite(edit.convert("RGB"), original.convert("RGB"), weight)
    # In premultiplied colours a blend of something and nothing keeps the colour of the something. They round, so what
    # the mask keeps is then taken from the original itself.
    layers = [picture.convert("RGBA").convert("RGBa") for picture in (edit, original)]
    result = Image.composite(layers[0], layers[1], weight).convert("RGBA")
    if "A" in original.mode:
        result.paste(original.convert("RGBA"), mask=weight.point([255] + [0] * 255))
    return result


def edit_weight(mask: Image.Image) -> Image.Image:
    """How much of the edit shows, 0-255, in mode L."""
    if mask.mode in ("LA", "RGBA"):
        alpha = mask.getchannel("A")
        lowest, _ = alpha.getextrema()
        if lowest != 255:
            return alpha.point([255 - value for value in range(256)])
        mask = mask.convert(mask.mode[:-1])
    return mask.convert("L")


def _resized(image: Image.Image, size: Size, box: tuple[float, float, float, float]) -> Image.Image:
    from PIL import Image

    # Lanczos; Pillow premultiplies LA and RGBA by itself. A much larger source is first reduced by a whole factor.
    return image.resize(size, Image.Resampling.LANCZOS, box=box, reducing_gap=3.0)
