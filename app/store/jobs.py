"""The journal of paid work as rows: requests, and the upstream jobs that they buy.

What the states mean stands in `app.jobs`. A change of state names what it starts from, so that of two who try the same
only one succeeds; each statement may be repeated, because a commit's answer can be lost.

Leases run by the database's clock where it has one: of the times that a gateway tells then only their distance counts.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Literal

from app.store import money
from app.store.db import Database, Statement, StoreError
from app.store.money import OPEN as OPEN
from app.store.money import JobState as JobState
from app.store.money import Move as Move
from app.store.money import OverBudget as OverBudget
from app.store.money import Total as Total

RequestState = Literal["running", "settling", "settled"]
Status = Literal["running", "completed", "partial", "failed", "cancelled"]
FAR_LEASE_SECONDS = 60.0  # leases last a few seconds
_OPEN_TRIES = 5
_CHANGING = "an Idempotency-Key changes hands too often"
_UNSTORABLE = re.compile("[\0\ud800-\udfff]")  # PostgreSQL's text holds no NUL, neither's holds half a character
_HAS_OPEN = (
    "EXISTS (SELECT 1 FROM jobs WHERE jobs.request = requests.id AND jobs.state IN ("  # noqa: S608
    + ", ".join(f"'{state}'" for state in OPEN)
    + "))"
)
_SETTLE = (
    f"state = CASE WHEN {_HAS_OPEN} THEN 'settling' ELSE 'settled' END,"
    f" owner = CASE WHEN {_HAS_OPEN} THEN owner ELSE NULL END"
)
# Exact up to nine thousand million: a double holds 53 bits.
_MICROS = "CAST(round(CAST(jobs.cost AS DOUBLE PRECISION) * 1000000) AS BIGINT)"
_JOB_SUMS = {
    "pictures": "coalesce(sum(jobs.made), 0)",
    "cost": f"coalesce(sum({_MICROS}), 0)",  # in millionths
    "unknown": "coalesce(sum(CASE WHEN jobs.cost IS NULL THEN 1 ELSE 0 END), 0)",  # jobs whose cost is not known
}


def job_sum(*columns: str) -> str:
    """The SELECT of what the jobs of a row of `requests` add up to, for these of its columns."""
    sums = ", ".join(_JOB_SUMS[column] for column in columns or _JOB_SUMS)
    return f"SELECT {sums} FROM jobs WHERE jobs.request = requests.id"  # noqa: S608


SUMS = f"({', '.join(_JOB_SUMS)}) = ({job_sum()})"
_MADE = f"({job_sum('pictures')})"
_LATE = (  # pictures came home after the answer
    f"status = CASE WHEN {_MADE} <= pictures THEN status WHEN {_MADE} < wanted THEN 'partial' ELSE 'completed' END,"
    f" error = CASE WHEN {_MADE} = 0 THEN error END"
)


@dataclass(frozen=True, slots=True)
class RequestRow:
    """A request. Times are Unix seconds; `plan`, `quote` and `answer` are JSON."""

    id: str
    caller: str  # the id of an API key
    key: str | None  # its Idempotency-Key
    fingerprint: str
    state: RequestState
    owner: str | None  # the process that works on it, until `lease`
    lease: float  # by the database's clock, where it has one
    created: float
    deadline: float
    keep_until: float  # until then the key means this request
    plan: str
    quote: str
    answer: str | None = None
    reserve: int | None = None  # what it may cost, in millionths of a dollar
    caller_name: str = ""
    model: str = ""
    provider: str = ""
    currency: str = ""
    wanted: int = 0  # pictures that were asked for
    day: int = 0  # UTC, since 1970
    status: Status = "running"
    error: str | None = None  # the code of the error that it was answered with
    # What its jobs add up to, as of its answer, and then as of the last of them. `cost` is in millionths.
    pictures: int = 0
    cost: int = 0
    unknown: int = 0  # jobs whose cost is not known
    booked: int | None = 0  # None: it is in the sums by day


@dataclass(frozen=True, slots=True)
class JobRow:
    """An upstream job, the pictures first … first + count - 1 of its request. `ticket` and `verdict` are JSON."""

    id: str
    request: str
    first: int
    count: int
    state: JobState
    provider: str
    endpoint: str
    mark: str  # what the payload can be recognised by upstream
    created: float
    updated: float
    job: str | None = None  # the provider's id
    ticket: str | None = None
    cost: str | None = None  # a decimal; None = not known
    verdict: str | None = None
    reserve: int | None = None  # its share of the request's
    made: int = 0  # pictures that were delivered or kept


def _columns(row: type[RequestRow | JobRow]) -> str:
    return ", ".join(field.name for field in fields(row))


def values_of(row: RequestRow | JobRow) -> tuple[Any, ...]:
    return tuple([getattr(row, name) for name in row.__dataclass_fields__])  # `astuple` would copy each of them


def _places(row: type[RequestRow | JobRow], **other: str) -> str:
    """A placeholder for each column, or what stands in its place."""
    return ", ".join(other.get(field.name, f"${number}") for number, field in enumerate(fields(row), 1))


def _insert(table: str, row: type[RequestRow | JobRow], source: str) -> str:
    return f"INSERT INTO {table} ({_columns(row)}) {source} ON CONFLICT DO NOTHING RETURNING id"


def _until(clock: str | None, lease: str, now: str) -> str:
    """When a lease ends that ends at `lease` by a clock which shows `now`."""
    return lease if clock is None else f"{clock} + {lease} - {now}"


REQUEST_COLUMNS = _columns(RequestRow)
INSERT_REQUEST = _insert("requests", RequestRow, f"VALUES ({_places(RequestRow)})")  # of one that nobody works on
INSERT_JOB = _insert("jobs", JobRow, f"VALUES ({_places(JobRow)})")
_HELD = f"FROM requests WHERE id = $2 AND owner = ${len(fields(JobRow)) + 1} AND state = 'running'"
SELECT_REQUEST = f"SELECT {REQUEST_COLUMNS} FROM requests"  # noqa: S608
JOB_COLUMNS = _columns(JobRow)
SELECT_JOB = f"SELECT {JOB_COLUMNS} FROM jobs"  # noqa: S608


class JobStore:
    """The journal in a database. Every method may raise StoreError, and may then be repeated."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self._places = _places(RequestRow, lease=_until(db.clock, "$7", "$8"))
        self._insert_request = _insert("requests", RequestRow, f"VALUES ({self._places})")
        # Whoever takes a request over waits for this, or comes first: the row is held as it was read.
        self._insert_job = _insert("jobs", JobRow, f"SELECT {_places(JobRow)} {_HELD}{db.holding}")

    # ---- requests

    async def open(self, row: RequestRow) -> RequestRow | None:
        """Enter a request; None. If the caller's key still means another one: that, and nothing is entered."""
        insert = (self._insert_request, values_of(row))
        (entered,) = await self._db.run(insert)
        if entered or row.key is None:
            return None
        for _ in range(_OPEN_TRIES):
            _, entered, holders = await self._db.run(_freed_key(row), insert, _holders(row))
            if entered:
                return None
            if holders:
                holder = RequestRow(*holders[0])
                return None if holder.id == row.id else holder  # its own: entered by a try whose answer was lost
        raise StoreError(_CHANGING)  # between the insert and the look, each time

    async def open_within_budget(self, row: RequestRow) -> RequestRow | OverBudget | None:
        """The same, if the budgets of the caller's key leave room for what the row reserves; else which does not."""
        needed, at = row.reserve or 0, row.created + self._db.ahead
        for _ in range(_OPEN_TRIES):
            *_, entered = await self._db.run(
                *([money.taking_turns(row.caller, row.created)] if self._db.holding else []),
                *([] if row.key is None else [_freed_key(row)]),
                money.within_budget("requests", REQUEST_COLUMNS, self._places, values_of(row), row.caller, needed, at),
                turn=row.caller,
            )
            if entered:
                return None
            holders, standing = await self._db.run(_holders(row), money.standings([row.caller], at))
            if holders:
                holder = RequestRow(*holders[0])
                return None if holder.id == row.id else holder
            if not standing:
                raise StoreError("the API key is gone")
            if (exceeded := money.standing_of(standing[0]).exceeded(needed)) is not None:
                budget, left = exceeded
                return OverBudget(budget, needed, left)
        raise StoreError(_CHANGING)

    async def replan(self, id: str, owner: str, plan: str, quote: str, provider: str, currency: str) -> None:
        """It is to be made by another offer; nothing if `owner` does not own it any more."""
        sql = "UPDATE requests SET plan = $3, quote = $4, provider = $5, currency = $6"
        held = " WHERE id = $1 AND owner = $2 AND state = 'running'"
        await self._db.run((sql + held, (id, owner, plan, quote, provider, currency)))

    async def request(self, id: str) -> RequestRow | None:
        """The request of this id."""
        return await self._one("WHERE id = $1", id)

    async def by_key(self, caller: str, key: str, now: float) -> RequestRow | None:
        """The request that the caller's key still means."""
        return await self._one(
            "WHERE key = $1 AND caller = $2 AND (keep_until > $3 OR state = 'running')", key, caller, now
        )

    async def repeat_of(self, caller: str, fingerprint: str, since: float) -> RequestRow | None:
        """The caller's newest request for the same, entered since then."""
        return await self._one(
            "WHERE caller = $1 AND fingerprint = $2 AND created >= $3 ORDER BY created DESC, id DESC LIMIT 1",
            caller,
            fingerprint,
            since,
        )

    async def answer(
        self,
        id: str,
        owner: str,
        answer: str,
        keep_until: float,
        *,
        status: Status = "failed",
        error: str | None = None,
        forget_key: bool = False,
        moves: Sequence[Move] = (),
    ) -> RequestState | None:
        """The request has been answered, and with it these jobs have ended. It is settled now, or settling if one of
        its jobs is still open; None if `owner` does not own it any more (the jobs have ended all the same)."""
        more = ", key = NULL" if forget_key else ""
        *_, changed = await self._db.run(
            *money.moved(moves, self._db.ahead),
            (
                f"UPDATE requests SET {_SETTLE}, {SUMS}, answer = $3, keep_until = $4, status = $5, error = $6{more}"  # noqa: S608
                " WHERE id = $1 AND owner = $2 RETURNING state",
                (id, owner, answer, keep_until, status, error),
            ),
        )
        return changed[0][0] if changed else None

    async def settle(self, id: str, owner: str) -> bool:
        """The request has been answered before: it is settled if none of its jobs is open. False if it is not, or
        `owner` does not own it any more."""
        (changed,) = await self._db.run(
            (
                f"UPDATE requests SET {_SETTLE}, {_LATE}, {SUMS}"  # noqa: S608
                " WHERE id = $1 AND owner = $2 AND answer IS NOT NULL RETURNING state",
                (id, owner),
            )
        )
        return changed == [("settled",)]

    async def unsettled(self, owner: str) -> frozenset[str]:
        """The ids of all requests that `owner` has to work on."""
        rows = await self._db.read(
            "SELECT id FROM requests WHERE state IN ('running', 'settling') AND owner = $1", owner
        )
        return frozenset(id for (id,) in rows)

    # ---- who works on them

    async def time(self, now: float) -> float:
        """What leases go by, where a gateway's own clock shows `now`."""
        if self._db.clock is None:
            return now
        [[found]] = await self._db.read(f"SELECT {self._db.clock}")
        self._db.ahead = found - now
        return float(found)

    async def adopt(self, owner: str, lease: float, now: float) -> list[RequestRow]:
        """Take over what is not settled and whose lease has run out under somebody else; as it is now, oldest first.
        `now` is what `time` told: a server that was held up may hear of this late, and must not mean another moment.

        A lease that ends in the far future was given before the clock was set back: it counts for nothing."""
        (rows,) = await self._db.run(
            (
                "UPDATE requests SET owner = $1, lease = $2"  # noqa: S608
                " WHERE state IN ('running', 'settling') AND (lease < $3 OR lease > $4)"
                " AND (owner IS NULL OR owner <> $1)"
                f" RETURNING {REQUEST_COLUMNS}",
                (owner, lease, now, now + FAR_LEASE_SECONDS),
            )
        )
        return sorted((RequestRow(*row) for row in rows), key=lambda row: (row.created, row.id))

    async def renew(self, owner: str, lease: float, now: float) -> None:
        """What `owner` works on stays its own until then."""
        await self._db.run(
            (
                f"UPDATE requests SET lease = {_until(self._db.clock, '$2', '$3')}"  # noqa: S608
                " WHERE state IN ('running', 'settling') AND owner = $1",
                (owner, lease, now) if self._db.clock else (owner, lease),
            )
        )

    async def release(self, owner: str) -> None:
        """Whoever comes may adopt at once what `owner` has worked on."""
        await self._db.run(
            (
                "UPDATE requests SET owner = NULL, lease = 0 WHERE state IN ('running', 'settling') AND owner = $1",
                (owner,),
            )
        )

    # ---- jobs

    async def intend(self, row: JobRow, owner: str, request: RequestRow | None = None) -> bool:
        """Enter a job that is about to be submitted; and its request before it, which has no key. False: not entered,
        since `owner` does not own the request any more, or it has been answered (or the job was entered before)."""
        if request is not None and self._db.clock is None:  # its lease begins now, however long it has waited
            request = replace(request, lease=row.created + request.lease - request.created)
        first = [] if request is None else [(self._insert_request, values_of(request))]
        *_, entered = await self._db.run(*first, (self._insert_job, (*values_of(row), owner)))
        return bool(entered)

    async def bind(self, id: str, job: str, ticket: str, now: float, *, found: bool = False) -> bool:
        """The provider took the job; False if that was known. `found`: it was looked up; False also if another row has
        it by now."""
        other = "SELECT 1 FROM jobs AS other WHERE other.job = $2 AND other.provider = jobs.provider"
        return await self._changed(
            "UPDATE jobs SET state = 'submitted', job = $2, ticket = $3, updated = $4"  # noqa: S608
            " WHERE id = $1 AND state IN ('intent', 'ambiguous')"
            f"{f' AND NOT EXISTS ({other})' if found else ''} RETURNING id",
            id,
            job,
            ticket,
            now,
        )

    async def move(self, move: Move) -> bool:
        """A job has changed its state; False if it was in none of those that the move starts from."""
        if not move.of:
            return False
        rows, *_ = await self._db.run(*money.moved([move], self._db.ahead))
        return bool(rows)

    async def jobs_of(self, request: str) -> list[JobRow]:
        """A request's jobs in the order of their pictures; several tries at one in the order of time."""
        if not storable((request,)):
            return []
        rows = await self._db.read(f"{SELECT_JOB} WHERE request = $1 ORDER BY first, created, id", request)
        return [JobRow(*row) for row in rows]

    async def job_ids(self, provider: str, endpoint: str, since: float) -> frozenset[str]:
        """The ids of all the endpoint's jobs that were bound since then, and of some older ones."""
        rows = await self._db.read(
            "SELECT job FROM jobs WHERE provider = $1 AND endpoint = $2 AND updated >= $3 AND job IS NOT NULL",
            provider,
            endpoint,
            since,
        )
        return frozenset(job for (job,) in rows)

    async def totals(self) -> dict[JobState, Total]:
        """The books: jobs and costs by state."""
        return money.totals(await self._db.read(money.TOTALS))

    # ---- small words

    async def _all(self, sql: str, *values: Any) -> list[RequestRow]:
        if not storable(values):
            return []
        return [RequestRow(*row) for row in await self._db.read(sql, *values)]

    async def _one(self, where: str, *values: Any) -> RequestRow | None:
        rows = await self._all(f"{SELECT_REQUEST} {where}", *values)
        return rows[0] if rows else None

    async def _changed(self, sql: str, *values: Any) -> bool:
        (rows,) = await self._db.run((sql, values))
        return bool(rows)


def _freed_key(row: RequestRow) -> Statement:
    """Who held its key before it, and does not any more, lets go of it."""
    return (
        "UPDATE requests SET key = NULL WHERE key = $1 AND caller = $2 AND keep_until <= $3 AND state <> 'running'",
        (row.key, row.caller, row.created),
    )


def _holders(row: RequestRow) -> Statement:
    """Who has its id, or its key."""
    return (
        f"{SELECT_REQUEST} WHERE id = $1 UNION ALL {SELECT_REQUEST} WHERE key = $2 AND caller = $3 AND id <> $1",
        (row.id, row.key, row.caller),
    )


def storable(values: Iterable[Any]) -> bool:
    """Whether any row could have these values. What was asked for may be anything."""
    return not any(_UNSTORABLE.search(value) for value in values if isinstance(value, str))
