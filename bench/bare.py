"""A tuned bare proxy: the least that a Python process can spend on `POST /v1/images/edits` in front of fal's `fal.run`.

It is the yardstick, not a product: no key, no validation, no limits, no journal, no retries, one model, and it trusts
its upstream. uvicorn with uvloop and httptools, a raw ASGI callable, python-multipart pushed into memory, SIMD base64,
JSON by splicing bytes, one keep-alive client.

    response_format=url        the upstream's URL is passed on
    response_format=b64_json   the picture is downloaded and spliced in
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import AsyncGenerator, Awaitable, Callable, MutableMapping
from typing import Any, Protocol

import pybase64
import uvicorn
from python_multipart.multipart import MultipartParser, parse_options_header

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

ENDPOINT = "fal-ai/qwen-image-edit-2509"
_JSON = [(b"content-type", b"application/json")]


class Client(Protocol):
    """What the proxy asks of an HTTP client."""

    async def post(self, url: str, body: list[bytes]) -> bytes:
        """Post JSON that lies in pieces; the answer's body."""

    def get(self, url: str) -> AsyncGenerator[bytes, None]:
        """First the length as digits, then the body as it comes."""


class ByHttpx2:
    """httpx2, what the gateway itself uses."""

    def __init__(self, key: str) -> None:
        import httpx2

        limits = httpx2.Limits(max_connections=64, max_keepalive_connections=64)
        self._client = httpx2.AsyncClient(limits=limits, timeout=60, trust_env=False)
        self._headers = {"authorization": f"Key {key}", "content-type": "application/json"}

    async def post(self, url: str, body: list[bytes]) -> bytes:
        headers = {**self._headers, "content-length": str(sum(map(len, body)))}
        answer = await self._client.post(url, content=_each(body), headers=headers)
        answer.raise_for_status()
        return answer.content

    async def get(self, url: str) -> AsyncGenerator[bytes, None]:
        async with self._client.stream("GET", url) as answer:
            answer.raise_for_status()
            yield answer.headers["content-length"].encode()
            async for piece in answer.aiter_raw():
                yield piece


class ByAiohttp:
    """aiohttp, whose parser is C."""

    def __init__(self, key: str) -> None:
        self._session: Any = None
        self._headers = {"authorization": f"Key {key}", "content-type": "application/json"}

    def _get_session(self) -> Any:
        if self._session is None:  # it wants a running loop
            import aiohttp

            self._session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=64), read_bufsize=1 << 20)
        return self._session

    async def post(self, url: str, body: list[bytes]) -> bytes:
        headers = {**self._headers, "content-length": str(sum(map(len, body)))}
        async with self._get_session().post(url, data=_each(body), headers=headers) as answer:
            answer.raise_for_status()
            return await answer.read()  # type: ignore[no-any-return]

    async def get(self, url: str) -> AsyncGenerator[bytes, None]:
        async with self._get_session().get(url) as answer:
            answer.raise_for_status()
            yield answer.headers["content-length"].encode()
            async for piece in answer.content.iter_any():
                yield piece


async def _each(pieces: list[bytes]) -> AsyncGenerator[bytes, None]:
    for piece in pieces:
        yield piece


CLIENTS: dict[str, Callable[[str], Client]] = {"httpx2": ByHttpx2, "aiohttp": ByAiohttp}


class Base64:
    """Base64 of bytes that come in pieces, each encoded as it comes: neither they nor the text are ever joined.

    Half of the CPU of a proxy that joins goes into page faults of its megabytes.
    """

    __slots__ = ("_rest", "pieces")

    def __init__(self) -> None:
        self.pieces: list[bytes] = []
        self._rest = b""

    def add(self, data: memoryview) -> None:
        if self._rest:
            need = 3 - len(self._rest)
            self._rest += bytes(data[:need])
            data = data[need:]
            if len(self._rest) < 3:
                return
            self.pieces.append(pybase64.b64encode(self._rest))
        whole = len(data) - len(data) % 3
        self.pieces.append(pybase64.b64encode(data[:whole]))
        self._rest = bytes(data[whole:])

    def end(self) -> list[bytes]:
        if self._rest:
            self.pieces.append(pybase64.b64encode(self._rest))
        return self.pieces


class Form:
    """Fields, and one file in base64."""

    __slots__ = ("_header", "_headers", "_is_file", "_name", "_text", "fields", "file", "mime")

    def __init__(self) -> None:
        self.fields: dict[str, str] = {}
        self.file = Base64()
        self.mime = b"image/png"
        self._headers: dict[bytes, bytes] = {}
        self._header = b""
        self._name = ""
        self._is_file = False
        self._text = b""

    def parser(self, content_type: bytes) -> MultipartParser:
        return MultipartParser(
            parse_options_header(content_type)[1][b"boundary"],
            {
                "on_part_begin": self._begin,
                "on_header_field": self._field,
                "on_header_value": self._value,
                "on_headers_finished": self._opened,
                "on_part_data": self._data,
                "on_part_end": self._end,
            },
        )

    def _begin(self) -> None:
        self._headers = {}
        self._text = b""

    def _field(self, data: bytes, start: int, end: int) -> None:
        self._header = data[start:end].lower()

    def _value(self, data: bytes, start: int, end: int) -> None:
        self._headers[self._header] = data[start:end]

    def _opened(self) -> None:
        options = parse_options_header(self._headers[b"content-disposition"])[1]
        self._name = options[b"name"].decode()
        self._is_file = b"filename" in options
        if self._is_file:
            self.mime = self._headers.get(b"content-type", self.mime)

    def _data(self, data: bytes, start: int, end: int) -> None:
        if self._is_file:
            self.file.add(memoryview(data)[start:end])
        else:
            self._text += data[start:end]

    def _end(self) -> None:
        if not self._is_file:
            self.fields[self._name] = self._text.decode()


class Proxy:
    """The ASGI application."""

    def __init__(self, run_url: str, client: Client) -> None:
        self._url = f"{run_url}/{ENDPOINT}"
        self._client = client

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            return
        if scope["method"] != "POST":
            await _answer(send, b"{}")
            return
        form = Form()
        parser = form.parser(next(value for name, value in scope["headers"] if name == b"content-type"))
        more = True
        while more:
            message = await receive()
            if body := message.get("body"):
                parser.write(body)
            more = message.get("more_body", False)
        prompt = json.dumps(form.fields.get("prompt", "")).encode()
        output = json.loads(
            await self._client.post(
                self._url,
                [b'{"prompt":%s,"image_urls":["data:%s;base64,' % (prompt, form.mime), *form.file.end(), b'"]}'],
            )
        )
        url = output["images"][0]["url"]
        if form.fields.get("response_format") != "b64_json":
            await _answer(send, b'{"created":0,"data":[{"url":"%s"}]}' % url.encode())
            return
        download = self._client.get(url)
        size = int(await anext(download))
        head, tail = b'{"created":0,"data":[{"b64_json":"', b'"}]}'
        await _start(send, len(head) + (size + 2) // 3 * 4 + len(tail))
        await _body(send, head)
        text = Base64()
        async for piece in download:
            text.add(memoryview(piece))
            for one in text.pieces:
                await _body(send, one)
            text.pieces.clear()
        await _body(send, b"".join([*text.end(), tail]), more=False)


async def _answer(send: Send, body: bytes) -> None:
    await _start(send, len(body))
    await _body(send, body, more=False)


async def _start(send: Send, length: int) -> None:
    headers = [*_JSON, (b"content-length", str(length).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})


async def _body(send: Send, piece: bytes, *, more: bool = True) -> None:
    await send({"type": "http.response.body", "body": piece, "more_body": more})


def main() -> None:
    """`FAL_RUN_URL=http://127.0.0.1:9010/run python -m bench.bare --port 9020`."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--port", type=int, default=9020)
    parser.add_argument("--client", choices=CLIENTS, default="httpx2")
    options = parser.parse_args()
    client = CLIENTS[options.client](os.environ.get("FAL_KEY", "bench:bench"))
    app = Proxy(os.environ["FAL_RUN_URL"].rstrip("/"), client)
    uvicorn.run(
        app,
        host="127.0.0.1",
        port=options.port,
        loop="uvloop",
        http="httptools",
        ws="none",
        lifespan="off",
        access_log=False,
        log_level="critical",
        server_header=False,
        date_header=False,
    )


if __name__ == "__main__":
    main()
