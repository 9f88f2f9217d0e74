"""Which job runs when: limits, turns, and what those who cannot even wait are told."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterable
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from app.admission import Admission
from app.errors import RateLimited
from providers.testing.clock import FakeClock

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


class Jobs:
    """Jobs at one provider, each of which runs until it is ended."""

    def __init__(self, jobs: int = 0, jobs_per_key: int = 0, queue: int = 0) -> None:
        self.clock = FakeClock()
        self.admission = Admission(self.clock, jobs=jobs, jobs_per_key=jobs_per_key, queue=queue)
        self.tasks: dict[int, asyncio.Task[None]] = {}  # not ended; by number, in the order in which they came
        self.callers: dict[int, str] = {}
        self.inside: dict[int, asyncio.Event] = {}  # those that run, in the order in which they began
        self.order: list[str] = []  # whose jobs began, one after the other
        self._number = 0

    def add(self, caller: str, count: int = 1) -> list[int]:
        return [self._add(caller) for _ in range(count)]

    def _add(self, caller: str) -> int:
        self._number += 1
        number = self._number
        self.callers[number] = caller
        self.tasks[number] = asyncio.get_event_loop().create_task(self._job(number, caller))
        self.tasks[number].add_done_callback(lambda _: self.tasks.pop(number))
        return number

    async def _job(self, number: int, caller: str) -> None:
        async with self.admission.slot("fal", caller):
            self.order.append(caller)
            self.inside[number] = asyncio.Event()
            try:
                await self.inside[number].wait()
            finally:
                del self.inside[number]

    async def start(self, *callers: str) -> None:
        for caller in callers:
            self.add(caller)
        await turn()

    async def end(self, numbers: Iterable[int] | None = None, *, after: float = 0.0) -> None:
        """End these, or all that run now, `after` seconds."""
        self.clock.advance(after)
        for number in list(self.inside) if numbers is None else numbers:
            self.inside[number].set()
        await turn()

    async def end_all(self) -> None:
        while self.tasks:
            await self.end()

    def running(self) -> Counter[str]:
        return Counter(self.callers[number] for number in self.inside)

    def waiting(self) -> Counter[str]:
        return Counter(self.callers[number] for number in self.tasks if number not in self.inside)

    def refusal(self, caller: str = "a", jobs: int = 1) -> RateLimited:
        with pytest.raises(RateLimited) as refused:
            self.admission.check("fal", caller, jobs)
        return refused.value

    def retry_after(self, caller: str = "a", jobs: int = 1) -> float:
        seconds = self.refusal(caller, jobs).retry_after
        assert seconds is not None
        return seconds


async def turn() -> None:
    for _ in range(6):
        await asyncio.sleep(0)


class TestLimits:
    async def test_so_many_jobs_run_at_once_and_the_others_wait(self) -> None:
        jobs = Jobs(jobs=2)
        await jobs.start("a", "b", "c")
        assert (jobs.admission.running("fal"), jobs.admission.waiting("fal")) == (2, 1)
        assert jobs.order == ["a", "b"]
        await jobs.end_all()
        assert (jobs.admission.running("fal"), jobs.admission.waiting("fal")) == (0, 0)

    async def test_providers_do_not_share_their_slots(self) -> None:
        jobs = Jobs(jobs=1)
        await jobs.start("a")
        async with jobs.admission.slot("other", "a"):
            assert jobs.admission.running("other") == 1
        await jobs.end_all()

    async def test_who_is_at_their_own_limit_holds_nobody_up(self) -> None:
        jobs = Jobs(jobs=3, jobs_per_key=1)
        await jobs.start("a", "a", "a", "b")
        assert jobs.order == ["a", "b"]
        assert jobs.admission.waiting("fal") == 2
        await jobs.end_all()
        assert jobs.order == ["a", "b", "a", "a"]

    async def test_0_is_no_limit(self) -> None:
        jobs = Jobs()
        await jobs.start(*"aaaaaaaaaa")
        assert jobs.admission.running("fal") == 10
        jobs.admission.check("fal", "a", 1000)
        await jobs.end_all()

    async def test_a_failed_job_frees_its_slot(self) -> None:
        jobs = Jobs(jobs=1)
        with pytest.raises(KeyError):
            async with jobs.admission.slot("fal", "a"):
                raise KeyError
        assert jobs.admission.running("fal") == 0

    async def test_who_has_no_job_leaves_no_trace(self) -> None:
        jobs = Jobs(jobs=1)
        for number in range(50):
            jobs.add(str(number))
        await turn()
        assert jobs.admission.callers("fal") == 50
        for number in range(2, 20):
            jobs.tasks[number].cancel()
        await jobs.end_all()
        assert jobs.admission.callers("fal") == 0


class TestTurns:
    async def test_within_a_caller_first_come_is_first_served(self) -> None:
        jobs = Jobs(jobs=1)
        numbers = jobs.add("a", 20)
        await turn()
        began = []
        while jobs.tasks:
            began += list(jobs.inside)
            await jobs.end()
        assert began == numbers

    async def test_callers_take_turns(self) -> None:
        jobs = Jobs(jobs=1)
        await jobs.start(*"aaaabbc")
        await jobs.end_all()
        assert "".join(jobs.order) == "aabcaba"

    @pytest.mark.parametrize("slots", [1, 4])
    async def test_a_thousand_jobs_of_one_delay_anothers_by_one(self, slots: int) -> None:
        jobs = Jobs(jobs=slots)
        jobs.add("noisy", 1000)
        await turn()
        quiet = jobs.add("quiet", 5)
        await turn()
        before = len(jobs.order)
        while not all(number in jobs.inside for number in quiet[:1]):
            await jobs.end([next(iter(jobs.inside))])
        assert jobs.order[before:].count("noisy") <= 1
        while "quiet" in jobs.waiting():
            await jobs.end([next(iter(jobs.inside))])
        assert jobs.order[before:].count("noisy") <= 5
        for task in list(jobs.tasks.values()):
            task.cancel()
        await turn()
        assert (jobs.admission.running("fal"), jobs.admission.waiting("fal")) == (0, 0)

    @given(seed=st.integers(0, 2**32), slots=st.integers(1, 4), own=st.integers(0, 3))
    @settings(max_examples=40, deadline=None)
    def test_nobody_is_passed_over_twice_by_the_same_caller(self, seed: int, slots: int, own: int) -> None:
        async def run() -> None:
            random, jobs = Random(seed), Jobs(jobs=slots, jobs_per_key=own)
            passed: dict[str, Counter[str]] = {}  # who could have gone -> who went instead
            for _ in range(60):
                running, waiting = jobs.running(), jobs.waiting()
                ready = {caller for caller in waiting if not own or running[caller] < own}
                passed = {caller: passed.get(caller, Counter()) for caller in ready}
                before = len(jobs.order)
                if jobs.inside and random.random() < 0.5:
                    await jobs.end([random.choice(list(jobs.inside))])
                else:
                    await jobs.start(random.choice("aaaabc"))
                for went in jobs.order[before:]:
                    passed.pop(went, None)
                    for others in passed.values():
                        others[went] += 1
                        assert others[went] <= 1
            await jobs.end_all()

        asyncio.run(run())


class TestCancelling:
    async def test_who_leaves_the_queue_gives_up_their_place(self) -> None:
        jobs = Jobs(jobs=1)
        _, left, right = jobs.add("a", 3)
        await turn()
        jobs.tasks[left].cancel()
        await turn()
        assert jobs.admission.waiting("fal") == 1
        await jobs.end()
        assert list(jobs.inside) == [right]
        await jobs.end_all()

    async def test_a_slot_granted_and_cancelled_in_one_step_is_passed_on(self) -> None:
        jobs = Jobs(jobs=1)
        first, second, third = jobs.add("a", 3)
        await turn()
        jobs.inside[first].set()
        while jobs.admission.waiting("fal") == 2:
            await asyncio.sleep(0)
        assert not jobs.inside  # granted, but it does not know yet
        jobs.tasks[second].cancel()
        await turn()
        assert list(jobs.inside) == [third]
        await jobs.end_all()
        assert jobs.admission.running("fal") == 0

    async def test_who_is_cancelled_before_the_grant_is_not_granted(self) -> None:
        jobs = Jobs(jobs=1)
        first, second, third = jobs.add("a", 3)
        await turn()
        jobs.inside[first].set()
        jobs.tasks[second].cancel()
        await turn()
        assert list(jobs.inside) == [third]
        await jobs.end_all()


class TestChecking:
    async def test_what_could_not_even_wait_is_refused_and_told_what_is_full(self) -> None:
        jobs = Jobs(jobs=1, queue=2)
        await jobs.start("a", "a")
        jobs.admission.check("fal", "b", 1)
        error = jobs.refusal("b", 2)
        assert error.message == (
            "The gateway has 1 job waiting for fal, and no room for 2 more. Nothing was sent. Try again later."
        )
        assert error.status == 429
        await jobs.end_all()

    async def test_a_request_larger_than_the_queue_is_let_in_where_nobody_waits(self) -> None:
        jobs = Jobs(jobs=1, queue=2)
        jobs.admission.check("fal", "a", 10)
        await jobs.start("a")
        jobs.admission.check("fal", "a", 10)
        await jobs.start("a")
        jobs.refusal("a", 10)
        await jobs.end_all()

    async def test_who_could_run_at_once_is_not_kept_out_by_those_who_wait_for_themselves(self) -> None:
        jobs = Jobs(jobs=3, jobs_per_key=1, queue=2)
        await jobs.start("a", "a", "a")
        jobs.refusal("a")
        jobs.admission.check("fal", "b", 1)
        jobs.refusal("b", 2)
        await jobs.end_all()

    @pytest.mark.parametrize(("queue", "one_alone"), [(1, 1), (5, 5), (10, 9), (100, 81)])
    async def test_one_caller_does_not_fill_a_long_queue_alone(self, queue: int, one_alone: int) -> None:
        jobs = Jobs(jobs=1, queue=queue)
        await jobs.start("noisy")
        for _ in range(one_alone):
            jobs.admission.check("fal", "noisy", 1)
            await jobs.start("noisy")
        error = jobs.refusal("noisy")
        if one_alone < queue:
            assert error.message.startswith(f"You have {one_alone} jobs waiting for fal; the room that is left is for")
            jobs.admission.check("fal", "quiet", queue - one_alone)
            jobs.refusal("quiet", queue - one_alone + 1)
        await jobs.end_all()


class TestRetryAfter:
    async def full(self, *seconds: float, slots: int = 1, queue: int = 4) -> Jobs:
        """A full queue, after jobs that took so long."""
        jobs = Jobs(jobs=slots, queue=queue)
        for each in seconds:
            await jobs.start("a")
            await jobs.end(after=each)
        await jobs.start(*"a" * (slots + queue))
        return jobs

    async def test_is_the_time_in_which_those_who_wait_will_have_had_their_turn(self) -> None:
        jobs = await self.full(*[3.0] * 5)
        assert jobs.retry_after() == 12
        await jobs.end_all()

    async def test_is_less_with_more_slots(self) -> None:
        jobs = await self.full(*[3.0] * 5, slots=2)
        assert jobs.retry_after() == 6
        await jobs.end_all()

    async def test_follows_how_fast_slots_are_freed_lately(self) -> None:
        jobs = await self.full(*[20.0] * 40, *[2.0] * 40)
        assert jobs.retry_after() == pytest.approx(8, rel=0.2)
        await jobs.end_all()

    async def test_grows_while_nothing_ends(self) -> None:
        jobs = await self.full(2.0)
        assert jobs.retry_after() == 8
        jobs.clock.advance(15)
        assert jobs.retry_after() == 60
        await jobs.end_all()

    @pytest.mark.parametrize(("seconds", "told"), [(0.001, 1), (1000.0, 120)])
    async def test_is_at_least_1_and_at_most_120_seconds(self, seconds: float, told: float) -> None:
        jobs = await self.full(*[seconds] * 3)
        assert jobs.retry_after() == told
        await jobs.end_all()

    async def test_without_any_history_is_a_guess(self) -> None:
        jobs = await self.full()
        assert jobs.retry_after() == 40
        await jobs.end_all()

    async def test_of_a_caller_at_their_own_limit_is_about_their_own_jobs(self) -> None:
        jobs = Jobs(jobs=10, jobs_per_key=1, queue=4)
        await jobs.start("b", "c", "d")
        await jobs.start(*"aaaaa")
        assert jobs.admission.running("fal") == 4
        assert jobs.retry_after("a") == 40
        await jobs.end_all()


class Schedules(RuleBasedStateMachine):
    """Any order of arrivals, ends and cancellations, with the loop turned one step at a time between them."""

    @initialize(jobs=st.integers(0, 4), own=st.integers(0, 3), queue=st.integers(0, 6))
    def begin(self, jobs: int, own: int, queue: int) -> None:
        self.loop = asyncio.new_event_loop()
        asyncio.set_event_loop(self.loop)
        self.most, self.own, self.queue = jobs, own, queue
        self.jobs = Jobs(jobs, own, queue)

    @rule(caller=st.sampled_from("aabc"), count=st.integers(1, 3))
    def arrive(self, caller: str, count: int) -> None:
        self.settle()
        before = self.jobs.admission.waiting("fal")
        try:
            self.jobs.admission.check("fal", caller, count)
        except RateLimited:
            assert before
            assert 1 <= self.jobs.retry_after(caller, count) <= 120
            return
        self.jobs.add(caller, count)
        self.settle()
        if self.queue and before:
            assert self.jobs.admission.waiting("fal") <= max(self.queue, before)

    @precondition(lambda self: self.jobs.inside)
    @rule(pick=st.integers(0), seconds=st.floats(0, 300))
    def end(self, pick: int, seconds: float) -> None:
        self.jobs.clock.advance(seconds)
        list(self.jobs.inside.values())[pick % len(self.jobs.inside)].set()

    @precondition(lambda self: self.jobs.tasks)
    @rule(pick=st.integers(0))
    def cancel(self, pick: int) -> None:
        list(self.jobs.tasks.values())[pick % len(self.jobs.tasks)].cancel()

    @rule(steps=st.integers(1, 3))
    def turn(self, steps: int) -> None:
        for _ in range(steps):
            self.loop.call_soon(self.loop.stop)
            self.loop.run_forever()

    def settle(self) -> None:
        self.turn(8)

    @invariant()
    def limits_hold(self) -> None:
        running, granted = self.jobs.running(), self.jobs.admission.running("fal")
        assert sum(running.values()) <= granted
        assert not self.most or granted <= self.most
        assert not self.own or max(running.values(), default=0) <= self.own

    @rule()
    def no_slot_is_idle_while_somebody_could_use_it(self) -> None:
        self.settle()
        running, waiting = self.jobs.running(), self.jobs.waiting()
        assert self.jobs.admission.running("fal") == running.total()
        assert self.jobs.admission.waiting("fal") == waiting.total()
        assert self.jobs.admission.callers("fal") == len(running | waiting)
        if not self.most or running.total() < self.most:
            assert all(self.own and running[caller] >= self.own for caller in waiting)

    def teardown(self) -> None:
        if not hasattr(self, "loop"):
            return
        for _ in range(1000):
            if not self.jobs.tasks:
                break
            for event in self.jobs.inside.values():
                event.set()
            self.settle()
        admission = self.jobs.admission
        asyncio.set_event_loop(None)
        self.loop.close()
        assert not self.jobs.tasks, "somebody starved"
        assert (admission.running("fal"), admission.waiting("fal"), admission.callers("fal")) == (0, 0, 0)


Schedules.TestCase.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
TestSchedules = Schedules.TestCase
