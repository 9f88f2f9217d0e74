"""When an offer is left alone, who may try it meanwhile, and how soon it is back."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from itertools import count, pairwise
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from app.breaker import HEALTH, IN_A_ROW, LOCKS, PROBE_JOB_SECONDS, PROBE_SECONDS, Breaker, Breakers, BreakerView
from providers.base import Fault
from providers.testing.clock import FakeClock

DOWN = Fault.UNAVAILABLE
WORDS = [fault for fault in Fault if fault not in HEALTH]


class Offer:
    """One offer, its clock, and what was told of it."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.told: list[tuple[str, BreakerView]] = []
        self.breakers = Breakers(
            self.clock,
            lambda offer, view: self.told.append((offer, view)),
            first_probe=PROBE_SECONDS,
            longest_pause=PROBE_SECONDS,
        )

    def attempt(self) -> Breaker:
        """One that was let through."""
        attempt = self.breakers.of("fal/edit")
        assert attempt.admit() is None
        return attempt

    def job(self) -> Breaker:
        """One whose job was taken."""
        attempt = self.attempt()
        attempt.succeeded(accepted_only=True)
        return attempt

    def fails(self, times: int = 1, fault: Fault = DOWN) -> None:
        for _ in range(times):
            self.attempt().failed(fault, "It broke.")

    def succeeds(self, times: int = 1) -> None:
        for _ in range(times):
            self.job().succeeded()

    def wait(self) -> float | None:
        return self.breakers.of("fal/edit").peek()

    @property
    def view(self) -> BreakerView:
        return self.breakers.states().get("fal/edit", BreakerView("closed"))

    @property
    def state(self) -> str:
        return self.view.state

    @property
    def is_out(self) -> bool:
        return self.state != "closed"


@pytest.fixture
def offer() -> Offer:
    return Offer()


@pytest.fixture
def out(offer: Offer) -> Offer:
    """One that no job could be submitted to."""
    offer.fails(IN_A_ROW)
    return offer


@pytest.fixture
def out_by_jobs(offer: Offer) -> Offer:
    """One that took jobs and did not do them."""
    for attempt in [offer.job() for _ in range(IN_A_ROW)]:
        attempt.failed(DOWN, "It broke.")
    return offer


class TestGoingOut:
    @pytest.mark.parametrize("fault", sorted(HEALTH - LOCKS))
    def test_after_5_failures_in_a_row(self, offer: Offer, fault: Fault) -> None:
        offer.fails(4, fault)
        assert not offer.is_out
        offer.fails(1, fault)
        assert offer.wait() == PROBE_SECONDS

    def test_not_if_a_job_was_done_among_them(self, offer: Offer) -> None:
        for _ in range(4):
            offer.fails(4)
            offer.succeeds()
            offer.clock.advance(10)
        assert not offer.is_out

    @pytest.mark.parametrize("fault", sorted(LOCKS))
    def test_at_once_when_somebody_has_to_mend_it(self, offer: Offer, fault: Fault) -> None:
        assert not offer.breakers.of("fal/edit").locked
        offer.attempt().failed(fault, "The account is locked.")
        attempt = offer.breakers.of("fal/edit")
        assert (attempt.locked, attempt.reason) == (True, "The account is locked.")
        assert offer.is_out

    @pytest.mark.parametrize(("fault", "wait"), [(Fault.UNAUTHORIZED, None), (Fault.MISCONFIGURED, PROBE_SECONDS)])
    def test_an_endpoint_that_is_not_known_is_left_alone_longer_than_an_account(
        self, offer: Offer, fault: Fault, wait: float | None
    ) -> None:
        offer.attempt().failed(fault, "Somebody has to mend it.")
        assert (offer.is_out, offer.wait()) == (True, wait)

    @pytest.mark.parametrize("fault", WORDS)
    def test_never_by_what_a_provider_says_about_a_request(self, offer: Offer, fault: Fault) -> None:
        offer.fails(100, fault)
        assert not offer.is_out

    @pytest.mark.parametrize("fault", WORDS)
    def test_such_a_word_does_not_break_a_row_either(self, offer: Offer, fault: Fault) -> None:
        offer.fails(4)
        offer.fails(1, fault)
        offer.fails(1)
        assert offer.is_out

    def test_when_more_than_half_of_20_failed_within_30_seconds(self, offer: Offer) -> None:
        for _ in range(9):
            offer.succeeds()
            offer.fails()
        offer.fails()
        assert not offer.is_out  # 10 of 19
        offer.fails()
        assert offer.is_out

    def test_not_when_half_of_them_did(self, offer: Offer) -> None:
        for _ in range(50):
            offer.succeeds()
            offer.fails()
        assert not offer.is_out

    def test_not_when_it_took_them_longer(self, offer: Offer) -> None:
        for _ in range(20):
            offer.succeeds()
            offer.fails(2)
            offer.clock.advance(5)
        assert not offer.is_out

    def test_failures_of_submits_count_in_a_row_though_older_jobs_end_well(self, offer: Offer) -> None:
        older = [offer.job() for _ in range(10)]
        for attempt in older[:4]:
            offer.fails()
            attempt.succeeded()
        assert not offer.is_out
        offer.fails()
        assert offer.is_out

    def test_failures_of_jobs_count_in_a_row_though_more_are_taken(self, offer: Offer) -> None:
        jobs = [offer.job() for _ in range(IN_A_ROW)]
        for attempt in jobs:
            assert not offer.is_out
            offer.job()
            attempt.failed(DOWN, "It broke.")
        assert offer.is_out

    def test_what_hung_in_an_outage_that_is_over_is_no_row(self, offer: Offer) -> None:
        slow, hanging = offer.attempt(), list[Breaker]()
        for _ in range(10):
            offer.clock.advance(0.1)
            hanging.append(offer.attempt())
        offer.clock.advance(1)
        offer.succeeds()
        slow.succeeded()
        offer.clock.advance(13)
        for attempt in hanging:
            attempt.failed(Fault.TIMEOUT, "It hung.")
        assert not offer.is_out

    def test_a_job_that_was_taken_and_failed_is_one_failure_and_no_success(self, offer: Offer) -> None:
        for _ in range(2):
            offer.succeeds(2)
            for attempt in [offer.job() for _ in range(4)]:
                attempt.failed(DOWN, "It broke.")
        offer.succeeds(5)
        assert not offer.is_out
        for attempt in [offer.job() for _ in range(3)]:
            attempt.failed(DOWN, "It broke.")
        assert offer.is_out  # 11 of 20

    def test_not_by_chance_where_failures_are_common(self) -> None:
        for seed in range(20):
            offer, random = Offer(), Random(seed)
            offer.succeeds(20)
            for _ in range(3000):
                if random.random() < 0.3:
                    offer.fails()
                else:
                    offer.succeeds()
                offer.clock.advance(0.05)
            assert not offer.is_out

    def test_soon_all_the_same_where_failures_were_rare(self, offer: Offer) -> None:
        for _ in range(20):
            offer.succeeds(50)
            offer.fails()
            offer.clock.advance(1)
        offer.succeeds()
        offer.fails(IN_A_ROW)
        assert offer.is_out

    def test_each_offer_for_itself(self, out: Offer) -> None:
        assert out.breakers.of("fal/other").admit() is None
        assert [view.state for view in out.breakers.states().values()] == ["open", "closed"]

    def test_a_verdict_may_come_from_one_breaker_again_and_again(self, offer: Offer) -> None:
        one = offer.breakers.of("fal/edit")
        offer.clock.advance(1)
        offer.succeeds()
        for _ in range(IN_A_ROW):
            assert one.admit() is None
            one.failed(DOWN, "It broke.")
        assert one.admit() == PROBE_SECONDS
        offer.clock.advance(PROBE_SECONDS)
        assert one.admit() is None
        one.succeeded()
        assert one.admit() is None
        assert not offer.is_out


class TestWhileItIsOut:
    def test_nobody_is_let_through_until_the_probe_is_due(self, out: Offer) -> None:
        attempt = out.breakers.of("fal/edit")
        assert attempt.admit() == 5
        out.clock.advance(3)
        assert attempt.admit() == 2
        assert out.view == BreakerView("open", "It broke.", since=3, probe_due=2, fault=DOWN)

    def test_then_one_is_and_the_others_wait_for_the_next(self, out: Offer) -> None:
        out.clock.advance(7)
        assert out.wait() is None
        out.attempt()
        assert out.view == BreakerView("half_open", "It broke.", since=7, probe_due=5, fault=DOWN)
        assert [out.breakers.of("fal/edit").admit() for _ in range(3)] == [5, 5, 5]

    def test_to_look_takes_no_place(self, out: Offer) -> None:
        out.clock.advance(5)
        assert [out.breakers.of("fal/edit").peek() for _ in range(3)] == [None] * 3
        assert out.breakers.of("fal/edit").admit() is None

    def test_a_probe_that_fails_leaves_it_out_for_the_rest_of_the_interval(self, out: Offer) -> None:
        for _ in range(3):
            out.clock.advance(PROBE_SECONDS)
            probe = out.attempt()
            out.clock.advance(1)
            probe.failed(Fault.TIMEOUT, "It hung.")
            assert (out.wait(), out.view.why, out.state) == (4, "It hung.", "open")
            out.clock.advance(-1)

    def test_a_probe_that_hangs_does_not_hold_the_next_one_back(self, out: Offer) -> None:
        out.clock.advance(5)
        hanging = out.attempt()
        out.clock.advance(5)
        assert out.state == "open"
        probe = out.attempt()
        hanging.failed(Fault.TIMEOUT, "It hung.")
        assert out.state == "half_open"
        assert (out.wait(), out.view.why) == (5, "It broke.")
        probe.succeeded(accepted_only=True)
        assert not out.is_out

    def test_nor_does_one_that_was_given_up_whose_job_is_taken_late(self, out_by_jobs: Offer) -> None:
        out_by_jobs.clock.advance(5)
        slow = out_by_jobs.attempt()
        out_by_jobs.clock.advance(5)
        out_by_jobs.attempt()
        slow.succeeded(accepted_only=True)
        assert out_by_jobs.wait() == 5

    def test_a_probe_of_an_earlier_outage_means_nothing_in_the_next(self, out: Offer) -> None:
        out.clock.advance(5)
        earlier = out.attempt()
        out.clock.advance(5)
        out.succeeds()
        out.fails(IN_A_ROW)
        earlier.succeeded()
        assert out.state == "open"

    def test_a_probe_that_was_given_up_but_succeeds_counts(self, out: Offer) -> None:
        out.clock.advance(5)
        slow = out.attempt()
        out.clock.advance(5)
        out.attempt()
        slow.succeeded(accepted_only=True)
        assert not out.is_out

    def test_a_probe_that_is_cancelled_gives_its_place_to_the_next(self, out: Offer) -> None:
        out.clock.advance(5)
        out.attempt().left()
        assert out.state == "open"
        probe = out.attempt()
        assert out.wait() == 5
        probe.failed(DOWN, "It broke.")
        probe.left()
        assert out.wait() == 5

    @pytest.mark.parametrize("fault", [Fault.INVALID, Fault.REFUSED])
    def test_so_does_a_probe_that_was_a_bad_request(self, out: Offer, fault: Fault) -> None:
        out.clock.advance(5)
        out.attempt().failed(fault, "No.")
        assert out.view == BreakerView("open", "It broke.", since=5, probe_due=0, fault=DOWN)

    def test_a_probe_that_met_a_rate_limit_does_not_call_the_next(self, out: Offer) -> None:
        out.clock.advance(5)
        out.attempt().failed(Fault.RATE_LIMITED, "Too many.")
        assert out.view == BreakerView("open", "It broke.", since=5, probe_due=5, fault=DOWN)

    def test_what_was_under_way_before_changes_nothing(self, offer: Offer) -> None:
        under_way = [offer.job() for _ in range(20)] + [offer.attempt() for _ in range(20)]
        offer.fails(IN_A_ROW)
        offer.clock.advance(4)
        under_way.pop().failed(DOWN, "Late.")
        under_way.pop().failed(Fault.UNAUTHORIZED, "Late.")
        under_way.pop().succeeded()
        under_way.pop().left()
        assert offer.view == BreakerView("open", "It broke.", since=4, probe_due=1, fault=DOWN)
        offer.clock.advance(1)
        probe = offer.attempt()
        under_way.pop().failed(DOWN, "Late.")
        under_way.pop().left()
        assert offer.state == "half_open"
        probe.succeeded()
        for attempt in under_way:
            attempt.failed(DOWN, "Late.")
        assert not offer.is_out

    def test_a_locked_account_that_is_unlocked_but_ill_is_not_locked_any_more(self, offer: Offer) -> None:
        offer.fails(1, Fault.UNAUTHORIZED)
        assert offer.view.locked
        offer.clock.advance(5)
        offer.fails(1)
        assert offer.is_out
        assert not offer.view.locked


class TestComingBack:
    def test_a_probes_success_lets_everybody_through_and_forgets_the_past(self, out: Offer) -> None:
        out.clock.advance(5)
        out.attempt().succeeded()
        assert out.view == BreakerView("closed")
        assert (out.breakers.of("fal/edit").reason, out.breakers.of("fal/edit").locked) == ("", False)
        out.fails(4)
        assert not out.is_out
        out.fails()
        assert out.is_out

    def test_the_past_share_of_failures_is_forgotten_too(self, offer: Offer) -> None:
        for _ in range(9):
            offer.succeeds()
            offer.fails()
        offer.fails(2)
        assert offer.is_out
        offer.clock.advance(5)
        offer.succeeds()
        offer.fails(4)
        assert not offer.is_out

    @pytest.mark.parametrize("fault", [DOWN, Fault.UNAUTHORIZED])
    def test_if_submits_failed_a_submit_that_is_taken_is_enough(self, offer: Offer, fault: Fault) -> None:
        offer.fails(5 if fault is DOWN else 1, fault)
        offer.clock.advance(5)
        probe = offer.attempt()
        probe.succeeded(accepted_only=True)
        assert not offer.is_out
        offer.fails(4)
        probe.failed(DOWN, "It broke.")  # the same attempt's job: a failure like any other
        assert offer.is_out

    def test_if_jobs_failed_a_job_must_be_done(self, out_by_jobs: Offer) -> None:
        out_by_jobs.clock.advance(5)
        probe = out_by_jobs.attempt()
        out_by_jobs.clock.advance(2)
        probe.succeeded(accepted_only=True)
        assert out_by_jobs.state == "half_open"
        out_by_jobs.clock.advance(30)
        assert out_by_jobs.wait() == PROBE_JOB_SECONDS - 30
        probe.succeeded()
        assert not out_by_jobs.is_out

    def test_a_job_that_is_never_done_gives_its_place_up_after_a_minute(self, out_by_jobs: Offer) -> None:
        out_by_jobs.clock.advance(5)
        out_by_jobs.job()
        out_by_jobs.clock.advance(PROBE_JOB_SECONDS)
        assert out_by_jobs.breakers.of("fal/edit").admit() is None

    def test_a_job_that_fails_gives_its_place_up_at_once(self, out_by_jobs: Offer) -> None:
        out_by_jobs.clock.advance(5)
        probe = out_by_jobs.job()
        out_by_jobs.clock.advance(30)
        probe.failed(DOWN, "It broke.")
        assert out_by_jobs.state == "open"
        out_by_jobs.job().succeeded()
        assert not out_by_jobs.is_out

    def test_if_submits_failed_as_well_since_then_a_submit_is_enough_again(self, out_by_jobs: Offer) -> None:
        out_by_jobs.clock.advance(5)
        out_by_jobs.fails()
        out_by_jobs.clock.advance(5)
        out_by_jobs.job()
        assert not out_by_jobs.is_out

    def test_is_told_once_as_is_going_out(self, offer: Offer) -> None:
        offer.fails(IN_A_ROW)
        for _ in range(10):
            offer.clock.advance(5)
            offer.fails()
        offer.clock.advance(5)
        offer.succeeds(3)
        assert offer.told == [
            ("fal/edit", BreakerView("open", "It broke.", probe_due=5, fault=DOWN)),
            ("fal/edit", BreakerView("closed")),
        ]


class Upstream:
    """A provider that is down from 20 s on, and requests for it that come at most a second apart."""

    def __init__(self, random: Random, gap: float, seconds_down: float, seconds_a_job: float) -> None:
        self.random, self.gap, self.seconds_a_job = random, gap, seconds_a_job
        self.offer = Offer()
        self.start = self.offer.clock.now
        self.down, self.up = 20.0, 20.0 + seconds_down
        self.refused: list[float] = []  # when attempts were kept back
        self._due: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = count()
        self._useless = False

    @property
    def now(self) -> float:
        return self.offer.clock.now - self.start

    def run(self, until: float) -> None:
        self._later(0, self._request)
        while self._due and self._due[0][0] <= until:
            at, _, do = heapq.heappop(self._due)
            self.offer.clock.now = self.start + at
            do()

    def _later(self, seconds: float, do: Callable[[], None]) -> None:
        heapq.heappush(self._due, (self.now + seconds, next(self._numbers), do))

    def _request(self) -> None:
        self._later(self.random.uniform(0.5, 1) * self.gap, self._request)
        attempt = self.offer.breakers.of("fal/edit")
        wait = attempt.admit()
        if wait is not None:
            assert 0 < wait <= PROBE_SECONDS
            self.refused.append(self.now)
            return
        self._useless = not self._useless and self.random.random() < 0.2  # says nothing about the upstream
        if self._useless:
            invalid, seconds = self.random.random() < 0.5, self.random.uniform(0, 0.1)
            self._later(seconds, lambda: attempt.failed(Fault.INVALID, "No.") if invalid else attempt.left())
        elif self.down <= self.now < self.up:
            hangs = self.random.random() < 0.3
            fault, seconds = (Fault.TIMEOUT, 15.0) if hangs else (DOWN, self.random.uniform(0, 4))
            self._later(seconds, lambda: attempt.failed(fault, "It broke."))
        else:
            self._later(self.random.uniform(0, 1), lambda: self._taken(attempt))

    def _taken(self, attempt: Breaker) -> None:
        attempt.succeeded(accepted_only=True)
        self._later(self.random.uniform(0.5, 1) * self.seconds_a_job, attempt.succeeded)


class TestAnOutage:
    @given(
        seed=st.integers(0, 2**32),
        gap=st.floats(0.02, 1),
        seconds_down=st.floats(1, 100),
        seconds_a_job=st.floats(0.1, 200),
    )
    @settings(max_examples=40, deadline=None)
    def test_all_traffic_is_back_10_seconds_after_the_upstream_is(
        self, seed: int, gap: float, seconds_down: float, seconds_a_job: float
    ) -> None:
        upstream = Upstream(Random(seed), gap, seconds_down, seconds_a_job)
        upstream.run(until=upstream.up + 60)
        assert all(upstream.down < at < upstream.up + 10 for at in upstream.refused)
        assert upstream.refused or seconds_down < 60

    def test_at_100_requests_a_second_one_probe_an_interval_reaches_it(self, out: Offer) -> None:
        probes = []
        for step in range(6000):
            attempt = out.breakers.of("fal/edit")
            if attempt.admit() is None:
                probes.append(step / 100)
                attempt.failed(DOWN, "It broke.")
            out.clock.advance(0.01)
        assert len(probes) in (11, 12)
        assert all(later - sooner >= 4.99 for sooner, later in pairwise(probes))


class AnyOrder(RuleBasedStateMachine):
    """Attempts that begin and end in any order, and some that never do."""

    def __init__(self) -> None:
        super().__init__()
        self.offer = Offer()
        self.under_way: list[Breaker] = []
        self.offer.breakers.of("fal/edit")

    @rule(times=st.integers(1, 8))
    def come(self, times: int) -> None:
        was_out, let_through = self.offer.is_out, 0
        for _ in range(times):
            attempt = self.offer.breakers.of("fal/edit")
            wait = attempt.admit()
            assert wait is None or 0 < wait <= PROBE_JOB_SECONDS + 1e-6
            if wait is None:
                let_through += 1
                self.under_way.append(attempt)
        assert let_through <= 1 if was_out else let_through == times

    @rule(seconds=st.floats(0, 20))
    def wait(self, seconds: float) -> None:
        self.offer.clock.advance(seconds)

    @rule(pick=st.integers(0), fault=st.sampled_from([DOWN, DOWN, *Fault]))
    def fail(self, pick: int, fault: Fault) -> None:
        if self.under_way:
            self.under_way.pop(pick % len(self.under_way)).failed(fault, "It broke.")

    @rule(pick=st.integers(0), accepted_only=st.booleans())
    def succeed(self, pick: int, accepted_only: bool) -> None:
        if self.under_way:
            attempt = self.under_way[pick % len(self.under_way)]
            attempt.succeeded(accepted_only=accepted_only)
            if not accepted_only:
                self.under_way.remove(attempt)

    @rule(pick=st.integers(0))
    def leave(self, pick: int) -> None:
        if self.under_way:
            self.under_way.pop(pick % len(self.under_way)).left()

    @rule()
    def it_is_never_out_for_good(self) -> None:
        """Whatever else is under way: the next probe comes, and if all goes well it is the last."""
        self.offer.clock.advance(self.offer.wait() or 0)
        self.offer.clock.advance(0.001)
        self.offer.succeeds()
        assert not self.offer.is_out

    @invariant()
    def what_is_told_agrees(self) -> None:
        view = self.offer.view
        assert bool(view.why) == (view.state != "closed") == (view.probe_due is not None)
        assert self.offer.wait() == (view.probe_due or None)
        assert [told.state for _, told in self.offer.told] == ["open", "closed"] * (len(self.offer.told) // 2) + (
            ["open"] if self.offer.is_out else []
        )


AnyOrder.TestCase.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
TestAnyOrder = AnyOrder.TestCase


def test_the_first_probe_may_go_soon_and_each_next_one_later() -> None:
    clock = FakeClock()
    breakers = Breakers(clock)
    for _ in range(IN_A_ROW):
        breakers.of("fal/edit").failed(Fault.UNAVAILABLE, "It broke.")
    waits = []
    for _ in range(7):
        attempt = breakers.of("fal/edit")
        wait = attempt.admit()
        assert wait is not None
        waits.append(wait)
        clock.advance(wait)
        assert attempt.admit() is None
        attempt.failed(Fault.UNAVAILABLE, "It broke.")
    assert waits == [0.25, 0.5, 1, 1, 1, 1, 1]


def test_whether_an_account_is_still_locked_is_asked_whenever_nobody_else_does() -> None:
    clock = FakeClock()
    breakers = Breakers(clock)
    breakers.of("fal/edit").failed(Fault.UNAUTHORIZED, "It is locked.")
    first, second = breakers.of("fal/edit"), breakers.of("fal/edit")
    assert first.admit() is None
    assert second.admit() is not None, "one at a time"
    first.failed(Fault.UNAUTHORIZED, "It is locked.")
    assert second.admit() is None
    second.succeeded(accepted_only=True)
    assert breakers.states()["fal/edit"].state == "closed"
