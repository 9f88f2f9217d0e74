"""One job from its ticket to its end: collected, or given up.

A job that is not wanted any more, or not done in time, is cancelled upstream; if it is too late for that, it is done
and paid for, and is collected after all. What cannot be decided here (was the cancellation heard?) is handed to
`fates`, which finds out later.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Generic, Protocol, TypeVar

from app.errors import Cancelled
from app.jobs import Job, Journal
from app.payloads import discreet
from app.records import Verdict
from app.runs import Stop
from app.steps import Steps
from app.types import Attempt, Call, Plan
from providers.base import Clock, Fault, Media, Provider, ProviderError, ProviderResult, Ticket

log = logging.getLogger("imagegate.dispatch")

RESCUE_SECONDS = 10.0  # to collect a job that turned out to be done when it should have been cancelled
PATIENCE_SECONDS = 3.0  # past the deadline, for a cancellation to be heard, or what is done to come
GRACE_SECONDS = 1.0  # adapters keep the deadline themselves; one that does not must not hold the caller

T = TypeVar("T")


class Fates(Protocol):
    """Told of each job of a request whose fate is open."""

    def follow(self, job: Job, ticket: Ticket | None, *, cancelling: bool = False) -> None:
        """Find it out. `ticket` None: not even known whether there is a job. `cancelling`: its end was asked for."""

    def hold(self) -> None:
        """Somebody is still at it. Each `hold` is followed by a `release`."""

    async def release(self) -> None:
        """Nobody is any more."""


@dataclass(frozen=True, slots=True)
class Order(Generic[T]):
    """What to run, for whom, and who hears of it."""

    request_id: str
    key_id: str
    plan: Plan
    provider: Provider
    pictures: tuple[Media, ...]
    deadline: float  # on the clock's monotonic scale
    keep_results_seconds: int
    stop: Stop
    attempts: list[Attempt]  # every attempt is entered, also those that nobody waits for any more
    steps: Steps
    finish: Callable[[Call, Job, Ticket, ProviderResult], Awaitable[T]]
    fates: Fates
    most: int | None = None  # jobs at once of this key; None: as many as of any
    via: tuple[str, ...] = ()  # see ProviderCall
    has_next: bool = False  # whether another offer would do it, if surely nothing was bought
    price: Decimal | None = None  # of one picture, as far as it is known before

    def price_of(self, call: Call) -> Decimal | None:
        """Of all pictures of a call, as far as it is known before."""
        return None if self.price is None else self.price * call.count


class Collector:
    """Collects, and gives up. One for the whole process."""

    def __init__(self, clock: Clock, journal: Journal) -> None:
        self._clock = clock
        self._journal = journal
        self._left: set[asyncio.Task[Any]] = set()

    async def collected(self, order: Order[Any], job: Job, ticket: Ticket) -> ProviderResult:
        """The job's result. However it fails, its end is in the journal, or somebody will find out."""
        why: ProviderError | Cancelled
        try:
            return await self.unless_stopped(
                order,
                discreet(order.plan, lambda: order.provider.collect(ticket, order.deadline)),
                order.deadline,
                grace=GRACE_SECONDS,
            )
        except ProviderError as error:
            error.accepted = True  # whatever the adapter says: there was a ticket
            if await self._journal.fail(job, error):
                raise
            if error.lost:
                await self._lost(order, job, ticket, error)
                raise
            why = error
        except TimeoutError:
            why = ProviderError(
                Fault.TIMEOUT, "The provider did not finish in time.", detail=f"job {ticket.job}", accepted=True
            )
        except Cancelled as error:
            why = error
        except Exception:  # a defect of the adapter
            order.fates.follow(job, ticket)
            raise
        # In a task of its own: whoever waits may leave, or be told at last, a cancellation must not end.
        rescue = asyncio.create_task(self._rescued(order, job, ticket))
        try:
            await asyncio.wait({rescue}, timeout=PATIENCE_SECONDS)
        finally:
            if not rescue.done():
                order.fates.hold()
                self.leave(self._late(order, job, ticket, rescue))
        result = rescue.result() if rescue.done() else None
        if result is None:
            try:
                raise why
            finally:
                del why  # this frame is in its traceback: they would keep each other
        return result

    async def _late(
        self, order: Order[Any], job: Job, ticket: Ticket, rescue: asyncio.Task[ProviderResult | None]
    ) -> None:
        """The rest of a rescue that nobody waits for; to be called with the request held."""
        try:
            if await rescue is not None:  # paid for, and too late for this answer: kept
                await self._journal.move(job, "lost")
                order.fates.follow(job, ticket)
        finally:
            await order.fates.release()

    async def _rescued(self, order: Order[Any], job: Job, ticket: Ticket) -> ProviderResult | None:
        """A job that is not waited for is cancelled; if it is too late for that, it is done and paid for, and is
        collected after all if it can be."""
        if await self._cancel(order, ticket):
            await self._journal.move(job, "cancelling", of=("submitted",))
            order.fates.follow(job, ticket, cancelling=True)
            return None
        try:
            async with asyncio.timeout(RESCUE_SECONDS + 1):
                deadline = self._clock.monotonic() + RESCUE_SECONDS
                return await discreet(order.plan, lambda: order.provider.collect(ticket, deadline))
        except TimeoutError:
            error = ProviderError(Fault.TIMEOUT, "The provider's result did not come.", accepted=True)
        except ProviderError as failed:
            error = failed
        except Exception as defect:
            log.exception("%s job %s: cannot be collected", order.provider.name, ticket.job)
            error = ProviderError(Fault.MALFORMED, "The gateway failed.", detail=repr(defect), accepted=True)
        if not await self._journal.fail(job, error):
            await self._lost(order, job, ticket, error)
        return None

    async def _lost(self, order: Order[Any], job: Job, ticket: Ticket, error: ProviderError) -> None:
        log.error("%s job %s: its result is lost for now: %s", order.provider.name, ticket.job, error.detail)
        await self._journal.move(job, "lost", verdict=Verdict(fault=error.fault))
        order.fates.follow(job, ticket)

    async def cancel_when_known(self, order: Order[Any], job: Job, submit: asyncio.Task[Ticket]) -> None:
        """To be called at once, with the request held: who waits for it is told something else meanwhile."""
        try:
            ticket = await submit
            result = ticket.result or await self._rescued(order, job, ticket)
            if result is not None:  # paid for, and too late for this answer: kept
                await self._journal.move(job, "lost")
                order.fates.follow(job, ticket)
        except ProviderError as error:
            log.info("%s: the abandoned submit failed: %s (%s)", order.provider.name, error.fault, error.detail)
        except Exception:
            log.exception("%s: the abandoned submit failed", order.provider.name)
        finally:
            await order.fates.release()

    async def _cancel(self, order: Order[Any], ticket: Ticket) -> bool:
        """Ask for the end of a job; False if it was too late, True also if that is not known."""
        provider = order.provider
        try:
            taken = await discreet(order.plan, lambda: provider.cancel(ticket))
            log.info("%s job %s: cancel %s", provider.name, ticket.job, "requested" if taken else "came too late")
            return taken
        except ProviderError as error:
            log.warning("%s job %s: cancel failed: %s (%s)", provider.name, ticket.job, error.fault, error.detail)
        except Exception:
            log.exception("%s job %s: cancel failed", provider.name, ticket.job)
        return True

    async def unless_stopped(
        self, order: Order[Any], work: Coroutine[Any, Any, T], deadline: float, *, grace: float = 0.0
    ) -> T:
        """What `work` gives. Raises Cancelled when the run was stopped first, TimeoutError `grace` seconds after the
        deadline."""
        if order.stop.wanted:
            work.close()
            raise stopped()
        left = max(deadline - self._clock.monotonic(), 0) + grace
        limit = asyncio.timeout(left)
        try:
            async with limit:
                with order.stop.ending(limit):
                    return await work
        except Exception:
            if not limit.expired():
                raise
        raise stopped() if order.stop.wanted else TimeoutError

    def leave(self, work: Coroutine[Any, Any, Any] | asyncio.Task[Any]) -> None:
        """To be done by nobody who waits, save for `settle`."""
        task = work if isinstance(work, asyncio.Task) else asyncio.create_task(work)
        self._left.add(task)
        task.add_done_callback(self._left.discard)

    async def settle(self) -> None:
        """Wait until all that was left is done."""
        while self._left:
            await asyncio.gather(*self._left, return_exceptions=True)


def stopped() -> Cancelled:
    """The word for it."""
    return Cancelled("The request was cancelled: its client hung up.")
