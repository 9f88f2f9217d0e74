"""Fetching, from real servers on loopback; those of the open internet are reached through a dialer that plays it."""

from __future__ import annotations

import asyncio
import base64
import gzip
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pybase64
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.errors import ImageTooLarge, InvalidImage, InvalidImageUrl
from app.http1 import Make, dial
from app.media.download import Downloader, FetchFailed, Reason, decode_base64, decode_data_uri
from app.media.netguard import Guard
from tests.fakes.tls import write_certificate
from tests.media.test_netguard import ODD, TRICKS, Dns, no_dns

PICTURE = bytes(range(256)) * 40
PUBLIC = "93.184.216.34"
NO_TLS = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # trusts nobody; loading the system's roots takes 30 ms

Writer = asyncio.StreamWriter
Answer = Callable[[bytes, Writer], Awaitable[None]]  # (request head, writer)


class Server:
    """An HTTP server on loopback that answers as told and remembers what it was sent."""

    def __init__(self, answer: Answer | bytes) -> None:
        self.answer = answer
        self.heads: list[bytes] = []
        self.connections = 0
        self.port = 0
        self.keep_alive = True
        self._open: set[Writer] = set()

    @property
    def origin(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def _serve(self, reader: asyncio.StreamReader, writer: Writer) -> None:
        self.connections += 1
        self._open.add(writer)
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                self.heads.append(head)
                if isinstance(self.answer, bytes):
                    writer.write(self.answer)
                    await writer.drain()
                else:
                    await self.answer(head, writer)
                if not self.keep_alive:
                    break
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            self._open.discard(writer)
            writer.close()

    @asynccontextmanager
    async def running(self, tls: ssl.SSLContext | None = None) -> AsyncIterator[Server]:
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=tls)
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            server.close()
            for writer in list(self._open):
                writer.transport.abort()
            await asyncio.sleep(0.01)


class Internet:
    """Dials a server on loopback whatever address is asked for, and remembers what was."""

    def __init__(self, port: int = 0, dead: Sequence[str] = ()) -> None:
        self.port = port
        self.dead = dead
        self.dialled: list[tuple[str, int]] = []

    async def __call__(self, make: Make, host: str, port: int, tls: ssl.SSLContext | None, name: str | None) -> None:
        self.dialled.append((host, port))
        if host in self.dead or not self.port:
            raise OSError(f"no route to {host}")
        await dial(make, "127.0.0.1", self.port, tls, name)


def ok(body: bytes = PICTURE, *headers: str) -> bytes:
    lines = ["HTTP/1.1 200 OK", f"Content-Length: {len(body)}", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def moved(location: str, status: int = 302) -> bytes:
    return f"HTTP/1.1 {status} Moved\r\nLocation: {location}\r\nContent-Length: 4\r\n\r\ngone".encode()


def fetch(
    answer: Answer | bytes,
    *,
    max_bytes: int = 1 << 20,
    timeout: float = 5,
    path: str = "/a.png",
    keep_alive: bool = True,
) -> tuple[bytes | FetchFailed, str | None, Server]:
    """Fetch once from a server that the operator has allowed."""

    async def run() -> tuple[bytes | FetchFailed, str | None, Server]:
        server = Server(answer)
        server.keep_alive = keep_alive
        async with (
            server.running(),
            Downloader(Guard(frozenset({server.origin}), resolver=no_dns), ssl_context=NO_TLS) as downloader,
        ):
            try:
                got = await downloader.fetch(server.origin + path, max_bytes=max_bytes, timeout=timeout)
            except FetchFailed as failed:
                return failed, None, server
            return got.blob.read(), got.content_type, server

    return asyncio.run(run())


def fails(answer: Answer | bytes, **options: object) -> FetchFailed:
    got, _, _ = fetch(answer, **options)  # type: ignore[arg-type]
    assert isinstance(got, FetchFailed)
    assert "127.0.0.1" not in got.message
    return got


# --- what comes back ---


def test_a_picture_is_fetched_with_its_declared_type() -> None:
    data, content_type, _ = fetch(ok(PICTURE, "Content-Type: Image/PNG; charset=binary"))
    assert data == PICTURE
    assert content_type == "image/png"


def test_chunked_and_unmeasured_bodies_are_read_to_the_end() -> None:
    chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n"
    assert fetch(chunked)[0] == b"hello world"
    assert fetch(b"HTTP/1.1 200 OK\r\n\r\nuntil closed", keep_alive=False)[0] == b"until closed"


def test_nothing_of_ours_leaves_but_the_url(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login me password secret\n")
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))

    async def run() -> None:
        async with Server(ok(PICTURE, "Set-Cookie: a=b; Path=/")).running() as server:
            async with Downloader(Guard(frozenset({server.origin})), ssl_context=NO_TLS) as downloader:
                for _ in range(2):
                    await downloader.fetch(server.origin + "/p?q=%2F#frag", max_bytes=1 << 20, timeout=5)
            head = server.heads[1].decode().lower()
            assert head.splitlines()[0] == "get /p?q=%2f http/1.1"
            assert {line.split(":")[0] for line in head.splitlines()[1:] if line} == {
                "host",
                "accept",
                "accept-encoding",
                "user-agent",
            }
            assert "accept-encoding: identity" in head
            assert f"host: 127.0.0.1:{server.port}" in head
            assert server.connections == 1  # kept

    asyncio.run(run())


def test_a_connection_that_the_server_closed_meanwhile_costs_nothing() -> None:
    async def run() -> None:
        server = Server(ok())

        async def answer(head: bytes, writer: Writer) -> None:
            if len(server.heads) == 2:  # the second request on the kept connection falls into a hole
                writer.transport.abort()
            writer.write(ok())

        server.answer = answer
        async with server.running(), Downloader(Guard(frozenset({server.origin})), ssl_context=NO_TLS) as downloader:
            for _ in range(2):
                got = await downloader.fetch(server.origin + "/", max_bytes=1 << 20, timeout=5)
                assert got.blob.read() == PICTURE
            assert server.connections == 2

    asyncio.run(run())


# --- limits ---


def test_a_body_that_says_it_is_too_large_is_not_read() -> None:
    failed = fails(b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n", max_bytes=1000)
    assert (failed.reason, failed.transient) == (Reason.TOO_LARGE, False)
    error = failed.for_caller("image[]")
    assert (error.code, error.param) == ("image_too_large", "image[]")


@pytest.mark.parametrize("head", [b"", b"Content-Length: 9000000\r\n", b"Transfer-Encoding: chunked\r\n"])
def test_an_endless_body_is_cut_at_the_limit(head: bytes) -> None:
    sent = 0

    async def endless(_: bytes, writer: Writer) -> None:
        nonlocal sent
        writer.write(b"HTTP/1.1 200 OK\r\n" + head + b"\r\n")
        while sent < 8_000_000:
            piece = b"x" * 10_000
            writer.write(b"%x\r\n%b\r\n" % (len(piece), piece) if b"chunked" in head else piece)
            await writer.drain()
            sent += len(piece)

    failed = fails(endless, max_bytes=9_000_000 - 1 if head.startswith(b"Content") else 100_000)
    assert failed.reason is Reason.TOO_LARGE
    assert sent < 8_000_000  # socket buffers hold some megabytes


def test_exactly_the_limit_is_no_excess() -> None:
    assert fetch(ok(), max_bytes=len(PICTURE))[0] == PICTURE
    assert fails(ok(), max_bytes=len(PICTURE) - 1).reason is Reason.TOO_LARGE


@pytest.mark.parametrize("start", [b"", b"HTTP/1.1 200 OK\r\nX-A: ", b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n"])
def test_a_server_that_drips_is_cut_at_the_deadline(start: bytes) -> None:
    async def drip(head: bytes, writer: Writer) -> None:
        writer.write(start)
        for _ in range(100):
            writer.write(b"a" if start else b"")
            await writer.drain()
            await asyncio.sleep(0.05)

    begun = time.monotonic()
    failed = fails(drip, timeout=0.4)
    assert (failed.reason, failed.transient) == (Reason.TIMEOUT, True)
    assert time.monotonic() - begun < 2


def test_slow_names_count_against_the_deadline() -> None:
    async def slow(host: str, port: int) -> Sequence[str]:
        await asyncio.sleep(10)
        return [PUBLIC]

    with pytest.raises(FetchFailed) as caught:
        asyncio.run(
            Downloader(Guard(resolver=slow), ssl_context=NO_TLS).fetch("https://example.com/", max_bytes=1, timeout=0.2)
        )
    assert caught.value.reason is Reason.TIMEOUT


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nshort",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nhello\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Le",
        b"",
        b"SSH-2.0-OpenSSH_9.6\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nContent-Length: " + b"9" * 5000 + b"\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX-Big: " + b"a" * 300_000 + b"\r\n\r\n",
    ],
)
def test_a_broken_answer_is_never_taken_for_a_whole_one(answer: bytes) -> None:
    failed = fails(answer, keep_alive=False)
    assert (failed.reason, failed.transient) == (Reason.UNREACHABLE, True)


@pytest.mark.parametrize("encoding", ["gzip", "GZIP", "br", "deflate", "identity, gzip"])
def test_compression_that_was_not_asked_for_is_refused(encoding: str) -> None:
    failed = fails(ok(gzip.compress(b"\0" * 1_000_000), f"Content-Encoding: {encoding}"))
    assert (failed.reason, failed.transient) == (Reason.ENCODING, False)
    assert fetch(ok(PICTURE, "Content-Encoding: identity"))[0] == PICTURE


@pytest.mark.parametrize(
    ("status", "transient"),
    [(status, False) for status in (204, 206, 304, 400, 403, 404, 410)]
    + [(status, True) for status in (408, 425, 429, 500, 502, 503, 504)],
)
def test_any_status_but_200_is_a_failure(status: int, transient: bool) -> None:
    failed = fails(f"HTTP/1.1 {status} X\r\nContent-Length: 0\r\n\r\n".encode())
    assert (failed.reason, failed.status, failed.transient) == (Reason.STATUS, status, transient)
    assert failed.for_caller("image").code == "invalid_image_url"


def test_a_server_that_is_not_there_may_come_back() -> None:
    async def run() -> None:
        async with Server(ok()).running() as server:
            origin = server.origin
        async with Downloader(Guard(frozenset({origin})), ssl_context=NO_TLS) as downloader:
            with pytest.raises(FetchFailed) as caught:
                await downloader.fetch(origin, max_bytes=1, timeout=5)
        assert (caught.value.reason, caught.value.transient) == (Reason.UNREACHABLE, True)

    asyncio.run(run())


# --- where one may go ---


@pytest.mark.parametrize("url", TRICKS + ODD)
def test_refused_urls_cause_no_connection(url: str) -> None:
    internet = Internet()
    with pytest.raises(FetchFailed) as caught:
        asyncio.run(
            Downloader(Guard(resolver=no_dns), dial=internet, ssl_context=NO_TLS).fetch(url, max_bytes=9, timeout=5)
        )
    assert (caught.value.reason, caught.value.transient) == (Reason.BLOCKED, False)
    assert isinstance(caught.value.for_caller("image"), InvalidImageUrl)
    assert internet.dialled == []


@pytest.mark.parametrize("answer", [["127.0.0.1"], [PUBLIC, "10.0.0.1"], ["::1", PUBLIC], ["fd00:ec2::254"]])
def test_names_of_our_own_network_cause_no_connection(answer: list[str]) -> None:
    internet = Internet()
    downloader = Downloader(Guard(resolver=Dns(answer)), dial=internet, ssl_context=NO_TLS)
    with pytest.raises(FetchFailed) as caught:
        asyncio.run(downloader.fetch("https://127.0.0.1.nip.io/", max_bytes=9, timeout=5))
    assert caught.value.reason is Reason.BLOCKED
    assert not any(address in caught.value.message for address in answer)
    assert internet.dialled == []


def test_a_canary_on_loopback_hears_nothing() -> None:
    async def run() -> None:
        async with Server(ok()).running() as canary:
            async with Downloader(Guard(allow_http=True), ssl_context=NO_TLS) as downloader:
                for (
                    host
                ) in "127.0.0.1 localhost 2130706433 0x7f.1 127.1 [::ffff:127.0.0.1] [::1] 0 a@127.0.0.1".split():  # noqa: SIM905
                    for url in (f"http://{host}:{canary.port}/", f"https://{host}:{canary.port}/"):
                        with pytest.raises(FetchFailed):
                            await downloader.fetch(url, max_bytes=9, timeout=5)
            assert canary.connections == 0

    asyncio.run(run())


def world(
    answer: Answer | bytes, dns: Dns, *urls: str, allow_http: bool = True, dead: Sequence[str] = ()
) -> tuple[list[bytes | FetchFailed], Internet, Server]:
    """Fetch from the open internet, played by one server."""

    async def run() -> tuple[list[bytes | FetchFailed], Internet, Server]:
        got: list[bytes | FetchFailed] = []
        async with Server(answer).running() as server:
            internet = Internet(server.port, dead)
            async with Downloader(
                Guard(resolver=dns, allow_http=allow_http), dial=internet, ssl_context=NO_TLS
            ) as downloader:
                for url in urls:
                    try:
                        got.append((await downloader.fetch(url, max_bytes=1 << 20, timeout=5)).blob.read())
                    except FetchFailed as failed:
                        got.append(failed)
        return got, internet, server

    return asyncio.run(run())


def test_the_address_that_was_checked_is_the_one_that_is_dialled() -> None:
    dns = Dns([PUBLIC], ["127.0.0.1"])  # rebinding: the second answer would be bad
    (got,), internet, server = world(ok(), dns, "http://rebind.example.com/a")
    assert got == PICTURE
    assert dns.asked == [("rebind.example.com", 80)]  # resolved once
    assert internet.dialled == [(PUBLIC, 80)]
    assert b"Host: rebind.example.com\r\n" in server.heads[0]


def test_an_address_is_dialled_as_it_stands() -> None:
    (got,), internet, server = world(ok(), Dns([]), "http://[2606:4700:4700::1111]/")
    assert got == PICTURE
    assert internet.dialled == [("2606:4700:4700::1111", 80)]
    assert b"Host: [2606:4700:4700::1111]\r\n" in server.heads[0]


def test_a_kept_connection_is_not_resolved_again_and_a_new_one_is_checked_again() -> None:
    dns = Dns([PUBLIC], ["127.0.0.1"])
    got, internet, _ = world(ok(), dns, "http://a.example.com/1", "http://a.example.com/2", "http://b.example.com/3")
    assert got[:2] == [PICTURE, PICTURE]
    assert isinstance(got[2], FetchFailed)
    assert got[2].reason is Reason.BLOCKED
    assert internet.dialled == [(PUBLIC, 80)]


def test_connections_are_not_shared_by_hosts_on_one_address() -> None:
    _, internet, server = world(ok(), Dns([PUBLIC]), "http://a.example.com/", "http://b.example.com/")
    assert len(internet.dialled) == server.connections == 2


def test_the_next_address_is_tried_if_one_does_not_answer() -> None:
    dead = "2606:2800:220:1::1"
    (got,), internet, _ = world(ok(), Dns([dead, PUBLIC]), "http://example.com/", dead=[dead])
    assert got == PICTURE
    assert internet.dialled == [(dead, 80), (PUBLIC, 80)]


def test_no_more_than_some_addresses_are_tried() -> None:
    many = [f"93.184.216.{n}" for n in range(50)]
    (got,), internet, _ = world(ok(), Dns(many), "http://example.com/", dead=many)
    assert isinstance(got, FetchFailed)
    assert (got.reason, got.transient) == (Reason.UNREACHABLE, True)
    assert len(internet.dialled) == 4


def test_a_name_that_does_not_resolve_may_later() -> None:
    (got,), _, _ = world(ok(), Dns([]), "http://example.com/")
    assert isinstance(got, FetchFailed)
    assert (got.reason, got.transient) == (Reason.UNREACHABLE, True)


# --- redirects ---


def routes(table: dict[str, bytes]) -> Answer:
    async def answer(head: bytes, writer: Writer) -> None:
        writer.write(table[head.split()[1].decode()])

    return answer


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize(
    "location", ["/b", "b", "//example.com/b", "http://example.com/b", "http://example.com:80/b#x", "./b"]
)
def test_redirects_are_followed(status: int, location: str) -> None:
    (got,), _, server = world(
        routes({"/a": moved(location, status), "/b": ok()}), Dns([PUBLIC]), "http://example.com/a"
    )
    assert got == PICTURE
    assert len(server.heads) == 2


def test_three_redirects_are_followed_and_a_fourth_is_not() -> None:
    table = {f"/{n}": moved(f"/{n + 1}") for n in range(9)} | {"/9": ok()}
    (near, far), _, server = world(routes(table), Dns([PUBLIC]), "http://example.com/6", "http://example.com/5")
    assert near == PICTURE
    assert isinstance(far, FetchFailed)
    assert far.reason is Reason.REDIRECTS
    assert len(server.heads) == 4 + 4


def test_a_loop_ends() -> None:
    (got,), _, server = world(routes({"/a": moved("/a")}), Dns([PUBLIC]), "http://example.com/a")
    assert isinstance(got, FetchFailed)
    assert (got.reason, got.transient) == (Reason.REDIRECTS, False)
    assert len(server.heads) == 4


@pytest.mark.parametrize(
    "location",
    [
        "http://127.0.0.1/",
        "https://127.0.0.1:443/",
        "http://169.254.169.254/latest/meta-data/",
        "http://[::1]/",
        "http://[::ffff:169.254.169.254]/",
        "http://localhost/",
        "http://2130706433/",
        "//127.0.0.1/",
        "http://metadata.google.internal/",
        "http://a@example.com/",
        "http://example.com\\@127.0.0.1/",
        "file:///etc/passwd",
        "gopher://127.0.0.1:6379/_FLUSHALL",
        "data:image/png;base64,AAAA",
        "http:/127.0.0.1/",
        "http:127.0.0.1",
        "http://example.com:6379/",
        "",
        "http://[",
        "//[",
        "http://exam ple.com/",
        "ht\ttp://127.0.0.1/",
        "http://exämple.com/",
    ],
)
def test_redirects_into_our_own_network_are_not_followed(location: str) -> None:
    (got,), internet, server = world(moved(location), Dns([PUBLIC]), "http://example.com/a")
    assert isinstance(got, FetchFailed)
    assert got.reason in (Reason.BLOCKED, Reason.REDIRECTS)
    assert not got.transient
    assert len(server.heads) == len(internet.dialled) == 1


def test_a_redirect_is_resolved_and_checked_like_any_url() -> None:
    (got,), internet, _ = world(moved("http://b.example.com/"), Dns([PUBLIC], ["10.0.0.1"]), "http://a.example.com/")
    assert isinstance(got, FetchFailed)
    assert got.reason is Reason.BLOCKED
    assert internet.dialled == [(PUBLIC, 80)]


def test_the_world_cannot_redirect_into_an_allowed_origin() -> None:
    async def run() -> None:
        async with Server(ok()).running() as inner, Server(moved(inner.origin)).running() as outer:
            guard = Guard(frozenset({inner.origin}), allow_http=True, resolver=Dns([PUBLIC]))
            async with Downloader(guard, dial=Internet(outer.port), ssl_context=NO_TLS) as downloader:
                with pytest.raises(FetchFailed) as caught:
                    await downloader.fetch("http://example.com/", max_bytes=1, timeout=5)
                assert caught.value.reason is Reason.BLOCKED
                assert inner.connections == 0

    asyncio.run(run())


# --- TLS ---


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Path]:
    """A certificate of cdn.example.com, its key, and the authority that signed it."""
    return write_certificate(tmp_path_factory.mktemp("tls"), ["cdn.example.com"])


def over_tls(
    certificate: tuple[Path, Path, Path], answer: Answer | bytes, *urls: str, trusted: bool = True
) -> tuple[list[bytes | FetchFailed], Internet, Server, list[str | None]]:
    cert, key, authority = certificate
    ours = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    ours.load_cert_chain(cert, key)
    names: list[str | None] = []
    ours.sni_callback = lambda _socket, name, _context: names.append(name)
    theirs = ssl.create_default_context(cafile=str(authority) if trusted else None)

    async def run() -> tuple[list[bytes | FetchFailed], Internet, Server]:
        got: list[bytes | FetchFailed] = []
        async with Server(answer).running(ours) as server:
            internet = Internet(server.port)
            guard = Guard(resolver=Dns([PUBLIC]), allow_http=True)
            async with Downloader(guard, dial=internet, ssl_context=theirs) as downloader:
                for url in urls:
                    try:
                        got.append((await downloader.fetch(url, max_bytes=1 << 20, timeout=5)).blob.read())
                    except FetchFailed as failed:
                        got.append(failed)
        return got, internet, server

    return (*asyncio.run(run()), names)


def test_the_pinned_address_has_to_prove_the_urls_host(certificate: tuple[Path, Path, Path]) -> None:
    got, internet, server, names = over_tls(
        certificate, ok(), "https://cdn.example.com/a", "https://cdn.example.com/b", "https://other.example.com/a"
    )
    assert got[:2] == [PICTURE, PICTURE]
    assert isinstance(got[2], FetchFailed)  # the same address and certificate, but the name is another
    assert got[2].reason is Reason.UNREACHABLE
    assert internet.dialled == [(PUBLIC, 443), (PUBLIC, 443)]
    assert names == ["cdn.example.com", "other.example.com"]
    assert len(server.heads) == 2
    assert b"Host: cdn.example.com\r\n" in server.heads[0]


def test_a_certificate_that_nobody_signed_is_refused(certificate: tuple[Path, Path, Path]) -> None:
    (got,), _, server, _ = over_tls(certificate, ok(), "https://cdn.example.com/a", trusted=False)
    assert isinstance(got, FetchFailed)
    assert got.reason is Reason.UNREACHABLE
    assert server.heads == []


def test_https_does_not_redirect_to_http(certificate: tuple[Path, Path, Path]) -> None:
    (got,), internet, _, _ = over_tls(certificate, moved("http://cdn.example.com/b"), "https://cdn.example.com/a")
    assert isinstance(got, FetchFailed)
    assert got.reason is Reason.BLOCKED
    assert len(internet.dialled) == 1


# --- data URIs ---


@given(st.binary(min_size=1, max_size=400), st.sampled_from([0, 1, 4, 76]), st.booleans(), st.booleans())
def test_base64_is_read_as_people_write_it(data: bytes, wrap: int, url_safe: bool, padded: bool) -> None:
    text = (base64.urlsafe_b64encode if url_safe else base64.b64encode)(data).decode()
    if not padded:
        text = text.rstrip("=")
    if wrap:
        text = "\r\n".join(text[i : i + wrap] for i in range(0, len(text), wrap)) + "\n"
    assert decode_base64(text, max_bytes=len(data)) == data
    assert decode_data_uri(f"data:image/png;base64,{text}", max_bytes=400) == (data, "image/png")
    with pytest.raises(ImageTooLarge):
        decode_base64(text, max_bytes=len(data) - 1)


@pytest.mark.parametrize(
    ("uri", "data", "mime"),
    [
        ("data:image/png;base64,aGk=", b"hi", "image/png"),
        ("DATA:IMAGE/PNG;BASE64,aGk=", b"hi", "image/png"),
        ("data:image/svg+xml;charset=utf-8;base64,aGk=", b"hi", "image/svg+xml"),
        ("data:image/png;base64,aGk%3D", b"hi", "image/png"),
        ("data:image/png;base64,aG%0Ak=", b"hi", "image/png"),
        ("data:;base64,aGk=", b"hi", "text/plain"),
        ("data:,hi%20there", b"hi there", "text/plain"),
        ("data:image/png,%89PNG", b"\x89PNG", "image/png"),
        ("data:image/svg+xml,<svg/>", b"<svg/>", "image/svg+xml"),
        ("data:text/plain,a,b", b"a,b", "text/plain"),
    ],
)
def test_data_uris_are_read(uri: str, data: bytes, mime: str) -> None:
    assert decode_data_uri(uri, max_bytes=100) == (data, mime)


@pytest.mark.parametrize(
    ("uri", "error"),
    [
        ("", InvalidImageUrl),
        ("data:image/png;base64", InvalidImageUrl),
        ("image/png;base64,aGk=", InvalidImageUrl),
        ("date:image/png;base64,aGk=", InvalidImageUrl),
        ("data:" + "a" * 300 + ",x", InvalidImageUrl),
        ("data:image/png;base64,", InvalidImage),
        ("data:,", InvalidImage),
        ("data:image/png;base64,====", InvalidImage),
        ("data:image/png;base64,aGk=aGk=", InvalidImage),
        ("data:image/png;base64,a", InvalidImage),
        ("data:image/png;base64,aG!k", InvalidImage),
        ("data:image/png;base64,aG\x00k", InvalidImage),
        ("data:image/png;base64,aGké", InvalidImage),
        ("data:image/png;base64,data:image/png;base64,aGk=", InvalidImage),
        ("data:image/png,é", InvalidImage),
        ("data:image/png,\ud800", InvalidImage),
        ("data:image/png;base64," + "A" * 1000, ImageTooLarge),
        ("data:image/png," + "A" * 1000, ImageTooLarge),
        ("data:image/png," + "%41" * 101, ImageTooLarge),
    ],
)
def test_broken_data_uris_are_refused_by_name(uri: str, error: type[Exception]) -> None:
    with pytest.raises(error) as caught:
        decode_data_uri(uri, max_bytes=100, param="image_url")
    assert caught.value.param == "image_url"  # type: ignore[attr-defined]


@given(st.text(max_size=60))
def test_no_text_breaks_the_data_uri(text: str) -> None:
    for uri in (text, f"data:{text}", f"data:image/png;base64,{text}", f"data:image/png,{text}"):
        try:
            decode_data_uri(uri, max_bytes=40)
        except (InvalidImage, InvalidImageUrl, ImageTooLarge):
            continue


def test_large_data_is_decoded_in_one_go() -> None:
    data = bytes(5_000_000)
    assert decode_base64(pybase64.b64encode(data).decode(), max_bytes=len(data)) == data
