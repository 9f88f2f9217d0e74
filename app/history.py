"""The journal and the log, read: what became of requests, what they cost, and what they add up to.

Each key sees its own; an admin's sees everybody's.
"""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any

from app.delivery import Upstream
from app.errors import GatewayError, InvalidValue, Overloaded
from app.records import Answered, Verdict, load_answer, load_plan, load_quote, load_verdict
from app.store.db import StoreError
from app.store.jobs import OPEN, JobRow, JobStore, RequestRow
from app.store.reports import By, Logged, ReportStore, Selection, Sum, Usage
from app.types import Artefact, Caller, Failure, Plan, Quote

CHUNK = 500  # requests at a time, of those that are read one after another


@dataclass(frozen=True, slots=True)
class JobRecord:
    """One upstream job as it stands."""

    row: JobRow
    verdict: Verdict

    @property
    def cost(self) -> Decimal | None:
        """None: not known."""
        return None if self.row.cost is None else Decimal(self.row.cost)

    @property
    def charged(self) -> bool | None:
        """Whether the provider bills it; None: not known."""
        if self.row.state == "done":
            return True
        return None if self.cost is None else self.cost > 0


@dataclass(frozen=True, slots=True)
class Record:
    """One request as it stands: how it was answered, and what has become known since."""

    row: RequestRow
    status: str  # running · completed · partial · failed · cancelled
    plan: Plan
    quote: Quote
    mask: bool
    cost: Decimal  # of the jobs that are known to have been billed
    uncertain: bool  # a job may have been billed, and what it cost is not known yet
    reserved: Decimal | None  # what its open jobs may still cost; None = not known
    seconds: float | None
    artefacts: tuple[Artefact, ...]
    failures: tuple[Failure, ...]
    error: GatewayError | None
    jobs: tuple[JobRecord, ...]

    @property
    def unknown(self) -> int:
        """How many jobs there are whose cost is not known."""
        return len([job for job in self.jobs if job.row.cost is None])


@dataclass(frozen=True, slots=True)
class Log:
    """What the log has of a request beside its journal. Seconds."""

    phases: Mapping[str, float]  # as `app.steps.timings` has them
    total: float
    attempts: tuple[
        tuple[str | None, float, float, str | None, bool | None], ...
    ]  # job, queued, seconds, fault, charged
    payloads: list[dict[str, Any]] | None


@dataclass(frozen=True, slots=True)
class Page:
    """Some records, newest first."""

    records: tuple[Record, ...]
    more: bool


class History:
    """Reads. One for the whole process."""

    def __init__(self, store: JobStore, reports: ReportStore, upstreams: Mapping[str, Upstream]) -> None:
        self._store = store
        self._reports = reports
        self._upstreams = upstreams

    async def record(self, caller: Caller, id: str) -> Record | None:
        """One request; None if this caller has none of that id. Raises Overloaded."""
        try:
            row = await self._store.request(id)
            if row is None or not _may_see(caller, row):
                return None
            return _record(row, await self._store.jobs_of(row.id))
        except StoreError as error:
            raise _unreadable(error) from None

    async def log(self, record: Record) -> Log | None:
        """What the log has of it beside; None if it was lost, or is not written yet. Raises Overloaded."""
        try:
            logged = await self._reports.logged(record.row.id)
        except StoreError as error:
            raise _unreadable(error) from None
        return None if logged is None else _log(logged)

    async def page(self, caller: Caller, selection: Selection, *, after: str | None, limit: int) -> Page:
        """The selected requests, newest first, from the one after `after` on. Raises InvalidValue, Overloaded."""
        try:
            before = None
            if after is not None:
                last = await self._store.request(after)
                if last is None or not _may_see(caller, last):
                    raise InvalidValue("Invalid 'after': there is no such request.", param="after")
                before = (last.created, last.id)
            rows = await self._reports.listing(_own(caller, selection), before, limit + 1)
            records = await self._records(rows[:limit])
        except StoreError as error:
            raise _unreadable(error) from None
        return Page(tuple(records), len(rows) > limit)

    async def every(self, caller: Caller, selection: Selection) -> AsyncGenerator[Sequence[Record], None]:
        """All the selected requests, newest first, some at a time. Raises Overloaded."""
        selection, before = _own(caller, selection), None
        try:
            while True:
                rows = await self._reports.listing(selection, before, CHUNK)
                if rows:
                    yield await self._records(rows)
                    before = (rows[-1].created, rows[-1].id)
                if len(rows) < CHUNK:
                    return
        except StoreError as error:
            raise _unreadable(error) from None

    async def sums(self, caller: Caller, selection: Selection) -> list[Sum]:
        """What the selected requests add up to. Raises Overloaded."""
        try:
            return await self._reports.sums(_own(caller, selection))
        except StoreError as error:
            raise _unreadable(error) from None

    async def usage(
        self, caller: Caller, since: int, until: int, by: Sequence[By], selection: Selection
    ) -> list[Usage]:
        """What was used on the days `since` … `until` (UTC, since 1970, both included). Raises Overloaded."""
        try:
            return await self._reports.usage(since, until, by, _own(caller, selection))
        except StoreError as error:
            raise _unreadable(error) from None

    async def link(self, record: Record, artefact: Artefact, base_url: str) -> str | None:
        """Where a picture of a request can be read."""
        upstream = self._upstreams.get(record.plan.offer.provider)
        return artefact.url if upstream is None else await upstream.deliverer.link(artefact, base_url)

    async def _records(self, rows: Sequence[RequestRow]) -> list[Record]:
        jobs = await self._reports.jobs_of([row.id for row in rows])
        return [_record(row, jobs[row.id]) for row in rows]


def _may_see(caller: Caller, row: RequestRow) -> bool:
    return caller.is_admin or row.caller == caller.key_id


def _own(caller: Caller, selection: Selection) -> Selection:
    """The part of a selection that a caller may see."""
    return selection if caller.is_admin else replace(selection, caller=caller.key_id)


def _record(row: RequestRow, rows: Sequence[JobRow]) -> Record:
    plan, mask = load_plan(row.plan)
    quote = load_quote(row.quote)
    jobs = tuple(JobRecord(job, load_verdict(job.verdict)) for job in rows)
    answer = None if row.answer is None else load_answer(row.answer)
    artefacts = {artefact.index: artefact for artefact in answer.artefacts} if answer else {}
    for job in jobs:
        artefacts |= {one.index: one for one in job.verdict.artefacts if one.index not in artefacts}
    share = None if quote.total is None else quote.total / max(len(plan.calls), 1)
    maybe = [job for job in jobs if job.row.state in OPEN and job.cost is None]
    return Record(
        row=row,
        status=_status(answer, len(artefacts), plan),
        plan=plan,
        quote=quote,
        mask=mask is not None,
        cost=sum((job.cost for job in jobs if job.cost is not None), Decimal(0)),
        uncertain=any(job.cost is None for job in jobs),
        reserved=None if share is None else share * len(maybe),
        seconds=None if answer is None else answer.seconds,
        artefacts=tuple(artefacts[index] for index in sorted(artefacts)),
        failures=() if answer is None else tuple(one for one in answer.failures if one.index not in artefacts),
        error=answer.error if answer is not None and not artefacts else None,
        jobs=jobs,
    )


def _status(answer: Answered | None, made: int, plan: Plan) -> str:
    if answer is None:
        return "running"
    if made > len(answer.artefacts):  # some came home later
        return "completed" if made == plan.delivery.count else "partial"
    return answer.status


def _log(logged: Logged) -> Log:
    kept = json.loads(logged.details)
    payloads = None if logged.payload is None else json.loads(logged.payload)
    attempts = tuple(tuple(one) for one in kept["attempts"])
    return Log(kept["phases"], kept["seconds"], attempts, payloads)


def _unreadable(error: StoreError) -> Overloaded:
    return Overloaded("The gateway cannot read its journal at the moment.", detail=str(error), retry_after=5)
