"""A thread that works for an event loop."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from queue import Empty, SimpleQueue
from typing import Generic, TypeVar

from app.store.db import StoreError

Work = TypeVar("Work")
Result = TypeVar("Result")


@dataclass(frozen=True, slots=True, eq=False)
class _Unit(Generic[Work, Result]):
    work: Work
    future: asyncio.Future[Result]


class Lane(Generic[Work, Result]):
    """One thread to which the tasks of one event loop hand units of work; it takes all that wait at once.

    A daemon thread: whatever it hangs in, the process can end.
    """

    def __init__(
        self,
        name: str,
        work: Callable[[list[Work], Callable[[], list[Work]]], list[Result | Exception]],
        end: Callable[[], None],
        capacity: int,
    ) -> None:
        """`work`, called in the thread, answers each unit with a result or an exception, in their order. Its second
        argument takes what has queued up since then, to be answered behind the others. If it raises, nothing can be
        done at the moment: those that queued up behind it in the meantime fail as well, so that nobody waits for two
        time-outs. `end` is called in the thread at the very last. `capacity`: units that may wait."""
        self._loop = asyncio.get_running_loop()
        self._work = work
        self._end = end
        self._capacity = capacity
        self._queue: SimpleQueue[_Unit[Work, Result] | None] = SimpleQueue()  # None: the last
        self._closing = False
        self._is_last = False  # the thread's: there will be no more
        self._ended = asyncio.Event()
        self._thread = threading.Thread(target=self._live, name=name, daemon=True)
        self._thread.start()

    async def do(self, work: Work) -> Result:
        """The result of a unit; it is worked on even if its caller is cancelled. Raises StoreError."""
        if self._closing:
            raise StoreError("the database is closed")
        if self._queue.qsize() >= self._capacity:
            raise StoreError("the database does not keep up: too much is waiting for it")
        future: asyncio.Future[Result] = self._loop.create_future()
        self._queue.put(_Unit(work, future))
        return await future

    async def close(self) -> None:
        """Work off what waits, and end the thread."""
        if not self._closing:
            self._closing = True
            self._queue.put(None)
        await self._ended.wait()
        self._thread.join()

    def _live(self) -> None:
        while not self._is_last:
            batch = self._take(block=True)
            try:
                results = self._work([unit.work for unit in batch], partial(self._more, batch)) if batch else []
            except Exception as error:  # noqa: BLE001 - somebody waits for each of them
                self._more(batch)
                results = [_another(error) for _ in batch]
            self._tell(partial(_settle, batch, results))
        try:
            self._end()
        finally:
            self._tell(self._ended.set)

    def _more(self, batch: list[_Unit[Work, Result]]) -> list[Work]:
        """What has queued up behind a batch joins it."""
        late = [] if self._is_last else self._take(block=False)
        batch += late
        return [unit.work for unit in late]

    def _take(self, *, block: bool) -> list[_Unit[Work, Result]]:
        """All that waits; and notes whether there will be no more."""
        batch: list[_Unit[Work, Result]] = []
        with contextlib.suppress(Empty):
            while (unit := self._queue.get(block and not batch)) is not None:
                batch.append(unit)
            self._is_last = True
        return batch

    def _tell(self, what: Callable[[], None]) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
            self._loop.call_soon_threadsafe(what)


def _settle(batch: list[_Unit[Work, Result]], results: list[Result | Exception]) -> None:
    for unit, result in zip(batch, results, strict=True):
        if unit.future.done():  # its caller was cancelled
            continue
        if isinstance(result, Exception):
            unit.future.set_exception(result)
        else:
            unit.future.set_result(result)


def _another(error: Exception) -> Exception:
    """The same for somebody else: an exception that several tasks raise collects all their tracebacks."""
    return type(error)(str(error)) if isinstance(error, StoreError) else error
