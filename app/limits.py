"""How often a key may ask: requests and pictures in any 60 seconds, and who has guessed wrong too often.

`Limiter` is the contract of what counts. `LocalLimiter` counts in this process alone; one that several gateways share
needs no more than `take`.
"""

from __future__ import annotations

import math
from collections import OrderedDict, deque
from dataclasses import dataclass
from typing import Protocol

from app.errors import RateLimited
from app.types import Caller
from providers.base import Clock

WINDOW_SECONDS = 60.0
# Times are kept to a quarter of a second, rounded up: a window is at most 241 numbers, whatever its limit, and at most
# so much longer than a minute.
GRAIN_SECONDS = 0.25
MOST_WINDOWS = 100_000  # of the busiest: past that the longest unused is forgotten

Header = tuple[bytes, bytes]


@dataclass(frozen=True, slots=True)
class Level:
    """What was used of a limit. `wait`: 0 = it was taken; else seconds until it could be, for ever if it never can."""

    limit: int
    left: int
    reset: float  # seconds until all of it is free, if nobody takes any
    wait: float = 0.0


class Limiter(Protocol):
    """Counts what was taken under a name in the last 60 seconds."""

    async def take(self, name: str, amount: int, limit: int) -> Level:
        """Take so much, all or nothing; 0 only looks. The limit may be another one each time. Must not raise: one that
        cannot reach what it shares counts by itself."""


class LocalLimiter:
    """A `Limiter` for one process, on the monotonic clock."""

    def __init__(self, clock: Clock, *, most: int = MOST_WINDOWS) -> None:
        self._clock = clock
        self._most = most
        self._windows: OrderedDict[str, _Window] = OrderedDict()  # the longest unused first

    async def take(self, name: str, amount: int, limit: int) -> Level:
        """See Limiter."""
        now = self._clock.monotonic()
        self._forget(now)
        window = self._windows.get(name)
        if window is None:
            window = _Window()
            if not amount:
                return Level(limit, limit, 0.0)
            self._windows[name] = window
        elif amount:
            self._windows.move_to_end(name)
        return window.take(amount, limit, now)

    def __len__(self) -> int:
        return len(self._windows)

    def _forget(self, now: float) -> None:
        while self._windows:
            name, oldest = next(iter(self._windows.items()))
            if len(self._windows) <= self._most and not oldest.is_empty(now):
                return
            del self._windows[name]


class _Window:
    """What was taken in the last 60 seconds."""

    __slots__ = ("taken", "used")

    def __init__(self) -> None:
        self.taken: deque[tuple[float, int]] = deque()  # until when it counts, and how much; in the order of time
        self.used = 0

    def is_empty(self, now: float) -> bool:
        self._drop(now)
        return not self.taken

    def take(self, amount: int, limit: int, now: float) -> Level:
        self._drop(now)
        fits = self.used + amount <= limit
        if fits and amount:
            until = (math.floor(now / GRAIN_SECONDS) + 1) * GRAIN_SECONDS + WINDOW_SECONDS
            self.used += amount
            if self.taken and self.taken[-1][0] >= until:
                amount += self.taken.pop()[1]
            self.taken.append((until, amount))
        reset = self.taken[-1][0] - now if self.taken else 0.0
        return Level(limit, max(limit - self.used, 0), reset, 0.0 if fits else self._wait(amount, limit, now))

    def _drop(self, now: float) -> None:
        while self.taken and self.taken[0][0] <= now:
            self.used -= self.taken.popleft()[1]

    def _wait(self, amount: int, limit: int, now: float) -> float:
        used = self.used
        for until, taken in self.taken:
            used -= taken
            if used + amount <= limit:
                return until - now
        return math.inf


class Rates:
    """What keys may ask for in a minute. One for the whole process."""

    def __init__(self, limiter: Limiter) -> None:
        self._limiter = limiter

    async def take_request(self, caller: Caller) -> None:
        """One more request. Raises RateLimited."""
        if caller.requests_per_minute is not None:
            await self._take(caller, "requests", 1, caller.requests_per_minute)

    async def take_images(self, caller: Caller, count: int) -> None:
        """So many pictures are about to be bought. Raises RateLimited."""
        if caller.images_per_minute is not None:
            await self._take(caller, "images", count, caller.images_per_minute)

    async def _take(self, caller: Caller, what: str, amount: int, limit: int) -> None:
        level = await self._limiter.take(f"{caller.key_id} {what}", amount, limit)
        if not level.wait:
            return
        if math.isinf(level.wait):
            raise RateLimited(
                f"{amount} {what} are more than this API key may ask for in a minute ({limit}). Ask for fewer at once.",
                should_retry=False,
            )
        raise RateLimited(
            f"This API key may ask for {limit} {what} a minute; {level.left} of them are left, and {amount} "
            f"{'is' if amount == 1 else 'are'} needed. Nothing was sent. Try again in {math.ceil(level.wait)} s.",
            retry_after=level.wait,
        )

    async def headers(self, caller: Caller) -> list[Header]:
        """OpenAI's `x-ratelimit-…`, of what the key's limits are at."""
        headers: list[Header] = []
        for what, limit in (("requests", caller.requests_per_minute), ("images", caller.images_per_minute)):
            if limit is None:
                continue
            level = await self._limiter.take(f"{caller.key_id} {what}", 0, limit)
            headers += [
                (f"x-ratelimit-limit-{what}".encode(), str(limit).encode()),
                (f"x-ratelimit-remaining-{what}".encode(), str(level.left).encode()),
                (f"x-ratelimit-reset-{what}".encode(), f"{math.ceil(level.reset)}s".encode()),
            ]
        return headers
