"""What was measured, judged and written down: targets with verdicts, conditions, tables."""

from __future__ import annotations

import os
import platform
import statistics
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from bench.books import TARGETS
from bench.figures import TINY, Big, Flat, Slow, Start, Work
from bench.lanes import Lane
from bench.machine import ROOT

PAGE = ROOT / "bench" / "RESULTS.md"
BEGIN, END = "<!-- findings -->", "<!-- end of findings -->"
LIBRARIES = ("uvicorn", "uvloop", "httptools", "httpx2", "aiohttp", "fastapi", "pillow", "pybase64", "isal", "numpy")
_BUSY = (
    "CPU and ratios between contenders that took turns still tell something; latencies, starts and two encodes at once "
    "tell little, whatever their verdict."
)
_SPIN = "import time\nend = time.perf_counter() + 1\nwhile time.perf_counter() < end: pass\nprint(time.process_time())"


@dataclass(frozen=True, slots=True)
class Figure:
    """One row of the table of targets. `met` is None if this run cannot tell, and `why` says so."""

    what: str
    target: str
    measured: str
    met: bool | None
    why: str = ""

    def row(self) -> str:
        """Markdown."""
        if not self.target:
            return f"| {self.what} | – | {self.measured} | – |"
        verdict = {True: "met", False: "**not met**", None: "not judged"}[self.met]
        return f"| {self.what} | {self.target} | {self.measured} | {verdict}{f': {self.why}' if self.why else ''} |"


def free_cores() -> float:
    """How many of the cores that we may use are really ours now: what busy processes get within a second."""
    spinning = [
        subprocess.Popen([sys.executable, "-c", _SPIN], stdout=subprocess.PIPE) for _ in os.sched_getaffinity(0)
    ]
    return sum(float(one.communicate()[0]) for one in spinning)


@dataclass(slots=True)
class Conditions:
    """Of a run."""

    command: str
    began: datetime
    commit: str
    load: str
    free: list[float]

    @classmethod
    def now(cls, command: str) -> Conditions:
        """When it begins."""
        return cls(command, datetime.now(UTC), _commit(), _load(), [free_cores()])

    def show(self) -> str:
        """Markdown, when it ends."""
        self.free.append(free_cores())
        minutes = (datetime.now(UTC) - self.began).total_seconds() / 60
        cores = len(os.sched_getaffinity(0))
        rows = {
            "run": f"`{self.command}`, {self.began:%Y-%m-%d %H:%M} UTC, {minutes:.1f} minutes",
            "commit": self.commit,
            "machine": f"{cores} cores of {_cpu()}, {_memory():.0f} GB",
            "kernel": f"{platform.system()} {platform.release()}, {platform.machine()}",
            "Python": f"{platform.python_implementation()} {platform.python_version()}",
            "libraries": ", ".join(filter(None, map(_version, LIBRARIES))),
            "load average": f"{self.load} before, {_load()} after; it has the run itself in it afterwards",
            "cores that were free": f"{self.free[0]:.1f} of {cores} before, {self.free[-1]:.1f} after "
            "(what busy loops get: less than all of them means that others were at work)",
        }
        lines = ["| | |", "|---|---|", *(f"| {name} | {value} |" for name, value in rows.items())]
        if min(self.free) < 0.9 * cores:
            lines += ["", "**The machine was busy with other work.** " + _BUSY]
        return "\n".join(lines)


def _load() -> str:
    return " / ".join(f"{part:.1f}" for part in os.getloadavg())


def _commit() -> str:
    def git(*words: str) -> str:
        return subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, check=False).stdout.strip()

    changed = git("status", "--porcelain", "--untracked-files=no", "--", ".", ":!bench/RESULTS.md")
    return f"{git('rev-parse', '--short=12', 'HEAD') or 'unknown'}{' with changes' if changed else ''}"


def _cpu() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or "an unnamed CPU"


def _memory() -> float:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9


def _version(name: str) -> str:
    try:
        return f"{name} {version(name)}"
    except PackageNotFoundError:
        return ""


def judge_work(work: Work) -> list[Figure]:
    """CPU at concurrency 8 and latency at concurrency 1."""
    busy, single = work.busy, work.single
    found = [
        _against(busy, "url", "cpu", 2.0, "CPU per edit, 1.5 MB PNG in, `url` out, no conversion, concurrency 8"),
        _litellm(busy),
        _against(busy, "b64_json", "cpu", 2.5, "CPU per edit, the same, `b64_json` out (1 MP PNG)"),
        _against(single, "url", "p50", 2.0, "Latency at concurrency 1 (p50), `url`, upstream delay 0"),
        _against(single, "b64_json", "p50", 2.0, "Latency at concurrency 1 (p50), `b64_json`, upstream delay 0"),
    ]
    small, bare = busy["imagegate url, small result"], _tuned(busy, "url", "cpu")
    what = f"CPU per edit as in the first row, but the result is {TINY} pixels square"
    found.insert(2, Figure(what, "", f"{small.cpu:.2f} ms, {small.cpu / bare.cpu:.2f} x {bare.name}", None))
    return found


def _tuned(lanes: Mapping[str, Lane], answer: str, of: str) -> Lane:
    """The better of the two bare proxies."""
    return min((lanes[f"{name} {answer}"] for name in ("bare", "bare-aiohttp")), key=lambda lane: getattr(lane, of))


def _against(lanes: Mapping[str, Lane], answer: str, of: str, limit: float, what: str) -> Figure:
    ours, best = lanes[f"imagegate {answer}"], _tuned(lanes, answer, of)
    mine = getattr(ours, of)
    others = [(name, getattr(lanes[f"{name} {answer}"], of)) for name in ("bare", "bare-aiohttp")]
    measured = f"{mine:.2f} ms; " + "; ".join(f"{mine / other:.2f} x {name} ({other:.2f} ms)" for name, other in others)
    met = mine <= limit * getattr(best, of)
    return _sound([ours, best], Figure(what, f"≤ {limit:g} x the tuned bare proxy", measured, met))


def _litellm(busy: Mapping[str, Lane]) -> Figure:
    what, target = "the same against LiteLLM's fal path", "≤ 1/5"
    ours, other = busy["imagegate url"], busy.get("litellm")
    if other is None:
        return Figure(what, target, "not in this run", None, "`make bench-peers`")
    share = f"{ours.cpu:.2f} ms of {other.cpu:.2f} ms: 1/{other.cpu / ours.cpu:.1f}"
    return _sound([ours, other], Figure(what, target, share, ours.cpu <= other.cpu / 5))


def _sound(lanes: Sequence[Lane], figure: Figure) -> Figure:
    """A measurement in which answers failed tells nothing."""
    failed = sum(lane.failed for lane in lanes)
    return (
        figure if not failed else Figure(figure.what, figure.target, figure.measured, False, f"{failed} answers failed")
    )


def judge_slow(delays: Sequence[Slow]) -> list[Figure]:
    """Latency that the queue adds, and n: by the median of the delays."""
    added = statistics.median(one.added for one in delays)
    bare = statistics.median(one.bare / one.delay - 1 for one in delays)
    each = [one.ten / one.one for one in delays]
    times = statistics.median(each)
    by_delay = ", ".join(f"{one.delay:.3f} s: {100 * one.added:.1f} %" for one in delays)
    failures = sum(one.failed for one in delays)
    failed = f"{failures} answers failed" if failures else ""
    return [
        Figure(
            "Latency added when the upstream takes 2 s (queue, polling)",
            "≤ 5 %",
            f"{100 * added:.1f} % (by delay {by_delay}; bare, which calls synchronously: {100 * bare:.1f} %)",
            added <= 0.05 and not failed,
            failed,
        ),
        Figure(
            "n = 10 against n = 1, upstream 2 s a job",
            "≤ 1.15 x",
            f"{times:.3f} x (by delay {', '.join(f'{one:.3f}' for one in each)})",
            times <= 1.15 and not failed,
            failed,
        ),
    ]


def judge_encoders(sizes: Mapping[str, Sequence[Mapping]], others: float) -> list[Figure]:
    """The pool against Pillow, the loop meanwhile, and two at once. `others` = cores that were not ours meanwhile."""
    found = []
    for size, costs in sizes.items():
        walls = {one["format"]: one["wall"] / one["bare_wall"] for one in costs}
        cpus = {one["format"]: one["cpu"] / one["bare_cpu"] for one in costs}
        worst = max([*walls.values(), *cpus.values()])
        measured = ", ".join(f"{name} {walls[name]:.2f} ({cpus[name]:.2f})" for name in walls)
        what = f"Encoding a PNG of {size} against the bare encoder at the same settings: wall (CPU)"
        found.append(Figure(what, "≤ 1.1 x", measured, worst <= 1.1))
    every = [one for costs in sizes.values() for one in costs]
    lag = max(one["lag_p99"] for one in every)
    highest = max(one["lag_max"] for one in every)
    measured = f"{lag:.1f} ms (worst format; the longest of all {highest:.1f} ms)"
    found.append(Figure("Event loop's lag meanwhile, p99", "< 20 ms", measured, lag < 20))
    slowest, fastest = min(one["speed_up"] for one in every), max(one["speed_up"] for one in every)
    measured = f"two at once are {slowest:.2f} to {fastest:.2f} times as fast as one after the other"
    busy = "" if others < 0.1 else f"others used {others:.1f} cores meanwhile"
    found.append(Figure("Two encodes use two cores", "≥ 1.7 x", measured, None if busy else slowest >= 1.7, busy))
    return found


def judge_memory(big: Big, flat: Flat) -> list[Figure]:
    """Peak and growth."""
    above = big.most.rss - big.idle.rss
    failed = big.requests - big.statuses.get("200", 0)
    growth = flat.late.rss / flat.early.rss - 1
    peak = Figure(
        f"Peak memory, {big.requests} uploads of {big.size / 1e6:.0f} MB at once, whole process tree",
        "< 300 MB above idle",
        f"{above:.0f} MB RSS above {big.idle.rss:.0f} (PSS {big.most.pss - big.idle.pss:.0f}, anonymous "
        f"{big.most.anonymous - big.idle.anonymous:.0f}); {big.seconds:.1f} s",
        above < 300 and not failed,
        f"{failed} answers failed: {big.statuses}" if failed else "",
    )
    level = Figure(
        f"Memory after {flat.late_at:,} requests against after {flat.early_at:,}",
        "< 5 % growth (over 10,000)",
        f"{100 * growth:+.1f} % ({flat.early.rss:.1f} to {flat.late.rss:.1f} MB RSS, anonymous "
        f"{flat.early.anonymous:.1f} to {flat.late.anonymous:.1f}); files {flat.early_handles[0]} to "
        f"{flat.late_handles[0]}, threads {flat.early_handles[1]} to {flat.late_handles[1]}",
        growth < 0.05 and not flat.failed,
        f"{flat.failed} answers failed" if flat.failed else "",
    )
    return [peak, level]


def judge_books(rounds: Mapping[str, Sequence[float] | None]) -> list[Figure]:
    """Keys, limits, journal and log, by database."""
    found = []
    for name, costs in rounds.items():
        what, limit = f"CPU of auth, limits, reserve, settle and log a request, {name}", TARGETS[name]
        target = f"< {limit:g} ms"
        if costs is None:
            found.append(Figure(what, target, "not in this run", None, "it is not installed"))
            continue
        middle = statistics.median(costs)
        measured = f"{middle:.2f} ms ({min(costs):.2f} to {max(costs):.2f} by round); {middle / limit:.2f} x the target"
        found.append(Figure(what, target, measured, middle < limit))
    return found


def judge_starts(starts: Mapping[str, Start]) -> list[Figure]:
    """Start and idle memory."""
    ours = starts["imagegate"]
    seconds = f"{ours.first:.2f} s; to the end of the first edit {ours.first_edit:.2f} s"
    held = f"{ours.rss:.0f} MB RSS, {ours.pss:.0f} MB PSS"
    return [
        Figure("Start to first answer", "< 1.5 s", seconds, ours.first < 1.5),
        Figure("Idle memory", "< 90 MB", held, ours.rss < 90),
    ]


def lanes_table(lanes: Mapping[str, Lane]) -> str:
    """Every lane with its spread."""
    lines = [
        "| contender | CPU ms/request, median (lowest–highest round) | p50 ms | requests/s | answers | failed |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for name, lane in lanes.items():
        rate = sorted(lane.per_second)[len(lane.per_second) // 2]
        lines.append(
            f"| {name} | {lane.cpu:.2f} ({min(lane.cpu_ms):.2f}–{max(lane.cpu_ms):.2f}) | {lane.p50:.1f} "
            f"| {rate:.0f} | {sum(lane.statuses.values())} | {lane.failed} |"
        )
    return "\n".join(lines)


def starts_table(starts: Mapping[str, Start]) -> str:
    """By contender."""
    lines = [
        "| contender | first answer s | first edit s | idle RSS MB | idle PSS MB | starts |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    lines += [
        f"| {name} | {one.first:.2f} | {one.first_edit:.2f} | {one.rss:.0f} | {one.pss:.0f} | {len(one.seconds)} |"
        for name, one in starts.items()
    ]
    return "\n".join(lines)


def encoders_table(sizes: Mapping[str, Sequence[Mapping]]) -> str:
    """By size and format."""
    lines = [
        "| from | to | bare ms | pool ms | ratio | bare CPU | pool CPU | ratio | two at once | lag p50/p99/max ms |",
        "|---|---|---:|---:|---:|---:|---:|---:|---:|---|",
    ]
    for size, costs in sizes.items():
        lines += [
            f"| {size} | {one['format']} | {one['bare_wall']:.1f} | {one['wall']:.1f} "
            f"| {one['wall'] / one['bare_wall']:.2f} | {one['bare_cpu']:.1f} | {one['cpu']:.1f} "
            f"| {one['cpu'] / one['bare_cpu']:.2f} | {one['speed_up']:.2f} "
            f"| {one['lag_p50']:.1f} / {one['lag_p99']:.1f} / {one['lag_max']:.1f} |"
            for one in costs
        ]
    return "\n".join(lines)


def findings(page: str) -> str:
    """What stands between the markers of the page that is replaced."""
    _, found, rest = page.partition(BEGIN)
    if not found or END not in rest:
        return "\n"
    return rest.partition(END)[0]


def write(text: str, page: Path = PAGE) -> None:
    """The page; `{findings}` becomes what a person wrote into the last one."""
    before = page.read_text() if page.exists() else ""
    kept = text.replace("{findings}", f"{BEGIN}{findings(before)}{END}")
    scratch = page.with_suffix(".md.new")
    scratch.write_text(kept)
    scratch.replace(page)
