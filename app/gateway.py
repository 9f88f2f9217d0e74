"""The use cases, readable top to bottom: find the model, compile, quote, run, deliver, write the receipt.

`prepare` is pure and says everything that can be said before money is spent: a dry run stops there. `attend` runs what
was prepared, or joins who is already at it, or answers once more what was answered before.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractContextManager, aclosing, asynccontextmanager
from dataclasses import dataclass

from app import pricing
from app.caretaker import Caretaker
from app.catalogue.load import Catalogue, Found
from app.catalogue.schema import field_of
from app.collecting import Order
from app.conclusion import Concluder
from app.config import Config
from app.delivery import Keep, Upstream
from app.denials import ModelNotAllowed, PriceUnknown
from app.dispatch import Dispatcher, Done
from app.errors import (
    Cancelled,
    GatewayError,
    InternalError,
    Overloaded,
    UnsupportedMode,
)
from app.faults import from_provider
from app.harvest import Harvest, Harvester
from app.jobs import DAY_SECONDS, Job, Journal, fingerprint
from app.limits import Rates
from app.media.finish import check_delivery, mask_checks
from app.media.pool import MediaPool
from app.media.prepare import begin_preparing
from app.params.engine import check_parameters, compile_plan
from app.records import MaskKeys
from app.recovery import Recovery
from app.replay import Replayer, kept_seconds
from app.runs import Run, Runs
from app.steps import Steps
from app.store.jobs import Move, RequestRow
from app.tally import Tally
from app.types import Artefact, Call, Caller, EditRequest, Failure, Plan, Quote, Terms
from providers.base import Clock, Media, ProviderError, ProviderResult, Ticket

log = logging.getLogger("imagegate.gateway")

MODE_WORDS = {"image-edit": "image editing", "text-to-image": "text-to-image"}


@dataclass(frozen=True, slots=True)
class Prepared:
    """A request that was understood and priced, but not yet run."""

    id: str
    caller: Caller
    terms: Terms
    fingerprint: str
    plan: Plan
    quote: Quote
    upstream: Upstream


@dataclass(frozen=True, slots=True)
class Attended:
    """A run that somebody listens to. `repeated`: its answer is, or will be, that of an earlier request."""

    run: Run
    repeated: bool


class Gateway:
    """What callers can ask for. Knows no HTTP."""

    def __init__(
        self,
        catalogue: Catalogue,
        upstreams: Mapping[str, Upstream],
        dispatcher: Dispatcher,
        harvester: Harvester,
        journal: Journal,
        recovery: Recovery,
        concluder: Concluder,
        caretaker: Caretaker,
        runs: Runs,
        pool: MediaPool,
        rates: Rates,
        clock: Clock,
        config: Config,
        *,
        now: Callable[[], float],
    ) -> None:
        self.catalogue = catalogue
        self.now = now
        self._upstreams = upstreams
        self._dispatcher = dispatcher
        self._harvester = harvester
        self._journal = journal
        self._recovery = recovery
        self._concluder = concluder
        self._caretaker = caretaker
        self._runs = runs
        self._replayer = Replayer(journal.store, runs, config.repeats, clock, now)
        self._pool = pool
        self._rates = rates
        self._clock = clock
        self._config = config
        self._stopped: float | None = None  # when the end was announced, on the clock

    # ---- before anything is spent

    def check(self, request: EditRequest) -> None:
        """Everything that can be said before the request's pictures are there. Pure; raises what has to be mended."""
        found = self._find(request)
        check_parameters(request, found.offers[0])

    def prepare(self, request: EditRequest) -> Prepared:
        """Compile and price. Pure; raises what the caller has to mend."""
        found = self._find(request)
        offer = found.offers[0]
        plan = compile_plan(request, found.model.id, offer)
        words = {note.name: note.spelled for note in plan.notes if note.spelled}
        check_delivery(
            plan.delivery,
            format_word=words.get("output_format", "output_format"),
            size_word=next((words[name] for name in ("size", "width", "height") if name in words), "size"),
        )
        upstream, content = self._upstreams[offer.provider], fingerprint(request)
        return Prepared(request.id, request.caller, request.terms, content, plan, pricing.quote(plan), upstream)

    def _find(self, request: EditRequest) -> Found:
        found = self.catalogue.require(request.model)
        if request.mode not in found.model.modes:
            raise UnsupportedMode(
                f"Model '{found.model.id}' does not support {MODE_WORDS[request.mode]}. "
                f"Supported modes: {', '.join(found.model.modes)}.",
                param="model",
            )
        if not request.caller.may_use(found.model.id):
            raise ModelNotAllowed(f"Your API key may not use the model '{found.model.id}'.", param="model")
        return found

    # ---- running

    def expecting(self, caller: Caller, terms: Terms) -> AbstractContextManager[None]:
        """While a request is being read: if it is a repeat, what it may repeat is not given up meanwhile."""
        return self._runs.expecting(caller, terms)

    @asynccontextmanager
    async def attend(self, prepared: Prepared) -> AsyncIterator[Attended]:
        """The run that answers this request; it has bought nothing yet, or has begun, or has ended. Who leaves early
        and was the last to listen stops it.

        Raises GatewayError for what can be said before it begins.
        """
        run = self._runs.like(prepared.caller, prepared.fingerprint, prepared.terms)
        joined = run is not None
        if run is None:
            run = self._runs.new(prepared.id, prepared.caller, prepared.fingerprint, prepared.terms)
            run.created = int(self.now())
            self._runs.start(run, self._work(run, prepared))
        with self._runs.listening(run):
            await run.begun()
            yield Attended(run, joined or run.replayed)

    async def _work(self, run: Run, prepared: Prepared) -> None:
        """A run from its beginning to its end, whoever listens. However it ends, one receipt is issued, unless it only
        repeats an answer or is left for another process to end."""
        steps, began = Steps(self._clock.monotonic), self._clock.monotonic()
        tally = Tally(steps=steps.taken)
        error: GatewayError | None = None
        deliverer, opened = prepared.upstream.deliverer, False
        moves: list[Move] = []
        try:
            if (earlier := await self._replayer.earlier(run)) is not None:
                await self._replayer.replay(run, earlier, deliverer, self._seconds(prepared.terms))
                return
            with steps.measure("prepare"):
                pictures, mask = await self._ready(prepared)
                await self._rates.take_images(prepared.caller, prepared.plan.delivery.count)
                earlier = await self._open(prepared, mask)
            opened = earlier is None
            if earlier is not None:  # it was there a moment later than we looked
                await self._replayer.replay(run, earlier, deliverer, self._seconds(prepared.terms))
                return
            run.begin()
            await self._execute(run, prepared, pictures, tally, steps, moves, began)
        except asyncio.CancelledError:
            await self._runs.end(run, Overloaded("The gateway is stopping.", retry_after=1, should_retry=False))
            raise
        except GatewayError as failed:
            error = failed
            if run.replayed:
                await self._runs.end(run, error)
                return
        except Exception:
            log.exception("%s: a defect of the gateway", run.id)
            # A repeat would meet the same defect, and could pay twice on its way there.
            error = InternalError("The gateway failed. The request id is in x-request-id.", should_retry=False)
        await self._concluder.conclude(run, prepared.plan, prepared.quote, tally, began, error, moves, opened=opened)

    async def _ready(self, prepared: Prepared) -> tuple[tuple[Media, ...], MaskKeys | None]:
        """Everything that can fail before something is bought. The inputs as the provider can read them, without
        metadata; what the gateway itself will have to decode later is decoded once now, and kept."""
        plan, deliverer = prepared.plan, prepared.upstream.deliverer
        if prepared.caller.has_budget and prepared.quote.total is None:
            raise PriceUnknown(
                f"What '{plan.model}' will cost is not known before, and your API key has a budget. Nothing was sent.",
                param="model",
            )
        deliverer.check_room(plan.delivery)
        self._dispatcher.check(plan, prepared.caller)
        step, mask = plan.delivery.mask, None
        if step is not None:
            for check in mask_checks(step):
                await self._pool.work(check)
        pictures = tuple(await asyncio.gather(*(self._pool.run(begin_preparing, one) for one in plan.inputs)))
        if step is not None:
            seconds = self._config.repeats.keep_seconds
            original = await deliverer.keep_input(step.original, seconds)
            mask = MaskKeys(original, await deliverer.keep_input(step.mask, seconds))
            self._recovery.keeps(prepared.id, mask, prepared.upstream)
        return pictures, mask

    async def _open(self, prepared: Prepared, mask: MaskKeys | None) -> RequestRow | None:
        return await self._journal.open(
            prepared.id,
            prepared.caller,
            prepared.terms,
            prepared.fingerprint,
            prepared.plan,
            prepared.quote,
            seconds=self._seconds(prepared.terms),
            keep_seconds=self._config.repeats.keep_seconds,
            mask=mask,
        )

    def _seconds(self, terms: Terms) -> float:
        return self._config.request_seconds if terms.seconds is None else terms.seconds

    async def _execute(
        self,
        run: Run,
        prepared: Prepared,
        pictures: tuple[Media, ...],
        tally: Tally,
        steps: Steps,
        moves: list[Move],
        began: float,
    ) -> None:
        """Buy, and deliver. What is still to be entered in the journal with the answer is added to `moves`."""
        plan, upstream, terms = prepared.plan, prepared.upstream, prepared.terms
        deadline = began + self._seconds(terms)
        log_seconds = self._config.log.payload_days * DAY_SECONDS if self._config.log.pictures else 0.0

        def keep() -> Keep:
            if not run.heard:
                return Keep(self._config.repeats.keep_seconds, must=True, log_seconds=log_seconds)
            return Keep(kept_seconds(self._config.repeats, terms), log_seconds=log_seconds)

        async def finish(call: Call, job: Job, ticket: Ticket, result: ProviderResult) -> Harvest:
            # A single job's end is written together with the answer, moments later: one wait for the disk less.
            several = len(plan.calls) > 1
            harvest = await self._harvester.bring_home(
                plan, call, job, result, upstream, deadline, keep, enter=several, steps=steps
            )
            if harvest.move is not None:
                moves.append(harvest.move)
            if harvest.lost:
                self._recovery.follow(prepared.id, plan, job, ticket)
            tally.charge(harvest.cost)
            if harvest.seed is not None:
                tally.seeds[call.first] = harvest.seed
            return harvest

        order: Order[Harvest] = Order(
            request_id=prepared.id,
            key_id=prepared.caller.key_id,
            plan=plan,
            provider=upstream.provider,
            pictures=pictures,
            deadline=deadline,
            keep_results_seconds=max(self._config.results.url_seconds, int(kept_seconds(self._config.repeats, terms))),
            stop=run.stop,
            attempts=tally.attempts,
            steps=steps,
            finish=finish,
            fates=_Fates(self._recovery, prepared.id, plan),
            most=prepared.caller.concurrent_jobs,
            price=None if prepared.quote.total is None else prepared.quote.total / plan.delivery.count,
        )
        async with aclosing(self._dispatcher.run(order)) as calls:
            async for done in calls:
                for event in _events(plan, done):
                    tally.add(event)
                    await run.tell(event)

    # ---- beginning and end

    def start(self) -> None:
        """Take care of the journal from now on, and of what a dead process left in it."""
        self._caretaker.start()

    def stopping(self) -> None:
        """The end was announced: who hangs up from now on does so because of us."""
        self._runs.closing = True
        if self._stopped is None:
            self._stopped = self._clock.monotonic()

    def problems(self) -> list[str]:
        """Why it can take no work."""
        stopping = ["stopping"] if self._stopped is not None else []
        return stopping + (["the journal cannot be written"] if self._caretaker.in_vain else [])

    async def close(self) -> None:
        """Let what runs end, for what is left of the time for that; leave the rest to the journal."""
        self.stopping()
        assert self._stopped is not None
        await self._runs.drain(self._stopped + self._config.drain_seconds - self._clock.monotonic())
        await self._runs.abandon()
        await self._dispatcher.settle()
        await self._caretaker.close()


@dataclass(frozen=True, slots=True)
class _Fates:
    """What became of one request's jobs is for the recovery to find out."""

    recovery: Recovery
    request_id: str
    plan: Plan

    def follow(self, job: Job, ticket: Ticket | None, *, cancelling: bool = False) -> None:
        self.recovery.follow(self.request_id, self.plan, job, ticket, cancelling=cancelling)

    def hold(self) -> None:
        self.recovery.hold(self.request_id)

    async def release(self) -> None:
        await self.recovery.release(self.request_id)


def _events(plan: Plan, done: Done[Harvest]) -> tuple[Artefact | Failure, ...]:
    """One call's end, picture by picture."""
    if done.finished is not None:
        return done.finished.events
    assert done.error is not None
    error = done.error
    charged: bool | None = None if isinstance(error, Cancelled | InternalError) else False
    if isinstance(error, ProviderError):
        charged = error.charged
        word = _callers_word(plan, error.field)
        error = from_provider(error, param=word, picture=_is_picture(plan, error.field))
    first, count = done.call.first, done.call.count
    return tuple(Failure(index, error, charged) for index in range(first, first + count))


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
    return any(field_of(row) == field and row.type in ("image", "images") for row in plan.offer.params.values())
