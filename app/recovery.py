"""Jobs that nobody waits for: those that a dead process left, those whose end is not known, those whose result is lost.

Each is followed until its fate is known, or for a day. Nothing is ever submitted from here. A request that was cut off
in the middle becomes a run again, so that a client which comes back for it joins it like any other.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from decimal import Decimal

from app.delivery import Keep, Upstream
from app.errors import Expired, GatewayError, InternalError, ProviderUnavailable, UpstreamAmbiguous
from app.faults import from_provider
from app.harvest import Harvest, Harvester
from app.jobs import Job, Journal
from app.payloads import muted, unsaid
from app.records import MaskKeys, Verdict, dump_ticket, load_plan, load_ticket, load_verdict
from app.store.db import StoreError
from app.store.jobs import OPEN, JobRow, RequestRow
from app.store.money import MICRO
from app.tally import Tally
from app.types import Artefact, Attempt, Call, Failure, MaskStep, Plan
from providers.base import Clock, Fault, Finder, ProviderError, ProviderResult, Ticket

log = logging.getLogger("imagegate.recovery")

FOLLOW_SECONDS = 86_400.0  # after that a job's fate is left open, for an operator to see
LOOK_SECONDS = 30.0  # one look at a job: others want to look, too
FIRST_LOOK_SECONDS = 60.0  # the least that a request which was cut off waits for its jobs
AT_ONCE = 50  # jobs that are followed at the same time
# A job is listed some time after it was sent, perhaps only once it has ended (fal runs one for an hour at most): before
# that, its absence says nothing.
SURELY_LISTED_SECONDS = 7200.0
SENT_BEFORE, SENT_AFTER = 30.0, 300.0  # seconds around the intent: clocks differ, uploads come before the submit


class Recovery:
    """One for the whole process."""

    def __init__(
        self,
        journal: Journal,
        upstreams: Mapping[str, Upstream],
        harvester: Harvester,
        clock: Clock,
        *,
        now: Callable[[], float],
        keep_seconds: float,
    ) -> None:
        self._journal = journal
        self._upstreams = upstreams
        self._harvester = harvester
        self._clock = clock
        self._now = now
        self._keep = Keep(keep_seconds, must=True)
        self._tasks: set[asyncio.Task[None]] = set()
        self._open: Counter[str] = Counter()  # followed jobs of each request
        self._answered: set[str] = set()
        self._masks: dict[str, tuple[MaskKeys, Upstream]] = {}
        self._resettling: set[str] = set()
        self._looking = asyncio.Semaphore(AT_ONCE)
        self._finding = asyncio.Lock()

    async def close(self) -> None:
        """Follow nothing any more: whoever adopts the journal's pages will."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    # ---- jobs whose fate is open

    def follow(self, request_id: str, plan: Plan, job: Job, ticket: Ticket | None, *, cancelling: bool = False) -> None:
        """Find out what became of a job; `ticket` None: and whether there is one."""
        self.hold(request_id)
        plan = _without_inputs(plan)  # followed for a day: the pictures that came in need not wait for it
        task = asyncio.create_task(self._follow(request_id, plan, job, ticket, cancelling), name=f"follow {job.id}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def hold(self, request_id: str) -> None:
        """Something about the request is not known yet. Each `hold` is followed by a `release`."""
        self._open[request_id] += 1

    async def release(self, request_id: str) -> None:
        """It is known now."""
        self._open[request_id] -= 1
        if not self._open[request_id]:
            del self._open[request_id]
            if request_id in self._answered:
                await self._settle(request_id)

    def keeps(self, request_id: str, mask: MaskKeys, upstream: Upstream) -> None:
        """These inputs are deleted when the request is settled."""
        self._masks[request_id] = (mask, upstream)

    def works_on(self, request_id: str) -> bool:
        """Whether something about the request is still being found out."""
        return request_id in self._open or request_id in self._resettling

    async def answered(self, request_id: str) -> None:
        """The request has been answered: as soon as the fate of all its jobs is known, nothing of it is left here."""
        if request_id in self._open:
            self._answered.add(request_id)
        else:
            await self._forget_inputs(request_id)

    async def _settle(self, request_id: str) -> None:
        self._answered.discard(request_id)
        await self._journal.settle(request_id)
        await self._forget_inputs(request_id)

    async def _forget_inputs(self, request_id: str) -> None:
        keys, upstream = self._masks.pop(request_id, (None, None))
        if keys is not None and upstream is not None:
            await upstream.deliverer.forget(keys.original)
            await upstream.deliverer.forget(keys.mask)

    async def _follow(self, request_id: str, plan: Plan, job: Job, ticket: Ticket | None, cancelling: bool) -> None:
        upstream = self._upstreams[plan.offer.provider]
        for pause in _pauses():
            try:
                if ticket is None:
                    ticket, absent = await self._find(job, upstream)
                    if absent:
                        break
                async with self._looking:
                    if ticket is not None and await self._look(plan, job, ticket, upstream, cancelling):
                        break
            except Exception:
                log.exception("%s: a job cannot be followed", request_id)
            if self._now() + pause > job.created + FOLLOW_SECONDS:
                log.error("%s: what became of job %s is not known", request_id, ticket.job if ticket else job.id)
                await self._journal.move(job, "unresolved")
                break
            await self._clock.sleep(pause)
        await self.release(request_id)

    async def _find(self, job: Job, upstream: Upstream) -> tuple[Ticket | None, bool]:
        """The ticket of a job whose submit was not answered, if the provider lists it; and whether there is none."""
        if not isinstance(upstream.provider, Finder):
            return None, False
        since, until = job.created - SENT_BEFORE, job.created + SENT_AFTER
        store = self._journal.store
        async with self._finding:  # one after another: two lost submits of the same must not find the same job
            try:
                known = await store.job_ids(job.provider, job.endpoint, since)
                ticket = await muted(upstream.provider.find(job.endpoint, job.mark, since, until, known))
                if ticket is not None:
                    text = dump_ticket(ticket)
                    if not await store.bind(job.id, ticket.job, text, self._now(), found=True):
                        return None, False
                    log.warning("%s: the lost submit was found: job %s", job.request, ticket.job)
                    return ticket, False
            except (ProviderError, StoreError) as error:
                log.info("the submit of %s cannot be looked up: %s", job.request, error)
                return None, False
        if self._now() < job.created + SURELY_LISTED_SECONDS:
            return None, False
        log.warning("%s: the lost submit never arrived", job.request)
        await self._journal.move(job, "failed", of=("ambiguous",), cost=Decimal(0))
        return None, True

    async def _look(self, plan: Plan, job: Job, ticket: Ticket, upstream: Upstream, cancelling: bool) -> bool:
        """Whether the job's fate is known now."""
        deadline = self._clock.monotonic() + LOOK_SECONDS
        try:
            result = await _collected(upstream, ticket, deadline)
        except ProviderError as error:
            if await self._journal.fail(job, error):
                return True
            if error.lost and cancelling:  # stopped, and forgotten by the provider
                await self._journal.move(job, "cancelled", verdict=Verdict(fault=error.fault))
                return True
            if error.lost:
                await self._journal.move(job, "lost")  # what it has brought before is still true
            return False
        call = _call_of(plan, job)
        harvest = await self._harvester.bring_home(plan, call, job, result, upstream, deadline, lambda: self._keep)
        log.info("%s: job %s came home", job.request, ticket.job)
        return not harvest.lost

    # ---- requests that were cut off

    async def plan_of(self, row: RequestRow) -> Plan:
        """The plan of a request in the journal, with what its delivery needs. Raises GatewayError if that cannot be
        read now."""
        plan, mask = load_plan(row.plan)
        if mask is None:
            return plan
        upstream = self._upstreams[plan.offer.provider]
        self.keeps(row.id, mask, upstream)
        try:
            original = await upstream.deliverer.kept_input(mask.original)
            step = MaskStep(original, await upstream.deliverer.kept_input(mask.mask))
        except Expired:
            log.error("%s: its mask is not kept any more: its pictures are kept as they were made", row.id)
            return plan
        return replace(plan, delivery=replace(plan.delivery, mask=step))

    def resettle(self, row: RequestRow) -> None:
        """A request that was answered, but left with jobs whose fate is open."""
        self._resettling.add(row.id)
        task = asyncio.create_task(self._resettle(row), name=f"resettle {row.id}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _resettle(self, row: RequestRow) -> None:
        """What fails here is tried again: the caretaker finds the request once more."""
        try:
            self.hold(row.id)
            plan = await self.plan_of(row)
            for found in await self._journal.store.jobs_of(row.id):
                if found.state in OPEN:
                    await self._follow_row(plan, found)
            self._answered.add(row.id)
        except (GatewayError, StoreError) as error:
            log.error("%s: cannot be taken up now: %s", row.id, error)
        finally:
            await self.release(row.id)
            self._resettling.discard(row.id)

    async def pick_up(self, row: RequestRow, plan: Plan, tally: Tally) -> list[Artefact | Failure]:
        """All pictures of a request that was cut off before it was answered: those that its jobs have made, and why
        there is none of the others. Raises StoreError before anything has been done."""
        jobs: dict[int, JobRow] = {}
        for found in await self._journal.store.jobs_of(row.id):
            jobs[found.first] = found  # the last try counts
        wait = max(row.deadline - self._now(), FIRST_LOOK_SECONDS)
        deadline = self._clock.monotonic() + wait
        each = (self._one(plan, call, jobs.get(call.first), deadline, tally) for call in plan.calls)
        ended = await asyncio.gather(*each)
        return [event for events in ended for event in events]

    async def _one(
        self, plan: Plan, call: Call, found: JobRow | None, deadline: float, tally: Tally
    ) -> list[Artefact | Failure]:
        def missing(error: GatewayError, charged: bool | None) -> list[Artefact | Failure]:
            return [Failure(index, error, charged) for index in range(call.first, call.first + call.count)]

        if found is None:
            return missing(_not_asked(), False)
        verdict, began = load_verdict(found.verdict), self._clock.monotonic()
        if found.state == "submitted":
            try:
                harvest = await self._collect(plan, call, found, deadline)
            except ProviderError as error:
                tally.attempts.append(_attempt(found, error.fault, error.charged))
                if error.charged:
                    tally.charge(_job(found).price)
                return missing(from_provider(error), error.charged)
            except Exception:
                log.exception("%s: a job cannot be collected", found.request)
                await self._follow_row(plan, found)
                tally.attempts.append(_attempt(found, "defect", None))
                return missing(InternalError("The gateway failed.", should_retry=False), None)
            tally.charge(harvest.cost)
            tally.attempts.append(_attempt(found, None, True, seconds=self._clock.monotonic() - began))
            if harvest.seed is not None:
                tally.seeds[call.first] = harvest.seed
            return list(harvest.events)
        if found.state in OPEN:
            await self._follow_row(plan, found)
        if found.state == "done" or verdict.artefacts:
            tally.charge(None if found.cost is None else Decimal(found.cost))
            tally.attempts.append(_attempt(found, None, True))
            if verdict.seed is not None:
                tally.seeds[call.first] = verdict.seed
            return [*verdict.artefacts, *verdict.failures]
        if found.state in OPEN or found.state == "unresolved":
            tally.attempts.append(_attempt(found, verdict.fault or "left", None))
            return missing(_not_known(), None)
        return missing(*_as_it_failed(found, verdict, tally))

    async def _collect(self, plan: Plan, call: Call, found: JobRow, deadline: float) -> Harvest:
        job, ticket = _job(found), _ticket(found)
        assert ticket is not None
        upstream = self._upstreams[plan.offer.provider]
        try:
            result = await _collected(upstream, ticket, deadline)
        except ProviderError as error:
            if not await self._journal.fail(job, error):
                await self._follow_row(plan, found)
            raise
        harvest = await self._harvester.bring_home(plan, call, job, result, upstream, deadline, lambda: self._keep)
        if harvest.lost:
            self.follow(found.request, plan, job, ticket)
        return harvest

    async def _follow_row(self, plan: Plan, found: JobRow) -> None:
        job = _job(found)
        if found.state == "intent":
            await self._journal.move(job, "ambiguous", of=("intent",))
        self.follow(found.request, plan, job, _ticket(found), cancelling=found.state == "cancelling")


async def _collected(upstream: Upstream, ticket: Ticket, deadline: float) -> ProviderResult:
    return await muted(upstream.provider.collect(ticket, deadline)) if ticket.result is None else ticket.result


def _pauses() -> Iterator[float]:
    """Seconds between looks: often at first, in the end once an hour."""
    pause = 2.0
    while True:
        yield pause
        pause = min(pause * 2, 3600.0)


def _job(found: JobRow) -> Job:
    price = None if found.reserve is None else found.reserve * MICRO
    return Job(found.id, found.request, found.provider, found.endpoint, found.mark, found.created, found.first, price)


def _ticket(found: JobRow) -> Ticket | None:
    return None if found.job is None or found.ticket is None else load_ticket(found.provider, found.job, found.ticket)


def _without_inputs(plan: Plan) -> Plan:
    return replace(plan, inputs=(), calls=tuple(replace(call, payload={}) for call in plan.calls))


def _call_of(plan: Plan, job: Job) -> Call:
    return next(call for call in plan.calls if call.first == job.first)


def _attempt(found: JobRow, fault: str | None, charged: bool | None, *, seconds: float = 0.0) -> Attempt:
    return Attempt(found.provider, found.endpoint, found.job, seconds, fault, charged)


def _as_it_failed(found: JobRow, verdict: Verdict, tally: Tally) -> tuple[GatewayError, bool | None]:
    """Why a job that had failed before the process died brought nothing, and whether it was billed."""
    cost = None if found.cost is None else Decimal(found.cost)
    charged = None if cost is None else cost > 0
    tally.attempts.append(_attempt(found, verdict.fault or "left", charged))
    if charged:
        tally.charge(cost)
    if verdict.fault not in set(Fault):
        return _not_asked(), charged
    accepted = found.job is not None
    error = ProviderError(Fault(verdict.fault), unsaid(Fault(verdict.fault)), accepted=accepted, charged=charged)
    return from_provider(error), charged


def _not_asked() -> GatewayError:
    return ProviderUnavailable("The gateway was stopped before it had asked for the picture.")


def _not_known() -> GatewayError:
    return UpstreamAmbiguous("The gateway was stopped while it asked for the picture.")


@dataclass(frozen=True, slots=True)
class Fates:
    """What became of one request's jobs is for the recovery to find out."""

    recovery: Recovery
    request_id: str
    plan: Plan

    def follow(self, job: Job, ticket: Ticket | None, *, cancelling: bool = False) -> None:
        self.recovery.follow(self.request_id, self.plan, job, ticket, cancelling=cancelling)

    def hold(self) -> None:
        self.recovery.hold(self.request_id)

    async def release(self) -> None:
        await self.recovery.release(self.request_id)
