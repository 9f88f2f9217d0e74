"""Writes pictures, with the settings that measured best: docs/media.md has the tables, bench/quality.py makes them.

Defaults give about the same fidelity in every lossy format, 41 dB on photographs: JPEG 90, WebP 90, AVIF 75. AVIF is
written at speed 9, which costs a sixth in size and a third of a decibel against libavif's own default and takes a tenth
of its time. GIF: a fast-octree palette with the error diffused keeps gradients; median cut takes four times as long,
and turns rare colours into common ones (an orange part on a green board became brown); octree alone leaves rings.

Nothing but pixels is written: no EXIF, no profile, no comment. Pixels are sRGB (`decode`).
"""

from __future__ import annotations

from io import BytesIO
from typing import TYPE_CHECKING

from app.errors import InvalidValue
from app.formats import ImageFormat, Size
from app.media.png import write_png

if TYPE_CHECKING:
    from PIL import Image

DEFAULT_QUALITY = {"jpeg": 90, "webp": 90, "avif": 75}
MAX_SIDE = {"webp": 16_383, "jpeg": 65_500, "gif": 65_535, "avif": 32_768}  # of the formats, and of libjpeg and libavif
_FULL_COLOUR_ABOVE = 92  # quality from which JPEG and AVIF keep colour at full resolution
_STRIPE = 1 << 20  # pixels that are put on white at a time
_GIF_ALPHA = 128  # alpha from which a pixel is shown: GIF knows only clear and opaque


def encode(image: Image.Image, format: ImageFormat, quality: int | None = None, *, lossless: bool = False) -> bytes:
    """The picture (L, LA, RGB or RGBA) as a file. `quality` 0-100, 100 best, for lossy formats; `lossless` is WebP's.

    JPEG has no transparency: the picture is put on white. Raises InvalidValue if the format cannot hold its size.
    """
    check_side(format, image.size)
    if format == "png":
        return write_png(image)
    quality = DEFAULT_QUALITY.get(format, 0) if quality is None else min(max(quality, 0), 100)
    subsampling = "4:4:4" if in_full_colour(format, quality) else "4:2:0"
    from PIL import AvifImagePlugin, WebPImagePlugin  # noqa: F401 - known, Pillow need not load all its plug-ins

    out = BytesIO()
    if format == "jpeg":  # quality 0 is libjpeg's 1
        bare(on_white(image)).save(out, "JPEG", quality=max(quality, 1), subsampling=subsampling)
    elif format == "webp":
        if lossless:
            bare(coloured(image)).save(out, "WEBP", lossless=True, quality=0, method=0, exact=True)
        else:
            bare(coloured(image)).save(out, "WEBP", quality=quality, method=2)
    elif format == "avif":
        bare(coloured(image)).save(
            out, "AVIF", quality=quality, speed=9, max_threads=1, subsampling=subsampling, range="full"
        )
    else:
        _write_gif(image, out)
    return out.getvalue()


def holds(format: ImageFormat, size: Size) -> bool:
    """Whether a picture of that size can be written in the format."""
    return max(size) <= MAX_SIDE.get(format, max(size))


def check_side(format: ImageFormat, size: Size, param: str = "output_format") -> None:
    """Raises InvalidValue if the format cannot hold a picture of that size."""
    if not holds(format, size):
        raise InvalidValue(
            f"A picture of {size[0]}x{size[1]} cannot be written as {format.upper()}, "
            f"which holds at most {MAX_SIDE[format]:,} pixels a side. Use png.",
            param=param,
        )


def on_white(image: Image.Image) -> Image.Image:
    """The picture without transparency: L or RGB, on white."""
    if image.mode not in ("LA", "RGBA"):
        return image
    from PIL import Image

    mode = image.mode[:-1]
    ground = Image.new(mode, image.size, "white")
    rows = max(1, _STRIPE // image.width)
    for top in range(0, image.height, rows):  # copies of the whole would take nine bytes a pixel more
        place = (0, top, image.width, min(top + rows, image.height))
        shown = image.crop(place)
        ground.paste(shown.convert(mode), place, shown.getchannel("A"))
    return ground


def in_full_colour(format: ImageFormat, quality: int | None) -> bool:
    """Whether JPEG or AVIF keeps colour at full resolution."""
    return (DEFAULT_QUALITY.get(format, 0) if quality is None else quality) > _FULL_COLOUR_ABOVE


def coloured(image: Image.Image) -> Image.Image:
    """RGB or RGBA: WebP and AVIF know no grey."""
    return image.convert({"L": "RGB", "LA": "RGBA"}[image.mode]) if image.mode in ("L", "LA") else image


def bare(image: Image.Image) -> Image.Image:
    """The picture without what Pillow would write besides pixels."""
    if image.info:
        image = image.copy()
        image.info = {}
    return image


def _write_gif(image: Image.Image, out: BytesIO) -> None:
    if image.mode not in ("LA", "RGBA"):
        colours = bare(image) if image.mode == "L" else _quantized(bare(image), 256)
        colours.save(out, "GIF", optimize=False)
        return
    clear = image.getchannel("A").point([255 if alpha < _GIF_ALPHA else 0 for alpha in range(256)])
    pixels = image.convert("RGB")
    pixels.paste((0, 0, 0), mask=clear)  # what nobody sees shall not take colours
    indexed = _quantized(bare(pixels), 255)
    palette = (indexed.getpalette() or [])[: 255 * 3]
    indexed.putpalette(palette + [0] * (768 - len(palette)))
    indexed.paste(255, mask=clear)
    indexed.save(out, "GIF", optimize=False, transparency=255)


def _quantized(image: Image.Image, colours: int) -> Image.Image:
    from PIL import Image

    if image.getcolors(colours) is not None:  # few enough to keep each as it is
        return image.quantize(colours, Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
    palette = image.quantize(colours, Image.Quantize.FASTOCTREE)
    return image.quantize(palette=palette, dither=Image.Dither.FLOYDSTEINBERG)
