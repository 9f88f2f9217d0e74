"""After a submit that failed: can there be a job?"""

from __future__ import annotations

from typing import Any

import pytest

from providers.base import Fault
from providers.fal import Patience
from providers.testing.kit import failure_of, picture
from tests.fakes.fal_calls import EDIT
from tests.providers.upstream import FalUpstream

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("job", ["../../../sandbox/books?x=", "short", "x" * 65, "späßchen", "", 12345678, None])
async def test_a_request_id_that_is_none_leaves_it_open_whether_a_job_exists(fal: FalUpstream, job: Any) -> None:
    fal.on("submit", "http", status=200, body={"request_id": job})
    error = await failure_of(fal.provider().submit(fal.call(picture())))
    assert (error.fault, error.accepted) == (Fault.MALFORMED, None)
    assert len(fal.sent) == 1


def patience(fault: str) -> Patience:
    """Short for a submit that will not be answered in time."""
    return Patience(submit=0.5 if fault in ("hang", "delay", "drip") else 10)


SHAPE_1 = {"detail": [{"loc": ["body", "prompt"], "msg": "Says the model.", "type": "missing"}]}
NGINX = "<html><head><title>Error</title></head><center>nginx</center></html>"
HTML = {"headers": {"content-type": "text/html"}}


@pytest.mark.parametrize(
    ("fault", "arguments", "expected", "accepted"),
    [
        # nothing can have been taken
        ("rate_limit", {"retry_after": 1}, Fault.RATE_LIMITED, False),
        ("locked", {}, Fault.UNAUTHORIZED, False),
        ("unauthorized", {}, Fault.UNAUTHORIZED, False),
        ("http", {"status": 422, "body": SHAPE_1}, Fault.INVALID, False),
        ("http", {"status": 413, "body": NGINX, **HTML}, Fault.INVALID, False),
        ("http", {"status": 409}, Fault.UNAVAILABLE, False),
        ("http", {"status": 425}, Fault.UNAVAILABLE, False),
        ("http", {"status": 503, "body": {"detail": "Service Unavailable"}}, Fault.UNAVAILABLE, False),
        ("infra_error", {"error_type": "runner_scheduling_failure", "at": "reply"}, Fault.UNAVAILABLE, False),
        ("model_error", {"type": "content_policy_violation", "at": "reply"}, Fault.REFUSED, False),
        ("unavailable_nginx", {"status": 503}, Fault.UNAVAILABLE, False),
        ("redirect", {}, Fault.MALFORMED, False),
        ("http", {"status": 308, "headers": {"Location": "https://elsewhere.example/"}}, Fault.MALFORMED, False),
        # the queue may have had it
        ("unavailable_nginx", {"status": 502}, Fault.UNAVAILABLE, None),
        ("unavailable_nginx", {"status": 504}, Fault.TIMEOUT, None),
        ("http", {"status": 503, "body": NGINX, **HTML}, Fault.UNAVAILABLE, None),  # the page, but with a request id
        ("http", {"status": 503, "body": "upstream connect error"}, Fault.UNAVAILABLE, None),
        ("http", {"status": 500, "body": {"detail": "Internal Server Error"}}, Fault.UNAVAILABLE, None),
        ("infra_error", {"error_type": "internal_error", "at": "reply"}, Fault.UNAVAILABLE, None),
        ("http", {"status": 502}, Fault.UNAVAILABLE, None),
        (
            "http",
            {"status": 504, "body": {}, "headers": {"X-Fal-Request-Timeout-Type": "user"}},
            Fault.TIMEOUT,
            None,
        ),
        ("http", {"status": 408}, Fault.UNAVAILABLE, None),
        ("infra_error", {"error_type": "client_disconnected", "at": "reply"}, Fault.UNAVAILABLE, None),
        ("http", {"status": 499, "body": ""}, Fault.UNAVAILABLE, None),
        ("http", {"status": 302, "headers": {"Location": "https://elsewhere.example/"}}, Fault.MALFORMED, None),
        ("http", {"status": 303, "headers": {"Location": "https://elsewhere.example/"}}, Fault.MALFORMED, None),
        ("http", {"status": 304}, Fault.MALFORMED, None),
        ("http", {"status": 200, "body": "<html>welcome to this hotel", **HTML}, Fault.MALFORMED, None),
        ("http", {"status": 200, "body": {}}, Fault.MALFORMED, None),
        ("http", {"status": 202, "body": {"status": "IN_QUEUE"}}, Fault.MALFORMED, None),
        ("http", {"status": 204, "body": ""}, Fault.MALFORMED, None),
        ("http", {"status": 200, "body": [1, 2]}, Fault.MALFORMED, None),
        ("drop_before", {}, Fault.UNAVAILABLE, None),
        ("hang", {}, Fault.TIMEOUT, None),
    ],
)
async def test_whether_a_failed_submit_can_have_made_a_job(
    fal: FalUpstream, fault: str, arguments: dict[str, Any], expected: Fault, accepted: bool | None
) -> None:
    fal.on("submit", fault, **arguments)
    error = await failure_of(fal.provider(patience=patience(fault)).submit(fal.call(picture())))
    assert (error.fault, error.accepted) == (expected, accepted)
    assert error.charged is (False if accepted is False else None)
    assert (error.lost, error.cancelled) == (False, False)
    assert len(fal.sent) == 1, "a paid step is never repeated by the adapter"


@pytest.mark.parametrize(
    ("fault", "arguments"),
    [
        ("garbage_json", {}),
        ("truncate", {}),
        ("drop_after", {}),
        ("hang", {"late": True}),
        ("delay", {"seconds": 5}),
        ("huge", {"bytes": 1 << 30, "chunked": True}),
        ("drip", {"bytes_per_second": 20}),
    ],
)
async def test_a_reply_that_is_lost_on_its_way_leaves_it_open(
    fal: FalUpstream, fault: str, arguments: dict[str, Any]
) -> None:
    fal.on("submit", fault, **arguments)
    error = await failure_of(fal.provider(patience=patience(fault)).submit(fal.call(picture())))
    assert error.accepted is None
    assert fal.asked(EDIT, "POST") == 1
    assert fal.jobs() == (0 if fault == "delay" else 1)


@pytest.mark.parametrize("status", [200, 201, 202])
@pytest.mark.parametrize(
    "rest",
    [
        {},
        {"status": 7, "status_url": None, "response_url": {"a": 1}, "cancel_url": ["x"], "queue_position": "soon"},
        {"status_url": "x" * 100_000, "response_url": "http://[bad", "cancel_url": "x:y"},
        {"request_id_2": "a", "logs": [[[]]], "metrics": None, "error": "odd", "gateway_request_id": 1e300},
    ],
)
async def test_a_job_whose_id_is_told_has_its_ticket_whatever_else_the_reply_says(
    fal: FalUpstream, status: int, rest: dict[str, Any]
) -> None:
    fal.on("submit", "http", status=status, body={"request_id": "12345678-abcd", **rest})
    ticket = await fal.provider().submit(fal.call(picture()))
    base = f"{fal.sandbox.url}/queue/{EDIT}/requests/12345678-abcd"
    assert ticket.job == "12345678-abcd"
    assert ticket.data == {"status_url": f"{base}/status", "response_url": base, "cancel_url": f"{base}/cancel"}


@pytest.mark.parametrize("odd", ['"\\ud800"', "NaN", "-Infinity", "1e400", "123456789" * 50])
async def test_and_whatever_no_strict_reader_of_json_would_take(fal: FalUpstream, odd: str) -> None:
    fal.on("submit", "http", status=200, body=f'{{"request_id": "12345678-abcd", "odd": {odd}}}')
    assert (await fal.provider().submit(fal.call(picture()))).job == "12345678-abcd"


async def test_a_url_that_is_far_too_long_for_a_ticket_is_not_used(fal: FalUpstream) -> None:
    long = f"{fal.sandbox.url}/queue/{EDIT}/requests/12345678-abcd/status?{'x' * 100_000}"
    fal.on("submit", "http", status=200, body={"request_id": "12345678-abcd", "status_url": long})
    assert len(str((await fal.provider().submit(fal.call(picture()))).data)) < 1000


async def test_a_rate_limit_carries_its_pause(fal: FalUpstream) -> None:
    fal.on("submit", "rate_limit", retry_after=7)
    error = await failure_of(fal.provider().submit(fal.call(picture())))
    assert (error.fault, error.accepted, error.retry_after) == (Fault.RATE_LIMITED, False, 7.0)


async def test_an_unknown_endpoint_is_our_mistake(fal: FalUpstream) -> None:
    error = await failure_of(fal.provider().submit(fal.call(picture(), endpoint="fal-ai/nothing")))
    assert (error.fault, error.accepted) == (Fault.MISCONFIGURED, False)
