"""The sandbox's own routes under /sandbox: books, faults, the clock, health. No part of fal, and no key needed."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from .books import Books
from .faults import FAULTS, Script, UnknownFault
from .hosts import Keys
from .queue import Queue


@dataclass(slots=True)
class SandboxClock:
    """Epoch seconds of `base`, moved forward at will, so that an expiry need not be waited for."""

    base: Callable[[], float]
    ahead: float = 0.0

    def __call__(self) -> float:
        return self.base() + self.ahead


class Control:
    def __init__(
        self,
        script: Script,
        keys: Keys,
        books: Books,
        queue: Queue,
        clock: SandboxClock,
        reset: Callable[[], Awaitable[None]],
    ) -> None:
        self._script = script
        self._keys = keys
        self._books = books
        self._queue = queue
        self._clock = clock
        self._reset = reset

    def routes(self) -> list[Route]:
        return [
            Route("/sandbox/health", self.health, methods=["GET"]),
            Route("/sandbox/books", self.show_books, methods=["GET"]),
            Route("/sandbox/reset", self.start_over, methods=["POST"]),
            Route("/sandbox/clock", self.move_clock, methods=["POST"]),
            Route("/sandbox/keys", self.set_keys, methods=["PUT"]),
            Route("/sandbox/faults", self.list_faults, methods=["GET"]),
            Route("/sandbox/script", self.show_script, methods=["GET"]),
            Route("/sandbox/script", self.add_rules, methods=["POST"]),
            Route("/sandbox/script", self.clear_script, methods=["DELETE"]),
        ]

    async def health(self, request: Request) -> Response:
        return JSONResponse({"status": "ok", "sandbox": "fal"})

    async def show_books(self, request: Request) -> Response:
        return JSONResponse(self._books.show(self._queue))

    async def start_over(self, request: Request) -> Response:
        """Stops all jobs and forgets everything: books, files, uploads, faults, the moved clock."""
        await self._reset()
        return JSONResponse({"status": "reset"})

    async def move_clock(self, request: Request) -> Response:
        """`{"advance": 3600}` makes expiries come 3600 seconds sooner. Running times are not touched."""
        body = await _json(request)
        seconds = body.get("advance") if isinstance(body, dict) else None
        if not isinstance(seconds, int | float) or seconds < 0:
            return JSONResponse({"detail": '{"advance": seconds}, from 0'}, 400)
        self._clock.ahead += seconds
        return JSONResponse({"ahead": self._clock.ahead})

    async def set_keys(self, request: Request) -> Response:
        """`["id:secret"]`: the keys that the account has from now on; `[]`: every well-formed one is taken."""
        body = await _json(request)
        if not isinstance(body, list) or not all(isinstance(key, str) for key in body):
            return JSONResponse({"detail": '["id:secret", …]'}, 400)
        self._keys.good = frozenset(body)
        return JSONResponse({"keys": len(self._keys.good)})

    async def list_faults(self, request: Request) -> Response:
        return JSONResponse(
            [
                {"fault": str(fault), "line": what.line, "args": dict(what.arguments), "on": sorted(what.points)}
                for fault, what in FAULTS.items()
            ]
        )

    async def show_script(self, request: Request) -> Response:
        return JSONResponse(self._script.describe())

    async def add_rules(self, request: Request) -> Response:
        """A list of rules (or one rule), appended; all or none."""
        body = await _json(request)
        try:
            self._script.add(body if isinstance(body, list) else [body])
        except UnknownFault as error:
            return JSONResponse({"detail": str(error)}, 400)
        return JSONResponse(self._script.describe())

    async def clear_script(self, request: Request) -> Response:
        self._script.clear()
        return JSONResponse([])


async def _json(request: Request) -> Any:
    try:
        return json.loads(await request.body())
    except ValueError:
        return None
