"""Who calls. Decided on headers alone, before a byte of the body is read, and never by a path: each route depends on
what it needs (`caller`, `buyer`, `admin`).

Every credential that does not hold is answered alike. An address that has brought ten of them within a minute is not
listened to until that is over, save for keys that it has used before: who sits behind the same proxy goes on.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
from collections import OrderedDict
from collections.abc import Iterable
from functools import lru_cache, partial
from urllib.parse import urlsplit

from starlette.requests import Request

from app.denials import AdminKeyRequired
from app.errors import InvalidApiKey, OriginNotAllowed, RateLimited
from app.keyring import KeyRing
from app.limits import Limiter, Rates
from app.types import Caller
from app.visits import current

OPEN = Caller("open", "anyone")
STATIC = Caller("static", "static key")
ADMIN = Caller("admin", "admin key", is_admin=True)

FAILURES_PER_MINUTE = 10
MOST_REMEMBERED = 10_000  # pairs of an address and a key that it has used


class Authenticator:
    """`Authorization: Bearer …`, or Azure's `api-key: …`. Where there is no key at all everybody is `OPEN`, save for
    pages of other origins in somebody's browser: a form needs no permission to be posted across origins, and would
    spend the operator's money. `origins` are those that may."""

    def __init__(
        self,
        api_key: str,
        admin_key: str,
        ring: KeyRing,
        rates: Rates,
        failures: Limiter,
        origins: Iterable[str] = (),
    ) -> None:
        """`api_key` and `admin_key`: those of the settings, empty if there is none."""
        self._origins = frozenset(origins)
        self._ring = ring
        self._rates = rates
        self._failures = failures
        self._used: OrderedDict[tuple[str, bytes], None] = OrderedDict()
        self.renew(api_key, admin_key)

    def renew(self, api_key: str, admin_key: str) -> None:
        """Other fixed keys from now on; empty: none."""
        self._fixed = [
            (_digest(key.strip()), who) for key, who in ((admin_key, ADMIN), (api_key, STATIC)) if key.strip()
        ]

    async def has_keys(self) -> bool:
        """Whether any key is in the database. Raises Overloaded."""
        return await self._ring.has_keys()

    async def caller(self, request: Request) -> Caller:
        """Whoever may call at all. Raises InvalidApiKey: the same answer for every wrong key, which is never repeated;
        RateLimited; OriginNotAllowed; Overloaded."""
        caller = await self._caller(request)
        if (visit := current.get()) is not None:
            visit.key_id = caller.key_id
        return caller

    async def _caller(self, request: Request) -> Caller:
        if not self._fixed and not await self._ring.has_keys():
            self._check_origin(request)
            return OPEN
        given = _given(request)
        if not given:
            raise _refusal()
        address, digest = _address(request), _digest(given[0])
        remembered = (address, digest) in self._used
        if not remembered:
            await self._check_failures(address, 0)
        caller = await self._find(digest) if len(given) == 1 else None
        if caller is None:
            await self._check_failures(address, 1)
            raise _refusal()
        self._used[address, digest] = None
        self._used.move_to_end((address, digest))
        if len(self._used) > MOST_REMEMBERED:
            self._used.popitem(last=False)
        if caller.requests_per_minute is not None or caller.images_per_minute is not None:
            request.state.limits = partial(self._rates.headers, caller)  # the middleware adds them to any answer
        return caller

    async def buyer(self, request: Request) -> Caller:
        """Who is about to ask for pictures: one request more of those that its key may make in a minute."""
        caller = await self.caller(request)
        await self._rates.take_request(caller)
        return caller

    async def admin(self, request: Request) -> Caller:
        """Who has the admin key. Raises AdminKeyRequired for everybody else who may call."""
        caller = await self.caller(request)
        if not caller.is_admin:
            raise AdminKeyRequired(
                "This needs the admin key (IMAGEGATE_ADMIN_KEY), and that is not what you sent. On the gateway's own "
                "machine, `imagegate keys` does the same."
            )
        return caller

    async def _find(self, digest: bytes) -> Caller | None:
        found = [who for known, who in self._fixed if hmac.compare_digest(known, digest)]
        return found[0] if found else await self._ring.caller(digest.hex())

    async def _check_failures(self, address: str, more: int) -> None:
        """Enter `more` failures; raises RateLimited if there are too many."""
        level = await self._failures.take(f"failures {address}", more, FAILURES_PER_MINUTE)
        if level.wait or (not more and not level.left):
            raise RateLimited(
                "Too many requests with a wrong API key came from your address.",
                retry_after=level.wait or level.reset,
                should_retry=False,
            )

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


def _refusal() -> InvalidApiKey:
    return InvalidApiKey("Incorrect or missing API key. Send it as 'Authorization: Bearer YOUR_KEY'.")


def _given(request: Request) -> list[str]:
    """The keys that the headers hold, each once. Other schemes than Bearer are somebody else's, such as a proxy's."""
    found: dict[str, None] = {}
    for value in request.headers.getlist("authorization"):
        scheme, _, key = value.strip().partition(" ")
        if scheme.lower() == "bearer" and key.strip():
            found[key.strip()] = None
    for value in request.headers.getlist("api-key"):
        if value.strip():
            found[value.strip()] = None
    return list(found)


def _address(request: Request) -> str:
    """Where it comes from; of IPv6 the network, since a customer has a whole one (RFC 6177)."""
    return _network(request.client.host if request.client else "")


@lru_cache(4096)
def _network(host: str) -> str:
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is None:
        return str(ipaddress.ip_network((address, 64), strict=False).network_address)
    return host


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()
