"""The journal's look-ups and moves, on both databases."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from decimal import Decimal
from typing import Any, get_args

import asyncpg
import pytest

from app.store.jobs import INSERT_JOB, OPEN, JobState, JobStore, Move, RequestRow, Total, values_of
from app.store.keys import KeyStore
from app.store.reports import ReportStore, Selection
from app.store.upkeep import Upkeep
from tests.fakes.postgres import PostgresServer
from tests.store.conftest import Place
from tests.store.rows import NOW, job_row, key_row, request_row, unleased

pytestmark = pytest.mark.anyio


def ids(rows: Any) -> list[str]:
    return [row.id for row in rows]


async def adopt(store: JobStore, owner: str, clock: float = NOW) -> list[RequestRow]:
    """What a gateway takes over whose clock shows this."""
    now = await store.time(clock)
    return await store.adopt(owner, now + 6, now)


class TestEntering:
    async def test_a_request_comes_back_as_it_was_written(self, store: JobStore) -> None:
        row = request_row("a", key="key", created=1_800_000_000.123456, owner=None, answer="{}")
        assert await store.open(row) is None
        assert unleased(await store.request("a")) == unleased(row)
        assert await store.request("b") is None

    async def test_a_job_comes_back_as_it_was_written(self, store: JobStore) -> None:
        await store.open(request_row("a"))
        plain = job_row("1", "a", first=3, count=4, updated=NOW + 0.1)
        full = job_row("2", "a", first=7, state="done", job="j", ticket="{}", cost="0.10", verdict="[]")
        await store.intend(plain, "one")
        await store.intend(full, "one")
        assert await store.jobs_of("a") == [plain, full]

    async def test_a_job_without_a_request_is_not_entered(self, store: JobStore) -> None:
        assert not await store.intend(job_row("1", "nobody"), "one")
        assert await store.jobs_of("nobody") == []

    async def test_entering_twice_is_as_good_as_once(self, store: JobStore) -> None:
        await store.open(request_row("a", key="key"))
        await store.open(request_row("b"))
        assert await store.open(request_row("a", key="key")) is None
        assert await store.open(request_row("b")) is None
        for _ in range(2):
            await store.intend(job_row("1", "a"), "one")
        found = [unleased(await store.request(id)) for id in ("a", "b")]
        assert found == [unleased(request_row("a", key="key")), unleased(request_row("b"))]
        assert len(await store.jobs_of("a")) == 1

    async def test_jobs_come_in_the_order_of_their_pictures_and_tries(self, store: JobStore) -> None:
        await store.open(request_row("a"))
        await store.open(request_row("b"))
        await store.intend(job_row("4", "a", first=1), "one")
        await store.intend(job_row("3", "a", first=0, created=NOW + 1), "one")
        await store.intend(job_row("2", "a", first=0), "one")
        await store.intend(job_row("1", "b"), "one")
        assert ids(await store.jobs_of("a")) == ["2", "3", "4"]


class TestKeys:
    async def test_a_key_that_is_taken_answers_with_its_request(self, store: JobStore) -> None:
        first = request_row("a", key="key")
        await store.open(first)
        assert unleased(await store.open(request_row("b", key="key", created=NOW + 86_399))) == unleased(first)
        assert await store.request("b") is None

    async def test_callers_do_not_share_keys(self, store: JobStore) -> None:
        await store.open(request_row("a", key="key"))
        assert await store.open(request_row("b", key="key", caller="bert")) is None
        assert await store.open(request_row("c", key="other")) is None

    async def test_an_expired_holder_loses_its_key_to_the_next(self, store: JobStore) -> None:
        await store.open(request_row("a", key="key", state="settled"))
        late = NOW + 86_400
        assert await store.open(request_row("b", key="key", created=late, keep_until=late + 1)) is None
        old = await store.request("a")
        assert old is not None
        assert old.key is None
        new = await store.by_key("anna", "key", late)
        assert new is not None
        assert new.id == "b"

    async def test_a_key_means_its_request_for_as_long_as_that_is_kept(self, store: JobStore) -> None:
        row = request_row("a", key="key", state="settled")
        await store.open(row)
        assert unleased(await store.by_key("anna", "key", NOW + 86_399)) == unleased(row)
        assert await store.by_key("anna", "key", NOW + 86_400) is None
        assert await store.by_key("bert", "key", NOW) is None
        assert await store.by_key("anna", "other", NOW) is None

    async def test_of_fifty_at_once_with_one_key_one_is_entered(self, place: Place) -> None:
        stores = [JobStore(await place.open()) for _ in range(2)]
        rows = [request_row(f"r{number:02}", key="key") for number in range(50)]
        answers = await asyncio.gather(*(stores[number % 2].open(row) for number, row in enumerate(rows)))
        (entered,) = [row for row, answer in zip(rows, answers, strict=True) if answer is None]
        assert [unleased(answer) for answer in answers if answer is not None] == [unleased(entered)] * 49
        assert ids(await ReportStore(await place.open()).listing(Selection())) == [entered.id]

    async def test_of_fifty_at_once_one_inherits_an_expired_key(self, place: Place) -> None:
        stores = [JobStore(await place.open()) for _ in range(2)]
        await stores[0].open(request_row("old", key="key", keep_until=NOW, state="settled"))
        rows = [request_row(f"r{number:02}", key="key", created=NOW + 1) for number in range(50)]
        answers = await asyncio.gather(*(stores[number % 2].open(row) for number, row in enumerate(rows)))
        assert answers.count(None) == 1
        assert len(await ReportStore(await place.open()).listing(Selection())) == 2

    async def test_keys_that_mean_nothing_any_more_are_freed(
        self, store: JobStore, reports: ReportStore, upkeep: Upkeep
    ) -> None:
        await store.open(request_row("a", key="1", keep_until=NOW - 1, state="settled"))
        await store.open(request_row("b", key="2", keep_until=NOW, state="settled"))
        assert await upkeep.forget_keys(NOW) == 1
        assert [(row.id, row.key) for row in await reports.listing(Selection())] == [("b", "2"), ("a", None)]


class TestRepeats:
    async def test_the_newest_request_for_the_same_is_found(self, store: JobStore) -> None:
        for number in range(3):
            await store.open(request_row(str(number), created=NOW + number))
        await store.open(request_row("other", created=NOW + 9, fingerprint="0" * 64))
        await store.open(request_row("berts", created=NOW + 9, caller="bert"))
        found = await store.repeat_of("anna", "f" * 64, NOW)
        assert found is not None
        assert found.id == "2"
        assert await store.repeat_of("anna", "f" * 64, NOW + 2.5) is None

    async def test_one_that_is_just_as_old_as_asked_for_counts(self, store: JobStore) -> None:
        await store.open(request_row("a"))
        assert await store.repeat_of("anna", "f" * 64, NOW) is not None


class TestJobs:
    async def test_a_ticket_is_bound_to_a_job_that_had_none(self, store: JobStore) -> None:
        await store.open(request_row("a"))
        for state in get_args(JobState):
            before = job_row(f"row of {state}", "a", state=state)
            await store.intend(before, "one")
            bound = await store.bind(before.id, "job", '{"t": 1}', NOW + 1)
            assert bound is (state in ("intent", "ambiguous"))
            changes = {"state": "submitted", "job": "job", "ticket": '{"t": 1}', "updated": NOW + 1} if bound else {}
            assert replace(before, **changes) in await store.jobs_of("a")

    async def test_a_job_moves_only_from_the_states_that_are_named(self, store: JobStore) -> None:
        await store.open(request_row("a"))
        for state in get_args(JobState):
            before = job_row(f"row of {state}", "a", state=state)
            await store.intend(before, "one")
            moved = await store.move(
                Move(before.id, "done", NOW + 1, of=("submitted", "lost"), cost="0.03", verdict="{}")
            )
            assert moved is (state in ("submitted", "lost"))
            changes = {"state": "done", "cost": "0.03", "verdict": "{}", "updated": NOW + 1} if moved else {}
            assert replace(before, **changes) in await store.jobs_of("a")

    async def test_a_move_that_says_nothing_of_cost_and_verdict_keeps_them(self, store: JobStore) -> None:
        await store.open(request_row("a"))
        await store.intend(job_row("1", "a", cost="0.03", verdict="{}"), "one")
        assert await store.move(Move("1", "lost", NOW + 2, of=("intent",)))
        assert await store.jobs_of("a") == [
            job_row("1", "a", state="lost", cost="0.03", verdict="{}", updated=NOW + 2),
        ]
        assert not await store.move(Move("1", "done", NOW, of=()))
        assert not await store.move(Move("2", "done", NOW, of=("lost",)))

    async def test_of_twenty_who_would_charge_a_job_one_does(self, place: Place) -> None:
        stores = [JobStore(await place.open()) for _ in range(2)]
        await stores[0].open(request_row("a"))
        await stores[0].intend(job_row("1", "a", state="submitted"), "one")
        moves = (
            stores[number % 2].move(Move("1", "done", NOW, of=("submitted", "lost"), cost=f"0.{number:02}"))
            for number in range(20)
        )
        moved = await asyncio.gather(*moves)
        assert moved.count(True) == 1
        (job,) = await stores[1].jobs_of("a")
        assert job.cost == f"0.{moved.index(True):02}"

    async def test_upstream_ids_are_told_by_endpoint_and_time(self, store: JobStore) -> None:
        await store.open(request_row("a"))
        for number, fields in enumerate(({}, {"endpoint": "other"}, {"provider": "other"}, {"updated": NOW - 1}, {})):
            await store.intend(job_row(str(number), "a", job=f"job{number}", **fields), "one")
        await store.intend(job_row("5", "a"), "one")
        assert await store.job_ids("fal", "fal-ai/edit", NOW) == {"job0", "job4"}
        await store.bind("5", "job5", "{}", NOW + 1)
        assert await store.job_ids("fal", "fal-ai/edit", NOW + 1) == {"job5"}

    async def test_the_books_are_exact(self, store: JobStore) -> None:
        assert await store.totals() == {}
        await store.open(request_row("a"))
        for number in range(10):
            await store.intend(job_row(str(number), "a", state="done", cost="0.1"), "one")
        await store.intend(job_row("x", "a", state="done", cost="0.033333333333333333333"), "one")
        await store.intend(job_row("y", "a", state="done"), "one")
        await store.intend(job_row("z", "a"), "one")
        assert await store.totals() == {
            "done": Total(12, Decimal("1.033333333333333333333"), unpriced=1),
            "intent": Total(1, Decimal(0), unpriced=1),
        }


class TestAnswers:
    async def test_an_answer_is_kept_with_the_request_which_is_settled_by_it(self, store: JobStore) -> None:
        row = request_row("a", key="key")
        await store.open(row)
        assert await store.answer("a", "one", '{"ok": 1}', NOW + 5, status="completed") == "settled"
        changes = {"state": "settled", "status": "completed", "owner": None}
        answered = replace(row, **changes, answer='{"ok": 1}', keep_until=NOW + 5)
        assert unleased(await store.request("a")) == unleased(answered)

    @pytest.mark.parametrize("state", OPEN)
    async def test_while_one_of_its_jobs_is_open_it_is_settling(self, store: JobStore, state: JobState) -> None:
        row = request_row("a")
        await store.open(row)
        await store.intend(job_row("1", "a", state="done"), "one")
        await store.intend(job_row("2", "a", state=state), "one")
        assert await store.answer("a", "one", "{}", NOW + 5) == "settling"
        assert not await store.settle("a", "one")
        assert await store.unsettled("one") == {"a"}
        assert await store.move(Move("2", "failed", NOW, of=(state,)))
        assert await store.settle("a", "one")
        assert await store.unsettled("one") == frozenset()
        changes = {"state": "settled", "status": "failed", "owner": None, "unknown": 2}
        settled = replace(row, **changes, answer="{}", keep_until=NOW + 5)
        assert unleased(await store.request("a")) == unleased(settled)

    async def test_what_was_not_answered_is_not_settled(self, store: JobStore) -> None:
        await store.open(request_row("a"))
        assert not await store.settle("a", "one")

    async def test_an_answer_can_free_the_key(self, store: JobStore) -> None:
        await store.open(request_row("a", key="key"))
        assert await store.answer("a", "one", "{}", NOW + 5, forget_key=True)
        row = await store.request("a")
        assert row is not None
        assert (row.state, row.owner, row.key) == ("settled", None, None)
        assert await store.open(request_row("b", key="key")) is None

    async def test_a_running_request_keeps_its_key_however_long_it_takes(self, store: JobStore, upkeep: Upkeep) -> None:
        row = request_row("a", key="key", keep_until=NOW - 1)
        await store.open(row)
        assert unleased(await store.by_key("anna", "key", NOW)) == unleased(row)
        assert await upkeep.forget_keys(NOW) == 0
        assert unleased(await store.open(request_row("b", key="key"))) == unleased(row)

    async def test_who_has_lost_a_request_cannot_answer_or_settle_it(self, store: JobStore) -> None:
        row = request_row("a", lease=NOW - 1)
        await store.open(row)
        assert ids(await adopt(store, "two")) == ["a"]
        assert await store.answer("a", "one", "{}", NOW) is None
        assert not await store.settle("a", "one")
        assert unleased(await store.request("a")) == unleased(replace(row, owner="two"))
        assert await store.answer("a", "two", "{}", NOW) == "settled"
        assert not await store.settle("a", "two")

    async def test_a_job_that_was_looked_up_belongs_to_one_row(self, store: JobStore) -> None:
        await store.open(request_row("a"))
        await store.intend(job_row("1", "a", state="ambiguous"), "one")
        await store.intend(job_row("2", "a", state="ambiguous"), "one")
        assert await store.bind("1", "found", "{}", NOW, found=True)
        assert not await store.bind("2", "found", "{}", NOW, found=True)
        assert await store.bind("2", "found", "{}", NOW), "what a submit itself was told is taken as it is"


class TestOwners:
    async def test_what_a_dead_process_left_is_taken_over(self, store: JobStore) -> None:
        dead = request_row("dead", lease=NOW - 1)
        free = request_row("free", owner=None, lease=0, state="settling", created=NOW - 9)
        await store.open(dead)
        await store.open(free)
        await store.open(request_row("alive", lease=NOW + 5))
        await store.open(request_row("over", state="settled", owner=None, lease=0))
        await store.open(request_row("mine", owner="two", lease=NOW - 1))
        taken = await adopt(store, "two")
        assert [unleased(row) for row in taken] == [unleased(replace(row, owner="two")) for row in (free, dead)]
        assert ids(await adopt(store, "three")) == ["mine"]
        assert ids(await adopt(store, "four")) == [], "all leases are new"

    async def test_each_request_is_adopted_by_one(self, place: Place) -> None:
        stores = [JobStore(await place.open()) for _ in range(3)]
        for number in range(40):
            await stores[0].open(request_row(f"r{number:02}", owner="dead", lease=NOW - 1))
        adopters = (adopt(stores[number % 3], f"p{number}") for number in range(12))
        adopted = await asyncio.gather(*adopters)
        assert sorted(id for rows in adopted for id in ids(rows)) == [f"r{number:02}" for number in range(40)]
        for number, rows in enumerate(adopted):
            assert {row.owner for row in rows} <= {f"p{number}"}

    async def test_who_renews_keeps_what_is_his(self, store: JobStore) -> None:
        for id, owner in (("a", "one"), ("b", "one"), ("c", "two")):
            await store.open(request_row(id, owner=owner, lease=NOW - 1))
        await store.open(request_row("d", state="settled", lease=NOW - 1))
        await store.renew("one", NOW + 6, NOW)
        assert ids(await adopt(store, "three")) == ["c"]

    async def test_a_lease_begins_when_its_request_is_written(self, store: JobStore) -> None:
        await store.intend(job_row("1", "a", created=NOW + 30), "one", request_row("a"))  # it had to wait for its turn
        assert ids(await adopt(store, "two", NOW + 31)) == []

    @pytest.mark.parametrize("wrong", [-60.0, 0.0, 60.0, 86_400.0])
    async def test_on_a_server_no_gateway_can_be_wrong_about_the_time(self, server_place: Place, wrong: float) -> None:
        database = await server_place.open()
        store = JobStore(database)
        await KeyStore(database).add(key_row("key_a", budget_total=1))
        there = NOW + wrong  # what the clock shows where everything but the request `b` comes from
        await store.open(request_row("a", owner="alive", created=there, lease=there + 6))
        await store.open(request_row("b", owner="alive"))
        await store.open(request_row("c", owner="alive", created=there, lease=there - 0.1))
        await store.intend(job_row("1", "d", created=there + 30), "alive", request_row("d", owner="alive"))
        await store.open_within_budget(request_row("e", caller="key_a", owner="alive", created=there, lease=there + 6))
        assert ids(await adopt(store, "off", there)) == ["c"]
        assert ids(await adopt(store, "right")) == []
        await store.renew("alive", there - 0.1, there)
        assert sorted(ids(await adopt(store, "right"))) == ["a", "b", "d", "e"]

    async def test_what_is_let_go_of_can_be_had_at_once(self, store: JobStore) -> None:
        await store.open(request_row("a", lease=NOW + 60))
        await store.open(request_row("b", lease=NOW + 60, owner="two"))
        await store.release("one")
        assert ids(await adopt(store, "three")) == ["a"]


class TestFences:
    """What is about to be bought is entered by who owns the request, or not at all."""

    async def test_who_has_lost_a_request_buys_nothing_for_it(self, store: JobStore) -> None:
        await store.open(request_row("a", lease=NOW - 1))
        await adopt(store, "two")
        assert not await store.intend(job_row("1", "a"), "one")
        assert not await store.intend(job_row("2", "a"), "one", request_row("a")), "nor by entering it once more"
        assert await store.intend(job_row("3", "a"), "two")
        assert ids(await store.jobs_of("a")) == ["3"]
        assert unleased(await store.request("a")) == unleased(request_row("a", owner="two"))

    async def test_nothing_is_bought_for_what_was_let_go_of(self, store: JobStore) -> None:
        await store.open(request_row("a"))
        await store.release("one")
        assert not await store.intend(job_row("1", "a"), "one")

    async def test_nothing_is_bought_for_what_has_been_answered(self, store: JobStore) -> None:
        await store.intend(job_row("1", "a", state="submitted"), "one", request_row("a"))
        assert await store.answer("a", "one", "{}", NOW) == "settling"
        assert not await store.intend(job_row("2", "a", first=1), "one")

    async def test_who_has_lost_a_request_cannot_give_it_to_another_offer(self, store: JobStore) -> None:
        await store.open(request_row("a", lease=NOW - 1))
        await store.replan("a", "one", "{}", "{}", "first", "USD")
        await adopt(store, "two")
        await store.replan("a", "one", "{}", "{}", "second", "USD")
        row = await store.request("a")
        assert row is not None
        assert row.provider == "first"

    async def test_an_heir_sees_what_was_being_entered_when_it_came(
        self, postgres: PostgresServer, server_place: Place
    ) -> None:
        """Else it would tell the client that nothing was bought, and the repeat would buy it again. (SQLite: there is
        one writer at a time.)"""
        one, two = JobStore(await server_place.open()), JobStore(await server_place.open())
        await one.open(request_row("a", lease=NOW - 1))
        other = await asyncpg.connect(server_place.url)
        blocking = other.transaction()
        await blocking.start()  # it has the same id, so that the owner's statement stops in the middle
        await other.execute(INSERT_JOB, *values_of(job_row("1", "a")))
        entering = asyncio.create_task(one.intend(job_row("1", "a"), "one"))
        await waiting(postgres, "INSERT INTO jobs")

        async def inherit() -> list[str]:
            assert ids(await adopt(two, "two")) == ["a"]
            return ids(await two.jobs_of("a"))

        inheriting = asyncio.create_task(inherit())
        await waiting(postgres, "UPDATE requests")
        await blocking.rollback()
        await other.close()
        assert await entering
        assert await inheriting == ["1"]


async def waiting(server: PostgresServer, statement: str) -> None:
    """Returns when such a statement waits for another one."""
    sql = f"SELECT pid FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE '{statement}%'"
    async with asyncio.timeout(2):
        while not await server.execute(sql):
            await asyncio.sleep(0.01)


class TestTogether:
    """What belongs together is one transaction."""

    async def test_a_request_is_entered_with_its_first_job(self, store: JobStore) -> None:
        await store.intend(job_row("1", "a"), "one", request_row("a"))
        assert unleased(await store.request("a")) == unleased(request_row("a"))
        assert await store.jobs_of("a") == [job_row("1", "a")]

    async def test_an_answer_brings_the_end_of_its_jobs(self, store: JobStore) -> None:
        await store.intend(job_row("1", "a", state="submitted"), "one", request_row("a"))
        moves = [Move("1", "done", NOW + 1, of=("submitted",), cost="0.03", verdict="{}")]
        assert await store.answer("a", "one", "{}", NOW + 9, moves=moves) == "settled"
        [job] = await store.jobs_of("a")
        assert (job.state, job.cost) == ("done", "0.03")

    async def test_a_lease_in_the_far_future_holds_nobody(self, store: JobStore) -> None:
        """The clock was set back after it was given."""
        await store.open(request_row("a", owner="dead", lease=NOW + 3600))
        await store.open(request_row("b", owner="alive", lease=NOW + 5))
        assert [row.id for row in await adopt(store, "me")] == ["a"]
