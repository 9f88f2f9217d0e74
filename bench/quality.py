"""What each output format costs and keeps, by setting: docs/media.md's tables.

    python -m bench.quality            the tables on standard output
    python -m bench.quality --write    into docs/media.md, between its markers

Six pictures of a megapixel (bench/pictures.py); the settings take turns, so that a busy machine is so for all.
CPU is the median over rounds of the mean over pictures. Fidelity: SSIM of luma (7x7 windows) and PSNR of RGB; pictures
with alpha are compared as they look on grey.
"""

from __future__ import annotations

import argparse
import math
import platform
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import PIL
from PIL import Image

from app.media.encode import bare, coloured, encode, on_white
from app.media.png import write_png
from app.types import ImageFormat
from bench.machine import ROOT
from bench.pictures import PICTURES, png

PAGE = ROOT / "docs" / "media.md"
BEGIN, END = "<!-- bench/quality.py begins -->\n", "<!-- bench/quality.py ends -->\n"
STEPS = (0, 25, 50, 75, 90, 100)
PHOTOS = ("photo", "smooth photo")
_WINDOW = 7
_C1, _C2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2

Encoder = Callable[[Image.Image], bytes]


@dataclass(slots=True)
class Setting:
    """One way to write a file, and what came out. Lists run over pictures; `ms` over rounds."""

    format: str
    name: str
    write: Encoder
    chosen: bool = False
    slow: bool = False  # measured in one round only
    kb: list[float] = field(default_factory=list)
    ssim: list[float] = field(default_factory=list)
    psnr: list[float] = field(default_factory=list)
    ms: list[float] = field(default_factory=list)


def _save(format: str, prepare: Callable[[Image.Image], Image.Image], **options: Any) -> Encoder:
    def write(image: Image.Image) -> bytes:
        out = BytesIO()
        bare(prepare(image)).save(out, format, **options)
        return out.getvalue()

    return write


def _ours(format: ImageFormat, quality: int | None = None) -> Encoder:
    return lambda image: encode(image, format, quality)


def _gif(method: Image.Quantize, dither: bool, both: bool) -> Encoder:
    def write(image: Image.Image) -> bytes:
        source = on_white(image)
        indexed = source.quantize(256, method, dither=Image.Dither.NONE)
        if dither and both:
            indexed = source.quantize(palette=indexed, dither=Image.Dither.FLOYDSTEINBERG)
        out = BytesIO()
        indexed.save(out, "GIF", optimize=False)
        return out.getvalue()

    return write


def settings() -> list[Setting]:
    """Every candidate. The chosen ones are written by the gateway's own encoder."""
    found = [Setting("PNG", f"ours, igzip level {level}", _level(level), level == 1) for level in (0, 1, 2, 3)]
    found += [Setting("PNG", f"Pillow, level {level}", lambda image, at=level: png(image, at)) for level in (1, 6)]
    for quality in (80, 85, 90, 95):
        for sampling in ("4:2:0", "4:4:4"):
            mine = (quality, sampling) == (90, "4:2:0")
            write = _ours("jpeg") if mine else _save("JPEG", on_white, quality=quality, subsampling=sampling)
            found.append(Setting("JPEG", f"q{quality} {sampling}", write, mine))
    for extra in ("optimize", "progressive"):
        write = _save("JPEG", on_white, quality=90, subsampling="4:2:0", **{extra: True})
        found.append(Setting("JPEG", f"q90 4:2:0 {extra}", write))
    for quality in (80, 85, 90):
        for method in (0, 2, 4):
            mine = (quality, method) == (90, 2)
            write = _ours("webp") if mine else _save("WEBP", coloured, quality=quality, method=method)
            found.append(Setting("WebP", f"q{quality} method {method}", write, mine))
    for quality in (60, 70, 75, 80):
        for speed in (6, 8, 9, 10) if quality == 75 else (6, 8, 9):
            mine = (quality, speed) == (75, 9)
            options = {"quality": quality, "speed": speed, "max_threads": 1, "range": "full", "subsampling": "4:2:0"}
            write = _ours("avif") if mine else _save("AVIF", coloured, **options)
            found.append(Setting("AVIF", f"q{quality} speed {speed}", write, mine, slow=speed < 9))
    found.append(Setting("AVIF", "q75 speed 9 autotiling off", _avif(autotiling=False)))
    found.append(Setting("AVIF", "q75 speed 9, 2 threads", _avif(max_threads=2)))
    found.append(Setting("AVIF", "q75 speed 9 tune=ssim", _avif(advanced={"tune": "ssim"})))
    found.append(Setting("AVIF", "q75 speed 9 tune-content=screen", _avif(advanced={"tune-content": "screen"})))
    found.append(Setting("AVIF", "q75 speed 9 4:4:4", _avif(subsampling="4:4:4")))
    found.append(Setting("GIF", "octree, dithered", _ours("gif"), True))
    found.append(Setting("GIF", "octree", _gif(Image.Quantize.FASTOCTREE, False, False)))
    found.append(Setting("GIF", "median cut", _gif(Image.Quantize.MEDIANCUT, False, False), slow=True))
    found.append(Setting("GIF", "median cut, dithered", _gif(Image.Quantize.MEDIANCUT, True, True), slow=True))
    return found


def _level(level: int) -> Encoder:
    return lambda image: write_png(image, level=level)


def _avif(**options: Any) -> Encoder:
    base = {"quality": 75, "speed": 9, "max_threads": 1, "range": "full", "subsampling": "4:2:0"}
    return _save("AVIF", coloured, **{**base, **options})


def curve() -> list[Setting]:
    """What `output_compression` makes of each lossy format, through the gateway's own encoder."""
    formats: Sequence[ImageFormat] = ("jpeg", "webp", "avif")
    return [Setting(format, str(quality), _ours(format, quality)) for format in formats for quality in STEPS]


def measure(candidates: Sequence[Setting], pictures: dict[str, Image.Image], rounds: int) -> None:
    """Fills the settings in."""
    seen = {name: _seen(image) for name, image in pictures.items()}
    for one in candidates:
        for name, image in pictures.items():
            data = one.write(image)
            one.kb.append(len(data) / 1024)
            with Image.open(BytesIO(data)) as file:
                if one.format == "GIF" and file.mode == "P" and "transparency" not in file.info:
                    file = file.convert("RGB")
                result = _seen(file) if "A" in file.getbands() or image.mode == "RGB" else _seen(file.convert("RGB"))
            reference = seen[name] if _keeps_alpha(one.format) else _seen(on_white(image))
            one.ssim.append(ssim(reference, result))
            one.psnr.append(psnr(reference, result))
    for turn in range(rounds):
        for one in candidates:
            if one.slow and turn:
                continue
            began = time.process_time()
            for image in pictures.values():
                one.write(image)
            one.ms.append(1000 * (time.process_time() - began) / len(pictures))


def _keeps_alpha(format: str) -> bool:
    return format.lower() in ("png", "webp", "avif")


def _seen(image: Image.Image) -> Image.Image:
    """As it looks on grey."""
    if "A" not in image.getbands() and "transparency" not in image.info:
        return image.convert("RGB")
    ground = Image.new("RGBA", image.size, (128, 128, 128, 255))
    return Image.alpha_composite(ground, image.convert("RGBA")).convert("RGB")


def ssim(one: Image.Image, other: Image.Image) -> float:
    """Mean structural similarity of luma (Wang 2004, uniform windows as scikit-image has them). 1.0 is the same."""
    x, y = (np.asarray(image.convert("L"), np.float64) for image in (one, other))
    mean_x, mean_y = _mean(x), _mean(y)
    spread = _mean(x * x) - mean_x**2 + _mean(y * y) - mean_y**2
    common = _mean(x * y) - mean_x * mean_y
    likeness = (2 * mean_x * mean_y + _C1) * (2 * common + _C2) / ((mean_x**2 + mean_y**2 + _C1) * (spread + _C2))
    return float(likeness.mean())


def _mean(values: np.ndarray) -> np.ndarray:
    """Of every window that lies within."""
    total = np.pad(values.cumsum(0).cumsum(1), ((1, 0), (1, 0)))
    n = _WINDOW
    return (total[n:, n:] - total[:-n, n:] - total[n:, :-n] + total[:-n, :-n]) / n**2


def psnr(one: Image.Image, other: Image.Image) -> float:
    """In decibels; infinite for the same picture."""
    error = float(((np.asarray(one, np.float32) - np.asarray(other, np.float32)) ** 2).mean())
    return 10 * math.log10(255**2 / error) if error else math.inf


def table(candidates: Sequence[Setting], names: Sequence[str]) -> str:
    """Markdown: fidelity and size of photographs and of drawings apart, as they differ."""
    photos = [index for index, name in enumerate(names) if name in PHOTOS]
    drawn = [index for index, name in enumerate(names) if name not in PHOTOS and name != "cut-out"]
    lines = [
        "| format | setting | photo KB | SSIM | PSNR | drawn KB | SSIM | PSNR | CPU ms/MP |",
        "|---|---|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for one in candidates:
        cells = [one.format, f"**{one.name}** ✓" if one.chosen else one.name]
        for group in (photos, drawn):
            cells.append(f"{_of(one.kb, group):.0f}")
            cells.append(f"{_of(one.ssim, group):.4f}")
            lossy = [index for index in group if not math.isinf(one.psnr[index])]
            cells.append(f"{_of(one.psnr, lossy):.1f}" if lossy else "lossless")
        cells.append(f"{statistics.median(one.ms):.1f}")
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def curve_table(candidates: Sequence[Setting], names: Sequence[str]) -> str:
    """Markdown: one line per value of output_compression, KB and SSIM of photographs for each format."""
    photos = [index for index, name in enumerate(names) if name in PHOTOS]
    formats = list(dict.fromkeys(one.format for one in candidates))
    cells = {(one.format, one.name): f"{_of(one.kb, photos):.0f} KB, {_of(one.ssim, photos):.4f}" for one in candidates}
    lines = ["| output_compression | " + " | ".join(formats) + " |", "|---:|" + "---:|" * len(formats)]
    for value in dict.fromkeys(one.name for one in candidates):
        lines.append(f"| {value} | " + " | ".join(cells[format, value] for format in formats) + " |")
    return "\n".join(lines) + "\n"


def _of(values: Sequence[float], chosen: Sequence[int]) -> float:
    return statistics.fmean(values[index] for index in chosen)


def main() -> None:
    """About two minutes."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--formats", default="", help="only these, separated by commas")
    parser.add_argument("--write", action="store_true", help=f"into {PAGE.relative_to(ROOT)}")
    options = parser.parse_args()
    wanted = options.formats.lower().split(",") if options.formats else None
    pictures = {name: make() for name, make in PICTURES.items()}
    candidates = [one for one in settings() if wanted is None or one.format.lower() in wanted]
    measure(candidates, pictures, options.rounds)
    photos = {name: image for name, image in pictures.items() if name in PHOTOS}
    steps = [one for one in curve() if wanted is None or one.format in wanted]
    measure(steps, photos, 0)
    conditions = (
        f"Pillow {PIL.__version__}, Python {platform.python_version()}, {_cpu()}; six pictures of 1024x1024, "
        f"median of {options.rounds} rounds (one for the slow settings).\n"
    )
    text = f"{conditions}\n{table(candidates, list(pictures))}"
    if steps:
        text += f"\nPhotographs by `output_compression`:\n\n{curve_table(steps, list(photos))}"
    if not options.write:
        print(text)
        return
    page = PAGE.read_text()
    head, _, rest = page.partition(BEGIN)
    PAGE.write_text(f"{head}{BEGIN}{text}{END}{rest.partition(END)[2]}")


def _cpu() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{len(names)} x {names[0]}" if names else platform.machine()


if __name__ == "__main__":
    main()
