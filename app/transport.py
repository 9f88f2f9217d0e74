"""httpx2 on our own engine: what adapters are handed. Its interface, its exceptions, its URLs and headers; `http1`
carries the bytes."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import AsyncExitStack, aclosing
from typing import cast

import httpx2

from app.connection import Broken, Reply
from app.http1 import Http1, Origin, Request, Unreached, UnreachedInTime
from app.visits import current

_PORTS = {"http": 80, "https": 443}
CONNECT_SECONDS = 5.0


class Transport(httpx2.AsyncBaseTransport):
    """For `httpx2.AsyncClient(transport=…)`. Of its time-outs it keeps `connect`; whoever asks keeps the others.

    Each exchange is told to `observe`: its method, and its answer's status or None. With `pass_trace` the trace of the
    request that it is for goes with it (header traceparent)."""

    def __init__(
        self,
        engine: Http1,
        observe: Callable[[str, int | None], None] = lambda method, status: None,
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
            self._headers(request),
            cast("AsyncIterator[bytes]", content) if not isinstance(content, bytes) else content,
        )
        seconds = request.extensions.get("timeout", {}).get("connect") or CONNECT_SECONDS
        stack = AsyncExitStack()
        status: int | None = None
        try:
            reply = await stack.enter_async_context(self._engine.stream(asked, connect_seconds=seconds))
            status = reply.status
        except UnreachedInTime as error:
            raise httpx2.ConnectTimeout(str(error), request=request) from error
        except Unreached as error:
            raise httpx2.ConnectError(str(error), request=request) from error
        except Broken as error:
            raise httpx2.ReadError(str(error), request=request) from error
        except ValueError as error:
            raise httpx2.LocalProtocolError(str(error), request=request) from error
        finally:
            self._observe(request.method, status)
        return httpx2.Response(reply.status, headers=list(reply.headers), stream=_Body(reply, stack, request))

    def _headers(self, request: httpx2.Request) -> list[tuple[bytes, bytes]]:
        headers = request.headers.raw
        visit = current.get() if self._pass_trace else None
        if visit is not None and visit.traceparent is not None:
            headers = [*headers, (b"traceparent", str(visit.traceparent).encode())]
        return headers

    async def aclose(self) -> None:
        """Close all connections."""
        await self._engine.aclose()


class _Body(httpx2.AsyncByteStream):
    def __init__(self, reply: Reply, stack: AsyncExitStack, request: httpx2.Request) -> None:
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
