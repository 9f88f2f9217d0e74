"""Cancelling: taken, too late, or not known; and how a cancelled job looks when it is collected."""

from __future__ import annotations

from typing import Any

import pytest

from providers.base import Fault
from providers.testing.clock import FakeClock
from providers.testing.kit import failure_of, picture, same_as, until
from tests.providers.upstream import FalUpstream

pytestmark = pytest.mark.anyio


async def test_too_late_is_false(fal: FalUpstream) -> None:
    fal.on("submit", "run_for", seconds=60)
    fal.on("cancel", "cancel_too_late")
    provider = fal.provider()
    ticket = await provider.submit(fal.call(picture()))
    assert await provider.cancel(ticket) is False
    assert (await provider.collect(ticket, until(10))).images


async def test_an_unknown_job_is_false(fal: FalUpstream) -> None:
    provider = fal.provider()
    ticket = await provider.submit(fal.call(picture()))
    fal.sandbox.reset()
    assert await provider.cancel(ticket) is False


@pytest.mark.parametrize("fault", ["http", "drop_before", "rate_limit"])
async def test_a_hiccup_is_survived(fal: FalUpstream, fault: str) -> None:
    fal.on("submit", "run_for", seconds=60)
    fal.on("cancel", fault)
    provider = fal.provider(clock=FakeClock())
    ticket = await provider.submit(fal.call(picture()))
    assert await provider.cancel(ticket) is True
    assert await same_as(fal.cancelled, 1)


@pytest.mark.parametrize(
    ("fault", "arguments", "expected"),
    [
        ("unauthorized", {}, Fault.UNAUTHORIZED),
        ("http", {"status": 500}, Fault.UNAVAILABLE),
        ("drop_before", {}, Fault.UNAVAILABLE),
        ("redirect", {}, Fault.MALFORMED),
        ("http", {"status": 200, "body": "<html>", "headers": {"content-type": "text/html"}}, Fault.MALFORMED),
    ],
)
async def test_what_stays_unclear_is_an_error_and_not_taken_for_an_answer(
    fal: FalUpstream, fault: str, arguments: dict[str, Any], expected: Fault
) -> None:
    fal.on("submit", "run_for", seconds=60)
    fal.on("cancel", fault, times=None, **arguments)
    clock = FakeClock()
    provider = fal.provider(clock=clock)
    ticket = await provider.submit(fal.call(picture()))
    began = clock.now
    error = await failure_of(provider.cancel(ticket))
    assert (error.fault, error.accepted, error.lost, error.cancelled) == (expected, True, False, False)
    assert began + 10 < clock.now < began + 25


@pytest.mark.parametrize(
    ("status", "body", "taken"),
    [
        (202, {"status": "CANCELLATION_REQUESTED"}, True),
        (200, {"status": "OK"}, True),
        (200, "OK", True),
        (200, "", True),
        (202, {}, True),
        (200, {"success": True}, True),
        (200, {"success": False}, False),
        (200, {"status": "ALREADY_COMPLETED"}, False),
        (400, {"status": "ALREADY_COMPLETED"}, False),
        (404, {"status": "NOT_FOUND"}, False),
        (410, {}, False),
    ],
)
async def test_fals_old_and_new_words_for_it_are_understood(
    fal: FalUpstream, status: int, body: Any, taken: bool
) -> None:
    fal.on("submit", "run_for", seconds=60)
    fal.on("cancel", "http", status=status, body=body)
    provider = fal.provider()
    assert await provider.cancel(await provider.submit(fal.call(picture()))) is taken


async def test_a_cancellation_that_was_ignored_shows_when_the_job_is_collected(fal: FalUpstream) -> None:
    fal.on("submit", "run_for", seconds=0.3)
    fal.on("cancel", "cancel_ignored")
    provider = fal.provider()
    ticket = await provider.submit(fal.call(picture()))
    assert await provider.cancel(ticket) is True
    assert (await provider.collect(ticket, until(10))).images


async def test_a_cancelled_job_that_is_collected_is_a_failure(fal: FalUpstream) -> None:
    fal.on("submit", "run_for", seconds=60)
    provider = fal.provider()
    ticket = await provider.submit(fal.call(picture()))
    await provider.cancel(ticket)
    error = await failure_of(provider.collect(ticket, until(10)))
    assert (error.fault, error.accepted) == (Fault.UNAVAILABLE, True)
    assert (error.cancelled, error.charged, error.lost, error.final) == (True, False, False, True)
    assert "cancelled" in error.message


CANCELLED = {"detail": "Request was cancelled by the client", "error_type": "client_cancelled"}


@pytest.mark.parametrize(
    ("point", "status", "body"),
    [
        ("status", 499, CANCELLED),
        ("status", 200, {"status": "COMPLETED", "error": "cancelled", "error_type": "client_cancelled"}),
        ("result", 499, CANCELLED),
    ],
)
async def test_wherever_fal_says_it_the_marker_is_the_same(
    fal: FalUpstream, point: str, status: int, body: dict[str, Any]
) -> None:
    fal.on(point, "http", status=status, body=body)
    if point == "status" and status == 200:
        fal.on("result", "http", status=499, body=CANCELLED)
    error = await failure_of(fal.quick_edit())
    assert (error.cancelled, error.charged, error.lost, error.final) == (True, False, False, True)


async def test_a_cancelled_job_whose_result_is_gone_was_cancelled(fal: FalUpstream) -> None:
    fal.on("submit", "run_for", seconds=60)
    fal.on("result", "http", status=404, times=None)
    clock = FakeClock()
    provider = fal.provider(clock=clock)
    ticket = await provider.submit(fal.call(picture()))
    await provider.cancel(ticket)
    await fal.finished()
    error = await failure_of(provider.collect(ticket, clock.now + 60))
    assert (error.cancelled, error.charged) == (True, False)


async def test_a_499_of_somebody_elses_is_no_cancellation(fal: FalUpstream) -> None:
    fal.on("status", "http", status=499, body="")
    fal.on("result", "http", status=499, body="")
    assert (await fal.quick_edit()).images


async def test_collecting_a_job_that_was_unknown_when_it_was_cancelled_tells_that_it_is_lost(
    fal: FalUpstream,
) -> None:
    clock = FakeClock()
    provider = fal.provider(clock=clock)
    ticket = await provider.submit(fal.call(picture()))
    fal.sandbox.reset()
    assert await provider.cancel(ticket) is False
    error = await failure_of(provider.collect(ticket, clock.now + 180))
    assert (error.lost, error.final, error.charged) == (True, True, None)
