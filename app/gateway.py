"""The use cases, readable top to bottom: find the model, compile, quote, run, deliver, write the receipt.

`prepare` is pure and says everything that can be said before money is spent: a dry run stops there.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field
from decimal import Decimal

from app import pricing
from app.catalogue.load import Catalogue, Found
from app.delivery import Deliverer
from app.dispatch import Dispatcher, Done
from app.errors import GatewayError, ModelNotFound, ProviderBadResponse, UnsupportedMode, from_provider
from app.media.pool import MediaPool
from app.media.prepare import prepare as prepare_media
from app.params.engine import check_parameters, compile_plan
from app.receipts import Receipts
from app.types import Artefact, Attempt, Call, EditRequest, Failure, Outcome, Plan, Quote, Receipt
from providers.base import Clock, Media, Provider, ProviderResult

log = logging.getLogger("imagegate.gateway")

MODE_WORDS = {"image-edit": "image editing", "text-to-image": "text-to-image"}


@dataclass(frozen=True, slots=True)
class Upstream:
    """A provider, and what brings its pictures home."""

    provider: Provider
    deliverer: Deliverer


@dataclass(frozen=True, slots=True)
class Job:
    """A request that was understood and priced, but not yet run."""

    request: EditRequest
    plan: Plan
    quote: Quote
    upstream: Upstream


@dataclass(slots=True)
class _Tally:
    """What has happened so far. Lives inside one `stream`."""

    began: float
    made: list[Artefact] = field(default_factory=list)
    failed: list[Failure] = field(default_factory=list)
    attempts: list[Attempt] = field(default_factory=list)
    cost: Decimal | None = Decimal(0)
    seed: int | None = None


class Gateway:
    """What callers can ask for. Knows no HTTP."""

    def __init__(
        self,
        catalogue: Catalogue,
        upstreams: Mapping[str, Upstream],
        dispatcher: Dispatcher,
        pool: MediaPool,
        receipts: Receipts,
        clock: Clock,
        *,
        request_seconds: float,
        keep_results_seconds: int,
        now: Callable[[], float] = time.time,
    ) -> None:
        self.catalogue = catalogue
        self._upstreams = upstreams
        self._dispatcher = dispatcher
        self._pool = pool
        self._receipts = receipts
        self._clock = clock
        self.now = now
        self._request_seconds = request_seconds
        self._keep_results_seconds = keep_results_seconds

    def check(self, request: EditRequest) -> None:
        """Everything that can be said before the request's pictures are there. Pure; raises what has to be mended."""
        found = self._find(request)
        check_parameters(request, found.offers[0])

    def prepare(self, request: EditRequest) -> Job:
        """Compile and price. Pure; raises what the caller has to mend."""
        found = self._find(request)
        offer = found.offers[0]
        plan = compile_plan(request, found.model.id, offer)
        return Job(request, plan, pricing.quote(plan), self._upstreams[offer.provider])

    def _find(self, request: EditRequest) -> Found:
        found = self.catalogue.find(request.model)
        if found is None:
            nearest = self.catalogue.nearest(request.model)
            hint = f" Did you mean '{nearest}'?" if nearest else ""
            raise ModelNotFound(f"The model '{request.model[:128]}' does not exist.{hint}", param="model")
        if request.mode not in found.model.modes:
            raise UnsupportedMode(
                f"Model '{found.model.id}' does not support {MODE_WORDS[request.mode]}. "
                f"Supported modes: {', '.join(found.model.modes)}.",
                param="model",
            )
        return found

    async def edit(self, job: Job) -> Outcome:
        """Run it to the end. Raises GatewayError if not one picture was made."""
        async with aclosing(self.stream(job)) as events:
            async for event in events:
                if isinstance(event, Outcome):
                    return event
        raise AssertionError("a stream ends with its outcome or an error")

    async def stream(self, job: Job) -> AsyncGenerator[Artefact | Failure | Outcome, None]:
        """Each picture as it is done, then the outcome. Leaving early cancels what is still under way.

        Raises GatewayError if not one picture was made. However it ends, one receipt is issued.
        """
        tally = _Tally(self._clock.monotonic())
        error: BaseException | None = None
        try:
            async with aclosing(self._run(job, tally)) as events:
                async for event in events:
                    yield event
            if not tally.made:
                first = min(tally.failed, key=lambda failure: failure.index)
                raise first.error
        except BaseException as problem:
            error = problem
            raise
        finally:
            receipt = self._receipt(job, tally, error)
            self._receipts.issue(receipt)
        label = job.upstream.provider.label
        made = tuple(sorted(tally.made, key=lambda artefact: artefact.index))
        yield Outcome(job.plan, label, made, receipt, tally.seed, int(self.now()))

    async def settle(self) -> None:
        """Before the process ends: wait until abandoned jobs were cancelled upstream."""
        await self._dispatcher.settle()

    async def _run(self, job: Job, tally: _Tally) -> AsyncGenerator[Artefact | Failure, None]:
        plan, upstream = job.plan, job.upstream
        deadline = tally.began + self._request_seconds
        pictures = await self._pictures(plan)

        async def finish(call: Call, result: ProviderResult) -> list[Artefact | Failure]:
            return await self._deliver(plan, call, result, upstream.deliverer)

        running = self._dispatcher.run(
            plan,
            upstream.provider,
            pictures,
            finish,
            request_id=job.request.id,
            deadline=deadline,
            keep_results_seconds=self._keep_results_seconds,
        )
        async with aclosing(running) as calls:
            async for done in calls:
                for event in self._count(plan, done, tally):
                    yield event

    async def _pictures(self, plan: Plan) -> tuple[Media, ...]:
        """The inputs as the provider can read them, without metadata."""
        return tuple(await asyncio.gather(*(self._pool.run(prepare_media, step) for step in plan.inputs)))

    async def _deliver(
        self, plan: Plan, call: Call, result: ProviderResult, deliverer: Deliverer
    ) -> list[Artefact | Failure]:
        """Every picture that one call owed: delivered, or why not."""

        async def one(offset: int) -> Artefact | Failure:
            index = call.first + offset
            if offset >= len(result.images):
                return Failure(index, ProviderBadResponse("The provider made fewer pictures than it was asked for."))
            try:
                return await deliverer.deliver(result.images[offset], plan.delivery, index)
            except GatewayError as error:
                log.warning("picture %d was not delivered: %s (%s)", index, error.message, error.detail)
                return Failure(index, error)

        return list(await asyncio.gather(*(one(offset) for offset in range(call.count))))

    def _count(self, plan: Plan, done: Done[list[Artefact | Failure]], tally: _Tally) -> list[Artefact | Failure]:
        """One call's end, entered into the tally."""
        tally.attempts.extend(done.attempts)
        if done.error is not None:
            error = from_provider(done.error, param=_callers_word(plan, done.error.field))
            events: list[Artefact | Failure] = [
                Failure(index, error) for index in range(done.call.first, done.call.first + done.call.count)
            ]
        else:
            assert done.result is not None
            assert done.finished is not None
            events = done.finished
            sizes = [
                (image.width, image.height) if image.width and image.height else plan.size
                for image in done.result.images
            ]
            cost = pricing.cost(plan.offer.price, sizes, done.result.billable_units)
            tally.cost = None if tally.cost is None or cost is None else tally.cost + cost
            if done.call.first == 0:
                tally.seed = done.result.seed
        tally.made += [event for event in events if isinstance(event, Artefact)]
        tally.failed += [event for event in events if isinstance(event, Failure)]
        return events

    def _receipt(self, job: Job, tally: _Tally, error: BaseException | None) -> Receipt:
        plan = job.plan
        code = error.code if isinstance(error, GatewayError) else None
        if error is None:
            status = "partial" if tally.failed else "completed"
        elif isinstance(error, asyncio.CancelledError | GeneratorExit):
            status, code = "cancelled", "client_disconnected"
        else:
            status, code = "failed", code or "internal_error"
        return Receipt(
            request_id=job.request.id,
            caller=job.request.caller,
            model=plan.model,
            provider=plan.offer.provider,
            endpoint=plan.offer.endpoint,
            status=status,  # type: ignore[arg-type]
            cost=tally.cost,
            currency=job.quote.currency,
            pictures=len(tally.made),
            attempts=tuple(tally.attempts),
            notes=plan.notes,
            failures=tuple(sorted(tally.failed, key=lambda failure: failure.index)),
            error_code=code,
            seconds=self._clock.monotonic() - tally.began,
        )


def _callers_word(plan: Plan, field: str | None) -> str | None:
    """The provider's word for a field, back in the caller's own."""
    if field is None:
        return None
    for note in plan.notes:
        if note.sent_as == field and note.spelled:
            return note.spelled
    return next((note.name for note in plan.notes if note.sent_as == field), field)
