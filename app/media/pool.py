"""Runs picture work off the event loop, and only as much at once as memory allows.

Work that only reads and cuts containers is done in threads. Work on pixels, which a hostile file could drag out for
minutes inside C, is done in children that can be killed (`workers`).
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from typing import ParamSpec, Protocol, TypeVar

from app.errors import Overloaded
from app.media.blob import MemoryBlob
from app.media.pixels import CHILD_BYTES, Pixels, blamed, estimate
from app.media.walk import is_light
from app.media.workers import Workers
from app.types import InputStep

P = ParamSpec("P")
T = TypeVar("T")

_PASSES = 16
_LIGHT_BYTES = 2 << 20  # a picture whose metadata is cut is hashed anew: a millisecond or two
BUDGET = 256 * 1024 * 1024  # bytes of decoded pictures at once


class PixelWorkers(Protocol):
    """What carries out jobs."""

    @property
    def pids(self) -> list[int]:
        """Of its processes."""

    async def run(self, pixels: Pixels[T], *, owed: bool = False) -> T:
        """To its end."""

    def close(self) -> None:
        """Take no more."""


class MediaPool:
    """Threads and children for `inspect`, `begin_preparing`, `begin_finishing` and the like: `await pool.run(…)`.

    Pixel work is admitted by the bytes that it will decode (`estimate`), in the order it came, but small work may pass
    large work that waits for room; beside the largest there is room for a small one. What is beyond a child's memory
    is refused. More than `queue` waiting is Overloaded.
    """

    def __init__(
        self,
        threads: int | None = None,
        queue: int = 256,
        *,
        budget: int = BUDGET,
        workers: PixelWorkers | None = None,
        observe: Callable[[str, float], None] = lambda format, seconds: None,
    ) -> None:
        """`observe`: see `Workers`."""
        count = threads or cores()
        self._threads = ThreadPoolExecutor(count, thread_name_prefix="media")
        self._workers = workers or Workers(count, observe=observe)
        self._most = count + queue
        self._budget = budget
        self._inside = 0  # pieces of work that were taken and have not ended
        self._used = 0  # bytes admitted
        self._waiting: list[_Waiting] = []

    async def run(self, function: Callable[P, T | Pixels[T]], *args: P.args, **kwargs: P.kwargs) -> T:
        """function(*args, **kwargs) in a thread, and what it left to be done to pixels in a child. Containers that are
        walked in less time than a thread takes to wake are walked at once.

        Cancelled before it began, it never runs; cancelled later, its thread goes on alone, but its child is killed.
        Raises Overloaded if too much waits.
        """
        self._check()
        return await self._run(partial(function, *args, **kwargs), owed=False, light=_is_light(*args))

    async def run_owed(self, function: Callable[P, T | Pixels[T]], *args: P.args, **kwargs: P.kwargs) -> T:
        """As `run`, but never refused: for work on what was already paid for."""
        return await self._run(partial(function, *args, **kwargs), owed=True, light=_is_light(*args))

    async def work(self, pixels: Pixels[T]) -> T:
        """Work on pixels that needs no thread before. Raises Overloaded if too much waits."""
        self._check()
        with self._counted():
            return await self._work(pixels, owed=False)

    @property
    def inside(self) -> int:
        """Pieces of work that were taken and have not ended."""
        return self._inside

    @property
    def waiting(self) -> int:
        """Those of them that wait for room to decode."""
        return len(self._waiting)

    @property
    def used(self) -> int:
        """Bytes that the pictures which are decoded now were estimated at."""
        return self._used

    @property
    def children(self) -> int:
        """Processes that there are."""
        return len(self._workers.pids)

    def close(self) -> None:
        """Take no more work; children are gone when this returns, threads end by themselves."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        self._workers.close()

    def _check(self) -> None:
        if self._inside >= self._most:
            raise Overloaded("Too many pictures are being worked on. Try again in a moment.", retry_after=1.0)

    @contextmanager
    def _counted(self) -> Iterator[None]:
        self._inside += 1
        try:
            yield
        finally:
            self._inside -= 1

    async def _run(self, function: Callable[[], T | Pixels[T]], *, owed: bool, light: bool) -> T:
        with self._counted():
            run = asyncio.get_running_loop().run_in_executor
            begun = function() if light else await run(self._threads, function)
            return await self._work(begun, owed=owed) if isinstance(begun, Pixels) else begun

    async def _work(self, pixels: Pixels[T], *, owed: bool) -> T:
        weight = estimate(pixels.job)
        if weight > CHILD_BYTES and not owed:  # what is paid for may try: it is an estimate
            says, detail = "takes more memory than there is for one picture", f"{weight} bytes"
            raise pixels.blame(blamed(pixels.job, says, detail, "ImageTooLarge"))
        weight = min(weight, self._budget * 3 // 4)  # beside the largest there is room for a small one
        await self._admit(weight)
        try:
            return await self._workers.run(pixels, owed=owed)
        finally:
            self._used -= weight
            self._wake()

    async def _admit(self, weight: int) -> None:
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        entry = _Waiting(weight, turn)
        self._waiting.append(entry)
        self._wake()
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():  # admitted and cancelled in one step
                self._used -= weight
            else:
                with suppress(ValueError):  # _wake has stepped over it already
                    self._waiting.remove(entry)
            self._wake()
            raise

    def _fits(self, weight: int) -> bool:
        return self._used == 0 or self._used + weight <= self._budget

    def _wake(self) -> None:
        """Admit whoever fits. Small work may pass large work that waits for room, but not without end."""
        ahead: list[_Waiting] = []  # who was passed over
        for entry in list(self._waiting):
            if entry.turn.done():
                self._waiting.remove(entry)
            elif self._fits(entry.weight) and all(one.passed < _PASSES for one in ahead):
                self._waiting.remove(entry)
                self._used += entry.weight
                entry.turn.set_result(None)
                for one in ahead:
                    one.passed += 1
            else:
                ahead.append(entry)


@dataclass(slots=True, eq=False)
class _Waiting:
    weight: int
    turn: asyncio.Future[None]
    passed: int = 0  # how many that came later went first


def _is_light(subject: object = None, *_: object) -> bool:
    """Whether work on this picture takes less than a thread does: small, in memory, of few pieces."""
    blob = subject.media.blob if isinstance(subject, InputStep) else subject
    if not isinstance(blob, MemoryBlob) or blob.size > _LIGHT_BYTES:
        return False
    return is_light(blob.read())


def cores() -> int:
    """How many this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
