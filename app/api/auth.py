"""Who calls. Decided on headers alone, before a byte of the body is read."""

from __future__ import annotations

import hashlib
import hmac

from starlette.requests import Request

from app.errors import InvalidApiKey
from app.types import Caller

OPEN = Caller("open", "anyone")


class Authenticator:
    """`Authorization: Bearer …`, or Azure's `api-key: …`. Without any key configured everybody is `OPEN`."""

    def __init__(self, api_key: str) -> None:
        self._digest = _digest(api_key.strip()) if api_key.strip() else None

    def caller(self, request: Request) -> Caller:
        """Raises InvalidApiKey: the same answer for every wrong key, which is never repeated."""
        if self._digest is None:
            return OPEN
        given = _given(request)
        if not given:
            raise InvalidApiKey("You didn't provide an API key. Send it as 'Authorization: Bearer YOUR_KEY'.")
        if not hmac.compare_digest(_digest(given), self._digest):
            raise InvalidApiKey("Incorrect API key provided.")
        return Caller("static", "static key")


def _given(request: Request) -> str:
    scheme, _, key = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer" and key.strip():
        return key.strip()
    return request.headers.get("api-key", "").strip()


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()
