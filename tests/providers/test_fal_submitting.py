"""Submitting: what goes to fal, where the key goes, what a ticket holds."""

from __future__ import annotations

import dataclasses
import json

import httpx2
import pytest

from providers.base import ProviderCall, Ticket
from providers.fal import FalProvider
from providers.testing.clock import RealClock
from providers.testing.kit import failure_of, large_picture, picture, until
from tests.fakes.sandbox import KEY
from tests.providers.upstream import FalUpstream, on_fals_own_names

pytestmark = pytest.mark.anyio


async def test_small_pictures_go_inline_byte_for_byte(fal: FalUpstream) -> None:
    one, two = picture(), picture((32, 32))
    await fal.provider().submit(fal.call(one, two))
    (job,) = fal.sandbox.jobs()
    assert [(sent["bytes"], sent["mime"]) for sent in job["payload"]["image_urls"]] == [
        (one.size, "image/png"),
        (two.size, "image/png"),
    ]
    assert fal.uploads() == 0


async def test_above_two_megabytes_all_pictures_are_uploaded(fal: FalUpstream) -> None:
    media = large_picture(2_000_000)
    provider = fal.provider()
    ticket = await provider.submit(fal.call(media, picture()))
    assert (await provider.collect(ticket, until(10))).images
    books = fal.sandbox.books()
    assert books["uploads"] == 2
    assert books["upload_bytes"] > media.size
    assert all("/files/" in url for url in books["jobs"][0]["payload"]["image_urls"])
    assert books["key_leaks"] == 0


async def test_a_public_url_is_handed_on_as_it_is(fal: FalUpstream) -> None:
    public = 'https://pictures.example/ä "quoted".png'
    media = dataclasses.replace(picture(), url=public)
    await fal.provider().submit(fal.call(media))
    assert fal.sandbox.jobs()[0]["payload"]["image_urls"] == [public]


async def test_fal_is_told_how_long_to_keep_the_results_and_never_for_ever(fal: FalUpstream) -> None:
    provider = fal.provider()
    await provider.submit(fal.call(picture()))
    await provider.submit(dataclasses.replace(fal.call(picture()), keep_results_seconds=0))
    told = [job["headers"]["x-fal-object-lifecycle-preference"] for job in fal.sandbox.jobs()]
    assert [json.loads(one)["expiration_duration_seconds"] for one in told] == [600, 60]


async def test_urls_on_a_foreign_host_are_not_used_and_get_no_key(fal: FalUpstream) -> None:
    fal.on("submit", "foreign_urls", origin="http://127.0.0.1:9")
    result = await fal.edit()
    assert result.images
    assert all(str(one.url).startswith(fal.sandbox.url) for one in fal.sent)


@pytest.mark.parametrize(
    "origin",
    ["http://[bad", "http://127.0.0.1@evil.example", "//evil.example", "javascript:", "http://127.0.0.1:9\\@x", ""],
)
async def test_urls_that_are_none_are_not_used(fal: FalUpstream, origin: str) -> None:
    fal.on("submit", "foreign_urls", origin=origin)
    assert (await fal.edit()).images


async def test_a_sub_path_model_is_polled_at_owner_and_alias(fal: FalUpstream) -> None:
    fal.on("submit", "foreign_urls", origin="http://127.0.0.1:9")  # so that the adapter must build them
    provider = fal.provider()
    call = fal.call(endpoint="fal-ai/qwen-image-edit/inpaint", image_url=picture(), mask_url=picture(), image_urls=[])
    ticket = await provider.submit(call)
    assert (await provider.collect(ticket, until(10))).images
    assert fal.sent[0].url.path == "/queue/fal-ai/qwen-image-edit/inpaint"
    assert ticket.data["status_url"].endswith(f"/queue/fal-ai/qwen-image-edit/requests/{ticket.job}/status")


@pytest.mark.parametrize(
    ("endpoint", "app"),
    [("a/b", "a/b"), ("a/b/c/d", "a/b"), ("workflows/a/b/c", "workflows/a/b"), ("comfy/a/b", "comfy/a/b")],
)
async def test_urls_are_built_as_fals_clients_build_them(fal: FalUpstream, endpoint: str, app: str) -> None:
    base = f"{fal.sandbox.url}/queue/{app}/requests/12345678"
    assert fal.provider()._ticket(endpoint, "12345678", {}).data == {
        "status_url": f"{base}/status",
        "response_url": base,
        "cancel_url": f"{base}/cancel",
    }


async def test_a_key_from_a_file_may_end_in_a_newline_and_no_other_oddity(fal: FalUpstream) -> None:
    assert (await fal.edit(fal.provider(key=f"{KEY}\n"))).images
    for key in ("", "a b", "a:b\nX-Other: 1", "schlüssel:1"):
        with pytest.raises(ValueError, match="FAL_KEY"):
            fal.provider(key=key)
    for url in ("no url", "https://user:pass@queue.fal.run"):
        with pytest.raises(ValueError, match="FAL_QUEUE_URL"):
            fal.provider(queue_url=url)
    for setting in ("rest_url", "api_url"):
        with pytest.raises(ValueError, match="FAL_API_URL"):
            fal.provider(**{setting: "https://user:pass@fal.example"})


def test_it_is_built_from_settings_a_client_and_a_clock_alone(fal: FalUpstream) -> None:
    settings = {setting.name: setting.default for setting in FalProvider.settings} | {"key": KEY}
    assert FalProvider(settings, fal.http, fal.clock).label == "fal.ai"


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
async def test_the_backup_domain_is_fal_too_and_no_other_is(host: str, followed: bool) -> None:
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


async def test_the_key_reaches_fals_queue_and_nothing_else_is_added() -> None:
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


async def test_a_ticket_of_another_base_is_used_as_it_was_written() -> None:
    seen: list[str] = []

    def handler(request: httpx2.Request) -> httpx2.Response:
        seen.append(str(request.url))
        return httpx2.Response(202, json={"status": "CANCELLATION_REQUESTED"})

    provider, http = on_fals_own_names(handler, RealClock())
    url = "https://queue.falrun.com/a/b/requests/12345678/cancel"
    assert await provider.cancel(Ticket("fal", "12345678", {"cancel_url": url}))
    await http.aclose()
    assert seen == [url]
