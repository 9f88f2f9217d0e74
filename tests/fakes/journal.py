"""A journal in a real SQLite file, and everything that works on it, for tests that build a gateway by themselves."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

from app.admission import Admission
from app.breaker import Breakers
from app.caretaker import Caretaker
from app.catalogue.load import Catalogue
from app.conclusion import Concluder
from app.config import Config
from app.delivery import Upstream
from app.dispatch import Dispatcher
from app.gateway import Gateway
from app.harvest import Harvester
from app.history import History
from app.jobs import Journal
from app.limits import LocalLimiter, Rates
from app.media.pool import MediaPool
from app.receipts import Observer, Receipts
from app.recovery import Recovery
from app.runs import Runs
from app.store.jobs import JobRow, JobStore
from app.store.reports import ReportStore
from app.store.sqlite import SqliteDatabase
from providers.base import Clock

NOW = 1_000_000.0


@dataclass
class Wall:
    """A wall clock that goes where a test wants it."""

    now: float = NOW

    def __call__(self) -> float:
        return self.now


@asynccontextmanager
async def journal_in(folder: Path, clock: Clock, owner: str = "me", wall: Wall | None = None) -> AsyncIterator[Journal]:
    """A journal whose wall clock stands still at NOW."""
    wall = wall or Wall()
    database = SqliteDatabase(folder / "imagegate.db")
    await database.open()
    numbers = itertools.count(1)
    try:
        yield Journal(JobStore(database), owner, clock, now=wall, new_id=lambda: f"{owner}-{next(numbers)}")
    finally:
        await database.close()


@dataclass
class Workshop:
    """A gateway, and what it is made of."""

    gateway: Gateway
    journal: Journal
    recovery: Recovery
    dispatcher: Dispatcher
    runs: Runs
    breakers: Breakers
    history: History
    wall: Wall

    async def jobs(self, request_id: str = "req_1") -> list[JobRow]:
        return await self.journal.store.jobs_of(request_id)


@asynccontextmanager
async def workshop(
    folder: Path,
    catalogue: Catalogue,
    upstreams: Mapping[str, Upstream],
    clock: Clock,
    *observers: Observer,
    owner: str = "me",
    **settings: Any,
) -> AsyncIterator[Workshop]:
    """A gateway on a journal in `folder`; `settings` are fields of Config."""
    config = Config(data_dir=folder, **{"drain_seconds": 0.01, **settings})
    pool = MediaPool()
    wall = Wall()
    async with journal_in(folder, clock, owner, wall) as journal:
        harvester = Harvester(journal)
        recovery = Recovery(journal, upstreams, harvester, clock, now=wall, keep_seconds=config.repeats.keep_seconds)
        limits, breakers = config.limits, Breakers(clock)
        admission = Admission(clock, jobs=limits.jobs, jobs_per_key=limits.jobs_per_key, queue=limits.queue)
        dispatcher = Dispatcher(clock, Random(1), journal, admission, breakers)
        repeats = config.repeats
        runs = Runs(
            finish=config.on_disconnect == "finish",
            retry_seconds=repeats.retry_seconds,
            join_seconds=repeats.join_seconds,
            clock=clock,
        )
        concluder = Concluder(
            journal,
            recovery,
            runs,
            Receipts(observers),
            upstreams,
            clock,
            keep_seconds=repeats.keep_seconds,
        )
        caretaker = Caretaker(journal, recovery, runs, concluder, upstreams, clock)
        gateway = Gateway(
            catalogue,
            upstreams,
            dispatcher,
            harvester,
            journal,
            recovery,
            concluder,
            caretaker,
            runs,
            pool,
            Rates(LocalLimiter(clock)),
            clock,
            config,
            now=wall,
        )
        history = History(journal.store, ReportStore(journal.store._db), upstreams)
        try:
            yield Workshop(gateway, journal, recovery, dispatcher, runs, breakers, history, wall)
        finally:
            await gateway.close()
            pool.close()
