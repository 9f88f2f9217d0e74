"""The use cases, readable top to bottom: find the model, compile, quote, run, deliver, write the receipt.

`prepare` is pure and says everything that can be said before money is spent: a dry run stops there. `attend` runs what
was prepared, or joins who is already at it, or answers once more what was answered before.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractContextManager, aclosing, asynccontextmanager
from dataclasses import dataclass, replace
from decimal import Decimal

from app import pricing
from app.caretaker import Caretaker
from app.catalogue.load import Catalogue, Found
from app.catalogue.schema import Offer
from app.collecting import Order
from app.conclusion import Concluder
from app.config import Config
from app.delivery import Keep, Upstream
from app.denials import ModelNotAllowed, PriceUnknown
from app.dispatch import Dispatcher
from app.errors import (
    GatewayError,
    InternalError,
    Overloaded,
    ProviderMisconfigured,
    ProviderOut,
    bare,
)
from app.events import events_of
from app.failover import all_failed, lets_next_try, was_in_vain
from app.harvest import Harvest, Harvester
from app.jobs import DAY_SECONDS, Job, Journal, fingerprint
from app.limits import Rates
from app.loops import passed
from app.media.finish import check_delivery, mask_checks
from app.media.pool import MediaPool
from app.media.prepare import begin_preparing
from app.params.engine import check_parameters, compile_plan
from app.records import MaskKeys
from app.recovery import Fates, Recovery
from app.replay import Replayer, kept_seconds
from app.runs import Run, Runs
from app.steps import Steps
from app.store.jobs import Move, RequestRow
from app.tally import Tally
from app.types import Call, Caller, EditRequest, Failure, Plan, Quote, Terms
from providers.base import Clock, Media, ProviderError, ProviderResult, Ticket

log = logging.getLogger("imagegate.gateway")


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
    alternatives: tuple[Prepared, ...] = ()  # by the model's other offers that can do it, in their order
    unable: tuple[tuple[Offer, GatewayError], ...] = ()  # those that cannot, and why

    @property
    def reserve(self) -> Decimal | None:
        """What it may cost at most, whichever offer does it."""
        totals = [one.quote.total for one in (self, *self.alternatives)]
        return max((total for total in totals if total is not None), default=None)


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
        content = fingerprint(request)

        def by(offer: Offer) -> Prepared:
            plan, upstream = compile_plan(request, found.model.id, offer), self._upstreams[offer.provider]
            _check_delivery(plan)
            return Prepared(request.id, request.caller, request.terms, content, plan, pricing.quote(plan), upstream)

        first = by(found.offers[0])  # what it cannot do is for the caller to mend
        if found.forced or len(found.offers) == 1:
            return first
        others, unable = list[Prepared](), list[tuple[Offer, GatewayError]]()
        for offer in found.offers[1:]:
            try:
                others.append(by(offer))
            except GatewayError as error:
                unable.append((offer, bare(error)))
        if request.caller.has_budget:  # what is not known cannot be held against it
            others = [one for one in others if one.quote.total is not None]
        return replace(first, alternatives=tuple(others), unable=tuple(unable))

    def _find(self, request: EditRequest) -> Found:
        """The model, and those of its offers that do what is asked."""
        found = self.catalogue.require(request.model).doing(request.mode)
        if not request.caller.may_use(found.model.id):
            raise ModelNotAllowed(f"Your API key may not use the model '{found.model.id}'.", param="model")
        passed(request.terms.via, self._journal.owner, found.model.id)
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
        tried: list[tuple[str, GatewayError]] = []
        try:
            if (earlier := await self._replayer.earlier(run)) is not None:
                await self._replayer.replay(run, earlier, deliverer, self._seconds(prepared.terms))
                return
            prepared = self._able(prepared)
            with steps.measure("prepare"):
                pictures, mask = await self._ready(prepared)
                await self._rates.take_images(prepared.caller, prepared.plan.delivery.count)
                earlier = await self._open(prepared, mask)
            opened = earlier is None
            if earlier is not None:  # it was there a moment later than we looked
                await self._replayer.replay(run, earlier, deliverer, self._seconds(prepared.terms))
                return
            run.begin()
            while failed := await self._execute(run, prepared, pictures, tally, steps, moves, began):
                tried.append((prepared.upstream.provider.label, failed[0].error))
                prepared = replace(prepared.alternatives[0], alternatives=prepared.alternatives[1:])
                try:
                    prepared = self._able(prepared)
                except (ProviderOut, ProviderMisconfigured) as out:
                    raise all_failed([*tried, (prepared.upstream.provider.label, out)]) from None
                log.warning("%s: goes on at %s", run.id, prepared.upstream.provider.name)
                pictures = await self._pictures(prepared.plan)
                await self._journal.replan(prepared.id, prepared.plan, prepared.quote, mask)
            if tried and not tally.made and all(map(was_in_vain, tally.failed)):
                raise all_failed([*tried, (prepared.upstream.provider.label, tally.failed[0].error)])
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

    def _able(self, prepared: Prepared) -> Prepared:
        """By the first of the offers that is not out at the moment. Raises what keeps the first of them out, if all
        are."""
        error: GatewayError | None = None
        alternatives = (prepared, *prepared.alternatives)
        for number, one in enumerate(alternatives, 1):
            try:
                self._dispatcher.check(one.plan, one.caller)
            except (ProviderOut, ProviderMisconfigured) as out:
                error = error or out
                continue
            return replace(one, alternatives=alternatives[number:])
        assert error is not None
        raise error

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
        step, mask = plan.delivery.mask, None
        if step is not None:
            for check in mask_checks(step):
                await self._pool.work(check)
        pictures = await self._pictures(plan)
        if step is not None:
            seconds = self._config.repeats.keep_seconds
            original = await deliverer.keep_input(step.original, seconds)
            mask = MaskKeys(original, await deliverer.keep_input(step.mask, seconds))
            self._recovery.keeps(prepared.id, mask, prepared.upstream)
        return pictures, mask

    async def _pictures(self, plan: Plan) -> tuple[Media, ...]:
        return tuple(await asyncio.gather(*(self._pool.run(begin_preparing, one) for one in plan.inputs)))

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
            reserve=prepared.reserve,
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
    ) -> list[Failure]:
        """Buy, and deliver. What is still to be entered in the journal with the answer is added to `moves`. Gives the
        failures of all pictures if they leave it to the next offer, and then has told nobody of them."""
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
            fates=Fates(self._recovery, prepared.id, plan),
            most=prepared.caller.concurrent_jobs,
            has_next=bool(prepared.alternatives),
            via=passed(terms.via, self._journal.owner, plan.model),
            price=None if prepared.quote.total is None else prepared.quote.total / plan.delivery.count,
        )
        held: list[Failure] = []  # failures that nobody needs to know of if the next offer does it
        holding = bool(prepared.alternatives)
        async with aclosing(self._dispatcher.run(order)) as calls:
            async for done in calls:
                if isinstance(done.error, ProviderError) and done.error.charged:
                    tally.charge(order.price_of(done.call))
                holding = holding and lets_next_try(done.error) and not run.stop.wanted
                events = events_of(plan, done)
                if holding:
                    held += [event for event in events if isinstance(event, Failure)]
                    continue
                for event in (*held, *events):
                    tally.add(event)
                    await run.tell(event)
                held.clear()
        return held

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


def _check_delivery(plan: Plan) -> None:
    """Whether what is owed can be made of a picture at all. Raises InvalidRequest, in the caller's own words."""
    words = {note.name: note.spelled for note in plan.notes if note.spelled}
    check_delivery(
        plan.delivery,
        format_word=words.get("output_format", "output_format"),
        size_word=next((words[name] for name in ("size", "width", "height") if name in words), "size"),
    )
