"""Run one plan's calls: all at once, each submitted, collected and finished in a task of its own.

Every step of a job is in the journal before the next one. A call is submitted again only when surely no job was made
(`accepted is False`) and the fault's rule allows it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Mapping
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass
from random import Random
from typing import Any, Generic, TypeVar

from app.admission import Admission
from app.breaker import Breaker, Breakers
from app.collecting import Collector, Order, stopped
from app.errors import (
    GatewayError,
    InternalError,
    ProviderMisconfigured,
    ProviderOut,
    RateLimited,
    bare,
)
from app.faults import FAULTS
from app.jobs import Job, Journal, taken_over
from app.payloads import discreet
from app.records import Verdict
from app.types import Attempt, Call, Caller, Plan, Slot
from providers.base import Clock, Fault, Media, ProviderCall, ProviderError, ProviderResult, Ticket

log = logging.getLogger("imagegate.dispatch")

SUBMIT_TRIES = 5
# Where the model has another offer its caller need not wait for this one to recover.
SUBMIT_TRIES_BEFORE_NEXT, WAIT_BEFORE_NEXT = 2, 1.0
RETRYING_SHARE, RETRYING_LEAST = 0.2, 3  # of the jobs under way, how many may be repeats (Envoy's retry budget)
SETTLE_SECONDS = 20.0
LATER_SHARE = 0.25  # how much later than a Retry-After asks for a submit may be repeated
DEADLINE_MARGIN = 1.0  # seconds: adapters stop looking a little before the deadline

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Done(Generic[T]):
    """One call as it ended: what `finish` made of its result, or the error."""

    call: Call
    finished: T | None = None
    error: ProviderError | GatewayError | None = None


class Dispatcher:
    """Runs plans. One for the whole process."""

    def __init__(
        self, clock: Clock, random: Random, journal: Journal, admission: Admission, breakers: Breakers
    ) -> None:
        self._clock = clock
        self._random = random
        self._journal = journal
        self._admission = admission
        self._breakers = breakers
        self._collector = Collector(clock, journal)
        self._under_way = 0
        self._retrying = 0

    def check(self, plan: Plan, caller: Caller) -> None:
        """Whether a plan could be run now. Raises RateLimited, ProviderOut, ProviderMisconfigured."""
        offer = plan.offer
        breaker = self._breakers.of(f"{offer.provider}/{offer.endpoint}")
        _refuse(breaker, breaker.peek())
        self._admission.check(offer.provider, caller.key_id, len(plan.calls), most=caller.concurrent_jobs)

    async def run(self, order: Order[T]) -> AsyncGenerator[Done[T], None]:
        """Each call as it ends, in that order. Who closes the generator early leaves the jobs as they are, upstream and
        in the journal. Raises RateLimited, before anything else, if others have filled the queue since `check`."""
        self._admission.check(order.plan.offer.provider, order.key_id, len(order.plan.calls), most=order.most)

        async def work(call: Call) -> Done[T]:
            try:
                job, ticket, result = await self._one(order, call)
                try:
                    return Done(call, await order.finish(call, job, ticket, result))
                except Exception:
                    order.fates.follow(job, ticket)  # it is done and paid for
                    raise
            except (ProviderError, GatewayError) as error:
                return Done(call, error=bare(error))
            except Exception:  # must not take the other calls, which are paid for, with it
                log.exception("%s: a defect", order.request_id)
                return Done(call, error=InternalError("The gateway failed.", should_retry=False))

        if len(order.plan.calls) == 1:
            yield await work(order.plan.calls[0])
            return
        tasks = [asyncio.create_task(work(call)) for call in order.plan.calls]
        try:
            for ended in asyncio.as_completed(tasks):
                yield await ended
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def settle(self) -> None:
        """Wait until every submit that was left has its answer in the journal, but not for ever: for the end of the
        process."""
        with suppress(TimeoutError):
            async with asyncio.timeout(SETTLE_SECONDS):
                await self._collector.settle()

    # ---- one call

    async def _one(self, order: Order[Any], call: Call) -> tuple[Job, Ticket, ProviderResult]:
        tries = SUBMIT_TRIES_BEFORE_NEXT if order.has_next else SUBMIT_TRIES
        for number in range(1, tries + 1):
            try:
                return await self._attempt(order, call)
            except ProviderError as error:
                again = error.accepted is False and FAULTS[error.fault].retry_same and not error.final
                if order.has_next and (error.retry_after or 0.0) > WAIT_BEFORE_NEXT:
                    again = False
                if not again or number == tries or not await self._pause(order, error, number):
                    raise
        raise AssertionError("unreachable")

    async def _attempt(self, order: Order[Any], call: Call) -> tuple[Job, Ticket, ProviderResult]:
        """One submit, and what comes of it."""
        offer, provider = order.plan.offer, order.provider
        breaker = self._breakers.of(f"{offer.provider}/{offer.endpoint}")
        async with AsyncExitStack() as stack:
            asked = self._clock.monotonic()
            with order.steps.measure("queue"):
                await self._turn(order, stack)
            began = self._clock.monotonic()
            queued = began - asked
            if began >= order.deadline:
                message = "There was no time left to ask the provider."
                raise ProviderError(Fault.TIMEOUT, message, accepted=False)
            _refuse(breaker, breaker.admit())
            try:
                payload = _filled(call.payload, order.pictures)
                reserve = order.price_of(call)
                job = await self._journal.intend(order.request_id, offer, call, payload, reserve=reserve)
                ticket: Ticket | None = None
                try:
                    with order.steps.measure("submit") as step:
                        ticket = await self._submit(order, payload, job)
                        step.about["job"] = ticket.job
                    breaker.succeeded(accepted_only=True)
                    with order.steps.measure("wait") as step:
                        step.about["job"] = ticket.job
                        result = ticket.result or await self._collector.collected(order, job, ticket)
                except ProviderError as error:
                    if error.accepted is False and order.stop.wanted:
                        raise stopped() from None
                    if error.accepted is False and not self._journal.may_submit(job):
                        raise taken_over() from None
                    if not self._is_own_deadline(error, order):
                        breaker.failed(error.fault, error.message)
                    order.attempts.append(self._entry(order, ticket, began, queued, error=error))
                    log.warning("%s: %s failed: %s (%s)", order.request_id, provider.name, error.fault, error.detail)
                    raise
                except BaseException:  # stopped, or a defect
                    order.attempts.append(self._entry(order, ticket, began, queued))
                    raise
                breaker.succeeded()
                order.attempts.append(self._entry(order, ticket, began, queued, result=result))
                return job, ticket, result
            finally:
                breaker.left()  # of no effect after a verdict

    def _is_own_deadline(self, error: ProviderError, order: Order[Any]) -> bool:
        """A request that had too little time says nothing of the offer's health."""
        return error.fault is Fault.TIMEOUT and self._clock.monotonic() >= order.deadline - DEADLINE_MARGIN

    async def _turn(self, order: Order[Any], stack: AsyncExitStack) -> None:
        """A place among the jobs that may run at once. Raises RateLimited if there is none in time, Cancelled."""
        slot = self._admission.slot(order.plan.offer.provider, order.key_id, most=order.most)
        try:
            await self._collector.unless_stopped(order, stack.enter_async_context(slot), order.deadline)
        except TimeoutError:
            raise RateLimited(
                "The gateway is busy: the request's turn did not come in time. Nothing was sent to the provider.",
                retry_after=1,
            ) from None
        self._under_way += 1
        stack.callback(self._turn_over)

    def _turn_over(self) -> None:
        self._under_way -= 1

    async def _submit(self, order: Order[Any], payload: Mapping[str, Any], job: Job) -> Ticket:
        """The ticket, in the journal. Submitting is never cut in the middle: a job whose ticket we lost could neither
        be collected nor cancelled."""
        sent = ProviderCall(
            order.plan.offer.endpoint,
            payload,
            order.request_id,
            order.keep_results_seconds,
            order.deadline,
            wanted=lambda: not order.stop.wanted and self._journal.may_submit(job),
            via=order.via,
        )
        submit = asyncio.create_task(self._bound(order, job, sent))
        left = order.deadline - self._clock.monotonic()
        try:
            done, _ = await asyncio.wait({submit}, timeout=max(left, 0))
        except asyncio.CancelledError:
            self._collector.leave(submit)
            raise
        if done:
            return submit.result()
        order.fates.hold()
        self._collector.leave(self._collector.cancel_when_known(order, job, submit))
        raise ProviderError(
            Fault.TIMEOUT, "The provider did not take the job in time.", detail="submit is still under way"
        ) from None

    async def _bound(self, order: Order[Any], job: Job, sent: ProviderCall) -> Ticket:
        """Submit, and enter what came of it."""
        try:
            ticket = await discreet(order.plan, lambda: order.provider.submit(sent))
        except ProviderError as error:
            verdict = Verdict(fault=error.fault)
            # Surely no job, or one that is over by the provider's own word.
            if error.accepted is False or (error.accepted is True and error.charged is not None):
                await self._journal.move(job, "failed", cost=job.cost(error.charged), verdict=verdict)
                raise
            await self._journal.move(job, "ambiguous", verdict=verdict)
            order.fates.follow(job, None)
            if error.fault is Fault.TIMEOUT:  # of the submit, not of the request
                error.fault = Fault.UNAVAILABLE
            raise
        except Exception:
            await self._journal.move(job, "ambiguous", verdict=Verdict(fault="defect"))
            order.fates.follow(job, None)
            raise
        await self._journal.bind(job, ticket)
        return ticket

    async def _pause(self, order: Order[Any], error: ProviderError, number: int) -> bool:
        """Wait before the next submit: the provider's word, or full jitter over an exponential back-off (base 0.2 s,
        1 s when rate-limited). While many jobs are repeats already, longer. False if the deadline comes first."""
        while True:
            base = 1.0 if error.fault is Fault.RATE_LIMITED else 0.2
            pause = self._random.uniform(0, min(base * 2**number, 20.0))
            if error.retry_after is not None:  # not all at the same moment, but the client waits, too
                pause = error.retry_after + min(pause, error.retry_after * LATER_SHARE)
            if self._clock.monotonic() + pause >= order.deadline:
                return False
            if order.stop.wanted:
                raise stopped()
            if self._retrying < max(RETRYING_LEAST, RETRYING_SHARE * self._under_way):
                break
            await self._clock.sleep(pause)
        self._retrying += 1
        try:
            await self._clock.sleep(pause)
        finally:
            self._retrying -= 1
        return True

    def _entry(
        self,
        order: Order[Any],
        ticket: Ticket | None,
        began: float,
        queued: float,
        *,
        result: ProviderResult | None = None,
        error: ProviderError | None = None,
    ) -> Attempt:
        return Attempt(
            provider=order.provider.name,
            endpoint=order.plan.offer.endpoint,
            job=ticket.job if ticket else None,
            seconds=self._clock.monotonic() - began,
            fault=error.fault if error else None if result else "left",
            charged=error.charged if error else True if result else None,
            billable_units=result.billable_units if result else None,
            queued=queued,
        )


def _refuse(breaker: Breaker, seconds: float | None) -> None:
    """Raises ProviderOut, or ProviderMisconfigured, if the offer is out for so long."""
    if seconds is None:
        return
    if breaker.locked:
        raise ProviderMisconfigured(breaker.reason, retry_after=seconds)
    raise ProviderOut(
        "The provider has failed several times in a row and is left alone for a moment.",
        detail=breaker.reason,
        retry_after=seconds,
    )


def _filled(payload: Mapping[str, Any], pictures: tuple[Media, ...]) -> dict[str, Any]:
    """The payload with every slot replaced by its picture."""
    return {name: _fill(value, pictures) for name, value in payload.items()}


def _fill(value: Any, pictures: tuple[Media, ...]) -> Any:
    if isinstance(value, Slot):
        return pictures[value.index]
    if isinstance(value, Mapping):
        return {name: _fill(item, pictures) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_fill(item, pictures) for item in value]
    return value
