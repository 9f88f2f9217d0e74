"""A whole gateway on each of the databases: jobs that begin at once, restarts."""

from __future__ import annotations

import asyncio
from pathlib import Path
from random import Random

import pytest

from app.admission import Admission
from app.breaker import Breakers
from app.catalogue.schema import Offer
from app.collecting import Order
from app.dispatch import Dispatcher
from app.jobs import Job, Journal
from app.runs import Stop
from app.steps import Steps
from app.store.jobs import JobStore
from app.types import Call, Caller, Delivery, Plan, Quote, Terms
from providers.base import ProviderResult, Ticket
from providers.testing.clock import RealClock
from tests.fakes.provider import FakeProvider

pytestmark = pytest.mark.anyio


class NoFates:
    def follow(self, job: Job, ticket: Ticket | None, *, cancelling: bool = False) -> None:
        raise AssertionError("nothing is open here")

    def hold(self) -> None: ...

    async def release(self) -> None: ...


async def keep(call: Call, job: Job, ticket: Ticket, result: ProviderResult) -> ProviderResult:
    return result


@pytest.mark.parametrize("key", [None, "key"])
async def test_ten_jobs_that_begin_at_once_are_all_entered(store: JobStore, key: str | None, tmp_path: Path) -> None:
    clock = RealClock()
    numbers = iter(range(1000))
    journal = Journal(store, "me", clock, now=lambda: 1_000_000.0, new_id=lambda: f"job row {next(numbers)}")
    dispatcher = Dispatcher(
        clock, Random(1), journal, Admission(clock, jobs=0, jobs_per_key=0, queue=0), Breakers(clock)
    )
    offer = Offer(provider="fake", endpoint="fake/edit", params={})
    plan = Plan("model", offer, tuple(Call({}, index) for index in range(10)), (), Delivery(count=10), (), None)
    quote = Quote("image", None, None, None, None)

    async def one(id: str) -> None:
        terms = Terms(None if key is None else f"{key} {id}")
        await journal.open(id, Caller("k", "n"), terms, "content", plan, quote, seconds=60, keep_seconds=60)
        order: Order[ProviderResult] = Order(
            id,
            "k",
            plan,
            FakeProvider(),
            (),
            clock.monotonic() + 60,
            600,
            Stop(),
            [],
            Steps(clock.monotonic),
            keep,
            NoFates(),
        )
        assert [done.error async for done in dispatcher.run(order)] == [None] * 10
        assert [job.state for job in await store.jobs_of(id)] == ["submitted"] * 10

    await asyncio.gather(*(one(f"request {number}") for number in range(5)))
