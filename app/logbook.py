"""The request log: what is worth knowing of a request that is over, and is no money.

An observer of receipts. It only puts what it is told into a queue, in memory; a task of its own writes that in batches.
So no request ever waits for it, and what does not fit, or cannot be written, is dropped: counted, and said in the log.
Money is none of its business: that is in the journal before a request is answered.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from contextlib import suppress
from dataclasses import dataclass

from app import payloads
from app.jobs import DAY_SECONDS
from app.records import Answered, dump_answer, dump_plan, dump_quote, dumps
from app.steps import Step, timings
from app.store.db import StoreError, StoreRefusal
from app.store.jobs import RequestRow
from app.store.upkeep import Upkeep
from app.types import Plan, Receipt
from app.visits import current
from providers.base import Clock

log = logging.getLogger("imagegate.logbook")

MOST_ENTRIES = 5_000  # that may wait
MOST_BYTES = 16 << 20
BATCH = 200  # entries in a transaction
GATHER_SECONDS = 0.2  # for a batch to come together
RETRY_SECONDS = 1.0
CLOSE_SECONDS = 5.0  # for what waits, at the end of the process
TELL_SECONDS = 10.0  # between two lines about what was dropped


@dataclass(frozen=True, slots=True)
class Entry:
    """One request, as it will be written; texts are JSON. `row`: of one that has no page in the journal."""

    request: str
    created: float
    details: str
    payload: str | None
    row: RequestRow | None

    @property
    def size(self) -> int:
        """About how much memory it takes."""
        return 500 + len(self.details) + len(self.payload or "")


class Logbook:
    """One for the whole process. `written` and `dropped` count entries since it began."""

    def __init__(self, upkeep: Upkeep, clock: Clock, *, prompts: bool, payloads: bool = True) -> None:
        """`prompts`: the callers' words are kept; `payloads`: what was sent is kept, with or without them."""
        self.written = 0
        self.dropped = 0
        self._upkeep = upkeep
        self._clock = clock
        self._prompts = prompts
        self._payloads = payloads
        self._waiting: deque[Entry] = deque()
        self._bytes = 0
        self._untold = 0
        self._told: float | None = None
        self._closing = False
        self._news = asyncio.Event()
        self._writing: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to write."""
        self._writing = asyncio.create_task(self._write(), name="logbook")

    def note(self, receipt: Receipt) -> None:
        """A request is over. Never waits."""
        if receipt.plan is None:
            return
        entry = self._entry(receipt, receipt.plan)
        if len(self._waiting) >= MOST_ENTRIES or self._bytes + entry.size > MOST_BYTES:
            self._drop(1, "too much is waiting to be written")
            return
        self._waiting.append(entry)
        self._bytes += entry.size
        self._news.set()

    async def close(self) -> None:
        """Write what waits, but not for ever."""
        if self._writing is None:
            return
        self._closing = True
        self._news.set()
        await asyncio.wait({self._writing}, timeout=CLOSE_SECONDS)
        self._writing.cancel()
        await asyncio.gather(self._writing, return_exceptions=True)
        if self._waiting:
            self._told = None
            self._drop(len(self._waiting), "the gateway ends")

    # ---- the queue

    async def _write(self) -> None:
        last = False
        while not last:
            await self._news.wait()
            self._news.clear()
            if not self._closing:
                await self._clock.sleep(GATHER_SECONDS)
            last = self._closing
            while self._waiting:
                batch = [self._waiting[place] for place in range(min(BATCH, len(self._waiting)))]
                try:
                    await self._write_batch(batch)
                except StoreRefusal as error:  # one of them; the others shall not share its fate
                    await self._write_singly(batch, error)
                except StoreError as error:
                    log.warning("the request log cannot be written: %s", error)
                    await self._clock.sleep(RETRY_SECONDS)
                    continue
                for entry in batch:
                    self._waiting.popleft()
                    self._bytes -= entry.size

    async def _write_batch(self, batch: list[Entry]) -> None:
        await self._upkeep.log(
            [(entry.request, entry.created, entry.details, entry.payload) for entry in batch],
            [entry.row for entry in batch if entry.row is not None],
        )
        self.written += len(batch)

    async def _write_singly(self, batch: list[Entry], why: StoreError) -> None:
        for entry in batch if len(batch) > 1 else ():
            with suppress(StoreRefusal):
                await self._write_batch([entry])
                continue
            self._drop(1, str(why))
        if len(batch) == 1:
            self._drop(1, str(why))

    def _drop(self, entries: int, why: str) -> None:
        self.dropped += entries
        self._untold += entries
        now = self._clock.monotonic()
        if self._told is not None and now - self._told < TELL_SECONDS:
            return
        log.warning("%d requests are missing in the request log: %s", self._untold, why)
        self._told, self._untold = now, 0

    # ---- what is written

    def _entry(self, receipt: Receipt, plan: Plan) -> Entry:
        details = {
            "phases": {phase: round(seconds, 4) for phase, seconds in timings(_steps(receipt)).items()},
            "seconds": round(receipt.seconds, 4),
            "attempts": [
                [one.job, round(one.queued, 4), round(one.seconds, 4), one.fault, one.charged]
                for one in receipt.attempts
            ],
        }
        payload = dumps(payloads.kept(plan, texts=self._prompts)) if self._payloads else None
        row = None if receipt.entered else self._row(receipt, plan)
        return Entry(receipt.request_id, receipt.created, dumps(details), payload, row)

    def _row(self, receipt: Receipt, plan: Plan) -> RequestRow:
        """The page of a request that bought nothing. It has no fingerprint: a repeat of it is a new try."""
        assert receipt.quote is not None
        created = receipt.created
        answer = Answered(
            receipt.status,
            int(created),
            "",
            receipt.cost,
            receipt.uncertain,
            seconds=receipt.seconds,
            failures=receipt.failures,
            error=receipt.error,
        )
        return RequestRow(
            id=receipt.request_id,
            caller=receipt.caller.key_id,
            key=None,
            fingerprint="",
            state="settled",
            owner=None,
            lease=0,
            created=created,
            deadline=created,
            keep_until=created,
            plan=dump_plan(plan),
            quote=dump_quote(receipt.quote),
            answer=dump_answer(answer),
            caller_name=receipt.caller.name,
            model=plan.model,
            provider=plan.offer.provider,
            currency=receipt.currency,
            wanted=plan.delivery.count,
            day=int(created // DAY_SECONDS),
            status=receipt.status,
            error=receipt.error_code,
        )


def _steps(receipt: Receipt) -> list[Step]:
    """A request's own, and those before it was understood, which its visit has noted."""
    visit = current.get()
    before = visit.steps.taken if visit is not None and visit.id == receipt.request_id else []
    return [*before, *receipt.steps]
