"""HTTP/1.1 as a client: the engine beneath httpx2 and the picture fetcher, on httptools (llhttp) and asyncio.

httpx2's own engine (httpcore2 on h11 and anyio) was measured on the path of one edit (`bench/`, November 2026): 0.50 ms
CPU a poll and 2.2 ms for a picture of 1.5 MB, of which this takes 0.2 and 0.4. It does less: no proxies, no HTTP/2, no
redirects, no cookies, no compression, no retries. Who dials is injected, so the guard of `app.media.netguard` judges
the very address that is connected to.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterable, Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Self

from app.connection import Broken, Connection, HttpError, Reply

__all__ = ["Broken", "Dial", "Http1", "HttpError", "Origin", "Reply", "Request", "Unreached", "UnreachedInTime", "dial"]

_SCRATCH = 256 << 10  # bytes taken from a socket at a time


class Unreached(HttpError):
    """There is no connection, so nothing can have been sent."""


class UnreachedInTime(Unreached):
    """The same: it took too long."""


class Origin(NamedTuple):
    """Where a request goes. `host` is a name or an address, without brackets."""

    scheme: str
    host: str
    port: int


@dataclass(frozen=True, slots=True)
class Request:
    """One request. `headers` are complete: Host, and what says how long the body is."""

    method: bytes
    origin: Origin
    target: bytes  # path and query
    headers: Sequence[tuple[bytes, bytes]]
    body: bytes | AsyncIterable[bytes] = b""


Make = Callable[[], asyncio.BaseProtocol]
# (protocol, host or address, port, TLS if wanted, the name that its certificate has to have)
Dial = Callable[[Make, str, int, ssl.SSLContext | None, str | None], Awaitable[None]]


async def dial(make: Make, host: str, port: int, tls: ssl.SSLContext | None, name: str | None) -> None:
    """Connect, whatever the host's address is. Raises OSError."""
    await asyncio.get_running_loop().create_connection(make, host, port, ssl=tls, server_hostname=name)


class Http1:
    """Connections to any number of origins, kept for `keep_seconds` after use. One for each kind of dialling."""

    def __init__(
        self,
        tls: ssl.SSLContext,
        *,
        dial: Dial = dial,
        keep_seconds: float = 5.0,
        keep: int = 100,
        most: int | None = None,
    ) -> None:
        """`keep`: idle connections in all; `most`: connections at once, who comes later waits."""
        self._tls = tls
        self._dial = dial
        self._keep_seconds = keep_seconds
        self._keep = keep
        self._turns = asyncio.Semaphore(most) if most else None
        self._idle: dict[Origin, list[Connection]] = {}
        self._idle_count = 0
        self._busy: set[Connection] = set()
        self._scratch = memoryview(bytearray(_SCRATCH))  # shared: what has come is taken out of it at once
        self._closed = False

    def stream(self, request: Request, *, connect_seconds: float) -> Exchange:
        """One exchange; its connection is used again if the body was read to its end. Raises Unreached, Broken, and
        ValueError for a head that cannot be sent."""
        return Exchange(self, request, connect_seconds)

    async def aclose(self) -> None:
        """Close all connections, those in use as well."""
        self._closed = True
        for connection in [*self._busy, *(one for idle in self._idle.values() for one in idle)]:
            connection.close()
        self._idle.clear()
        self._idle_count = 0
        await asyncio.sleep(0)  # for the sockets to be closed

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def begin(self, origin: Origin, connect_seconds: float) -> Connection:
        """A connection for one exchange; `end` follows. Raises Unreached."""
        if self._turns is not None:
            await self._turns.acquire()
        try:
            connection = self._kept(origin) or await self._connected(origin, connect_seconds)
        except BaseException:
            if self._turns is not None:
                self._turns.release()
            raise
        self._busy.add(connection)
        return connection

    def end(self, connection: Connection, origin: Origin) -> None:
        """The exchange is over, however it ended."""
        self._busy.discard(connection)
        self._keep_or_close(connection, origin)
        if self._turns is not None:
            self._turns.release()

    def _kept(self, origin: Origin) -> Connection | None:
        idle = self._idle.get(origin, [])
        found = None
        while idle and found is None:
            connection = idle.pop()  # the one used last, so that the others can grow old and go
            self._idle_count -= 1
            connection.stop_waiting()
            if connection.is_quiet():
                found = connection
            else:
                connection.close()
        if not idle:
            self._idle.pop(origin, None)
        return found

    async def _connected(self, origin: Origin, seconds: float) -> Connection:
        tls, name = (self._tls, origin.host) if origin.scheme == "https" else (None, None)
        made: list[Connection] = []  # one for each address that was tried; the last is the one that was reached

        def make() -> Connection:
            made.append(Connection(self._scratch))
            return made[-1]

        reached = False
        try:
            async with asyncio.timeout(seconds):
                await self._dial(make, origin.host, origin.port, tls, name)
            reached = True
        except TimeoutError as error:  # asyncio's, or the system's
            raise UnreachedInTime("connecting took too long") from error
        except OSError as error:  # no such name, no route, refused, no TLS
            raise Unreached(f"{type(error).__name__}: {error}") from error
        finally:
            for connection in made[:-1] if reached else made:
                connection.close()
        return made[-1]

    def _keep_or_close(self, connection: Connection, origin: Origin) -> None:
        if self._closed or self._idle_count >= self._keep or not connection.is_reusable():
            connection.close()
            return
        self._idle.setdefault(origin, []).append(connection)
        self._idle_count += 1
        connection.wait(self._keep_seconds, lambda: self._forget(connection, origin))

    def _forget(self, connection: Connection, origin: Origin) -> None:
        """It waited for too long, or its server has closed it."""
        connection.close()
        idle = self._idle.get(origin, [])
        if connection in idle:
            idle.remove(connection)
            self._idle_count -= 1
        if not idle:
            self._idle.pop(origin, None)


class Exchange:
    """One request and its answer, for `async with`: a class, because a generator costs three times as much."""

    __slots__ = ("_connect_seconds", "_connection", "_engine", "_request")

    def __init__(self, engine: Http1, request: Request, connect_seconds: float) -> None:
        self._engine = engine
        self._request = request
        self._connect_seconds = connect_seconds
        self._connection: Connection | None = None

    async def __aenter__(self) -> Reply:
        """The answer, as soon as its head is there."""
        head = _head(self._request)
        self._connection = await self._engine.begin(self._request.origin, self._connect_seconds)
        try:
            return await self._connection.ask(head, self._request.body)
        except BaseException:
            await self.__aexit__()
            raise

    async def __aexit__(self, *_: object) -> None:
        """Whatever was not read is not wanted."""
        if self._connection is not None:
            connection, self._connection = self._connection, None
            self._engine.end(connection, self._request.origin)


def _head(request: Request) -> bytes:
    lines = [b"%s %s HTTP/1.1" % (request.method, request.target)]
    lines += [b"%s: %s" % header for header in request.headers]
    head = b"\r\n".join((*lines, b"", b""))
    if head.count(b"\n") != len(lines) + 1 or head.count(b"\r") != len(lines) + 1 or b"\0" in head:
        raise ValueError("a header or the target holds a line end")
    return head
