"""Plain ASGI around everything: a request id, the time it took, and an answer even for a defect.

BaseHTTPMiddleware costs 110 µs a request and wraps streaming bodies; this costs 2.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.api.body import ClientGone
from app.api.errors import render
from app.errors import InternalError

log = logging.getLogger("imagegate.api")


class RequestContext:
    """Gives each request its id (`request.state.request_id`, header x-request-id) and catches what nobody caught."""

    def __init__(self, app: ASGIApp, new_id: Callable[[], str]) -> None:
        self._app = app
        self._new_id = new_id

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = self._new_id()
        scope.setdefault("state", {})["request_id"] = request_id
        began = time.perf_counter()
        started = False

        async def with_headers(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                message["headers"] = [
                    *message["headers"],
                    (b"x-request-id", request_id.encode()),
                    (b"openai-processing-ms", b"%d" % ((time.perf_counter() - began) * 1000)),
                ]
            await send(message)

        try:
            await self._app(scope, receive, with_headers)
        except ClientGone:
            log.info("%s: the client hung up", request_id)
        except Exception:
            log.exception("%s: a defect of the gateway", request_id)
            if started:
                raise
            answer = render(InternalError("The gateway failed. The request id is in x-request-id."))
            await answer(scope, receive, with_headers)
