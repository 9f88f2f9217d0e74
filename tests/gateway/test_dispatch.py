"""How calls are run: at once, submitted again only when that cannot pay twice, cancelled upstream when nobody waits."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from pathlib import Path
from random import Random
from typing import Any

import pytest

from app.admission import Admission
from app.breaker import Breakers
from app.catalogue.schema import Offer
from app.collecting import Order
from app.dispatch import LATER_SHARE, SUBMIT_TRIES, Dispatcher, Done
from app.errors import Cancelled, InternalError, ProviderMisconfigured, ProviderOut
from app.faults import FAULTS
from app.jobs import Job, Journal
from app.media.blob import MemoryBlob
from app.runs import Stop
from app.steps import Steps
from app.types import Attempt, Call, Caller, Delivery, Plan, Quote, Slot, Terms
from providers.base import Clock, Fault, Media, ProviderError, ProviderResult, Ticket
from providers.testing.clock import FakeClock, RealClock
from tests.fakes.journal import journal_in
from tests.fakes.provider import FakeProvider, Turn, hang, made, refusal, when

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(autouse=True)
async def journal(tmp_path: Path) -> AsyncIterator[Journal]:
    """Each test's own, in a real file; `Run` finds it here."""
    async with journal_in(tmp_path, RealClock()) as journal:
        Run.journal = journal
        yield journal


async def keep(call: Call, job: Job, ticket: Ticket, result: ProviderResult) -> ProviderResult:
    return result


def plan_of(*payloads: dict[str, Any]) -> Plan:
    offer = Offer(provider="fake", endpoint="fake/edit", params={})
    calls = tuple(Call(payload, first=index) for index, payload in enumerate(payloads))
    return Plan("model", offer, calls, (), Delivery(count=len(calls)), (), None)


class Run:
    """A dispatcher at work on `count` calls."""

    journal: Journal

    def __init__(
        self,
        provider: FakeProvider,
        count: int = 1,
        *,
        clock: Clock | None = None,
        seconds: float = 60.0,
        finish: Callable[[Call, Job, Ticket, ProviderResult], Awaitable[Any]] = keep,
        plan: Plan | None = None,
        pictures: tuple[Media, ...] = (),
        seed: int = 1,
        has_next: bool = False,
    ) -> None:
        self.clock = clock or FakeClock()
        self.breakers = Breakers(self.clock)
        admission = Admission(self.clock, jobs=0, jobs_per_key=0, queue=0)
        self.dispatcher = Dispatcher(self.clock, Random(seed), self.journal, admission, self.breakers)
        self.deadline = self.clock.monotonic() + seconds
        self.done: list[Done[Any]] = []
        self.attempts: list[Attempt] = []
        self.unsettled: list[tuple[str | None, bool]] = []  # upstream's id, and whether it is being cancelled
        self.held = 0
        self.stop = Stop()
        self.order = Order(
            request_id="req_1",
            key_id="key",
            plan=plan or plan_of(*({"seed": index} for index in range(count))),
            provider=provider,
            pictures=pictures,
            deadline=self.deadline,
            keep_results_seconds=600,
            stop=self.stop,
            attempts=self.attempts,
            steps=Steps(self.clock.monotonic),
            finish=finish,
            fates=self,
            has_next=has_next,
        )
        self.calls = self.dispatcher.run(self.order)

    def follow(self, job: Job, ticket: Ticket | None, *, cancelling: bool = False) -> None:
        self.unsettled.append((ticket.job if ticket else None, cancelling))

    def hold(self) -> None:
        self.held += 1

    async def release(self) -> None:
        self.held -= 1

    async def to_the_end(self) -> list[Done[Any]]:
        await self.open()
        async with aclosing(self.calls) as calls:
            async for one in calls:
                self.done.append(one)
        return self.done

    async def open(self) -> None:
        """The request's page: jobs belong to one."""
        quote = Quote("image", None, None, None, None)
        caller = Caller("key", "name")
        await self.journal.open(
            "req_1", caller, Terms(), "content", self.order.plan, quote, seconds=60, keep_seconds=60
        )

    async def states(self) -> list[str]:
        """Of all jobs, in the order of their calls and tries."""
        return [job.state for job in await self.journal.store.jobs_of("req_1")]


async def soon(true: Callable[[], bool]) -> None:
    """Let the loop turn until it is so."""
    for _ in range(1000):
        if true():
            return
        await asyncio.sleep(0.001)
    raise AssertionError("it did not come about")


class TestRunning:
    async def test_all_calls_run_at_once_and_come_in_the_order_in_which_they_end(self) -> None:
        gates = [asyncio.Event() for _ in range(4)]
        provider = FakeProvider(*(Turn(collect=when(gate, made())) for gate in gates))
        run = Run(provider, 4)
        running = asyncio.create_task(run.to_the_end())
        await soon(lambda: len(provider.collecting) == 4)
        for place, index in enumerate((2, 0, 3, 1), 1):
            gates[index].set()
            await soon(lambda place=place: len(run.done) == place)  # type: ignore[misc]
        await running
        assert [one.call.first for one in run.done] == [2, 0, 3, 1]

    async def test_a_call_says_what_it_made_and_how_each_attempt_went(self) -> None:
        provider = FakeProvider(
            Turn(submit=refusal(Fault.UNAVAILABLE, accepted=False)), Turn(collect=made(units="1.5"))
        )
        run = Run(provider)
        (one,) = await run.to_the_end()
        assert one.error is None
        assert isinstance(one.finished, ProviderResult)
        assert [(a.provider, a.endpoint, a.job, a.fault) for a in run.attempts] == [
            ("fake", "fake/edit", None, "unavailable"),
            ("fake", "fake/edit", "job-2", None),
        ]
        assert str(run.attempts[1].billable_units) == "1.5"

    async def test_one_failure_leaves_the_other_calls_alone(self) -> None:
        provider = FakeProvider(Turn(collect=refusal(Fault.REFUSED, accepted=True)))
        done = await Run(provider, 3).to_the_end()
        assert sorted((one.call.first, one.error is None) for one in done) == [(0, False), (1, True), (2, True)]

    async def test_a_provider_without_jobs_answers_at_submit(self) -> None:
        provider = FakeProvider(Turn(at_once=True))
        (one,) = await Run(provider).to_the_end()
        assert one.finished is not None
        assert provider.collecting == []

    async def test_the_adapter_learns_endpoint_request_lifetime_and_deadline(self) -> None:
        provider = FakeProvider()
        run = Run(provider)
        await run.to_the_end()
        (call,) = provider.submitted
        assert (call.endpoint, call.request_id, call.keep_results_seconds) == ("fake/edit", "req_1", 600)
        assert call.deadline == run.deadline
        assert provider.deadlines == [run.deadline]

    async def test_slots_become_pictures_however_deep_they_stand(self) -> None:
        pictures = tuple(Media(MemoryBlob(b"x"), "image/png", 1, 1, str(index)) for index in range(2))
        payload = {"a": Slot(1), "b": [Slot(0), "text"], "c": {"deep": [{"er": Slot(0)}]}, "d": 1}
        provider = FakeProvider()
        await Run(provider, plan=plan_of(payload), pictures=pictures).to_the_end()
        first, second = pictures
        assert provider.submitted[0].payload == {
            "a": second,
            "b": [first, "text"],
            "c": {"deep": [{"er": first}]},
            "d": 1,
        }


class TestSubmittingAgain:
    @pytest.mark.parametrize("fault", list(Fault))
    @pytest.mark.parametrize("accepted", [False, None, True])
    async def test_only_if_surely_no_job_was_made_and_the_faults_rule_allows_it(
        self, fault: Fault, accepted: bool | None
    ) -> None:
        provider = FakeProvider(Turn(submit=refusal(fault, accepted=accepted)))
        (one,) = await Run(provider).to_the_end()
        again = accepted is False and FAULTS[fault].retry_same
        assert len(provider.submitted) == (2 if again else 1)
        assert (one.error is None) is again

    async def test_not_when_the_provider_says_that_it_is_of_no_use(self) -> None:
        provider = FakeProvider(Turn(submit=refusal(Fault.UNAVAILABLE, accepted=False, final=True)))
        (one,) = await Run(provider).to_the_end()
        assert one.error is not None
        assert len(provider.submitted) == 1

    async def test_not_once_there_was_a_ticket_whatever_the_adapter_says_later(self) -> None:
        provider = FakeProvider(Turn(collect=refusal(Fault.UNAVAILABLE, accepted=False)))
        run = Run(provider)
        (one,) = await run.to_the_end()
        await run.dispatcher.settle()
        assert one.error is not None
        assert len(provider.submitted) == 1

    async def test_not_for_ever(self) -> None:
        provider = FakeProvider(otherwise=Turn(submit=refusal(Fault.UNAVAILABLE, accepted=False)))
        run = Run(provider)
        (one,) = await run.to_the_end()
        assert one.error is not None
        assert len(provider.submitted) == len(run.attempts) == SUBMIT_TRIES

    async def test_retry_after_is_obeyed(self) -> None:
        clock = FakeClock()
        provider = FakeProvider(Turn(submit=refusal(Fault.RATE_LIMITED, accepted=False, retry_after=7.0)))
        (one,) = await Run(provider, clock=clock).to_the_end()
        assert one.error is None
        assert 7.0 <= clock.sleeps[0] <= 7.0 * (1 + LATER_SHARE)
        assert len(clock.sleeps) == 1

    @pytest.mark.parametrize(("seconds", "waits"), [(1.0, True), (1.5, False), (None, True)])
    async def test_with_another_offer_at_hand_nobody_waits_long(self, seconds: float | None, waits: bool) -> None:
        clock = FakeClock()
        provider = FakeProvider(Turn(submit=refusal(Fault.RATE_LIMITED, accepted=False, retry_after=seconds)))
        (one,) = await Run(provider, clock=clock, has_next=True).to_the_end()
        assert (one.error is None, bool(clock.sleeps), len(provider.submitted)) == (waits, waits, 1 + waits)

    async def test_without_retry_after_the_pause_is_a_jittered_back_off(self) -> None:
        for fault, most in ((Fault.UNAVAILABLE, 0.4), (Fault.RATE_LIMITED, 2.0)):
            clock = FakeClock()
            for seed in range(100):
                turn = Turn(submit=refusal(fault, accepted=False))
                await Run(FakeProvider(turn), clock=clock, seed=seed).to_the_end()
            assert len(clock.sleeps) == 100
            assert 0 <= min(clock.sleeps) < most * 0.1
            assert most * 0.9 < max(clock.sleeps) <= most

    async def test_never_past_the_deadline(self) -> None:
        clock = FakeClock()
        provider = FakeProvider(Turn(submit=refusal(Fault.RATE_LIMITED, accepted=False, retry_after=60.0)))
        (one,) = await Run(provider, clock=clock, seconds=60).to_the_end()
        assert one.error is not None
        assert one.error.fault is Fault.RATE_LIMITED
        assert clock.sleeps == []
        assert len(provider.submitted) == 1

    async def test_nothing_is_submitted_when_the_time_is_already_over(self) -> None:
        provider = FakeProvider()
        (one,) = await Run(provider, seconds=0).to_the_end()
        assert one.error is not None
        assert (one.error.fault, one.error.accepted) == (Fault.TIMEOUT, False)
        assert provider.submitted == []


class TestStopping:
    async def test_a_stopped_run_cancels_its_jobs_upstream(self) -> None:
        provider = FakeProvider(Turn(), otherwise=Turn(collect=hang))
        run = Run(provider, 3)
        running = asyncio.create_task(run.to_the_end())
        await soon(lambda: len(provider.collecting) == 3)
        run.stop.set()
        done = await running
        assert sorted(provider.cancelled) == ["job-2", "job-3"]
        assert sorted(run.unsettled) == [("job-2", True), ("job-3", True)]
        assert [isinstance(one.error, Cancelled) for one in sorted(done, key=lambda one: one.call.first)] == [
            False,
            True,
            True,
        ]
        assert (await run.states())[1:] == ["cancelling", "cancelling"]

    async def test_what_is_done_already_is_collected_all_the_same(self) -> None:
        outcomes = iter([hang(), after_all()])
        provider = FakeProvider(Turn(collect=lambda: next(outcomes), cancel=False))
        run = Run(provider)
        running = asyncio.create_task(run.to_the_end())
        await soon(lambda: bool(provider.collecting))
        run.stop.set()
        (one,) = await running
        assert one.error is None, "paid pictures are never thrown away"
        assert run.unsettled == []

    async def test_a_submit_under_way_is_not_cut_and_its_job_is_cancelled_once_it_has_a_ticket(self) -> None:
        gate = asyncio.Event()
        provider = FakeProvider(Turn(submit=when(gate, None), collect=hang))
        run = Run(provider)
        running = asyncio.create_task(run.to_the_end())
        await soon(lambda: bool(provider.submitted))
        run.stop.set()
        await asyncio.sleep(0.01)
        assert provider.cancelled == []
        gate.set()
        await running
        assert provider.made == provider.cancelled == ["job-1"]

    async def test_nothing_is_submitted_any_more(self) -> None:
        provider = FakeProvider()
        run = Run(provider)
        run.stop.set()
        (one,) = await run.to_the_end()
        assert isinstance(one.error, Cancelled)
        assert provider.submitted == []
        assert await run.states() == []

    async def test_not_even_after_a_pause(self) -> None:
        provider = FakeProvider(otherwise=Turn(submit=refusal(Fault.UNAVAILABLE, accepted=False)))
        run = Run(provider, clock=RealClock())
        running = asyncio.create_task(run.to_the_end())
        await soon(lambda: bool(provider.submitted))
        run.stop.set()
        (one,) = await running
        assert one.error is not None
        assert len(provider.submitted) == 1

    @pytest.mark.parametrize("outcome", [True, refusal(Fault.TIMEOUT), KeyError("defect")])
    async def test_however_the_cancelling_goes_it_is_followed_up(self, outcome: Any) -> None:
        provider = FakeProvider(Turn(collect=hang, cancel=outcome))
        run = Run(provider)
        running = asyncio.create_task(run.to_the_end())
        await soon(lambda: bool(provider.collecting))
        run.stop.set()
        await running
        assert provider.cancelled == ["job-1"]
        assert run.unsettled == [("job-1", True)]


async def after_all() -> Any:
    return made()


class TestAbandoning:
    """What the end of the process looks like: upstream it goes on, the journal knows of it."""

    async def test_jobs_are_left_alone(self) -> None:
        provider = FakeProvider(otherwise=Turn(collect=hang))
        run = Run(provider, 2)
        running = asyncio.create_task(run.to_the_end())
        await soon(lambda: len(provider.collecting) == 2)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        await run.dispatcher.settle()
        assert provider.cancelled == []
        assert await run.states() == ["submitted", "submitted"]

    async def test_a_submit_under_way_still_gets_its_ticket_into_the_journal(self) -> None:
        gate = asyncio.Event()
        provider = FakeProvider(Turn(submit=when(gate, None)))
        run = Run(provider)
        running = asyncio.create_task(run.to_the_end())
        await soon(lambda: bool(provider.submitted))
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        assert await run.states() == ["intent"]
        gate.set()
        await run.dispatcher.settle()
        assert await run.states() == ["submitted"]

    async def test_no_task_is_left(self) -> None:
        before = asyncio.all_tasks()
        provider = FakeProvider(
            Turn(),
            Turn(submit=hang),
            Turn(collect=hang),
            Turn(collect=refusal(Fault.UNAVAILABLE, accepted=True)),
            Turn(submit=refusal(Fault.RATE_LIMITED, accepted=False, retry_after=30.0)),
        )
        run = Run(provider, 5, clock=RealClock())
        await run.open()
        async with aclosing(run.calls) as calls:
            async for _ in calls:
                await soon(lambda: len(provider.submitted) == 5)
                break
        abandoned = asyncio.all_tasks() - before
        assert len(abandoned) <= 4  # a submit that hangs and its watcher, two jobs that are being cancelled
        for task in abandoned:
            if "bound" in str(task.get_coro()):
                task.cancel()  # stands for the adapter's own time limit
        await asyncio.wait(asyncio.all_tasks() - before, timeout=1)
        assert asyncio.all_tasks() == before


class TestJournal:
    async def test_an_intent_is_written_before_the_submit_and_the_ticket_before_the_wait(self) -> None:
        seen: list[list[str]] = []

        async def look() -> Any:
            seen.append(await run.states())

        async def look_and_make() -> Any:
            seen.append(await run.states())
            return made()

        run = Run(FakeProvider(Turn(submit=look, collect=look_and_make)))
        await run.to_the_end()
        assert seen == [["intent"], ["submitted"]]

    @pytest.mark.parametrize(
        ("turn", "state"),
        [
            (Turn(submit=refusal(Fault.INVALID, accepted=False)), "failed"),
            (Turn(submit=refusal(Fault.UNAVAILABLE, accepted=None)), "ambiguous"),
            (Turn(submit=refusal(Fault.UNAVAILABLE, accepted=True, charged=False)), "failed"),
            (Turn(submit=refusal(Fault.UNAVAILABLE, accepted=True)), "ambiguous"),
            (Turn(submit=KeyError("defect")), "ambiguous"),
            (Turn(collect=refusal(Fault.REFUSED, accepted=True, charged=False)), "failed"),
            (Turn(collect=refusal(Fault.UNAVAILABLE, accepted=True, charged=False, cancelled=True)), "cancelled"),
            (Turn(collect=refusal(Fault.MALFORMED, accepted=True, lost=True)), "lost"),
            (Turn(collect=refusal(Fault.TIMEOUT, accepted=True)), "cancelling"),
        ],
    )
    async def test_every_end_is_entered(self, turn: Turn, state: str) -> None:
        run = Run(FakeProvider(turn))
        await run.to_the_end()
        assert await run.states() == [state]
        assert bool(run.unsettled) is (state in ("ambiguous", "lost", "cancelling"))

    async def test_a_submit_whose_answer_is_lost_is_never_repeated(self) -> None:
        provider = FakeProvider(otherwise=Turn(submit=refusal(Fault.TIMEOUT, accepted=None)))
        (one,) = await Run(provider).to_the_end()
        assert isinstance(one.error, ProviderError)
        assert len(provider.submitted) == 1


class TestHealth:
    async def test_an_offer_that_is_out_is_not_asked(self) -> None:
        provider = FakeProvider()
        run = Run(provider)
        for _ in range(5):
            run.breakers.of("fake/fake/edit").failed(Fault.UNAVAILABLE, "broken")
        (one,) = await run.to_the_end()
        assert isinstance(one.error, ProviderOut)
        assert one.error.retry_after
        assert provider.submitted == []

    async def test_a_locked_account_is_the_gateways_problem(self) -> None:
        gate = asyncio.Event()
        locked = refusal(Fault.UNAUTHORIZED, "locked", accepted=False)
        provider = FakeProvider(Turn(submit=locked), Turn(submit=when(gate, locked)))
        run = Run(provider)
        await run.to_the_end()
        probe = asyncio.create_task(anext(run.dispatcher.run(run.order)))
        await soon(lambda: len(provider.submitted) == 2)
        [done] = [one async for one in run.dispatcher.run(run.order)]
        assert isinstance(done.error, ProviderMisconfigured)
        assert len(provider.submitted) == 2, "one at a time asks whether it still is"
        gate.set()
        await probe

    async def test_a_deadline_that_was_too_short_is_no_fault_of_the_offer(self) -> None:
        run = Run(FakeProvider(otherwise=Turn(collect=hang)), 6, clock=RealClock(), seconds=0.05)
        await run.to_the_end()
        assert run.breakers.states()["fake/fake/edit"].state == "closed"


class TestTimeAndDefects:
    async def test_a_job_that_times_out_is_cancelled(self) -> None:
        provider = FakeProvider(Turn(collect=refusal(Fault.TIMEOUT, accepted=True)))
        run = Run(provider)
        (one,) = await run.to_the_end()
        await run.dispatcher.settle()
        assert one.error is not None
        assert one.error.fault is Fault.TIMEOUT
        assert provider.cancelled == ["job-1"]

    @pytest.mark.parametrize(
        "fault", [Fault.UNAVAILABLE, Fault.RATE_LIMITED, Fault.UNAUTHORIZED, Fault.MISCONFIGURED, Fault.MALFORMED]
    )
    async def test_a_job_that_was_lost_sight_of_is_cancelled(self, fault: Fault) -> None:
        provider = FakeProvider(Turn(collect=refusal(fault, accepted=True)))
        run = Run(provider)
        await run.to_the_end()
        await run.dispatcher.settle()
        assert provider.cancelled == ["job-1"]

    @pytest.mark.parametrize("fault", [Fault.INVALID, Fault.REFUSED])
    async def test_a_job_that_ended_by_its_own_verdict_is_not(self, fault: Fault) -> None:
        provider = FakeProvider(Turn(collect=refusal(fault, accepted=True)))
        run = Run(provider)
        await run.to_the_end()
        await run.dispatcher.settle()
        assert provider.cancelled == []

    async def test_an_adapter_that_ignores_the_deadline_does_not_hold_the_caller(self) -> None:
        provider = FakeProvider(Turn(collect=hang))
        run = Run(provider, clock=RealClock(), seconds=0.5)
        (one,) = await run.to_the_end()
        await run.dispatcher.settle()
        assert one.error is not None
        assert (one.error.fault, one.error.accepted) == (Fault.TIMEOUT, True)
        assert provider.cancelled == ["job-1"]

    async def test_a_submit_that_takes_too_long_is_left_and_its_job_cancelled_later(self) -> None:
        gate = asyncio.Event()
        provider = FakeProvider(Turn(submit=when(gate, None)))
        run = Run(provider, clock=RealClock(), seconds=0.05)
        (one,) = await run.to_the_end()
        assert one.error is not None
        assert (one.error.fault, one.error.accepted) == (Fault.TIMEOUT, None)
        assert run.held == 1, "its fate is still being found out"
        gate.set()
        await run.dispatcher.settle()
        assert provider.cancelled == ["job-1"]
        assert run.held == 0

    async def test_a_defect_leaves_the_other_calls_alone(self) -> None:
        async def broken(call: Call, job: Job, ticket: Ticket, result: ProviderResult) -> None:
            if call.first == 0:
                raise KeyError("defect")

        provider = FakeProvider(Turn(), Turn(collect=KeyError("defect")), Turn())
        run = Run(provider, 3, finish=broken)
        done = sorted(await run.to_the_end(), key=lambda one: one.call.first)
        assert [isinstance(one.error, InternalError) for one in done] == [True, True, False]
        assert run.unsettled == [("job-1", False), ("job-2", False)], "both are bought, and nobody has them"

    async def test_a_finish_whose_own_work_was_cancelled_does_not_leave_the_caller_waiting(self) -> None:
        async def cut(call: Call, job: Job, ticket: Ticket, result: ProviderResult) -> None:
            work = asyncio.ensure_future(asyncio.sleep(60))
            work.cancel()  # what a pool does that shuts down
            await work

        run = Run(FakeProvider(), finish=cut)
        with pytest.raises(asyncio.CancelledError):
            await asyncio.wait_for(run.to_the_end(), 1)


class TestPatience:
    async def test_a_cancellation_that_is_not_answered_does_not_hold_the_caller(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("app.collecting.PATIENCE_SECONDS", 0.05)
        gate = asyncio.Event()
        provider = FakeProvider(Turn(collect=refusal(Fault.TIMEOUT, accepted=True), cancel=when(gate, True)))
        run = Run(provider)
        (one,) = await run.to_the_end()
        assert isinstance(one.error, ProviderError)
        assert (run.held, run.unsettled) == (1, []), "somebody is still at it"
        gate.set()
        await run.dispatcher.settle()
        assert (run.held, run.unsettled) == (0, [("job-1", True)])


class TestRescue:
    """A job that could not be collected, and that it is too late to cancel, is done and paid for."""

    async def test_it_is_collected_after_all(self) -> None:
        outcomes = iter([refusal(Fault.UNAVAILABLE, accepted=True), made()])

        async def collect() -> Any:
            return next(outcomes)

        provider = FakeProvider(Turn(collect=collect, cancel=False))
        run = Run(provider)
        (one,) = await run.to_the_end()
        assert one.error is None
        assert provider.collecting == ["job-1", "job-1"]
        assert len(provider.submitted) == 1
        assert [(attempt.fault, attempt.charged) for attempt in run.attempts] == [(None, True)]

    async def test_what_was_cancelled_in_time_is_not_asked_for_again(self) -> None:
        provider = FakeProvider(Turn(collect=refusal(Fault.UNAVAILABLE, accepted=True), cancel=True))
        (one,) = await Run(provider).to_the_end()
        assert one.error is not None
        assert provider.collecting == ["job-1"]
        assert provider.cancelled == ["job-1"]
