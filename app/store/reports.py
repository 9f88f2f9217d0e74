"""What the log tells: requests by what they are found by, what they add up to, and usage by day.

These may look at a million rows. They go to the database's own place for what takes long, so that a request's look-ups
do not wait behind them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Literal, get_args

from app.store.db import Database
from app.store.jobs import (
    JOB_COLUMNS,
    REQUEST_COLUMNS,
    JobRow,
    JobState,
    RequestRow,
    RequestState,
    Status,
    job_sum,
    storable,
)

By = Literal["day", "key", "model", "provider"]

_COLUMN: dict[By, str] = {"day": "day", "key": "caller", "model": "model", "provider": "provider"}
_COMMON: tuple[JobState, ...] = ("done", "failed", "cancelled")  # the states of most jobs
TROUBLED: tuple[Status, ...] = ("partial", "failed", "cancelled")
MILLION = Decimal(1_000_000)
# A settled request's columns are what its jobs add up to; another one's jobs are looked at.
_NOW = {
    column: f"CASE WHEN state = 'settled' THEN {column} ELSE ({job_sum(column)}) END"
    for column in ("pictures", "cost", "unknown")
}
_CURRENT = ", ".join(f"{sql} AS {column}" for column, sql in _NOW.items())


@dataclass(frozen=True, slots=True)
class Selection:
    """Which requests. `caller` None: everybody's. A job's state means requests with such a job."""

    caller: str | None = None
    model: str | None = None
    provider: str | None = None
    status: Status | None = None
    error: str | None = None
    since: float | None = None
    until: float | None = None  # the first moment that does not belong to it
    failures: bool | None = None  # whether pictures that were asked for are missing
    key: str | None = None  # the Idempotency-Key
    job: str | None = None
    state: RequestState | JobState | None = None
    min_cost: int | None = None  # what is known to be billed, in millionths; both are included
    max_cost: int | None = None


@dataclass(frozen=True, slots=True)
class Sum:
    """Requests of one status and currency."""

    status: Status
    currency: str
    requests: int
    pictures: int
    cost: Decimal
    unknown: int  # jobs whose cost is not known


@dataclass(frozen=True, slots=True)
class Usage:
    """One line of the usage; what it is not broken down by is None. `failed`: requests that brought no picture."""

    day: int | None
    caller: str | None
    caller_name: str | None
    model: str | None
    provider: str | None
    currency: str
    requests: int
    failed: int
    pictures: int
    cost: Decimal
    unknown: int


@dataclass(frozen=True, slots=True)
class Logged:
    """What the log has of a request beside the journal; JSON."""

    details: str
    payload: str | None


class ReportStore:
    """Reads. Every method may raise StoreError."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def listing(
        self, selection: Selection, before: tuple[float, str] | None = None, limit: int = 100
    ) -> list[RequestRow]:
        """Requests, newest first, after the (created, id) `before`."""
        query = _Query(selection)
        if before is not None:
            query.terms.append(f"(created, id) < ({query.place(before[0])}, {query.place(before[1])})")
        if not query.storable:
            return []
        rows = await self._db.report(
            f"SELECT {REQUEST_COLUMNS} {query.source} ORDER BY created DESC, id DESC LIMIT {query.place(limit)}",
            *query.values,
        )
        return [RequestRow(*row) for row in rows]

    async def jobs_of(self, requests: Sequence[str]) -> dict[str, list[JobRow]]:
        """The jobs of many requests: each one's in the order of their pictures and tries."""
        found: dict[str, list[JobRow]] = {id: [] for id in requests}
        if not found:
            return found
        places = ", ".join(f"${number}" for number in range(1, len(found) + 1))
        rows = await self._db.report(
            f"SELECT {JOB_COLUMNS} FROM jobs WHERE request IN ({places}) ORDER BY request, first, created, id",  # noqa: S608
            *found,
        )
        for row in rows:
            job = JobRow(*row)
            found[job.request].append(job)
        return found

    async def sums(self, selection: Selection) -> list[Sum]:
        """What the selected requests add up to, by status and currency."""
        query = _Query(selection)
        if not query.storable:
            return []
        rows = await self._db.report(
            f"SELECT status, currency, count(*), sum(pictures), sum(cost), sum(unknown)"  # noqa: S608
            f" FROM (SELECT status, currency, {_CURRENT} {query.source}) AS found GROUP BY status, currency",
            *query.values,
        )
        return [
            Sum(status, currency, int(requests), int(pictures), int(cost) / MILLION, int(unknown))
            for status, currency, requests, pictures, cost, unknown in rows
        ]

    async def usage(self, since: int, until: int, by: Sequence[By], selection: Selection) -> list[Usage]:
        """The days `since` … `until`, both included, in the order of `by`. Of the selection caller, model and provider
        count. What is not in the sums by day yet is added from the requests themselves, in one look."""
        values: list[Any] = [since, until]
        terms = ["day >= $1", "day <= $2"]
        for column in ("caller", "model", "provider"):
            if (wanted := getattr(selection, column)) is not None:
                values.append(wanted)
                terms.append(f"{column} = ${len(values)}")
        if not storable(values):
            return []
        where = " AND ".join(terms)
        # As an expression it has no index: SQLite would begin with all that a caller has ever asked for.
        live = where.replace("caller = ", "caller || '' = ")
        columns = [_COLUMN[one] for one in by]
        groups = ", ".join([*columns, "currency"])
        ways = "day, caller, caller_name, model, provider, currency"
        rows = await self._db.report(
            f"SELECT {groups}, max(caller_name), sum(requests), sum(failed), sum(pictures), sum(cost), sum(unknown)"  # noqa: S608
            f" FROM (SELECT {ways}, requests, failed, pictures, cost, unknown FROM usage_days WHERE {where}"
            f" UNION ALL SELECT {ways}, 1 AS requests,"
            f" CASE WHEN status IN ('failed', 'cancelled') THEN 1 ELSE 0 END AS failed, {_CURRENT}"
            f" FROM requests WHERE booked IS NOT NULL AND {live}) AS parts"
            f" GROUP BY {groups} ORDER BY {groups}",
            *values,
        )
        lines = []
        for row in rows:
            of = dict(zip(by, row, strict=False))
            currency, name, requests, failed, pictures, cost, unknown = row[len(by) :]
            lines.append(
                Usage(
                    of.get("day"),
                    of.get("key"),
                    name if "key" in by else None,
                    of.get("model"),
                    of.get("provider"),
                    currency,
                    int(requests),
                    int(failed),
                    int(pictures),
                    int(cost) / MILLION,
                    int(unknown),
                )
            )
        return lines

    async def logged(self, request: str) -> Logged | None:
        """What the log has of a request beside the journal; None if it was lost, or is not written yet."""
        if not storable((request,)):
            return None
        rows = await self._db.report("SELECT details, payload FROM request_log WHERE request = $1", request)
        return Logged(*rows[0]) if rows else None


class _Query:
    """FROM and WHERE of a selection, and their values."""

    def __init__(self, selection: Selection) -> None:
        self.values: list[Any] = []
        self.terms: list[str] = []
        self._jobs = ""
        s = selection
        # A few jobs are what to begin with: CROSS JOIN keeps SQLite from beginning with all of a caller's requests.
        if s.job is not None:
            self._jobs = f"(SELECT DISTINCT request FROM jobs WHERE job = {self.place(s.job)}) AS found CROSS JOIN"  # noqa: S608
        if s.state in ("running", "settling") and not self._jobs:  # so are these; the index is of both
            self._jobs = (
                "(SELECT id AS request FROM requests AS unsettled WHERE unsettled.state IN ('running', 'settling')"  # noqa: S608
                f" AND unsettled.state = {self.place(s.state)}) AS found CROSS JOIN"
            )
        elif s.state in get_args(RequestState):
            self.terms.append(f"state = {self.place(s.state)}")
        elif s.state is not None and (self._jobs or s.state in _COMMON):  # most have such a job: look at one by one
            such = "SELECT 1 FROM jobs WHERE jobs.request = requests.id AND jobs.state ="
            self.terms.append(f"EXISTS ({such} {self.place(s.state)})")
        elif s.state is not None:
            self._jobs = f"(SELECT DISTINCT request FROM jobs WHERE state = {self.place(s.state)}) AS found CROSS JOIN"  # noqa: S608
        if self._jobs:
            self.terms.append("id = found.request")
        for column in ("caller", "model", "provider", "status", "error", "key"):
            if (value := getattr(s, column)) is not None:
                self.terms.append(f"{column} = {self.place(value)}")
        if s.failures is not None:
            states = ", ".join(f"'{status}'" for status in TROUBLED)
            self.terms.append(f"status {'' if s.failures else 'NOT '}IN ({states})")
        if s.since is not None:
            self.terms.append(f"created >= {self.place(s.since)}")
        if s.until is not None:
            self.terms.append(f"created < {self.place(s.until)}")
        if s.min_cost is not None:
            self.terms.append(f"{_NOW['cost']} >= {self.place(s.min_cost)}")
        if s.max_cost is not None:
            self.terms.append(f"{_NOW['cost']} <= {self.place(s.max_cost)}")

    def place(self, value: Any) -> str:
        self.values.append(value)
        return f"${len(self.values)}"

    @property
    def storable(self) -> bool:
        return storable(self.values)

    @property
    def source(self) -> str:
        where = f" WHERE {' AND '.join(self.terms)}" if self.terms else ""
        return f"FROM {self._jobs} requests{where}"
