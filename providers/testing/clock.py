"""Clocks for whoever receives one."""

from __future__ import annotations

import asyncio
import time


class FakeClock:
    """Time that passes only when somebody sleeps, or by `advance`. Remembers how long was slept."""

    def __init__(self, now: float = 1000.0) -> None:
        self.now = now
        self.sleeps: list[float] = []

    def monotonic(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.sleeps.append(seconds)
        self.now += seconds
        await asyncio.sleep(0)

    def advance(self, seconds: float) -> None:
        self.now += seconds


class RealClock:
    """Real time. Remembers how long was slept."""

    def __init__(self) -> None:
        self.sleeps: list[float] = []

    def monotonic(self) -> float:
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        self.sleeps.append(seconds)
        await asyncio.sleep(seconds)


class QuickClock:
    """Real time at a multiple of its pace: what has to wait for somebody real, but need not wait long."""

    def __init__(self, pace: float = 10.0) -> None:
        self._pace = pace

    def monotonic(self) -> float:
        return time.monotonic() * self._pace

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds / self._pace)
