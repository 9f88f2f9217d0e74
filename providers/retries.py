"""Asking again: when, how often, and at whose expense.

Pauses have full jitter, uniform(0, min(20 s, base · 2^tries)) with base 0.2 s, or 1 s when rate-limited (the scheme and
both bases are the AWS SDKs'; reliability.md, U3): clients that failed together do not come back together. A Retry-After
is waited out before the jitter begins, never cut short.

A budget for all steps of one provider keeps a broken upstream from being asked harder than a healthy one. What a step
does when it is empty depends on what is at stake: before a job exists the step fails, for a fresh request costs
nothing; when a job exists, and is paid for, it waits longer instead and is followed until the deadline.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from itertools import count
from random import Random
from typing import Any, TypeVar

from providers.base import Clock, Fault, ProviderError

BASE_SECONDS = 0.2
RATE_LIMITED_SECONDS = 1.0
CAP_SECONDS = 20.0
LONGER = 5  # times as long are the pauses that no budget covers
SHORTEST_LOOK = 0.05  # seconds before the deadline in which no look is taken any more
SHORTEST_RETRY = 0.5  # the same after a failure, which is more likely to be slow

T = TypeVar("T")


class Doubted(ProviderError):
    """An answer that would end a job, from somebody who may be mistaken (a replica that lags, an ingress, a proxy): it
    is believed, and `final`, when it was given `looks` times in a row over at least `seconds`."""

    def __init__(self, fault: Fault, message: str, *, looks: int, seconds: float, **facts: Any) -> None:
        super().__init__(fault, message, **facts)
        self.looks = looks
        self.seconds = seconds


def backoff(random: Random, fault: Fault, tries: int, *, covered: bool = True) -> float:
    """Seconds to wait after `tries` failed tries (from 1). A pause that no budget covers has five times the base, and
    is at least half of its limit: 1-2 s, 2-4, 4-8, 8-16, then 10-20."""
    base = RATE_LIMITED_SECONDS if fault is Fault.RATE_LIMITED else BASE_SECONDS
    limit = min(CAP_SECONDS, (1 if covered else LONGER) * base * 2 ** min(tries, 16))
    return random.uniform(0 if covered else limit / 2, limit)


class RetryBudget:
    """How many retries the first tries of late have earned: one for five, within the last ten seconds.

    Finagle's shape (20 %, credits live 10 s) with a floor: ten retries in ten seconds are always there, so that an idle
    gateway survives a hiccup. Finagle's floor is ten a second, for servers that answer thousands; Envoy's is three in
    flight, which comes to about ours, as a retry takes three seconds or less. One budget per adapter, for all its jobs.
    """

    def __init__(self, clock: Clock, *, share: float = 0.2, floor: int = 10, seconds: int = 10) -> None:
        self._clock = clock
        self._share = share
        self._floor = floor
        self._seconds = seconds
        self._counts: deque[list[int]] = deque()  # [second, first tries, retries], the latest last

    def first(self) -> None:
        """A request is sent for the first time."""
        self._now()[1] += 1

    def take(self) -> bool:
        """Take one retry. False, and nothing is taken, if there is none."""
        now = self._now()
        earned = max(self._floor, self._share * sum(firsts for _, firsts, _ in self._counts))
        if sum(retries for _, _, retries in self._counts) + 1 > earned:
            return False
        now[2] += 1
        return True

    def _now(self) -> list[int]:
        second = int(self._clock.monotonic())
        while self._counts and self._counts[0][0] <= second - self._seconds:
            self._counts.popleft()
        if not self._counts or self._counts[-1][0] != second:
            self._counts.append([second, 0, 0])
        return self._counts[-1]


@dataclass(frozen=True, slots=True)
class Retries:
    """Repeats steps. A `step` is told the seconds that are left, and fails by a ProviderError."""

    clock: Clock
    random: Random
    budget: RetryBudget

    async def persist(
        self,
        step: Callable[[float], Awaitable[T]],
        deadline: float,
        *,
        tries: int,
        accepted: bool | None = False,
    ) -> T:
        """A free step before a job exists, or beside it: up to `tries` times, as long as the budget lasts.

        Raises the last ProviderError, `accepted` as told: at once if it is final, if the pause would reach the
        deadline, or if the budget is empty.
        """
        self.budget.first()
        for number in range(1, tries + 1):
            left = deadline - self.clock.monotonic()
            if left <= 0:
                raise _out_of_time(accepted)
            try:
                return await step(left)
            except ProviderError as error:
                error.accepted = accepted
                pause = (error.retry_after or 0.0) + backoff(self.random, error.fault, number)
                late = self.clock.monotonic() + pause >= deadline
                if error.final or number == tries or late or not self.budget.take():
                    raise
            await self.clock.sleep(pause)
        raise AssertionError("unreachable")

    async def follow(self, step: Callable[[float], Awaitable[T]], deadline: float, *, tries: int | None = None) -> T:
        """A free step of a job that exists: repeated until the deadline, or `tries` times.

        An empty budget does not end it, it waits longer: beyond the budget N jobs that all fail send four requests each
        while their pauses grow, and then no more than N in ten seconds. Nor does a pause that would reach the deadline
        (but a Retry-After that does): then there is one more look half-way to it, and others if the budget has them.

        Raises the last ProviderError, with `accepted=True`: when it is final, when a Doubted one was confirmed, or when
        there is no time for another look.
        """
        self.budget.first()
        doubts, since, last = 0, 0.0, False
        for number in count(1):
            left = deadline - self.clock.monotonic()
            if left <= 0:
                break
            try:
                return await step(left)
            except ProviderError as error:
                error.accepted = True
                now = self.clock.monotonic()
                if isinstance(error, Doubted):
                    doubts, since = doubts + 1, since if doubts else now
                    error.final = error.final or (doubts >= error.looks and now - since >= error.seconds)
                else:
                    doubts = 0
                left, asked = deadline - now, error.retry_after or 0.0
                if error.final or number == tries or last or left <= max(asked, SHORTEST_RETRY):
                    raise
                covered = self.budget.take()
                pause = asked + backoff(self.random, error.fault, number, covered=covered)
                if pause >= left:
                    pause, last = max(asked, left / 2), not covered
            await self.clock.sleep(pause)
        raise _out_of_time(True)


def poll_intervals(first: float = 0.1, share: float = 0.05, longest: float = 2.0) -> Iterator[float]:
    """Seconds to wait before each next look: `share` of the time waited so far, so that a long job costs few polls and
    a short one little delay."""
    waited = 0.0
    while True:
        pause = min(max(first, waited * share), longest)
        waited += pause
        yield pause


async def poll(clock: Clock, look: Callable[[], Awaitable[T | None]], deadline: float) -> T:
    """Look until there is something to see. Raises ProviderError TIMEOUT at the deadline."""
    for pause in poll_intervals():
        if (found := await look()) is not None:
            return found
        left = deadline - clock.monotonic()
        if left < SHORTEST_LOOK:
            break
        # Ever shorter towards the end: what is done just in time is still fetched.
        await clock.sleep(min(pause, left / 2))
    raise _out_of_time(True)


def _out_of_time(accepted: bool | None) -> ProviderError:
    return ProviderError(Fault.TIMEOUT, "The provider did not finish in time.", accepted=accepted)
