"""A server with OpenAI's images endpoints, as strict and as odd as the real ones are documented to be.

with OpenAIServer() as server:
    server.next = Answer(status=503, body={"error": {...}})
    ... point an adapter at server.url ...
    assert server.requests[0].fields["model"] == "gpt-image-1"

A real HTTP server in a thread. `check` may refuse what a certain server refuses.
"""

from __future__ import annotations

import asyncio
import base64
import io
import json
import socket
import threading
import time
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

import uvicorn
from PIL import Image
from starlette.applications import Starlette
from starlette.datastructures import UploadFile
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

KEY = "sk-openai-compatible-test-key"


def png(colour: str = "teal") -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (64, 48), colour).save(buffer, "PNG")
    return buffer.getvalue()


@dataclass(slots=True)
class Seen:
    """A request as the server read it: `fields` hold text, `files` what was sent as a file, by field name."""

    path: str
    query: str
    headers: Mapping[str, str]
    fields: dict[str, Any] = field(default_factory=dict)
    files: dict[str, list[bytes]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Answer:
    """What the server says instead of a picture. `drop`: nothing, the connection breaks."""

    status: int = 200
    body: Any = None
    headers: Mapping[str, str] = field(default_factory=dict)
    drop: bool = False
    text: str | None = None


class OpenAIServer:
    """Takes edits and generations at /v1/images/…; `jobs` counts those that it has begun."""

    def __init__(self, check: Callable[[Seen], Answer | None] = lambda seen: None, *, links: bool = False) -> None:
        self.requests: list[Seen] = []
        self.jobs = 0
        self.delay = 0.0
        self.next: Answer | None = None
        self.links = links
        self.fetched_with_key = 0
        self._check = check
        self._socket = socket.socket()
        self._socket.bind(("127.0.0.1", 0))
        self.port: int = self._socket.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}/v1"
        routes = [
            Route("/{prefix:path}/images/{kind}", self._images, methods=["POST"]),
            Route("/picture.png", self._picture),
        ]
        config = uvicorn.Config(
            Starlette(routes=routes), log_level="critical", lifespan="off", timeout_graceful_shutdown=1
        )
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, kwargs={"sockets": [self._socket]}, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        end = time.monotonic() + 10
        while not self._server.started:
            assert time.monotonic() < end, "the server did not start"
            time.sleep(0.005)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.delay = 0
        self._server.should_exit = True
        self._thread.join(10)
        self._socket.close()

    async def _images(self, request: Request) -> Response:
        seen = await _read(request)
        self.requests.append(seen)
        delay, self.delay = self.delay, 0.0
        end = time.monotonic() + delay
        while time.monotonic() < end and not await request.is_disconnected():
            await asyncio.sleep(0.02)
        refused = self._check(seen)
        answer, self.next = self.next, None
        answer = answer or refused
        if answer is not None and 400 <= answer.status < 500:
            return _response(answer)
        self.jobs += 1
        if answer is not None and answer.drop:
            return StreamingResponse(_breaking(), headers={"content-length": "1000"})
        if answer is not None:
            return _response(answer)
        count = int(seen.fields.get("n") or 1)
        if self.links or seen.fields.get("response_format") == "url":
            data = [{"url": f"http://127.0.0.1:{self.port}/picture.png"}] * count
        else:
            data = [{"b64_json": base64.b64encode(png()).decode()}] * count
        return JSONResponse({"created": 1764000000, "data": data})

    async def _picture(self, request: Request) -> Response:
        self.fetched_with_key += "authorization" in request.headers
        return Response(png(), media_type="image/png")


async def _read(request: Request) -> Seen:
    seen = Seen(request.url.path, request.url.query, dict(request.headers))
    if request.headers["content-type"].startswith("application/json"):
        seen.fields = json.loads(await request.body())
        return seen
    async with request.form() as found:
        for name, value in found.multi_items():
            if isinstance(value, UploadFile):
                seen.files.setdefault(name, []).append(await value.read())
            else:
                seen.fields[name] = value
    return seen


async def _breaking() -> AsyncIterator[bytes]:
    yield b"{"
    raise ConnectionError


def _response(answer: Answer) -> Response:
    if answer.text is not None:
        return Response(answer.text, answer.status, dict(answer.headers))
    return JSONResponse(answer.body, answer.status, dict(answer.headers))
