"""httpx2 on the gateway's own engine, as the composition root makes it."""

from __future__ import annotations

import ssl
from typing import Any

import httpx2

from app.http1 import Http1
from app.transport import Transport

TRUSTING_NOBODY = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # loading the system's roots takes 30 ms


def http_client(*, keep: int = 100, tls: ssl.SSLContext = TRUSTING_NOBODY, **more: Any) -> httpx2.AsyncClient:
    """A client that keeps so many idle connections."""
    settings = {"trust_env": False, "timeout": 30, **more}
    return httpx2.AsyncClient(transport=Transport(Http1(tls, keep=keep)), **settings)
