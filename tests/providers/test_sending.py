"""One request: within its limit as a whole, capped, and never ambiguous about whether it can have arrived."""

from __future__ import annotations

import asyncio
import ssl
import time
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import httpx2
import pytest

from providers.base import Fault
from providers.http import TooLarge, send
from providers.testing.kit import failure_of
from tests.fakes.http import http_client
from tests.fakes.tls import write_certificate

pytestmark = pytest.mark.anyio

Peer = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def listening(peer: Peer) -> AsyncIterator[str]:
    """A server that does with each connection what `peer` does; its URL."""
    open_writers: list[asyncio.StreamWriter] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        open_writers.append(writer)
        try:
            await peer(reader, writer)
        except ConnectionError:
            return
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        for writer in open_writers:
            writer.close()
        await asyncio.sleep(0.01)


def saying(*parts: bytes, pause: float = 0.0) -> Peer:
    async def peer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        for part in parts:
            writer.write(part)
            await writer.drain()
            await asyncio.sleep(pause)

    return peer


async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read()


@pytest.fixture(params=["the short way", "httpx2's way"])
async def client(request: pytest.FixtureRequest) -> AsyncIterator[httpx2.AsyncClient]:
    async def hook(_: httpx2.Request) -> None:
        """A client with hooks goes httpx2's way."""

    hooks = {"request": [hook]} if request.param == "httpx2's way" else {}
    async with http_client(follow_redirects=True, timeout=0.1, event_hooks=hooks) as one:
        yield one


async def test_an_answer_is_read_whole(client: httpx2.AsyncClient) -> None:
    reply = b"HTTP/1.1 201 Created\r\nX-Y: z\r\nContent-Length: 8\r\n\r\n"
    async with listening(saying(reply, b'{"a":', b"[1]}"[:3])) as url:
        answer = await send(client, "GET", f"{url}/x?secret=1", seconds=5)
    assert (answer.status, answer.headers["x-y"], answer.json()) == (201, "z", None)
    assert answer.body == b'{"a":[1]'
    assert answer.asked == f"GET {url}/x"


async def test_the_limit_is_on_the_whole_and_not_on_each_read(client: httpx2.AsyncClient) -> None:
    drops = [b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n", *([b"x"] * 100)]
    async with listening(saying(*drops, pause=0.05)) as url:
        began = time.monotonic()
        error = await failure_of(send(client, "GET", url, seconds=0.4))
    assert (error.fault, error.accepted) == (Fault.TIMEOUT, None)
    assert 0.3 < time.monotonic() - began < 0.7


async def test_the_clients_own_time_outs_do_not_cut_it_short(client: httpx2.AsyncClient) -> None:
    late = saying(b"", b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", pause=0.25)
    async with listening(late) as url:
        assert (await send(client, "GET", url, seconds=5)).status == 200


async def test_no_answer_leaves_it_open(client: httpx2.AsyncClient) -> None:
    async with listening(silent) as url:
        error = await failure_of(send(client, "POST", url, seconds=0.2, content=b"x"))
    assert (error.fault, error.accepted) == (Fault.TIMEOUT, None)


async def test_a_server_that_cannot_be_reached_was_not_reached(client: httpx2.AsyncClient) -> None:
    error = await failure_of(send(client, "POST", "http://127.0.0.1:9/x", seconds=1))
    assert (error.fault, error.accepted) == (Fault.UNAVAILABLE, False)


async def test_connecting_that_takes_too_long_did_not_reach_it_either() -> None:
    class Swallowing(httpx2.AsyncBaseTransport):
        async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
            limits = request.extensions["timeout"]
            await asyncio.sleep(limits["connect"])
            assert limits["connect"] < limits["read"]
            raise httpx2.ConnectTimeout("no route", request=request)

    async with httpx2.AsyncClient(transport=Swallowing()) as client:
        error = await failure_of(send(client, "POST", "http://10.0.0.1/x", seconds=0.2))
    assert (error.fault, error.accepted) == (Fault.UNAVAILABLE, False)


@pytest.mark.parametrize("length", [b"Content-Length: 5000\r\n", b""])
async def test_an_answer_over_the_limit_is_refused(client: httpx2.AsyncClient, length: bytes) -> None:
    async with listening(saying(b"HTTP/1.1 200 OK\r\n" + length + b"\r\n", b"x" * 5000)) as url:
        error = await failure_of(send(client, "GET", url, seconds=5, limit=4000))
    assert (error.fault, error.final) == (Fault.MALFORMED, True)


async def test_nothing_compressed_is_asked_for_and_a_bomb_is_cut(client: httpx2.AsyncClient) -> None:
    heard: list[bytes] = []
    bomb = zlib.compress(b"\0" * 50_000_000)

    async def peer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heard.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Encoding: deflate\r\nContent-Length: %d\r\n\r\n" % len(bomb))
        writer.write(bomb)
        await writer.drain()

    async with listening(peer) as url:
        error = await failure_of(send(client, "GET", url, seconds=5))
    assert error.fault is Fault.MALFORMED
    assert b"accept-encoding: identity" in heard[0].lower()


async def test_redirects_are_not_followed_nor_cookies_returned(client: httpx2.AsyncClient) -> None:
    heard: list[bytes] = []

    async def peer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heard.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(b"HTTP/1.1 307 Go\r\nLocation: /elsewhere\r\nSet-Cookie: a=b\r\nContent-Length: 0\r\n\r\n")
        await writer.drain()

    async with listening(peer) as url:
        for _ in range(2):
            assert (await send(client, "GET", url, seconds=5)).status == 307
    assert len(heard) == 2
    assert not any(b"cookie" in one.lower() for one in heard)


@pytest.mark.parametrize(
    "reply",
    [
        b"",
        b"garbage\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf",
        b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: " + b"y" * 200_000,
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Encoding: deflate\r\nContent-Length: 4\r\n\r\nnope",
    ],
)
async def test_a_broken_answer_leaves_it_open(client: httpx2.AsyncClient, reply: bytes) -> None:
    async with listening(saying(reply)) as url:
        error = await failure_of(send(client, "POST", url, seconds=5, content=b"x"))
    assert (error.fault, error.accepted) == (Fault.UNAVAILABLE, None)


@pytest.mark.parametrize(
    "broken",
    [
        ssl.SSLError("bad record mac"),
        OSError("cable"),
        UnicodeError("label too long"),
        httpx2.ReadError("x"),
        httpx2.StreamClosed(),
        httpx2.InvalidURL("x"),
    ],
)
async def test_whatever_the_engine_raises_is_a_provider_error(broken: Exception) -> None:
    class Breaking(httpx2.AsyncBaseTransport):
        async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
            raise broken

    async with httpx2.AsyncClient(transport=Breaking()) as client:
        error = await failure_of(send(client, "GET", "http://x.example/", seconds=1))
    assert (error.fault, error.accepted) == (Fault.UNAVAILABLE, None)


@pytest.mark.parametrize("url", ["http://x.example/\n", "http://x:99999999/", "http://[::1", "http://"])
async def test_an_address_that_is_none_reached_nobody(client: httpx2.AsyncClient, url: str) -> None:
    assert (await failure_of(send(client, "GET", url, seconds=1))).accepted is False


@pytest.mark.parametrize("secret", ["Key a:b\nX: y", "Key schlüssel"])
async def test_no_error_tells_a_header(client: httpx2.AsyncClient, secret: str) -> None:
    async with listening(silent) as url:
        error = await failure_of(send(client, "GET", url, seconds=1, headers={"Authorization": secret}))
    told = error.message + error.detail + str(error)
    assert "a:b" not in told
    assert "schl" not in told


async def test_neither_query_nor_password_of_an_address_is_logged(client: httpx2.AsyncClient) -> None:
    url = "http://me:pass@127.0.0.1:9/path?X-Signature=abc"
    detail = (await failure_of(send(client, "GET", url, seconds=1))).detail
    assert detail.startswith("GET http://127.0.0.1:9/path: ")


async def test_cancelling_closes_the_connection(client: httpx2.AsyncClient) -> None:
    gone = asyncio.Event()

    async def peer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nx")
        await writer.drain()
        await reader.read()
        gone.set()

    async with listening(peer) as url:
        asking = asyncio.ensure_future(send(client, "GET", url, seconds=30))
        await asyncio.sleep(0.1)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        await asyncio.wait_for(gone.wait(), 2)


# ---- can it have arrived?


class Raising(httpx2.AsyncBaseTransport):
    """Fails as told, after having taken so much of the body."""

    def __init__(self, broken: Exception, after: int = 0) -> None:
        self.broken = broken
        self.after = after

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        taken = 0
        if self.after:
            async for chunk in request.stream:  # type: ignore[union-attr]
                taken += len(chunk)
                if taken >= self.after:
                    break
        raise self.broken


@pytest.mark.parametrize(
    ("broken", "accepted"),
    [
        (httpx2.ConnectError("refused"), False),
        (httpx2.ConnectError("[SSL: CERTIFICATE_VERIFY_FAILED]"), False),
        (httpx2.ConnectTimeout("no route"), False),
        (httpx2.PoolTimeout("all busy"), False),
        (httpx2.ProxyError("407 Proxy Authentication Required"), False),
        (httpx2.UnsupportedProtocol("ftp"), False),
        (httpx2.WriteError("reset while sending"), None),
        (httpx2.WriteTimeout("stalled while sending"), None),
        (httpx2.ReadError("reset"), None),
        (httpx2.ReadTimeout("silent"), None),
        (httpx2.RemoteProtocolError("closed without an answer"), None),
        (httpx2.LocalProtocolError("too little data"), None),
        (ssl.SSLError("bad record mac"), None),
        (ConnectionResetError(), None),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else str(value),
)
async def test_only_what_fails_before_the_first_byte_surely_did_not_arrive(
    broken: Exception, accepted: bool | None
) -> None:
    for after in (0, 3):
        async with httpx2.AsyncClient(transport=Raising(broken, after)) as client:
            error = await failure_of(send(client, "POST", "http://x.example/", seconds=1, content=b"body"))
        assert error.accepted is accepted


async def test_a_certificate_that_is_not_trusted_ends_it_before_anything_is_said(tmp_path: Path) -> None:
    heard: list[bytes] = []

    async def peer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heard.append(await reader.read(1000))

    certificate, key, _ = write_certificate(tmp_path, ["127.0.0.1"])
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    server = await asyncio.start_server(peer, "127.0.0.1", 0, ssl=context)
    port = server.sockets[0].getsockname()[1]
    async with http_client(tls=ssl.create_default_context()) as client:
        error = await failure_of(send(client, "POST", f"https://127.0.0.1:{port}/", seconds=5, content=b"secret"))
    server.close()
    assert (error.fault, error.accepted) == (Fault.UNAVAILABLE, False)
    assert heard in ([], [b""])


async def test_a_server_that_does_not_speak_tls_was_not_reached(client: httpx2.AsyncClient) -> None:
    async def peer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(100)
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    async with listening(peer) as url:
        secure = url.replace("http:", "https:")
        error = await failure_of(send(client, "POST", secure, seconds=2, content=b"x"))
    assert error.accepted is False


async def test_a_server_that_takes_the_connection_and_no_tls_hello_was_not_reached(client: httpx2.AsyncClient) -> None:
    async with listening(silent) as url:
        secure = url.replace("http:", "https:")
        error = await failure_of(send(client, "POST", secure, seconds=0.4, content=b"x"))
    assert (error.fault, error.accepted) == (Fault.UNAVAILABLE, False)


async def test_a_connection_that_breaks_while_the_body_is_sent_leaves_it_open(client: httpx2.AsyncClient) -> None:
    async def peer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.transport.abort()

    async with listening(peer) as url:
        error = await failure_of(send(client, "POST", url, seconds=5, content=b"x" * 20_000_000))
    assert (error.fault, error.accepted) == (Fault.UNAVAILABLE, None)


async def test_the_three_steps_of_connecting_together_stay_under_the_whole() -> None:
    limits: list[dict[str, float]] = []

    class Noting(httpx2.AsyncBaseTransport):
        async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
            limits.append(request.extensions["timeout"])
            return httpx2.Response(200)

    async with httpx2.AsyncClient(transport=Noting()) as client:
        for seconds in (0.1, 5.0, 15.0, 120.0):
            await send(client, "GET", "http://x.example/", seconds=seconds)
            assert limits[-1]["pool"] + 2 * limits[-1]["connect"] < seconds


async def test_what_is_too_large_is_told_from_all_else(client: httpx2.AsyncClient) -> None:
    async with listening(saying(b"HTTP/1.1 200 OK\r\n\r\n", b"x" * 5000)) as url:
        assert isinstance(await failure_of(send(client, "GET", url, seconds=5, limit=4000)), TooLarge)
