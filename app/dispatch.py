"""Run one plan's calls: all at once, each submitted, collected and finished in a task of its own.

A call is submitted again only when surely no job was made (`accepted is False`) and the fault's rule allows it.
Whoever stops listening cancels the jobs upstream: leaving the iterator early is what a client that hung up looks like.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from random import Random
from typing import Any, Generic, TypeVar

from app.errors import FAULTS
from app.types import Attempt, Call, Plan, Slot
from providers.base import Clock, Media, Provider, ProviderCall, ProviderError, ProviderResult, Ticket

log = logging.getLogger("imagegate.dispatch")

SUBMIT_TRIES = 3

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Done(Generic[T]):
    """One call as it ended: what `finish` made of its result, or the error."""

    call: Call
    attempts: tuple[Attempt, ...]
    result: ProviderResult | None = None
    finished: T | None = None
    error: ProviderError | None = None


class Dispatcher:
    """Runs plans. One for the whole process."""

    def __init__(self, clock: Clock, random: Random) -> None:
        self._clock = clock
        self._random = random
        self._abandoned: set[asyncio.Task[None]] = set()

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
    ) -> AsyncGenerator[Done[T], None]:
        """Each call as it ends, in that order. `pictures` fill the payloads' slots."""
        ended: asyncio.Queue[Done[T] | BaseException] = asyncio.Queue()

        async def work(call: Call) -> None:
            sent = ProviderCall(plan.offer.endpoint, _filled(call.payload, pictures), request_id, keep_results_seconds)
            attempts: list[Attempt] = []
            try:
                result = await self._one(provider, sent, deadline, attempts)
                ended.put_nowait(Done(call, tuple(attempts), result, await finish(call, result)))
            except ProviderError as error:
                ended.put_nowait(Done(call, tuple(attempts), error=error))
            except Exception as error:  # noqa: BLE001 - a defect of ours: handed to the one who iterates
                ended.put_nowait(error)

        tasks = [asyncio.create_task(work(call)) for call in plan.calls]
        try:
            for _ in tasks:
                one = await ended.get()
                if isinstance(one, BaseException):
                    raise one
                yield one
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def settle(self) -> None:
        """Wait until every abandoned job was cancelled upstream: for the end of the process."""
        while self._abandoned:
            await asyncio.gather(*self._abandoned, return_exceptions=True)

    async def _one(
        self, provider: Provider, call: ProviderCall, deadline: float, attempts: list[Attempt]
    ) -> ProviderResult:
        """Submit and collect one call. Cancelled or out of time: the job is cancelled upstream."""
        for number in range(1, SUBMIT_TRIES + 1):
            began = self._clock.monotonic()
            ticket: Ticket | None = None
            try:
                ticket = await self._submit(provider, call)
                result = ticket.result or await provider.collect(ticket, deadline)
            except asyncio.CancelledError:
                if ticket is not None:
                    self._give_up(provider, ticket)
                raise
            except ProviderError as error:
                attempts.append(self._attempt(provider, call, ticket, began, error=error))
                log.warning("%s: %s failed: %s (%s)", call.request_id, provider.name, error.fault, error.detail)
                if ticket is not None and error.fault == "timeout":
                    self._give_up(provider, ticket)
                pause = self._pause(error, number)
                again = error.accepted is False and FAULTS[error.fault].retry_same and not error.final
                if not again or number == SUBMIT_TRIES or self._clock.monotonic() + pause >= deadline:
                    raise
                await self._clock.sleep(pause)
            else:
                attempts.append(self._attempt(provider, call, ticket, began, result=result))
                return result
        raise AssertionError("unreachable")

    async def _submit(self, provider: Provider, call: ProviderCall) -> Ticket:
        """Submitting is never cut in the middle: a job whose ticket we lost could not be cancelled any more."""
        submit = asyncio.ensure_future(provider.submit(call))
        try:
            return await asyncio.shield(submit)
        except asyncio.CancelledError:
            self._remember(self._cancel_when_known(provider, submit))
            raise

    async def _cancel_when_known(self, provider: Provider, submit: asyncio.Future[Ticket]) -> None:
        try:
            ticket = await submit
        except ProviderError:
            return  # no job that we know of
        await self._cancel(provider, ticket)

    def _give_up(self, provider: Provider, ticket: Ticket) -> None:
        self._remember(self._cancel(provider, ticket))

    async def _cancel(self, provider: Provider, ticket: Ticket) -> None:
        try:
            taken = await provider.cancel(ticket)
            log.info("%s job %s: cancel %s", provider.name, ticket.job, "requested" if taken else "came too late")
        except ProviderError as error:
            log.warning("%s job %s: cancel failed: %s", provider.name, ticket.job, error.detail)

    def _remember(self, work: Any) -> None:
        task = asyncio.ensure_future(work)
        self._abandoned.add(task)
        task.add_done_callback(self._abandoned.discard)

    def _pause(self, error: ProviderError, number: int) -> float:
        """The provider's word, or full jitter over an exponential back-off (base 0.2 s, 1 s when rate-limited)."""
        if error.retry_after is not None:
            return error.retry_after
        base = 1.0 if error.fault == "rate_limited" else 0.2
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
            fault=error.fault if error else None,
            billable_units=result.billable_units if result else None,
        )


def _filled(payload: Mapping[str, Any], pictures: tuple[Media, ...]) -> dict[str, Any]:
    """The payload with every slot replaced by its picture."""

    def fill(value: Any) -> Any:
        if isinstance(value, Slot):
            return pictures[value.index]
        if isinstance(value, list):
            return [fill(item) for item in value]
        return value

    return {name: fill(value) for name, value in payload.items()}
