"""Who calls. Decided on headers alone, before a byte of the body is read."""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
from collections.abc import Iterable
from urllib.parse import urlsplit

from starlette.requests import Request

from app.errors import InvalidApiKey, OriginNotAllowed
from app.types import Caller
from app.visits import current

OPEN = Caller("open", "anyone")


class Authenticator:
    """`Authorization: Bearer …`, or Azure's `api-key: …`. Without any key configured everybody is `OPEN`, save for
    pages of other origins in somebody's browser: a form needs no permission to be posted across origins, and would
    spend the operator's money. `origins` are those that may."""

    def __init__(self, api_key: str, origins: Iterable[str] = ()) -> None:
        self._origins = frozenset(origins)
        self.renew(api_key)

    def renew(self, api_key: str) -> None:
        """Another static key from now on; empty: none."""
        self._digest = _digest(api_key.strip()) if api_key.strip() else None

    def caller(self, request: Request) -> Caller:
        """Raises InvalidApiKey: the same answer for every wrong key, which is never repeated."""
        caller = self._caller(request)
        if (visit := current.get()) is not None:
            visit.key_id = caller.key_id
        return caller

    def _caller(self, request: Request) -> Caller:
        if self._digest is None:
            self._check_origin(request)
            return OPEN
        given = _given(request)
        if not given:
            raise InvalidApiKey("You didn't provide an API key. Send it as 'Authorization: Bearer YOUR_KEY'.")
        if not hmac.compare_digest(_digest(given), self._digest):
            raise InvalidApiKey("Incorrect API key provided.")
        return Caller("static", "static key")

    def _check_origin(self, request: Request) -> None:
        origin = request.headers.get("origin")
        if origin is None or "*" in self._origins or origin in self._origins or _is_own_page(request, origin):
            return
        host = urlsplit(origin).hostname or ""
        if host != "localhost" and not host.startswith("127.") and host != "::1":
            raise OriginNotAllowed(
                "This gateway has no API key and takes no requests from pages of other origins. "
                "Name the origin in IMAGEGATE_CORS_ORIGINS."
            )


def _is_own_page(request: Request, origin: str) -> bool:
    """Whether a page of this very gateway calls. Browsers say so where the connection is safe; elsewhere an address
    that is no name must be the one that was called: a foreign name could be made to lead here (DNS rebinding)."""
    if request.headers.get("sec-fetch-site") == "same-origin":
        return True
    parts = urlsplit(origin)
    try:
        ipaddress.ip_address(parts.hostname or "")
    except ValueError:
        return False
    return parts.netloc == request.headers.get("host")


def _given(request: Request) -> str:
    scheme, _, key = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer" and key.strip():
        return key.strip()
    return request.headers.get("api-key", "").strip()


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()
