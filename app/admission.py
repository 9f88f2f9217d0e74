"""How many upstream jobs run at once, per provider and per caller, and in which order the others take their turn.

Each provider has one queue. Callers take turns in it, and within a caller first come is first served: a caller with a
thousand jobs waiting delays another one's job by one of its own. A caller at their own limit is passed over until one
of their jobs ends, so nobody waits behind them. Every grant is O(1); a caller with no job leaves no trace.

How many jobs one caller may run at once can be shared by several gateways (`Places`). Everything else is this
process's: who finds no place there waits here, at the head of the caller's line.

The queue is bounded by `check`, before a request is worked on; `slot` itself never refuses, because by then work was
put in. The bound counts who waits now, not who is being prepared: so it is checked again just before the slots are
asked for, or a crowd that came at one moment would all have found the queue empty.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Protocol

from app.errors import RateLimited
from providers.base import Clock

# A caller may have at most this many times as many jobs waiting as there are places left. So a single one fills four
# fifths of a long queue and never all of it: a fair queue is of no use to those who find it full. (Choudhury and
# Hahne's dynamic threshold, by which switches share their buffers.) A queue of up to 5 is anybody's.
SHARE = 4

SMOOTHING = 1 / 8  # weight of the newest job in the average of durations, as for TCP's round trips (RFC 6298)
FIRST_GUESS_SECONDS = 10.0  # a job's duration before any has ended
PLACE_SECONDS = 0.2  # until those whom other gateways left no place ask again
RETRY_LEAST, RETRY_MOST = 1.0, 120.0  # OpenAI's SDK obeys Retry-After up to 120 s, above that it gives up


class Places(Protocol):
    """Who of several gateways runs how many jobs of a caller at a provider. Must not raise: one that cannot reach what
    it shares lets everybody in."""

    def name(self) -> str:
        """A new place's name."""

    async def take(self, provider: str, caller: str, most: int, place: str) -> bool:
        """Take a place, if fewer than `most` are taken. Also who is cancelled meanwhile has to `leave` it."""

    def leave(self, provider: str, caller: str, place: str) -> None:
        """It is free, if it was taken. Returns at once."""


class _Line:
    """One caller's jobs at one provider."""

    __slots__ = ("barred", "most", "running", "waiting")

    def __init__(self, most: int) -> None:
        self.most = most  # jobs at once; 0 = no limit
        self.barred = False  # for a moment: other gateways' jobs have all places
        self.running = 0
        self.waiting: OrderedDict[asyncio.Future[float], None] = OrderedDict()  # ordered, and O(1) to leave


class _Lane:
    """One provider's jobs."""

    __slots__ = ("average", "begun", "lines", "running", "turns", "waiting")

    def __init__(self) -> None:
        self.running = 0
        self.waiting = 0
        self.lines: dict[str, _Line] = {}  # of callers who have a job here
        self.turns: OrderedDict[str, None] = OrderedDict()  # callers who could go next, in the order of their turns
        self.begun = 0.0  # sum of the times at which the running jobs began
        self.average: float | None = None  # seconds a job held its slot lately

    def seconds_a_job(self, now: float) -> float:
        """How long a job takes: as those that ended lately, or as those that run have taken so far if that is longer
        (when a provider hangs, nothing ends that could tell)."""
        age = now - self.begun / self.running if self.running else 0.0
        return max(FIRST_GUESS_SECONDS if self.average is None else self.average, age)


class Admission:
    """Slots for upstream jobs. One for the whole process, used from one event loop."""

    def __init__(self, clock: Clock, *, jobs: int, jobs_per_key: int, queue: int, places: Places | None = None) -> None:
        """At each provider: `jobs` run at once, `jobs_per_key` of one caller, `queue` wait. 0 = no limit."""
        self._clock = clock
        self._jobs = jobs
        self._jobs_per_key = jobs_per_key
        self._queue = queue
        self._places = places
        self._lanes: dict[str, _Lane] = {}

    def check(self, provider: str, caller: str, jobs: int, *, most: int | None = None) -> None:
        """Whether `jobs` more could at least wait; `most`: the caller's own limit, if there is one. Raises RateLimited.

        Where nobody waits there is room for any request, also for one that is larger than the queue.
        """
        lane = self._lanes.get(provider)
        if lane is None or not lane.waiting or not self._queue:
            return
        line = lane.lines.get(caller) or _Line(self._most(most))
        to_wait = jobs - self._room(lane, line, jobs)
        places = max(self._queue - lane.waiting, 0)
        if to_wait <= 0 or (to_wait <= places and len(line.waiting) <= SHARE * places):
            return
        if to_wait > places:
            what = f"The gateway has {_count(lane.waiting)} waiting for {provider}, and no room for {jobs} more."
        else:
            what = f"You have {_count(len(line.waiting))} waiting for {provider}; the room that is left is for others."
        raise RateLimited(f"{what} Nothing was sent. Try again later.", retry_after=self._retry_after(lane, line))

    @asynccontextmanager
    async def slot(self, provider: str, caller: str, *, most: int | None = None) -> AsyncIterator[None]:
        """A place among the jobs that run, as soon as it is this caller's turn; `most` as for `check`. May be cancelled
        at any time."""
        lane = self._lanes.setdefault(provider, _Lane())
        own = self._most(most)
        began = await self._turn(lane, caller, own)
        place = ""
        if self._places is not None and own:
            place = self._places.name()
            began = await self._place(self._places, provider, lane, caller, own, place, began)
        try:
            yield
        finally:
            seconds = self._clock.monotonic() - began
            lane.average = seconds if lane.average is None else lane.average + (seconds - lane.average) * SMOOTHING
            if self._places is not None and place:
                self._places.leave(provider, caller, place)
                lane.lines[caller].barred = False  # there is one now
            self._release(lane, caller, began)

    def waiting(self, provider: str) -> int:
        """Jobs that wait for a slot."""
        return lane.waiting if (lane := self._lanes.get(provider)) else 0

    def running(self, provider: str) -> int:
        """Jobs that have a slot."""
        return lane.running if (lane := self._lanes.get(provider)) else 0

    def callers(self, provider: str) -> int:
        """Callers with a job that waits or runs."""
        return len(lane.lines) if (lane := self._lanes.get(provider)) else 0

    # ---- turns. A caller is in `turns` exactly while they have a job waiting and are under their own limit. While a
    # slot is free, `turns` is empty: so whoever finds one takes nobody's turn.

    async def _turn(self, lane: _Lane, caller: str, most: int) -> float:
        """Wait for a slot and take it. When that was, on the clock."""
        line = lane.lines.get(caller)
        if line is None:
            line = lane.lines[caller] = _Line(most)
        line.most = most  # it may have been changed since
        if self._room(lane, line, 1):
            return self._take(lane, line)
        return await self._wait(lane, caller, line, self._line_up(lane, caller, line))

    def _line_up(self, lane: _Lane, caller: str, line: _Line, *, first: bool = False) -> asyncio.Future[float]:
        turn: asyncio.Future[float] = asyncio.get_running_loop().create_future()
        line.waiting[turn] = None
        if first:
            line.waiting.move_to_end(turn, last=False)
        lane.waiting += 1
        if self._under_own_limit(line):
            lane.turns.setdefault(caller)
        return turn

    async def _wait(self, lane: _Lane, caller: str, line: _Line, turn: asyncio.Future[float]) -> float:
        try:
            return await turn
        except asyncio.CancelledError:
            if turn in line.waiting:
                del line.waiting[turn]
                lane.waiting -= 1
                self._tidy(lane, caller, line)
            elif not turn.cancelled():  # granted and cancelled in one step
                self._release(lane, caller, turn.result())
            raise

    async def _place(
        self, places: Places, provider: str, lane: _Lane, caller: str, most: int, place: str, began: float
    ) -> float:
        """With a slot that was taken: a place as well. While there is none, others have the slot. When the last one was
        taken, on the clock."""
        while True:
            try:
                if await places.take(provider, caller, most, place):
                    return began
            except BaseException:
                places.leave(provider, caller, place)
                self._release(lane, caller, began)
                raise
            line = lane.lines[caller]
            turn = self._line_up(lane, caller, line, first=True)
            if not line.barred:
                line.barred = True
                asyncio.get_running_loop().call_later(PLACE_SECONDS, self._unbar, lane, caller, line)
            self._release(lane, caller, began)
            began = await self._wait(lane, caller, line, turn)

    def _unbar(self, lane: _Lane, caller: str, line: _Line) -> None:
        line.barred = False
        if lane.lines.get(caller) is line and line.waiting and self._under_own_limit(line):
            lane.turns.setdefault(caller)
            self._grant_all(lane)

    def _take(self, lane: _Lane, line: _Line) -> float:
        now = self._clock.monotonic()
        lane.running += 1
        lane.begun += now
        line.running += 1
        return now

    def _release(self, lane: _Lane, caller: str, began: float) -> None:
        line = lane.lines[caller]
        lane.running -= 1
        lane.begun = lane.begun - began if lane.running else 0.0  # no rounding error outlives a quiet moment
        line.running -= 1
        if line.waiting:
            lane.turns.setdefault(caller)
        self._tidy(lane, caller, line)
        self._grant_all(lane)

    def _grant_all(self, lane: _Lane) -> None:
        while lane.turns and (not self._jobs or lane.running < self._jobs):
            self._grant(lane, next(iter(lane.turns)))

    def _grant(self, lane: _Lane, caller: str) -> None:
        line = lane.lines[caller]
        turn, _ = line.waiting.popitem(last=False)
        lane.waiting -= 1
        if not turn.done():  # else cancelled just now: it does not cost the caller their turn
            turn.set_result(self._take(lane, line))
            lane.turns.move_to_end(caller)
        self._tidy(lane, caller, line)

    def _tidy(self, lane: _Lane, caller: str, line: _Line) -> None:
        if not line.waiting or not self._under_own_limit(line):
            lane.turns.pop(caller, None)
        if not line.waiting and not line.running:
            del lane.lines[caller]

    # ---- numbers

    def _under_own_limit(self, line: _Line) -> bool:
        return not line.barred and (not line.most or line.running < line.most)

    def _most(self, most: int | None) -> int:
        return self._jobs_per_key if most is None else most

    def _room(self, lane: _Lane, line: _Line, jobs: int) -> int:
        """How many of so many jobs of this caller could run at once."""
        free = self._jobs - lane.running if self._jobs else jobs
        own = 0 if line.barred else line.most - line.running if line.most else jobs
        return min(jobs, free, own)

    def _retry_after(self, lane: _Lane, line: _Line) -> float:
        """Seconds until those who wait now have had their turn; of a caller at their own limit, their own jobs.

        Not until the first place is free: everybody who was sent away would come back for that one place, and an SDK
        has only two repeats to spend.
        """
        rounds = lane.waiting / max(lane.running, 1)
        if not self._under_own_limit(line):
            rounds = max(rounds, len(line.waiting) / max(line.running, 1))
        seconds = rounds * lane.seconds_a_job(self._clock.monotonic())
        return min(max(seconds, RETRY_LEAST), RETRY_MOST)


def _count(jobs: int) -> str:
    return f"{jobs} job" if jobs == 1 else f"{jobs} jobs"
