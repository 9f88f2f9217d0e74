"""What is done once a minute for as long as the gateway runs: expired pictures and keys go, what is settled is added to
the sums by day, old requests and what was sent in them are forgotten.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import replace
from typing import Any

from app.config import LogSettings
from app.jobs import DAY_SECONDS
from app.memory import trim
from app.records import load_answer, load_plan, load_quote, load_verdict
from app.storage.base import Storage, StorageError
from app.store.db import StoreError
from app.store.jobs import RequestRow
from app.store.upkeep import Upkeep

log = logging.getLogger("imagegate.sweeping")

SWEEP_SECONDS = 60.0


class Sweeper:
    """One for the whole process."""

    def __init__(self, storage: Storage, upkeep: Upkeep, settings: LogSettings, now: Callable[[], float]) -> None:
        self._storage = storage
        self._upkeep = upkeep
        self._settings = settings
        self._now = now

    async def work(self) -> None:
        """For ever."""
        while True:
            await self.sweep()
            await asyncio.to_thread(trim)
            await asyncio.sleep(SWEEP_SECONDS)

    async def sweep(self) -> None:
        """Once. What fails is said, and tried again the next time."""
        await self._try(self._pictures, "the store")
        await self._try(self._journal, "the journal")

    async def _try(self, work: Callable[[], Awaitable[None]], what: str) -> None:
        try:
            await work()
        except (StorageError, StoreError) as error:
            log.error("%s could not be swept: %s", what, error)
        except Exception:
            log.exception("%s could not be swept", what)

    async def _pictures(self) -> None:
        gone = await self._storage.delete_expired(self._now())
        if gone:
            log.info("%d expired pictures deleted", gone)

    async def _journal(self) -> None:
        now, upkeep = self._now(), self._upkeep
        await upkeep.forget_keys(now)
        await self._read_old()
        await upkeep.book()
        await upkeep.purge_payloads(now - self._settings.payload_days * DAY_SECONDS)
        if gone := await upkeep.purge(now - self._settings.keep_days * DAY_SECONDS):
            log.info("%d requests are over %g days old and forgotten", gone, self._settings.keep_days)

    async def _read_old(self) -> None:
        """Fill in the columns of requests that a gateway of before has written."""
        done = 0
        while found := await self._upkeep.unread():
            await self._upkeep.fill([filled(row, verdicts) for row, verdicts in found])
            done += len(found)
        if done:
            log.warning("%d requests of an earlier version were taken into the log", done)


def filled(row: RequestRow, verdicts: Iterable[tuple[str, str]]) -> tuple[RequestRow, dict[str, int]]:
    """A request's columns, from its JSON; and how many pictures each of its jobs made."""
    made = {id: len(load_verdict(text).artefacts) for id, text in verdicts}
    changes: dict[str, Any] = {"day": int(row.created // DAY_SECONDS), "caller_name": row.caller_name or row.caller}
    try:
        changes["currency"] = load_quote(row.quote).currency
        plan, _ = load_plan(row.plan)
        wanted = plan.delivery.count
        changes |= {"model": plan.model, "provider": plan.offer.provider, "wanted": wanted}
        if row.answer is not None:
            answer = load_answer(row.answer)
            changes |= {"status": answer.status, "error": None if answer.error is None else answer.error.code}
            if (late := sum(made.values())) > len(answer.artefacts):
                changes |= {"status": "completed" if late >= wanted else "partial", "error": None}
    except Exception:  # its money counts all the same
        log.exception("%s: its page in the journal cannot be read", row.id)
    return replace(row, **changes), made
