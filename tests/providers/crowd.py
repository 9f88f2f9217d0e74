"""Time for many at once: it stands still while anybody is at work, and jumps when all of them sleep."""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Coroutine
from itertools import count
from typing import Any


class CrowdClock:
    """`providers.testing.clock.FakeClock` adds up the sleeps of concurrent tasks; here they pass together.

    For tasks that wait for nothing but this clock and each other's answers in the same turn of the loop.
    """

    def __init__(self, now: float = 1000.0) -> None:
        self.now = now
        self._sleepers: list[tuple[float, int, asyncio.Future[None]]] = []
        self._number = count()
        self._ended: list[None] = []

    def monotonic(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        waiting: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        heapq.heappush(self._sleepers, (self.now + seconds, next(self._number), waiting))
        await waiting

    async def run(self, *work: Coroutine[Any, Any, Any]) -> list[Any]:
        """All of it, to the end; what each returned or raised."""
        tasks = [asyncio.create_task(one) for one in work]
        for task in tasks:
            task.add_done_callback(lambda _: self._ended.append(None))
        while len(self._ended) < len(tasks):
            await asyncio.sleep(0)
            if self._sleepers and len(self._sleepers) == len(tasks) - len(self._ended):
                self.now, _, waiting = heapq.heappop(self._sleepers)
                waiting.set_result(None)
        return await asyncio.gather(*tasks, return_exceptions=True)
