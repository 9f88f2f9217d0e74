"""httpx2 on the gateway's own engine, as the composition root makes it."""

from __future__ import annotations

import ssl
from typing import Any

import httpx2

from app.http1 import Http1, Request
from app.transport import Client

TRUSTING_NOBODY = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # loading the system's roots takes 30 ms


def http_client(*, keep: int = 100, tls: ssl.SSLContext = TRUSTING_NOBODY, **more: Any) -> httpx2.AsyncClient:
    """A client that keeps so many idle connections."""
    settings = {"trust_env": False, "timeout": 30, **more}
    return Client(Http1(tls, keep=keep), **settings)


class Noting(Client):
    """A client that keeps every request it sends, whichever way."""

    def __init__(self, engine: Http1) -> None:
        super().__init__(engine, trust_env=False, timeout=30)
        self.sent: list[httpx2.Request] = []

    async def send(self, request: httpx2.Request, **more: Any) -> httpx2.Response:
        self.sent.append(request)
        return await super().send(request, **more)

    async def exchange(self, request: Request, **more: Any) -> Any:
        origin = request.origin
        url = f"{origin.scheme}://{origin.host}:{origin.port}{request.target.decode()}"
        self.sent.append(httpx2.Request(request.method.decode(), url, headers=list(request.headers)))
        return await super().exchange(request, **more)
