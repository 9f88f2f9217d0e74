"""No look-up reads a whole table, and no index is there for nothing. Asked of SQLite, which tells its plans exactly."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from app.store.census import Census
from app.store.db import Database, Row, Statement, open_database
from app.store.jobs import JobStore
from app.store.keys import KeyStore
from app.store.reports import ReportStore, Selection
from app.store.upkeep import Upkeep
from tests.store.rows import NOW, key_row, request_row

pytestmark = pytest.mark.anyio

LAST = (NOW, "a")
# What is asked -> the index that answers it.
QUESTIONS: dict[str, tuple[Callable[[Database], Awaitable[Any]], str]] = {
    "by_key": (lambda db: JobStore(db).by_key("anna", "key", NOW), "requests_key"),
    "repeat_of": (lambda db: JobStore(db).repeat_of("anna", "f", NOW), "requests_repeat"),
    "jobs_of": (lambda db: JobStore(db).jobs_of("a"), "jobs_of_request"),
    "job_ids": (lambda db: JobStore(db).job_ids("fal", "edit", NOW), "jobs_bound"),
    "adopt": (lambda db: JobStore(db).adopt("two", NOW, NOW), "requests_unsettled"),
    "renew": (lambda db: JobStore(db).renew("one", NOW + 6, NOW), "requests_unsettled"),
    "release": (lambda db: JobStore(db).release("one"), "requests_unsettled"),
    "purge": (lambda db: Upkeep(db).purge(NOW), "requests_newest"),
    "purge of the log": (lambda db: Upkeep(db).purge(NOW), "request_log_created"),
    "purge of payloads": (lambda db: Upkeep(db).purge_payloads(NOW), "request_log_payload"),
    "book": (lambda db: Upkeep(db).book(), "requests_unbooked"),
    "unread": (lambda db: Upkeep(db).unread(), "requests_unbooked"),
    "usage": (lambda db: ReportStore(db).usage(1, 2, ("day",), Selection()), "requests_unbooked"),
    "a caller's usage": (
        lambda db: ReportStore(db).usage(1, 2, ("day",), Selection("anna")),
        "requests_unbooked",
    ),
    "a caller's sums": (lambda db: ReportStore(db).sums(Selection("anna", model="m")), "requests_of_caller"),
    "sums of some time": (lambda db: ReportStore(db).sums(Selection(since=1, until=2)), "requests_newest"),
    "forget_keys": (lambda db: Upkeep(db).forget_keys(NOW), "requests_key_end"),
    "all": (lambda db: ReportStore(db).listing(Selection(), None, 9), "requests_newest"),
    "all, next page": (lambda db: ReportStore(db).listing(Selection(), LAST, 9), "requests_newest"),
    "a caller's": (lambda db: ReportStore(db).listing(Selection("anna"), None, 9), "requests_of_caller"),
    "a caller's, next page": (lambda db: ReportStore(db).listing(Selection("anna"), LAST, 9), "requests_of_caller"),
    "a caller's of a key": (lambda db: ReportStore(db).listing(Selection("anna", key="key"), None, 9), "requests_key"),
    "of a key": (lambda db: ReportStore(db).listing(Selection(key="key"), None, 9), "requests_key"),
    "a caller's of a job": (lambda db: ReportStore(db).listing(Selection("anna", job="job"), LAST, 9), "jobs_job"),
    "of a job": (lambda db: ReportStore(db).listing(Selection(job="job", state="done"), None, 9), "jobs_job"),
    "that run": (lambda db: ReportStore(db).listing(Selection(state="running"), LAST, 9), "requests_unsettled"),
    "with lost jobs": (lambda db: ReportStore(db).listing(Selection("anna", state="lost"), LAST, 9), "jobs_state"),
    "with jobs done": (
        lambda db: ReportStore(db).listing(Selection("anna", state="done"), LAST, 9),
        "requests_of_caller",
    ),
    "open jobs": (lambda db: Census(db).open_jobs(), "jobs_state"),
}
KEY_QUESTIONS: dict[str, tuple[Callable[[KeyStore], Awaitable[Any]], str]] = {
    "by_digest": (lambda store: store.by_digest("0" * 64), "api_keys_digest"),
    "by_digest, replaced": (lambda store: store.by_digest("0" * 64), "api_keys_old_digest"),
    "keys": (lambda store: store.listing(None, 9), "api_keys_newest"),
    "keys, next page": (lambda store: store.listing(LAST, 9), "api_keys_newest"),
    "reserved": (lambda store: store.standings(["a"], NOW), "requests_unsettled"),
}


class Recorder:
    """A database that remembers what it was asked."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self.label = database.label
        self.clock, self.ahead, self.holding = database.clock, database.ahead, database.holding
        self.asked: set[str] = set()

    async def open(self) -> None:
        raise NotImplementedError

    async def run(self, *statements: Statement, turn: str | None = None) -> list[list[Row]]:
        self.asked.update(sql for sql, _ in statements)
        return await self._database.run(*statements, turn=turn)

    tidy = run

    async def read(self, sql: str, *values: Any) -> list[Row]:
        self.asked.add(sql)
        return await self._database.read(sql, *values)

    async def report(self, sql: str, *values: Any) -> list[Row]:
        return await self.read(sql, *values)

    async def close(self) -> None:
        await self._database.close()


async def plans(database: Database, asked: set[str]) -> list[str]:
    steps = []
    for sql in asked:
        values = [1] * max(map(int, re.findall(r"\$([0-9]+)", sql)), default=0)
        steps += [step for *_, step in await database.read(f"EXPLAIN QUERY PLAN {sql}", *values)]
    return steps


@pytest.mark.parametrize("question", QUESTIONS)
async def test_a_question_is_answered_by_an_index(question: str, tmp_path: Path) -> None:
    ask, index = QUESTIONS[question]
    recorder = Recorder(await open_database("", tmp_path))
    await ask(recorder)
    steps = await plans(recorder, set(recorder.asked))
    await recorder.close()
    assert [step for step in steps if f"INDEX {index} " in f"{step} "], steps
    assert not {"SCAN requests", "SCAN jobs"} & set(steps)
    if index == "jobs_job":
        assert not [step for step in steps if "requests_of_caller" in step], steps


@pytest.mark.parametrize("question", KEY_QUESTIONS)
async def test_a_question_about_keys_is_answered_by_an_index(question: str, tmp_path: Path) -> None:
    ask, index = KEY_QUESTIONS[question]
    recorder = Recorder(await open_database("", tmp_path))
    await ask(KeyStore(recorder))
    steps = await plans(recorder, set(recorder.asked))
    await recorder.close()
    assert [step for step in steps if f"INDEX {index} " in f"{step} "], steps
    assert not {"SCAN requests", "SCAN jobs", "SCAN spend", "SCAN api_keys"} & set(steps)


async def test_a_reservation_reads_what_is_under_way_and_no_more(tmp_path: Path) -> None:
    recorder = Recorder(await open_database("", tmp_path))
    await KeyStore(recorder).add(key_row("key_a", budget_day=1))
    await JobStore(recorder).open_within_budget(request_row("a", caller="key_a", key="key"))
    steps = await plans(recorder, set(recorder.asked))
    await recorder.close()
    assert [step for step in steps if "requests_unsettled" in step]
    assert not {"SCAN requests", "SCAN jobs", "SCAN spend", "SCAN api_keys"} & set(steps)


async def test_a_taken_key_is_found_by_its_index(tmp_path: Path) -> None:
    recorder = Recorder(await open_database("", tmp_path))
    store = JobStore(recorder)
    for id in ("a", "b"):
        await store.open(request_row(id, key="key"))
    steps = await plans(recorder, set(recorder.asked))
    await recorder.close()
    assert "SEARCH requests USING INDEX requests_key (key=? AND caller=?)" in steps
    assert not {"SCAN requests", "SCAN jobs"} & set(steps)


async def test_every_index_answers_a_question(tmp_path: Path) -> None:
    database = await open_database("", tmp_path)
    made = await database.read("SELECT name FROM sqlite_schema WHERE type = 'index' AND sql IS NOT NULL")
    await database.close()
    assert {name for (name,) in made} == {
        index for questions in (QUESTIONS, KEY_QUESTIONS) for _, index in questions.values()
    }
