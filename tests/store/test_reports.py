"""What is read of the log: requests by what they are found by, sums, usage by day. On both databases."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from decimal import Decimal
from typing import Any, get_args

import pytest

from app.store.db import Database
from app.store.jobs import JobState, JobStore, Move, RequestRow
from app.store.reports import ReportStore, Selection, Sum, Usage
from app.store.upkeep import Upkeep
from tests.store.rows import NOW, enter, job_row, request_row

pytestmark = pytest.mark.anyio


def ids(rows: Any) -> list[str]:
    return [row.id for row in rows]


class TestListing:
    async def test_pages_are_newest_first_and_neither_repeat_nor_skip(
        self, store: JobStore, reports: ReportStore
    ) -> None:
        for number in range(7):  # two and two of the same moment
            await store.open(request_row(f"r{number}", created=NOW + number // 2))
        pages: list[list[str]] = []
        before = None
        while page := await reports.listing(Selection("anna"), before, 3):
            pages.append(ids(page))
            before = (page[-1].created, page[-1].id)
        assert pages == [["r6", "r5", "r4"], ["r3", "r2", "r1"], ["r0"]]

    async def test_a_caller_sees_only_his_own_and_the_operator_all(self, store: JobStore, reports: ReportStore) -> None:
        await store.open(request_row("a"))
        await store.open(request_row("b", caller="bert"))
        assert ids(await reports.listing(Selection("bert"), None, 9)) == ["b"]
        assert ids(await reports.listing(Selection(), None, 9)) == ["b", "a"]

    async def test_it_can_be_narrowed(self, store: JobStore, reports: ReportStore, database: Database) -> None:
        await store.open(request_row("a", key="key", state="settled"))
        await store.open(request_row("b", key="key", caller="bert", created=NOW + 1))
        for number, state in enumerate(get_args(JobState)):
            await enter(database, job_row(str(number), "a", state=state, job=f"job{number}"))
        await enter(database, job_row("8", "b", state="lost"), job_row("9", "b", first=1, state="lost"))
        assert ids(await reports.listing(Selection(key="key"), None, 9)) == ["b", "a"]
        assert ids(await reports.listing(Selection("anna", key="key"), None, 9)) == ["a"]
        assert ids(await reports.listing(Selection(job="job3"), None, 9)) == ["a"]
        assert ids(await reports.listing(Selection("bert", job="job3"), None, 9)) == []
        assert ids(await reports.listing(Selection(state="settled"), None, 9)) == ["a"]
        assert ids(await reports.listing(Selection(state="settling"), None, 9)) == []
        for state in get_args(JobState):
            assert ids(await reports.listing(Selection(state=state), None, 9)) == (
                ["b", "a"] if state == "lost" else ["a"]
            )
        last = (NOW + 1, "b")
        assert ids(await reports.listing(Selection("anna", key="key", job="job0", state="intent"), last, 9)) == ["a"]
        assert ids(await reports.listing(Selection(state="lost"), last, 9)) == ["a"]

    async def test_whatever_is_asked_for_it_is_only_not_there(self, store: JobStore, reports: ReportStore) -> None:
        await store.open(request_row("a", key="key"))
        for odd in ("\0", "a\0b", "\ud800", "'; DROP TABLE jobs; --", "$1", "%", "ü" * 5000, ""):
            assert await reports.listing(Selection(odd), None, 9) == []
            assert await reports.listing(Selection(key=odd), None, 9) == []
            assert await reports.listing(Selection(job=odd), (NOW, odd), 9) == []
            assert await store.request(odd) is None
            assert await store.by_key("anna", odd, NOW) is None
            assert await store.jobs_of(odd) == []
        assert await store.request("a") is not None

    async def test_it_can_be_narrowed_by_what_became_of_it(self, store: JobStore, reports: ReportStore) -> None:
        rows = [
            request_row("a", model="m1", provider="fal", status="completed"),
            request_row("b", model="m1", provider="other", status="failed", error="provider_timeout", created=NOW + 1),
            request_row("c", model="m2", provider="fal", status="partial", created=NOW + 2),
            request_row("d", model="m2", provider="fal", created=NOW + 3),
        ]
        for row in rows:
            await store.open(row)
        for selection, found in (
            (Selection(model="m1"), "ba"),
            (Selection(provider="fal"), "dca"),
            (Selection(status="running"), "d"),
            (Selection(status="failed"), "b"),
            (Selection(error="provider_timeout"), "b"),
            (Selection(error="other"), ""),
            (Selection(failures=True), "cb"),
            (Selection(failures=False), "da"),
            (Selection(since=NOW + 1), "dcb"),
            (Selection(since=NOW + 1, until=NOW + 3), "cb"),
            (Selection("anna", "m2", "fal", failures=True, until=NOW + 3), "c"),
            (Selection("bert"), ""),
        ):
            assert "".join(ids(await reports.listing(selection))) == found, selection

    async def test_the_jobs_of_a_page_come_with_one_look(self, store: JobStore, reports: ReportStore) -> None:
        for id in "abc":
            await store.open(request_row(id))
        for id, request, first in (("1", "a", 1), ("2", "a", 0), ("3", "c", 0)):
            await store.intend(job_row(id, request, first=first), "one")
        found = await reports.jobs_of(["a", "b", "c"])
        assert {request: ids(jobs) for request, jobs in found.items()} == {"a": ["2", "1"], "b": [], "c": ["3"]}
        assert await reports.jobs_of([]) == {}


DAY = 20_000
COMMON = {"caller_name": "Anna", "model": "m", "provider": "fal", "currency": "USD", "day": DAY, "wanted": 2}


async def bought(store: JobStore, row: RequestRow, *costs: str | None, made: int = 1) -> None:
    """A request that is answered, each of its jobs at these costs."""
    await store.open(row)
    for number, cost in enumerate(costs):
        id = f"{row.id}-{number}"
        await store.intend(job_row(id, row.id, first=number, state="submitted"), "one")
        await store.move(Move(id, "done", NOW, of=("submitted",), cost=cost, verdict="{}", made=made))
    status, error = ("completed", None) if costs else ("failed", "provider_timeout")
    assert await store.answer(row.id, "one", "{}", NOW, status=status, error=error) == "settled"  # type: ignore[arg-type]


class TestSums:
    async def test_they_are_exact_and_by_status(self, store: JobStore, reports: ReportStore) -> None:
        for number in range(10):
            await bought(store, request_row(f"r{number}", **COMMON), "0.1", "0.000001")
        await bought(store, request_row("none", **COMMON))
        await bought(store, request_row("unknown", **{**COMMON, "currency": "EUR"}), None, "90000.000001")
        await store.open(request_row("running", **COMMON))
        await store.intend(job_row("j", "running"), "one")
        found = {(one.status, one.currency): one for one in await reports.sums(Selection())}
        assert found == {
            ("completed", "USD"): Sum("completed", "USD", 10, 20, Decimal("1.00001"), 0),
            ("completed", "EUR"): Sum("completed", "EUR", 1, 2, Decimal("90000.000001"), 1),
            ("failed", "USD"): Sum("failed", "USD", 1, 0, Decimal(0), 0),
            ("running", "USD"): Sum("running", "USD", 1, 0, Decimal(0), 1),
        }
        assert await reports.sums(Selection(model="other")) == []
        assert await reports.sums(Selection(model="\0")) == []

    async def test_a_job_that_comes_home_late_changes_them(
        self, store: JobStore, reports: ReportStore, upkeep: Upkeep
    ) -> None:
        """While it is open its request's columns are not believed; and when it has ended they are right."""
        row = request_row("a", **COMMON)
        await store.open(row)
        await store.intend(job_row("1", "a", state="submitted"), "one")
        await store.intend(job_row("2", "a", first=1, state="submitted"), "one")
        moves = [Move("1", "lost", NOW, of=("submitted",), cost="0.03", verdict="{}", made=0)]
        assert await store.answer("a", "one", "{}", NOW, status="failed", error="x", moves=moves) == "settling"
        assert await upkeep.book() == 0, "nothing is booked before it is settled"
        for move, sums in (
            (Move("1", "done", NOW, of=("lost",), cost="0.03", made=1), (1, Decimal("0.03"), 1)),
            (Move("2", "done", NOW, of=("submitted",), cost="0.02", made=1), (2, Decimal("0.05"), 0)),
        ):
            await store.move(move)
            [found] = await reports.sums(Selection())
            assert (found.pictures, found.cost, found.unknown) == sums
            [line] = await reports.usage(DAY, DAY, ("day",), Selection())
            assert (line.pictures, line.cost, line.unknown) == sums
        assert await store.settle("a", "one")
        settled = await store.request("a")
        assert settled is not None
        assert (settled.status, settled.error, settled.pictures, settled.cost, settled.unknown) == (
            "completed",
            None,
            2,
            50_000,
            0,
        )
        before = await reports.usage(DAY, DAY, ("day",), Selection())
        assert await upkeep.book() == 1
        assert await reports.usage(DAY, DAY, ("day",), Selection()) == before

    async def test_one_of_two_that_comes_home_late_makes_it_partial(self, store: JobStore) -> None:
        await store.open(request_row("a", **COMMON))
        await store.intend(job_row("1", "a", state="submitted"), "one")
        assert await store.answer("a", "one", "{}", NOW, status="failed", error="x") == "settling"
        await store.move(Move("1", "done", NOW, of=("submitted",), cost="0.03", made=1))
        assert await store.settle("a", "one")
        row = await store.request("a")
        assert row is not None
        assert (row.status, row.error, row.pictures) == ("partial", None, 1)


class TestUsage:
    async def test_it_is_the_same_before_and_after_it_is_booked(
        self, store: JobStore, reports: ReportStore, upkeep: Upkeep
    ) -> None:
        bert = {**COMMON, "caller": "bert", "caller_name": "Bert"}
        await bought(store, request_row("a", **COMMON), "0.1", "0.2")
        await bought(store, request_row("b", **{**COMMON, "model": "n"}), "0.3")
        await bought(store, request_row("c", **{**bert, "day": DAY + 1}), None)
        await bought(store, request_row("d", **bert))
        lines = [
            Usage(DAY, "anna", "Anna", "m", None, "USD", 1, 0, 2, Decimal("0.3"), 0),
            Usage(DAY, "anna", "Anna", "n", None, "USD", 1, 0, 1, Decimal("0.3"), 0),
            Usage(DAY, "bert", "Bert", "m", None, "USD", 1, 1, 0, Decimal(0), 0),
            Usage(DAY + 1, "bert", "Bert", "m", None, "USD", 1, 0, 1, Decimal(0), 1),
        ]
        by = ("day", "key", "model")
        assert await reports.usage(DAY, DAY + 1, by, Selection()) == lines
        assert await upkeep.book() == 4
        assert await upkeep.book() == 0
        await bought(store, request_row("e", **COMMON), "0.1", "0.2")
        lines[0] = replace(lines[0], requests=2, pictures=4, cost=Decimal("0.6"))
        assert await reports.usage(DAY, DAY + 1, by, Selection()) == lines
        assert await upkeep.book() == 1
        assert await reports.usage(DAY, DAY + 1, by, Selection()) == lines
        assert await reports.usage(DAY, DAY, by, Selection("bert")) == [lines[2]]
        assert await reports.usage(DAY + 1, DAY + 9, by, Selection()) == [lines[3]]
        assert await reports.usage(DAY, DAY + 1, ("provider",), Selection(model="m")) == [
            Usage(None, None, None, None, "fal", "USD", 4, 1, 5, Decimal("0.6"), 1)
        ]

    async def test_of_many_who_book_at_once_each_request_is_booked_once(
        self, place: Any, store: JobStore, reports: ReportStore
    ) -> None:
        for number in range(60):
            await bought(store, request_row(f"r{number:02}", **COMMON), "0.01")
        keepers = [Upkeep(await place.open()) for _ in range(3)]
        await asyncio.gather(*(keeper.book() for keeper in keepers for _ in range(3)))
        [line] = await reports.usage(DAY, DAY, ("day",), Selection())
        assert (line.requests, line.pictures, line.cost) == (60, 60, Decimal("0.6"))

    async def test_what_is_purged_stays_in_the_sums(
        self, store: JobStore, reports: ReportStore, upkeep: Upkeep, database: Database
    ) -> None:
        await bought(store, request_row("a", **COMMON), "0.1")
        assert await upkeep.purge(NOW + 1) == 0, "its money is in no sum yet"
        assert await upkeep.book() == 1
        assert await upkeep.purge(NOW + 1) == 1
        assert await database.read("SELECT id FROM jobs") == []
        [line] = await reports.usage(DAY, DAY, ("day",), Selection())
        assert (line.requests, line.pictures, line.cost) == (1, 1, Decimal("0.1"))
