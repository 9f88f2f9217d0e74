"""The measurements behind the targets. Each returns numbers; bench.run judges them and writes them down."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass, field

from bench.contenders import BARE, BARE_AIOHTTP, IMAGEGATE, LITELLM, NAIVE, Contender, fire, upstream
from bench.lanes import Lane, field_of, take_turns
from bench.machine import ROOT, Memory, busy_seconds, cpu_seconds, handles, memory, peak
from bench.pictures import noise

TINY = 64  # the side of a result that weighs next to nothing
SETTLE = 1.0  # seconds from the first answer until memory is called idle
BIG = 20_000_000  # bytes of an upload


@dataclass(frozen=True, slots=True)
class Effort:
    """How much is measured."""

    rounds: int = 4
    count: int = 160  # requests a round
    single: int = 40  # requests a round, one at a time
    slow: int = 2  # rounds of requests that take two seconds each, by delay
    encodes: int = 7
    starts: int = 5
    flat: int = 10_000
    growth: int = 3  # rounds
    books: int = 1000  # requests a round
    every: int = 1  # 2: about every second of growth's rows


FULL = Effort()
QUICK = Effort(rounds=3, count=80, single=25, slow=1, encodes=3, starts=3, flat=2_000, books=400, growth=1, every=2)


@dataclass(slots=True)
class Work:
    """CPU at concurrency 8, and latency at concurrency 1; by "contender answer"."""

    busy: dict[str, Lane] = field(default_factory=dict)
    single: dict[str, Lane] = field(default_factory=dict)


def work(effort: Effort, peers: bool) -> Work:
    """One process of each contender, all before the same upstream."""
    found = Work()
    with upstream() as base, upstream(side=TINY) as tiny, field_of() as all:
        for kind, concurrency, lanes in (("busy", 8, found.busy), ("single", 1, found.single)):
            count = effort.count if kind == "busy" else effort.single
            for answer in ("url", "b64_json"):
                for contender in (IMAGEGATE, BARE, BARE_AIOHTTP):
                    name = f"{contender.name} {answer}"
                    lanes[name] = all.lane(contender, base, {"response_format": answer}, count=count, name=name)
            name = "imagegate url, small result"
            lanes[name] = all.lane(IMAGEGATE, tiny, {"response_format": "url"}, count=count, name=name)
            if peers:
                name = "naive url"
                lanes[name] = all.lane(NAIVE, base, {"response_format": "url"}, count=max(count // 2, 20), name=name)
                lanes["litellm"] = all.lane(LITELLM, base, count=max(count // 4, 10))
            take_turns(list(lanes.values()), effort.rounds, concurrency)
    return found


@dataclass(frozen=True, slots=True)
class Slow:
    """Seconds of one request at a time; its jobs take `delay`."""

    delay: float
    one: float
    ten: float  # n = 10
    bare: float
    failed: int

    @property
    def added(self) -> float:
        """Share of the delay."""
        return self.one / self.delay - 1


def slow(effort: Effort) -> list[Slow]:
    """The queue with its polling, by delay; n = 10 are ten jobs at once.

    How long a job is done before the next poll asks is luck with one delay, so there are three.
    """
    found = []
    for delay in (1.967, 2.0, 2.033):
        with upstream(delay) as base, field_of() as all:
            one = all.lane(IMAGEGATE, base, {"n": "1"}, count=1)
            ten = all.lane(IMAGEGATE, base, {"n": "10"}, count=1)
            bare = all.lane(BARE, base, count=1)
            one.warm(1, 1)
            for _ in range(effort.slow):
                for lane in (one, ten, bare):
                    lane.turn(1)
        failed = one.failed + ten.failed + bare.failed
        found.append(Slow(delay, one.p50 / 1000, ten.p50 / 1000, bare.p50 / 1000, failed))
    return found


def encoders(effort: Effort) -> tuple[dict[str, list[dict]], float]:
    """bench.encoders: size -> costs by format; and how many cores others used meanwhile."""
    began, before, own = time.perf_counter(), busy_seconds(), cpu_seconds(os.getpid())
    command = [sys.executable, "-m", "bench.encoders", "--json", f"--rounds={effort.encodes}"]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True, cwd=ROOT, timeout=300)
    others = busy_seconds() - before - (cpu_seconds(os.getpid()) - own)
    return json.loads(done.stdout), max(0.0, others / (time.perf_counter() - began))


def books(effort: Effort) -> dict[str, list[float] | None]:
    """bench.books: milliseconds of CPU a request by database, a figure a round; None: it is not installed."""
    command = [sys.executable, "-m", "bench.books", "--json", f"--requests={effort.books}"]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True, cwd=ROOT, timeout=300)
    return json.loads(done.stdout)


@dataclass(frozen=True, slots=True)
class Big:
    """Many big uploads at once."""

    idle: Memory
    most: Memory
    size: int
    requests: int
    statuses: dict[str, int]
    seconds: float


def big(concurrency: int = 64) -> Big:
    """Each connection sends 20 MB once; the whole process tree is looked at every 50 ms."""
    picture = noise(BIG)
    with upstream() as base, IMAGEGATE.started(base) as (process, url):
        time.sleep(SETTLE)
        idle = memory(process.pid)
        body, headers = IMAGEGATE.request(picture, {"response_format": "url"})
        with peak(process.pid) as most:
            result = fire(url + IMAGEGATE.path, body, headers, concurrency, concurrency)
        return Big(idle, most, len(picture), result["requests"], result["statuses"], result["seconds"])


@dataclass(frozen=True, slots=True)
class Flat:
    """What is held after some requests and after many."""

    early_at: int
    late_at: int
    early: Memory
    late: Memory
    early_handles: tuple[int, int]
    late_handles: tuple[int, int]
    failed: int
    steps: list[tuple[int, float]]  # requests -> RSS


def flat(effort: Effort, early: int = 1_000, batch: int = 250) -> Flat:
    """Small pictures, half of them answered by URL and half in base64."""
    failed, marks, steps = 0, [], []
    with upstream(side=TINY) as base, field_of() as all:
        lanes = [
            all.lane(IMAGEGATE, base, {"response_format": answer}, picture=noise(12_000), count=batch)
            for answer in ("url", "b64_json")
        ]
        for number in range(effort.flat // batch):
            lane = lanes[number % 2]
            lane.turn(8)
            done = (number + 1) * batch
            if done % 1_000 == 0:
                steps.append((done, memory(lane.pid).rss))
            if done in (early, effort.flat):
                time.sleep(SETTLE)  # connections of the last batch are gone
                marks.append((done, memory(lane.pid), handles(lane.pid)))
        failed = sum(lane.failed for lane in lanes)
    (early_at, early_memory, early_handles), (late_at, late_memory, late_handles) = marks
    return Flat(early_at, late_at, early_memory, late_memory, early_handles, late_handles, failed, steps)


@dataclass(slots=True)
class Start:
    """Of one contender, by start."""

    seconds: list[float] = field(default_factory=list)  # to the first answer at all
    edit: list[float] = field(default_factory=list)  # to the end of the first edit

    idle: list[Memory] = field(default_factory=list)

    @property
    def first(self) -> float:
        """Seconds, the median."""
        return statistics.median(self.seconds)

    @property
    def first_edit(self) -> float:
        """Seconds, the median."""
        return statistics.median(self.edit)

    @property
    def rss(self) -> float:
        """Megabytes, the median, a second after the first answer."""
        return statistics.median(one.rss for one in self.idle)

    @property
    def pss(self) -> float:
        """Likewise."""
        return statistics.median(one.pss for one in self.idle)


def starts(effort: Effort, peers: bool) -> dict[str, Start]:
    """From the process's birth, in turns."""
    contenders: list[Contender] = [IMAGEGATE, BARE, *([NAIVE] if peers else [])]
    found = {one.name: Start() for one in contenders}
    with upstream() as base:
        for _ in range(effort.starts):
            for contender in contenders:
                _start(contender, base, found[contender.name])
        if peers:  # it takes half a minute
            found[LITELLM.name] = Start()
            _start(LITELLM, base, found[LITELLM.name])
    return found


def _start(contender: Contender, base: str, into: Start) -> None:
    body, headers = contender.request(noise(12_000))
    began = time.perf_counter()
    with contender.started(base) as (process, url):
        into.seconds.append(time.perf_counter() - began)
        time.sleep(SETTLE)
        into.idle.append(memory(process.pid))
        again = time.perf_counter()
        fire(url + contender.path, body, headers, 1, 1)
        into.edit.append(into.seconds[-1] + time.perf_counter() - again)
