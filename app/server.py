"""uvicorn, with what it lacks: request heads have a time and a size limit, and what is no HTTP gets our envelope too.

Measured with uvicorn 0.54: a half-sent request line stays open for good, a header may be as long as memory lasts, and
a malformed request is answered in plain text.
"""

from __future__ import annotations

import asyncio
import secrets
import socket
from collections.abc import Callable
from functools import partial
from types import FrameType
from typing import Any

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from app.api.errors import envelope
from app.errors import GatewayError, InvalidBody, RequestTimeout

HEAD_BYTES = 64 << 10
# OpenAI's old Node SDK reuses connections for five minutes and hangs on one that was closed under it.
KEEP_ALIVE_SECONDS = 75


class Protocol(HttpToolsProtocol):
    """One connection. A head is what comes before a body: it begins with the first byte, or with the connection."""

    def __init__(self, *args: Any, head_seconds: float, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._head_seconds = head_seconds
        self._head_bytes = 0
        self._head_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        """Somebody called: the first request has to come soon."""
        super().connection_made(transport)
        self._await_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """Nobody is there any more."""
        self._head_done()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Count what belongs to a head that is not complete."""
        between = self.cycle is None or self.cycle.response_complete
        if between and self._head_timer is None:
            self._await_head()
        super().data_received(data)
        if self._head_timer is not None:
            self._head_bytes += len(data)
            if self._head_bytes > HEAD_BYTES:
                self._refuse(InvalidBody(f"The request's headers are larger than {HEAD_BYTES} bytes."))

    def on_headers_complete(self) -> None:
        """The head is complete: what follows is the body's business."""
        self._head_done()
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """As uvicorn does, but what comes in one piece is handed on as it is: two copies less of every byte."""
        cycle: Any = self.cycle  # whose body is a bytearray, but only ever asked for its bytes and its length
        if cycle.body or cycle.response_complete:
            if isinstance(cycle.body, bytes):
                cycle.body = bytearray(cycle.body)  # many small pieces: it has to grow in place
            super().on_body(body)
        else:
            cycle.body = body
            super().on_body(b"")

    def send_400_response(self, msg: str) -> None:
        """What is no HTTP."""
        self._refuse(InvalidBody("The request is not valid HTTP."))

    def _await_head(self) -> None:
        self._head_bytes = 0
        self._head_timer = self.loop.call_later(self._head_seconds, self._too_slow)

    def _head_done(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _too_slow(self) -> None:
        if self._head_bytes:
            self._refuse(RequestTimeout(f"The request's headers did not arrive within {self._head_seconds:g} seconds."))
        else:
            self._head_done()
            self.transport.close()

    def _refuse(self, error: GatewayError) -> None:
        """Answer below HTTP's own machinery, and hang up."""
        self._head_done()
        if self.transport.is_closing():
            return
        body = envelope(error)
        reason = {400: "Bad Request", 408: "Request Timeout"}[error.status]
        head = [
            f"HTTP/1.1 {error.status} {reason}",
            "content-type: application/json",
            f"content-length: {len(body)}",
            f"x-request-id: req_{secrets.token_hex(16)}",
            "x-should-retry: false",
            "connection: close",
        ]
        self.transport.write("\r\n".join(head).encode() + b"\r\n\r\n" + body)
        self.transport.close()


class Server(uvicorn.Server):
    """Tells when it is about to stop. A second signal of either kind ends it at once."""

    def __init__(self, config: uvicorn.Config, stopping: Callable[[], None] | None) -> None:
        super().__init__(config)
        self._stopping = stopping
        self._signalled = False

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """A signal came."""
        if self._signalled:
            self.force_exit = True
        self._signalled = True
        if self._stopping is not None:
            self._stopping()
        super().handle_exit(sig, frame)


def make_server(
    app: Any, *, head_seconds: float, drain_seconds: float, stopping: Callable[[], None] | None = None
) -> Server:
    """A server for the application. A request's head has `head_seconds` to arrive; after a signal, `stopping` is called
    and running requests have `drain_seconds` to end."""
    return Server(
        uvicorn.Config(
            app,
            http=partial(Protocol, head_seconds=head_seconds),  # type: ignore[arg-type]  # called like a class
            ws="none",
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_keep_alive=KEEP_ALIVE_SECONDS,
            timeout_graceful_shutdown=max(1, int(drain_seconds)),
        ),
        stopping,
    )


def listen(host: str, port: int) -> socket.socket:
    """A listening socket; port 0 takes a free one. Raises OSError."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen(2048)
    except OSError:
        listener.close()
        raise
    return listener
