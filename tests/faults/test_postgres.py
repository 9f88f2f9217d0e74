"""The journal in PostgreSQL: the same promises, and what a database that goes away adds to them."""

from __future__ import annotations

import asyncio
import itertools
import os
import threading
from collections.abc import Iterator
from contextlib import suppress

import httpx2
import pytest

from tests.fakes.postgres import PostgresServer, find_programs
from tests.fakes.sandbox import SandboxServer
from tests.faults.conftest import OwnGate
from tests.faults.gate import Gate, until
from tests.faults.observe import Case
from tests.faults.rows import covers, on
from tests.faults.settle import Balance, Mark, assert_even, balance, mark

prompts = (f"postgres {number}" for number in itertools.count(1))


@pytest.fixture(scope="module")
def postgres() -> Iterator[PostgresServer]:
    """A server of this file's own."""
    programs = find_programs()
    if programs is None:
        lacking = "PostgreSQL's server programs are not installed (apt-get install postgresql): NOT TESTED"
        if os.environ.get("CI"):
            pytest.fail(lacking)
        pytest.skip(lacking)
    with PostgresServer(programs) as server:
        yield server


@pytest.fixture
def gate(postgres: PostgresServer, own: OwnGate) -> Iterator[Gate]:
    """A gateway whose journal is there."""
    yield own(database_url=asyncio.run(postgres.new_database()))
    postgres.revive()


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
