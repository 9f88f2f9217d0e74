"""The journal of paid work: what is bought is on disk before anyone waits for it.

A job's states (each is one row; only the arrows drawn are ever taken):

    intent ──────► submitted ──────► done          paid; its pictures are with the caller or kept, or were refused
      │  │          │  │   └───────► failed        ended without a bill
      │  │          │  └► cancelling ─► cancelled  stopped without a bill; or done, if it was too late
      │  │          └─────► lost ─► done           paid, perhaps, but its result cannot be had: asked for for a day
      │  └► failed                                 surely not taken
      └───► ambiguous ─► submitted | failed        the reply was lost: looked for upstream for a day, never sent again

What is still lost, ambiguous or cancelling after a day is `unresolved`, for an operator to see.

`intent` is written before a submit is sent, the ticket before it is waited for, the end of a job once: each move names
the states that it may start from, so whoever comes second changes nothing and a job is charged once.

A request is `running` until it is answered, `settling` while the fate of one of its jobs is open, then `settled`: the
database itself looks whether a job is open. What a request may still cost is told by its row and its jobs': there is no
reservation beside them that could get stuck. The request of a key with a budget is entered before anything else, and
only if the budget has room for all of it: of ten pictures none is bought if not all can be paid.

Before anything was bought a journal that cannot write is an error (Overloaded). Afterwards it is not: such writes are
owed, and repeated in their order until they succeed.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import math
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any, TypeVar

from app.catalogue.schema import Offer
from app.denials import InsufficientQuota
from app.errors import Overloaded
from app.records import Answered, MaskKeys, Verdict, dump_answer, dump_plan, dump_quote, dump_ticket, dump_verdict
from app.store.db import StoreError, StoreRefusal
from app.store.jobs import OPEN, JobRow, JobState, JobStore, Move, OverBudget, RequestRow, RequestState
from app.store.money import MICRO, micros
from app.types import Call, Caller, EditRequest, Plan, Quote, Terms
from providers.base import Clock, Fault, Media, ProviderError, Ticket, payload_mark

log = logging.getLogger("imagegate.jobs")

T = TypeVar("T")

LEASE_SECONDS = 6.0  # of a request, by a process that renews it; then another one may take over
DAY_SECONDS = 86_400
RETRY_SECONDS = 0.5  # between tries of an owed write
CLOSE_SECONDS = 5.0  # for what is owed, at the end of the process


@dataclass(frozen=True, slots=True)
class Job:
    """One upstream job's page."""

    id: str
    request: str
    provider: str
    endpoint: str
    mark: str
    created: float  # Unix seconds
    first: int  # the first of its pictures among the request's
    price: Decimal | None = None  # of all its pictures, as far as it is known before
    asked: float = 0.0  # when it was entered, on the clock's monotonic scale

    def cost(self, charged: bool | None) -> Decimal | None:
        """What it cost if it failed: nothing, its price (nobody tells more), or not known."""
        return Decimal(0) if charged is False else self.price if charged else None


def fingerprint(request: EditRequest) -> str:
    """SHA-256, in hex, over what a request asks for: its model, parameters and the bytes of its pictures; not how it
    was spelled or sent."""
    params = {name: _plain(given.value) for name, given in request.params.items()}
    content = json.dumps([request.mode, request.model, params], sort_keys=True, default=str)
    return hashlib.sha256(content.encode("utf-8", "surrogatepass")).hexdigest()


def _plain(value: Any) -> Any:
    if isinstance(value, Media):
        return {"sha256": value.digest, "url": value.url}
    if isinstance(value, Mapping):
        return {str(name): _plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value


class Journal:
    """One process's pen. `owner` is its name: what it has begun is its own for as long as it renews its lease."""

    def __init__(
        self, store: JobStore, owner: str, clock: Clock, *, now: Callable[[], float], new_id: Callable[[], str]
    ) -> None:
        self.store = store
        self.owner = owner
        self._clock = clock
        self._now = now
        self._new_id = new_id
        self._unwritten: dict[str, RequestRow] = {}  # requests that have not bought anything yet
        self._owed: deque[Callable[[], Awaitable[Any]]] = deque()
        self._payer: asyncio.Task[None] | None = None
        self._renewed = -math.inf  # when the leases were last renewed, on the clock
        self._unbroken = -math.inf  # since when none of them can have run out

    @property
    def owed(self) -> int:
        """Writes that failed, and are repeated until they succeed."""
        return len(self._owed)

    # ---- before anything is bought

    async def open(
        self,
        id: str,
        caller: Caller,
        terms: Terms,
        content: str,
        plan: Plan,
        quote: Quote,
        *,
        seconds: float,
        keep_seconds: float,
        mask: MaskKeys | None = None,
        reserve: Decimal | None = None,
    ) -> RequestRow | None:
        """Enter a request, and with it reserve what it may cost; None. If its Idempotency-Key is taken, the request
        that has it. Raises Overloaded, InsufficientQuota."""
        now = self._now()
        row = RequestRow(
            id=id,
            caller=caller.key_id,
            key=terms.idempotency_key,
            fingerprint=content,
            state="running",
            owner=self.owner,
            lease=now + LEASE_SECONDS,
            created=now,
            deadline=now + seconds,
            keep_until=now + seconds + keep_seconds,  # counted anew when it is answered
            plan=dump_plan(plan, mask),
            quote=dump_quote(quote),
            reserve=None if reserve is None else micros(reserve),
            caller_name=caller.name,
            model=plan.model,
            provider=plan.offer.provider,
            currency=quote.currency,
            wanted=plan.delivery.count,
            day=int(now // DAY_SECONDS),
        )
        if row.key is None and not caller.has_budget:  # nobody else can mean it: it is written with its first job
            self._unwritten[id] = row
            return None
        self._must_be_up_to_date()
        try:
            if not caller.has_budget:
                return await self._must(lambda: self.store.open(row))
            found = await self._must(lambda: self.store.open_within_budget(row))
        except Overloaded as error:  # it may be there all the same: then it must not hold its key
            nothing = Answered("failed", int(now), "", Decimal(0), uncertain=False, error=error)
            self._owe_later(lambda: self._write_answer(id, nothing, keep_seconds=0, forget_key=True, moves=()))
            raise
        if isinstance(found, OverBudget):
            raise _over_budget(found)
        return found

    async def replan(self, id: str, plan: Plan, quote: Quote, mask: MaskKeys | None) -> None:
        """A request of which nothing was bought goes to another offer. Raises Overloaded."""
        text, price = dump_plan(plan, mask), dump_quote(quote)
        unwritten = self._unwritten.get(id)
        if unwritten is not None:
            other = replace(unwritten, plan=text, quote=price, provider=plan.offer.provider, currency=quote.currency)
            self._unwritten[id] = other
            return
        self._must_be_up_to_date()
        await self._must(lambda: self.store.replan(id, self.owner, text, price, plan.offer.provider, quote.currency))

    async def intend(
        self, request_id: str, offer: Offer, call: Call, payload: Mapping[str, Any], *, reserve: Decimal | None = None
    ) -> Job:
        """This payload is about to be submitted; it may cost so much. Raises Overloaded, also if another process has
        taken the request over."""
        now, asked, mark = self._now(), self._clock.monotonic(), payload_mark(payload)
        job = Job(self._new_id(), request_id, offer.provider, offer.endpoint, mark, now, call.first, reserve, asked)
        row = JobRow(
            id=job.id,
            request=request_id,
            first=call.first,
            count=call.count,
            state="intent",
            provider=job.provider,
            endpoint=job.endpoint,
            mark=job.mark,
            created=now,
            updated=now,
            reserve=None if reserve is None else micros(reserve),
        )
        # With each job until one is written: two that begin at once may be written in any order.
        request = self._unwritten.get(request_id)
        self._must_be_up_to_date()
        try:
            entered = await self._must(lambda: self.store.intend(row, self.owner, request))
        except Overloaded:  # it may be there all the same, and is not sent
            never = self.moved(job, "failed", of=("intent",), cost=Decimal(0))
            self._owe_later(lambda: self.store.move(never))
            raise
        finally:
            self._unwritten.pop(request_id, None)
        if not entered:
            raise taken_over()
        return job

    def may_submit(self, job: Job) -> bool:
        """Whether the request is surely still this process's: of one that has slept, another may have taken it over
        since the job was entered."""
        known = max(job.asked, self._renewed)
        return job.asked >= self._unbroken and self._clock.monotonic() - known < LEASE_SECONDS

    async def _must(self, work: Callable[[], Awaitable[T]]) -> T:
        try:
            return await work()
        except StoreError as error:
            raise _unwritable(str(error)) from None

    def _must_be_up_to_date(self) -> None:
        """Raises Overloaded while older writes are owed: first what was bought."""
        if self._payer is not None:
            raise _unwritable("older writes are owed")

    # ---- afterwards

    async def bind(self, job: Job, ticket: Ticket) -> None:
        """The provider took the job."""
        await self._owe(lambda: self.store.bind(job.id, ticket.job, dump_ticket(ticket), self._now()))

    def moved(
        self,
        job: Job,
        to: JobState,
        *,
        of: tuple[JobState, ...] = OPEN,
        cost: Decimal | None = None,
        verdict: Verdict | None = None,
    ) -> Move:
        """What became of a job, to be written; nothing will be if it is in none of the states `of` then."""
        text = None if verdict is None else dump_verdict(verdict)
        made = None if verdict is None else len(verdict.artefacts)
        return Move(job.id, to, self._now(), of, None if cost is None else str(cost), text, made)

    async def move(
        self,
        job: Job,
        to: JobState,
        *,
        of: tuple[JobState, ...] = OPEN,
        cost: Decimal | None = None,
        verdict: Verdict | None = None,
    ) -> None:
        """What became of a job; nothing if it was in none of the states `of`."""
        move = self.moved(job, to, of=of, cost=cost, verdict=verdict)
        await self._owe(lambda: self.store.move(move))

    async def fail(self, job: Job, error: ProviderError) -> bool:
        """A job could not be collected: enter its end, if the error is its own verdict; else False, and it may still be
        at work, and be billed."""
        own_word = error.fault in (Fault.INVALID, Fault.REFUSED) or (error.final and not error.lost)
        if not own_word and error.charged is not False:
            return False
        verdict = Verdict(fault=error.fault)
        state: JobState = "cancelled" if error.cancelled else "failed"
        await self.move(job, state, cost=job.cost(error.charged), verdict=verdict)
        return True

    async def answer(
        self,
        id: str,
        answer: Answered,
        *,
        keep_seconds: float,
        forget_key: bool,
        moves: Sequence[Move] = (),
    ) -> bool:
        """A request is about to be answered so; with it these jobs have ended. False: it has no page."""
        if self._unwritten.pop(id, None) is not None:
            return False  # nothing was bought, and nobody has a key for it
        await self._owe(
            lambda: self._write_answer(id, answer, keep_seconds=keep_seconds, forget_key=forget_key, moves=moves)
        )
        return True

    async def _write_answer(
        self, id: str, answer: Answered, *, keep_seconds: float, forget_key: bool, moves: Sequence[Move]
    ) -> RequestState | None:
        until, text = self._now() + keep_seconds, dump_answer(answer)
        status, error = answer.status, None if answer.error is None else answer.error.code
        return await self.store.answer(
            id, self.owner, text, until, status=status, error=error, forget_key=forget_key, moves=moves
        )

    async def settle(self, id: str) -> None:
        """One of a request's jobs has ended after it was answered."""
        await self._owe(lambda: self.store.settle(id, self.owner))

    async def _owe(self, write: Callable[[], Awaitable[Any]]) -> None:
        """Returns when it is written, or when it was tried and will be tried again."""
        if self._payer is None:
            try:
                await write()
            except StoreRefusal:
                log.exception("a defect: the journal refused what it was owed")
                return
            except StoreError as error:
                log.error("the journal cannot be written: %s", error)
            else:
                return
        self._owe_later(write)

    def _owe_later(self, write: Callable[[], Awaitable[Any]]) -> None:
        self._owed.append(write)
        if self._payer is None:
            self._payer = asyncio.create_task(self._pay(), name="owed to the journal")

    async def _pay(self) -> None:
        """In the order in which they were owed."""
        try:
            while self._owed:
                try:
                    await self._owed[0]()
                except StoreRefusal:
                    log.exception("a defect: the journal refused what it was owed")
                except StoreError:
                    await self._clock.sleep(RETRY_SECONDS)
                    continue
                self._owed.popleft()
            log.warning("the journal is written again")
        finally:
            self._payer = None

    # ---- for as long as the process lives

    async def renew(self) -> None:
        """What this process has begun stays its own. Raises StoreError."""
        began, now = self._clock.monotonic(), self._now()
        await self.store.renew(self.owner, now + LEASE_SECONDS, now)
        if began - self._renewed > LEASE_SECONDS:  # what was entered before may have been taken over meanwhile
            self._unbroken = began - LEASE_SECONDS
        self._renewed = began

    async def adopt(self) -> list[RequestRow]:
        """Take over what a dead process left, or one that stopped. Raises StoreError."""
        now = await self.store.time(self._now())
        return await self.store.adopt(self.owner, now + LEASE_SECONDS, now)

    async def close(self) -> None:
        """Let go of everything: whoever comes next may take it at once."""
        if self._payer is not None:
            payer = self._payer
            await asyncio.wait({payer}, timeout=CLOSE_SECONDS)
            payer.cancel()
            await asyncio.gather(payer, return_exceptions=True)
        try:
            await self.store.release(self.owner)
        except StoreError as error:
            log.error("the journal could not be let go of: %s", error)


def _over_budget(found: OverBudget) -> InsufficientQuota:
    needed, left = (f"{(amount * MICRO).normalize():f}" for amount in (found.needed, found.left))
    which = "total budget" if found.budget == "total" else f"budget for this {found.budget} (UTC)"
    return InsufficientQuota(f"The request needs {needed} USD; your API key's {which} has {left} USD left.")


def taken_over() -> Overloaded:
    """The word for it."""
    return Overloaded(
        "The gateway was held up for so long that another one has taken the request over. Nothing was sent to the "
        "provider for this picture.",
        retry_after=1,
    )


def _unwritable(why: str) -> Overloaded:
    return Overloaded(
        "The gateway cannot write its journal at the moment. Nothing was sent to the provider.",
        detail=why,
        retry_after=5,
    )
