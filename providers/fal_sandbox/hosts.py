"""What the routes of all four hosts share: who asks, from where, with which body."""

from __future__ import annotations

import re
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from starlette.requests import Request
from starlette.responses import Response

from .queue import Origins
from .replies import Reply, malformed_key
from .wire import FAL_HOSTS, response

EVERY_METHOD: Final = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]
_KEY = re.compile(r"Key [^\s:]+:[^\s:]+", re.IGNORECASE)
_KEPT_HEADERS = re.compile(r"x-fal-|x-app-fal-|user-agent$|content-type$")
_FAL = Origins("https://queue.fal.run", "https://fal.run", "https://rest.fal.ai", "https://v3.fal.media")


@dataclass(slots=True)
class Keys:
    """The account's keys, `id:secret`; empty: every well-formed one is taken."""

    good: frozenset[str] = frozenset()

    def refuse(self, request: Request) -> bool:
        """Whether the request's key is none of the account's."""
        return bool(self.good) and request.headers.get("authorization", "").strip().partition(" ")[2] not in self.good


class BodyTooLarge(Exception):
    """The request body is over the limit; it was not read to its end."""


def origins(request: Request) -> Origins:
    """fal's hosts under the scheme and name that this client used; its own names if it used one of those."""
    if (request.url.hostname or "") in FAL_HOSTS:
        return _FAL
    base = str(request.base_url).rstrip("/")
    return Origins(f"{base}/queue", f"{base}/run", f"{base}/rest", f"{base}/cdn")


def refusal(request: Request) -> Reply | None:
    """None for a well-formed `Authorization: Key id:secret`. Every key is good; a fault makes one bad."""
    return None if _KEY.fullmatch(request.headers.get("authorization", "").strip()) else malformed_key()


async def body_of(request: Request, limit: int) -> bytes:
    """The whole body. Raises BodyTooLarge after `limit` bytes."""
    chunks = bytearray()
    async for chunk in request.stream():
        chunks += chunk
        if len(chunks) > limit:
            raise BodyTooLarge
    return bytes(chunks)


def kept_headers(request: Request) -> Mapping[str, str]:
    return {name: value for name, value in request.headers.items() if _KEPT_HEADERS.match(name)}


def say(reply: Reply, request_id: str | None = None, *, bodiless: bool = False) -> Response:
    """An answer of fal's own servers, which all carry x-fal-request-id."""
    headers = {"x-fal-request-id": request_id or str(uuid.uuid4()), **reply.headers}
    return response(Reply(reply.status, b"" if bodiless else reply.content, headers, reply.content_type))
