"""Answers that an ordinary server would not give: closed connections, half bodies, dripping bodies.

ASGI has no word for "close without an answer". Uvicorn's `send` is a method of the object that owns the transport, so
`closing` takes the transport from there; under another server these faults raise, which is no loss: they are there
for tests.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, MutableMapping
from typing import Any

from starlette.responses import Response, StreamingResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from .replies import Reply

CLOSE = "fal_sandbox.close"
"""Scope key of a coroutine function that closes the client's connection at once."""

FAL_HOSTS: Mapping[str, str] = {
    "queue.fal.run": "/queue",
    "queue.falrun.com": "/queue",
    "fal.run": "/run",
    "falrun.com": "/run",
    "rest.fal.ai": "/rest",
    "rest.alpha.fal.ai": "/rest",
    "v3.fal.media": "/cdn",
    "v3b.fal.media": "/cdn",
    "api.fal.ai": "/api",
}
"""fal's host names and the path prefix each one stands for here (PY fal-client 1.0.3, client.py constants)."""


class Wire:
    """The outermost layer: maps fal's host names to prefixes and hands `closing` to the answers below."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            scope[CLOSE] = closing(receive, send)
            host = dict(scope["headers"]).get(b"host", b"").decode("latin-1").partition(":")[0].lower()
            if host in FAL_HOSTS:
                prefix = FAL_HOSTS[host]
                scope = {
                    **scope,
                    "path": prefix + scope["path"],
                    "raw_path": prefix.encode() + scope.get("raw_path", b""),
                }
        await self._app(scope, receive, send)


def closing(receive: Receive, send: Send) -> Callable[[], Awaitable[None]]:
    async def close() -> None:
        transport = getattr(getattr(send, "__self__", None), "transport", None)
        if transport is None:
            raise RuntimeError("this server does not let an application close a connection; use uvicorn")
        transport.abort()
        while (await receive())["type"] != "http.disconnect":  # the server must notice before it misses an answer
            pass

    return close


def response(reply: Reply) -> Response:
    return Response(reply.content, reply.status, dict(reply.headers), reply.content_type)


class Dropped(Response):
    """The connection closes and not a byte is answered."""

    def __init__(self) -> None:
        super().__init__(b"", 500)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await scope[CLOSE]()


class Hung(Response):
    """The call was taken, and not a byte is answered until the client gives up."""

    def __init__(self) -> None:
        super().__init__(b"", 500)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass


class Truncated(Response):
    """The headers promise the whole body; half of it comes, then the connection closes."""

    def __init__(self, whole: Response) -> None:
        super().__init__(whole.body, whole.status_code)
        self.raw_headers = whole.raw_headers

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        half = bytes(self.body)[: len(self.body) // 2]
        await send({"type": "http.response.body", "body": half, "more_body": True})
        await asyncio.sleep(0.02)  # an abort would throw away what is still in the buffer
        await scope[CLOSE]()


def dripping(whole: Response, bytes_per_second: float) -> Response:
    """The same answer, a few bytes at a time, at most twenty times a second."""
    step = max(1, round(bytes_per_second / 20))

    async def drops() -> AsyncIterator[bytes]:
        body = bytes(whole.body)
        for start in range(0, len(body), step):
            yield body[start : start + step]
            await asyncio.sleep(step / bytes_per_second)

    return _streamed(drops(), whole, {"content-length": str(len(whole.body))})


def padded(whole: Response, total: int, chunked: bool) -> Response:
    """The same answer blown up to `total` bytes, still well-formed: spaces after JSON, zeros after anything else."""
    filler = b" " if "json" in whole.headers.get("content-type", "") else b"\0"

    async def chunks() -> AsyncIterator[bytes]:
        yield bytes(whole.body)
        left = total - len(whole.body)
        block = filler * 65536
        while left > 0:
            yield block[: min(left, len(block))]
            left -= len(block)

    length: dict[str, str] = {} if chunked else {"content-length": str(max(total, len(whole.body)))}
    return _streamed(chunks(), whole, length)


def _streamed(body: AsyncIterator[bytes], whole: Response, length: Mapping[str, str]) -> Response:
    headers: MutableMapping[str, Any] = {k: v for k, v in whole.headers.items() if k.lower() != "content-length"}
    return StreamingResponse(body, whole.status_code, {**headers, **length})
