"""Decodes a picture's first frame into 8-bit L, LA, RGB or RGBA in sRGB: the four layouts that all else here works on.

The five accepted formats cannot hold Pillow's LAB, HSV or YCbCr layouts, so only what they can hold is turned with
care; anything else goes through Pillow's own conversion.
"""

from __future__ import annotations

from io import BytesIO
from typing import TYPE_CHECKING

from app.errors import UnsupportedImage
from app.formats import ImageFormat
from app.media.header import read
from app.media.orientation import turned
from app.media.sniff import (
    MAX_PIXELS,
    describe,
    explained,
    is_accepted,
    opened,
    size_of,
    sniff_format,
)

if TYPE_CHECKING:
    from PIL import Image

_SRGB_GAMMA = 0.45455
_SAME_GAMMA = 0.05  # as libpng has it: less nobody sees
_MAX_ICC = 4 * 1024 * 1024  # larger than any camera's or press's profile


def decode(
    data: bytes,
    *,
    max_pixels: int = MAX_PIXELS,
    upright: bool = False,
    name: str = "The image",
    param: str | None = None,
) -> Image.Image:
    """The first frame, fully loaded, with an empty `info`. EXIF orientation is applied only if `upright`.

    Raises UnsupportedImage, ImageTooLarge, or InvalidImage for anything broken or cut off; `name` and `param` say which
    picture it is. Blocks.
    """
    kind = sniff_format(data[:64])
    if not is_accepted(kind):
        raise UnsupportedImage(f"{name} is {describe(kind, data[:64])}.", param=param)
    return explained(_decode, data, kind, max_pixels, upright, name=name, param=param)


def _decode(data: bytes, kind: ImageFormat, max_pixels: int, upright: bool) -> Image.Image:
    turn = read(data, kind).orientation if upright else 1
    with opened(data, kind, max_pixels) as source:
        source.load()
        image = in_srgb(normalised(source, data), source.info.get("icc_profile"))
        if kind == "png" and not source.info.keys() & {"icc_profile", "srgb"}:
            image = with_gamma(image, source.info.get("gamma"))
    if image is source:  # the same pixels, without the file that they came from: a copy would double the memory
        image = source._new(source.im)
    image = turned(image, turn)
    image.info = {}
    return image


def normalised(image: Image.Image, data: bytes) -> Image.Image:
    """L, LA, RGB, RGBA, or CMYK, whatever it was."""
    mode, key = image.mode, image.info.get("transparency")
    if mode in ("LA", "RGBA", "CMYK"):
        return image
    if mode == "P":
        has_alpha = key is not None or (image.palette is not None and image.palette.mode.endswith("A"))
        return image.convert("RGBA" if has_alpha else "RGB")
    if mode == "PA":
        return image.convert("RGBA")
    if mode == "RGB":
        if isinstance(key, tuple):
            header = size_of(data)
            if (
                header is not None and header.depth == 16
            ):  # Pillow keeps the high bytes of the pixels, but not of the key
                image.info["transparency"] = tuple(value >> 8 for value in key)
            return image.convert("RGBA")
        return image
    if mode in ("1", "L", "I;16", "I;16B", "I"):
        return _grey(image, key, data)
    return image.convert("RGB")


def _grey(image: Image.Image, key: object, data: bytes) -> Image.Image:
    """Grey of any depth. Pillow would clip 16 bits to white, and compares a transparent grey at the wrong depth."""
    from PIL import Image

    deep = image.mode not in ("1", "L")
    grey = image.point(lambda value: value * (1 / 257) + 0.5).convert("L") if deep else image.convert("L")
    if not isinstance(key, int):
        return grey
    if deep:
        clear = image.convert("I").point([0 if value == key else 255 for value in range(65536)], "L")
    else:
        header = size_of(data)
        depth = header.depth if header is not None and image.mode == "L" else 8
        scaled = key * 255 // ((1 << depth) - 1) if depth < 8 else key
        clear = grey.point([0 if value == scaled else 255 for value in range(256)])
    return Image.merge("LA", (grey, clear))


def in_srgb(image: Image.Image, profile: object) -> Image.Image:
    """The picture in sRGB. A profile that is broken, or made for another layout, is ignored as browsers do."""
    if isinstance(profile, bytes) and 0 < len(profile) <= _MAX_ICC:
        from PIL import ImageCms

        try:
            return _through_profile(image, profile)
        except (ImageCms.PyCMSError, OSError, ValueError, TypeError, MemoryError):
            pass
    return image.convert("RGB") if image.mode == "CMYK" else image


def with_gamma(image: Image.Image, gamma: object) -> Image.Image:
    """The picture in sRGB if its PNG names another gamma (gAMA) and no profile: browsers and ImageMagick apply it."""
    if not isinstance(gamma, float) or not 0.01 < gamma < 10 or abs(gamma / _SRGB_GAMMA - 1) < _SAME_GAMMA:
        return image
    curve = [round(255 * (value / 255) ** (_SRGB_GAMMA / gamma)) for value in range(256)]
    colours = len(image.getbands()) - image.mode.endswith("A")
    return image.point(curve * colours + list(range(256)) * image.mode.endswith("A"))


def _through_profile(image: Image.Image, profile: bytes) -> Image.Image:
    from PIL import ImageCms

    source = ImageCms.ImageCmsProfile(BytesIO(profile))
    if "srgb" in (source.profile.profile_description or "").lower():
        return image
    alpha = image.getchannel("A") if image.mode in ("LA", "RGBA") else None
    colour = image.convert(image.mode[:-1]) if alpha is not None else image
    if source.profile.xcolor_space.strip() != {"L": "GRAY"}.get(colour.mode, colour.mode):
        raise ValueError("the profile is for another layout")
    result = ImageCms.profileToProfile(colour, source, ImageCms.createProfile("sRGB"), outputMode="RGB")
    if result is None:
        return image
    if alpha is not None:
        result.putalpha(alpha)
    return result
