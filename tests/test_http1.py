"""The HTTP client's engine against servers on loopback that say exactly what they are told to."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import uvloop

from app.connection import HEAD_BYTES, WINDOW, Broken
from app.http1 import Http1, Origin, Request, Unreached, UnreachedInTime
from tests.fakes.http import TRUSTING_NOBODY
from tests.fakes.tls import write_certificate

Talk = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"
BIG = bytes(range(256)) * 40_000  # 10 MB


class Listening:
    """A server, and how often somebody called."""

    def __init__(self, talk: Talk) -> None:
        self.calls = 0
        self.origin = Origin("http", "127.0.0.1", 0)
        self._talk = talk

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.calls += 1
        try:
            await self._talk(reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()


@asynccontextmanager
async def listening(talk: Talk, tls: ssl.SSLContext | None = None) -> AsyncIterator[Listening]:
    one = Listening(talk)
    server = await asyncio.start_server(one.serve, "127.0.0.1", 0, ssl=tls)
    one.origin = Origin("https" if tls else "http", "127.0.0.1", server.sockets[0].getsockname()[1])
    try:
        yield one
    finally:
        server.close()
        await asyncio.sleep(0.01)


def answering(*answers: bytes, close: bool = False, pause: float = 0.0) -> Talk:
    """One answer after each head (bodies have to be of no length)."""

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for answer in answers:
            await reader.readuntil(b"\r\n\r\n")
            await asyncio.sleep(pause)
            writer.write(answer)
            await writer.drain()
        if not close:
            await reader.read(1)

    return talk


def get(origin: Origin) -> Request:
    return Request(b"GET", origin, b"/x", [(b"Host", b"here")])


async def fetched(engine: Http1, request: Request) -> tuple[int, bytes]:
    async with engine.stream(request, connect_seconds=2) as reply:
        return reply.status, b"".join([chunk async for chunk in reply.chunks()])


@pytest.fixture(params=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Callable[[Coroutine[Any, Any, None]], None]:
    return asyncio.run if request.param == "asyncio" else uvloop.run


Run = Callable[[Coroutine[Any, Any, None]], None]


def test_a_connection_is_used_again_after_its_answer_was_read(run: Run) -> None:
    async def test() -> None:
        async with listening(answering(OK, OK, OK)) as server, Http1(TRUSTING_NOBODY) as engine:
            for _ in range(3):
                assert await fetched(engine, get(server.origin)) == (200, b"hello")
            assert server.calls == 1

    run(test())


def test_a_connection_whose_answer_was_not_read_to_its_end_is_closed(run: Run) -> None:
    async def test() -> None:
        async with listening(answering(OK[:-2] + b"", OK)) as server, Http1(TRUSTING_NOBODY) as engine:
            async with engine.stream(get(server.origin), connect_seconds=2) as reply:
                assert reply.status == 200
            async with engine.stream(get(server.origin), connect_seconds=2):
                pass
            assert server.calls == 2

    run(test())


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello",
        b"HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\n\r\nhello",
    ],
)
def test_a_connection_that_its_server_gives_up_is_not_used_again(run: Run, answer: bytes) -> None:
    async def test() -> None:
        async with listening(answering(answer, close=True)) as server, Http1(TRUSTING_NOBODY) as engine:
            assert await fetched(engine, get(server.origin)) == (200, b"hello")
            assert await fetched(engine, get(server.origin)) == (200, b"hello")
            assert server.calls == 2

    run(test())


def test_an_idle_connection_that_was_closed_is_not_used_even_if_the_loop_has_not_seen_it(run: Run) -> None:
    async def test() -> None:
        async with listening(answering(OK, close=True)) as server, Http1(TRUSTING_NOBODY) as engine:
            assert await fetched(engine, get(server.origin)) == (200, b"hello")
            for _ in range(20):
                assert await fetched(engine, get(server.origin)) == (200, b"hello")
            assert server.calls == 21

    run(test())


def test_idle_connections_are_closed_after_their_time(run: Run) -> None:
    async def test() -> None:
        async with listening(answering(OK, OK)) as server, Http1(TRUSTING_NOBODY, keep_seconds=0.05) as engine:
            await fetched(engine, get(server.origin))
            await asyncio.sleep(0.15)
            await fetched(engine, get(server.origin))
            assert server.calls == 2

    run(test())


def test_no_more_idle_connections_are_kept_than_wanted(run: Run) -> None:
    async def test() -> None:
        async with listening(answering(OK, OK, pause=0.05)) as server, Http1(TRUSTING_NOBODY, keep=2) as engine:
            await asyncio.gather(*(fetched(engine, get(server.origin)) for _ in range(5)))
            await asyncio.gather(*(fetched(engine, get(server.origin)) for _ in range(5)))
            assert server.calls == 8

    run(test())


def test_who_comes_while_all_connections_are_in_use_waits(run: Run) -> None:
    async def test() -> None:
        async with listening(answering(*[OK] * 9, pause=0.02)) as server, Http1(TRUSTING_NOBODY, most=2) as engine:
            answers = await asyncio.gather(*(fetched(engine, get(server.origin)) for _ in range(6)))
            assert answers == [(200, b"hello")] * 6
            assert server.calls == 2

    run(test())


def test_a_large_body_waits_for_its_reader(run: Run) -> None:
    written = 0

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal written
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (4 * len(BIG)))
        for _ in range(40):
            writer.write(BIG[: len(BIG) // 10])
            await writer.drain()
            written += len(BIG) // 10

    async def test() -> None:
        async with listening(talk) as server, Http1(TRUSTING_NOBODY) as engine:
            async with engine.stream(get(server.origin), connect_seconds=2) as reply:
                await asyncio.sleep(0.3)
                assert written < 3 * len(BIG)  # the kernel holds some of it, the engine a megabyte
                total = sum([len(chunk) async for chunk in reply.chunks()])
            assert total == 4 * len(BIG)

    run(test())


@pytest.mark.parametrize("size", [WINDOW - 1, WINDOW + 1, WINDOW + 300_000, 2 * WINDOW])
def test_a_connection_that_had_to_wait_for_its_reader_reads_on_when_it_is_used_again(run: Run, size: int) -> None:
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size + BIG[:size]

    async def test() -> None:
        async with listening(answering(*[answer] * 20)) as server, Http1(TRUSTING_NOBODY) as engine:
            for number in range(20):
                async with engine.stream(get(server.origin), connect_seconds=2) as reply:
                    await asyncio.sleep(0.02 * (number % 2))  # all of it has come before the first piece is asked for
                    assert sum([len(chunk) async for chunk in reply.chunks()]) == size
            assert server.calls == 1

    run(asyncio.wait_for(test(), 10))


def test_a_large_request_goes_out_whole_and_a_streamed_one_as_fast_as_it_is_taken(run: Run) -> None:
    got: list[int] = []

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for _ in range(2):
            head = await reader.readuntil(b"\r\n\r\n")
            length = int(head.lower().partition(b"content-length: ")[2].split()[0])
            await asyncio.sleep(0.05)
            got.append(len(await reader.readexactly(length)))
            writer.write(OK)

    async def pieces() -> AsyncIterator[bytes]:
        for start in range(0, len(BIG), 100_000):
            yield BIG[start : start + 100_000]

    async def test() -> None:
        async with listening(talk) as server, Http1(TRUSTING_NOBODY) as engine:
            headers = [(b"Host", b"here"), (b"Content-Length", b"%d" % len(BIG))]
            for body in (BIG, pieces()):
                assert await fetched(engine, Request(b"PUT", server.origin, b"/", headers, body)) == (200, b"hello")
            assert got == [len(BIG)] * 2
            assert server.calls == 1

    run(test())


def test_an_answer_that_comes_before_the_body_is_sent_ends_the_sending(run: Run) -> None:
    sent = 0

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 413 Too Large\r\nContent-Length: 3\r\n\r\nbig")
        await writer.drain()
        await asyncio.sleep(0.5)

    async def pieces() -> AsyncIterator[bytes]:
        nonlocal sent
        for _ in range(1000):
            sent += 1
            yield bytes(1 << 20)

    async def test() -> None:
        async with listening(talk) as server, Http1(TRUSTING_NOBODY) as engine:
            headers = [(b"Host", b"here"), (b"Content-Length", b"%d" % (1000 << 20))]
            request = Request(b"PUT", server.origin, b"/", headers, pieces())
            assert await fetched(engine, request) == (413, b"big")
            assert sent < 100
            assert not engine._idle

    run(test())


@pytest.mark.parametrize("size", [10, 60_000, 600_000])
def test_an_answer_of_a_server_that_hangs_up_without_reading_is_not_lost(run: Run, size: int) -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 304 Not Modified\r\nContent-Length: 3\r\nConnection: close\r\n\r\n")
        await writer.drain()

    async def pieces() -> AsyncIterator[bytes]:
        for start in range(0, size, 50_000):
            yield bytes(min(50_000, size - start))
            await asyncio.sleep(0.01)

    async def test() -> None:
        async with listening(talk) as server, Http1(TRUSTING_NOBODY) as engine:
            headers = [(b"Host", b"here"), (b"Content-Length", b"%d" % size)]
            for _ in range(20):
                assert await fetched(engine, Request(b"PUT", server.origin, b"/", headers, pieces())) == (304, b"")

    run(test())


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" + OK,
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhe\r\n3;x=y\r\nllo\r\n0\r\nTrailer: z\r\n\r\n",
    ],
)
def test_interim_answers_and_chunks_are_understood(run: Run, answer: bytes) -> None:
    async def test() -> None:
        async with listening(answering(answer, answer)) as server, Http1(TRUSTING_NOBODY) as engine:
            for _ in range(2):
                async with engine.stream(get(server.origin), connect_seconds=2) as reply:
                    assert {name.lower() for name, _ in reply.headers} & {b"link", b"trailer"} == set()
                    assert b"".join([chunk async for chunk in reply.chunks()]) == b"hello"
            assert server.calls == 1

    run(test())


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"HTTP/1.1 200",
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello",
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\nxxx",
        b"HTTP/1.1 200 OK\r\nX: " + b"a" * HEAD_BYTES + b"\r\n" + b"Y: " + b"b" * (1 << 20),
    ],
)
def test_what_is_no_whole_answer_is_broken(run: Run, answer: bytes) -> None:
    async def test() -> None:
        async with listening(answering(answer, close=True)) as server, Http1(TRUSTING_NOBODY) as engine:
            with pytest.raises(Broken):
                await asyncio.wait_for(fetched(engine, get(server.origin)), 5)
            assert not engine._idle

    run(test())


def test_what_is_said_unasked_ends_the_connection(run: Run) -> None:
    async def test() -> None:
        async with listening(answering(OK + OK)) as server, Http1(TRUSTING_NOBODY) as engine:
            for _ in range(2):
                assert await fetched(engine, get(server.origin)) == (200, b"hello")
            assert server.calls == 2

    run(test())


def test_an_idle_connection_on_which_something_is_said_is_forgotten(run: Run) -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(OK)
        await asyncio.sleep(0.05)
        writer.write(b"HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\n\r\n")
        await reader.read(1)

    async def test() -> None:
        async with listening(talk) as server, Http1(TRUSTING_NOBODY) as engine:
            await fetched(engine, get(server.origin))
            await asyncio.sleep(0.15)
            assert not engine._idle
            assert engine._idle_count == 0

    run(test())


def test_a_body_in_single_bytes_comes_in_few_pieces(run: Run) -> None:
    answer = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + b"1\r\nx\r\n" * 100_000 + b"0\r\n\r\n"

    async def test() -> None:
        async with listening(answering(answer, answer)) as server, Http1(TRUSTING_NOBODY) as engine:
            for _ in range(2):
                async with engine.stream(get(server.origin), connect_seconds=2) as reply:
                    pieces = [chunk async for chunk in reply.chunks()]
                assert b"".join(pieces) == b"x" * 100_000
                assert len(pieces) < 200
            assert server.calls == 1

    run(test())


def test_a_cancelled_exchange_leaves_no_connection(run: Run) -> None:
    async def test() -> None:
        async with listening(answering(b"")) as server, Http1(TRUSTING_NOBODY) as engine:
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(fetched(engine, get(server.origin)), 0.1)
            assert not engine._idle
            assert not engine._busy

    run(test())


def test_a_server_that_is_not_there_was_not_reached(run: Run) -> None:
    async def test() -> None:
        async with Http1(TRUSTING_NOBODY) as engine:
            with pytest.raises(Unreached):
                await fetched(engine, get(Origin("http", "127.0.0.1", 9)))

    run(test())


def test_dialling_that_takes_too_long_did_not_reach_it(run: Run) -> None:
    async def never(*_: object) -> None:
        await asyncio.sleep(60)

    async def test() -> None:
        async with Http1(TRUSTING_NOBODY, dial=never) as engine:
            with pytest.raises(UnreachedInTime):
                async with engine.stream(get(Origin("http", "x", 80)), connect_seconds=0.05):
                    pass

    run(test())


@pytest.mark.parametrize("bad", [b"a\r\nX: y", b"a\nb", b"a\0b", b"a\r"])
def test_a_header_cannot_smuggle_a_line_end(run: Run, bad: bytes) -> None:
    async def test() -> None:
        async with listening(answering(OK)) as server, Http1(TRUSTING_NOBODY) as engine:
            with pytest.raises(ValueError, match="line end"):
                await fetched(engine, Request(b"GET", server.origin, b"/", [(b"Host", bad)]))

    run(test())


def test_tls_is_verified_and_carries_large_bodies(run: Run, tmp_path: Path) -> None:
    certificate, key, authority = write_certificate(tmp_path, ["127.0.0.1"])
    theirs = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    theirs.load_cert_chain(certificate, key)
    ours = ssl.create_default_context(cafile=str(authority))
    large = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(BIG) + BIG

    async def test() -> None:
        async with listening(answering(large, large), theirs) as server:
            async with Http1(ours) as engine:
                for _ in range(2):
                    assert await fetched(engine, get(server.origin)) == (200, BIG)
                assert server.calls == 1
            async with Http1(ssl.create_default_context()) as strict:
                with pytest.raises(Unreached):
                    await fetched(strict, get(server.origin))

    run(test())
