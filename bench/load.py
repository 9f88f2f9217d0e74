"""The load generator: the same prebuilt bytes over keep-alive connections, as many at once as asked for.

It runs in a process of its own, so that its CPU is nobody else's. An answer is read to its end and counted; of the
last one the body is kept, for whoever wants to look.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from urllib.parse import urlsplit

import httptools
import uvloop

BOUNDARY = b"imagegate-bench-2509"
_BUFFER = 256 * 1024


@dataclass(slots=True)
class Load:
    """What became of a run. Latencies in seconds, in the order in which the requests ended."""

    latencies: list[float] = field(default_factory=list)
    statuses: Counter[int] = field(default_factory=Counter)  # 0: the connection broke before the answer's end
    seconds: float = 0.0
    received: int = 0  # bytes of bodies
    last: bytes = b""

    def percentile(self, share: float) -> float:
        """`share` 0.5 is the median. Raises ValueError without a request."""
        ordered = sorted(self.latencies)
        if not ordered:
            raise ValueError("no request was answered")
        return ordered[min(len(ordered) - 1, int(share * len(ordered)))]

    def summary(self) -> dict[str, object]:
        """JSON-able."""
        return {
            "requests": sum(self.statuses.values()),
            "statuses": {str(status): count for status, count in sorted(self.statuses.items())},
            "seconds": round(self.seconds, 4),
            "per_second": round(sum(self.statuses.values()) / self.seconds, 2) if self.seconds else None,
            "p50_ms": round(1000 * self.percentile(0.5), 3) if self.latencies else None,
            "p95_ms": round(1000 * self.percentile(0.95), 3) if self.latencies else None,
            "max_ms": round(1000 * max(self.latencies), 3) if self.latencies else None,
            "received": self.received,
        }


class _Connection(asyncio.BufferedProtocol):
    """Sends one request at a time and reads its answer. `ended` is resolved with the status."""

    def __init__(self, load: Load) -> None:
        self._load = load
        self._buffer = bytearray(_BUFFER)
        self.transport: asyncio.Transport | None = None
        self._parser: httptools.HttpResponseParser | None = None
        self._body: list[bytes] = []
        self._status = 0
        self._ended: asyncio.Future[int] | None = None
        self._resume: asyncio.Event = asyncio.Event()
        self._resume.set()

    async def ask(self, request: Sequence[bytes]) -> int:
        """The status of the answer; 0 if the connection broke."""
        assert self.transport is not None
        self._parser = httptools.HttpResponseParser(self)
        self._body, self._status = [], 0
        self._ended = asyncio.get_running_loop().create_future()
        self.transport.writelines(request)
        return await self._ended

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]

    def connection_lost(self, error: Exception | None) -> None:
        self.transport = None
        self._end(0)

    def get_buffer(self, sizehint: int) -> bytearray:
        return self._buffer

    def buffer_updated(self, size: int) -> None:
        if self._parser is None:
            return
        try:
            self._parser.feed_data(memoryview(self._buffer)[:size])
        except httptools.HttpParserError:
            if self.transport is not None:
                self.transport.abort()

    def on_status(self, status: bytes) -> None:
        assert self._parser is not None
        self._status = self._parser.get_status_code()

    def on_body(self, piece: bytes) -> None:
        self._body.append(piece)
        self._load.received += len(piece)

    def on_message_complete(self) -> None:
        assert self._parser is not None
        status = self._parser.get_status_code()
        if status < 200:  # 100 Continue
            return
        if not self._parser.should_keep_alive() and self.transport is not None:
            self.transport.close()
            self.transport = None
        self._load.last = b"".join(self._body)
        self._end(status)

    def _end(self, status: int) -> None:
        if self._ended is not None and not self._ended.done():
            self._ended.set_result(status)


async def run(
    url: str,
    body: bytes,
    headers: Mapping[str, str],
    concurrency: int,
    count: int,
    *,
    method: str = "POST",
    seconds: float = 120.0,
) -> Load:
    """`count` requests, at most `concurrency` at once, none begun after `seconds`. One connection each, kept alive; a
    connection that the server closed is replaced. Raises OSError if it cannot connect."""
    load = Load()
    request = build(method, url, body, headers)
    began = time.perf_counter()
    left = iter(range(count))

    async def client() -> None:
        connection: _Connection | None = None
        for _ in left:
            if time.perf_counter() - began > seconds:
                return
            if connection is None or connection.transport is None:
                connection = await _connect(url, load)
            start = time.perf_counter()
            status = await connection.ask(request)
            load.latencies.append(time.perf_counter() - start)
            load.statuses[status] += 1
        if connection is not None and connection.transport is not None:
            connection.transport.close()

    await asyncio.gather(*(client() for _ in range(min(concurrency, count))))
    load.seconds = time.perf_counter() - began
    return load


async def _connect(url: str, load: Load) -> _Connection:
    parts = urlsplit(url)
    loop = asyncio.get_running_loop()
    _, connection = await loop.create_connection(lambda: _Connection(load), parts.hostname, parts.port or 80)
    return connection


def build(method: str, url: str, body: bytes, headers: Mapping[str, str]) -> list[bytes]:
    """The request as it goes over the wire: head and body."""
    parts = urlsplit(url)
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    lines = [f"{method} {target} HTTP/1.1", f"host: {parts.netloc}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    if body or method in ("POST", "PUT"):
        lines.append(f"content-length: {len(body)}")
    return ["\r\n".join([*lines, "", ""]).encode("latin-1"), body]


def multipart(
    fields: Mapping[str, str],
    picture: bytes,
    *,
    name: str = "image",
    file_name: str = "photo.png",
    mime: str = "image/png",
    more: Mapping[str, bytes] | None = None,
) -> tuple[bytes, dict[str, str]]:
    """(body, headers) of a form as the OpenAI SDK sends it: fields, then one file, and `more` of them by field."""
    parts = [
        b'--%s\r\nContent-Disposition: form-data; name="%s"\r\n\r\n%s\r\n' % (BOUNDARY, key.encode(), value.encode())
        for key, value in fields.items()
    ]
    for word, content in ((name, picture), *(more or {}).items()):
        parts.append(
            b'--%s\r\nContent-Disposition: form-data; name="%s"; filename="%s"\r\nContent-Type: %s\r\n\r\n'
            % (BOUNDARY, word.encode(), file_name.encode(), mime.encode())
        )
        parts += [content, b"\r\n"]
    body = b"".join([*parts, b"--%s--\r\n" % BOUNDARY])
    return body, {"content-type": f"multipart/form-data; boundary={BOUNDARY.decode()}"}


def median_ms(latencies: Sequence[float]) -> float:
    """In milliseconds."""
    return 1000 * statistics.median(latencies)


def main() -> None:
    """`python -m bench.load URL`: a 1.5 MB PNG as an image edit; prints one line of JSON."""
    from bench.pictures import photo, png

    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("url", nargs="?", default="")
    parser.add_argument("--stdin", action="store_true", help="one line of JSON (url, headers, …), then the body")
    parser.add_argument("--concurrency", type=int, default=8)
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=120.0)
    parser.add_argument("--model", default="qwen-image-edit-2509")
    parser.add_argument("--field", action="append", default=[], metavar="NAME=VALUE")
    parser.add_argument("--header", action="append", default=[], metavar="NAME=VALUE")
    parser.add_argument("--get", action="store_true", help="GET the URL instead")
    options = parser.parse_args()
    if options.stdin:
        job = json.loads(sys.stdin.buffer.readline())
        body = sys.stdin.buffer.read(job.pop("size"))
        _print(uvloop.run(run(body=body, **job)))
        return
    if not options.url:
        parser.error("which URL?")
    pairs = dict(item.split("=", 1) for item in options.field)
    fields = {"model": options.model, "prompt": "Make it autumn.", **pairs}
    body, headers = (b"", {}) if options.get else multipart(fields, png(photo()))
    headers |= dict(item.split("=", 1) for item in options.header)
    method = "GET" if options.get else "POST"
    _print(
        uvloop.run(
            run(options.url, body, headers, options.concurrency, options.count, method=method, seconds=options.seconds)
        )
    )


def _print(load: Load) -> None:
    sys.stdout.write(json.dumps(load.summary()) + "\n")


if __name__ == "__main__":
    main()
