"""A result that is paid for is asked for until it is there; what cannot be had in the end is told to be lost."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest

from providers.base import Fault, ProviderResult
from providers.fal import FalProvider, Patience
from providers.testing.clock import FakeClock
from providers.testing.kit import failure_of, picture
from tests.fakes.fal_calls import EDIT
from tests.providers.upstream import FalUpstream

pytestmark = pytest.mark.anyio


def results_asked(fal: FalUpstream) -> int:
    return fal.asked(f"/requests/{fal.sandbox.jobs()[0]['request_id']}")


async def collected(fal: FalUpstream, provider: FalProvider, clock: FakeClock, seconds: float = 180) -> ProviderResult:
    """A job that is done, fetched on a clock that does not wait."""
    ticket = await provider.submit(fal.call(picture()))
    await fal.finished()
    return await provider.collect(ticket, clock.now + seconds)


HICCUPS: list[tuple[str, dict[str, Any]]] = [
    ("http", {"status": 502}),
    ("http", {"status": 500}),
    ("http", {"status": 400, "body": {"detail": "Request is still in progress"}}),
    ("http", {"status": 200, "body": {"status": "IN_PROGRESS"}}),
    ("http", {"status": 200, "body": "<html>welcome to this hotel", "headers": {"content-type": "text/html"}}),
    ("http", {"status": 200, "body": [1, 2]}),
    ("http", {"status": 200, "body": "null"}),
    ("http", {"status": 202, "body": {"status": "IN_PROGRESS"}}),
    ("http", {"status": 204, "body": ""}),
    *[("http", {"status": status}) for status in (400, 401, 403, 404, 405, 408, 409, 410, 418, 499)],
    ("lose_result", {}),
    ("unauthorized", {}),
    ("locked", {}),
    ("redirect", {}),
    ("unavailable_nginx", {"status": 503}),
    ("unavailable_nginx", {"status": 504}),
    ("rate_limit", {"retry_after": 1}),
    ("drop_before", {}),
    ("drop_after", {}),
    ("truncate", {}),
    ("garbage_json", {}),
]


@pytest.mark.parametrize(("fault", "arguments"), HICCUPS)
async def test_a_hiccup_of_the_result_is_survived(fal: FalUpstream, fault: str, arguments: dict[str, Any]) -> None:
    fal.on("result", fault, times=4, **arguments)
    clock = FakeClock()
    assert (await collected(fal, fal.provider(clock=clock), clock)).images
    assert len(clock.sleeps) == 4
    totals = fal.sandbox.totals()
    assert (totals["submitted"], totals["billed"], totals["billed_uncollected"]) == (1, 1, 0)


async def test_in_a_hail_of_all_of_them_every_job_is_collected_once(fal: FalUpstream) -> None:
    rules = [
        {"on": point, "fault": fault, "args": arguments, "times": None, "chance": 0.03}
        for point in ("status", "result")
        for fault, arguments in HICCUPS
        if (point, fault) != ("status", "lose_result")
    ]
    fal.sandbox.script(*rules)  # about half of all looks fail, each in its own way
    clock = FakeClock()
    provider = fal.provider(clock=clock)
    tickets = [await provider.submit(fal.call(picture(), seed=seed)) for seed in range(12)]
    await fal.finished()
    for seed, ticket in enumerate(tickets):
        assert (await provider.collect(ticket, clock.now + 180)).seed == seed
    totals = fal.sandbox.totals()
    assert (totals["submitted"], totals["billed"], totals["billed_uncollected"]) == (12, 12, 0)
    assert sum(rule["struck"] for rule in fal.sandbox.rules()) >= 12


async def test_a_result_that_hangs_is_cut_and_asked_for_again(fal: FalUpstream) -> None:
    fal.on("result", "hang")
    assert (await fal.edit(fal.provider(patience=Patience(result=0.3)))).images


@pytest.mark.parametrize(
    ("fault", "arguments", "expected"),
    [
        ("garbage_json", {}, Fault.MALFORMED),
        ("truncate", {}, Fault.UNAVAILABLE),
        ("http", {"status": 502}, Fault.UNAVAILABLE),
        ("http", {"status": 400, "body": {"detail": "Request is still in progress"}}, Fault.UNAVAILABLE),
        ("unauthorized", {}, Fault.UNAUTHORIZED),
        ("locked", {}, Fault.UNAUTHORIZED),
        ("http", {"status": 409}, Fault.UNAVAILABLE),
        ("redirect", {}, Fault.MALFORMED),
    ],
)
async def test_a_result_that_cannot_be_had_by_the_deadline_is_lost_and_worth_asking_for_again(
    fal: FalUpstream, fault: str, arguments: dict[str, Any], expected: Fault
) -> None:
    fal.on("result", fault, times=None, **arguments)
    clock = FakeClock()
    began = clock.now
    provider = fal.provider(clock=clock)
    error = await failure_of(collected(fal, provider, clock))
    assert error.fault in (expected, Fault.TIMEOUT)  # the last look has little time for its answer
    assert (error.accepted, error.charged, error.lost) == (True, None, True)
    assert began + 178 < clock.now < began + 180
    assert fal.sandbox.totals()["billed_uncollected"] == 1
    fal.sandbox.clear_script()  # much later
    ticket = provider._ticket(EDIT, fal.sandbox.jobs()[0]["request_id"], {})
    assert (await provider.collect(ticket, clock.now + 60)).images
    assert fal.sandbox.totals()["billed_uncollected"] == 0


async def test_a_result_whose_deadline_came_before_it_was_asked_for_is_lost(fal: FalUpstream) -> None:
    class Late(FakeClock):
        """The first look at the job takes all the time there is."""

        def monotonic(self) -> float:
            return self.now + (100 if fal.asked("/status") else 0)

    clock = Late()
    error = await failure_of(collected(fal, fal.provider(clock=clock), clock, 60))
    assert (error.fault, error.lost, results_asked(fal)) == (Fault.TIMEOUT, True, 0)


@pytest.mark.parametrize("status", [404, 410])
async def test_a_result_that_is_gone_is_lost_after_a_quarter_of_a_minute(fal: FalUpstream, status: int) -> None:
    for seed in range(5):
        fal.sandbox.reset()
        fal.sent.clear()
        fal.on("result", "http", status=status, body={"detail": "Request not found"}, times=None)
        clock = FakeClock()
        began = clock.now
        error = await failure_of(collected(fal, fal.provider(clock=clock, random=Random(seed)), clock))
        assert (error.fault, error.accepted, error.charged) == (Fault.MALFORMED, True, None)
        assert (error.final, error.lost) == (True, True)
        assert 15 <= clock.now - began <= 35
        assert 6 <= results_asked(fal) <= 15


@pytest.mark.parametrize(
    ("status", "body", "fault"),
    [
        (400, {"detail": "The prompt is too odd."}, Fault.INVALID),
        (413, {"detail": "Too large"}, Fault.INVALID),
        (500, {"detail": "Internal Server Error"}, Fault.UNAVAILABLE),
    ],
)
async def test_a_plain_failure_is_believed_to_be_the_models_when_it_stays(
    fal: FalUpstream, status: int, body: dict[str, Any], fault: Fault
) -> None:
    fal.on("result", "http", status=status, body=body, times=None)
    clock = FakeClock()
    began = clock.now
    error = await failure_of(collected(fal, fal.provider(clock=clock), clock))
    assert (error.fault, error.accepted, error.charged) == (fault, True, None)
    assert (error.final, error.lost) == (True, False)
    assert 15 <= clock.now - began <= 35


async def test_a_422_is_the_verdict_in_whatever_shape(fal: FalUpstream) -> None:
    fal.on("result", "http", status=422, body={"detail": {"odd": "shape"}})
    error = await failure_of(fal.quick_edit())
    assert (error.fault, error.final, error.lost) == (Fault.INVALID, True, False)


async def test_a_result_that_is_too_large_is_read_once_and_lost(fal: FalUpstream) -> None:
    fal.on("result", "huge", bytes=140 << 20, chunked=True)
    clock = FakeClock()
    error = await failure_of(collected(fal, fal.provider(clock=clock), clock))
    assert (error.fault, error.final, error.lost, error.charged) == (Fault.MALFORMED, True, True, None)
    assert results_asked(fal) == 1


async def test_what_a_failed_jobs_status_says_is_believed_when_its_result_stays_away(fal: FalUpstream) -> None:
    fal.on("submit", "completed_with_error", error_type="startup_timeout")
    fal.on("result", "drop_before", times=None)
    clock = FakeClock()
    error = await failure_of(collected(fal, fal.provider(clock=clock), clock))
    assert (error.fault, error.charged, error.lost) == (Fault.TIMEOUT, False, False)
    assert results_asked(fal) == 5


async def test_a_mere_word_of_an_error_does_not_make_up_for_a_result_that_may_be_there(fal: FalUpstream) -> None:
    status = {"status": "COMPLETED", "error": "logs were lost"}
    fal.on("status", "http", status=200, body=status, times=None)
    fal.on("result", "drop_before", times=None)
    clock = FakeClock()
    error = await failure_of(collected(fal, fal.provider(clock=clock), clock))
    assert (error.fault, error.charged, error.lost) == (Fault.UNAVAILABLE, None, True)
