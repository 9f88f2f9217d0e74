"""One key with a budget under a crowd, against the real sandbox: never over it, never stuck, and the books agree."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from decimal import Decimal
from pathlib import Path

import anyio
import httpx2
import pytest

from tests.conftest import Json
from tests.fakes.postgres import PostgresServer
from tests.fakes.sandbox import SandboxServer
from tests.faults.gate import Gate, at_once, until
from tests.keys.conftest import ADMIN, bearer

PRICE = Decimal("0.03")


@pytest.fixture
def crowded() -> Iterator[SandboxServer]:
    """fal.ai, for this test alone: its books are this test's."""
    with SandboxServer(concurrency=200) as server:
        yield server


@pytest.fixture(params=["SQLite", "PostgreSQL, two gateways"])
def gates(request: pytest.FixtureRequest, crowded: SandboxServer, tmp_path: Path) -> Iterator[list[Gate]]:
    """The gateways on one database."""
    with ExitStack() as stack:
        settings = {"admin_key": ADMIN}
        count = 1
        if request.param != "SQLite":
            server: PostgresServer = request.getfixturevalue("postgres")
            settings["database_url"] = anyio.run(server.new_database)
            count = 2
        yield [stack.enter_context(Gate(crowded, tmp_path / f"gate{number}", **settings)) for number in range(count)]


def make(gate: Gate, **limits: object) -> Json:
    made: Json = gate.http.post("/v1/keys", json={"name": "crowd", **limits}, headers=bearer(ADMIN)).json()
    return made


def standing(gate: Gate, key: Json) -> Json:
    told: Json = gate.http.get(f"/v1/keys/{key['id']}", headers=bearer(ADMIN)).json()["spent"]
    return told


def billed(sandbox: SandboxServer) -> Decimal:
    return Decimal(str(sandbox.totals()["billed_units"])) * PRICE


def test_of_a_hundred_at_once_as_many_are_bought_as_can_be_paid(gates: list[Gate], crowded: SandboxServer) -> None:
    key = make(gates[0], budget_day=1.00)
    most = [0.0]

    def one(number: int) -> int:
        gate = gates[number % len(gates)]
        with gate.connect(headers=bearer(key)) as http:
            status = gate.ask(f"night {number}", http=http).status_code
        told = standing(gate, key)
        most.append(told["day"] + told["reserved"])
        return status

    statuses = Counter(at_once(*(lambda n=number: one(n) for number in range(100))))
    assert statuses == {200: 33, 402: 67}
    assert crowded.totals()["submitted"] == 33
    assert max(most) <= 1.0
    until(lambda: standing(gates[0], key) == {"day": 0.99, "month": 0.99, "total": 0.99, "reserved": 0})
    assert billed(crowded) == Decimal("0.99")


def test_ten_pictures_that_cannot_all_be_paid_are_not_begun(gates: list[Gate], crowded: SandboxServer) -> None:
    key = make(gates[0], budget_total="0.29")
    with gates[0].connect(headers=bearer(key)) as http:
        refused = gates[0].ask("night", http=http, n="10")
        assert refused.status_code == 402
        error = refused.json()["error"]
        assert error["code"] == error["type"] == "insufficient_quota"
        assert "0.3 USD" in error["message"]
        assert "0.29 USD left" in error["message"]
        assert refused.headers["x-should-retry"] == "false"
        streamed = gates[0].ask("night", http=http, n="10", stream="true")
        assert streamed.status_code == 402
        assert crowded.totals()["submitted"] == 0
        assert gates[0].ask("night", http=http, n="9").status_code == 200
        assert gates[0].ask("night", http=http).status_code == 402


def test_with_faults_the_books_agree_and_nothing_stays_reserved(gates: list[Gate], crowded: SandboxServer) -> None:
    key = make(gates[0], budget_total=2.40)
    dice = random.Random(7)
    # A submit that is answered with a 500 is not among them: whether it made a job is not known for two hours.
    faults = (
        {"on": "submit", "fault": "http", "args": {"status": 429}},
        {"on": "status", "fault": "http", "args": {"status": 500}},
        {"on": "result", "fault": "http", "args": {"status": 500}},
        {"on": "submit", "fault": "drop_after", "args": {}},
        {"on": "submit", "fault": "run_for", "args": {"seconds": 0.2}},
    )

    def one(number: int) -> int:
        gate = gates[number % len(gates)]
        if number % 4 == 0:
            crowded.script(dice.choice(faults))
        with gate.connect(headers=bearer(key)) as http:
            try:
                return gate.ask(f"night {number}", http=http, n=str(1 + number % 3)).status_code
            except httpx2.HTTPError:
                return 0

    statuses: Counter[int] = Counter()
    for first in range(0, 120, 40):
        statuses += Counter(at_once(*(lambda n=number: one(n) for number in range(first, first + 40))))
        told = standing(gates[0], key)
        assert told["total"] + told["reserved"] <= 2.40
    assert statuses[402], statuses
    assert 500 not in statuses
    crowded.clear_script()
    # What a lost answer left open is looked for, and found.
    until(lambda: standing(gates[0], key)["reserved"] == 0, 40, what="the end of all reservations")
    assert Decimal(str(standing(gates[0], key)["total"])) == billed(crowded) <= Decimal("2.40")


def test_a_gateway_that_is_killed_leaves_nothing_reserved(gates: list[Gate], crowded: SandboxServer) -> None:
    key = make(gates[0], budget_total=0.30)
    crowded.script(*[{"on": "submit", "fault": "run_for", "args": {"seconds": 2.0}}] * 3)

    def ask() -> None:
        with gates[0].connect(headers=bearer(key)) as http, pytest.raises(httpx2.HTTPError):
            gates[0].ask("night", http=http, n="3")

    def kill() -> None:
        until(lambda: crowded.totals()["submitted"] == 3)
        gates[0].kill()

    at_once(ask, kill)
    gates[0].restart()
    assert standing(gates[0], key)["reserved"] in (0.09, 0)
    until(lambda: standing(gates[0], key) == {"day": 0.09, "month": 0.09, "total": 0.09, "reserved": 0}, 20)
    assert crowded.totals()["submitted"] == 3
