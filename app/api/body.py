"""The bytes of a request, under limits: total size, time, and what came is a whole body or an error.

Nothing here buffers: chunks go to whoever iterates. `http.disconnect` is an exception of its own, since nobody is left
to answer.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from app.config import Limits
from app.errors import RequestTimeout, RequestTooLarge

MIB = 1 << 20


class ClientGone(Exception):
    """The client closed the connection."""


class Body:
    """One request's body. Iterate `chunks` once; `until_gone` afterwards tells when the client hangs up."""

    def __init__(self, receive: Any, declared: str | None, limits: Limits) -> None:
        self._receive = receive
        self.declared = int(declared) if declared and declared.isdecimal() and len(declared) < 21 else None
        self._limits = limits
        self.finished = False

    async def chunks(self, max_bytes: int) -> AsyncIterator[bytes]:
        """Raises RequestTooLarge at once if the header says so, or as soon as it shows; RequestTimeout; ClientGone."""
        if self.declared is not None and self.declared > max_bytes:
            raise _too_large(max_bytes)
        loop = asyncio.get_running_loop()
        began, received = loop.time(), 0
        while not self.finished:
            try:
                async with asyncio.timeout_at(began + self._limits.body_seconds + received / MIB):
                    message = await self._receive()
            except TimeoutError:
                raise RequestTimeout(
                    f"The request body came too slowly: {received} bytes in {loop.time() - began:.0f} s."
                ) from None
            if message["type"] == "http.disconnect":
                raise ClientGone
            chunk: bytes = message.get("body", b"")
            received += len(chunk)
            if received > max_bytes:
                raise _too_large(max_bytes)
            self.finished = not message.get("more_body", False)
            if chunk:
                yield chunk

    async def until_gone(self) -> None:
        """Returns when the client has hung up."""
        while (await self._receive())["type"] != "http.disconnect":
            pass


def _too_large(max_bytes: int) -> RequestTooLarge:
    return RequestTooLarge(f"The request body is larger than the limit of {max_bytes} bytes.")
