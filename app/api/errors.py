"""The one renderer of errors: always OpenAI's envelope, always application/json, whatever went wrong."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Awaitable, Callable

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from app.errors import GatewayError, InternalError, InvalidRequest, MethodNotAllowed, NotFound, bare
from app.visits import current

log = logging.getLogger("imagegate.api")

RETRY_SECONDS = 1.0  # when to come back to us if nothing better is known


def envelope(error: GatewayError) -> bytes:
    """`{"error": {"message", "type", "param", "code"}}`."""
    body = {"message": error.message, "type": error.type, "param": error.param, "code": error.code}
    return json.dumps({"error": body}, ensure_ascii=False).encode("utf-8", "replace")


def render(error: GatewayError, request_id: str) -> Response:
    """The answer for an error. What is not the caller's fault goes into the log."""
    headers = {}
    if (visit := current.get()) is not None:
        visit.error_code = error.code
    retry_after = error.retry_after
    if retry_after is None and error.status in (429, 503) and error.should_retry is not False:
        retry_after = RETRY_SECONDS
    if retry_after is not None:
        headers["retry-after"] = str(math.ceil(retry_after))
    if error.cost is not None:
        headers["x-imagegate-cost"] = f"{error.cost.normalize():f}"
    if error.replayed:
        headers["idempotency-replayed"] = "true"
    if error.should_retry is not None:
        headers["x-should-retry"] = "true" if error.should_retry else "false"
    if error.status >= 500:
        log.error("%s: %s %s: %s (%r)", request_id, error.status, error.code, error.message, error.detail)
    elif error.detail:
        log.info("%s: %s %s: %s (%r)", request_id, error.status, error.code, error.message, error.detail)
    return Response(envelope(bare(error)), error.status, headers, media_type="application/json")


def install(app: FastAPI, nowhere: Callable[[Request], Awaitable[Response | None]] | None = None) -> None:
    """Everything that FastAPI and Starlette would answer in their own shape, in ours. `nowhere`: the page for a person
    who asks for what is not there."""

    async def ours(request: Request, error: Exception) -> Response:
        assert isinstance(error, GatewayError)
        answer = render(error, _id(request))
        if request.headers.get("user-agent", "").startswith("OpenAI/JS 4."):
            # It repeats a form without its body, and then waits for ever (captured with openai-node 4.104).
            answer.headers["x-should-retry"] = "false"
        return answer

    async def http(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        path = f"{request.method} {request.scope['path'][:200]}"
        answer: GatewayError
        match error.status_code:
            case 404:
                if nowhere is not None and (page := await nowhere(request)) is not None:
                    return page
                answer = NotFound(f"Invalid URL ({path}).")
            case 405:
                answer = MethodNotAllowed(f"Not allowed: {path}.")
            case status if status < 500:
                answer = InvalidRequest(str(error.detail))
            case _:
                answer = InternalError("The gateway failed.", detail=str(error.detail))
        rendered = render(answer, _id(request))
        rendered.headers.update(error.headers or {})
        return rendered

    async def validation(request: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        first = error.errors()[0]
        where = [str(part) for part in first["loc"] if part not in ("body", "query", "path")]
        return render(InvalidRequest(str(first["msg"]), param=where[0] if where else None), _id(request))

    app.add_exception_handler(GatewayError, ours)
    app.add_exception_handler(HTTPException, http)
    app.add_exception_handler(RequestValidationError, validation)


def _id(request: Request) -> str:
    return str(getattr(request.state, "request_id", "-"))
