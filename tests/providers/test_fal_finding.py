"""Finding the job of a submit whose reply was lost, in fal's list of requests."""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qs

import httpx2
import pytest

from providers.base import Fault, Finder, ProviderCall, Ticket, payload_mark
from providers.fal import FalProvider, Patience
from providers.fal_listing import PAGES
from providers.testing.clock import FakeClock
from providers.testing.kit import failure_of, large_picture, picture, until
from tests.fakes.fal_calls import EDIT
from tests.providers.upstream import FalUpstream, on_fals_own_names

pytestmark = pytest.mark.anyio


async def find(
    provider: FalProvider, call: ProviderCall, *known: str, since: float = -10, until: float = 10
) -> Ticket | None:
    """Times from now."""
    now = time.time()
    return await provider.find(call.endpoint, payload_mark(call.payload), now + since, now + until, frozenset(known))


class TestMark:
    def mark(self, **payload: Any) -> str:
        return payload_mark(payload)

    def test_it_is_a_digest_and_tells_nothing_of_the_prompt(self) -> None:
        mark = self.mark(prompt="a very private wish")
        assert len(mark) == 64
        assert int(mark, 16)

    def test_the_order_of_fields_and_the_address_of_a_picture_do_not_count(self) -> None:
        one = self.mark(prompt="x", image_urls=[picture()], seed=7)
        for other in (
            picture(),
            "https://v3.fal.media/a.png",
            "HTTP://x.example/1",
            "data:image/png;base64,AA",
            object(),
        ):
            assert self.mark(seed=7, image_urls=(other,), prompt="x") == one

    def test_a_whole_number_is_one_however_it_is_written(self) -> None:
        assert self.mark(n=4.0) == self.mark(n=4) != self.mark(n=4.5)

    @pytest.mark.parametrize(
        "other",
        [
            {"prompt": "y", "image_urls": ["data:,"], "seed": 7, "deep": {"a": [1, None, True]}},
            {"prompt": "x", "image_urls": ["data:,", "data:,"], "seed": 7, "deep": {"a": [1, None, True]}},
            {"prompt": "x", "image_urls": ["data:,"], "seed": 8, "deep": {"a": [1, None, True]}},
            {"prompt": "x", "image_urls": ["data:,"], "seed": "7", "deep": {"a": [1, None, True]}},
            {"prompt": "x", "image_urls": ["data:,"], "seed": 7, "deep": {"a": [1, None, False]}},
            {"prompt": "x", "image_urls": ["data:,"], "seed": 7, "deep": {"a": [None, 1, True]}},
            {"prompt": "x", "image_urls": ["data:,"], "seed": 7},
            {"prompt": "x", "image_urls": "data:,", "seed": 7, "deep": {"a": [1, None, True]}},
        ],
    )
    def test_all_else_counts(self, other: dict[str, Any]) -> None:
        one = {"prompt": "x", "image_urls": ["data:,"], "seed": 7, "deep": {"a": [1, None, True]}}
        assert payload_mark(one) != payload_mark(other)

    @pytest.mark.parametrize("odd", ["\ud800", float("nan"), float("inf"), 10**400, {1: 2}, b"bytes", "\x00"])
    def test_there_is_a_mark_of_whatever_a_payload_holds(self, odd: Any) -> None:
        assert len(self.mark(odd=odd)) == 64

    def test_a_payload_that_went_through_json_has_the_same_mark(self, fal: FalUpstream) -> None:
        payload = dict(fal.call(seed=7, guidance_scale=4.0, negative_prompt="ü\u2028🦊").payload)
        assert payload_mark(json.loads(json.dumps(payload))) == payload_mark(payload)


async def test_fal_is_a_provider_that_can_find(fal: FalUpstream) -> None:
    assert isinstance(fal.provider(), Finder)


@pytest.mark.parametrize("fault", ["drop_after", "truncate", "garbage_json"])
async def test_a_job_whose_reply_was_lost_is_found_and_its_ticket_is_as_good_as_any(
    fal: FalUpstream, fault: str
) -> None:
    provider = fal.provider()
    known = (await provider.submit(fal.call(picture(), seed=7))).job
    fal.on("submit", fault)
    call = fal.call(picture(), seed=7)
    assert (await failure_of(provider.submit(call))).accepted is None
    ticket = await find(fal.provider(), call, known)
    assert ticket is not None
    assert ticket.job == fal.sandbox.jobs()[1]["request_id"]
    assert (await provider.collect(ticket, until(10))).images
    assert await provider.cancel(ticket) is False


async def test_uploaded_pictures_and_public_addresses_do_not_hide_a_job(fal: FalUpstream) -> None:
    provider = fal.provider()
    handed_on = dataclasses.replace(picture(), url="https://pictures.example/1.png")
    for media in (large_picture(2_000_000), handed_on):
        call = fal.call(media, prompt=f"of {media.size} bytes")
        ticket = await provider.submit(call)
        found = await find(provider, call)
        assert found is not None
        assert found.job == ticket.job


async def test_a_job_of_a_sub_path_model_gets_the_urls_of_its_app(fal: FalUpstream) -> None:
    fal.on("submit", "drop_after")
    call = fal.call(endpoint="fal-ai/qwen-image-edit/inpaint", image_url=picture(), mask_url=picture(), image_urls=[])
    await failure_of(fal.provider().submit(call))
    ticket = await find(fal.provider(), call)
    assert ticket is not None
    assert "/queue/fal-ai/qwen-image-edit/requests/" in ticket.data["status_url"]
    assert (await fal.provider().collect(ticket, until(10))).images


async def test_jobs_still_at_work_and_jobs_that_end_much_later_are_found(fal: FalUpstream) -> None:
    fal.on("submit", "run_for", seconds=60)
    call = fal.call(picture())
    ticket = await fal.provider().submit(call)
    assert await find(fal.provider(), call) == ticket
    fal.sandbox.advance(3000)
    assert await fal.provider().cancel(ticket)
    await fal.finished()
    assert await find(fal.provider(), call) == ticket, "cancelled, 50 minutes later"


async def test_a_job_of_another_time_is_not_the_one(fal: FalUpstream) -> None:
    call = fal.call(picture())
    ticket = await fal.provider().submit(call)
    assert await find(fal.provider(), call, since=1000, until=2000) is None
    assert await find(fal.provider(), call, since=-9000, until=-8000) is None
    assert await find(fal.provider(), call, since=60, until=90) == ticket, "clocks differ"


async def test_of_two_that_are_alike_the_first_that_was_sent(fal: FalUpstream) -> None:
    call = fal.call(picture())
    first = await fal.provider().submit(call)
    fal.sandbox.advance(1)
    second = await fal.provider().submit(call)
    assert await find(fal.provider(), call) == first
    assert await find(fal.provider(), call, first.job) == second
    assert await find(fal.provider(), call, first.job, second.job) is None


async def test_a_job_that_is_not_listed_yet_is_found_when_it_is(fal: FalUpstream) -> None:
    fal.on("list", "list_lag")
    call = fal.call(picture())
    ticket = await fal.provider().submit(call)
    assert await find(fal.provider(), call) is None
    assert await find(fal.provider(), call) == ticket


async def test_without_payloads_nothing_is_sure(fal: FalUpstream) -> None:
    fal.on("list", "list_no_payloads", times=None)
    call = fal.call(picture())
    assert await find(fal.provider(), call) is None, "nothing at all was sent"
    await fal.provider().submit(call)
    error = await failure_of(find(fal.provider(), call))
    assert (error.fault, error.accepted, error.final) == (Fault.UNAVAILABLE, None, False)


@pytest.mark.parametrize(
    ("fault", "arguments", "expected", "tries"),
    [
        ("http", {"status": 500}, Fault.UNAVAILABLE, 3),
        ("http", {"status": 403, "body": {"error": {"type": "authorization_error"}}}, Fault.UNAUTHORIZED, 1),
        ("http", {"status": 404}, Fault.MALFORMED, 1),
        ("redirect", {}, Fault.MALFORMED, 1),
        ("rate_limit", {"retry_after": 500}, Fault.RATE_LIMITED, 1),
        ("drop_before", {}, Fault.UNAVAILABLE, 3),
        ("truncate", {}, Fault.UNAVAILABLE, 3),
        ("garbage_json", {}, Fault.MALFORMED, 3),
        ("hang", {}, Fault.TIMEOUT, 3),
        ("http", {"status": 200, "body": [1]}, Fault.MALFORMED, 3),
        ("http", {"status": 200, "body": {"items": []}}, Fault.MALFORMED, 3),
        ("http", {"status": 200, "body": {"items": {}, "has_more": False}}, Fault.MALFORMED, 3),
        ("http", {"status": 200, "body": {"items": [7], "has_more": False}}, Fault.MALFORMED, 3),
        ("http", {"status": 200, "body": {"items": [{"request_id": "../x"}], "has_more": False}}, Fault.MALFORMED, 3),
        ("http", {"status": 200, "body": {"items": [], "has_more": True}}, Fault.MALFORMED, 3),
        ("http", {"status": 200, "body": {"items": [], "has_more": True, "next_cursor": 7}}, Fault.MALFORMED, 3),
    ],
)
async def test_a_list_that_cannot_be_read_is_no_proof_that_there_is_no_job(
    fal: FalUpstream, fault: str, arguments: dict[str, Any], expected: Fault, tries: int
) -> None:
    fal.on("list", fault, times=None, **arguments)
    patience = Patience(listing=0.2 if fault == "hang" else 10)
    provider = fal.provider(clock=FakeClock(), patience=patience)
    error = await failure_of(find(provider, fal.call(picture())))
    assert (error.fault, error.accepted, error.charged) == (expected, None, None)
    assert len(fal.sent) == tries


async def test_a_hiccup_of_the_list_is_survived(fal: FalUpstream) -> None:
    call = fal.call(picture())
    ticket = await fal.provider().submit(call)
    fal.on("list", "http", times=2, status=503)
    assert await find(fal.provider(clock=FakeClock()), call) == ticket


async def test_no_failure_of_the_list_tells_a_prompt(fal: FalUpstream) -> None:
    item = {"request_id": "!", "json_input": {"prompt": "a very private wish"}}
    fal.on("list", "http", status=200, body={"items": [item], "has_more": False}, times=None)
    error = await failure_of(find(fal.provider(clock=FakeClock()), fal.call(picture())))
    assert "private" not in error.message + error.detail


# ---- page by page, and where the key goes: against a handler in the place of all hosts

Handler = Callable[[httpx2.Request], httpx2.Response]
CALL = ProviderCall(EDIT, {"prompt": "x"}, "req")


def paged(pages: list[dict[str, Any]], asked: list[dict[str, list[str]]]) -> Handler:
    def handler(request: httpx2.Request) -> httpx2.Response:
        asked.append(parse_qs(request.url.query.decode()))
        return httpx2.Response(200, json=pages[len(asked) - 1])

    return handler


def entry(job: str, prompt: str = "y", **more: Any) -> dict[str, Any]:
    sent = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    return {"request_id": job, "endpoint_id": EDIT, "sent_at": sent, "json_input": {"prompt": prompt}, **more}


async def found_in(*pages: dict[str, Any]) -> tuple[Ticket | None, list[dict[str, list[str]]]]:
    asked: list[dict[str, list[str]]] = []
    provider, http = on_fals_own_names(paged(list(pages), asked), FakeClock())
    try:
        return await find(provider, CALL), asked
    finally:
        await http.aclose()


async def test_what_is_asked_for_and_where() -> None:
    seen: list[httpx2.Request] = []

    def handler(request: httpx2.Request) -> httpx2.Response:
        seen.append(request)
        return httpx2.Response(200, json={"items": [], "has_more": False, "next_cursor": None})

    provider, http = on_fals_own_names(handler, FakeClock())
    assert await provider.find("fal-ai/a b", "0" * 64, 1_767_225_600.5, 1_767_225_700, frozenset()) is None
    await http.aclose()
    (request,) = seen
    assert (request.method, request.url.host, request.url.scheme) == ("GET", "api.fal.ai", "https")
    assert request.url.path == "/v1/models/requests/by-endpoint"
    assert parse_qs(request.url.query.decode()) == {
        "endpoint_id": ["fal-ai/a b"],
        "start": ["2025-12-31T23:58:00Z"],
        "end": ["2026-01-01T01:03:40Z"],  # the latest end of a job that was sent at the latest
        "limit": ["100"],
        "expand": ["payloads"],
    }
    assert request.headers["authorization"].startswith("Key ")


async def test_all_pages_are_read_before_none_is_said() -> None:
    pages = [{"items": [entry(f"job-000{n}")], "has_more": n < 3, "next_cursor": f"c{n}"} for n in range(4)]
    ticket, asked = await found_in(*pages)
    assert ticket is None
    assert [one.get("cursor") for one in asked] == [None, ["c0"], ["c1"], ["c2"]]


async def test_the_one_on_the_last_page_is_found() -> None:
    ticket, asked = await found_in(
        {"items": [entry("job-0001")], "has_more": True, "next_cursor": "Mg=="},
        {"items": [entry("job-0002", "x")], "has_more": False, "next_cursor": None},
    )
    assert ticket is not None
    assert (ticket.job, len(asked)) == ("job-0002", 2)
    assert ticket.data["status_url"] == f"https://queue.fal.run/{EDIT}/requests/job-0002/status"


async def test_a_list_without_end_is_given_up_after_so_many_pages() -> None:
    pages = [{"items": [entry("job-0001")], "has_more": True, "next_cursor": f"c{n}"} for n in range(100)]
    asked: list[dict[str, list[str]]] = []
    provider, http = on_fals_own_names(paged(pages, asked), FakeClock())
    error = await failure_of(find(provider, CALL))
    await http.aclose()
    assert (error.fault, error.accepted, len(asked)) == (Fault.UNAVAILABLE, None, PAGES)


async def test_a_list_that_goes_in_circles_is_given_up() -> None:
    pages = [{"items": [], "has_more": True, "next_cursor": "same"}] * 3
    asked: list[dict[str, list[str]]] = []
    provider, http = on_fals_own_names(paged(pages, asked), FakeClock())
    assert (await failure_of(find(provider, CALL))).accepted is None
    await http.aclose()
    assert len(asked) == 2


async def test_entries_of_other_endpoints_do_not_count_and_odd_times_do() -> None:
    assert (await found_in({"items": [entry("job-0001", "x", endpoint_id="a/b")], "has_more": False}))[0] is None
    for odd in (None, "soon", 7, "2026-13-45"):
        ticket, _ = await found_in({"items": [entry("job-0001", "x", sent_at=odd)], "has_more": False})
        assert ticket is not None


async def test_a_payload_given_as_text_is_read() -> None:
    ticket, _ = await found_in({"items": [entry("job-0001", json_input='{"prompt": "x"}')], "has_more": False})
    assert ticket is not None


async def test_a_match_counts_beside_entries_whose_payload_is_not_shown() -> None:
    items = [entry("job-0001", json_input=None), entry("job-0002", "x")]
    ticket, _ = await found_in({"items": items, "has_more": False})
    assert ticket is not None
    assert ticket.job == "job-0002"


async def test_pages_that_are_too_large_are_asked_for_in_smaller_ones() -> None:
    asked: list[dict[str, list[str]]] = []

    def handler(request: httpx2.Request) -> httpx2.Response:
        asked.append(parse_qs(request.url.query.decode()))
        if asked[-1]["limit"] == ["100"]:
            return httpx2.Response(200, content=b" " * (33 << 20))
        return httpx2.Response(200, json={"items": [entry("job-0001", "x")], "has_more": False})

    provider, http = on_fals_own_names(handler, FakeClock())
    ticket = await find(provider, CALL)
    await http.aclose()
    assert ticket is not None
    assert [one["limit"] for one in asked] == [["100"], ["10"]]


@pytest.mark.parametrize(
    ("queue", "api", "host"),
    [
        ("https://queue.fal.run", "", "api.fal.ai"),
        ("https://queue.fal.run/", "", "api.fal.ai"),
        ("https://queue.falrun.com", "", None),
        ("https://queue.example", "", None),
        ("http://queue.fal.run", "", None),
        ("https://queue.example", "https://api.example/base/", "api.example"),
        ("https://queue.fal.run", "https://api.example", "api.example"),
    ],
)
async def test_the_key_goes_to_no_host_that_the_operator_did_not_configure(
    queue: str, api: str, host: str | None
) -> None:
    seen: list[httpx2.Request] = []

    def handler(request: httpx2.Request) -> httpx2.Response:
        seen.append(request)
        return httpx2.Response(200, json={"items": [], "has_more": False})

    http = httpx2.AsyncClient(transport=httpx2.MockTransport(handler), verify=False)
    settings = {one.name: one.default for one in FalProvider.settings} | {"key": "a:b", "queue_url": queue}
    provider = FalProvider({**settings, "api_url": api}, http, FakeClock())
    if host is None:
        error = await failure_of(find(provider, CALL))
        assert (error.fault, error.accepted, error.final) == (Fault.UNAVAILABLE, None, True)
        assert "not available" in error.message
    else:
        assert await find(provider, CALL) is None
    await http.aclose()
    assert [one.url.host for one in seen] == ([host] if host else [])
