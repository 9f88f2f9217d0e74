"""The end of a request: the journal's page, one receipt, then whoever listens; in this order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from app.delivery import Upstream
from app.errors import GatewayError
from app.jobs import Journal
from app.receipts import Receipts
from app.recovery import Recovery
from app.runs import Run, Runs
from app.store.jobs import Move
from app.tally import Tally, outcome
from app.types import Plan, Quote
from providers.base import Clock


class Concluder:
    """Ends requests, those that a client waits for and those that a dead process left. One for the whole process."""

    def __init__(
        self,
        journal: Journal,
        recovery: Recovery,
        runs: Runs,
        receipts: Receipts,
        upstreams: Mapping[str, Upstream],
        clock: Clock,
        *,
        keep_seconds: float,
    ) -> None:
        """`keep_seconds`: how long an answer is kept for its Idempotency-Key."""
        self._journal = journal
        self._recovery = recovery
        self._runs = runs
        self._receipts = receipts
        self._upstreams = upstreams
        self._clock = clock
        self._keep_seconds = keep_seconds

    async def conclude(
        self,
        run: Run,
        plan: Plan,
        quote: Quote,
        tally: Tally,
        began: float,
        error: GatewayError | None,
        moves: Sequence[Move] = (),
        *,
        opened: bool = True,
    ) -> None:
        """`began` is on the clock's scale. `error`: what ended it, if it was not one of its jobs. `moves`: ends of jobs
        that are still to be written. `opened`: it has a page in the journal."""
        if error is not None:
            error = tally.told(error, quote.currency)
        elif not tally.made:
            error = tally.error(quote.currency)
        seconds = self._clock.monotonic() - began
        receipt = tally.receipt(run.id, run.caller, plan, quote.currency, seconds, error)
        entered = False
        label = self._upstreams[plan.offer.provider].provider.label
        answer = tally.answered(receipt, label, run.created, error)
        if opened:
            forget = tally.may_be_forgotten(error)
            entered = await self._journal.answer(
                run.id, answer, keep_seconds=self._keep_seconds, forget_key=forget, moves=moves
            )
        await self._recovery.answered(run.id)
        self._receipts.issue(
            replace(receipt, created=run.created, plan=plan, quote=quote, error=error, entered=entered)
        )
        await self._runs.end(run, outcome(receipt, answer) if error is None else error)
