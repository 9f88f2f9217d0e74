"""What a picture costs through the pool, against Pillow alone at the same settings; prints markdown.

    python -m bench.encoders --rounds 9

Bare and pooled runs take turns, so that other work on the machine hits both, and medians are compared. CPU of the pool
is that of this process and of its children together. The loop's lag is how late a timer of 1 ms fires while two
pictures are being encoded without pause.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import time
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass
from io import BytesIO
from pathlib import Path

import uvloop
from PIL import Image, ImageChops, ImageFilter

from app.formats import ImageFormat
from app.media.blob import MemoryBlob
from app.media.encode import DEFAULT_QUALITY, encode
from app.media.finish import Finished, begin_finishing
from app.media.pixels import Decode, Encode, Job, Picture, Pixels
from app.media.png import write_png
from app.media.pool import MediaPool, cores
from app.media.workers import Workers
from app.types import Delivery

SAMPLE = Path(__file__).parents[1] / "app" / "samples" / "coffee.jpg"
SIZES = {"1 MP": (1224, 816), "4 MP": (2448, 1632)}
FORMATS: tuple[ImageFormat, ...] = ("jpeg", "webp", "avif", "gif", "png")


def photo(size: tuple[int, int]) -> bytes:
    """A PNG of a photograph: the sample enlarged, with its own fine detail laid over at its own scale."""
    with Image.open(SAMPLE) as file:
        sample = file.convert("RGB")
    tiles = Image.new("RGB", size)
    for x in range(0, size[0], sample.width):
        for y in range(0, size[1], sample.height):
            tiles.paste(sample.transpose(Image.Transpose((x + y) // 200 % 7)).resize(sample.size), (x, y))
    detail = ImageChops.subtract(tiles, tiles.filter(ImageFilter.GaussianBlur(2)), offset=128)
    large = ImageChops.add(sample.resize(size, Image.Resampling.LANCZOS), detail, offset=-128)
    out = BytesIO()
    large.save(out, "PNG", compress_level=6)
    return out.getvalue()


def bare(data: bytes, format: ImageFormat) -> bytes:
    """Pillow alone. What Pillow has no words for (our PNG writer, our palette) is called directly."""
    with Image.open(BytesIO(data)) as image:
        image.load()
        if format == "png":
            return write_png(image)
        if format == "gif":
            return encode(image, format)
        out = BytesIO()
        settings: dict[str, object] = {
            "jpeg": {"subsampling": "4:2:0"},
            "webp": {"method": 2},
            "avif": {"speed": 9, "max_threads": 1, "subsampling": "4:2:0", "range": "full"},
        }[format]
        image.save(out, format.upper(), quality=DEFAULT_QUALITY[format], **settings)
        return out.getvalue()


@dataclass(frozen=True, slots=True)
class Cost:
    """Milliseconds, medians."""

    format: str
    bare_wall: float
    wall: float
    bare_cpu: float
    cpu: float
    speed_up: float  # of two at once against one after the other
    lag_p50: float
    lag_p99: float
    lag_max: float

    def row(self) -> str:
        """Of main's table."""
        return (
            f"| {self.format} | {self.bare_wall:.1f} | {self.wall:.1f} | **{self.wall / self.bare_wall:.2f}** "
            f"| {self.bare_cpu:.1f} | {self.cpu:.1f} | **{self.cpu / self.bare_cpu:.2f}** | {self.speed_up:.2f} "
            f"| {self.lag_p50:.1f} / {self.lag_p99:.1f} / {self.lag_max:.1f} |"
        )


class Pooled:
    """The pool as the gateway has it."""

    def __init__(self) -> None:
        self.workers = Workers(cores())
        self.pool = MediaPool(workers=self.workers)

    async def run(self, data: bytes, format: ImageFormat, size: tuple[int, int]) -> bytes:
        """As a provider's result."""
        if format == "png":  # what is a PNG already would be left as it is
            picture = Picture(data, size[0] * size[1], "It", None, "png", size[0] * size[1])
            return await self.pool.work(Pixels(Job((picture,), (Decode(0), Encode("png"))), lambda done: done.data))
        done: Finished = await self.pool.run_owed(begin_finishing, MemoryBlob(data), Delivery(format=format), 0)
        return done.blob.read()

    def cpu(self) -> float:
        """Seconds of this process and its children."""
        spent = [Path(f"/proc/{pid}/schedstat").read_text().split()[0] for pid in self.workers.pids]
        return time.process_time() + sum(map(int, spent)) / 1e9


async def ticks(lags: list[float]) -> None:
    """Each timer's lateness in milliseconds, until cancelled."""
    while True:
        due = time.perf_counter() + 0.001
        await asyncio.sleep(0.001)
        lags.append((time.perf_counter() - due) * 1000)


async def timed(work: Callable[[], Awaitable[object]]) -> float:
    started = time.perf_counter()
    await work()
    return (time.perf_counter() - started) * 1000


async def measure(pooled: Pooled, data: bytes, size: tuple[int, int], format: ImageFormat, rounds: int) -> Cost:
    """Bare and pooled, in turns."""
    alone: list[tuple[float, float]] = []
    through: list[tuple[float, float]] = []
    pairs: list[float] = []
    lags: list[float] = []

    async def one() -> bytes:
        return await pooled.run(data, format, size)

    async def two() -> None:
        await asyncio.gather(one(), one())

    await two()  # children are warm
    for _ in range(rounds):
        cpu, wall = time.process_time(), time.perf_counter()
        expected = bare(data, format)
        alone.append(((time.perf_counter() - wall) * 1000, (time.process_time() - cpu) * 1000))
        cpu = pooled.cpu()
        wall = await timed(one)
        through.append((wall, (pooled.cpu() - cpu) * 1000))
        pairs.append(await timed(two))
    assert len(await one()) == len(expected)
    ticker = asyncio.create_task(ticks(lags))
    end = time.perf_counter() + 1.0
    while time.perf_counter() < end:
        await two()
    ticker.cancel()
    bare_wall, bare_cpu = (statistics.median(part) for part in zip(*alone, strict=True))
    wall, cpu = (statistics.median(part) for part in zip(*through, strict=True))
    lags.sort()
    p50, p99, worst = lags[len(lags) // 2], lags[len(lags) * 99 // 100], lags[-1]
    speed_up = 2 * wall / statistics.median(pairs)
    return Cost(format, bare_wall, wall, bare_cpu, cpu, speed_up, p50, p99, worst)


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9, help="runs of each kind")
    parser.add_argument("--formats", nargs="*", default=FORMATS, choices=FORMATS)
    parser.add_argument("--sizes", nargs="*", default=list(SIZES), choices=list(SIZES))
    parser.add_argument("--json", action="store_true", help="one line: the size's name -> costs")
    chosen = parser.parse_args()
    pooled = Pooled()
    if chosen.json:
        found = {
            name: [
                asdict(await measure(pooled, photo(SIZES[name]), SIZES[name], format, chosen.rounds))
                for format in chosen.formats
            ]
            for name in chosen.sizes
        }
        pooled.pool.close()
        print(json.dumps(found))
        return
    for name in chosen.sizes:
        data = photo(SIZES[name])
        print(f"\n**{name}**: {SIZES[name][0]}x{SIZES[name][1]}, a PNG of {len(data) / 1e6:.1f} MB; ms\n")
        print(
            "| to | bare wall | pool wall | ratio | bare CPU | pool CPU | ratio | speed-up of two | lag p50/p99/max |"
        )
        print("|---|---|---|---|---|---|---|---|---|")
        for format in chosen.formats:
            print((await measure(pooled, data, SIZES[name], format, chosen.rounds)).row(), flush=True)
    pooled.pool.close()


if __name__ == "__main__":
    uvloop.run(main())
