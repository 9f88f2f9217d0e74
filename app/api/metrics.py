"""GET /metrics, for Prometheus: who may read it is told by its address or by a key of its own.

Numbers say what was spent and on which models: that is not for everybody who may have a picture edited, so callers' API
keys open nothing here.
"""

from __future__ import annotations

import asyncio
import hmac
import ipaddress
from collections.abc import Awaitable, Callable

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from app.config import MetricsSettings
from app.errors import InvalidApiKey

# Of a proxy in front of us the address is the proxy's, which is often this machine's: nobody comes past the key so.
_FORWARDED = ("forwarded", "x-forwarded-for", "x-real-ip", "via")


def metrics_router(
    refresh: Callable[[], Awaitable[None]], page: Callable[[str], tuple[bytes, str]], settings: MetricsSettings
) -> APIRouter:
    """`page(accept)` -> (body, content type), called in a thread after `refresh`."""
    router = APIRouter()
    networks = [ipaddress.ip_network(network) for network in settings.allow]
    key = settings.key.get_secret_value().strip()

    def check(request: Request) -> None:
        scheme, _, given = request.headers.get("authorization", "").partition(" ")
        if key and scheme.lower() == "bearer" and hmac.compare_digest(given.strip().encode(), key.encode()):
            return
        if not any(name in request.headers for name in _FORWARDED) and _is_in(request, networks):
            return
        raise InvalidApiKey(
            "Metrics are for addresses in metrics.allow, or with 'Authorization: Bearer' and metrics.key."
        )

    async def metrics(request: Request) -> Response:
        check(request)
        await refresh()
        body, kind = await asyncio.to_thread(page, request.headers.get("accept", ""))
        return Response(body, headers={"content-type": kind, "cache-control": "no-store"})

    router.add_api_route("/metrics", metrics, methods=["GET"], include_in_schema=False)
    return router


def _is_in(request: Request, networks: list[ipaddress.IPv4Network | ipaddress.IPv6Network]) -> bool:
    try:
        address = ipaddress.ip_address(request.client.host if request.client else "")
    except ValueError:
        return False
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    return any(address in network for network in networks)
