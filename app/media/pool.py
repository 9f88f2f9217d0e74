"""Runs picture work off the event loop, with its own threads, and only as much at once as memory allows.

The interface is one coroutine, so that threads can give way to processes that can be killed.
"""

from __future__ import annotations

import asyncio
import os
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from typing import ParamSpec, TypeVar

from app.errors import Overloaded
from app.media.sniff import size_of
from app.types import Delivery, InputStep, MaskStep
from providers.base import Media

P = ParamSpec("P")
T = TypeVar("T")

BUDGET = 256 * 1024 * 1024  # bytes of decoded pictures at once
_DECODE = {"image/png": 4, "image/jpeg": 10, "image/gif": 8, "image/webp": 16, "image/avif": 12}  # bytes a pixel
_ENCODE = {"png": 4, "jpeg": 8, "gif": 15, "webp": 11, "avif": 30}
_COPIES = 8  # a picture is turned or scaled beside itself


class MediaPool:
    """Threads for `inspect`, `prepare`, `finish` and the like: `await pool.run(prepare, step)`.

    Work is admitted in the order it came. What it will decode is estimated from its arguments (`estimate`); a piece of
    work beyond the whole budget runs alone. More than `queue` waiting is Overloaded.
    """

    def __init__(self, workers: int | None = None, queue: int = 256, *, budget: int = BUDGET) -> None:
        self._workers = workers or _cores()
        self._threads = ThreadPoolExecutor(self._workers, thread_name_prefix="media")
        self._most = self._workers + queue
        self._budget = budget
        self._used = 0  # bytes admitted
        self._admitted = 0  # pieces of work admitted: in a thread, or waiting for one
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()

    async def run(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """function(*args, **kwargs) in a thread.

        Cancelled before it began, it never runs; cancelled later, its memory counts until it is done.
        """
        if self._admitted + len(self._waiting) >= self._most:
            raise Overloaded("Too many pictures are being worked on. Try again in a moment.", retry_after=1.0)
        return await self.run_owed(function, *args, **kwargs)

    async def run_owed(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """As `run`, but never Overloaded: for work on what was already paid for."""
        weight = estimate(*args, *kwargs.values())
        await self._admit(weight)
        loop = asyncio.get_running_loop()
        try:
            work = self._threads.submit(function, *args, **kwargs)
        except BaseException:
            self._release(weight)
            raise

        def done(_: Future[T]) -> None:
            with suppress(RuntimeError):  # the loop is gone, and with it everyone who waits
                loop.call_soon_threadsafe(self._release, weight)

        work.add_done_callback(done)
        return await asyncio.wrap_future(work)

    def close(self) -> None:
        """Take no more work; what has begun ends by itself."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def _admit(self, weight: int) -> None:
        if not self._waiting and self._fits(weight):
            self._take(weight)
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        entry = (weight, turn)
        self._waiting.append(entry)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():  # admitted and cancelled in one step
                self._release(weight)
            else:
                with suppress(ValueError):  # _wake has stepped over it already
                    self._waiting.remove(entry)
                self._wake()
            raise

    def _fits(self, weight: int) -> bool:
        return self._admitted == 0 or self._used + weight <= self._budget

    def _take(self, weight: int) -> None:
        self._used += weight
        self._admitted += 1

    def _release(self, weight: int) -> None:
        self._used -= weight
        self._admitted -= 1
        self._wake()

    def _wake(self) -> None:
        while self._waiting and self._fits(self._waiting[0][0]):
            weight, turn = self._waiting.popleft()
            if not turn.done():
                self._take(weight)
                turn.set_result(None)


def estimate(*values: object) -> int:
    """Bytes that a call with these arguments will decode, from what is known before. Nothing to decode = 0."""
    total = 0
    deliveries = [value for value in values if isinstance(value, Delivery)]
    for value in values:
        if isinstance(value, InputStep) and (value.touches_pixels or value.media.orientation != 1):
            total += _decoding(value.media) + _pixels(value.media) * _ENCODE[value.to_format or "png"]
        elif isinstance(value, bytes) and (not deliveries or any(map(_decodes, deliveries))):
            header = size_of(value)
            total += header.width * header.height * (_COPIES + max(_DECODE.values())) if header else 0
        elif isinstance(value, MaskStep):
            total += _decoding(value.original) + _decoding(value.mask)
        elif isinstance(value, Delivery):
            pixels = value.exact[0] * value.exact[1] if value.exact else 0
            if value.mask is not None:
                total += estimate(value.mask)
                pixels = max(pixels, _pixels(value.mask.original))
            total += pixels * _ENCODE[value.format or "png"]
    return total


def _decodes(delivery: Delivery) -> bool:
    return delivery.mask is not None or delivery.exact is not None or delivery.format is not None


def _pixels(media: Media) -> int:
    return media.width * media.height


def _decoding(media: Media) -> int:
    return _pixels(media) * (_DECODE.get(media.mime, 16) + _COPIES)


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
