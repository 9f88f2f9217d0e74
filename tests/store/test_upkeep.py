"""Keeping the journal small. On both databases."""

from __future__ import annotations

from typing import Any

import pytest

from app.store.db import Database
from app.store.jobs import JobStore
from app.store.reports import Logged, ReportStore, Selection
from app.store.upkeep import PURGE_ROWS, Upkeep
from tests.store.rows import NOW, enter, job_row, request_row

pytestmark = pytest.mark.anyio


def ids(rows: Any) -> list[str]:
    return [row.id for row in rows]


class TestPurging:
    async def test_settled_requests_go_with_their_jobs_and_others_stay(
        self, store: JobStore, reports: ReportStore, upkeep: Upkeep, database: Database
    ) -> None:
        await store.open(request_row("old", state="settled"))
        await store.open(request_row("open", state="settling"))
        await store.open(request_row("new", state="settled", created=NOW + 1))
        for request in ("old", "open", "new"):
            await enter(database, job_row(request, request, job=request))
            await upkeep.log([(request, NOW, "{}", "[]")])
        assert await upkeep.book() == 2
        assert await upkeep.purge(NOW + 1) == 1
        assert ids(await reports.listing(Selection())) == ["new", "open"]
        assert await store.jobs_of("old") == []
        assert (await store.totals())["intent"].jobs == 2
        assert await reports.logged("old") is None
        assert await reports.logged("open") == Logged("{}", "[]")

    async def test_there_may_be_more_than_fit_into_one_transaction(
        self, reports: ReportStore, upkeep: Upkeep, database: Database
    ) -> None:
        many = PURGE_ROWS * 2 + 1
        await database.run(
            (
                "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < $1)"
                " INSERT INTO requests (id, caller, key, fingerprint, state, lease, created, deadline, keep_until,"
                " plan, quote, booked)"
                " SELECT 'r' || i, 'anna', 'key' || i, 'f', 'settled', 0, 1, 1, 1, '', '', 0 FROM n",
                (many,),
            ),
            (
                "INSERT INTO request_log (request, created, details, payload)"
                " SELECT id, created, '{}', '[]' FROM requests",
                (),
            ),
        )
        assert await upkeep.forget_keys(2) == many
        assert await upkeep.book() == many
        assert await upkeep.purge_payloads(2) == many
        assert await upkeep.purge(2) == many
        assert await reports.listing(Selection()) == []
        assert await database.read("SELECT request FROM request_log") == []

    async def test_what_was_sent_goes_first(self, reports: ReportStore, upkeep: Upkeep) -> None:
        await upkeep.log([("a", NOW, "{}", "[1]"), ("b", NOW + 2, "{}", "[2]"), ("c", NOW, "{}", None)])
        assert await upkeep.purge_payloads(NOW + 1) == 1
        assert await reports.logged("a") == Logged("{}", None)
        assert await reports.logged("b") == Logged("{}", "[2]")

    async def test_what_is_logged_twice_is_there_once(
        self, store: JobStore, reports: ReportStore, upkeep: Upkeep
    ) -> None:
        row = request_row("a", state="settled")
        for _ in range(2):
            await upkeep.log([("a", NOW, "{}", None)], [row])
        assert await store.request("a") == row
        assert len(await reports.listing(Selection())) == 1
