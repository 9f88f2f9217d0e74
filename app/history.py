"""The journal, read: what became of a caller's requests."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal

from app.delivery import Upstream
from app.errors import GatewayError, InvalidValue, Overloaded
from app.records import Answered, load_answer, load_plan, load_quote, load_verdict
from app.store.db import StoreError
from app.store.jobs import OPEN, JobRow, JobState, JobStore, RequestRow, RequestState
from app.types import Artefact, Caller, Failure, Plan


@dataclass(frozen=True, slots=True)
class Record:
    """One request as it stands: how it was answered, and what has become known since."""

    id: str
    status: str  # running · completed · partial · failed · cancelled
    created: float  # Unix seconds
    keep_until: float
    key: str | None
    plan: Plan
    currency: str
    cost: Decimal | None  # of the jobs that are known to have been billed
    uncertain: bool  # a job may have been billed, and what it cost is not known yet
    reserved: Decimal | None  # what its open jobs may still cost; None = not known
    seconds: float | None
    artefacts: tuple[Artefact, ...]
    failures: tuple[Failure, ...]
    error: GatewayError | None
    jobs: tuple[JobRow, ...]


@dataclass(frozen=True, slots=True)
class Page:
    """Some records, newest first."""

    records: tuple[Record, ...]
    more: bool


class History:
    """Reads. One for the whole process."""

    def __init__(self, store: JobStore, upstreams: Mapping[str, Upstream]) -> None:
        self._store = store
        self._upstreams = upstreams

    async def record(self, caller: Caller, id: str) -> Record | None:
        """One request; None if this caller has none of that id. Raises Overloaded."""
        try:
            row = await self._store.request(id)
            return None if row is None or not _sees(caller, row) else await self._record(row)
        except StoreError as error:
            raise _unreadable(error) from None

    async def page(
        self,
        caller: Caller,
        *,
        after: str | None,
        limit: int,
        key: str | None = None,
        job: str | None = None,
        state: RequestState | JobState | None = None,
    ) -> Page:
        """A caller's requests, or everybody's for the admin, newest first, from the one after `after` on. Raises
        InvalidValue, Overloaded."""
        try:
            before = None
            if after is not None:
                last = await self._store.request(after)
                if last is None or not _sees(caller, last):
                    raise InvalidValue("Invalid 'after': there is no such request.", param="after")
                before = (last.created, last.id)
            whose = None if caller.is_admin else caller.key_id
            rows = await self._store.listing(whose, before, limit + 1, key=key, job=job, state=state)
            records = [await self._record(row) for row in rows[:limit]]
        except StoreError as error:
            raise _unreadable(error) from None
        return Page(tuple(records), len(rows) > limit)

    async def link(self, record: Record, artefact: Artefact, base_url: str) -> str | None:
        """Where a picture of a request can be read."""
        upstream = self._upstreams.get(record.plan.offer.provider)
        return artefact.url if upstream is None else await upstream.deliverer.link(artefact, base_url)

    async def _record(self, row: RequestRow) -> Record:
        plan, _ = load_plan(row.plan)
        quote = load_quote(row.quote)
        jobs = tuple(await self._store.jobs_of(row.id))
        answer = None if row.answer is None else load_answer(row.answer)
        artefacts = {artefact.index: artefact for artefact in answer.artefacts} if answer else {}
        for job in jobs:
            artefacts |= {one.index: one for one in load_verdict(job.verdict).artefacts if one.index not in artefacts}
        open_jobs = [job for job in jobs if job.state in OPEN]
        costs = [Decimal(job.cost) for job in jobs if job.cost is not None]
        share = None if quote.total is None else quote.total / max(len(plan.calls), 1)
        return Record(
            id=row.id,
            status=_status(answer, len(artefacts), plan),
            created=row.created,
            keep_until=row.keep_until,
            key=row.key,
            plan=plan,
            currency=quote.currency,
            cost=sum(costs, Decimal(0)),
            uncertain=any(job.cost is None for job in jobs),
            reserved=None if share is None else share * len([job for job in open_jobs if job.cost is None]),
            seconds=None if answer is None else answer.seconds,
            artefacts=tuple(artefacts[index] for index in sorted(artefacts)),
            failures=() if answer is None else tuple(one for one in answer.failures if one.index not in artefacts),
            error=answer.error if answer is not None and not artefacts else None,
            jobs=jobs,
        )


def _sees(caller: Caller, row: RequestRow) -> bool:
    return caller.is_admin or row.caller == caller.key_id


def _status(answer: Answered | None, made: int, plan: Plan) -> str:
    if answer is None:
        return "running"
    if made > len(answer.artefacts):  # some came home later
        return "completed" if made == plan.delivery.count else "partial"
    return answer.status


def _unreadable(error: StoreError) -> Overloaded:
    return Overloaded("The gateway cannot read its journal at the moment.", detail=str(error), retry_after=5)
