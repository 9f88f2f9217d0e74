"""A database that is watched: how long each transaction takes, and which fail."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any, Literal, Protocol

from app.store.db import Database, Row, Statement, StoreError


class Watch(Protocol):
    """Told of each transaction."""

    def __call__(self, operation: Literal["read", "write", "report"], seconds: float, *, failed: bool) -> None: ...


class MeasuredDatabase:
    """A `Database` in front of another one."""

    def __init__(self, database: Database, watch: Watch, now: Callable[[], float] = time.perf_counter) -> None:
        self.label = database.label
        self.clock, self.ahead, self.holding = database.clock, database.ahead, database.holding
        self._database = database
        self._watch = watch
        self._now = now

    @property
    def commits(self) -> int | None:
        """How many there were; None: it does not count them."""
        found: int | None = getattr(self._database, "commits", None)
        return found

    async def open(self) -> None:
        """See Database."""
        await self._database.open()

    async def run(self, *statements: Statement, turn: str | None = None) -> list[list[Row]]:
        """See Database."""
        return await self._written(partial(self._database.run, turn=turn), statements)

    async def tidy(self, *statements: Statement) -> list[list[Row]]:
        """See Database."""
        return await self._written(self._database.tidy, statements)

    async def _written(
        self, run: Callable[..., Awaitable[list[list[Row]]]], statements: Sequence[Statement]
    ) -> list[list[Row]]:
        began, failed = self._now(), False
        try:
            return await run(*statements)
        except StoreError:
            failed = True
            raise
        finally:
            self._watch("write", self._now() - began, failed=failed)

    async def read(self, sql: str, *values: Any) -> list[Row]:
        """See Database."""
        began, failed = self._now(), False
        try:
            return await self._database.read(sql, *values)
        except StoreError:
            failed = True
            raise
        finally:
            self._watch("read", self._now() - began, failed=failed)

    async def report(self, sql: str, *values: Any) -> list[Row]:
        """See Database. It is counted apart: what may take long says nothing of how fast the others are."""
        began, failed = self._now(), False
        try:
            return await self._database.report(sql, *values)
        except StoreError:
            failed = True
            raise
        finally:
            self._watch("report", self._now() - began, failed=failed)

    async def close(self) -> None:
        """See Database."""
        await self._database.close()
