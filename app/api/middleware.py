"""Plain ASGI around everything: a request id, the time it took, an answer even for a defect, and a decent end for a
connection whose request is answered before all of it has come.

BaseHTTPMiddleware costs 110 µs a request and wraps streaming bodies; this costs 2.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from contextlib import suppress

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.api.body import ClientGone
from app.api.errors import render
from app.errors import InternalError, Overloaded
from app.visits import Visit, Visits, current

log = logging.getLogger("imagegate.api")

# A refused upload is thrown away for so long, then the connection closes. Closed at once it would be reset, and a
# client that is still sending would never read why (nginx calls this a lingering close).
LINGER_SECONDS = 10.0
LINGER_IDLE_SECONDS = 2.0
LINGER_BYTES = 64 << 20


class RequestContext:
    """Gives each request its id (`request.state.request_id`, header x-request-id) and catches what nobody caught."""

    def __init__(self, app: ASGIApp, new_id: Callable[[], str], visits: Visits | None = None) -> None:
        """`visits` are told of each request."""
        self._app = app
        self._new_id = new_id
        self._visits = visits or Visits()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = self._new_id()
        scope.setdefault("state", {})["request_id"] = request_id
        visit = self._visits.begin(request_id, scope["method"], scope["path"], scope["headers"])
        scope["state"]["visit"] = visit
        entered = current.set(visit)
        try:
            await self._answer(scope, _Exchange(scope, receive, send, visit), request_id)
        finally:
            visit.route = getattr(scope.get("route"), "path", "")
            self._visits.end(visit)
            current.reset(entered)

    async def _answer(self, scope: Scope, exchange: _Exchange, request_id: str) -> None:
        try:
            await self._app(scope, exchange.receive, exchange.send)
        except asyncio.CancelledError:  # the server's patience with running requests is over
            if not exchange.started:
                # What was bought is in the journal and will be collected: who has a key for it may ask again.
                repeatable = any(name == b"idempotency-key" for name, _ in scope["headers"])
                stopping = Overloaded(
                    "The gateway is stopping. What it was at goes on: see /v1/requests.",
                    retry_after=5,
                    should_retry=repeatable,
                )
                await render(stopping, request_id)(scope, exchange.receive, exchange.send)
            raise
        except ClientGone:
            exchange.visit.gone = True
            log.info("%s: the client hung up", request_id)
        except Exception:
            log.exception("%s: a defect of the gateway", request_id)
            if exchange.started:
                raise
            # A repeat would meet the same defect, and could pay twice on its way there.
            error = InternalError("The gateway failed. The request id is in x-request-id.", should_retry=False)
            answer = render(error, request_id)
            await answer(scope, exchange.receive, exchange.send)


class _Exchange:
    """One request and its answer, as they pass by."""

    def __init__(self, scope: Scope, receive: Receive, send: Send, visit: Visit) -> None:
        self.started = False
        self.visit = visit
        self._receive = receive
        self._send = send
        self._state = scope["state"]
        self._unread = _announces_body(scope)
        self._closing = False

    async def receive(self) -> Message:
        message = await self._receive()
        self.visit.bytes_in += len(message.get("body", b""))
        if message["type"] != "http.request" or not message.get("more_body"):
            self._unread = False
        return message

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.started = True
            self.visit.status = message["status"]
            self._closing = self._unread
            milliseconds = (time.monotonic() - self.visit.began) * 1000
            limits = self._state.get("limits")  # of who turned out to be limited
            message["headers"] = [
                *message["headers"],
                (b"x-request-id", self.visit.id.encode()),
                (b"openai-processing-ms", b"%d" % milliseconds),
                *(await limits() if limits is not None else []),
                *([(b"connection", b"close")] if self._closing else []),
            ]
        elif self._closing and not message.get("more_body"):
            # The client has the whole answer with this; what follows only keeps the connection open for a while.
            self.visit.bytes_out += len(message.get("body", b""))
            await self._send({**message, "more_body": True})
            await self._linger()
            message = {"type": "http.response.body", "body": b""}
        self.visit.bytes_out += len(message.get("body", b""))
        await self._send(message)

    async def _linger(self) -> None:
        left = LINGER_BYTES
        with suppress(TimeoutError):
            async with asyncio.timeout(LINGER_SECONDS):
                while self._unread and left > 0:
                    async with asyncio.timeout(LINGER_IDLE_SECONDS):
                        left -= len((await self.receive()).get("body", b""))


def _announces_body(scope: Scope) -> bool:
    headers = dict(scope["headers"])
    return b"transfer-encoding" in headers or headers.get(b"content-length", b"0").strip(b"0") != b""
