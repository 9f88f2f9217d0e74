"""Takes care of the journal for as long as the process lives: renews its leases, takes up what a dead process left.

A request that was cut off before it was answered becomes a run again, which those who come back for it join.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping

from app.conclusion import Concluder
from app.delivery import Upstream
from app.errors import GatewayError, InternalError
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
        self.in_vain = False  # the journal could not be written a moment ago

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
                for row in await self._journal.adopt():
                    self._revive(row)
                self.in_vain = False
            except StoreError as error:
                self.in_vain = True
                log.error("the journal cannot be written: %s", error)
            except Exception:
                log.exception("the journal cannot be taken care of")
            await asyncio.sleep(TICK_SECONDS)

    def _revive(self, row: RequestRow) -> None:
        plan, _ = load_plan(row.plan)
        if plan.offer.provider not in self._upstreams:
            log.error("%s: its provider %s is not configured any more", row.id, plan.offer.provider)
            return
        log.warning("%s: taken up where another process left it (%s)", row.id, row.state)
        if row.state == "running":
            run = self._runs.new(row.id, Caller(row.caller, row.caller), row.fingerprint, Terms(row.key))
            self._runs.start(run, self._resume(run, row, plan))
        else:
            self._recovery.resettle(row)

    async def _resume(self, run: Run, row: RequestRow, plan: Plan) -> None:
        tally, began = Tally(), self._clock.monotonic()
        error: GatewayError | None = None
        run.begin()
        try:
            plan = await self._recovery.plan_of(row)
            for event in await self._recovery.pick_up(row, plan, tally):
                tally.add(event)
                await run.tell(event)
        except GatewayError as failed:
            error = failed
        except Exception:
            log.exception("%s: a defect of the gateway", run.id)
            error = InternalError("The gateway failed.", should_retry=False)
        await self._concluder.conclude(run, plan, load_quote(row.quote), tally, began, error)
