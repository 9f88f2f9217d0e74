"""Everything that bench/RESULTS.md says, measured and written anew: `make bench`, `make bench-peers`.

    python -m bench.run [--quick] [--peers] [--print] [SECTION …]

One machine, one run: contenders take turns (bench.lanes), medians are compared, CPU is the kernel's own count of whole
process trees. Sections that were not asked for are left out of the page, so a part of a run is printed, not written.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from typing import TypeVar

from bench import figures, growth, report
from bench.contenders import LITELLM

SECTIONS = ("work", "slow", "encoders", "books", "memory", "starts", "growth")
T = TypeVar("T")

TEMPLATE = """# What imagegate costs

Written by `make bench` (`bench/run.py`); with `make bench-peers` LiteLLM and a naive FastAPI proxy are measured too.
Contenders run on one machine before one upstream that costs nothing (`bench/upstream.py`), one process each, and take
turns: A B A B …; the numbers are medians of rounds. CPU is user and system time of the whole process tree.

{conditions}

## Against the targets

| figure | target | measured | verdict |
|---|---|---|---|
{targets}

{notes}

## What was found and what it gained

{findings}

## All the numbers

{numbers}
"""

NOTES = """\
- *The tuned bare proxy* is `bench/bare.py`: it checks nothing, writes nothing down, calls fal's synchronous endpoint
  once and trusts what comes. It is measured with httpx2 (`bare`, the gateway's own client) and with aiohttp
  (`bare-aiohttp`); verdicts are against the cheaper of the two.
- **The rows with `url` are not like for like.** A loopback upstream's URL is not public https, so the gateway cannot
  hand it on: it downloads the 1.5 MB result, looks at it, stores it and signs a link, where the bare proxy (and
  LiteLLM) pass the URL through and never see the picture. The row with the small result shows what is left without
  its bytes.
- The gateway submits to the queue, asks for the status and collects: three requests to the upstream (a fourth for
  the picture) where the bare proxy and LiteLLM make one.
- Auth, limits, reserve, settle and log: `bench/books.py`, without HTTP and pictures, one picture a request, a key with
  budgets and limits, eight at once; all threads of the gateway's process, not the database server's.
- Memory over many requests: small pictures (12 KB in, {tiny} pixels square out), half `url`, half `b64_json`, eight
  at once, one gateway; judged on RSS."""


def measured(name: str, measure: Callable[..., T], *words: object) -> T:
    """measure(*words), with a line on standard error."""
    began = time.monotonic()
    sys.stderr.write(f"{name} … ")
    sys.stderr.flush()
    found = measure(*words)
    sys.stderr.write(f"{time.monotonic() - began:.0f} s\n")
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("sections", nargs="*", metavar="SECTION", help=f"of {', '.join(SECTIONS)}; all")
    parser.add_argument("--quick", action="store_true", help="fewer rounds: about four minutes, and less sure")
    parser.add_argument("--peers", action="store_true", help="LiteLLM and a naive proxy too")
    parser.add_argument("--print", action="store_true", help="to standard output instead of bench/RESULTS.md")
    options = parser.parse_args()
    if unknown := set(options.sections) - set(SECTIONS):
        parser.error(f"no such section: {', '.join(sorted(unknown))}")
    if options.peers and not LITELLM.installed:
        parser.error("LiteLLM is not installed: make bench-peers")
    effort = figures.QUICK if options.quick else figures.FULL
    sections = options.sections or SECTIONS
    partial = options.print or bool(options.sections)
    conditions = report.Conditions.now(" ".join(["python -m bench.run", *sys.argv[1:]]))
    targets: list[report.Figure] = []
    numbers: list[str] = []
    if "work" in sections:
        work = measured("CPU and latency", figures.work, effort, options.peers)
        targets += report.judge_work(work)
        numbers += ["### CPU, concurrency 8", report.lanes_table(work.busy)]
        numbers += ["### One at a time", report.lanes_table(work.single)]
    if "slow" in sections:
        targets += report.judge_slow(measured("slow upstream", figures.slow, effort))
    if "encoders" in sections:
        sizes, others = measured("encoders", figures.encoders, effort)
        targets += report.judge_encoders(sizes, others)
        numbers += ["### Encoding", report.encoders_table(sizes)]
    if "books" in sections:
        targets += report.judge_books(measured("books", figures.books, effort))
    if "memory" in sections:
        big = measured("big uploads", figures.big)
        flat = measured("many requests", figures.flat, effort)
        targets += report.judge_memory(big, flat)
        steps = ", ".join(f"{done:,}: {rss:.1f}" for done, rss in flat.steps)
        numbers += ["### Memory over many requests", f"RSS in MB after so many requests: {steps}."]
    if "starts" in sections:
        starts = measured("starts", figures.starts, effort, options.peers)
        targets += report.judge_starts(starts)
        numbers += ["### Start and idle memory", report.starts_table(starts)]
    if "growth" in sections:
        heading = f"## How cost grows\n\n{growth.NOTES}"
        numbers += [heading, measured("growth", growth.sections, effort.growth, effort.every)]
    page = TEMPLATE.format(
        conditions=conditions.show(),
        targets="\n".join(figure.row() for figure in targets),
        notes=NOTES.format(tiny=figures.TINY),
        findings="(not here)" if partial else "{findings}",
        numbers="\n\n".join(numbers),
    )
    if partial:
        print(page)
    else:
        report.write(page)
        sys.stderr.write(f"{report.PAGE.relative_to(report.ROOT)} is written\n")


if __name__ == "__main__":
    main()
