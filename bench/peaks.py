"""How much memory the gateway's whole process tree takes at its worst, and how long its loop keeps others waiting.

    python -m bench.peaks [CASE …]

Every case has a fresh gateway. RSS and PSS are those of the process tree together, looked at every 20 ms; meanwhile
somebody asks for /healthz, a connection of its own each time, as a load balancer does.
"""

from __future__ import annotations

import http.client
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

from PIL import Image, ImageDraw

from bench.contenders import IMAGEGATE, fire, upstream
from bench.lanes import raised
from bench.load import multipart
from bench.machine import Memory, memory, peak
from bench.pictures import jpeg, noise, photo, png

LIMIT = 512.0  # MB for the process tree (reliability Q1)
_SETTLE = 1.0
_EVERY = 0.02
_FIELDS = {"model": "qwen-image-edit-2509", "prompt": "Make it autumn.", "response_format": "url"}
Request = tuple[bytes, dict[str, str]]


@dataclass(frozen=True, slots=True)
class Case:
    """One kind of load: `make` builds the request, `count` connections send it once each."""

    name: str
    make: Callable[[], Request]
    count: int = 1
    side: int = 1024  # of the results
    refused: bool = False  # a 4xx is what it shall get


@dataclass(frozen=True, slots=True)
class Peak:
    """What a case took."""

    case: Case
    idle: Memory
    most: Memory
    statuses: dict[str, int]
    seconds: float
    health: list[float]  # seconds, sorted

    @property
    def answered(self) -> bool:
        """Every request, and as it should be."""
        good = sum(times for status, times in self.statuses.items() if status[0] == ("4" if self.case.refused else "2"))
        return good == self.case.count


def _edit(picture: bytes, mask: bytes = b"", **fields: str) -> Request:
    return multipart({**_FIELDS, **fields}, picture, more={"mask": mask} if mask else {})


def _side(megapixels: int) -> int:
    return int((megapixels * 1e6) ** 0.5)


def _mask(side: int) -> bytes:
    """RGBA, a clear disc with a soft edge: what a painting program saves."""
    alpha = Image.new("L", (side // 8, side // 8), 255)
    ImageDraw.Draw(alpha).ellipse((side // 40, side // 40, side // 10, side // 10), fill=0)
    alpha = alpha.resize((side, side))
    return png(Image.merge("RGBA", (alpha, alpha, alpha, alpha)), 1)


def masked(megapixels: int, **fields: str) -> Request:
    """A camera's JPEG and a mask of its size."""
    side = _side(megapixels)
    return _edit(jpeg(photo(side), 90), _mask(side), **fields)


def bomb(megapixels: int) -> Request:
    """A PNG of a hundred kilobytes that is all one colour, and a mask like it: `masked` for nothing."""
    side = _side(megapixels)
    flat = png(Image.new("RGB", (side, side), "red"), 9)
    return _edit(flat, png(Image.new("L", (side, side), 255), 9), output_format="webp")


def scans(megapixels: int, count: int) -> Request:
    """A progressive JPEG of many scans, and a mask."""
    side = _side(megapixels)
    return _edit(many_scans(side, side, count), _mask(side))


def many_scans(width: int, height: int, count: int) -> bytes:
    """A progressive JPEG with `count` scans: the last that Pillow writes is repeated."""
    from io import BytesIO

    out = BytesIO()
    Image.effect_noise((256, 256), 90).resize((width, height), Image.Resampling.NEAREST).convert("RGB").save(
        out, "JPEG", quality=30, progressive=True
    )
    data = out.getvalue()
    starts = [at for at in range(len(data) - 1) if data[at : at + 2] == b"\xff\xda"]
    # its Huffman table goes with it
    table = data.rfind(b"\xff\xc4", 0, starts[-1])
    last = data[table if table > starts[-2] else starts[-1] : -2]
    return data[:-2] + last * (count - len(starts)) + b"\xff\xd9"


def ten(format: str) -> Request:
    """Ten pictures of 4 megapixels, all to be converted."""
    return _edit(png(photo()), n="10", size="2048x2048", output_format=format)


CASES = (
    Case("masked edit, 20 MP", partial(masked, 20)),
    Case("masked edit, 40 MP", partial(masked, 40)),
    Case("masked edit, 20 MP, a result of 4 MP, webp", partial(masked, 20, output_format="webp"), side=2048),
    Case("masked edit, 40 MP, avif", partial(masked, 40, output_format="avif"), refused=True),
    Case("4 masked edits at once, 20 MP", partial(masked, 20), count=4),
    Case("n = 10, avif, 2048x2048", partial(ten, "avif"), side=2048),
    Case("n = 10, webp, 2048x2048", partial(ten, "webp"), side=2048),
    Case("64 uploads of 20 MB", lambda: _edit(noise(20_000_000)), count=64),
    Case("256 connections x 1.5 MB", lambda: _edit(png(photo())), count=256),
    Case("8 bombs: PNG of 40 MP with a mask", partial(bomb, 40), count=8),
    Case("JPEG of 40 MP in 30 scans, with a mask", partial(scans, 40, 30), refused=True),
)


@contextmanager
def _watched(url: str) -> Iterator[list[float]]:
    """How long /healthz takes, again and again, until the block ends."""
    host, _, port = url.removeprefix("http://").partition(":")
    found: list[float] = []
    over = threading.Event()

    def ask() -> None:
        while not over.wait(0.01):
            connection = http.client.HTTPConnection(host, int(port), timeout=30)
            began = time.perf_counter()
            try:
                connection.request("GET", "/healthz")
                connection.getresponse().read()
            finally:
                found.append(time.perf_counter() - began)
                connection.close()

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    try:
        yield found
    finally:
        over.set()
        thread.join()
        found.sort()


def measure(case: Case) -> Peak:
    """On a gateway of its own."""
    body, headers = case.make()
    with upstream(side=case.side) as base, raised("64MiB") as gateway, gateway.started(base) as (process, url):
        time.sleep(_SETTLE)
        idle = memory(process.pid)
        with peak(process.pid, _EVERY) as most, _watched(url) as health:
            result = fire(url + IMAGEGATE.path, body, headers, case.count, case.count)
        return Peak(case, idle, most, result["statuses"], result["seconds"], health)


def table(peaks: list[Peak]) -> str:
    """Markdown."""
    lines = [
        "| load | idle RSS MB | peak RSS MB | peak PSS MB | s | /healthz p99 / max ms | answers |",
        "|---|---:|---:|---:|---:|---|---|",
    ]
    for one in peaks:
        answers = ", ".join(f"{times} x {status}" for status, times in one.statuses.items())
        p99 = one.health[int(0.99 * (len(one.health) - 1))]
        lines.append(
            f"| {one.case.name} | {one.idle.rss:.0f} | {one.most.rss:.0f} | {one.most.pss:.0f} | {one.seconds:.1f} "
            f"| {1000 * p99:.0f} / {1000 * one.health[-1]:.0f} | {answers} |"
        )
    return "\n".join(lines)


def main() -> None:
    words = sys.argv[1:]
    cases = [case for case in CASES if not words or any(word in case.name for word in words)]
    print(table([measure(case) for case in cases]))


if __name__ == "__main__":
    main()
