"""`GET /files/{key}`: stored pictures, by signed and expiring URL. No API key: who has the URL may look.

The answer is made to be harmless wherever it is opened (our own type, no sniffing, no script) and to be kept by a
browser no longer than the URL lives. One range at most: parts of a picture have no other use than to resume.
"""

from __future__ import annotations

import logging
import re
import time
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing

from fastapi import APIRouter, Request, Response
from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from app.errors import NotFound, Overloaded
from app.storage.base import Storage, StorageError, Stored

log = logging.getLogger("imagegate.files")

_RANGE = re.compile(r"bytes=[ \t]*([0-9]{0,18})-([0-9]{0,18})[ \t]*", re.ASCII | re.IGNORECASE)


def files_router(storage: Storage, clock: Callable[[], float] = time.time) -> APIRouter:
    """The route. It raises GatewayErrors; who renders them is not its business."""
    router = APIRouter()

    @router.api_route("/files/{key}", methods=["GET", "HEAD"], include_in_schema=False)
    async def serve(key: str, request: Request) -> Response:
        raw_path: bytes | None = request.scope.get("raw_path")
        if raw_path is not None and not raw_path.endswith(f"/{key}".encode()):
            raise NotFound("There is no such file.")  # an escaped spelling of a key is not the URL that was signed
        expires = storage.verify(key, request.scope["query_string"].decode("latin-1"))
        try:
            stored = await storage.open(key)
        except StorageError as error:
            raise _cannot_read(error) from error
        headers = _headers(stored, max_age=max(0, int(expires - clock())))

        if _lists(request.headers.get("if-none-match", ""), stored.etag):
            return Response(status_code=304, headers=headers)
        if request.method == "HEAD":
            return Response(headers={**headers, **_entity_headers(stored, stored.size)})
        asked = request.headers.get("range")
        if asked is None or request.headers.get("if-range", stored.etag) != stored.etag:
            asked = ""
        try:
            part = _read_range(asked, stored.size)
        except _Unsatisfiable:
            return Response(status_code=416, headers={**headers, "Content-Range": f"bytes */{stored.size}"})
        start, end = part or (0, stored.size)
        headers.update(_entity_headers(stored, end - start))
        if part is not None:
            headers["Content-Range"] = f"bytes {start}-{end - 1}/{stored.size}"
        chunks = stored.chunks(start, end)
        try:
            first = await anext(chunks, b"")
        except StorageError as error:
            raise _cannot_read(error) from error
        return _Chunks(first, chunks, status_code=206 if part else 200, headers=headers)

    return router


def _cannot_read(error: StorageError) -> Overloaded:
    return Overloaded("The picture cannot be read now.", detail=str(error))


class _Unsatisfiable(Exception):
    """A range that cannot be answered."""


def _headers(stored: Stored, max_age: int) -> dict[str, str]:
    return {
        "ETag": stored.etag,
        "Cache-Control": f"private, max-age={max_age}, immutable",
        "Accept-Ranges": "bytes",
        "X-Content-Type-Options": "nosniff",
        "Content-Security-Policy": "default-src 'none'; sandbox",
        "Cross-Origin-Resource-Policy": "cross-origin",
        "Access-Control-Allow-Origin": "*",
    }


def _entity_headers(stored: Stored, length: int) -> dict[str, str]:
    return {
        "Content-Type": stored.content_type,
        "Content-Length": str(length),
        "Content-Disposition": f'inline; filename="{stored.key}"',
    }


def _lists(if_none_match: str, etag: str) -> bool:
    """Whether If-None-Match names the ETag, by the weak comparison that RFC 9110 asks for here."""
    tags = (tag.strip().removeprefix("W/") for tag in if_none_match.split(","))
    return any(tag in (etag, "*") for tag in tags)


def _read_range(header: str, size: int) -> tuple[int, int] | None:
    """Start and end (exclusive) of the one range that is asked for; None: answer in full, as RFC 9110 has it for what
    is not understood. Raises _Unsatisfiable, also if more ranges than one are asked for."""
    if header.lower().startswith("bytes=") and "," in header:
        raise _Unsatisfiable
    match = _RANGE.fullmatch(header)
    if match is None or match[1] == match[2] == "":
        return None
    if match[1] == "":  # the last so many bytes
        start, end = max(0, size - int(match[2])), size
    else:
        start, end = int(match[1]), min(size, int(match[2]) + 1 if match[2] else size)
        if match[2] and int(match[2]) < start:
            return None  # not a range at all
    if start >= size:
        raise _Unsatisfiable
    return start, end


class _Chunks(StreamingResponse):
    """A streamed body whose first piece is at hand before the head goes out, so that a picture that cannot be read is
    an error and no cut-off 200; and whose source is closed as soon as the client leaves."""

    def __init__(
        self, first: bytes, rest: AsyncGenerator[bytes, None], status_code: int, headers: Mapping[str, str]
    ) -> None:
        self._rest = rest
        super().__init__(self._all(first), status_code, headers)

    async def _all(self, first: bytes) -> AsyncGenerator[bytes, None]:
        yield first
        async for chunk in self._rest:
            yield chunk

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with aclosing(self._rest):
            try:
                await super().__call__(scope, receive, send)
            except (StorageError, NotFound) as error:
                # The server cuts an answer that does not end, so nobody takes half a picture for a whole one.
                log.warning("a picture broke off: %s", error)
