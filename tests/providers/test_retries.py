"""Asking again: how long the pauses are, what the budget lends, when a step is given up."""

from __future__ import annotations

import itertools
from collections.abc import Awaitable, Callable
from random import Random

import pytest

from providers.base import Fault, ProviderError
from providers.retries import CAP_SECONDS, Doubted, Retries, RetryBudget, backoff, poll_intervals
from providers.testing.clock import FakeClock
from providers.testing.kit import failure_of

pytestmark = pytest.mark.anyio


def error(fault: Fault = Fault.UNAVAILABLE, **facts: object) -> ProviderError:
    return ProviderError(fault, "scripted", **facts)  # type: ignore[arg-type]


def doubted() -> Doubted:
    return Doubted(Fault.MALFORMED, "not found", looks=4, seconds=10.0, lost=True)


class Steps:
    """A step that fails as scripted, then for ever as its last outcome says; it remembers when it was tried."""

    def __init__(self, clock: FakeClock, *outcomes: ProviderError | Callable[[], ProviderError] | None) -> None:
        self.clock = clock
        self.outcomes = list(outcomes)
        self.times: list[float] = []
        self.lefts: list[float] = []

    async def __call__(self, left: float) -> str:
        self.times.append(self.clock.now)
        self.lefts.append(left)
        outcome = self.outcomes.pop(0) if len(self.outcomes) > 1 else self.outcomes[0]
        if outcome is None:
            return "done"
        raise outcome() if callable(outcome) else outcome


class Empty(RetryBudget):
    def take(self) -> bool:
        return False


def retries(clock: FakeClock, budget: RetryBudget | None = None, seed: int = 1) -> Retries:
    return Retries(clock, Random(seed), budget or RetryBudget(clock))


class TestPauses:
    @pytest.mark.parametrize(
        ("fault", "tries", "longest"),
        [
            (Fault.UNAVAILABLE, 1, 0.4),
            (Fault.UNAVAILABLE, 2, 0.8),
            (Fault.TIMEOUT, 5, 6.4),
            (Fault.UNAVAILABLE, 7, 20.0),
            (Fault.UNAVAILABLE, 100_000, 20.0),
            (Fault.RATE_LIMITED, 1, 2.0),
            (Fault.RATE_LIMITED, 4, 16.0),
            (Fault.RATE_LIMITED, 5, 20.0),
        ],
    )
    def test_they_are_anything_from_nothing_to_an_exponential_limit(
        self, fault: Fault, tries: int, longest: float
    ) -> None:
        random = Random(0)
        drawn = [backoff(random, fault, tries) for _ in range(2000)]
        assert 0 <= min(drawn) < 0.02 * longest
        assert 0.98 * longest < max(drawn) <= longest
        assert sum(drawn) / 2000 == pytest.approx(longest / 2, rel=0.05)

    async def test_a_retry_after_is_waited_out_before_the_jitter_begins(self) -> None:
        for seed in range(50):
            clock = FakeClock()
            step = Steps(clock, error(Fault.RATE_LIMITED, retry_after=7.0), None)
            assert await retries(clock, seed=seed).follow(step, clock.now + 60) == "done"
            assert 7.0 <= clock.sleeps[0] <= 9.0

    async def test_a_retry_after_past_the_deadline_ends_it_at_once(self) -> None:
        for how in ("follow", "persist"):
            clock = FakeClock()
            step = Steps(clock, error(Fault.RATE_LIMITED, retry_after=60.0))
            more = {"tries": 5} if how == "persist" else {}
            failed = await failure_of(getattr(retries(clock), how)(step, clock.now + 60, **more))
            assert (failed.fault, clock.sleeps) == (Fault.RATE_LIMITED, [])

    async def test_no_two_clients_pause_alike(self) -> None:
        pauses = set()
        for seed in range(100):
            clock = FakeClock()
            await retries(clock, seed=seed).follow(Steps(clock, error(), None), clock.now + 60)
            pauses.add(round(clock.sleeps[0], 4))
        assert len(pauses) > 90


class TestPollIntervals:
    @pytest.mark.parametrize(("job", "most"), [(0.5, 6), (2, 21), (10, 55), (60, 105), (300, 225)])
    def test_a_job_costs_few_looks(self, job: float, most: int) -> None:
        looks = next(number for number, at in enumerate(itertools.accumulate(poll_intervals()), 1) if at >= job)
        assert looks <= most

    @pytest.mark.parametrize("tenths", range(20, 400, 7))
    def test_and_hardly_any_delay(self, tenths: int) -> None:
        job = tenths / 10
        found = next(at for at in itertools.accumulate(poll_intervals()) if at >= job)
        assert found - job <= max(0.05 * job, 0.1) + 1e-9

    def test_never_longer_than_two_seconds(self) -> None:
        assert max(itertools.islice(poll_intervals(), 500)) == 2.0


class TestBudget:
    def taken(self, budget: RetryBudget, most: int = 1000) -> int:
        return next(number for number in range(most) if not budget.take())

    def test_ten_retries_in_ten_seconds_are_always_there(self) -> None:
        clock = FakeClock()
        budget = RetryBudget(clock)
        assert self.taken(budget) == 10
        clock.advance(9)
        assert self.taken(budget) == 0
        clock.advance(1)
        assert self.taken(budget) == 10

    def test_five_first_tries_earn_one_retry(self) -> None:
        budget = RetryBudget(FakeClock())
        for _ in range(500):
            budget.first()
        assert self.taken(budget) == 100

    def test_what_was_earned_is_forgotten_after_ten_seconds(self) -> None:
        clock = FakeClock()
        budget = RetryBudget(clock)
        for _ in range(500):
            budget.first()
        clock.advance(5)
        for _ in range(100):
            budget.first()
        clock.advance(5)
        assert self.taken(budget) == 20
        clock.advance(30)
        assert self.taken(budget) == 10

    @pytest.mark.parametrize("seed", range(5))
    def test_in_no_ten_seconds_is_there_more_than_the_fifth_and_the_floor(self, seed: int) -> None:
        clock, random = FakeClock(), Random(seed)
        budget = RetryBudget(clock)
        firsts: list[float] = []
        taken: list[float] = []
        for _ in range(3000):
            clock.advance(random.choice([0.0, 0.0, 0.01, 0.5, 3.0]))
            if random.random() < 0.6:
                budget.first()
                firsts.append(clock.now)
            elif budget.take():
                taken.append(clock.now)
            recent = sum(at > clock.now - 9 for at in taken)
            assert recent <= max(10, 0.2 * sum(at > clock.now - 10 for at in firsts))

    def test_its_memory_is_as_long_as_its_window(self) -> None:
        clock = FakeClock()
        budget = RetryBudget(clock)
        for _ in range(10_000):
            clock.advance(0.7)
            budget.first()
            budget.take()
        assert len(budget._counts) <= 11


Method = Callable[..., Awaitable[str]]


class TestBeforeAJobExists:
    async def test_a_hiccup_is_survived(self) -> None:
        clock = FakeClock()
        step = Steps(clock, error(), error(), None)
        assert await retries(clock).persist(step, clock.now + 60, tries=3) == "done"
        assert len(clock.sleeps) == 2

    async def test_after_so_many_tries_it_fails_and_no_job_was_made(self) -> None:
        clock = FakeClock()
        failed = await failure_of(retries(clock).persist(Steps(clock, error()), clock.now + 60, tries=3))
        assert (failed.fault, failed.accepted, len(clock.sleeps)) == (Fault.UNAVAILABLE, False, 2)

    async def test_without_a_budget_it_fails_at_once(self) -> None:
        clock = FakeClock()
        step = Steps(clock, error())
        await failure_of(retries(clock, Empty(clock)).persist(step, clock.now + 60, tries=3))
        assert (len(step.times), clock.sleeps) == (1, [])

    async def test_what_is_final_is_not_repeated(self) -> None:
        clock = FakeClock()
        step = Steps(clock, error(final=True))
        await failure_of(retries(clock).persist(step, clock.now + 60, tries=3))
        assert len(step.times) == 1

    async def test_after_the_deadline_nothing_is_tried(self) -> None:
        clock = FakeClock()
        step = Steps(clock, None)
        failed = await failure_of(retries(clock).persist(step, clock.now, tries=3, accepted=None))
        assert (failed.fault, failed.accepted, step.times) == (Fault.TIMEOUT, None, [])


class TestAJobThatExists:
    async def test_it_is_followed_until_the_deadline(self) -> None:
        for seed in range(20):
            clock = FakeClock()
            step = Steps(clock, lambda: error())
            failed = await failure_of(retries(clock, seed=seed).follow(step, clock.now + 180))
            assert (failed.fault, failed.accepted) == (Fault.UNAVAILABLE, True)
            assert 1178 < step.times[-1] < 1180
            assert max(b - a for a, b in itertools.pairwise(step.times)) <= CAP_SECONDS

    async def test_without_a_budget_it_waits_longer_but_goes_on(self) -> None:
        for seed in range(20):
            clock = FakeClock()
            step = Steps(clock, lambda: error())
            await failure_of(retries(clock, Empty(clock), seed=seed).follow(step, clock.now + 180))
            pauses = [b - a for a, b in itertools.pairwise(step.times)]
            limits = [2.0, 4.0, 8.0, 16.0, *[CAP_SECONDS] * 20]
            grown = list(zip(pauses[:-1], limits, strict=False))
            assert all(limit / 2 <= pause <= limit for pause, limit in grown)
            assert len(step.times) <= 1 + 4 + 180 / (CAP_SECONDS / 2) + 1
            assert step.times[-1] > 1180 - CAP_SECONDS, "one last look, half-way to the deadline"

    async def test_a_recovery_is_seen_however_late_it_comes(self) -> None:
        for late in (1.0, 20.0, 100.0, 170.0):
            clock = FakeClock()
            done = clock.now + late

            async def step(left: float, clock: FakeClock = clock, done: float = done) -> str:
                if clock.now < done:
                    raise error()
                return "done"

            assert await retries(clock).follow(step, clock.now + 180) == "done"
            assert clock.now - done <= CAP_SECONDS

    async def test_a_step_is_told_how_much_time_is_left(self) -> None:
        clock = FakeClock()
        step = Steps(clock, error(), None)
        await retries(clock).follow(step, clock.now + 60)
        assert step.lefts == [60.0, pytest.approx(60.0 - clock.sleeps[0])]

    async def test_so_many_tries_and_no_more_where_that_is_asked_for(self) -> None:
        clock = FakeClock()
        step = Steps(clock, error())
        await failure_of(retries(clock).follow(step, clock.now + 600, tries=5))
        assert len(step.times) == 5

    async def test_what_is_final_is_not_repeated(self) -> None:
        clock = FakeClock()
        step = Steps(clock, error(), error(final=True))
        failed = await failure_of(retries(clock).follow(step, clock.now + 60))
        assert (failed.final, failed.accepted, len(step.times)) == (True, True, 2)

    async def test_a_doubted_answer_is_believed_when_it_stays(self) -> None:
        for seed in range(20):
            clock = FakeClock()
            step = Steps(clock, doubted)
            failed = await failure_of(retries(clock, seed=seed).follow(step, clock.now + 180))
            assert (failed.final, failed.lost, failed.accepted) == (True, True, True)
            assert len(step.times) >= 4
            assert step.times[-1] - step.times[0] >= 10
            assert step.times[-2] - step.times[0] < 10 or len(step.times) == 4

    async def test_a_doubt_begins_anew_after_another_answer(self) -> None:
        clock = FakeClock()
        step = Steps(clock, doubted, doubted, doubted, error(), doubted, doubted, doubted, None)
        assert await retries(clock).follow(step, clock.now + 180) == "done"

    async def test_at_the_deadline_a_doubted_answer_is_not_believed_yet(self) -> None:
        clock = FakeClock()
        failed = await failure_of(retries(clock).follow(Steps(clock, doubted), clock.now + 5))
        assert (failed.final, failed.lost) == (False, True)
