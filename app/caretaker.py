"""Takes care of the journal for as long as the process lives: renews its leases, takes up what a dead process left.

A request that was cut off before it was answered becomes a run again, which those who come back for it join.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Mapping

from app.conclusion import Concluder
from app.delivery import Upstream
from app.errors import GatewayError
from app.jobs import LEASE_SECONDS, Journal
from app.records import load_plan, load_quote
from app.recovery import Recovery
from app.runs import Run, Runs
from app.store.db import StoreError
from app.store.jobs import RequestRow
from app.tally import Tally
from app.types import Caller, Plan, Terms
from providers.base import Clock

log = logging.getLogger("imagegate.recovery")

TICK_SECONDS = LEASE_SECONDS / 3
AGAIN_SECONDS = 0.5  # after a tick that was in vain
RETRY_SECONDS = 2.0  # between tries to take up a request while journal or store cannot be read


class Caretaker:
    """One for the whole process."""

    def __init__(
        self,
        journal: Journal,
        recovery: Recovery,
        runs: Runs,
        concluder: Concluder,
        upstreams: Mapping[str, Upstream],
        clock: Clock,
    ) -> None:
        self._journal = journal
        self._recovery = recovery
        self._runs = runs
        self._concluder = concluder
        self._upstreams = upstreams
        self._clock = clock
        self._ticking: asyncio.Task[None] | None = None
        self._idle: frozenset[str] = frozenset()  # what nobody worked on at the last look
        self._hopeless: set[str] = set()  # what cannot be taken up, and was told
        self.in_vain = False  # the journal could not be written a moment ago
        self._failed = -math.inf  # when it last could not, on the clock

    def start(self) -> None:
        """Begin."""
        self._ticking = asyncio.create_task(self._tick(), name="journal")

    async def close(self) -> None:
        """End, and let go of what this process has begun."""
        if self._ticking is not None:
            self._ticking.cancel()
            await asyncio.gather(self._ticking, return_exceptions=True)
        await self._recovery.close()
        await self._journal.close()

    async def _tick(self) -> None:
        while True:
            try:
                await self._journal.renew()
                # Where it could not be written, others may not have come to renew their leases yet either.
                if self._clock.monotonic() - self._failed > LEASE_SECONDS:
                    for row in await self._journal.adopt():
                        self._revive(row)
                await self._look_after_its_own()
                self.in_vain = False
            except StoreError as error:
                if not self.in_vain:  # said once
                    log.error("the journal cannot be written: %s", error)
                self.in_vain, self._failed = True, self._clock.monotonic()
            except Exception:
                log.exception("the journal cannot be taken care of")
            await asyncio.sleep(AGAIN_SECONDS if self.in_vain else TICK_SECONDS)

    async def _look_after_its_own(self) -> None:
        """What this process owns but nobody works on, two looks in a row: an adoption whose answer was lost, a request
        whose last job ended unnoticed."""
        idle = frozenset(
            id
            for id in await self._journal.store.unsettled(self._journal.owner)
            if self._runs.get(id) is None and not self._recovery.works_on(id) and id not in self._hopeless
        )
        for id in idle & self._idle:
            row = await self._journal.store.request(id)
            if row is not None and row.owner == self._journal.owner and row.state != "settled":
                self._revive(row)
        self._idle = idle

    def _revive(self, row: RequestRow) -> None:
        try:
            plan, _ = load_plan(row.plan)
        except Exception:
            log.exception("%s: its page in the journal cannot be read", row.id)
            self._hopeless.add(row.id)
            return
        if plan.offer.provider not in self._upstreams:
            log.error("%s: its provider %s is not configured any more", row.id, plan.offer.provider)
            self._hopeless.add(row.id)
            return
        log.warning("%s: taken up where it was left (%s)", row.id, row.state)
        if row.state == "running":
            run = self._runs.new(
                row.id, Caller(row.caller, row.caller_name or row.caller), row.fingerprint, Terms(row.key)
            )
            self._runs.start(run, self._resume(run, row, plan))
        else:
            self._recovery.resettle(row)

    async def _resume(self, run: Run, row: RequestRow, plan: Plan) -> None:
        began = self._clock.monotonic()
        run.created = int(row.created)
        run.begin()
        while True:
            tally = Tally()
            try:
                plan = await self._recovery.plan_of(row)
                events = await self._recovery.pick_up(row, plan, tally)
                break
            except (GatewayError, StoreError) as error:  # nothing has been done yet
                log.error("%s: cannot be taken up now: %s", row.id, error)
            except Exception:  # a page that we cannot read will not get better
                self._hopeless.add(row.id)
                raise
            await self._clock.sleep(RETRY_SECONDS)
        for event in events:
            tally.add(event)
            await run.tell(event)
        await self._concluder.conclude(run, plan, load_quote(row.quote), tally, began, None)
