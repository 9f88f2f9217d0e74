"""The journal under faults: the n-th write fails, for every n, before it is done and after; clocks that are set."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from app.errors import GatewayError, Overloaded
from app.records import (
    Answered,
    Verdict,
    dump_answer,
    dump_plan,
    dump_quote,
    dump_ticket,
    dump_verdict,
    load_answer,
    load_plan,
    load_quote,
    load_ticket,
    load_verdict,
)
from app.store.db import Database, Row, Statement, StoreError, StoreRefusal
from app.store.jobs import OPEN
from app.types import Artefact, Failure, Terms
from providers.base import Fault, ProviderResult, ResultImage, Ticket
from tests.fakes.provider import Turn, made, refusal
from tests.gateway.test_gateway import Bench, bench, request

KEY = Terms("order-17")


class Flaky:
    """A database whose n-th transaction (from 1) fails; `done`: after it was written, so that only its answer is lost.
    Reads work."""

    label = "flaky"

    def __init__(self, database: Database, nth: int, *, done: bool, times: int = 1) -> None:
        self._database = database
        self.clock, self.ahead, self.holding = database.clock, database.ahead, database.holding
        self._nth = nth
        self._done = done
        self._times = times
        self.runs = 0

    @property
    def struck(self) -> bool:
        return self.runs >= self._nth

    def heal(self) -> None:
        self._times = 0

    async def open(self) -> None:
        """It is open."""

    async def run(self, *statements: Statement, turn: str | None = None) -> list[list[Row]]:
        self.runs += 1
        fails = self._nth <= self.runs < self._nth + self._times
        if fails and not self._done:
            raise StoreError("scripted")
        rows = await self._database.run(*statements, turn=turn)
        if fails:
            raise StoreError("scripted: the answer was lost")
        return rows

    tidy = run

    async def read(self, sql: str, *values: Any) -> list[Row]:
        return await self._database.read(sql, *values)

    async def report(self, sql: str, *values: Any) -> list[Row]:
        return await self._database.report(sql, *values)

    async def close(self) -> None:
        """Somebody else does."""


def flaky(b: Bench, nth: int, **how: Any) -> Flaky:
    """From now on the bench's journal fails so."""
    database = Flaky(b.journal.store._db, nth, **how)
    b.journal.store._db = database
    return database


def running(test: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(test())


async def settled(b: Bench, id: str = "one") -> list[str]:
    """The states of a request's jobs, once nothing is owed to the journal any more."""
    for _ in range(300):
        row = await b.journal.store.request(id)
        if b.journal._payer is None and (row is None or row.state != "running"):
            return [job.state for job in await b.jobs(id)]
        await asyncio.sleep(0.01)
    raise AssertionError("the journal still owes something")


@pytest.mark.parametrize("done", [False, True], ids=["not written", "answer lost"])
@pytest.mark.parametrize("terms", [Terms(), KEY], ids=["plain", "with a key"])
@pytest.mark.parametrize("n", [1, 3])
def test_whichever_write_fails_what_was_bought_is_delivered_and_entered(
    tmp_path: Path, n: int, terms: Terms, done: bool
) -> None:
    async def test() -> None:
        nth = 0
        while True:
            nth += 1
            folder = tmp_path / str(nth)
            folder.mkdir()
            async with bench(folder) as b:
                database = flaky(b, nth, done=done)
                try:
                    outcome = await b.edit(terms, id="one", n=n)
                except Overloaded:
                    assert not b.provider.submitted, "it was refused before anything was bought"
                    assert set(await settled(b)) <= {"failed"}
                else:
                    assert len(outcome.artefacts) + len(outcome.receipt.failures) == n
                    states = await settled(b)
                    assert states.count("done") == len(b.provider.made) == len(outcome.artefacts)
                    record = await b.history.record(request().caller, "one")
                    assert record is not None
                    assert record.cost == Decimal("0.10") * len(b.provider.made)
                struck = database.struck
                if terms.idempotency_key:
                    again = await b.edit(terms, id="two", n=n)
                    assert again.artefacts, "the key is not stuck"
                    assert len(b.provider.made) <= n
            if not struck:
                break
        assert nth > 3

    running(test)


def test_a_database_that_is_gone_refuses_and_comes_back_without_a_restart(tmp_path: Path) -> None:
    async def test() -> None:
        async with bench(tmp_path) as b:
            database = flaky(b, 1, done=False, times=1_000_000)
            for id in ("one", "two", "three"):
                with pytest.raises(Overloaded) as caught:
                    await b.edit(id=id)
                assert (caught.value.status, caught.value.retry_after) == (503, 5)
            assert b.provider.submitted == []
            database.heal()
            while b.journal._payer is not None:
                await asyncio.sleep(0.01)
            assert await b.edit(id="four")

    running(test)


def test_what_is_owed_is_written_in_its_order(tmp_path: Path) -> None:
    async def test() -> None:
        async with bench(tmp_path) as b:
            flaky(b, 2, done=False, times=4)  # the ticket, and everything after it for a while
            assert (await b.edit(id="one")).artefacts
            assert await settled(b) == ["done"]
            [job] = await b.jobs("one")
            assert (job.job, job.cost) == ("job-1", "0.100000")

    running(test)


def test_a_write_that_will_never_succeed_holds_up_nothing(tmp_path: Path) -> None:
    async def test() -> None:
        async with bench(tmp_path) as b:

            async def refuse() -> None:
                raise StoreRefusal("a constraint")

            b.journal._owe_later(refuse)
            assert (await b.edit(id="one")).artefacts
            assert await settled(b) == ["done"]

    running(test)


def test_a_clock_that_is_set_harms_nobody(tmp_path: Path) -> None:
    async def test() -> None:
        for jump in (3600.0, -3600.0):
            folder = tmp_path / str(jump)
            folder.mkdir()
            gate = asyncio.Event()

            async def late(gate: asyncio.Event = gate) -> Any:
                await gate.wait()
                return made()

            async with bench(folder, Turn(collect=late)) as b:
                b.gateway.start()
                asking = asyncio.create_task(b.edit(KEY, id="one"))
                while not b.provider.collecting:
                    await asyncio.sleep(0.01)
                b.wall.now += jump
                assert await b.journal.adopt() == [], "its own requests are its own"
                gate.set()
                assert (await asking).artefacts
                assert (await b.edit(KEY, id="two")).receipt.request_id == "one"
                assert len(b.provider.submitted) == 1

    running(test)


class TestRecords:
    def test_a_plan_comes_back_without_what_was_asked_for(self, tmp_path: Path) -> None:
        async def test() -> None:
            async with bench(tmp_path) as b:
                plan = b.gateway.prepare(request(prompt="a secret wish", n=2, size="512x512")).plan
                text = dump_plan(plan)
                assert "secret" not in text
                kept, mask = load_plan(text)
                assert mask is None
                assert (kept.model, kept.offer.endpoint, kept.offer.price) == (
                    plan.model,
                    plan.offer.endpoint,
                    plan.offer.price,
                )
                assert (kept.delivery, kept.notes, kept.size) == (plan.delivery, plan.notes, plan.size)
                assert [(call.first, call.count) for call in kept.calls] == [(0, 1), (1, 1)]
                quote = b.gateway.prepare(request(n=2)).quote
                assert load_quote(dump_quote(quote)) == quote

        running(test)

    def test_an_answer_comes_back_whole(self) -> None:
        error = GatewayError("m", param="p", retry_after=3.0, should_retry=False)
        error.cost = Decimal("0.03")
        answer = Answered(
            "partial",
            1_000_000,
            "Fake",
            Decimal("0.030000"),
            uncertain=True,
            seeds=(7, 8),
            seconds=1.5,
            artefacts=(Artefact(0, "http://here", None, "key", "png", 8, 8, "revised"),),
            failures=(Failure(1, Overloaded("full", retry_after=2.0), None),),
            error=error,
        )
        kept = load_answer(dump_answer(answer))
        assert dump_answer(kept) == dump_answer(answer)
        assert kept.artefacts == (replace(answer.artefacts[0], revised_prompt=None),)
        assert "revised" not in dump_answer(answer), "what a provider made of a prompt is not kept"
        assert isinstance(kept.failures[0].error, Overloaded)
        assert kept.error is not None
        assert (kept.error.message, kept.error.param, kept.error.cost) == ("m", "p", Decimal("0.03"))

    def test_base64_is_not_kept(self) -> None:
        verdict = Verdict((Artefact(0, None, b"QUJD", "key", "png", 8, 8),), (), 7, Decimal("1.5"))
        text = dump_verdict(verdict)
        assert "QUJD" not in text
        assert load_verdict(text).artefacts[0].key == "key"
        assert load_verdict(None) == Verdict()

    @pytest.mark.parametrize(
        "ticket",
        [
            Ticket("fake", "job-1", {"status_url": "http://there"}),
            Ticket("fake", "job-1", {}, ProviderResult((ResultImage(url="http://there/1.png"),))),
            Ticket("fake", "job-1", {}, ProviderResult((ResultImage(data=b"x"),))),
        ],
    )
    def test_a_ticket_comes_back(self, ticket: Ticket) -> None:
        kept = load_ticket("fake", "job-1", dump_ticket(ticket))
        assert (kept.job, kept.data) == (ticket.job, ticket.data)
        by_url = ticket.result is not None and ticket.result.images[0].url is not None
        assert kept.result == (ticket.result if by_url else None)


def test_nothing_is_left_open_by_ordinary_ends(tmp_path: Path) -> None:
    async def test() -> None:
        turns = (
            Turn(),
            Turn(submit=refusal(Fault.INVALID, accepted=False)),
            Turn(collect=refusal(Fault.REFUSED, accepted=True, charged=False)),
            Turn(collect=made(flagged=True)),
            Turn(collect=made(0)),
        )
        async with bench(tmp_path, *turns) as b:
            for number in range(len(turns)):
                await asyncio.gather(b.edit(id=f"req_{number}"), return_exceptions=True)
                row = await b.journal.store.request(f"req_{number}")
                assert row is not None
                assert (row.state, row.owner) == ("settled", None)
                assert not {job.state for job in await b.jobs(f"req_{number}")} & set(OPEN)

    running(test)


@pytest.mark.parametrize("odd", ["\ud800", "\0", 'é"\\', 10**400, -(10**30), 1e-7, 1e300, {"1": [None, True]}])
def test_a_ticket_comes_back_as_it_was_whatever_the_provider_put_into_it(odd: object) -> None:
    ticket = Ticket("fal", "job", {"odd": odd})
    assert load_ticket("fal", "job", dump_ticket(ticket)) == ticket
