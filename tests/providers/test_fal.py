"""FalProvider against the sandbox over real HTTP: the contract of all providers, and what is fal's own."""

from __future__ import annotations

import asyncio
import base64
import dataclasses
import json
import time
from collections.abc import AsyncIterator, Iterator
from decimal import Decimal
from typing import Any

import httpx2
import pytest

from providers.base import Clock, Fault, Media, Provider, ProviderCall, ProviderResult, Ticket
from providers.fal import STATUS_TRIES, UPLOAD_TRIES, FalProvider, Patience
from providers.http import TRIES
from tests.fakes.clock import FakeClock, RealClock
from tests.fakes.fal_calls import EDIT
from tests.fakes.sandbox import KEY, SandboxServer

pytest.register_assert_rewrite("tests.providers.contract")
from tests.providers.contract import (  # noqa: E402 - after its asserts were registered
    ProviderContract,
    connections_to,
    failure_of,
    large_picture,
    picture,
    same_as,
    until,
)

DEAD = "http://127.0.0.1:9"  # discard: nobody listens
SMALL = {"width": 64, "height": 48}


@pytest.fixture(scope="module")
def server() -> Iterator[SandboxServer]:
    with SandboxServer() as server:
        yield server


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
async def fal(server: SandboxServer) -> AsyncIterator[FalUpstream]:
    server.reset()
    upstream = FalUpstream(server)
    yield upstream
    await upstream.http.aclose()


class FalUpstream:
    """The sandbox, as the contract suite and the sentences below want it. Keeps every request that was sent."""

    secrets = (KEY,)
    uploads_above = 2_000_000

    def __init__(self, sandbox: SandboxServer) -> None:
        self.sandbox = sandbox
        self.sent: list[httpx2.Request] = []
        # every connection ends with its answer, so that one left open is one forgotten
        self.http = httpx2.AsyncClient(
            trust_env=False,
            verify=False,
            limits=httpx2.Limits(max_keepalive_connections=0),
            event_hooks={"request": [self._note]},
        )
        self.clock = RealClock()

    async def _note(self, request: httpx2.Request) -> None:
        self.sent.append(request)

    def provider(self, *, reachable: bool = True, **changes: Any) -> FalProvider:
        settings = {"label": "fal.ai", **self.sandbox.settings}
        if not reachable:
            settings |= {"queue_url": f"{DEAD}/queue", "rest_url": f"{DEAD}/rest"}
        patience = changes.pop("patience", Patience())
        clock = changes.pop("clock", self.clock)
        return FalProvider({**settings, **changes}, self.http, clock, patience)

    def call(
        self,
        *pictures: Media,
        inline: bool = False,
        deadline: float = float("inf"),
        endpoint: str = EDIT,
        **fields: Any,
    ) -> ProviderCall:
        payload = {"prompt": "make it night", "image_urls": list(pictures), "image_size": SMALL, **fields}
        if inline:
            payload["sync_mode"] = True
        return ProviderCall(endpoint, payload, "req_test", 600, deadline)

    def on(self, point: str, fault: str, *, times: int | None = 1, after: int = 0, **arguments: Any) -> None:
        self.sandbox.script({"on": point, "fault": fault, "args": arguments, "times": times, "after": after})

    def refuse(self) -> None:
        self.on("submit", "http", status=422, body={"detail": [{"loc": ["body", "prompt"], "msg": "no", "type": "x"}]})

    def lose_reply(self) -> None:
        self.on("submit", "drop_after")

    def fail_job(self) -> None:
        self.on("submit", "model_error", type="image_load_error")

    def answer_late(self, *, submit: float = 0, job: float = 0, upload: float = 0) -> None:
        for point, fault, seconds in (
            ("submit", "delay", submit),
            ("submit", "run_for", job),
            ("put", "delay", upload),
        ):
            if seconds:
                self.on(point, fault, seconds=seconds)

    def echo_secrets(self) -> None:
        uri = f"data:image/png;base64,{base64.b64encode(picture().blob.read()).decode()}"
        text = f"Could not load image from url: {uri} for Key {KEY} {uri[22:]}"
        detail = [{"loc": ["body", "image_urls", 0], "msg": text, "type": "odd", "input": uri, "ctx": {"given": uri}}]
        self.on("submit", "http", status=422, body={"detail": detail})

    def jobs(self) -> int:
        return int(self.sandbox.totals()["submitted"])

    def cancelled(self) -> int:
        return int(self.sandbox.totals()["cancelled"])

    def uploads(self) -> int:
        return int(self.sandbox.books()["uploads"])

    def key_leaks(self) -> int:
        return int(self.sandbox.books()["key_leaks"])

    def connections(self) -> int:
        return connections_to(self.sandbox.port)

    def asked(self, ending: str, method: str = "GET") -> int:
        """Requests whose path ends so."""
        return sum(one.method == method and one.url.path.endswith(ending) for one in self.sent)

    async def edit(self, provider: Provider | None = None, *, seconds: float = 10, **fields: Any) -> ProviderResult:
        provider = provider or self.provider()
        return await provider.collect(await provider.submit(self.call(picture(), **fields)), until(seconds))


def on_fals_own_names(handler: Any, clock: Clock) -> tuple[FalProvider, httpx2.AsyncClient]:
    """The adapter as an operator gets it, with `handler` in the place of all hosts: what the sandbox cannot be."""
    http = httpx2.AsyncClient(transport=httpx2.MockTransport(handler), verify=False)
    settings = {setting.name: setting.default for setting in FalProvider.settings} | {"key": KEY}
    return FalProvider(settings, http, clock), http


class TestKeepsTheContract(ProviderContract):
    @pytest.fixture
    def upstream(self, fal: FalUpstream) -> FalUpstream:
        return fal

    def unreachable_ticket_data(self) -> dict[str, str]:
        return dict.fromkeys(("status_url", "response_url", "cancel_url"), f"{DEAD}/queue/a/b/requests/x/status")


pytestmark = pytest.mark.anyio


class TestSubmit:
    async def test_small_pictures_go_inline_byte_for_byte(self, fal: FalUpstream) -> None:
        one, two = picture(), picture((32, 32))
        await fal.provider().submit(fal.call(one, two))
        (job,) = fal.sandbox.jobs()
        assert [(sent["bytes"], sent["mime"]) for sent in job["payload"]["image_urls"]] == [
            (one.size, "image/png"),
            (two.size, "image/png"),
        ]
        assert fal.uploads() == 0

    async def test_above_two_megabytes_all_pictures_are_uploaded(self, fal: FalUpstream) -> None:
        media = large_picture(2_000_000)
        provider = fal.provider()
        ticket = await provider.submit(fal.call(media, picture()))
        assert (await provider.collect(ticket, until(10))).images
        books = fal.sandbox.books()
        assert books["uploads"] == 2
        assert books["upload_bytes"] > media.size
        assert all("/files/" in url for url in books["jobs"][0]["payload"]["image_urls"])
        assert books["key_leaks"] == 0

    async def test_a_public_url_is_handed_on_as_it_is(self, fal: FalUpstream) -> None:
        public = 'https://pictures.example/ä "quoted".png'
        media = dataclasses.replace(picture(), url=public)
        await fal.provider().submit(fal.call(media))
        assert fal.sandbox.jobs()[0]["payload"]["image_urls"] == [public]

    async def test_fal_is_told_how_long_to_keep_the_results_and_never_for_ever(self, fal: FalUpstream) -> None:
        provider = fal.provider()
        await provider.submit(fal.call(picture()))
        await provider.submit(dataclasses.replace(fal.call(picture()), keep_results_seconds=0))
        told = [job["headers"]["x-fal-object-lifecycle-preference"] for job in fal.sandbox.jobs()]
        assert [json.loads(one)["expiration_duration_seconds"] for one in told] == [600, 60]

    async def test_urls_on_a_foreign_host_are_not_used_and_get_no_key(self, fal: FalUpstream) -> None:
        fal.on("submit", "foreign_urls", origin="http://127.0.0.1:9")
        result = await fal.edit()
        assert result.images
        assert all(str(one.url).startswith(fal.sandbox.url) for one in fal.sent)

    @pytest.mark.parametrize(
        "origin",
        ["http://[bad", "http://127.0.0.1@evil.example", "//evil.example", "javascript:", "http://127.0.0.1:9\\@x", ""],
    )
    async def test_urls_that_are_none_are_not_used(self, fal: FalUpstream, origin: str) -> None:
        fal.on("submit", "foreign_urls", origin=origin)
        assert (await fal.edit()).images

    async def test_a_sub_path_model_is_polled_at_owner_and_alias(self, fal: FalUpstream) -> None:
        fal.on("submit", "foreign_urls", origin="http://127.0.0.1:9")  # so that the adapter must build them
        provider = fal.provider()
        call = fal.call(
            endpoint="fal-ai/qwen-image-edit/inpaint", image_url=picture(), mask_url=picture(), image_urls=[]
        )
        ticket = await provider.submit(call)
        assert (await provider.collect(ticket, until(10))).images
        assert fal.sent[0].url.path == "/queue/fal-ai/qwen-image-edit/inpaint"
        assert ticket.data["status_url"].endswith(f"/queue/fal-ai/qwen-image-edit/requests/{ticket.job}/status")

    @pytest.mark.parametrize(
        ("endpoint", "app"),
        [("a/b", "a/b"), ("a/b/c/d", "a/b"), ("workflows/a/b/c", "workflows/a/b"), ("comfy/a/b", "comfy/a/b")],
    )
    async def test_urls_are_built_as_fals_clients_build_them(self, fal: FalUpstream, endpoint: str, app: str) -> None:
        base = f"{fal.sandbox.url}/queue/{app}/requests/12345678"
        assert fal.provider()._urls(endpoint, "12345678", {}) == {
            "status_url": f"{base}/status",
            "response_url": base,
            "cancel_url": f"{base}/cancel",
        }

    @pytest.mark.parametrize("job", ["../../../sandbox/books?x=", "short", "x" * 65, "späßchen", "", 12345678, None])
    async def test_a_request_id_that_is_none_leaves_it_open_whether_a_job_exists(
        self, fal: FalUpstream, job: Any
    ) -> None:
        fal.on("submit", "http", status=200, body={"request_id": job})
        error = await failure_of(fal.provider().submit(fal.call(picture())))
        assert (error.fault, error.accepted) == (Fault.MALFORMED, None)
        assert len(fal.sent) == 1

    @pytest.mark.parametrize("fault", ["garbage_json", "truncate", "drop_after"])
    async def test_a_reply_that_cannot_be_read_leaves_it_open(self, fal: FalUpstream, fault: str) -> None:
        fal.on("submit", fault)
        error = await failure_of(fal.provider().submit(fal.call(picture())))
        assert error.accepted is None
        assert (fal.jobs(), fal.asked(EDIT, "POST")) == (1, 1)

    async def test_a_read_time_out_leaves_it_open(self, fal: FalUpstream) -> None:
        fal.answer_late(submit=5)
        error = await failure_of(fal.provider(patience=Patience(submit=0.2)).submit(fal.call(picture())))
        assert (error.fault, error.accepted) == (Fault.TIMEOUT, None)

    async def test_a_huge_reply_is_not_read_to_its_end(self, fal: FalUpstream) -> None:
        fal.on("submit", "huge", bytes=1 << 30, chunked=True)
        error = await failure_of(fal.provider().submit(fal.call(picture())))
        assert (error.fault, error.accepted) == (Fault.MALFORMED, None)

    @pytest.mark.parametrize(
        ("fault", "arguments", "expected", "accepted"),
        [
            ("drop_before", {}, Fault.UNAVAILABLE, None),
            ("locked", {}, Fault.UNAUTHORIZED, False),
            ("unauthorized", {}, Fault.UNAUTHORIZED, False),
            ("unavailable_nginx", {"status": 502}, Fault.UNAVAILABLE, False),
            ("unavailable_nginx", {"status": 503}, Fault.UNAVAILABLE, False),
            ("unavailable_nginx", {"status": 504}, Fault.TIMEOUT, None),
            ("http", {"status": 500}, Fault.UNAVAILABLE, None),
            ("http", {"status": 502}, Fault.UNAVAILABLE, None),
            ("http", {"status": 202, "body": {}}, Fault.MALFORMED, None),
            ("infra_error", {"error_type": "runner_scheduling_failure", "at": "reply"}, Fault.UNAVAILABLE, False),
            ("model_error", {"type": "content_policy_violation", "at": "reply"}, Fault.REFUSED, False),
            ("redirect", {}, Fault.MALFORMED, False),
        ],
    )
    async def test_what_a_refused_submit_says_of_the_job(
        self, fal: FalUpstream, fault: str, arguments: dict[str, Any], expected: Fault, accepted: bool | None
    ) -> None:
        fal.on("submit", fault, **arguments)
        error = await failure_of(fal.provider().submit(fal.call(picture())))
        assert (error.fault, error.accepted) == (expected, accepted)
        assert len(fal.sent) == 1, "a paid step is never repeated by the adapter"

    async def test_a_rate_limit_carries_its_pause(self, fal: FalUpstream) -> None:
        fal.on("submit", "rate_limit", retry_after=7)
        error = await failure_of(fal.provider().submit(fal.call(picture())))
        assert (error.fault, error.accepted, error.retry_after) == (Fault.RATE_LIMITED, False, 7.0)

    async def test_an_unknown_endpoint_is_our_mistake(self, fal: FalUpstream) -> None:
        error = await failure_of(fal.provider().submit(fal.call(picture(), endpoint="fal-ai/nothing")))
        assert (error.fault, error.accepted) == (Fault.UNAUTHORIZED, False)

    async def test_a_key_from_a_file_may_end_in_a_newline_and_no_other_oddity(self, fal: FalUpstream) -> None:
        assert (await fal.edit(fal.provider(key=f"{KEY}\n"))).images
        for key in ("", "a b", "a:b\nX-Other: 1", "schlüssel:1"):
            with pytest.raises(ValueError, match="FAL_KEY"):
                fal.provider(key=key)
        for url in ("no url", "https://user:pass@queue.fal.run"):
            with pytest.raises(ValueError, match="FAL_QUEUE_URL"):
                fal.provider(queue_url=url)


class TestUpload:
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
    async def test_a_hiccup_is_survived(
        self, fal: FalUpstream, point: str, fault: str, arguments: dict[str, Any]
    ) -> None:
        fal.on(point, fault, **arguments)
        clock = FakeClock()
        await fal.provider(clock=clock).submit(fal.call(large_picture(2_000_000)))
        assert fal.jobs() == 1
        assert len(clock.sleeps) == 1

    @pytest.mark.parametrize("point", ["initiate", "put"])
    async def test_when_it_goes_on_failing_no_job_was_made(self, fal: FalUpstream, point: str) -> None:
        fal.on(point, "http", status=500, times=None)
        media = large_picture(2_000_000)
        error = await failure_of(fal.provider(clock=FakeClock()).submit(fal.call(media)))
        assert (error.fault, error.accepted) == (Fault.UNAVAILABLE, False)
        assert fal.jobs() == 0
        assert fal.asked("/initiate", "POST") == UPLOAD_TRIES

    async def test_a_failure_is_not_remembered(self, fal: FalUpstream) -> None:
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
        self, fal: FalUpstream, fault: str, arguments: dict[str, Any], expected: Fault
    ) -> None:
        fal.on("initiate", fault, times=None, **arguments)
        error = await failure_of(fal.provider(clock=FakeClock()).submit(fal.call(large_picture(2_000_000))))
        assert (error.fault, error.accepted) == (expected, False)

    async def test_a_file_that_is_too_large_is_the_callers(self, fal: FalUpstream) -> None:
        fal.on("put", "http", status=413, body="too large")
        error = await failure_of(fal.provider().submit(fal.call(large_picture(2_000_000))))
        assert (error.fault, error.accepted) == (Fault.INVALID, False)

    async def test_it_ends_at_the_calls_deadline(self, fal: FalUpstream) -> None:
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
    async def test_a_picture_that_cannot_be_read_any_more_is_no_job(self, fal: FalUpstream, size: int) -> None:
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


class TestWaiting:
    async def test_a_short_job_costs_few_looks_and_little_delay(self, fal: FalUpstream) -> None:
        fal.on("submit", "run_for", seconds=2.0)
        provider = fal.provider()
        ticket = await provider.submit(fal.call(picture()))
        await provider.collect(ticket, until(20))
        got = time.time()
        (job,) = fal.sandbox.jobs()
        assert fal.asked("/status") <= 22
        assert got - job["finished"] < 0.3  # 0.1 by design, and what a busy machine adds

    @pytest.mark.parametrize("before", [0.2, 0.5, 1.0, 1.9])
    async def test_a_job_that_is_done_just_before_the_deadline_is_still_fetched(self, before: float) -> None:
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

    async def test_after_the_deadline_nothing_is_asked_any_more(self, fal: FalUpstream) -> None:
        error = await failure_of(fal.edit(seconds=-1))
        assert (error.fault, error.accepted) == (Fault.TIMEOUT, True)
        assert fal.asked("/status") == 0

    async def test_a_status_that_does_not_come_is_not_waited_for_past_the_deadline(self, fal: FalUpstream) -> None:
        fal.on("status", "delay", seconds=2)
        began = time.monotonic()
        error = await failure_of(fal.edit(seconds=0.4))
        assert (error.fault, error.accepted) == (Fault.TIMEOUT, True)
        assert time.monotonic() - began < 0.8

    async def test_queued_and_running_answer_202_and_are_waited_for(self, fal: FalUpstream) -> None:
        fal.sandbox.script({"on": "submit", "fault": "queue_for;seconds=0.2, run_for;seconds=0.2"})
        assert (await fal.edit()).images
        assert 3 <= fal.asked("/status") <= 8

    async def test_the_word_decides_and_not_the_http_status(self, fal: FalUpstream) -> None:
        fal.on("submit", "run_for", seconds=0.3)
        provider = fal.provider()
        ticket = await provider.submit(fal.call(picture()))
        fal.on("status", "http", status=200, body={"status": "IN_PROGRESS", "logs": None})
        assert (await provider.collect(ticket, until(10))).images

    @pytest.mark.parametrize(
        ("fault", "arguments"),
        [
            ("http", {"status": 500}),
            ("http", {"status": 408}),
            ("unavailable_nginx", {"status": 504}),
            ("rate_limit", {"retry_after": 3}),
            ("drop_before", {}),
            ("drop_after", {}),
            ("truncate", {}),
            ("garbage_json", {}),
            ("http", {"status": 200, "body": {"status": "SOMETHING"}}),
            ("http", {"status": 200, "body": [1]}),
        ],
    )
    @pytest.mark.parametrize("times", [1, TRIES - 1])
    async def test_a_hiccup_of_the_status_is_survived(
        self, fal: FalUpstream, fault: str, arguments: dict[str, Any], times: int
    ) -> None:
        fal.on("status", fault, times=times, **arguments)
        clock = FakeClock()
        provider = fal.provider(clock=clock)
        ticket = await provider.submit(fal.call(picture()))
        await self.finished(fal)
        assert (await provider.collect(ticket, clock.now + 60)).images
        assert len(clock.sleeps) == times
        assert fal.jobs() == 1

    async def finished(self, fal: FalUpstream) -> None:
        assert await same_as(lambda: fal.sandbox.jobs()[0]["state"], "COMPLETED")

    async def test_a_dripping_status_is_waited_for_within_its_limit(self, fal: FalUpstream) -> None:
        fal.on("status", "drip", bytes_per_second=1000)
        assert (await fal.edit()).images

    async def test_a_status_that_drips_for_ever_is_cut_and_asked_for_again(self, fal: FalUpstream) -> None:
        fal.on("status", "drip", bytes_per_second=10)
        assert (await fal.edit(fal.provider(patience=Patience(status=0.3)))).images

    async def test_it_gives_up_when_the_queue_is_out_for_a_minute(self, fal: FalUpstream) -> None:
        fal.on("status", "http", status=500, times=None)
        clock = FakeClock()
        provider = fal.provider(clock=clock)
        ticket = await provider.submit(fal.call(picture()))
        error = await failure_of(provider.collect(ticket, clock.now + 600))
        assert (error.fault, error.accepted) == (Fault.UNAVAILABLE, True)
        assert fal.asked("/status") == STATUS_TRIES
        assert 40 < sum(clock.sleeps) < 60

    @pytest.mark.parametrize(
        ("fault", "arguments", "expected"),
        [
            ("unauthorized", {}, Fault.UNAUTHORIZED),
            ("locked", {}, Fault.UNAUTHORIZED),
            ("http", {"status": 404, "body": {"status": "NOT_FOUND"}}, Fault.MALFORMED),
            ("http", {"status": 400}, Fault.MALFORMED),
            ("redirect", {}, Fault.MALFORMED),
            ("huge", {"bytes": 2 << 20}, Fault.MALFORMED),
        ],
    )
    async def test_what_no_repetition_can_mend_is_not_repeated(
        self, fal: FalUpstream, fault: str, arguments: dict[str, Any], expected: Fault
    ) -> None:
        fal.on("status", fault, **arguments)
        error = await failure_of(fal.edit())
        assert (error.fault, error.accepted) == (expected, True)
        assert fal.asked("/status") == 1

    async def test_a_pause_that_reaches_past_the_deadline_ends_it(self, fal: FalUpstream) -> None:
        fal.on("status", "rate_limit", retry_after=600)
        clock = FakeClock()
        provider = fal.provider(clock=clock)
        ticket = await provider.submit(fal.call(picture()))
        error = await failure_of(provider.collect(ticket, clock.now + 60))
        assert (error.fault, error.accepted) == (Fault.RATE_LIMITED, True)
        assert clock.sleeps == []


class TestResult:
    async def test_urls_sizes_seed_units_and_the_request_id_are_told(self, fal: FalUpstream) -> None:
        provider = fal.provider()
        size = {"width": 1088, "height": 1024}
        ticket = await provider.submit(fal.call(picture(), image_size=size, num_images=2, seed=7))
        result = await provider.collect(ticket, until(10))
        assert [(image.width, image.height, image.mime) for image in result.images] == [(1088, 1024, "image/png")] * 2
        assert all(image.url and image.url.startswith(f"{fal.sandbox.url}/cdn/") for image in result.images)
        assert (result.seed, result.billable_units, result.provider_request_id) == (7, Decimal(4), ticket.job)

    async def test_the_safety_check_is_told_per_picture(self, fal: FalUpstream) -> None:
        fal.on("submit", "nsfw", image=1)
        result = await fal.edit(num_images=3)
        assert [image.flagged for image in result.images] == [False, True, False]

    async def test_sync_mode_brings_the_bytes(self, fal: FalUpstream) -> None:
        result = await fal.edit(sync_mode=True, output_format="jpeg")
        (image,) = result.images
        assert image.data is not None
        assert image.data.startswith(b"\xff\xd8\xff")
        assert (image.url, image.mime) == (None, "image/jpeg")

    @pytest.mark.parametrize(
        ("kind", "fault", "field"),
        [
            ("content_policy_violation", Fault.REFUSED, "prompt"),
            ("image_load_error", Fault.INVALID, None),
            ("generation_timeout", Fault.TIMEOUT, None),
            ("internal_server_error", Fault.UNAVAILABLE, None),
            ("downstream_service_unavailable", Fault.UNAVAILABLE, None),
        ],
    )
    async def test_the_models_own_verdict_is_final(
        self, fal: FalUpstream, kind: str, fault: Fault, field: str | None
    ) -> None:
        fal.on("submit", "model_error", type=kind)
        error = await failure_of(fal.edit())
        assert (error.fault, error.field, error.accepted) == (fault, field, True)
        assert fal.asked(f"/requests/{fal.sandbox.jobs()[0]['request_id']}") == 1

    async def test_a_value_that_the_model_refuses_is_told_by_its_field(self, fal: FalUpstream) -> None:
        error = await failure_of(fal.edit(guidance_scale=99))
        assert (error.fault, error.field, error.accepted) == (Fault.INVALID, "guidance_scale", True)
        assert "20" in error.message

    @pytest.mark.parametrize(
        ("error_type", "fault"),
        [
            ("internal_error", Fault.UNAVAILABLE),
            ("runner_disconnected", Fault.UNAVAILABLE),
            ("request_timeout", Fault.TIMEOUT),
            ("startup_timeout", Fault.TIMEOUT),
        ],
    )
    @pytest.mark.parametrize("how", ["completed_with_error", "infra_error"])
    async def test_completed_with_an_error_is_a_failure(
        self, fal: FalUpstream, how: str, error_type: str, fault: Fault
    ) -> None:
        fal.on("submit", how, error_type=error_type)
        error = await failure_of(fal.edit())
        assert (error.fault, error.accepted) == (fault, True)
        assert error_type in error.detail

    async def test_what_the_result_says_of_a_failed_job_is_more_than_its_status_says(self, fal: FalUpstream) -> None:
        fal.on("submit", "model_error", type="content_policy_violation")
        status = {"status": "COMPLETED", "error": "Invalid status code: 422", "metrics": {}}
        fal.on("status", "http", status=200, body=status, times=None)
        provider = fal.provider()
        ticket = await provider.submit(fal.call(picture()))
        error = await failure_of(provider.collect(ticket, until(10)))
        assert (error.fault, error.field) == (Fault.REFUSED, "prompt")

    async def test_where_the_result_says_nothing_the_status_is_believed(self, fal: FalUpstream) -> None:
        status = {"status": "COMPLETED", "error": "Startup timeout", "error_type": "startup_timeout"}
        fal.on("submit", "lose_result")
        fal.on("status", "http", status=200, body=status)
        error = await failure_of(fal.edit())
        assert (error.fault, error.accepted) == (Fault.TIMEOUT, True)

    async def test_a_result_that_is_there_counts_more_than_an_error_in_the_status(self, fal: FalUpstream) -> None:
        provider = fal.provider()
        ticket = await provider.submit(fal.call(picture()))
        assert await same_as(lambda: fal.sandbox.jobs()[0]["state"], "COMPLETED")
        fal.on("status", "http", status=200, body={"status": "COMPLETED", "error": "logs were lost"})
        assert (await provider.collect(ticket, until(10))).images

    async def test_a_lost_result_is_not_the_callers_mistake(self, fal: FalUpstream) -> None:
        fal.on("submit", "lose_result")
        error = await failure_of(fal.edit())
        assert (error.fault, error.accepted) == (Fault.MALFORMED, True)

    async def test_no_picture_at_all_is_malformed(self, fal: FalUpstream) -> None:
        fal.on("submit", "empty_images")
        error = await failure_of(fal.edit())
        assert (error.fault, error.accepted) == (Fault.MALFORMED, True)
        assert fal.asked(f"/requests/{fal.sandbox.jobs()[0]['request_id']}") == 1

    @pytest.mark.parametrize(
        ("fault", "arguments"),
        [
            ("http", {"status": 502}),
            ("http", {"status": 400, "body": {"detail": "Request is still in progress"}}),
            ("unavailable_nginx", {"status": 503}),
            ("rate_limit", {"retry_after": 1}),
            ("drop_before", {}),
            ("drop_after", {}),
            ("truncate", {}),
            ("garbage_json", {}),
        ],
    )
    async def test_a_hiccup_of_the_result_is_survived(
        self, fal: FalUpstream, fault: str, arguments: dict[str, Any]
    ) -> None:
        fal.on("result", fault, **arguments)
        clock = FakeClock()
        provider = fal.provider(clock=clock)
        ticket = await provider.submit(fal.call(picture()))
        assert (await provider.collect(ticket, clock.now + 60)).images
        assert fal.jobs() == 1

    async def test_garbage_for_ever_is_malformed(self, fal: FalUpstream) -> None:
        fal.on("result", "garbage_json", times=None)
        clock = FakeClock()
        provider = fal.provider(clock=clock)
        ticket = await provider.submit(fal.call(picture()))
        error = await failure_of(provider.collect(ticket, clock.now + 60))
        assert (error.fault, error.accepted) == (Fault.MALFORMED, True)

    @pytest.mark.parametrize(
        "output",
        [
            {},
            {"images": None},
            {"images": "x"},
            {"images": [None]},
            {"images": [{"url": None}]},
            {"images": [{"url": "https://x.example/1.png"}, {}]},
            {"images": [{"url": "data:image/png;base64,***"}]},
            {"image": {"url": 7}},
        ],
    )
    async def test_an_output_without_usable_pictures_is_malformed_at_once(
        self, fal: FalUpstream, output: dict[str, Any]
    ) -> None:
        fal.on("result", "http", status=200, body=output)
        error = await failure_of(fal.edit())
        assert (error.fault, error.accepted, error.final) == (Fault.MALFORMED, True, True)

    async def test_claims_that_cannot_be_true_are_not_repeated(self, fal: FalUpstream) -> None:
        output = {
            "image": {"url": "https://x.example/1.png", "width": -3, "height": "high", "content_type": 5},
            "seed": True,
            "has_nsfw_concepts": {"no": "list"},
        }
        fal.on("result", "http", status=200, body=output, headers={"X-Fal-Billable-Units": "1e999999"})
        result = await fal.edit()
        (image,) = result.images
        assert (image.width, image.height, image.mime, image.flagged) == (None, None, None, False)
        assert (result.seed, result.billable_units) == (None, None)

    @pytest.mark.parametrize(
        ("told", "units"),
        [("1.5", Decimal("1.5")), ("0", Decimal(0)), ("-1", None), ("NaN", None), ("many", None), ("", None)],
    )
    async def test_billable_units_are_told_or_not_but_never_guessed(
        self, fal: FalUpstream, told: str, units: Decimal | None
    ) -> None:
        output = {"images": [{"url": "https://x.example/1.png"}]}
        fal.on("result", "http", status=200, body=output, headers={"X-Fal-Billable-Units": told})
        assert (await fal.edit()).billable_units == units


class TestCancel:
    async def test_too_late_is_false(self, fal: FalUpstream) -> None:
        fal.on("submit", "run_for", seconds=60)
        fal.on("cancel", "cancel_too_late")
        provider = fal.provider()
        ticket = await provider.submit(fal.call(picture()))
        assert await provider.cancel(ticket) is False
        assert (await provider.collect(ticket, until(10))).images

    async def test_an_unknown_job_is_false(self, fal: FalUpstream) -> None:
        provider = fal.provider()
        ticket = await provider.submit(fal.call(picture()))
        fal.sandbox.reset()
        assert await provider.cancel(ticket) is False

    @pytest.mark.parametrize("fault", ["http", "drop_before", "rate_limit"])
    async def test_a_hiccup_is_survived(self, fal: FalUpstream, fault: str) -> None:
        fal.on("submit", "run_for", seconds=60)
        fal.on("cancel", fault)
        provider = fal.provider(clock=FakeClock())
        ticket = await provider.submit(fal.call(picture()))
        assert await provider.cancel(ticket) is True
        assert await same_as(fal.cancelled, 1)

    async def test_a_refusal_is_not_taken_for_too_late(self, fal: FalUpstream) -> None:
        fal.on("submit", "run_for", seconds=60)
        fal.on("cancel", "unauthorized")
        provider = fal.provider()
        ticket = await provider.submit(fal.call(picture()))
        error = await failure_of(provider.cancel(ticket))
        assert (error.fault, error.accepted) == (Fault.UNAUTHORIZED, True)

    async def test_a_cancelled_job_that_is_collected_is_a_failure(self, fal: FalUpstream) -> None:
        fal.on("submit", "run_for", seconds=60)
        provider = fal.provider()
        ticket = await provider.submit(fal.call(picture()))
        await provider.cancel(ticket)
        error = await failure_of(provider.collect(ticket, until(10)))
        assert (error.fault, error.accepted) == (Fault.UNAVAILABLE, True)
        assert "cancelled" in error.message


class TestFalsOwnDomains:
    @pytest.mark.parametrize(
        ("host", "followed"),
        [
            ("queue.falrun.com", True),
            ("queue.fal.run:443", True),
            ("QUEUE.fal.run", True),
            ("queue.fal.run.evil.example", False),
            ("queue.fal.run:8443", False),
            ("queue.fal.run@evil.example", False),
            ("fal.run", False),
        ],
    )
    async def test_the_backup_domain_is_fal_too_and_no_other_is(self, host: str, followed: bool) -> None:
        asked: list[httpx2.Request] = []

        def handler(request: httpx2.Request) -> httpx2.Response:
            asked.append(request)
            if request.method == "POST":
                base = f"https://{host}/fal-ai/x/requests/12345678"
                return httpx2.Response(
                    200, json={"request_id": "12345678", "status_url": f"{base}/status?logs=0", "response_url": base}
                )
            if request.url.path.endswith("/status"):
                return httpx2.Response(200, json={"status": "COMPLETED"})
            return httpx2.Response(200, json={"images": [{"url": "https://v3.fal.media/x.png"}]})

        provider, http = on_fals_own_names(handler, RealClock())
        ticket = await provider.submit(ProviderCall("fal-ai/x", {"prompt": "x"}, "req"))
        assert (await provider.collect(ticket, until(5))).images
        await http.aclose()
        assert (asked[1].url.netloc == httpx2.URL(f"https://{host}").netloc) is followed
        assert asked[0].url == "https://queue.fal.run/fal-ai/x"
        assert all(one.url.host in ("queue.fal.run", "queue.falrun.com") for one in asked)

    async def test_the_key_reaches_fals_queue_and_nothing_else_is_added(self) -> None:
        asked: list[httpx2.Request] = []

        def handler(request: httpx2.Request) -> httpx2.Response:
            asked.append(request)
            return httpx2.Response(429, headers={"Set-Cookie": "a=b"})

        provider, http = on_fals_own_names(handler, RealClock())
        for _ in range(2):
            await failure_of(provider.submit(ProviderCall("fal-ai/x", {"prompt": "x"}, "req")))
        await http.aclose()
        assert [one.headers["authorization"] for one in asked] == [f"Key {KEY}"] * 2
        assert not any("cookie" in one.headers for one in asked)

    async def test_a_ticket_of_another_base_is_used_as_it_was_written(self) -> None:
        seen: list[str] = []

        def handler(request: httpx2.Request) -> httpx2.Response:
            seen.append(str(request.url))
            return httpx2.Response(202, json={"status": "CANCELLATION_REQUESTED"})

        provider, http = on_fals_own_names(handler, RealClock())
        url = "https://queue.falrun.com/a/b/requests/12345678/cancel"
        assert await provider.cancel(Ticket("fal", "12345678", {"cancel_url": url}))
        await http.aclose()
        assert seen == [url]
