"""The use cases, readable top to bottom: find the model, compile, quote, run, deliver, write the receipt.

`prepare` is pure and says everything that can be said before money is spent: a dry run stops there.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field
from decimal import Decimal

from app import pricing
from app.catalogue.load import Catalogue, Found
from app.delivery import Deliverer
from app.dispatch import Dispatcher, Done
from app.errors import GatewayError, InternalError, ProviderBadResponse, UnsupportedMode, from_provider
from app.media.finish import decode_mask
from app.media.pool import MediaPool
from app.media.prepare import prepare as prepare_media
from app.params.engine import check_parameters, compile_plan
from app.receipts import Receipts
from app.types import Artefact, Attempt, Call, Caller, EditRequest, Failure, Outcome, Plan, Quote, Receipt
from providers.base import Clock, Media, Provider, ProviderResult

log = logging.getLogger("imagegate.gateway")

MODE_WORDS = {"image-edit": "image editing", "text-to-image": "text-to-image"}


@dataclass(frozen=True, slots=True)
class Upstream:
    """A provider, and what brings its pictures home."""

    provider: Provider
    deliverer: Deliverer


@dataclass(frozen=True, slots=True)
class Prepared:
    """A request that was understood and priced, but not yet run."""

    id: str
    caller: Caller
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
    cost: Decimal | None = Decimal(0)  # of what was made
    seeds: dict[int, int] = field(default_factory=dict)  # by the first picture of the call

    def charge(self, plan: Plan, call: Call, result: ProviderResult) -> None:
        """A job was done: from now on it costs, whatever becomes of its pictures."""
        sizes = [(one.width, one.height) if one.width and one.height else plan.size for one in result.images]
        cost = pricing.cost(plan.offer.price, sizes, result.billable_units)
        self.cost = None if self.cost is None or cost is None else self.cost + cost
        if result.seed is not None:
            self.seeds[call.first] = result.seed

    @property
    def uncertain(self) -> bool:
        """Whether a job that brought nothing may have been billed all the same."""
        return any(attempt.charged is None for attempt in self.attempts)

    def error(self, currency: str) -> GatewayError:
        """What the caller is told when not one picture was made: the first failure, but never one that invites a
        repeat when another says that money is at stake; and what it cost."""
        error = min(self.failed, key=lambda failure: (failure.error.should_retry is not False, failure.index)).error
        error.cost = None if self.uncertain else self.cost
        if error.tells_charge:
            if self.uncertain:
                charge = "It is not known whether the provider charged for it."
            elif self.cost is None:
                charge = "It was charged."
            else:
                charge = (
                    f"It was charged: {self.cost.normalize():f} {currency}." if self.cost else "Nothing was charged."
                )
            error.message = f"{error.message} {charge}"
        return error


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
        now: Callable[[], float],
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

    def prepare(self, request: EditRequest) -> Prepared:
        """Compile and price. Pure; raises what the caller has to mend."""
        found = self._find(request)
        offer = found.offers[0]
        plan = compile_plan(request, found.model.id, offer)
        return Prepared(request.id, request.caller, plan, pricing.quote(plan), self._upstreams[offer.provider])

    def _find(self, request: EditRequest) -> Found:
        found = self.catalogue.require(request.model)
        if request.mode not in found.model.modes:
            raise UnsupportedMode(
                f"Model '{found.model.id}' does not support {MODE_WORDS[request.mode]}. "
                f"Supported modes: {', '.join(found.model.modes)}.",
                param="model",
            )
        return found

    async def edit(self, prepared: Prepared) -> Outcome:
        """Run it to the end. Raises GatewayError if not one picture was made."""
        async with aclosing(self.stream(prepared)) as events:
            async for event in events:
                if isinstance(event, Outcome):
                    return event
        raise AssertionError("a stream ends with its outcome or an error")

    async def stream(self, prepared: Prepared) -> AsyncGenerator[Artefact | Failure | Outcome, None]:
        """Each picture as it is done, then the outcome. Leaving early cancels what is still under way.

        Raises GatewayError if not one picture was made. However it ends, one receipt is issued.
        """
        tally = _Tally(self._clock.monotonic())
        error: BaseException | None = None
        try:
            async with aclosing(self._run(prepared, tally)) as events:
                async for event in events:
                    yield event
            if not tally.made:
                raise tally.error(prepared.quote.currency)
        except BaseException as problem:
            error = problem
            raise
        finally:
            receipt = self._receipt(prepared, tally, error)
            self._receipts.issue(receipt)
        label = prepared.upstream.provider.label
        made = tuple(sorted(tally.made, key=lambda artefact: artefact.index))
        seeds = tuple(seed for _, seed in sorted(tally.seeds.items()))
        yield Outcome(label, made, receipt, seeds, int(self.now()))

    async def settle(self) -> None:
        """Before the process ends: wait until abandoned jobs were cancelled upstream."""
        await self._dispatcher.settle()

    async def _run(self, prepared: Prepared, tally: _Tally) -> AsyncGenerator[Artefact | Failure, None]:
        plan, upstream = prepared.plan, prepared.upstream
        deadline = tally.began + self._request_seconds
        upstream.deliverer.check_room(plan.delivery)
        pictures = await self._pictures(plan)

        async def finish(call: Call, result: ProviderResult) -> list[Artefact | Failure]:
            tally.charge(plan, call, result)
            return await self._deliver(plan, call, result, upstream.deliverer, deadline)

        running = self._dispatcher.run(
            plan,
            upstream.provider,
            pictures,
            finish,
            request_id=prepared.id,
            deadline=deadline,
            keep_results_seconds=self._keep_results_seconds,
            attempts=tally.attempts,
        )
        async with aclosing(running) as calls:
            async for done in calls:
                for event in self._count(plan, done, tally):
                    yield event

    async def _pictures(self, plan: Plan) -> tuple[Media, ...]:
        """The inputs as the provider can read them, without metadata. What the gateway itself will have to decode later
        is decoded once before anything is bought."""
        if plan.delivery.mask is not None:
            await self._pool.run(decode_mask, plan.delivery.mask)
        return tuple(await asyncio.gather(*(self._pool.run(prepare_media, step) for step in plan.inputs)))

    async def _deliver(
        self, plan: Plan, call: Call, result: ProviderResult, deliverer: Deliverer, deadline: float
    ) -> list[Artefact | Failure]:
        """Every picture that one call owed: delivered, or why not."""

        async def one(offset: int) -> Artefact | Failure:
            index = call.first + offset
            if offset >= len(result.images):
                missing = ProviderBadResponse("The provider made fewer pictures than it was asked for.")
                return Failure(index, missing, charged=None)
            try:
                return await deliverer.deliver(result.images[offset], plan.delivery, index, deadline)
            except GatewayError as error:
                log.warning("picture %d was not delivered: %s (%s)", index, error.message, error.detail)
                return Failure(index, error)
            except Exception:  # a defect of ours must not take the other pictures, which are paid for, with it
                log.exception("picture %d was not delivered", index)
                return Failure(index, InternalError("The gateway could not deliver the picture.", should_retry=False))

        if len(result.images) > call.count:
            log.warning("%s made %d pictures, asked for %d", plan.offer.endpoint, len(result.images), call.count)
        return list(await asyncio.gather(*(one(offset) for offset in range(call.count))))

    def _count(self, plan: Plan, done: Done[list[Artefact | Failure]], tally: _Tally) -> list[Artefact | Failure]:
        """One call's end, entered into the tally."""
        if done.error is not None:
            word = _callers_word(plan, done.error.field)
            error = from_provider(done.error, param=word, picture=_is_picture(plan, done.error.field))
            events: list[Artefact | Failure] = [
                Failure(index, error, done.error.charged)
                for index in range(done.call.first, done.call.first + done.call.count)
            ]
        else:
            assert done.finished is not None
            events = done.finished
        tally.made += [event for event in events if isinstance(event, Artefact)]
        tally.failed += [event for event in events if isinstance(event, Failure)]
        return events

    def _receipt(self, prepared: Prepared, tally: _Tally, error: BaseException | None) -> Receipt:
        plan = prepared.plan
        code = error.code if isinstance(error, GatewayError) else None
        if error is None:
            status = "partial" if tally.failed else "completed"
        elif isinstance(error, asyncio.CancelledError | GeneratorExit):
            status, code = "cancelled", "client_disconnected"
        else:
            status, code = "failed", code or "internal_error"
        return Receipt(
            request_id=prepared.id,
            caller=prepared.caller,
            model=plan.model,
            provider=plan.offer.provider,
            endpoint=plan.offer.endpoint,
            status=status,  # type: ignore[arg-type]
            cost=tally.cost,
            currency=prepared.quote.currency,
            pictures=len(tally.made),
            attempts=tuple(tally.attempts),
            notes=plan.notes,
            failures=tuple(sorted(tally.failed, key=lambda failure: failure.index)),
            uncertain=tally.uncertain,
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


def _is_picture(plan: Plan, field: str | None) -> bool:
    """Whether the provider's field holds pictures."""
    return any(
        getattr(row, "to", None) == field and row.type in ("image", "images") for row in plan.offer.params.values()
    )
