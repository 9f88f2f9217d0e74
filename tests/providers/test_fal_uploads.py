"""Large pictures on their way in: repeated while it is free and the budget lasts, never a job without them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest

from providers.base import Fault, Media
from providers.fal_uploads import UPLOAD_TRIES
from providers.testing.clock import FakeClock
from providers.testing.kit import failure_of, large_picture, same_as, until
from tests.providers.upstream import FalUpstream

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize(
    ("point", "fault", "arguments"),
    [
        ("initiate", "http", {"status": 503}),
        ("initiate", "drop_after", {}),
        ("initiate", "rate_limit", {"retry_after": 0}),
        ("put", "http", {"status": 500}),
        ("put", "http", {"status": 403, "body": "<Error><Code>SignatureDoesNotMatch</Code></Error>"}),
        ("put", "drop_before", {}),
    ],
)
async def test_a_hiccup_is_survived(fal: FalUpstream, point: str, fault: str, arguments: dict[str, Any]) -> None:
    fal.on(point, fault, **arguments)
    clock = FakeClock()
    await fal.provider(clock=clock).submit(fal.call(large_picture(2_000_000)))
    assert fal.jobs() == 1
    assert len(clock.sleeps) == 1


@pytest.mark.parametrize("point", ["initiate", "put"])
async def test_when_it_goes_on_failing_no_job_was_made(fal: FalUpstream, point: str) -> None:
    fal.on(point, "http", status=500, times=None)
    media = large_picture(2_000_000)
    error = await failure_of(fal.provider(clock=FakeClock()).submit(fal.call(media)))
    assert (error.fault, error.accepted) == (Fault.UNAVAILABLE, False)
    assert fal.jobs() == 0
    assert fal.asked("/initiate", "POST") == UPLOAD_TRIES


async def test_a_failure_is_not_remembered(fal: FalUpstream) -> None:
    fal.on("initiate", "locked")
    media = large_picture(2_000_000)
    provider = fal.provider()
    error = await failure_of(provider.submit(fal.call(media)))
    assert (error.fault, error.accepted) == (Fault.UNAUTHORIZED, False)
    await provider.submit(fal.call(media))
    assert (fal.uploads(), fal.jobs()) == (1, 1)


@pytest.mark.parametrize(
    ("fault", "arguments", "expected"),
    [
        ("http", {"status": 422}, Fault.MALFORMED),  # about our ticket, not about the caller's values
        ("http", {"status": 404}, Fault.MALFORMED),
        ("unauthorized", {}, Fault.UNAUTHORIZED),
        ("garbage_json", {}, Fault.MALFORMED),
        ("http", {"status": 200, "body": {"upload_url": 1, "file_url": None}}, Fault.MALFORMED),
        ("http", {"status": 200, "body": {"upload_url": "http://u:p@x/", "file_url": "x"}}, Fault.MALFORMED),
        ("http", {"status": 200, "body": {"upload_url": "file:///etc", "file_url": "x"}}, Fault.MALFORMED),
    ],
)
async def test_an_odd_ticket_is_an_error_of_the_provider(
    fal: FalUpstream, fault: str, arguments: dict[str, Any], expected: Fault
) -> None:
    fal.on("initiate", fault, times=None, **arguments)
    error = await failure_of(fal.provider(clock=FakeClock()).submit(fal.call(large_picture(2_000_000))))
    assert (error.fault, error.accepted) == (expected, False)


async def test_a_file_that_is_too_large_is_the_callers(fal: FalUpstream) -> None:
    fal.on("put", "http", status=413, body="too large")
    error = await failure_of(fal.provider().submit(fal.call(large_picture(2_000_000))))
    assert (error.fault, error.accepted) == (Fault.INVALID, False)


async def test_it_ends_at_the_calls_deadline(fal: FalUpstream) -> None:
    fal.answer_late(upload=30)
    tasks, connections = asyncio.all_tasks(), fal.connections()
    began = time.monotonic()
    call = fal.call(large_picture(2_000_000), deadline=until(0.4))
    error = await failure_of(fal.provider().submit(call))
    assert (error.fault, error.accepted) == (Fault.TIMEOUT, False)
    assert time.monotonic() - began < 1
    assert fal.jobs() == 0
    assert asyncio.all_tasks() == tasks
    assert await same_as(fal.connections, connections)


@pytest.mark.parametrize("size", [10, 3_000_000])
async def test_a_picture_that_cannot_be_read_any_more_is_no_job(fal: FalUpstream, size: int) -> None:
    class Gone:
        in_memory = False

        def __init__(self) -> None:
            self.size = size

        def read(self) -> bytes:
            raise OSError("the spooled file is shorter than it was")

        async def chunks(self) -> AsyncIterator[bytes]:
            yield b"\x89PNG"
            raise OSError("the spooled file is shorter than it was")

    media = Media(Gone(), "image/png", 1, 1, "0" * 64)
    error = await failure_of(fal.provider().submit(fal.call(media)))
    assert (error.fault, error.accepted, error.final) == (Fault.UNAVAILABLE, False, True)
    assert fal.jobs() == 0
