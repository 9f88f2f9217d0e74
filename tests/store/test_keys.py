"""Keys and their budgets, on both databases; several gateways on one."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from typing import Any

import pytest

from app.store.db import Database
from app.store.jobs import JobStore, Move, OverBudget, RequestRow
from app.store.keys import KeyRow, KeyStore
from app.store.money import OPEN, Standing, spans
from app.store.upkeep import Upkeep
from tests.store.conftest import Place
from tests.store.rows import NOW, job_row, key_row, request_row, unleased

pytestmark = pytest.mark.anyio

DAY = 86_400.0
PRICE = 30_000  # millionths of a dollar


@pytest.fixture
def keys(database: Database) -> KeyStore:
    return KeyStore(database)


def ask(id: str, reserve: int = PRICE, **fields: Any) -> RequestRow:
    return request_row(id, caller="key_a", reserve=reserve, **fields)


async def buy(store: JobStore, id: str, *costs: str | None, to: Any = "done", now: float = NOW) -> None:
    """A request's jobs, each from its beginning to its end."""
    for number, cost in enumerate(costs):
        await store.intend(job_row(f"{id}.{number}", id, first=number, reserve=PRICE), "one")
        await store.move(Move(f"{id}.{number}", to, now, OPEN, cost))


async def standing(keys: KeyStore, now: float = NOW) -> Standing:
    return (await keys.standings(["key_a"], now))["key_a"]


class TestRows:
    async def test_a_key_comes_back_as_it_was_written(self, keys: KeyStore) -> None:
        plain = key_row("key_a")
        full = KeyRow(
            "key_b", "é ✓", "d" * 64, "ig_", "last", NOW + 1, "old", NOW + 2, NOW + 3.5, None, 0, 2**53, 3, 4, 5, 6,
            '["m"]', "url", 1,
        )  # fmt: skip
        assert not await keys.any()
        await keys.add(plain)
        await keys.add(full)
        assert await keys.any()
        assert [await keys.get("key_a"), await keys.get("key_b"), await keys.get("key_c")] == [plain, full, None]
        assert await keys.listing(None, 9) == [full, plain]
        assert await keys.listing((full.created, full.id), 9) == [plain]
        assert await keys.listing(None, 1) == [full]

    async def test_adding_twice_is_as_good_as_once(self, keys: KeyStore) -> None:
        await keys.add(key_row("key_a"))
        await keys.add(key_row("key_a"))
        assert len(await keys.listing(None, 9)) == 1

    async def test_it_is_found_by_what_it_hashes_to(self, keys: KeyStore) -> None:
        await keys.add(key_row("key_a", digest="a"))
        found = await keys.by_digest("a")
        assert found is not None
        assert found.id == "key_a"
        assert await keys.by_digest("b") is None

    async def test_limits_change_and_others_stay(self, keys: KeyStore) -> None:
        row = key_row("key_a", budget_day=1, concurrent_jobs=2)
        await keys.add(row)
        changed = await keys.change("key_a", {"budget_day": None, "name": "other"})
        assert changed == replace(row, budget_day=None, name="other") == await keys.get("key_a")
        assert await keys.change("key_b", {"name": "x"}) is None

    async def test_a_replaced_key_works_for_as_long_as_it_was_promised(self, keys: KeyStore) -> None:
        await keys.add(key_row("key_a", digest="old"))
        for _ in range(2):  # the answer to the first may have been lost
            row = await keys.rotate("key_a", "new", "ig_n", "new4", NOW + 10)
        assert row is not None
        assert (row.prefix, row.last4) == ("ig_n", "new4")
        for digest in ("old", "new"):
            assert await keys.by_digest(digest) == row
        assert row.opens("new", NOW + 11)
        assert row.opens("old", NOW + 9)
        assert not row.opens("old", NOW + 10)
        assert not replace(row, old_until=None).opens("old", NOW)

    async def test_a_revoked_key_opens_nothing_for_good(self, keys: KeyStore) -> None:
        await keys.add(key_row("key_a", digest="d"))
        row = await keys.revoke("key_a", NOW)
        assert row is not None
        assert not row.opens("d", NOW)
        again = await keys.revoke("key_a", NOW + 5)
        assert again == row
        assert await keys.change("key_a", {"name": "x"}) is None
        assert await keys.rotate("key_a", "e", "p", "l", None) is None
        assert await keys.any()

    async def test_an_expired_key_opens_nothing(self, keys: KeyStore) -> None:
        row = key_row("key_a", digest="d", expires=NOW + 1)
        assert row.opens("d", NOW)
        assert not row.opens("d", NOW + 1)


class TestMoney:
    async def test_a_request_reserves_what_it_may_cost_until_its_jobs_have_ended(
        self, store: JobStore, keys: KeyStore
    ) -> None:
        await keys.add(key_row("key_a", budget_total=1_000_000))
        assert await store.open_within_budget(ask("r", 3 * PRICE)) is None
        assert (await standing(keys)).reserved == 3 * PRICE
        await buy(store, "r", "0.03")
        held = await standing(keys)
        assert (held.day, held.month, held.total, held.reserved) == (PRICE, PRICE, PRICE, 2 * PRICE)
        await store.intend(job_row("open", "r", first=1, reserve=PRICE), "one")
        assert (await standing(keys)).reserved == 2 * PRICE
        await store.answer("r", "one", "{}", NOW, status="completed")  # one was never asked for, one is still open
        held = await standing(keys)
        assert (held.total, held.reserved) == (PRICE, PRICE)
        await store.move(Move("open", "failed", NOW, OPEN, "0"))
        held = await standing(keys)
        assert (held.total, held.reserved) == (PRICE, 0)

    @pytest.mark.parametrize("state", ["ambiguous", "lost", "cancelling"])
    async def test_what_is_not_known_stays_reserved(self, store: JobStore, keys: KeyStore, state: Any) -> None:
        await keys.add(key_row("key_a", budget_total=PRICE))
        await store.open_within_budget(ask("r"))
        await store.intend(job_row("j", "r", reserve=PRICE), "one")
        await store.move(Move("j", state, NOW, OPEN))
        await store.answer("r", "one", "{}", NOW, status="completed")
        assert (await standing(keys)).reserved == PRICE
        assert await store.open_within_budget(ask("s")) == OverBudget("total", PRICE, 0)
        await store.move(Move("j", "cancelled", NOW, OPEN))
        assert await store.open_within_budget(ask("s")) is None

    async def test_a_cost_that_is_known_before_the_result_is_here_is_what_is_reserved(
        self, store: JobStore, keys: KeyStore
    ) -> None:
        await keys.add(key_row("key_a"))
        await store.open(ask("r", key="key"))
        await store.intend(job_row("j", "r", reserve=PRICE), "one")
        await store.move(Move("j", "lost", NOW, OPEN, "0.05"))
        await store.answer("r", "one", "{}", NOW, status="completed")
        assert (await standing(keys)).reserved == 50_000
        await store.move(Move("j", "unresolved", NOW, OPEN))
        held = await standing(keys)
        assert (held.total, held.reserved) == (50_000, 0)

    async def test_a_cost_that_nobody_told_is_what_was_reserved_and_never_zero(
        self, store: JobStore, keys: KeyStore
    ) -> None:
        await keys.add(key_row("key_a"))
        await store.open(ask("r", 2 * PRICE, key="key"))
        await buy(store, "r", None)
        await store.intend(job_row("j", "r", first=1, reserve=PRICE), "one")
        await store.move(Move("j", "cancelled", NOW, OPEN))  # that is: without a bill
        assert (await standing(keys)).total == PRICE

    async def test_a_move_that_is_repeated_is_booked_once(self, place: Place) -> None:
        stores = [JobStore(await place.open()) for _ in range(2)]
        keys = KeyStore(await place.open())
        await keys.add(key_row("key_a"))
        await stores[0].open(ask("r", key="key"))
        await stores[0].intend(job_row("j", "r", reserve=PRICE), "one")
        move = Move("j", "done", NOW, OPEN, "0.03")
        made = await asyncio.gather(*(stores[number % 2].move(move) for number in range(10)))
        assert made.count(True) == 1
        await stores[0].answer("r", "one", "{}", NOW, moves=[move])
        held = await standing(keys)
        assert (held.total, held.reserved) == (PRICE, 0)

    async def test_an_answer_books_the_jobs_that_end_with_it(self, store: JobStore, keys: KeyStore) -> None:
        await keys.add(key_row("key_a"))
        await store.open(ask("r", 2 * PRICE, key="key"))
        moves = []
        for number in range(2):
            await store.intend(job_row(str(number), "r", first=number, reserve=PRICE), "one")
            moves.append(Move(str(number), "done", NOW, OPEN, "0.031"))
        assert await store.answer("r", "one", "{}", NOW, status="completed", moves=moves) == "settled"
        held = await standing(keys)
        assert (held.total, held.reserved) == (62_000, 0)

    async def test_days_and_months_begin_anew_and_the_total_does_not(self, store: JobStore, keys: KeyStore) -> None:
        await keys.add(key_row("key_a"))
        await store.open(ask("r", key="key"))
        end_of_day = (NOW // DAY + 1) * DAY
        await buy(store, "r", "0.03", now=end_of_day - 0.01)
        today, tomorrow = await standing(keys, end_of_day - 0.01), await standing(keys, end_of_day)
        assert (today.day, tomorrow.day) == (PRICE, 0)
        assert spans(end_of_day)[1] == spans(NOW)[1], "the test wants a day in the middle of a month"
        later = await standing(keys, NOW + 32 * DAY)
        assert (tomorrow.month, later.month, later.total) == (PRICE, 0, PRICE)

    async def test_on_a_server_its_clock_says_which_day_it_is(self, server_place: Place) -> None:
        database, other = await server_place.open(), await server_place.open()
        store, keys = JobStore(database), KeyStore(database)
        await keys.add(key_row("key_a", budget_day=PRICE))
        wrong = time.time() + 40 * DAY  # what this gateway's clock shows, and all its times
        await store.time(wrong)
        assert await store.open_within_budget(ask("r", created=wrong)) is None
        await buy(store, "r", "0.03", now=wrong)
        await store.answer("r", "one", "{}", wrong, status="completed")
        held = await standing(KeyStore(other), await JobStore(other).time(time.time()))
        assert (held.day, held.month, held.total, held.reserved) == (PRICE, PRICE, PRICE, 0)
        assert await standing(keys, wrong) == held
        assert isinstance(await JobStore(other).open_within_budget(ask("s", created=time.time())), OverBudget)

    async def test_what_was_spent_outlives_the_journal(
        self, store: JobStore, keys: KeyStore, database: Database
    ) -> None:
        await keys.add(key_row("key_a"))
        await store.open(ask("r", key="key"))
        await buy(store, "r", "0.03")
        await store.answer("r", "one", "{}", NOW, status="completed")
        await Upkeep(database).book()
        await Upkeep(database).purge(NOW + 1)
        assert await store.request("r") is None
        assert (await standing(keys)).total == PRICE


class TestBudgets:
    @pytest.mark.parametrize("budget", ["day", "month", "total"])
    async def test_each_budget_says_what_is_left_of_it(self, store: JobStore, keys: KeyStore, budget: str) -> None:
        await keys.add(key_row("key_a", **{f"budget_{budget}": 2 * PRICE + 10}))
        for id in ("r", "s"):
            assert await store.open_within_budget(ask(id)) is None
            await buy(store, id, "0.03")
            await store.answer(id, "one", "{}", NOW, status="completed")
        assert await store.open_within_budget(ask("t")) == OverBudget(budget, PRICE, 10)
        assert await store.request("t") is None

    async def test_entering_twice_is_as_good_as_once(self, store: JobStore, keys: KeyStore) -> None:
        await keys.add(key_row("key_a", budget_total=PRICE))
        assert await store.open_within_budget(ask("r")) is None
        assert await store.open_within_budget(ask("r")) is None

    async def test_an_idempotency_key_that_is_taken_answers_with_its_request(
        self, store: JobStore, keys: KeyStore
    ) -> None:
        await keys.add(key_row("key_a", budget_total=PRICE))
        first = ask("r", key="key")
        assert await store.open_within_budget(first) is None
        assert unleased(await store.open_within_budget(ask("s", key="key"))) == unleased(first)
        assert (await standing(keys)).reserved == PRICE

    async def test_who_is_refused_leaves_an_idempotency_key_free(self, store: JobStore, keys: KeyStore) -> None:
        await keys.add(key_row("key_a", budget_total=PRICE - 1))
        assert isinstance(await store.open_within_budget(ask("r", key="key")), OverBudget)
        await keys.change("key_a", {"budget_total": PRICE})
        assert await store.open_within_budget(ask("s", key="key")) is None

    async def test_other_keys_are_of_no_account(self, store: JobStore, keys: KeyStore) -> None:
        await keys.add(key_row("key_a", budget_total=PRICE))
        await keys.add(key_row("key_b", budget_total=PRICE))
        assert await store.open_within_budget(ask("r")) is None
        assert await store.open_within_budget(replace(ask("s"), caller="key_b")) is None

    async def test_of_a_hundred_at_once_at_two_gateways_thirty_three_fit_into_a_dollar(self, place: Place) -> None:
        stores = [JobStore(await place.open()) for _ in range(2)]
        keys = KeyStore(await place.open())
        await keys.add(key_row("key_a", budget_day=1_000_000))
        rows = [ask(f"r{number}") for number in range(100)]
        answers = await asyncio.gather(*(stores[number % 2].open_within_budget(row) for number, row in enumerate(rows)))
        assert answers.count(None) == 33
        assert {answer for answer in answers if answer is not None} == {OverBudget("day", PRICE, 10_000)}

    async def test_jobs_that_end_while_others_are_entered_never_leave_more_than_the_budget(self, place: Place) -> None:
        stores = [JobStore(await place.open()) for _ in range(2)]
        keys = KeyStore(await place.open())
        await keys.add(key_row("key_a", budget_total=20 * PRICE))
        seen: list[int] = []

        async def one(number: int) -> bool:
            store, id = stores[number % 2], f"r{number}"
            if await store.open_within_budget(ask(id)) is not None:
                return False
            failed = number % 3 == 0
            await buy(store, id, "0" if failed else "0.03", to="failed" if failed else "done")
            await store.answer(id, "one", "{}", NOW, status="completed")
            held = await standing(keys)
            seen.append(held.total + held.reserved)
            return not failed

        served = 0
        for first in range(0, 80, 16):
            served += sum(await asyncio.gather(*map(one, range(first, first + 16))))
        held = await standing(keys)
        assert (held.total, held.reserved) == (served * PRICE, 0)
        assert served == 20
        assert max(seen) <= 20 * PRICE
