"""Following a job: whatever the status says that is no verdict, it is asked again until the deadline."""

from __future__ import annotations

import time
from random import Random
from typing import Any

import httpx2
import pytest

from providers.base import Fault, Ticket
from providers.fal import Patience
from providers.testing.clock import FakeClock
from providers.testing.kit import failure_of, picture, until
from tests.providers.upstream import FalUpstream, on_fals_own_names

pytestmark = pytest.mark.anyio


async def test_a_short_job_costs_few_looks_and_little_delay(fal: FalUpstream) -> None:
    fal.on("submit", "run_for", seconds=2.0)
    provider = fal.provider()
    ticket = await provider.submit(fal.call(picture()))
    await provider.collect(ticket, until(20))
    got = time.time()
    (job,) = fal.sandbox.jobs()
    assert fal.asked("/status") <= 22
    assert got - job["finished"] < 0.3  # 0.1 by design, and what a busy machine adds


@pytest.mark.parametrize("before", [0.2, 0.5, 1.0, 1.9])
async def test_a_job_that_is_done_just_before_the_deadline_is_still_fetched(before: float) -> None:
    clock = FakeClock()
    deadline = clock.now + 60

    def handler(request: httpx2.Request) -> httpx2.Response:
        if not request.url.path.endswith("/status"):
            return httpx2.Response(200, json={"images": [{"url": "https://v3.fal.media/x.png"}]})
        done = clock.now >= deadline - before
        return httpx2.Response(200 if done else 202, json={"status": "COMPLETED" if done else "IN_PROGRESS"})

    provider, http = on_fals_own_names(handler, clock)
    url = "https://queue.fal.run/a/b/requests/12345678"
    ticket = Ticket("fal", "12345678", {"status_url": f"{url}/status", "response_url": url})
    assert (await provider.collect(ticket, deadline)).images
    await http.aclose()
    assert clock.now < deadline


async def test_after_the_deadline_nothing_is_asked_any_more(fal: FalUpstream) -> None:
    error = await failure_of(fal.edit(seconds=-1))
    assert (error.fault, error.accepted) == (Fault.TIMEOUT, True)
    assert fal.asked("/status") == 0


async def test_a_status_that_does_not_come_is_not_waited_for_past_the_deadline(fal: FalUpstream) -> None:
    fal.on("status", "delay", seconds=2)
    began = time.monotonic()
    error = await failure_of(fal.edit(seconds=0.4))
    assert (error.fault, error.accepted) == (Fault.TIMEOUT, True)
    assert time.monotonic() - began < 0.8


async def test_queued_and_running_answer_202_and_are_waited_for(fal: FalUpstream) -> None:
    fal.sandbox.script({"on": "submit", "fault": "queue_for;seconds=0.2, run_for;seconds=0.2"})
    assert (await fal.edit()).images
    assert 3 <= fal.asked("/status") <= 8


async def test_the_word_decides_and_not_the_http_status(fal: FalUpstream) -> None:
    fal.on("submit", "run_for", seconds=0.3)
    provider = fal.provider()
    ticket = await provider.submit(fal.call(picture()))
    fal.on("status", "http", status=200, body={"status": "IN_PROGRESS", "logs": None})
    assert (await provider.collect(ticket, until(10))).images


NO_VERDICT: list[tuple[str, dict[str, Any]]] = [
    ("http", {"status": 500}),
    ("http", {"status": 408}),
    ("unavailable_nginx", {"status": 502}),
    ("unavailable_nginx", {"status": 504}),
    ("rate_limit", {"retry_after": 3}),
    ("drop_before", {}),
    ("drop_after", {}),
    ("truncate", {}),
    ("garbage_json", {}),
    ("status_word", {"word": "PAUSED"}),
    ("status_word", {"word": None}),
    ("status_word", {"word": ["COMPLETED"]}),
    ("http", {"status": 200, "body": [1]}),
    ("http", {"status": 200, "body": "<html>welcome to this hotel", "headers": {"content-type": "text/html"}}),
    ("http", {"status": 204, "body": ""}),
    *[("http", {"status": status}) for status in (400, 401, 403, 404, 405, 409, 410, 418, 422, 499)],
    ("unauthorized", {}),
    ("locked", {}),
    ("infra_error", {"error_type": "runner_disconnected"}),
    ("model_error", {"type": "internal_server_error"}),
    ("redirect", {}),
    ("http", {"status": 302, "headers": {"Location": "/elsewhere"}}),
    ("huge", {"bytes": 2 << 20}),
]


@pytest.mark.parametrize(("fault", "arguments"), NO_VERDICT)
async def test_what_is_no_verdict_on_the_job_is_survived(
    fal: FalUpstream, fault: str, arguments: dict[str, Any]
) -> None:
    fal.on("status", fault, times=4, **arguments)
    clock = FakeClock()
    provider = fal.provider(clock=clock)
    ticket = await provider.submit(fal.call(picture()))
    await fal.finished()
    assert (await provider.collect(ticket, clock.now + 60)).images
    assert len(clock.sleeps) == 4
    assert fal.jobs() == 1


@pytest.mark.parametrize(
    ("fault", "arguments", "expected"),
    [
        ("http", {"status": 500}, Fault.UNAVAILABLE),
        ("unauthorized", {}, Fault.UNAUTHORIZED),
        ("locked", {}, Fault.UNAUTHORIZED),
        ("http", {"status": 400}, Fault.MALFORMED),
        ("http", {"status": 405}, Fault.MALFORMED),
        ("status_word", {}, Fault.MALFORMED),
        ("redirect", {}, Fault.MALFORMED),
        ("huge", {"bytes": 2 << 20}, Fault.MALFORMED),
    ],
)
async def test_and_followed_until_the_deadline_when_it_stays(
    fal: FalUpstream, fault: str, arguments: dict[str, Any], expected: Fault
) -> None:
    fal.on("status", fault, times=None, **arguments)
    clock = FakeClock()
    provider = fal.provider(clock=clock)
    ticket = await provider.submit(fal.call(picture()))
    deadline = clock.now + 180
    error = await failure_of(provider.collect(ticket, deadline))
    assert error.fault in (expected, Fault.TIMEOUT)  # the last look has little time for its answer
    assert (error.accepted, error.charged) == (True, None)
    assert (error.lost, error.final) == (False, False), "for all we know the job is at work"
    assert deadline - 2 < clock.now < deadline
    assert 12 <= fal.asked("/status") <= 45


@pytest.mark.parametrize("status", [404, 410])
async def test_a_job_that_the_queue_does_not_know_is_lost_after_a_minute(fal: FalUpstream, status: int) -> None:
    for seed in range(5):
        fal.sandbox.clear_script()
        fal.sent.clear()
        fal.on("status", "http", status=status, body={"status": "NOT_FOUND"}, times=None)
        clock = FakeClock()
        provider = fal.provider(clock=clock, random=Random(seed))
        ticket = await provider.submit(fal.call(picture()))
        began = clock.now
        error = await failure_of(provider.collect(ticket, clock.now + 180))
        assert (error.fault, error.accepted, error.charged) == (Fault.MALFORMED, True, None)
        assert (error.lost, error.final) == (True, True)
        assert 60 <= clock.now - began <= 60 + 20
        assert fal.asked("/status") >= 8


async def test_or_at_the_deadline_when_that_comes_first(fal: FalUpstream) -> None:
    fal.on("status", "http", status=404, times=None)
    clock = FakeClock()
    provider = fal.provider(clock=clock)
    ticket = await provider.submit(fal.call(picture()))
    error = await failure_of(provider.collect(ticket, clock.now + 30))
    assert (error.fault, error.lost, error.final) == (Fault.MALFORMED, True, False)


async def test_a_job_that_the_queue_knows_again_is_collected(fal: FalUpstream) -> None:
    fal.on("status", "http", status=404, times=7)
    clock = FakeClock()
    provider = fal.provider(clock=clock)
    ticket = await provider.submit(fal.call(picture()))
    await fal.finished()
    assert (await provider.collect(ticket, clock.now + 180)).images


async def test_a_job_that_never_ends_is_a_time_out_at_the_deadline_and_not_lost(fal: FalUpstream) -> None:
    fal.on("submit", "run_for", seconds=1e6)
    clock = FakeClock()
    provider = fal.provider(clock=clock)
    ticket = await provider.submit(fal.call(picture()))
    error = await failure_of(provider.collect(ticket, clock.now + 60))
    assert (error.fault, error.accepted, error.charged, error.lost) == (Fault.TIMEOUT, True, None, False)


async def test_a_status_that_hangs_is_cut_and_asked_for_again(fal: FalUpstream) -> None:
    fal.on("status", "hang")
    assert (await fal.edit(fal.provider(patience=Patience(status=0.3)))).images


@pytest.mark.parametrize("headers", [{"X-Fal-Retryable": "false"}, {"X-Fal-Needs-Retry": "false"}])
async def test_a_hint_about_one_look_is_no_word_about_the_job(fal: FalUpstream, headers: dict[str, str]) -> None:
    fal.on("status", "http", status=503, body={"detail": "No."}, headers=headers)
    assert (await fal.edit()).images
    assert fal.asked("/status") >= 2


async def test_a_dripping_status_is_waited_for_within_its_limit(fal: FalUpstream) -> None:
    fal.on("status", "drip", bytes_per_second=1000)
    assert (await fal.edit()).images


async def test_a_status_that_drips_for_ever_is_cut_and_asked_for_again(fal: FalUpstream) -> None:
    fal.on("status", "drip", bytes_per_second=10)
    assert (await fal.edit(fal.provider(patience=Patience(status=0.3)))).images


async def test_a_pause_that_reaches_past_the_deadline_ends_it(fal: FalUpstream) -> None:
    fal.on("status", "rate_limit", retry_after=600)
    clock = FakeClock()
    provider = fal.provider(clock=clock)
    ticket = await provider.submit(fal.call(picture()))
    error = await failure_of(provider.collect(ticket, clock.now + 60))
    assert (error.fault, error.accepted) == (Fault.RATE_LIMITED, True)
    assert clock.sleeps == []
