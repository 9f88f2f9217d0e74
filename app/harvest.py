"""What one job made, brought home: charged, delivered, and entered in the journal, in this order and once.

The same for a request that a client waits for and for one that a dead process left behind.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal

from app import pricing
from app.delivery import Keep, Upstream
from app.errors import GatewayError, InternalError, ProviderBadResponse, Refused, bare
from app.jobs import Job, Journal
from app.records import Verdict
from app.steps import Steps
from app.store.jobs import JobState, Move
from app.types import Artefact, Call, Failure, Plan
from providers.base import ProviderResult

log = logging.getLogger("imagegate.harvest")


@dataclass(frozen=True, slots=True)
class Harvest:
    """One job's end. `lost`: it was paid for, and pictures of it are not here yet. `move`: what is still to be entered
    in the journal, if it was not at once."""

    events: tuple[Artefact | Failure, ...]
    cost: Decimal | None
    seed: int | None = None
    lost: bool = False
    move: Move | None = None


class Harvester:
    """Brings results home. One for the whole process."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal

    async def bring_home(
        self,
        plan: Plan,
        call: Call,
        job: Job,
        result: ProviderResult,
        upstream: Upstream,
        deadline: float,
        keep: Callable[[], Keep],
        *,
        enter: bool = True,
        steps: Steps | None = None,
    ) -> Harvest:
        """Every picture that the job owed: delivered, or why not. It is in the journal when this returns, unless
        `enter` is False: then the caller enters it."""
        sizes = [(one.width, one.height) if one.width and one.height else plan.size for one in result.images]
        cost = pricing.cost(plan.offer.price, sizes, result.billable_units, plan.besides)
        events = await self._deliver(plan, call, result, upstream, deadline, keep, steps)
        made = tuple(event for event in events if isinstance(event, Artefact))
        failed = tuple(event for event in events if isinstance(event, Failure))
        lost = any(not isinstance(failure.error, Refused) and failure.charged for failure in failed)
        verdict = Verdict(made, failed, result.seed, result.billable_units)
        to: JobState = "lost" if lost else "done"
        if not enter:
            return Harvest(events, cost, result.seed, lost, self._journal.moved(job, to, cost=cost, verdict=verdict))
        await self._journal.move(job, to, cost=cost, verdict=verdict)
        return Harvest(events, cost, result.seed, lost)

    async def _deliver(
        self,
        plan: Plan,
        call: Call,
        result: ProviderResult,
        upstream: Upstream,
        deadline: float,
        keep: Callable[[], Keep],
        steps: Steps | None,
    ) -> tuple[Artefact | Failure, ...]:
        async def one(offset: int) -> Artefact | Failure:
            index = call.first + offset
            if offset >= len(result.images):
                missing = ProviderBadResponse("The provider made fewer pictures than it was asked for.")
                return Failure(index, missing, charged=None)
            try:
                image = result.images[offset]
                return await upstream.deliverer.deliver(image, plan.delivery, index, deadline, keep, steps)
            except GatewayError as error:
                log.warning("picture %d was not delivered: %s (%s)", index, error.message, error.detail)
                return Failure(index, bare(error))
            except Exception:  # a defect of ours must not take the other pictures, which are paid for, with it
                log.exception("picture %d was not delivered", index)
                return Failure(index, InternalError("The gateway could not deliver the picture.", should_retry=False))

        if len(result.images) > call.count:
            log.warning("%s made %d pictures, asked for %d", plan.offer.endpoint, len(result.images), call.count)
        if call.count == 1:
            return (await one(0),)
        return tuple(await asyncio.gather(*(one(offset) for offset in range(call.count))))
