"""The queue: jobs wait for one of a few slots, run, and end with what the model answered.

States are fal's three and no more (D-Q): IN_QUEUE, IN_PROGRESS, COMPLETED. A failed or cancelled job is COMPLETED too.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from .faults import Fault, Strike
from .replies import Reply, infra_error, infra_text, user_timeout
from .schema import Endpoint


class State(StrEnum):
    IN_QUEUE = "IN_QUEUE"
    IN_PROGRESS = "IN_PROGRESS"
    COMPLETED = "COMPLETED"


@dataclass(frozen=True, slots=True)
class Origins:
    """Absolute addresses of fal's four hosts as this request's client sees them, without a trailing slash."""

    queue: str
    run: str
    rest: str
    cdn: str


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a job ended: the model's own HTTP answer, and what it is charged for."""

    reply: Reply
    images: int = 0
    units: float = 0.0
    """Billable units; zero is not billed."""
    error: str | None = None
    error_type: str | None = None

    @classmethod
    def infra(cls, error_type: str, reply: Reply | None = None) -> Outcome:
        return cls(reply or infra_error(error_type), error=infra_text(error_type), error_type=error_type)


@dataclass(slots=True, eq=False)
class Job:
    """One request to a model, from its acceptance on. Times are epoch seconds of the sandbox's clock."""

    request_id: str
    endpoint: Endpoint
    payload: Any
    """The model input as it came; None once the job has ended, so that its pictures are not held."""
    summary: Any
    """The payload as the books show it: pictures replaced by their digest, size and type."""
    origins: Origins
    headers: Mapping[str, str]
    """Lower-case names; those that begin with x-fal- and a few more."""
    strikes: tuple[Strike, ...]
    via: str
    submitted_at: float
    state: State = State.IN_QUEUE
    started_at: float | None = None
    finished_at: float | None = None
    inference_seconds: float = 0.0
    cancelled: bool = False
    outcome: Outcome | None = None
    collected: int = 0
    first_collected_at: float | None = None
    ready: bool = False
    """May start as soon as there is a slot."""
    hurry: asyncio.Event = field(default_factory=asyncio.Event)
    """Set: finish now instead of pretending to work."""
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    """Replaced by a fresh one at each change; hold on to it to wait for the next."""
    task: asyncio.Task[None] | None = None
    timers: list[asyncio.TimerHandle] = field(default_factory=list)

    @property
    def billed_units(self) -> float:
        return self.outcome.units if self.outcome else 0.0

    def struck(self, fault: Fault) -> Strike | None:
        return next((s for s in self.strikes if s.fault is fault), None)

    def notify(self) -> None:
        before, self.changed = self.changed, asyncio.Event()
        before.set()


class Queue:
    """First in, first out, with `concurrency` slots. Of `max_jobs` jobs the oldest ended ones are forgotten first."""

    def __init__(
        self,
        work: Callable[[Job], Awaitable[Outcome]],
        clock: Callable[[], float],
        ended: Callable[[Job], None],
        *,
        concurrency: int,
        queue_seconds: float,
        run_seconds: float,
        max_jobs: int,
    ) -> None:
        self._work = work
        self._clock = clock
        self._ended = ended
        self._concurrency = concurrency
        self._queue_seconds = queue_seconds
        self._run_seconds = run_seconds
        self._max_jobs = max_jobs
        self._jobs: OrderedDict[str, Job] = OrderedDict()
        self._waiting: deque[Job] = deque()
        self._running: set[Job] = set()

    def __iter__(self) -> Iterator[Job]:
        return iter(self._jobs.values())

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    @property
    def full(self) -> bool:
        """No slot is free: the next job would wait."""
        return len(self._running) >= self._concurrency

    def get(self, request_id: str) -> Job | None:
        return self._jobs.get(request_id)

    def position(self, job: Job) -> int:
        """How many jobs are before it in the queue (0-indexed, PY fal-client 1.0.3 `Queued`)."""
        return self._waiting.index(job) if job in self._waiting else 0

    def add(self, job: Job, start_within: float | None = None) -> None:
        """Accept a job. `start_within` seconds: if it has not started by then it ends with fal's user timeout."""
        self._jobs[job.request_id] = job
        self._forget()
        self._waiting.append(job)
        loop = asyncio.get_running_loop()
        hold = job.struck(Fault.QUEUE_FOR)
        usual = 0.0 if job.via == "run" else self._queue_seconds  # the synchronous host has no queue
        wait = float(hold["seconds"]) if hold else usual
        if start_within is not None:
            job.timers.append(loop.call_later(start_within, self._expire, job))
        if wait > 0:
            job.timers.append(loop.call_later(wait, self._release, job))
        else:
            self._release(job)

    def cancel(self, job: Job, *, deaf: bool) -> None:
        """Take it out of the queue, or stop it at work. It ends with 499 client_cancelled (D-RERR), unbilled.

        A `deaf` job takes note and goes on.
        """
        job.cancelled = True
        if deaf:
            return
        if job.state is State.IN_QUEUE:
            self._end(job, Outcome.infra("client_cancelled"))
        elif job.task is not None:
            job.task.cancel()

    def finish(self, job: Job) -> None:
        """Let it start and end as soon as its picture is ready, whatever it was told to wait for."""
        job.hurry.set()
        self._release(job)

    async def close(self) -> None:
        """Stop everything that waits or runs, and wait until it has stopped."""
        waiting = list(self._waiting)
        self._waiting.clear()  # first: an ending job starts the next one
        for job in waiting:
            self._end(job, Outcome.infra("runner_disconnected"))
        tasks = []
        for job in self._jobs.values():
            for timer in job.timers:
                timer.cancel()
            if job.task is not None and not job.task.done():
                job.task.cancel()
                tasks.append(job.task)
        await asyncio.gather(*tasks, return_exceptions=True)
        self._running.clear()
        self._jobs.clear()

    def _release(self, job: Job) -> None:
        job.ready = True
        self._start_what_may()

    def _start_what_may(self) -> None:
        for job in [job for job in self._waiting if job.ready][: max(0, self._concurrency - len(self._running))]:
            self._waiting.remove(job)
            self._running.add(job)
            job.state = State.IN_PROGRESS
            job.started_at = self._clock()
            job.task = asyncio.create_task(self._run(job), name=f"fal sandbox job {job.request_id}")
            job.notify()

    def _expire(self, job: Job) -> None:
        if job.state is State.IN_QUEUE:
            self._end(job, Outcome.infra("request_timeout", user_timeout()))

    async def _run(self, job: Job) -> None:
        loop = asyncio.get_running_loop()
        began = loop.time()
        lasts = job.struck(Fault.RUN_FOR)
        seconds = float(lasts["seconds"]) if lasts else self._run_seconds
        outcome = Outcome.infra("internal_error")
        try:
            outcome = await self._work(job)
            rest = seconds - (loop.time() - began)
            if rest > 0:
                await _wait(job.hurry, rest)
        except asyncio.CancelledError:
            outcome = Outcome.infra("client_cancelled")
        finally:
            self._running.discard(job)
            job.inference_seconds = loop.time() - began
            self._end(job, outcome)

    def _end(self, job: Job, outcome: Outcome) -> None:
        if job in self._waiting:
            self._waiting.remove(job)
        for timer in job.timers:
            timer.cancel()
        job.state = State.COMPLETED
        job.finished_at = self._clock()
        job.outcome = outcome
        job.payload = None
        self._ended(job)
        job.ended.set()
        job.notify()
        self._start_what_may()

    def _forget(self) -> None:
        for old in list(self._jobs.values()):
            if len(self._jobs) <= self._max_jobs:
                return
            if old.state is State.COMPLETED:
                del self._jobs[old.request_id]


async def _wait(event: asyncio.Event, seconds: float) -> None:
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        return
