"""httpx2 on our own engine: what adapters are handed. Its interface, its exceptions, its URLs and headers; `http1`
carries the bytes.

`Client` has a way past httpx2's own layers as well (`providers.http.Quick`): a poll costs 0.07-0.09 ms CPU on it, and
0.26-0.29 with a request and an answer as httpx2's objects (November 2026).
"""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, aclosing
from functools import lru_cache
from typing import Any, cast

import httpx2

from app.connection import Broken, Reply
from app.http1 import Http1, HttpError, Origin, Request, Unreached, UnreachedInTime
from app.visits import current

Observe = Callable[[str, int | None], None]

_PORTS = {"http": 80, "https": 443}
CONNECT_SECONDS = 5.0
# Scheme and authority; a target that needs neither quoting nor normalising: httpx2 would send the very same.
_PLAIN = re.compile(r"(https?://[A-Za-z0-9.\-]+(?::[0-9]{1,5})?)(/(?!/)[A-Za-z0-9_~./\-]*(?:\?[A-Za-z0-9_~.\-=&]*)?)")
_HOPS = re.compile(r"/\.{1,2}(?:[/?]|$)")  # `.` and `..`, which it would resolve
_OWN = (("accept", b"Accept", b"*/*"), ("user-agent", b"User-Agent", b"imagegate"))  # unless the request has its own


class Client(httpx2.AsyncClient):
    """An httpx2 client on our engine: without a base URL, parameters or headers of its own. `observe` and `pass_trace`
    are Transport's, for both ways."""

    def __init__(
        self,
        engine: Http1,
        observe: Observe = lambda method, status: None,
        *,
        pass_trace: bool = False,
        **settings: Any,
    ) -> None:
        super().__init__(transport=Transport(engine, observe, pass_trace=pass_trace), **settings)
        self._engine = engine
        self._observe = observe
        self._pass_trace = pass_trace

    def plain(self, method: str, url: str, headers: Mapping[str, str], content: Any) -> Request | None:
        """The request for `exchange`, None if it has to go httpx2's way. Raises ValueError for a header that cannot be
        sent."""
        match = _PLAIN.fullmatch(url)
        found = None if match is None or _HOPS.search(match[2]) else _origin(match[1])
        if match is None or found is None or any(self.event_hooks.values()):
            return None
        origin, host = found
        sent = [(b"Host", host), *((name.encode("ascii"), value.encode("ascii")) for name, value in headers.items())]
        names = {name.lower() for name in headers}
        sent += [(name, value) for lower, name, value in _OWN if lower not in names]
        if self._pass_trace:
            sent += _trace()
        body = b"" if content is None else content
        if not isinstance(body, bytes):
            if not isinstance(body, AsyncIterable) or "content-length" not in names:
                return None
        elif "content-length" not in names and (body or method in ("POST", "PUT", "PATCH")):
            sent.append((b"Content-Length", b"%d" % len(body)))
        return Request(method.encode("ascii"), origin, match[2].encode("ascii"), sent, body)

    async def exchange(
        self, request: Request, *, connect_seconds: float, limit: int
    ) -> tuple[int, Sequence[tuple[bytes, bytes]], bytes | None]:
        """Status, headers and body; None for a body over `limit` bytes. Raises httpx2's TransportErrors."""
        status: int | None = None
        try:
            async with self._engine.stream(request, connect_seconds=connect_seconds) as reply:
                status = reply.status
                if any(name.lower() == b"content-encoding" for name, _ in reply.headers):  # though asked not to
                    return status, reply.headers, await _decoded(reply, limit)
                return status, reply.headers, await reply.read(limit)
        except (HttpError, ValueError) as error:
            raise _translated(error, None) from error
        finally:
            self._observe(request.method.decode("ascii"), status)


@lru_cache(256)
def _origin(text: str) -> tuple[Origin, bytes] | None:
    """An origin as httpx2 reads it, and its Host header."""
    try:
        url = httpx2.URL(text)
    except httpx2.InvalidURL:
        return None
    return Origin(url.scheme, url.host, url.port or _PORTS[url.scheme]), url.netloc


async def _decoded(reply: Reply, limit: int) -> bytes | None:
    response = httpx2.Response(reply.status, headers=list(reply.headers), stream=_Body(reply, AsyncExitStack(), None))
    body = bytearray()
    async with aclosing(response):
        async for chunk in response.aiter_bytes():
            body += chunk
            if len(body) > limit:
                return None
    return bytes(body)


class Transport(httpx2.AsyncBaseTransport):
    """For `httpx2.AsyncClient(transport=…)`. Of its time-outs it keeps `connect`; whoever asks keeps the others.

    Each exchange is told to `observe`: its method, and its answer's status or None. With `pass_trace` the trace of the
    request that it is for goes with it (header traceparent)."""

    def __init__(
        self,
        engine: Http1,
        observe: Observe = lambda method, status: None,
        *,
        pass_trace: bool = False,
    ) -> None:
        self._engine = engine
        self._observe = observe
        self._pass_trace = pass_trace

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """One exchange. Raises httpx2's TransportErrors."""
        url, body = request.url, request.stream
        origin = Origin(url.scheme, url.host, url.port or _PORTS.get(url.scheme, 0))
        if url.scheme not in _PORTS:
            raise httpx2.UnsupportedProtocol(f"no {url.scheme} here", request=request)
        content = body if not isinstance(body, httpx2.ByteStream) else b"".join([part async for part in body])
        asked = Request(
            request.method.encode("ascii"),
            origin,
            url.raw_path,
            [*request.headers.raw, *_trace()] if self._pass_trace else request.headers.raw,
            cast("AsyncIterator[bytes]", content) if not isinstance(content, bytes) else content,
        )
        seconds = request.extensions.get("timeout", {}).get("connect") or CONNECT_SECONDS
        stack = AsyncExitStack()
        status: int | None = None
        try:
            reply = await stack.enter_async_context(self._engine.stream(asked, connect_seconds=seconds))
            status = reply.status
        except (HttpError, ValueError) as error:
            raise _translated(error, request) from error
        finally:
            self._observe(request.method, status)
        return httpx2.Response(reply.status, headers=list(reply.headers), stream=_Body(reply, stack, request))

    async def aclose(self) -> None:
        """Close all connections."""
        await self._engine.aclose()


def _trace() -> list[tuple[bytes, bytes]]:
    """The header that names the trace of the request which is being answered, if it has one."""
    visit = current.get()
    return [] if visit is None or visit.traceparent is None else [(b"traceparent", str(visit.traceparent).encode())]


def _translated(error: HttpError | ValueError, request: httpx2.Request | None) -> httpx2.TransportError:
    """What an engine's error is called by httpx2."""
    match error:
        case UnreachedInTime():
            return httpx2.ConnectTimeout(str(error), request=request)
        case Unreached():
            return httpx2.ConnectError(str(error), request=request)
        case HttpError():
            return httpx2.ReadError(str(error), request=request)
    return httpx2.LocalProtocolError(str(error), request=request)


class _Body(httpx2.AsyncByteStream):
    def __init__(self, reply: Reply, stack: AsyncExitStack, request: httpx2.Request | None) -> None:
        self._reply = reply
        self._stack = stack
        self._request = request

    async def __aiter__(self) -> AsyncGenerator[bytes, None]:
        try:
            async with aclosing(self._reply.chunks()) as chunks:
                async for chunk in chunks:
                    yield chunk
        except Broken as error:
            raise httpx2.ReadError(str(error), request=self._request) from error

    async def aclose(self) -> None:
        await self._stack.aclose()
