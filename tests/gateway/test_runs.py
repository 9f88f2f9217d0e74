"""Requests under way: who may join, who hears what, and when nobody waiting means that it stops."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing

import pytest

from app.errors import InternalError, Overloaded, RateLimited
from app.runs import ON_THE_WAY, SDK_PAUSE, Run, Runs
from app.types import Artefact, Caller, Outcome, Receipt, Terms
from providers.testing.clock import FakeClock, RealClock

pytestmark = pytest.mark.anyio

ANN, BOB = Caller("ann", "Ann"), Caller("bob", "Bob")
FIRST, AGAIN = Terms(repeats=0), Terms(repeats=1)


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def runs(*, finish: bool = False, join_seconds: float = 0, clock: FakeClock | None = None) -> Runs:
    return Runs(finish=finish, retry_seconds=900, join_seconds=join_seconds, clock=clock or FakeClock())


def made(run: Run) -> Outcome:
    receipt = Receipt(run.id, run.caller, "model", "fake", "fake/edit", "completed", None, "USD", 1, (), ())
    return Outcome("Fake", (), receipt)


async def forever() -> None:
    await asyncio.Event().wait()


class TestListening:
    async def test_who_comes_late_hears_everything_from_the_beginning(self) -> None:
        run = runs().new("r", ANN, "content", Terms())
        await run.tell(Artefact(0))
        early = asyncio.create_task(_all(run.events()))
        await asyncio.sleep(0)
        await run.tell(Artefact(1))
        late = asyncio.create_task(_all(run.events()))
        await run.end(made(run))
        assert await early == await late == [Artefact(0), Artefact(1), made(run)]
        assert await _all(run.events()) == [Artefact(0), Artefact(1), made(run)]

    async def test_an_error_reaches_every_listener(self) -> None:
        run = runs().new("r", ANN, "content", Terms())
        waiting = [asyncio.create_task(run.outcome()) for _ in range(3)]
        await asyncio.sleep(0)
        await run.end(RateLimited("later"))
        for one in waiting:
            with pytest.raises(RateLimited):
                await one

    async def test_what_is_refused_before_it_begins_is_known_at_once(self) -> None:
        run = runs().new("r", ANN, "content", Terms())
        waiting = asyncio.create_task(run.begun())
        await asyncio.sleep(0)
        await run.end(Overloaded("full"))
        with pytest.raises(Overloaded):
            await waiting

    async def test_what_fails_later_is_told_as_its_outcome(self) -> None:
        run = runs().new("r", ANN, "content", Terms())
        run.begin()
        await run.end(Overloaded("full"))
        await run.begun()
        with pytest.raises(Overloaded):
            await run.outcome()


class TestJoining:
    async def test_an_sdks_repeat_of_the_same_joins(self) -> None:
        all_runs = runs()
        run = all_runs.new("r", ANN, "content", FIRST)
        assert all_runs.like(ANN, "content", AGAIN) is run

    @pytest.mark.parametrize(
        ("caller", "content", "terms"),
        [
            (BOB, "content", AGAIN),  # somebody else
            (ANN, "other", AGAIN),  # something else
            (ANN, "content", FIRST),  # the same once more, on purpose
            (ANN, "content", Terms()),
            (ANN, "content", Terms("key", repeats=1)),  # under a key, which the first had not
        ],
    )
    async def test_nothing_else_does(self, caller: Caller, content: str, terms: Terms) -> None:
        all_runs = runs()
        all_runs.new("r", ANN, "content", FIRST)
        assert all_runs.like(caller, content, terms) is None

    async def test_an_idempotency_key_joins_without_being_a_repeat(self) -> None:
        all_runs = runs()
        run = all_runs.new("r", ANN, "content", Terms("key"))
        assert all_runs.like(ANN, "content", Terms("key")) is run
        assert all_runs.like(ANN, "content", Terms("other")) is None

    async def test_within_the_operators_window_everybody_joins(self) -> None:
        clock = FakeClock()
        all_runs = runs(join_seconds=5, clock=clock)
        run = all_runs.new("r", ANN, "content", Terms())
        clock.advance(4.9)
        assert all_runs.like(ANN, "content", Terms()) is run
        clock.advance(0.2)
        assert all_runs.like(ANN, "content", Terms()) is None

    async def test_a_run_that_was_given_up_is_joined_no_more(self) -> None:
        all_runs = runs()
        run = all_runs.new("r", ANN, "content", FIRST)
        run.stop.set()
        assert all_runs.like(ANN, "content", AGAIN) is None

    async def test_of_equals_that_lost_their_listeners_each_is_found_again(self) -> None:
        all_runs = runs()
        made = [all_runs.new(str(number), ANN, "content", FIRST) for number in range(3)]
        for place in range(3):
            found = all_runs.like(ANN, "content", AGAIN)
            assert found is made[place]
            found.join()

    async def test_of_equals_that_are_all_heard_the_youngest_is_joined(self) -> None:
        all_runs = runs()
        for id in ("old", "young"):
            all_runs.new(id, ANN, "content", FIRST).join()
        found = all_runs.like(ANN, "content", AGAIN)
        assert found is not None
        assert found.id == "young"

    async def test_work_that_fails_without_a_word_leaves_nobody_waiting(self) -> None:
        async def broken() -> None:
            raise KeyError("defect")

        all_runs = runs()
        run = all_runs.new("r", ANN, "content", FIRST)
        run.begin()
        all_runs.start(run, broken())
        with pytest.raises(InternalError):
            await run.outcome()

    async def test_a_run_whose_work_is_done_is_forgotten(self) -> None:
        all_runs = runs()
        run = all_runs.new("r", ANN, "content", FIRST)
        all_runs.start(run, asyncio.sleep(0))
        assert run.task is not None
        await run.task
        await asyncio.sleep(0)
        assert (len(all_runs), all_runs.get("r")) == (0, None)


class TestLeaving:
    async def test_the_last_one_to_leave_stops_it(self) -> None:
        all_runs = runs()
        run = all_runs.new("r", ANN, "content", Terms())
        with all_runs.listening(run):
            with all_runs.listening(run):
                pass
            await _turns()
            assert not run.stop.wanted, "somebody still listens"
        await _turns()
        assert run.stop.wanted

    @pytest.mark.parametrize(("terms", "finish"), [(Terms("key"), False), (Terms(), True)])
    async def test_what_was_promised_goes_on(self, terms: Terms, finish: bool) -> None:
        all_runs = runs(finish=finish)
        run = all_runs.new("r", ANN, "content", terms)
        with all_runs.listening(run):
            pass
        await _turns()
        assert not run.stop.wanted
        assert run.giving_up is None

    async def test_an_sdk_gets_the_time_that_it_needs_to_repeat(self) -> None:
        all_runs = runs()
        run = all_runs.new("r", ANN, "content", FIRST)
        with all_runs.listening(run):
            pass
        await asyncio.sleep(SDK_PAUSE * 0.9)
        with all_runs.listening(run):
            await asyncio.sleep(SDK_PAUSE + ON_THE_WAY)
            assert not run.stop.wanted, "the repeat came"
        await asyncio.sleep(SDK_PAUSE + ON_THE_WAY + 0.2)
        assert run.stop.wanted, "no other one did"

    async def test_while_a_repeat_is_still_being_read_nothing_is_given_up(self) -> None:
        all_runs = runs()
        run = all_runs.new("r", ANN, "content", Terms())
        with all_runs.expecting(ANN, AGAIN):
            with all_runs.listening(run):
                pass
            await _turns()
            assert not run.stop.wanted
        await _turns()
        assert run.stop.wanted, "it was about something else"

    async def test_only_a_repeat_of_the_same_caller_is_waited_for(self) -> None:
        all_runs = runs()
        run = all_runs.new("r", ANN, "content", Terms())
        with all_runs.expecting(BOB, AGAIN), all_runs.expecting(ANN, FIRST):
            with all_runs.listening(run):
                pass
            await _turns()
            assert run.stop.wanted

    async def test_at_the_end_of_the_process_clients_leave_because_of_us(self) -> None:
        all_runs = runs()
        run = all_runs.new("r", ANN, "content", Terms())
        with all_runs.listening(run):
            all_runs.closing = True
        await _turns()
        assert not run.stop.wanted


class TestTheEnd:
    async def test_drain_waits_for_the_work_but_not_for_ever(self) -> None:
        all_runs = Runs(finish=False, retry_seconds=900, join_seconds=0, clock=RealClock())
        quick, slow = (all_runs.new(id, ANN, id, Terms()) for id in ("quick", "slow"))
        all_runs.start(quick, asyncio.sleep(0.01))
        all_runs.start(slow, forever())
        await all_runs.drain(0.1)
        assert len(all_runs) == 1
        await all_runs.abandon()
        assert len(all_runs) == 0
        assert slow.task is not None
        assert slow.task.cancelled()


async def _all(events: AsyncGenerator[object, None]) -> list[object]:
    async with aclosing(events):
        return [event async for event in events]


async def _turns() -> None:
    """Let everybody who can go on."""
    for _ in range(5):
        await asyncio.sleep(0)
