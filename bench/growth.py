"""How cost grows with the upload's size, with n, and with concurrency; prints Markdown.

    python -m bench.growth --rounds 3

Every row has a fresh gateway, so that its peak of memory is its own; the bare proxy is given the same in turns.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass

from bench.contenders import BARE, IMAGEGATE, upstream
from bench.figures import SETTLE
from bench.lanes import Field, Lane, field_of, raised
from bench.machine import memory, peak
from bench.pictures import noise, photo, png

SIZES = (0.1, 0.5, 1.5, 5, 10, 20, 50)  # MB
COUNTS = (1, 2, 4, 10)
CONCURRENCIES = (1, 4, 16, 64, 256)
NOTES = """\
Every row has a fresh gateway, and the bare proxy (httpx2) takes turns with it; peak RSS is that of the gateway's
process tree. Uploads in the first table are noise, so that files have the size that they should; 50 MB is above the
shipped limits, which were raised for that row. Results are 1.5 MB: the gateway downloads and stores each, the bare
proxy none, whatever n says."""
ROOMY = {"IMAGEGATE_LIMITS_IMAGE_BYTES": "64MiB", "IMAGEGATE_LIMITS_BODY_BYTES": "128MiB"}


@dataclass(frozen=True, slots=True)
class Point:
    """One row."""

    at: float
    ours: Lane
    bare: Lane
    idle: float  # MB, RSS of the process tree
    most: float

    @property
    def above(self) -> float:
        """Megabytes above idle."""
        return self.most - self.idle


def _point(at: float, lanes: Callable[[Field], tuple[Lane, Lane]], rounds: int, concurrency: int) -> Point:
    with field_of() as all:
        ours, bare = lanes(all)
        time.sleep(SETTLE)
        idle = memory(ours.pid).rss
        most = 0.0
        for lane in (ours, bare):
            lane.warm(min(concurrency, 4), 4)
        for _ in range(rounds):
            with peak(ours.pid) as seen:
                ours.turn(concurrency)
            most = max(most, seen.rss)
            bare.turn(concurrency)
        return Point(at, ours, bare, idle, most)


def by_size(rounds: int, every: int) -> list[Point]:
    """Four at once; noise, so that a file has the size that it should."""
    found = []
    with upstream() as base:
        for size in SIZES[::every]:
            picture = noise(int(size * 1e6))
            count = max(8, min(80, int(160 / size)))
            with raised("64MiB", ROOMY) if size > 20 else nullcontext(IMAGEGATE) as gateway:

                def lanes(all: Field, gateway=gateway, picture=picture, count=count) -> tuple[Lane, Lane]:
                    return tuple(all.lane(one, base, picture=picture, count=count) for one in (gateway, BARE))

                found.append(_point(size, lanes, rounds, 4))
    return found


def by_n(rounds: int, every: int) -> list[Point]:
    """One request at a time, the 1.5 MB photograph; the bare proxy knows no n and makes one picture."""
    found = []
    with upstream() as base:
        for n in COUNTS[:: 3 if every > 1 else 1]:

            def lanes(all: Field, n=n) -> tuple[Lane, Lane]:
                return all.lane(IMAGEGATE, base, {"n": str(n)}, count=max(60 // n, 10)), all.lane(BARE, base, count=40)

            found.append(_point(n, lanes, rounds, 1))
    return found


def by_concurrency(rounds: int, every: int) -> list[Point]:
    """The 1.5 MB photograph."""
    found = []
    with upstream() as base:
        for concurrency in CONCURRENCIES[::every]:
            count = max(80, 2 * concurrency)

            def lanes(all: Field, count=count) -> tuple[Lane, Lane]:
                return tuple(all.lane(one, base, picture=png(photo()), count=count) for one in (IMAGEGATE, BARE))

            found.append(_point(concurrency, lanes, rounds, concurrency))
    return found


def table(name: str, points: list[Point]) -> str:
    """Markdown."""
    lines = [
        f"| {name} | CPU ms/request | bare | ratio | p50 ms | bare | requests/s | peak RSS MB | above idle | not 200 |",
        "|---:|---:|---:|---:|---:|---:|---:|---:|---:|---|",
    ]
    for one in points:
        failed = [f"{times} x {status}" for status, times in one.ours.statuses.items() if status != "200"]
        rate = statistics.median(one.ours.per_second)
        lines.append(
            f"| {one.at:g} | {one.ours.cpu:.1f} | {one.bare.cpu:.1f} | {one.ours.cpu / one.bare.cpu:.2f} "
            f"| {one.ours.p50:.1f} | {one.bare.p50:.1f} | {rate:.1f} | {one.most:.0f} "
            f"| {one.above:.0f} | {', '.join(failed) or '0'} |"
        )
    return "\n".join(lines)


def sections(rounds: int, every: int = 1) -> str:
    """The three tables with their headings; every 2: about every second row."""
    parts = (
        ("With the size of the upload (MB; concurrency 4)", "MB", by_size),
        ("With n (1.5 MB; concurrency 1)", "n", by_n),
        ("With concurrency (1.5 MB)", "concurrency", by_concurrency),
    )
    return "\n\n".join(f"### {title}\n\n{table(name, measure(rounds, every))}" for title, name, measure in parts)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=3)
    print(sections(parser.parse_args().rounds))


if __name__ == "__main__":
    main()
