"""The upstream of every contender: fal's wires without fal's work, so that what is measured is the gateway.

    POST /run/{endpoint}          the synchronous call: output with an image URL on this server, or a data URI
    POST /queue/{endpoint}        request_id, status_url, response_url, cancel_url
    GET  …/requests/{id}/status   202 IN_QUEUE or IN_PROGRESS, 200 COMPLETED once --delay seconds have passed
    GET  …/requests/{id}          the output, with x-fal-billable-units
    PUT  …/requests/{id}/cancel   400 ALREADY_COMPLETED, or 202
    POST /rest/storage/upload/initiate   upload_url, file_url;  PUT /cdn/upload/{n} takes the bytes
    GET  /media/{name}.png, .jpg  one picture of --side pixels square (a megapixel), always the same
    GET  /books, POST /reset      what was submitted: calls, pictures, bytes

It is no stand-in to develop against (that is providers/fal_sandbox): it checks nothing and edits nothing. Bodies are
counted and dropped as they come; only their first and last 4 KB are looked at, for `num_images` and `sync_mode`.
Requests on one connection are answered in turn; a client must not pipeline behind a chunked body.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
from collections import OrderedDict
from dataclasses import dataclass, field

import httptools
import pybase64
import uvloop

from bench.pictures import SIDE, jpeg, photo, png

_BUFFER = 256 * 1024
_ENDS = 4096  # bytes of a body's beginning and end that are searched
_MOST_JOBS = 50_000
_NUM_IMAGES = re.compile(rb'"num_images"\s*:\s*(\d+)')
_SYNC_MODE = re.compile(rb'"sync_mode"\s*:\s*true')
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_CHUNKED = re.compile(rb"\r\ntransfer-encoding: *chunked", re.IGNORECASE)
_EXPECT = re.compile(rb"\r\nexpect: *100-continue", re.IGNORECASE)
_CLOSE = re.compile(rb"\r\nconnection: *close", re.IGNORECASE)
_IN_QUEUE_SHARE = 0.2  # of the delay
_REASON = {200: b"OK", 202: b"Accepted", 400: b"Bad Request", 404: b"Not Found"}


@dataclass(slots=True)
class Job:
    """One queued call."""

    path: str
    images: int
    sync: bool
    submitted: float


@dataclass(slots=True)
class Books:
    """What came in since the start, or since POST /reset."""

    submits: int = 0  # queue
    runs: int = 0  # synchronous
    images: int = 0  # asked for, by both
    bytes: int = 0  # of the bodies of both
    polls: int = 0
    results: int = 0
    cancels: int = 0
    uploads: int = 0
    upload_bytes: int = 0
    downloads: int = 0
    other: int = 0

    def show(self) -> bytes:
        """As JSON."""
        return json.dumps({name: getattr(self, name) for name in self.__slots__}).encode()


@dataclass(slots=True)
class Reply:
    """One answer; it is written after `delay` seconds."""

    body: bytes
    status: int = 200
    mime: bytes = b"application/json"
    headers: bytes = b""
    delay: float = 0.0

    def head(self) -> bytes:
        """Status line and headers."""
        return b"HTTP/1.1 %d %s\r\ncontent-type: %s\r\ncontent-length: %d\r\n%s\r\n" % (
            self.status,
            _REASON[self.status],
            self.mime,
            len(self.body),
            self.headers,
        )


_NOT_FOUND = Reply(b'{"detail":"Not Found"}', 404)


@dataclass(slots=True)
class Upstream:
    """All state of the server; `answer` is the whole routing."""

    base: str
    delay: float
    side: int = SIDE  # of the results
    now: float = 0.0
    books: Books = field(default_factory=Books)
    jobs: OrderedDict[str, Job] = field(default_factory=OrderedDict)
    media: dict[str, Reply] = field(default_factory=dict)
    data_uri: str = ""
    count: int = 0

    def paint(self) -> None:
        """Make the pictures, once."""
        picture = photo(self.side)
        as_png, as_jpeg = png(picture), jpeg(picture)
        self.media = {"png": Reply(as_png, mime=b"image/png"), "jpg": Reply(as_jpeg, mime=b"image/jpeg")}
        self.data_uri = "data:image/png;base64," + pybase64.b64encode(as_png).decode()

    def answer(self, method: str, path: str, ends: bytes, size: int) -> Reply:
        """The reply to one request; `ends` holds the first and the last of its body's `size` bytes."""
        kind, _, rest = path.lstrip("/").partition("/")
        if kind == "queue" and method == "POST":
            return self._submit(rest, ends, size)
        if kind == "queue":
            return self._queue(method, rest)
        if kind == "run" and method == "POST":
            self.books.runs += 1
            return self._output(*self._asked(ends, size), delay=self.delay)
        if kind == "media":
            self.books.downloads += 1
            return self.media.get(rest.rpartition(".")[2], _NOT_FOUND)
        if kind == "cdn" and method == "PUT":
            self.books.uploads += 1
            self.books.upload_bytes += size
            return Reply(b"", mime=b"text/plain")
        if path.startswith("/rest/storage/upload/initiate"):
            self.count += 1
            url = f"{self.base}/cdn/upload/{self.count}"
            return Reply(b'{"upload_url":"%s","file_url":"%s/media/in.png"}' % (url.encode(), self.base.encode()))
        if kind == "books":
            return Reply(self.books.show())
        if kind == "reset":
            self.books = Books()
            return Reply(b"{}")
        self.books.other += 1
        return Reply(b"{}") if kind == "health" else _NOT_FOUND

    def _asked(self, ends: bytes, size: int) -> tuple[int, bool]:
        found = _NUM_IMAGES.search(ends)
        images = min(int(found[1]), 16) if found else 1
        self.books.images += images
        self.books.bytes += size
        return images, _SYNC_MODE.search(ends) is not None

    def _submit(self, endpoint: str, ends: bytes, size: int) -> Reply:
        self.books.submits += 1
        self.count += 1
        images, sync = self._asked(ends, size)
        job = f"00000000-0000-4000-8000-{self.count:012d}"
        app = "/".join(endpoint.partition("?")[0].split("/")[:2])  # status and result leave sub-paths out, as fal does
        path = f"{app}/requests/{job}"
        self.jobs[job] = Job(path, images, sync, self.now)
        if len(self.jobs) > _MOST_JOBS:
            self.jobs.popitem(last=False)
        url = f"{self.base}/queue/{path}"
        return Reply(
            (
                f'{{"status":"IN_QUEUE","request_id":"{job}","response_url":"{url}","status_url":"{url}/status",'
                f'"cancel_url":"{url}/cancel","queue_position":0,"logs":null,"metrics":{{}}}}'
            ).encode()
        )

    def _queue(self, method: str, path: str) -> Reply:
        app, _, tail = path.partition("/requests/")
        name, _, verb = tail.partition("?")[0].partition("/")
        job = self.jobs.get(name)
        if job is None or not job.path.startswith(app):
            return Reply(b'{"status":"NOT_FOUND"}', 404)
        past = self.now - job.submitted
        if verb == "status":
            self.books.polls += 1
            if past >= self.delay:
                return Reply(b'{"status":"COMPLETED","logs":null,"metrics":{"inference_time":%.3f}}' % self.delay)
            if past < self.delay * _IN_QUEUE_SHARE:
                return Reply(b'{"status":"IN_QUEUE","queue_position":0}', 202)
            return Reply(b'{"status":"IN_PROGRESS","logs":null}', 202)
        if verb == "cancel" and method == "PUT":
            self.books.cancels += 1
            if past >= self.delay:
                return Reply(b'{"status":"ALREADY_COMPLETED"}', 400)
            return Reply(b'{"status":"CANCELLATION_REQUESTED"}', 202)
        if past < self.delay:
            return Reply(b'{"detail":"Request is still in progress"}', 400)
        self.books.results += 1
        return self._output(job.images, job.sync)

    def _output(self, images: int, sync: bool, delay: float = 0.0) -> Reply:
        url = self.data_uri if sync else f"{self.base}/media/out.png"
        one = f'{{"url":"{url}","width":{self.side},"height":{self.side},"content_type":"image/png"}}'
        flags = ",".join(["false"] * images)
        body = (
            f'{{"images":[{",".join([one] * images)}],"timings":{{"inference":{self.delay}}},"seed":2509,'
            f'"has_nsfw_concepts":[{flags}],"prompt":""}}'
        )
        # Billed by the megapixel; 1024x1024 is one of fal's.
        return Reply(body.encode(), headers=b"x-fal-billable-units: %d\r\n" % images, delay=delay)


class Connection(asyncio.BufferedProtocol):
    """One client's connection. The head is read by httptools; a body with a length is counted without touching it."""

    def __init__(self, upstream: Upstream, buffers: list[bytearray]) -> None:
        self._upstream = upstream
        self._loop = asyncio.get_running_loop()
        self._buffers = buffers
        self._buffer = buffers.pop() if buffers else bytearray(_BUFFER)
        self._start()

    def _start(self) -> None:
        self._head = b""
        self._url = b""
        self._method = ""
        self._close = False
        self._parser: httptools.HttpRequestParser | None = None  # only while a chunked body comes
        self._size = self._left = 0
        self._first = self._last = b""
        self._in_body = False

    # ---- asyncio's callbacks

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport: asyncio.Transport = transport  # type: ignore[assignment]

    def connection_lost(self, error: Exception | None) -> None:
        self._buffers.append(self._buffer)
        self._buffer = bytearray(0)

    def get_buffer(self, sizehint: int) -> bytearray:
        return self._buffer

    def buffer_updated(self, size: int) -> None:
        self._feed(memoryview(self._buffer)[:size])

    # ---- httptools' callbacks

    def on_url(self, url: bytes) -> None:
        self._url += url

    def on_body(self, piece: bytes) -> None:
        if self._parser is not None:  # chunked
            self._note(memoryview(piece))

    def on_message_complete(self) -> None:
        self._in_body = False

    # ---- steps of a request

    def _feed(self, data: memoryview) -> None:
        while data:
            if not self._in_body:
                data = self._read_head(data)
                if not self._in_body and self._head:
                    return  # more of the head must come
            elif self._parser is not None:
                self._parser.feed_data(data)
                data = data[len(data) :]
            else:
                here = data[: self._left]
                self._note(here)
                self._left -= len(here)
                data = data[len(here) :]
                self._in_body = self._left > 0
            if not self._in_body and self._method:
                self._finish()

    def _read_head(self, data: memoryview) -> memoryview:
        """Reads up to the end of the head; returns what follows it."""
        before = len(self._head)
        self._head += bytes(data[: 64 * 1024])
        end = self._head.find(b"\r\n\r\n")
        if end < 0:
            if len(self._head) > 64 * 1024:
                self._transport.abort()
            return data[len(data) :]
        head = self._head[: end + 4]
        self._head = b""
        parser = httptools.HttpRequestParser(self)
        try:
            parser.feed_data(head)
        except httptools.HttpParserError:
            self._transport.abort()
            return data[len(data) :]
        self._method = parser.get_method().decode()
        self._close = _CLOSE.search(head) is not None
        length = _LENGTH.search(head)
        self._left = int(length[1]) if length else 0
        if _CHUNKED.search(head):
            self._parser = parser
        self._in_body = self._left > 0 or self._parser is not None
        if self._in_body and _EXPECT.search(head):
            self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        return data[end + 4 - before :]

    def _note(self, piece: memoryview) -> None:
        self._size += len(piece)
        if len(self._first) < _ENDS:
            self._first += bytes(piece[: _ENDS - len(self._first)])
        if self._parser is not None or self._left - len(piece) < _ENDS:
            self._last = (self._last + bytes(piece[-_ENDS:]))[-_ENDS:]

    def _finish(self) -> None:
        self._upstream.now = self._loop.time()
        reply = self._upstream.answer(self._method, self._url.decode("latin-1"), self._first + self._last, self._size)
        close = self._close
        self._start()
        if reply.delay > 0:
            self._loop.call_later(reply.delay, self._write, reply, close)
        else:
            self._write(reply, close)

    def _write(self, reply: Reply, close: bool) -> None:
        if self._transport.is_closing():
            return
        self._transport.writelines([reply.head(), reply.body])
        if close:
            self._transport.close()


async def serve(port: int, delay: float, side: int = SIDE) -> None:
    """Until the process is told to end."""
    upstream = Upstream(f"http://127.0.0.1:{port}", delay, side)
    upstream.paint()
    buffers: list[bytearray] = []
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Connection(upstream, buffers), "127.0.0.1", port, backlog=512)
    async with server:
        await server.serve_forever()


def main() -> None:
    """`python -m bench.upstream --port 9010`."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--port", type=int, default=9010)
    parser.add_argument("--delay", type=float, default=0.0, help="seconds from submit to COMPLETED")
    parser.add_argument("--side", type=int, default=SIDE, help="of the results, in pixels")
    options = parser.parse_args()
    uvloop.run(serve(options.port, options.delay, options.side))


if __name__ == "__main__":
    main()
