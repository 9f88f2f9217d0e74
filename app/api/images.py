"""What the endpoints that make pictures have in common: reading is `request`'s, deciding the gateway's, writing
`wire`'s."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Iterable
from contextlib import AsyncExitStack, aclosing
from dataclasses import dataclass
from typing import Any, TypeVar

from fastapi import APIRouter
from fastapi.routing import APIRoute
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send

from app.api import wire
from app.api.auth import Authenticator
from app.api.body import Body, ClientGone
from app.api.errors import envelope
from app.api.openapi import responses
from app.api.request import RequestReader
from app.api.terms import read_terms
from app.budgets import Memory
from app.catalogue.schema import Mode, Model
from app.config import Config, Limits
from app.errors import GatewayError, InternalError, InvalidType
from app.gateway import Attended, Gateway, Prepared
from app.types import Artefact, Caller, EditRequest, Outcome
from app.visits import Visit

log = logging.getLogger("imagegate.api")

KEEPALIVE_SECONDS = 15.0
FORM_BYTES = 768 << 10  # of a form that are in memory at a time until they are spooled; small files have their room

EVENTS: dict[Mode, str] = {"image-edit": "image_edit", "text-to-image": "image_generation"}

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Images:
    """Answers requests for pictures, whatever they are made of."""

    gateway: Gateway
    reader: RequestReader
    config: Config
    memory: Memory
    keepalive_seconds: float = KEEPALIVE_SECONDS

    async def answer(self, request: Request, caller: Caller, mode: Mode) -> Response:
        """What a request becomes: its pictures, events as they are made, or with `?dryRun=true` the price and the plan.

        Raises GatewayError; ClientGone.
        """
        gateway = self.gateway
        dry_run = _dry_run(request)
        terms = read_terms(request.headers, self.config.max_request_seconds)
        length = request.headers.get("content-length")
        with self.memory.hold(_held_bytes(request, self.config.limits)):
            body = Body(request.receive, length, self.config.limits)
            deployment = request.path_params.get("deployment")
            visit: Visit = request.state.visit

            def check(asked: EditRequest) -> None:
                found = gateway.catalogue.find(asked.model)
                visit.model = found.model.id if found else "other"
                gateway.check(asked)

            async with AsyncExitStack() as attending:
                presence = Presence(body)
                attending.callback(presence.close)
                with gateway.expecting(caller, terms):
                    with visit.measure("receive"):
                        asked = await self.reader.read(request, body, mode, caller, terms, check, deployment)
                    prepared = gateway.prepare(asked)
                    if dry_run:
                        return JSONResponse(wire.estimate(prepared, prepared.upstream.provider.label))
                    attended = await presence.unless_gone(attending.enter_async_context(gateway.attend(prepared)))
                if prepared.plan.delivery.stream:
                    event = EVENTS[mode]
                    rest = attending.pop_all()
                    return EventStream(event, prepared, attended, rest, presence, self.keepalive_seconds)
                outcome = await presence.unless_gone(attended.run.outcome())
                with visit.measure("answer"):
                    return wire.answer(outcome, repeated=attended.repeated)


def images_router(
    images: Images,
    auth: Authenticator,
    name: str,
    mode: Mode,
    describe: Callable[[Iterable[Model]], dict[str, Any]],
) -> APIRouter:
    """The endpoint `name`, with and without a slash at its end, and Azure's spelling of it, which names the model in
    its path; as there, that counts and not the body's. `describe` makes its part of the OpenAPI document."""
    router = APIRouter(route_class=Direct)
    catalogue = images.gateway.catalogue

    async def make(request: Request) -> Response:
        return await images.answer(request, await auth.buyer(request), mode)

    described = describe(catalogue)
    catalogue.on_replace(lambda: described.update(describe(catalogue)))
    path = f"/openai/v1/images/{name}"
    for spelled in (path, f"{path}/", f"/openai/deployments/{{deployment:path}}/images/{name}"):
        router.add_api_route(
            spelled,
            make,
            methods=["POST"],
            include_in_schema=spelled == path,
            openapi_extra=described,
            responses=responses(),
        )
    return router


class Direct(APIRoute):
    """A route whose endpoint takes the request and gives the response: what FastAPI does around one that does not costs
    0.2 ms a request."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """The endpoint itself."""
        return self.endpoint


class Presence:
    """Looks out for the client from the first `unless_gone` until `close`, in one task."""

    def __init__(self, body: Body) -> None:
        """To be asked when the body was read."""
        self._body = body
        self._watch: asyncio.Task[None] | None = None
        self._limit: asyncio.Timeout | None = None

    async def unless_gone(self, job: Awaitable[T]) -> T:
        """What `job` gives, or ClientGone as soon as the client hangs up, or if it has already."""
        limit = asyncio.timeout(None)
        try:
            async with limit:
                self._limit = limit
                if self._watch is None:
                    self._watch = asyncio.create_task(self._body.until_gone())
                    self._watch.add_done_callback(self._gone)
                elif self._watch.done():
                    limit.reschedule(0)
                try:
                    return await job
                finally:
                    self._limit = None
        except Exception:
            if not limit.expired():
                raise
        raise ClientGone

    def _gone(self, watch: asyncio.Task[None]) -> None:
        if not watch.cancelled():
            watch.exception()  # a server that cannot tell has lost it
        if self._limit is not None and not self._limit.expired():
            self._limit.reschedule(0)

    def close(self) -> None:
        """Look no more."""
        if self._watch is not None:
            self._watch.cancel()


class EventStream(Response):
    """Server-sent events: each picture as it is done, comments while nothing is, errors nested under "error"."""

    def __init__(
        self,
        event: str,
        prepared: Prepared,
        attended: Attended,
        attending: AsyncExitStack,
        presence: Presence,
        keepalive_seconds: float,
    ) -> None:
        """`event` is what they are called, up to their last word. `attending` is closed when the client has all of it,
        or has gone."""
        self._event = event
        self._keepalive_seconds = keepalive_seconds
        self._prepared = prepared
        self._attended = attended
        self._attending = attending
        self._presence = presence
        super().__init__(
            None,
            200,
            {
                "content-type": "text/event-stream; charset=utf-8",
                "cache-control": "no-store",
                "x-accel-buffering": "no",
                # Not known yet if another one may have to do it; the last event tells.
                **({} if prepared.alternatives else {"x-imagegate-provider": prepared.plan.offer.provider}),
                "x-imagegate-model": prepared.plan.model,
                **(wire.REPLAYED if attended.repeated else {}),
            },
        )
        del self.headers["content-length"]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send events until the job or the client ends."""
        async with self._attending:
            await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
            await self._presence.unless_gone(self._send_all(send))

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
        created = self._attended.run.created
        left = self._prepared.plan.delivery.count
        last: Artefact | None = None
        try:
            async with aclosing(self._attended.run.events()) as events:
                async for event in events:
                    if isinstance(event, Outcome):
                        told, missing = wire.metadata(event), event.receipt.failures
                        if last is not None:
                            async for piece in wire.texts(
                                wire.event(self._event, last, created, None if missing else told)
                            ):
                                yield piece
                        for place, failure in enumerate(missing, 1):
                            yield wire.failed_event(self._event, failure, told if place == len(missing) else None)
                        continue
                    left -= 1
                    if isinstance(event, Artefact) and left:
                        async for piece in wire.texts(wire.event(self._event, event, created)):
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


def _held_bytes(request: Request, limits: Limits) -> int:
    """How much memory the body will take at most: JSON is held and parsed, files of a form go to disk as they come."""
    declared = request.headers.get("content-length", "")
    is_json = request.headers.get("content-type", "").lower().startswith("application/json")
    most = limits.json_bytes if is_json else limits.body_bytes
    length = min(int(declared), most) if declared.isdecimal() and len(declared) < 21 else most
    return 3 * length if is_json else min(length, FORM_BYTES)


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
