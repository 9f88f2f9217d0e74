"""Requests under way, apart from whoever waits for them.

A run works in a task of its own and tells its events to any number of listeners, those that come late included. So a
repeat of a request joins the run instead of buying again, and a listener that leaves takes nothing from the others.
When the last one has left, the run is stopped, unless it has been promised to somebody who may come back.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

from app.errors import GatewayError, InternalError, bare
from app.types import Artefact, Caller, Failure, Outcome, Terms
from providers.base import Clock

log = logging.getLogger("imagegate.gateway")

Event = Artefact | Failure

# OpenAI's SDKs repeat after 0.5 · 2^n seconds (at most 8), less up to a quarter (openai-python 3.54, openai-node 6).
SDK_PAUSE, SDK_LONGEST_PAUSE = 0.5, 8.0
ON_THE_WAY = 0.4  # seconds more for its head to arrive
LONGEST_UPLOAD = 120.0  # for its body: nobody is waited for longer


class Stop:
    """The wish that a run end, told to all who work for it."""

    def __init__(self) -> None:
        self.wanted = False  # whether it was asked for
        self._limits: list[asyncio.Timeout] = []

    def set(self) -> None:
        """Ask for it."""
        self.wanted = True
        for limit in self._limits:
            self._end(limit)

    @contextmanager
    def ending(self, limit: asyncio.Timeout) -> Iterator[None]:
        """While this runs the wish ends it, as its own deadline would: no task has to wait for either."""
        self._limits.append(limit)
        if self.wanted:
            self._end(limit)
        try:
            yield
        finally:
            self._limits.remove(limit)

    def _end(self, limit: asyncio.Timeout) -> None:
        if not limit.expired():
            limit.reschedule(0)


class Run:
    """One request under way. Its work calls `tell` for each picture, and then `end` once."""

    def __init__(self, id: str, caller: Caller, fingerprint: str, terms: Terms, *, finish: bool) -> None:
        """`finish`: it goes on when nobody listens any more."""
        self.id = id
        self.caller = caller
        self.fingerprint = fingerprint
        self.terms = terms
        self.created = 0  # Unix seconds, as it is answered
        self.stop = Stop()
        self.listeners = 0
        self.task: asyncio.Task[None] | None = None
        self._finish = finish or terms.idempotency_key is not None
        self.refused = False  # it ended before it had begun
        self.replayed = False  # it only repeats an earlier answer
        self._begun = asyncio.Event()
        self._events: list[Event] = []
        self._end: Outcome | GatewayError | None = None
        self._news = asyncio.Condition()
        self.giving_up: asyncio.Task[None] | None = None

    @property
    def ended(self) -> bool:
        """Whether its outcome is known."""
        return self._end is not None

    @property
    def heard(self) -> bool:
        """Whether anybody listens."""
        return self.listeners > 0

    def begin(self) -> None:
        """What can be said before anything is bought has been said."""
        self._begun.set()

    async def begun(self) -> None:
        """Returns when it has begun. Raises the GatewayError that it ended with before."""
        await self._begun.wait()
        if isinstance(self._end, GatewayError) and self.refused:
            raise self._end

    async def tell(self, event: Event) -> None:
        """One more picture, or why there is none."""
        async with self._news:
            self._events.append(event)
            self._news.notify_all()

    async def end(self, outcome: Outcome | GatewayError) -> None:
        """What became of it as a whole."""
        async with self._news:
            self.refused = not self._begun.is_set()
            self._end = bare(outcome) if isinstance(outcome, GatewayError) else outcome
            self._begun.set()
            self._news.notify_all()

    async def over(self) -> None:
        """Returns when its outcome is known."""
        async with self._news:
            await self._news.wait_for(lambda: self._end is not None)

    async def events(self) -> AsyncGenerator[Event | Outcome, None]:
        """All that it tells, from its beginning; its outcome last. Raises the GatewayError that it ended with."""
        told = 0
        while self._end is None or told < len(self._events):
            async with self._news:
                while self._end is None and told == len(self._events):
                    await self._news.wait()
            for event in self._events[told:]:
                told += 1
                yield event
        if isinstance(self._end, GatewayError):
            raise self._end
        yield self._end

    async def outcome(self) -> Outcome:
        """What became of it. Raises the GatewayError that it ended with."""
        await self.over()
        assert self._end is not None
        if isinstance(self._end, GatewayError):
            raise self._end
        return self._end

    def join(self) -> None:
        """Somebody listens. Each `join` is followed by a `leave`."""
        self.listeners += 1
        if self.giving_up is not None:
            self.giving_up.cancel()
            self.giving_up = None

    def leave(self, patience: Callable[[Run], Awaitable[None]] | None) -> None:
        """Somebody does not listen any more. If that was the last one, the run is stopped after `patience`; None: it
        goes on."""
        self.listeners -= 1
        if patience is not None and not self.listeners and not self.ended and not self._finish:
            self.giving_up = asyncio.create_task(self._give_up(patience))

    async def _give_up(self, patience: Callable[[Run], Awaitable[None]]) -> None:
        await patience(self)
        self.stop.set()


@dataclass(slots=True)
class _Coming:
    """Repeats of one caller whose bodies are still being read."""

    count: int = 0
    none: asyncio.Event = field(default_factory=asyncio.Event)


class Runs:
    """All that is under way in this process."""

    def __init__(self, *, finish: bool, retry_seconds: float, join_seconds: float, clock: Clock) -> None:
        """`finish`: no run stops because its client left. A run is joined by repeats that say so if it is younger than
        `retry_seconds`, by those that do not if it is younger than `join_seconds`."""
        self._finish = finish
        self._retry_seconds = retry_seconds
        self._join_seconds = join_seconds
        self._now = clock.monotonic
        self._runs: dict[str, tuple[Run, float]] = {}
        self._expected: dict[str, _Coming] = {}  # by caller
        self.closing = False

    def __len__(self) -> int:
        return len(self._runs)

    def new(self, id: str, caller: Caller, fingerprint: str, terms: Terms) -> Run:
        """A run that is about to begin."""
        run = Run(id, caller, fingerprint, terms, finish=self._finish)
        self._runs[id] = (run, self._now())
        return run

    def start(self, run: Run, work: Coroutine[Any, Any, None]) -> None:
        """Let it work. It is forgotten when its work is done."""
        run.task = asyncio.create_task(self._worked(run, work), name=f"run {run.id}")
        run.task.add_done_callback(lambda _: self.forget(run))

    async def _worked(self, run: Run, work: Coroutine[Any, Any, None]) -> None:
        """Whatever becomes of the work, nobody waits for ever."""
        try:
            await work
        except Exception:
            log.exception("%s: a defect of the gateway", run.id)
        finally:
            if not run.ended:
                await self.end(run, InternalError("The gateway failed.", should_retry=False))

    async def end(self, run: Run, outcome: Outcome | GatewayError) -> None:
        """What became of a run. Who comes from now on finds it in the journal."""
        self.forget(run)
        await run.end(outcome)

    def forget(self, run: Run) -> None:
        """It can be joined no more."""
        self._runs.pop(run.id, None)

    def get(self, id: str) -> Run | None:
        """The run of that request."""
        found = self._runs.get(id)
        return found[0] if found else None

    def like(self, caller: Caller, fingerprint: str, terms: Terms) -> Run | None:
        """The run that a request of this content repeats, if it may be taken for a repeat: of several the oldest that
        has lost its listeners, so that each of many equal requests finds its own again; else the youngest."""
        within = max(self._retry_seconds if terms.is_repeat else 0, self._join_seconds)
        equal = [
            run
            for run, began in self._runs.values()
            if run.fingerprint == fingerprint
            and run.caller.key_id == caller.key_id
            and run.terms.idempotency_key == terms.idempotency_key
            and not run.stop.wanted
            and (terms.idempotency_key is not None or self._now() - began < within)
        ]
        return next((run for run in equal if not run.heard), equal[-1] if equal else None)

    @contextmanager
    def expecting(self, caller: Caller, terms: Terms) -> Iterator[None]:
        """While the body of a repeat is still coming: nothing of this caller is given up meanwhile."""
        if not terms.is_repeat:
            yield
            return
        coming = self._expected.setdefault(caller.key_id, _Coming())
        coming.count += 1
        try:
            yield
        finally:
            coming.count -= 1
            if not coming.count:
                coming.none.set()
                del self._expected[caller.key_id]

    @contextmanager
    def listening(self, run: Run) -> Iterator[Run]:
        """For as long as somebody waits for it."""
        run.join()
        try:
            yield run
        finally:
            # When the process ends, clients leave because of us.
            run.leave(None if self.closing else self._patience)

    async def _patience(self, run: Run) -> None:
        """How long the last listener's repeat is waited for. A client that does not repeat by itself: not at all."""
        if run.terms.repeats is not None:
            await asyncio.sleep(min(SDK_PAUSE * 2**run.terms.repeats, SDK_LONGEST_PAUSE) + ON_THE_WAY)
        if (coming := self._expected.get(run.caller.key_id)) is not None:
            with suppress(TimeoutError):
                async with asyncio.timeout(LONGEST_UPLOAD):
                    await coming.none.wait()

    async def drain(self, seconds: float) -> None:
        """Wait until all have ended, but no longer."""
        tasks = [run.task for run, _ in self._runs.values() if run.task is not None]
        if tasks:
            await asyncio.wait(tasks, timeout=max(seconds, 0))

    async def abandon(self) -> None:
        """Drop what is under way, as a process that dies would: upstream it goes on, the journal knows of it."""
        runs = [run for run, _ in self._runs.values()]
        tasks = [task for run in runs for task in (run.task, run.giving_up) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
