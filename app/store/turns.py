"""Transactions that would lock each other out wait here, and not each on a connection that others need."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import TypeVar

from app.store.db import StoreError

Result = TypeVar("Result")


@dataclass(slots=True)
class _Queue:
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    users: int = 0
    failures: list[StoreError] = field(default_factory=list)  # since it has had users


class Turns:
    """Of several with one name, one at a time."""

    def __init__(self, seconds: float) -> None:
        """How long somebody waits at most."""
        self._seconds = seconds
        self._queues: dict[str, _Queue] = {}

    async def take(self, name: str, work: Callable[[], Awaitable[Result]]) -> Result:
        """What `work` gives, when it is its turn. If it fails, those that wait behind it fail as well: nobody waits for
        two time-outs. Raises StoreError."""
        queue = self._queues.setdefault(name, _Queue())
        queue.users += 1
        before = len(queue.failures)
        try:
            try:
                async with asyncio.timeout(self._seconds):
                    await queue.lock.acquire()
            except TimeoutError:
                raise StoreError("too many wait for the same") from None
            try:
                if len(queue.failures) > before:
                    raise StoreError(str(queue.failures[-1]))
                return await self._noting(queue, work)
            finally:
                queue.lock.release()
        finally:
            queue.users -= 1
            if not queue.users:
                del self._queues[name]

    async def _noting(self, queue: _Queue, work: Callable[[], Awaitable[Result]]) -> Result:
        try:
            return await work()
        except StoreError as error:
            queue.failures.append(error)
            raise
