"""Answering once more: a request whose Idempotency-Key was used before, or that an SDK repeats by itself.

What is replayed is the answer as it was: same pictures, same cost, nothing bought. An answer that says "try again" and
cost nothing is none: its repeat is a new try.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from decimal import Decimal

from app.config import Repeats
from app.delivery import Deliverer
from app.errors import IdempotencyMismatch, Overloaded, UpstreamAmbiguous
from app.records import Answered, dump_answer, load_answer, load_plan, load_quote, load_verdict
from app.runs import Run, Runs
from app.store.db import StoreError
from app.store.jobs import OPEN, JobStore, RequestRow
from app.tally import Tally, outcome
from app.types import Terms
from providers.base import Clock

KEEP_MARGIN = 900.0  # seconds: an answer is given, and kept from then on, after its first picture is
WAIT_SECONDS = 1.0  # between looks at a request that another process is at


def kept_seconds(repeats: Repeats, terms: Terms) -> float:
    """How long a picture of such a request is kept, also one that is answered as base64: the answer may get lost on its
    way."""
    if terms.idempotency_key is not None:
        return repeats.keep_seconds + KEEP_MARGIN
    return max(repeats.retry_seconds, repeats.join_seconds)


class Replayer:
    """One for the whole process."""

    def __init__(self, store: JobStore, runs: Runs, repeats: Repeats, clock: Clock, now: Callable[[], float]) -> None:
        self._store = store
        self._runs = runs
        self._repeats = repeats
        self._clock = clock
        self._now = now

    async def earlier(self, run: Run) -> RequestRow | None:
        """The request that this one repeats, as far as the journal knows. Raises Overloaded."""
        terms, caller, repeats = run.terms, run.caller.key_id, self._repeats
        seconds = max(repeats.retry_seconds if terms.is_repeat else 0, repeats.join_seconds)
        try:
            if terms.idempotency_key is not None:
                return await self._store.by_key(caller, terms.idempotency_key, self._now())
            if not seconds:
                return None
            row = await self._store.repeat_of(caller, run.fingerprint, self._now() - seconds)
        except StoreError as error:
            raise _unreadable(error) from None
        if row is None or row.key is not None:
            return None
        if row.answer is None:
            return row
        answer = load_answer(row.answer)
        if answer.status == "cancelled":
            return await self._cancelled(row, answer)
        return row if answer.artefacts or answer.uncertain or answer.cost != 0 else None

    async def _cancelled(self, row: RequestRow, answer: Answered) -> RequestRow | None:
        """A request that was given up before its repeat came: with the pictures that had been made anyway. None: it was
        stopped, and the repeat is a new try. Raises UpstreamAmbiguous while that is not known."""
        try:
            jobs = await self._store.jobs_of(row.id)
        except StoreError as error:
            raise _unreadable(error) from None
        if any(job.state in OPEN for job in jobs):
            unknown = UpstreamAmbiguous(
                "An earlier try of this request was cancelled, and is not known to have stopped yet.",
                retry_after=2,
                should_retry=True,
            )
            unknown.tells_charge = False
            raise unknown
        done = [(job, load_verdict(job.verdict)) for job in jobs if job.state == "done"]
        artefacts = tuple(artefact for _, verdict in done for artefact in verdict.artefacts)
        if not artefacts:
            return None
        found = {artefact.index for artefact in artefacts}
        failures = tuple(failure for failure in answer.failures if failure.index not in found)
        costs = [None if job.cost is None else Decimal(job.cost) for job, _ in done]
        late = replace(
            answer,
            status="partial" if failures else "completed",
            cost=None if None in costs else sum((cost for cost in costs if cost is not None), Decimal(0)),
            uncertain=False,
            seeds=tuple(verdict.seed for _, verdict in done if verdict.seed is not None),
            artefacts=artefacts,
            failures=failures,
            error=None,
        )
        return replace(row, answer=dump_answer(late))

    async def replay(self, run: Run, row: RequestRow, deliverer: Deliverer, seconds: float) -> None:
        """Answer as that request was, or will be within `seconds`, answered. Raises GatewayError: its error, too."""
        if row.fingerprint != run.fingerprint:
            raise IdempotencyMismatch(
                "This Idempotency-Key was used before for another request. Use a new key for a new request.",
                param="Idempotency-Key",
            )
        run.replayed = True
        row = await self._answered(row, self._clock.monotonic() + seconds)
        assert row.answer is not None
        answer = load_answer(row.answer)
        if answer.status == "cancelled":  # while this one waited for it
            late = await self._cancelled(row, answer)
            if late is None or late.answer is None:
                raise Overloaded("An earlier try of this request was cancelled.", retry_after=1, should_retry=True)
            answer = load_answer(late.answer)
        if answer.error is not None:
            answer.error.replayed = True
            raise answer.error
        if not answer.artefacts:
            raise Overloaded("The same request was given up.", retry_after=1)
        run.created = answer.created
        plan, _ = load_plan(row.plan)
        artefacts = tuple([await deliverer.again(artefact, plan.delivery) for artefact in answer.artefacts])
        tally = Tally(list(artefacts), list(answer.failures), cost=answer.cost, attempts=list(answer.attempts))
        receipt = tally.receipt(row.id, run.caller, plan, load_quote(row.quote).currency, answer.seconds, None)
        for artefact in artefacts:
            await run.tell(artefact)
        for failure in answer.failures:
            await run.tell(failure)
        await self._runs.end(
            run, outcome(replace(receipt, uncertain=answer.uncertain), replace(answer, artefacts=artefacts))
        )

    async def _answered(self, row: RequestRow, deadline: float) -> RequestRow:
        """The row once it has an answer, which another run, or another process, is at. Raises Overloaded."""
        while row.answer is None:
            if (other := self._runs.get(row.id)) is not None:
                await other.over()
            elif self._clock.monotonic() > deadline:
                raise Overloaded("The same request is still running.", retry_after=5, should_retry=True)
            else:
                await self._clock.sleep(WAIT_SECONDS)
            try:
                found = await self._store.request(row.id)
            except StoreError as error:
                raise _unreadable(error) from None
            if found is None:
                raise Overloaded("The same request was given up.", retry_after=1)
            row = found
        return row


def _unreadable(error: StoreError) -> Overloaded:
    return Overloaded("The gateway cannot read its journal at the moment.", detail=str(error), retry_after=5)
