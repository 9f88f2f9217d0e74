"""rest.fal.ai and v3.fal.media: upload tickets, upload tokens, and files.

Routes A, B and C of fal's clients (PY fal-client 1.0.3, JS @fal-ai/client 1.10.1); multipart uploads above 90 MB are
left out.
"""

from __future__ import annotations

import json
import re
import secrets
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, TypeVar
from urllib.parse import quote

from starlette.requests import Request
from starlette.responses import Response

from .books import Books
from .faults import Point, Strike
from .files import Access, FileStore, StoredFile
from .hosts import BodyTooLarge, body_of, origins, refusal, say
from .interference import Interference
from .model import lifecycle
from .options import Options
from .replies import Reply, as_json, plain
from .wire import response

T = TypeVar("T")

_TICKET_SECONDS = 3600
_TOKEN_SECONDS = 3600
_MOST_GRANTS = 5_000
_STORAGE_TYPES = ("gcs", "fal-cdn-v3")


@dataclass(frozen=True, slots=True)
class Ticket:
    """The right to put one file, once or again, without a key."""

    path: str
    content_type: str
    expires_at: float
    file_expires_at: float | None
    access: Access


class Storage:
    def __init__(
        self, interference: Interference, files: FileStore, books: Books, options: Options, clock: Callable[[], float]
    ) -> None:
        self._interference = interference
        self._files = files
        self._books = books
        self._options = options
        self._clock = clock
        self._tickets: OrderedDict[str, Ticket] = OrderedDict()
        self._tokens: OrderedDict[str, float] = OrderedDict()

    def clear(self) -> None:
        self._tickets.clear()
        self._tokens.clear()

    # --- rest.fal.ai

    async def initiate(self, request: Request) -> Response:
        """POST /storage/upload/initiate?storage_type=... {file_name, content_type} -> {upload_url, file_url}."""

        async def handled(_: tuple[Strike, ...]) -> Response:
            if (refused := refusal(request)) is not None:
                return say(refused)
            if request.query_params.get("storage_type", "gcs") not in _STORAGE_TYPES:
                return say(plain(400, f"storage_type must be one of {', '.join(_STORAGE_TYPES)}"))
            body = await self._json(request)
            content_type, name = body.get("content_type"), body.get("file_name")
            if not isinstance(content_type, str) or not isinstance(name, str):
                missing = [key for key in ("file_name", "content_type") if not isinstance(body.get(key), str)]
                entries = [{"loc": ["body", key], "msg": "Field required", "type": "missing"} for key in missing]
                return say(as_json({"detail": entries}, 422))
            expires_at, access = lifecycle(request.headers, self._clock())
            ticket = Ticket(_path(name), content_type, self._clock() + _TICKET_SECONDS, expires_at, access)
            secret = secrets.token_urlsafe(24)
            _remember(self._tickets, secret, ticket)
            cdn = origins(request).cdn
            return say(as_json({"upload_url": f"{cdn}/upload/{secret}", "file_url": cdn + ticket.path}))

        return await self._interference.around(Point.INITIATE, None, request, handled)

    async def token(self, request: Request) -> Response:
        """POST /storage/auth/token?storage_type=fal-cdn-v3 {} -> {token, token_type, base_url, expires_at}."""

        async def handled(_: tuple[Strike, ...]) -> Response:
            if (refused := refusal(request)) is not None:
                return say(refused)
            token = secrets.token_urlsafe(24)
            expires_at = self._clock() + _TOKEN_SECONDS
            _remember(self._tokens, token, expires_at)
            return say(
                as_json(
                    {
                        "token": token,
                        "token_type": "Bearer",
                        "base_url": origins(request).cdn,
                        "expires_at": datetime.fromtimestamp(expires_at, UTC).isoformat(),
                    }
                )
            )

        return await self._interference.around(Point.INITIATE, None, request, handled)

    # --- v3.fal.media

    async def put(self, request: Request) -> Response:
        """PUT upload_url: the bytes, with the announced Content-Type, without a key."""

        async def handled(_: tuple[Strike, ...]) -> Response:
            # a leak, but no refusal: fal's own client sends its key along here (PY fal-client 1.0.3, repository "fal")
            self._leaks(request)
            ticket = self._tickets.get(request.path_params["secret"])
            if ticket is None or ticket.expires_at <= self._clock():
                return _bare(plain(404, "Upload not found"))
            if request.headers.get("content-type") != ticket.content_type:
                # as Google's storage says it: the type is a part of what was signed
                text = "<?xml version='1.0' encoding='UTF-8'?><Error><Code>SignatureDoesNotMatch</Code></Error>"
                return _bare(Reply(403, text.encode(), content_type="application/xml"))
            return await self._store(request, ticket) or _bare(Reply(200, b"", content_type="text/plain"))

        return await self._interference.around(Point.PUT, None, request, handled)

    async def upload(self, request: Request) -> Response:
        """POST /files/upload: the bytes with a Bearer token -> {access_url}."""

        async def handled(_: tuple[Strike, ...]) -> Response:
            if self._leaks(request) or not self._owner(request):
                return _bare(plain(401, "Unauthorized"))
            expires_at, access = lifecycle(request.headers, self._clock())
            content_type = request.headers.get("content-type", "application/octet-stream")
            path = _path(request.headers.get("x-fal-file-name", "upload.bin"))
            ticket = Ticket(path, content_type, self._clock(), expires_at, access)
            refused = await self._store(request, ticket)
            return refused or _bare(as_json({"access_url": origins(request).cdn + path}))

        return await self._interference.around(Point.PUT, None, request, handled)

    async def download(self, request: Request) -> Response:
        """GET or HEAD of a file. Public, but for what its lifecycle forbids or hides."""

        async def handled(_: tuple[Strike, ...]) -> Response:
            if self._leaks(request):
                return _bare(plain(401, "Unauthorized"))
            file = self._files.get("/files/" + quote(request.path_params["path"]))
            if file is None or (file.access is Access.HIDE and not self._owner(request)):
                return _bare(plain(404, "Not Found"))
            if file.access is Access.FORBID and not self._owner(request):
                return _bare(plain(403, "Forbidden"))
            if request.method == "GET":
                self._books.traffic.cdn_downloads += 1
            headers = {"Cache-Control": "public, max-age=31536000, immutable"}
            return _bare(Reply(200, file.data, headers, file.content_type))

        return await self._interference.around(Point.CDN, None, request, handled)

    # --- both

    async def _store(self, request: Request, ticket: Ticket) -> Response | None:
        try:
            data = await body_of(request, self._options.max_body_bytes)
        except BodyTooLarge:
            return _bare(plain(413, "Request Entity Too Large"))
        self._files.put(ticket.path, StoredFile(data, ticket.content_type, ticket.file_expires_at, ticket.access))
        self._books.traffic.uploads += 1
        self._books.traffic.upload_bytes += len(data)
        return None

    def _leaks(self, request: Request) -> bool:
        """A fal key at a public media host is the one thing a client must never do; the books count it."""
        leaked = request.headers.get("authorization", "").lower().startswith("key ")
        self._books.traffic.key_leaks += leaked
        return leaked

    def _owner(self, request: Request) -> bool:
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        return scheme.lower() == "bearer" and self._tokens.get(token.strip(), 0.0) > self._clock()

    async def _json(self, request: Request) -> dict[str, Any]:
        try:
            body = json.loads(await body_of(request, 1_000_000))
        except (ValueError, RecursionError, BodyTooLarge):
            return {}
        return body if isinstance(body, dict) else {}


def _bare(reply: Reply) -> Response:
    """The CDN's answers: no x-fal-request-id."""
    return response(reply)


def _path(file_name: str) -> str:
    """A path that nobody guesses and that ends in what the client called the file, made safe."""
    tail = re.sub(r"[^A-Za-z0-9._-]", "_", file_name.rpartition("/")[2])[-80:] or "upload.bin"
    return f"/files/sandbox/{secrets.token_urlsafe(16)}_{tail}"


def _remember(grants: OrderedDict[str, T], secret: str, grant: T) -> None:
    grants[secret] = grant
    while len(grants) > _MOST_GRANTS:
        grants.popitem(last=False)
