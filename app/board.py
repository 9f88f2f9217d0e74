"""A Redis or Valkey server on which several gateways keep what they count together.

Nothing on it has to last, and nothing waits for it for long: who asks while it cannot be used is told so, and counts by
himself. What is asked at the same time goes out together and has `ANSWER_SECONDS`, so one who asks waits for two such
spans: for those before him, and for his own. After one failure nobody else asks until a probe has been answered.

A server that was emptied (flushed, started anew, promoted without the last writes of its primary's) works, and has
forgotten what it was told: `recalls` says for how long it has surely forgotten nothing.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from providers.base import Clock

log = logging.getLogger("imagegate.redis")

ANSWER_SECONDS = 0.045
LATE_SECONDS = 0.015  # when we have woken up so much too late, it was not the server that was slow
PROBE_ANSWER_SECONDS = 1.0
PROBE_PAUSE_SECONDS = 0.5
MOST_AT_ONCE = 200
PREFIX = "imagegate:"
_MARK = PREFIX + "mark"  # whoever finds it gone knows that the rest is, too

Answer = list[Any]


@dataclass(frozen=True, slots=True, eq=False)
class _Call:
    script: str
    keys: Sequence[str]
    values: Sequence[str | int | float]
    future: asyncio.Future[Answer | None]


class Board:
    """One connection to the server. One for the whole process, used from one event loop."""

    def __init__(self, url: str, clock: Clock) -> None:
        """`url`: redis://, rediss:// (TLS) or unix://. Raises ValueError, and ImportError without the package redis."""
        from redis import asyncio as redis  # 40 ms that only those pay who use it
        from redis.backoff import NoBackoff
        from redis.exceptions import RedisError
        from redis.retry import Retry

        if not url.startswith(("redis://", "rediss://", "unix://")):
            raise ValueError("must be redis://…, rediss://… or unix://…")
        self._client = redis.Redis.from_url(url, retry=Retry(NoBackoff(), 0), decode_responses=True)
        self._error = RedisError
        self._clock = clock
        self._waiting: list[_Call] = []
        self._writer: asyncio.Task[None] | None = None
        self._prober: asyncio.Task[None] | None = None
        self._closed = False
        self._mark: str | None = None
        self._since = clock.monotonic()
        self._trouble: str | None = None

    async def start(self) -> None:
        """Try it, and go on trying if it cannot be used yet."""
        self._lost("it was not asked yet")
        assert self._prober is not None
        await asyncio.wait({self._prober}, timeout=PROBE_ANSWER_SECONDS)

    async def run(self, script: str, keys: Sequence[str], values: Sequence[str | int | float]) -> Answer | None:
        """What a Lua script answers, a list; None if the server cannot be used now: it may have run it all the same."""
        if self._prober is not None or self._closed:
            return None
        call = _Call(script, keys, values, asyncio.get_running_loop().create_future())
        self._waiting.append(call)
        if self._writer is None:
            self._writer = asyncio.create_task(self._write(), name="redis")
        return await call.future

    def recalls(self, seconds: float) -> bool:
        """Whether it holds all that it was told in the last so many seconds, as far as can be known."""
        return self._prober is None and self._clock.monotonic() - self._since >= seconds

    @property
    def trouble(self) -> str | None:
        """Why it cannot be used."""
        return self._trouble

    async def close(self) -> None:
        """Let go of it."""
        self._closed = True
        tasks = [task for task in (self._writer, self._prober) if task is not None]
        if self._writer is not None:
            await asyncio.wait({self._writer}, timeout=2 * ANSWER_SECONDS)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._client.aclose()

    # ---- one batch after another

    async def _write(self) -> None:
        calls: list[_Call] = []
        try:
            while self._waiting and self._prober is None:
                calls, self._waiting = self._waiting[:MOST_AT_ONCE], self._waiting[MOST_AT_ONCE:]
                answers = await self._ask(calls, ANSWER_SECONDS)
                if isinstance(answers, str):
                    self._lost(answers)
                    break
                for call, answer in zip(calls, answers, strict=True):
                    _tell(call, answer)
        finally:
            self._writer = None
            unheard, self._waiting = [*calls, *self._waiting], []
            for call in unheard:
                _tell(call, None)  # of no effect on those who have their answer

    async def _ask(self, calls: Sequence[_Call], seconds: float) -> list[Answer] | str:
        """The calls' answers; or why there are none."""
        pipe = self._client.pipeline(transaction=False)
        pipe.set(_MARK, secrets.token_hex(8), nx=True)
        pipe.get(_MARK)
        for call in calls:
            pipe.eval(call.script, len(call.keys), *call.keys, *call.values)
        loop, work = asyncio.get_running_loop(), asyncio.create_task(pipe.execute(raise_on_error=False))
        try:
            for _ in range(2):
                due = loop.time() + seconds
                await asyncio.wait({work}, timeout=seconds)
                if work.done() or loop.time() < due + LATE_SECONDS:
                    break
            if not work.done():
                return "it does not answer in time"
            answers = work.result()
        except (self._error, OSError) as error:
            return type(error).__name__
        finally:
            if not work.done():
                work.cancel()  # and its connection is cut
                await asyncio.gather(work, return_exceptions=True)
        failed = next((answer for answer in answers if isinstance(answer, Exception)), None)
        if failed is not None:  # no memory, a replica, a password that is wrong
            return type(failed).__name__
        _, mark, *told = answers
        if mark != self._mark:
            if self._mark is not None and self._trouble is None:
                log.warning("Redis was emptied: for a minute, limits are what this gateway remembers as well")
            self._mark, self._since = mark, self._clock.monotonic()
        return told

    # ---- when it cannot be used

    def _lost(self, why: str) -> None:
        if self._prober is None and not self._closed:
            self._prober = asyncio.create_task(self._probe(why), name="redis probe")

    async def _probe(self, why: str) -> None:
        """Until it answers. Only that a whole probe has failed, too, is trouble: the rest was a hiccup."""
        try:
            while True:
                await self._client.connection_pool.disconnect()  # the next one looks its address up anew
                answers = await self._ask((), PROBE_ANSWER_SECONDS)
                if not isinstance(answers, str):
                    break
                if self._trouble is None:
                    log.warning("Redis cannot be used (%s): this gateway counts limits by itself until it can", answers)
                self._trouble = answers
                await self._clock.sleep(PROBE_PAUSE_SECONDS)
            if self._trouble is not None:
                log.warning("Redis can be used again: limits are shared")
            else:
                log.info("Redis was asked once more: %s", why)
            self._trouble = None
        finally:
            self._since = self._clock.monotonic()
            self._prober = None


def _tell(call: _Call, answer: Answer | None) -> None:
    if not call.future.done():
        call.future.set_result(answer)
