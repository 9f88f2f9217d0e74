"""What adapters share: prepared JSON bodies with pictures spliced in, uploads that happen once, capped reading of
answers, transport errors as ProviderErrors.

The interface is httpx2's, the maintained continuation of httpx. HTTP/1.1 throughout: HTTP/2 costs 4-7 times as much for
big bodies (November 2026). Bodies are prepared bytes, or come in pieces: `json=` with a 2 MB data URI takes 11-16 ms.
"""

from __future__ import annotations

import asyncio
import json
import secrets
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar, cast
from weakref import WeakKeyDictionary

import httpx2
import pybase64
from pydantic_core import from_json

from providers.base import Blob, Fault, Media, ProviderError

CONTROL_LIMIT = 1 << 20  # bytes of a status or submit answer
CONNECT_SECONDS = 5.0
_PIECE = 192 << 10  # bytes of a picture that are encoded at a time; a multiple of three

# Raised before the first byte of a request is sent, by the gateway's own engine (app/http1) and by httpx2's.
_UNREACHED = (
    httpx2.ConnectError,
    httpx2.ConnectTimeout,
    httpx2.PoolTimeout,
    httpx2.ProxyError,
    httpx2.UnsupportedProtocol,
)

T = TypeVar("T")


class TooLarge(ProviderError):
    """An answer over the limit. It was read no further, and is not asked for again: it would be as large."""

    def __init__(self, asked: str, limit: int) -> None:
        super().__init__(
            Fault.MALFORMED, "The provider's answer is too large.", detail=f"{asked}: over {limit} bytes", final=True
        )


@dataclass(frozen=True, slots=True)
class Answer:
    """A provider's answer, read whole under a cap. `asked` is the request as a log may show it."""

    asked: str
    status: int
    raw_headers: Sequence[tuple[bytes, bytes]] = field(repr=False)
    body: bytes = field(repr=False)

    @property
    def headers(self) -> httpx2.Headers:
        """The headers, by name in any case. Most answers are never asked for one, so they are read here."""
        return httpx2.Headers(list(self.raw_headers))

    def json(self) -> Any:
        """The body as JSON, None if it is none."""
        try:
            return from_json(self.body)
        except ValueError:
            return None

    def lax_json(self) -> Any:
        """The same, but half a surrogate pair or a NaN in it does no harm. Its texts must not be shown or stored."""
        try:
            return json.loads(self.body)
        except (ValueError, RecursionError):
            return None


class Quick(Protocol):
    """What a client may offer beside httpx2's interface: a way past its objects for a request and an answer, which cost
    three times as much as the exchange itself. The gateway's own client does (`app.transport`)."""

    def plain(self, method: str, url: str, headers: Mapping[str, str], content: Any) -> Any | None:
        """A request for `exchange`; None for one that has to go httpx2's way. Raises ValueError as `build_request`."""

    async def exchange(
        self, request: Any, *, connect_seconds: float, limit: int
    ) -> tuple[int, Sequence[tuple[bytes, bytes]], bytes | None]:
        """Status, headers and body; None for a body over `limit` bytes. Raises what `send` of httpx2 does."""


async def send(
    client: httpx2.AsyncClient,
    method: str,
    url: str,
    *,
    seconds: float,
    headers: Mapping[str, str] | None = None,
    content: Any = None,
    limit: int = CONTROL_LIMIT,
) -> Answer:
    """One request within `seconds` as a whole, not per read. Redirects are not followed, cookies not returned.

    Raises ProviderError: UNAVAILABLE with `accepted=False` when the request cannot have reached the server: no
    connection, no TLS, no tunnel through a proxy, none free in the pool. Anything later leaves it open, also a
    connection that broke while the body was sent: the server may have had all of it. TIMEOUT; MALFORMED for a URL that
    cannot be used; TooLarge for a body over `limit` bytes.
    """
    asked = f"{method} {_loggable(url)}"
    # Connecting has a limit of its own: a server that cannot be reached must not look like one that was too slow to
    # answer, for then a job might exist. It holds three times in a row (a place in the pool, TCP, TLS), which together
    # stay under the whole.
    connecting = min(CONNECT_SECONDS, seconds / 4)
    # not compressed: an answer is then never larger than what was read of it
    headers = {"Accept-Encoding": "identity", **(headers or {})}
    quick: Quick | None = cast(Quick, client) if hasattr(client, "exchange") else None
    try:
        plain = None if quick is None else quick.plain(method, url, headers, content)
        request = None
        if plain is None:
            timeout = httpx2.Timeout(seconds, connect=connecting, pool=connecting)
            request = client.build_request(method, url, headers=headers, content=content, timeout=timeout)
            request.headers.pop("Cookie", None)
    except (httpx2.InvalidURL, ValueError) as error:
        raise ProviderError(
            Fault.MALFORMED,
            "The provider's address cannot be used.",
            detail=f"{asked}: {type(error).__name__}",
            accepted=False,
            final=True,
        ) from None
    try:
        async with asyncio.timeout(seconds):
            if quick is not None and plain is not None:
                status, found, body = await quick.exchange(plain, connect_seconds=connecting, limit=limit)
            else:
                assert request is not None
                status, found, body = await _exchange(client, request, limit)
    except _UNREACHED as error:
        raise ProviderError(
            Fault.UNAVAILABLE, "The provider could not be reached.", detail=f"{asked}: {_named(error)}", accepted=False
        ) from None
    except (TimeoutError, httpx2.TimeoutException):
        raise ProviderError(
            Fault.TIMEOUT, "The provider did not answer in time.", detail=f"{asked}: no answer in {seconds:g} s"
        ) from None
    # OSError: what the engine lets through, such as an ssl.SSLError in the middle of an answer
    except (httpx2.HTTPError, httpx2.StreamError, httpx2.InvalidURL, OSError, ValueError) as error:
        raise ProviderError(
            Fault.UNAVAILABLE, "The connection to the provider broke.", detail=f"{asked}: {_named(error)}"
        ) from None
    if body is None:
        raise TooLarge(asked, limit)
    return Answer(asked, status, found, body)


async def _exchange(
    client: httpx2.AsyncClient, request: httpx2.Request, limit: int
) -> tuple[int, Sequence[tuple[bytes, bytes]], bytes | None]:
    """The same through any client of httpx2."""
    response = await client.send(request, stream=True, follow_redirects=False)
    body = bytearray()
    try:
        async for chunk in response.aiter_bytes():
            body += chunk
            if len(body) > limit:
                return response.status_code, response.headers.raw, None
    finally:
        await response.aclose()
    return response.status_code, response.headers.raw, bytes(body)


def _named(error: Exception) -> str:
    """An exception for the log. A LocalProtocolError quotes the header that it dislikes: that may be the key."""
    return type(error).__name__ if isinstance(error, httpx2.LocalProtocolError) else f"{type(error).__name__}: {error}"


def _loggable(url: str) -> str:
    """Without what may be secret: the query (signatures), user and password."""
    scheme, mark, rest = url.partition("?")[0].partition("://")
    host, slash, path = rest.partition("/")
    return f"{scheme}{mark}{host.rpartition('@')[2]}{slash}{path}"


async def together(*work: Coroutine[Any, Any, T]) -> list[T]:
    """All at once. The first failure, or a cancellation, ends the others before it is raised."""
    tasks = [asyncio.create_task(one) for one in work]
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@dataclass(frozen=True, slots=True)
class Body:
    """A request's body: bytes, and pictures that become data URIs as they are sent. It is never in memory as a whole:
    that costs more than encoding it. May be sent more than once."""

    parts: tuple[bytes | Media, ...]

    @property
    def length(self) -> int:
        """In bytes."""
        return sum(map(_length, self.parts))

    @property
    def content(self) -> Any:
        """What httpx2 sends."""
        whole = all(isinstance(part, bytes) for part in self.parts)
        return b"".join(part for part in self.parts if isinstance(part, bytes)) if whole else self

    async def __aiter__(self) -> AsyncGenerator[bytes, None]:
        """Raises ProviderError if a picture cannot be read: then what was sent is no request."""
        for part in self.parts:
            if isinstance(part, bytes):
                yield part
                continue
            yield _data_uri(part)
            try:
                async for text in _base64(part.blob):
                    yield text
            except (OSError, ValueError) as error:
                raise _unreadable(error) from None


def _data_uri(media: Media) -> bytes:
    return b"data:%s;base64," % media.mime.encode()


def _length(part: bytes | Media) -> int:
    return len(part) if isinstance(part, bytes) else len(_data_uri(part)) + -(-part.size // 3) * 4


async def _base64(blob: Blob) -> AsyncGenerator[bytes, None]:
    """A blob as base64, in pieces that stay in the processor's cache and need no fresh memory."""
    left = b""
    async for chunk in blob.chunks():
        data = memoryview(left + chunk if left else chunk)
        whole = len(data) - len(data) % 3
        for start in range(0, whole, _PIECE):
            yield pybase64.b64encode(data[start : min(start + _PIECE, whole)])
        left = bytes(data[whole:])
    if left:
        yield pybase64.b64encode(left)


def json_body(payload: Any, urls: Mapping[Media, bytes]) -> Body:
    """`payload` as JSON, each Media in it replaced by its URL (ASCII that needs no escapes), or by a data URI if it has
    none.

    Pictures are spliced in between the pieces instead of running through an encoder: 2.4 MB cost 0.1 ms, not 11.
    Raises ProviderError for what JSON cannot carry: NaN, half a surrogate pair.
    """
    mark = secrets.token_hex(16)
    found: list[Media] = []

    try:
        frame = json.dumps(
            _stood_in(payload, mark, found), ensure_ascii=False, separators=(",", ":"), allow_nan=False
        ).encode()
    except ValueError as error:
        raise ProviderError(
            Fault.INVALID,
            "A value of the request cannot be written as JSON.",
            detail=type(error).__name__,  # its text quotes the value
            accepted=False,
        ) from None
    first, *others = frame.split(mark.encode())
    body: list[bytes | Media] = [first]
    for media, piece in zip(found, others, strict=True):
        body += (urls.get(media, media), piece)
    return Body(tuple(body))


def _stood_in(value: Any, mark: str, found: list[Media]) -> Any:
    """The value with `mark` in the place of each picture; those are added to `found`."""
    if isinstance(value, Media):
        found.append(value)
        return mark
    if isinstance(value, Mapping):
        return {key: _stood_in(item, mark, found) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_stood_in(item, mark, found) for item in value]
    return value


def media_in(payload: Any) -> Iterator[Media]:
    """Every picture in a payload, each once."""
    found: list[Media] = []
    _stood_in(payload, "", found)
    yield from dict.fromkeys(found)


async def pieces(media: Media) -> AsyncGenerator[bytes, None]:
    """The picture's bytes, for the body of an upload."""
    try:
        async for piece in media.blob.chunks():
            yield piece
    except (OSError, ValueError) as error:
        raise _unreadable(error) from None


def _unreadable(error: Exception) -> ProviderError:
    """Our own disk failed, or the request is over: nothing was sent, and the next try would fail alike."""
    return ProviderError(
        Fault.UNAVAILABLE,
        "A picture of the request could not be sent to the provider.",
        detail=f"the spooled picture cannot be read: {error!r}",
        accepted=False,
        final=True,
    )


@dataclass(slots=True, eq=False)
class _Making:
    task: asyncio.Task[bytes]
    waiting: int = 0


class OncePerMedia:
    """Remembers what was made of a picture for as long as the picture lives, however many jobs it feeds.

    Callers that come while the first is at work wait for it; it goes on until none of them waits any more. A failure is
    not remembered.
    """

    def __init__(self, make: Callable[[Media], Coroutine[Any, Any, bytes]]) -> None:
        self._make = make
        self._made: WeakKeyDictionary[Media, bytes] = WeakKeyDictionary()
        self._making: dict[Media, _Making] = {}

    async def get(self, media: Media) -> bytes:
        """The one result for this picture. Raises what making it raised."""
        if (made := self._made.get(media)) is not None:
            return made
        work = self._making.get(media)
        if work is None or work.task.done():
            work = self._making[media] = _Making(asyncio.create_task(self._run(media)))
        work.waiting += 1
        try:
            # One job's cancellation must not take the upload from the others.
            return await asyncio.shield(work.task)
        finally:
            work.waiting -= 1
            if work.waiting == 0:
                if self._making.get(media) is work:
                    del self._making[media]
                if not work.task.done():
                    work.task.cancel()
                    await asyncio.gather(work.task, return_exceptions=True)

    async def _run(self, media: Media) -> bytes:
        made = self._made[media] = await self._make(media)
        return made


def retry_after(headers: httpx2.Headers) -> float | None:
    """The Retry-After header in seconds, None if absent or a date."""
    try:
        seconds = float(headers.get("retry-after", ""))
    except ValueError:
        return None
    return seconds if 0 <= seconds < 86_400 else None


def origin(url: str) -> str:
    """Scheme, host and port as the HTTP client itself will read them; empty for what it would not take, or with a user
    in it."""
    try:
        parts = httpx2.URL(url)
    except (httpx2.InvalidURL, ValueError):
        return ""
    usable = parts.scheme in ("http", "https") and parts.host and not parts.userinfo
    return f"{parts.scheme}://{parts.netloc.decode()}" if usable else ""


def split_origins(text: str) -> frozenset[str]:
    """`http://127.0.0.1:9000, https://cdn.example` -> the origins, lower case, without a trailing slash."""
    return frozenset(part.strip().rstrip("/").lower() for part in text.split(",") if part.strip())
