"""The journal in PostgreSQL: the same promises, and what a database that goes away adds to them."""

from __future__ import annotations

import asyncio
import itertools
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial

import asyncpg
import httpx2
import pytest

from app.jobs import LEASE_SECONDS
from tests.fakes.postgres import PostgresServer
from tests.fakes.sandbox import SandboxServer
from tests.faults.conftest import OwnGate
from tests.faults.gate import Gate, at_once, until
from tests.faults.observe import Case
from tests.faults.rows import covers, on
from tests.faults.settle import Balance, Mark, assert_even, balance, mark
from tests.faults.test_gateways import TAKEN, Asked, timed

prompts = (f"postgres {number}" for number in itertools.count(1))


@pytest.fixture
def gate(postgres: PostgresServer, own: OwnGate) -> Gate:
    """A gateway whose journal is there."""
    return own(database_url=asyncio.run(postgres.new_database()))


def three(gate: Gate, answers: list[httpx2.Response]) -> list[threading.Thread]:
    """Three requests under way, with their tickets in the journal."""

    def ask(prompt: str) -> None:
        with suppress(httpx2.TransportError), gate.connect() as http:
            answers.append(gate.ask(prompt, http=http))

    threads = [threading.Thread(target=ask, args=(next(prompts),)) for _ in range(3)]
    for thread in threads:
        thread.start()
    until(lambda: len(gate.records(state="submitted")) == 3, what="three tickets")
    return threads


def settled(gate: Gate, since: Mark, states: str) -> Balance:
    def look() -> Balance | None:
        found = balance(gate, since)
        return found if found.states == states else None

    found = until(look, 40, every=0.2, what=states)
    assert_even(found)
    return found


@covers("D5-kill")
def test_killed_with_the_journal_in_postgresql(case: Case, gate: Gate, upstream: SandboxServer) -> None:
    since = mark(gate)
    upstream.script(on("submit", "run_for", None, seconds=2))
    threads = three(gate, [])
    gate.kill()
    for thread in threads:
        thread.join(30)
    gate.restart()
    found = settled(gate, since, "3 done")
    told = {"submits": found.submitted, "bought twice": found.twice, "journal": found.states}
    case.saw(told, charged=str(found.charged), pictures=found.pictures)


@covers("D5-outage")
def test_postgresql_goes_away_and_comes_back(
    case: Case, gate: Gate, upstream: SandboxServer, postgres: PostgresServer
) -> None:
    since = mark(gate)
    upstream.script(on("submit", "run_for", None, seconds=2))
    answers: list[httpx2.Response] = []
    threads = three(gate, answers)
    postgres.stop()
    new = gate.ask(next(prompts))
    for thread in threads:
        thread.join(60)
    meanwhile = len(upstream.jobs()) - len(since.jobs) - 3
    postgres.start()
    upstream.clear_script()
    after = until(lambda: (one := gate.ask(next(prompts))).status_code == 200 and one, 30, every=0.3, what="a picture")
    found = settled(gate, since, "4 done")
    case.saw(
        {
            "in flight": ", ".join(str(answer.status_code) for answer in answers),
            "new": f"{new.status_code}{' + Retry-After' * ('retry-after' in new.headers)}",
            "bought for it": meanwhile,
            "after": after.status_code,
            "journal": found.states,
            "charged": str(found.charged),
        }
    )


# ---- held up


def refusal(answer: httpx2.Response) -> str:
    return f"{answer.status_code}{' + Retry-After' * ('retry-after' in answer.headers)}"


def served(gate: Gate) -> httpx2.Response:
    """The first answer that is not a refusal."""
    answer = until(lambda: (one := gate.ask(next(prompts))).status_code != 503 and one, 30, every=0.3, what="a picture")
    assert isinstance(answer, httpx2.Response)
    return answer


@covers("D5-frozen")
def test_postgresql_does_not_answer_any_more(
    case: Case, gate: Gate, upstream: SandboxServer, postgres: PostgresServer
) -> None:
    since = mark(gate)
    upstream.script(on("submit", "run_for", seconds=2))
    asked = Asked(gate, next(prompts))
    until(lambda: gate.records(state="submitted"), what="the ticket")
    postgres.pause()
    refused = [timed(partial(gate.ask, next(prompts), headers=headers)) for headers in ({}, {"Idempotency-Key": "k"})]
    lives = gate.http.get("/healthz").status_code
    flown = asked.answer.status_code
    bought = len(upstream.jobs()) - len(since.jobs) - 1
    postgres.resume()
    after = served(gate)
    found = settled(gate, since, "2 done")
    told = {"in flight": flown, "new": ", ".join(refusal(answer) for answer, _ in refused)}
    told |= {"seconds": max(seconds for _, seconds in refused), "bought for them": bought, "/healthz meanwhile": lives}
    case.saw(told, after=after.status_code, journal=found.states, charged=str(found.charged))


@covers("D5-slow")
def test_postgresql_takes_its_time(case: Case, gate: Gate, upstream: SandboxServer, postgres: PostgresServer) -> None:
    since = mark(gate)
    with locked(gate.environ["IMAGEGATE_DATABASE_URL"]):
        refused, seconds = timed(partial(gate.ask, next(prompts)))
        bought = len(upstream.jobs()) - len(since.jobs)
    after = served(gate)
    found = settled(gate, since, "1 done")
    told = {"new": refusal(refused), "seconds": seconds, "bought for it": bought, "after": after.status_code}
    case.saw(told, charged=str(found.charged))


@contextmanager
def locked(url: str) -> Iterator[None]:
    """Meanwhile nobody else gets at the journal's tables."""
    taken, over = threading.Event(), threading.Event()

    async def hold() -> None:
        connection = await asyncpg.connect(url)
        async with connection.transaction():
            await connection.execute("LOCK TABLE requests, jobs IN ACCESS EXCLUSIVE MODE")
            taken.set()
            await asyncio.to_thread(over.wait, 30)
        await connection.close()

    holding = threading.Thread(target=lambda: asyncio.run(hold()), daemon=True)
    holding.start()
    try:
        assert taken.wait(10)
        yield
    finally:
        over.set()
        holding.join(10)


@covers("D5-restart")
def test_postgresql_fails_over(case: Case, gate: Gate, postgres: PostgresServer) -> None:
    since = mark(gate)

    def ask(prompt: str) -> str:
        with gate.connect() as http:
            return str(gate.ask(prompt, http=http).status_code)

    at_once(*(partial(ask, next(prompts)) for _ in range(2)))  # so that it has several connections
    postgres.kill()
    postgres.start()
    after = at_once(*(partial(ask, next(prompts)) for _ in range(3)))
    found = settled(gate, since, "5 done")
    case.saw(after=", ".join(after), submits=found.submitted, charged=str(found.charged))


@covers("D5-shared")
def test_postgresql_hangs_under_two_gateways(
    case: Case, own: OwnGate, upstream: SandboxServer, postgres: PostgresServer
) -> None:
    url = asyncio.run(postgres.new_database())
    one = own(database_url=url)
    two = own(database_url=url, data_dir=str(one.data))
    since = mark(one)
    upstream.script(on("submit", "run_for", None, seconds=2))
    asked = [Asked(gate, next(prompts)) for gate in (one, two)]
    until(lambda: len(one.records(state="submitted")) == 2, what="two tickets")
    postgres.pause()
    time.sleep(LEASE_SECONDS + 2)
    postgres.resume()
    answers = ", ".join(str(each.answer.status_code) for each in asked)
    found = settled(one, since, "2 done")
    taken = sum(gate.log().count(TAKEN) for gate in (one, two))
    told = {"answers": answers, "taken from the living": taken, "submits": found.submitted}
    case.saw(told, journal=found.states, charged=str(found.charged), pictures=found.pictures)
