"""The one renderer of errors: always OpenAI's envelope, always application/json, whatever went wrong."""

from __future__ import annotations

import json
import logging
import math

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from app.errors import GatewayError, InternalError, InvalidRequest, MethodNotAllowed, NotFound

log = logging.getLogger("imagegate.api")


def envelope(error: GatewayError) -> bytes:
    """`{"error": {"message", "type", "param", "code"}}`."""
    body = {"message": error.message, "type": error.type, "param": error.param, "code": error.code}
    return json.dumps({"error": body}, ensure_ascii=False).encode("utf-8", "replace")


def render(error: GatewayError) -> Response:
    """The answer for an error."""
    headers = {}
    if error.retry_after is not None:
        headers["retry-after"] = str(math.ceil(error.retry_after))
    if error.should_retry is not None:
        headers["x-should-retry"] = "true" if error.should_retry else "false"
    if error.status >= 500:
        log.error("%s %s: %s (%s)", error.status, error.code, error.message, error.detail)
    return Response(envelope(error), error.status, headers, media_type="application/json")


def install(app: FastAPI) -> None:
    """Everything that FastAPI and Starlette would answer in their own shape, in ours."""

    async def ours(request: Request, error: Exception) -> Response:
        assert isinstance(error, GatewayError)
        return render(error)

    async def http(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        path = f"{request.method} {request.url.path[:200]}"
        match error.status_code:
            case 404:
                rendered = render(NotFound(f"Invalid URL ({path})."))
            case 405:
                rendered = render(MethodNotAllowed(f"Not allowed: {path}."))
            case status if status < 500:
                rendered = render(InvalidRequest(str(error.detail)))
            case _:
                rendered = render(InternalError("The gateway failed.", detail=str(error.detail)))
        rendered.headers.update(error.headers or {})
        return rendered

    async def validation(request: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        first = error.errors()[0]
        where = [str(part) for part in first["loc"] if part not in ("body", "query", "path")]
        return render(InvalidRequest(str(first["msg"]), param=where[0] if where else None))

    app.add_exception_handler(GatewayError, ours)
    app.add_exception_handler(HTTPException, http)
    app.add_exception_handler(RequestValidationError, validation)
