"""One HTTP/1.1 connection to a server: requests out, answers in, one exchange at a time."""

from __future__ import annotations

import asyncio
import select
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterable, Callable, Sequence
from typing import Any

import httptools

HEAD_BYTES = 64 << 10  # of an answer; nobody has more to say of a picture
WINDOW = 1 << 20  # bytes of a body that wait for their reader before its sender is made to wait
_PIECE_COST = 1024  # what a piece counts beside its bytes
_SMALL = 64 << 10  # a body up to this goes out in one piece with its head


class HttpError(Exception):
    """The exchange failed."""


class Broken(HttpError):
    """The connection broke, or what came is no HTTP. The server may have had all of the request."""


class Reply:
    """An answer whose head is there. Its body is read once."""

    def __init__(self, connection: Connection, status: int, headers: Sequence[tuple[bytes, bytes]]) -> None:
        self.status = status
        self.headers = headers
        self._connection = connection

    def chunks(self) -> AsyncGenerator[bytes, None]:
        """The body in pieces, as they come. Raises Broken."""
        return self._connection.chunks()

    async def read(self, limit: int) -> bytes | None:
        """All of the body; None if it is longer than `limit` bytes: then it was read no further. Raises Broken."""
        return await self._connection.read(limit)


class Connection(asyncio.BufferedProtocol):
    """What asyncio calls when something happens, and what an exchange awaits."""

    def __init__(self, scratch: memoryview) -> None:
        """What comes is received into `scratch`, and copied from there before anything else can happen."""
        self._scratch = scratch
        self._transport: asyncio.Transport | None = None
        self._error: Exception | None = None
        self._poll = select.poll()
        self._timer: asyncio.TimerHandle | None = None
        self._gone: Callable[[], None] | None = None
        self._choked = False  # what was written is not taken
        self._begin()

    def _begin(self) -> None:
        """Forget the last exchange."""
        self._parser = httptools.HttpResponseParser(self)
        self._head: asyncio.Future[Reply] | None = None
        self._headers: list[tuple[bytes, bytes]] = []
        self._head_bytes = 0
        self._answered = False  # the answer's head is there
        self._complete = False  # and all of its body
        self._sent = False
        self._reusable = False
        self._ends_with_connection = False
        self._chunks: deque[bytes] = deque()
        self._coming: list[bytes] = []  # of the body, in what is being received
        self._queued = 0
        self._paused = False
        self._event: asyncio.Future[None] | None = None  # what the exchange waits for: bytes, room, or the end

    # ---- the exchange's side

    async def ask(self, head: bytes, body: bytes | AsyncIterable[bytes]) -> Reply:
        """Send a request; the answer, as soon as its head is there. Raises Broken."""
        self._begin()
        self._head = asyncio.get_running_loop().create_future()
        try:
            if isinstance(body, bytes) and len(body) <= _SMALL:
                self._write(head + body)
            elif isinstance(body, bytes):
                self._write(head)
                self._write(body)
            else:
                await self._write_all(head, body)
            self._sent = not self._head.done()
            return await self._head
        finally:
            self._head.cancel()

    async def chunks(self) -> AsyncGenerator[bytes, None]:
        """The body's pieces."""
        while True:
            while self._chunks:
                yield self._taken()
            self._read_on()
            if self._complete:
                return
            await self._something()

    async def read(self, limit: int) -> bytes | None:
        """The body, if it is not longer than that."""
        pieces: list[bytes] = []
        while True:
            while self._chunks:
                pieces.append(self._taken())
                limit -= len(pieces[-1])
                if limit < 0:
                    return None
            self._read_on()
            if self._complete:
                return pieces[0] if len(pieces) == 1 else b"".join(pieces)
            await self._something()

    def _taken(self) -> bytes:
        piece = self._chunks.popleft()
        self._queued -= len(piece) + _PIECE_COST
        return piece

    def _read_on(self) -> None:
        """All that came was taken. Also after the last piece: the connection may be used again."""
        if self._paused and self._transport is not None:
            self._paused = False
            self._transport.resume_reading()

    def is_reusable(self) -> bool:
        """Whether another exchange can follow: this one went well, to its end."""
        done = self._complete and self._sent and self._reusable and not self._paused
        return done and self._transport is not None and not self._transport.get_write_buffer_size()

    def is_quiet(self) -> bool:
        """Whether the server still listens and has said nothing unasked. Asked of the socket itself: what the event
        loop has not yet seen counts, or a paid request could go into a connection that is closed already."""
        return self._transport is not None and not self._transport.is_closing() and not self._poll.poll(0)

    def wait(self, seconds: float, gone: Callable[[], None]) -> None:
        """Nothing is asked for a while. `gone` is called after so long, or when the server closes it."""
        self._gone = gone
        self._head = None
        self._timer = asyncio.get_running_loop().call_later(seconds, gone)

    def stop_waiting(self) -> None:
        """It is needed again."""
        self._gone = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def close(self) -> None:
        """At once; what is on its way is lost."""
        self.stop_waiting()
        if self._transport is not None:
            self._transport.abort()

    def _write(self, data: bytes) -> None:
        if self._transport is None or self._error is not None:
            raise Broken(_named(self._error))
        self._transport.write(data)

    async def _write_all(self, start: bytes, body: AsyncIterable[bytes]) -> None:
        """The head and the body's pieces, as fast as they are taken; small ones together. An answer that comes before
        the end ends it: the rest is not wanted, and the connection is of no more use."""
        head = self._head
        assert head is not None
        waiting, size = [start], len(start)
        async for piece in body:
            if head.done():
                return
            waiting.append(piece)
            size += len(piece)
            if size < _SMALL:
                continue
            if self._poll.poll(0):  # a server that has answered and hung up: to write on would lose its answer
                await asyncio.sleep(0)
                await asyncio.sleep(0)
                if head.done():
                    return
            self._write(b"".join(waiting) if len(waiting) > 1 else piece)
            waiting, size = [], 0
            while self._choked and not head.done():
                await self._something()
        if waiting and not head.done():
            self._write(b"".join(waiting))

    async def _something(self) -> None:
        """Wait until something happens. Raises Broken if that is the end of the connection."""
        self._check()
        self._event = asyncio.get_running_loop().create_future()
        try:
            await self._event
        finally:
            self._event = None
        self._check()

    def _check(self) -> None:
        if self._error is not None and not self._complete:
            raise Broken(_named(self._error))

    # ---- asyncio's side

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Connected."""
        self._transport = transport  # type: ignore[assignment]  # a uvloop transport is no subclass
        self._poll.register(transport.get_extra_info("socket").fileno(), select.POLLIN)

    def connection_lost(self, exc: Exception | None) -> None:
        """Closed, by whomever."""
        self._transport = None
        if exc is None and self._answered and self._ends_with_connection:
            self._complete = True
        self._failed(exc or ConnectionResetError("the server closed the connection"))
        if self._gone is not None:
            self._gone()

    def pause_writing(self) -> None:
        """What was written is not taken."""
        self._choked = True

    def resume_writing(self) -> None:
        """It is again."""
        self._choked = False
        self._happened()

    def get_buffer(self, sizehint: int) -> memoryview:
        """Where to receive to."""
        return self._scratch

    def buffer_updated(self, nbytes: int) -> None:
        """Received."""
        if self._head is None or self._complete:  # nobody has asked
            gone = self._gone
            self.close()
            if gone is not None:
                gone()
            return
        try:
            self._parser.feed_data(self._scratch[:nbytes])
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            self._gathered()
            self._failed(error)
            self.close()
            return
        self._gathered()
        self._head_bytes += 0 if self._answered else nbytes
        if self._head_bytes > HEAD_BYTES:
            self._failed(ValueError(f"the answer's head is longer than {HEAD_BYTES} bytes"))
            self.close()

    def _failed(self, error: Exception) -> None:
        self._error = self._error or error
        if self._head is not None and not self._head.done():
            self._head.set_exception(Broken(_named(self._error)))
        self._happened()

    def _happened(self) -> None:
        if self._event is not None and not self._event.done():
            self._event.set_result(None)

    # ---- the parser's side

    def on_message_begin(self) -> None:
        """An answer begins, or one that nobody asked for follows it."""
        if self._complete:
            raise ValueError("an answer to nothing")

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header, or after the body a trailer."""
        if not self._answered:
            self._headers.append((name, value))

    def on_headers_complete(self) -> None:
        """The head is there; that of an interim answer (100 Continue …) does not count."""
        status = self._parser.get_status_code()
        if status < 200:
            return
        self._answered = True
        codings = [value.strip().lower() for name, value in self._headers if name.lower() == b"transfer-encoding"]
        if codings not in ([], [b"chunked"]):
            raise ValueError("a transfer coding that nobody asked for")
        chunked = bool(codings)
        names = {name.lower() for name, _ in self._headers}
        self._ends_with_connection = not chunked and b"content-length" not in names and status not in (204, 304)
        self._reusable = not self._ends_with_connection and self._parser.should_keep_alive()
        if self._head is not None and not self._head.done():
            self._head.set_result(Reply(self, status, self._headers))
        self._happened()

    def on_body(self, body: bytes) -> None:
        """Some of the body: all of what was received at once, or a chunk of it, which can be a single byte."""
        self._coming.append(body)

    def _gathered(self) -> None:
        """One piece of all that has come at once: a thousand small ones would take more memory than bytes."""
        if not self._coming:
            return
        piece = self._coming[0] if len(self._coming) == 1 else b"".join(self._coming)
        self._coming.clear()
        self._chunks.append(piece)
        self._queued += len(piece) + _PIECE_COST
        if self._queued > WINDOW and not self._paused and self._transport is not None:
            self._paused = True
            self._transport.pause_reading()
        self._happened()

    def on_message_complete(self) -> None:
        """The answer is complete, or an interim one was."""
        if not self._answered:
            self._headers = []
            return
        self._gathered()
        self._complete = True
        self._happened()


def _named(error: Any) -> str:
    return f"{type(error).__name__}: {error}"
