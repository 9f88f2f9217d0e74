"""The client that adapters get: its short way says and means what httpx2's own would."""

from __future__ import annotations

import httpx2
import pytest

from app.http1 import Http1
from app.transport import Client
from tests.fakes.http import TRUSTING_NOBODY

pytestmark = pytest.mark.anyio


def client(**settings: object) -> Client:
    return Client(Http1(TRUSTING_NOBODY), trust_env=False, **settings)


@pytest.mark.parametrize(
    "url",
    [
        "https://queue.fal.run/fal-ai/qwen-image-edit-2509",
        "https://Queue.FAL.run/a/requests/0-1/status",
        "http://127.0.0.1:9000/queue/x?storage_type=fal-cdn-v3&logs=1",
        "http://localhost/",
        "https://rest.fal.ai:443/x",
        "http://x.example:80/a/.well-known/b..c",
    ],
)
async def test_a_plain_address_is_read_as_httpx2_reads_it(url: str) -> None:
    request = client().plain("GET", url, {}, None)
    read = httpx2.Request("GET", url)
    assert request is not None
    assert (request.origin.scheme, request.origin.host) == (read.url.scheme, read.url.host)
    assert request.origin.port == (read.url.port or {"http": 80, "https": 443}[read.url.scheme])
    assert (request.target, dict(request.headers)[b"Host"]) == (read.url.raw_path, read.headers["host"].encode())


@pytest.mark.parametrize(
    "url",
    [
        "https://me:word@x.example/a",
        "https://x.example@elsewhere.example/a",
        "https://x.example/a/../b",
        "https://x.example/a/.",
        "https://x.example//a",
        "https://x.example/a b",
        "https://x.example/%2e%2e/b",
        "https://x.example/a#b",
        "https://x.example/a\n",
        "https://999.1.1.1/a",
        "https://[::1]/a",
        "https://schlüssel.example/a",
        "https://x.example",
        "HTTPS://x.example/a",
        "ftp://x.example/a",
    ],
)
async def test_any_other_address_goes_httpx2s_way(url: str) -> None:
    assert client().plain("GET", url, {}, None) is None


async def test_a_body_of_unknown_length_and_a_client_with_hooks_go_httpx2s_way() -> None:
    async def pieces() -> object:
        yield b"x"

    async def hook(request: httpx2.Request) -> None: ...

    url = "https://x.example/a"
    assert client().plain("POST", url, {}, pieces()) is None
    assert client().plain("POST", url, {"Content-Length": "1"}, pieces()) is not None
    assert client(event_hooks={"request": [hook]}).plain("GET", url, {}, None) is None


@pytest.mark.parametrize("body", [b"x", b""])
async def test_a_body_says_how_long_it_is(body: bytes) -> None:
    request = client().plain("POST", "https://x.example/a", {}, body)
    assert request is not None
    assert (b"Content-Length", b"%d" % len(body)) in request.headers
