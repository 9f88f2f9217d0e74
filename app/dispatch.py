"""Run one plan's calls: all at once, each submitted, collected and finished in a task of its own.

A call is submitted again only when surely no job was made (`accepted is False`) and the fault's rule allows it.
Whoever stops listening cancels the jobs upstream: leaving the iterator early is what a client that hung up looks like.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Mapping
from contextlib import suppress
from dataclasses import dataclass
from random import Random
from typing import Any, Generic, TypeVar

from app.errors import FAULTS
from app.types import Attempt, Call, Plan, Slot
from providers.base import Clock, Fault, Media, Provider, ProviderCall, ProviderError, ProviderResult, Ticket

log = logging.getLogger("imagegate.dispatch")

SUBMIT_TRIES = 3
SETTLE_SECONDS = 30.0
RESCUE_SECONDS = 10.0  # to collect a job that turned out to be done when it should have been cancelled

# Faults by which a job itself ended. After any other it may still be at work, and be billed.
_OVER = frozenset({Fault.INVALID, Fault.REFUSED})

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Done(Generic[T]):
    """One call as it ended: what `finish` made of its result, or the error."""

    call: Call
    result: ProviderResult | None = None
    finished: T | None = None
    error: ProviderError | None = None


class Dispatcher:
    """Runs plans. One for the whole process."""

    def __init__(self, clock: Clock, random: Random) -> None:
        self._clock = clock
        self._random = random
        self._abandoned: set[asyncio.Task[Any]] = set()

    async def run(
        self,
        plan: Plan,
        provider: Provider,
        pictures: tuple[Media, ...],
        finish: Callable[[Call, ProviderResult], Awaitable[T]],
        *,
        request_id: str,
        deadline: float,
        keep_results_seconds: int,
        attempts: list[Attempt],
    ) -> AsyncGenerator[Done[T], None]:
        """Each call as it ends, in that order. `pictures` fill the payloads' slots; every attempt is entered into
        `attempts`, also those that nobody waits for any more. A defect is raised as it is."""

        async def work(call: Call) -> Done[T]:
            payload = _filled(call.payload, pictures)
            sent = ProviderCall(plan.offer.endpoint, payload, request_id, keep_results_seconds, deadline)
            try:
                result = await self._one(provider, sent, attempts)
                return Done(call, result, await finish(call, result))
            except ProviderError as error:
                return Done(call, error=error)

        tasks = [asyncio.create_task(work(call)) for call in plan.calls]
        try:
            for ended in asyncio.as_completed(tasks):
                yield await ended
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def settle(self) -> None:
        """Wait until every abandoned job was cancelled upstream, but not for ever: for the end of the process."""
        with suppress(TimeoutError):
            async with asyncio.timeout(SETTLE_SECONDS):
                while self._abandoned:
                    await asyncio.gather(*self._abandoned, return_exceptions=True)

    async def _one(self, provider: Provider, call: ProviderCall, attempts: list[Attempt]) -> ProviderResult:
        """Submit and collect one call. However it fails, a job that may still be at work is cancelled upstream."""
        for number in range(1, SUBMIT_TRIES + 1):
            began = self._clock.monotonic()
            ticket: Ticket | None = None
            try:
                ticket = await self._submit(provider, call)
                result = ticket.result or await self._collect(provider, ticket, call.deadline)
            except ProviderError as error:
                place = len(attempts)  # the list is shared with the other calls
                attempts.append(self._attempt(provider, call, ticket, began, error=error))
                log.warning("%s: %s failed: %s (%s)", call.request_id, provider.name, error.fault, error.detail)
                over = error.fault in _OVER or error.charged is False  # the job's own verdict
                rescued = await self._rescue(provider, ticket) if ticket is not None and not over else None
                if rescued is not None:
                    attempts[place] = self._attempt(provider, call, ticket, began, result=rescued)
                    return rescued
                pause = self._pause(error, number)
                sure = ticket is None and error.accepted is False  # no job was made
                again = sure and FAULTS[error.fault].retry_same and not error.final
                if not again or number == SUBMIT_TRIES or self._clock.monotonic() + pause >= call.deadline:
                    raise
            except BaseException:  # the caller has left, or the adapter has a defect
                attempts.append(self._attempt(provider, call, ticket, began))
                if ticket is not None:
                    self._leave(self._cancel(provider, ticket))
                raise
            else:
                attempts.append(self._attempt(provider, call, ticket, began, result=result))
                return result
            await self._clock.sleep(pause)
        raise AssertionError("unreachable")

    async def _rescue(self, provider: Provider, ticket: Ticket) -> ProviderResult | None:
        """A job that could not be collected is cancelled; if it is too late for that, it is done and paid for, and is
        collected after all if it can be."""
        cancel = asyncio.create_task(self._cancel(provider, ticket))
        try:
            if await asyncio.shield(cancel):
                return None
            return await self._collect(provider, ticket, self._clock.monotonic() + RESCUE_SECONDS)
        except ProviderError as error:
            log.warning("%s job %s: is lost: %s (%s)", provider.name, ticket.job, error.fault, error.detail)
            return None
        except asyncio.CancelledError:
            self._leave(cancel)
            raise

    async def _submit(self, provider: Provider, call: ProviderCall) -> Ticket:
        """Submitting is never cut in the middle: a job whose ticket we lost could not be cancelled any more."""
        left = call.deadline - self._clock.monotonic()
        if left <= 0:
            raise ProviderError(Fault.TIMEOUT, "There was no time left to ask the provider.", accepted=False)
        submit = asyncio.ensure_future(provider.submit(call))
        try:
            async with asyncio.timeout(left):
                return await asyncio.shield(submit)
        except TimeoutError:
            self._leave(self._cancel_when_known(provider, submit))
            raise ProviderError(
                Fault.TIMEOUT, "The provider did not take the job in time.", detail="submit is still under way"
            ) from None
        except asyncio.CancelledError:
            self._leave(self._cancel_when_known(provider, submit))
            raise

    async def _collect(self, provider: Provider, ticket: Ticket, deadline: float) -> ProviderResult:
        """Adapters keep the deadline themselves; one that does not must not hold the caller."""
        try:
            async with asyncio.timeout(max(deadline - self._clock.monotonic(), 0)):
                return await provider.collect(ticket, deadline)
        except TimeoutError:
            raise ProviderError(
                Fault.TIMEOUT, "The provider did not finish in time.", detail=f"job {ticket.job}", accepted=True
            ) from None

    async def _cancel_when_known(self, provider: Provider, submit: asyncio.Future[Ticket]) -> None:
        try:
            ticket = await submit
        except ProviderError as error:
            log.info("%s: the abandoned submit failed: %s (%s)", provider.name, error.fault, error.detail)
        except Exception:
            log.exception("%s: the abandoned submit failed", provider.name)
        else:
            await self._cancel(provider, ticket)

    async def _cancel(self, provider: Provider, ticket: Ticket) -> bool:
        """Ask for the end of a job; False if it was too late, True also if that is not known."""
        if ticket.result is not None:
            return True  # done as soon as it was submitted: there is nothing more to have
        try:
            taken = await provider.cancel(ticket)
            log.info("%s job %s: cancel %s", provider.name, ticket.job, "requested" if taken else "came too late")
            return taken
        except ProviderError as error:
            log.warning("%s job %s: cancel failed: %s (%s)", provider.name, ticket.job, error.fault, error.detail)
        except Exception:
            log.exception("%s job %s: cancel failed", provider.name, ticket.job)
        return True

    def _leave(self, work: Coroutine[Any, Any, Any] | asyncio.Task[Any]) -> None:
        """To be done by nobody who waits, save for `settle`."""
        task = work if isinstance(work, asyncio.Task) else asyncio.create_task(work)
        self._abandoned.add(task)
        task.add_done_callback(self._abandoned.discard)

    def _pause(self, error: ProviderError, number: int) -> float:
        """The provider's word, or full jitter over an exponential back-off (base 0.2 s, 1 s when rate-limited)."""
        if error.retry_after is not None:
            return error.retry_after
        base = 1.0 if error.fault is Fault.RATE_LIMITED else 0.2
        return self._random.uniform(0, min(base * 2**number, 20.0))

    def _attempt(
        self,
        provider: Provider,
        call: ProviderCall,
        ticket: Ticket | None,
        began: float,
        *,
        result: ProviderResult | None = None,
        error: ProviderError | None = None,
    ) -> Attempt:
        return Attempt(
            provider=provider.name,
            endpoint=call.endpoint,
            job=ticket.job if ticket else None,
            seconds=self._clock.monotonic() - began,
            fault=error.fault if error else None if result else "left",
            charged=error.charged if error else True if result else None,
            billable_units=result.billable_units if result else None,
        )


def _filled(payload: Mapping[str, Any], pictures: tuple[Media, ...]) -> dict[str, Any]:
    """The payload with every slot replaced by its picture."""

    def fill(value: Any) -> Any:
        if isinstance(value, Slot):
            return pictures[value.index]
        if isinstance(value, Mapping):
            return {name: fill(item) for name, item in value.items()}
        if isinstance(value, list | tuple):
            return [fill(item) for item in value]
        return value

    return {name: fill(value) for name, value in payload.items()}
