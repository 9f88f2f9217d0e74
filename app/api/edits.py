"""POST /openai/v1/images/edits: a thin router. Reading is `request`'s, deciding the gateway's, writing `wire`'s.

Azure's spelling of the same, /openai/deployments/{model}/images/edits, names the model in its path; as there, it counts
and not the body's.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator, Coroutine
from contextlib import aclosing
from typing import Any, TypeVar

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send

from app.api import wire
from app.api.auth import Authenticator
from app.api.body import Body, ClientGone
from app.api.errors import envelope
from app.api.openapi import edit_operation, edit_responses
from app.api.request import RequestReader
from app.config import Limits
from app.errors import GatewayError, InternalError, InvalidType
from app.gateway import Gateway, Prepared
from app.types import Artefact, Outcome

log = logging.getLogger("imagegate.api")

KEEPALIVE_SECONDS = 15.0

T = TypeVar("T")


def edits_router(
    gateway: Gateway,
    reader: RequestReader,
    auth: Authenticator,
    limits: Limits,
    *,
    keepalive_seconds: float = KEEPALIVE_SECONDS,
) -> APIRouter:
    """The edits endpoint, with and without a slash at its end."""
    router = APIRouter()

    async def edit(request: Request) -> Response:
        caller = auth.caller(request)
        dry_run = _dry_run(request)
        body = Body(request.receive, request.headers.get("content-length"), limits)
        deployment = request.path_params.get("deployment")
        asked = await reader.read(request, body, "image-edit", caller, gateway.check, deployment)
        prepared = gateway.prepare(asked)
        if dry_run:
            return JSONResponse(wire.estimate(prepared, prepared.upstream.provider.label))
        if prepared.plan.delivery.stream:
            return EventStream(gateway, prepared, body, keepalive_seconds)
        return wire.answer(await _unless_gone(body, gateway.edit(prepared)))

    for path in (
        "/openai/v1/images/edits",
        "/openai/v1/images/edits/",
        "/openai/deployments/{deployment:path}/images/edits",
    ):
        router.add_api_route(
            path,
            edit,
            methods=["POST"],
            include_in_schema=path == "/openai/v1/images/edits",
            openapi_extra=edit_operation(gateway.catalogue),
            responses=edit_responses(),
        )
    return router


async def _unless_gone(body: Body, job: Coroutine[Any, Any, T]) -> T:
    """What the job gives. A client that hangs up meanwhile, or has already, cancels it, upstream too."""
    work = asyncio.create_task(job)
    gone = asyncio.create_task(body.until_gone())
    try:
        await asyncio.wait({work, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not work.done():
            raise ClientGone
        return work.result()
    finally:
        for task in (work, gone):
            task.cancel()
        await asyncio.gather(work, gone, return_exceptions=True)


class EventStream(Response):
    """Server-sent events: each picture as it is done, comments while nothing is, errors nested under "error"."""

    def __init__(self, gateway: Gateway, prepared: Prepared, body: Body, keepalive_seconds: float) -> None:
        self._keepalive_seconds = keepalive_seconds
        self._gateway = gateway
        self._prepared = prepared
        self._body = body
        super().__init__(
            None,
            200,
            {
                "content-type": "text/event-stream; charset=utf-8",
                "cache-control": "no-store",
                "x-accel-buffering": "no",
                "x-imagegate-provider": prepared.plan.offer.provider,
                "x-imagegate-model": prepared.plan.model,
            },
        )
        del self.headers["content-length"]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send events until the job or the client ends."""
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        await _unless_gone(self._body, self._send_all(send))

    async def _send_all(self, send: Send) -> None:
        async with (
            aclosing(self._events()) as events,
            aclosing(_with_keepalives(events, self._keepalive_seconds)) as pieces,
        ):
            async for piece in pieces:
                await send({"type": "http.response.body", "body": piece, "more_body": True})
        await send({"type": "http.response.body", "body": b""})

    async def _events(self) -> AsyncGenerator[bytes, None]:
        """Completed pictures as they come, then those that failed: nobody stops reading before what was made. The last
        event, whichever it is, carries the metadata that a plain answer has."""
        created = int(self._gateway.now())
        left = self._prepared.plan.delivery.count
        last: Artefact | None = None
        try:
            async with aclosing(self._gateway.stream(self._prepared)) as events:
                async for event in events:
                    if isinstance(event, Outcome):
                        told, missing = wire.metadata(event), event.receipt.failures
                        if last is not None:
                            for piece in wire.event(last, created, None if missing else told):
                                yield piece
                        for place, failure in enumerate(missing, 1):
                            yield wire.failed_event(failure, told if place == len(missing) else None)
                        continue
                    left -= 1
                    if isinstance(event, Artefact) and left:
                        for piece in wire.event(event, created):
                            yield piece
                    elif isinstance(event, Artefact):
                        last = event  # the outcome follows at once
        except GatewayError as error:
            yield wire.error_event(envelope(error))
        except Exception:
            log.exception("%s: a defect of the gateway", self._prepared.id)
            yield wire.error_event(envelope(InternalError("The gateway failed.")))


async def _with_keepalives(pieces: AsyncGenerator[bytes, None], seconds: float) -> AsyncGenerator[bytes, None]:
    """The pieces, and a comment whenever none came for so long: proxies and clients give up on silence."""
    following = asyncio.ensure_future(anext(pieces, None))
    try:
        while True:
            done, _ = await asyncio.wait({following}, timeout=seconds)
            if not done:
                yield b": keep-alive\n\n"
                continue
            piece = following.result()
            if piece is None:
                return
            yield piece
            following = asyncio.ensure_future(anext(pieces, None))
    finally:
        following.cancel()
        with contextlib.suppress(asyncio.CancelledError, Exception):
            await following


def _dry_run(request: Request) -> bool:
    for name, word in request.query_params.multi_items():
        if name.lower().replace("_", "") != "dryrun":
            continue
        if word.lower() in ("true", "1", "on", ""):
            return True
        if word.lower() in ("false", "0", "off"):
            return False
        raise InvalidType(f"Invalid type for '{name}': expected a boolean.", param=name)
    return False
