"""Fetching a picture: from a URL under the guard, or out of a data URI.

The client is `app.http1`: it has no cookie jar, follows no redirect, reads no proxy from the environment and decodes
nothing, so there is nothing of that to switch off. Connections to the world are dialled by `_Guarded`, which resolves,
judges and dials in one step: what was checked is what is connected to, once, whatever DNS says a moment later. TLS
still verifies the certificate against the URL's host, and connections are kept by host, so none that was verified for
one speaks for another (pinning by rewriting the URL to an address would). Origins that the operator named have
connections of their own, without the guard.
"""

from __future__ import annotations

import asyncio
import re
import ssl
from collections.abc import Awaitable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, aclosing
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import unquote_to_bytes, urljoin

import pybase64

from app.connection import Broken, Reply
from app.errors import GatewayError, ImageTooLarge, InvalidImage, InvalidImageUrl
from app.http1 import Dial, Http1, Make, Origin, Request, Unreached, UnreachedInTime, dial
from app.media.blob import Room, Spool
from app.media.netguard import Guard, SafeUrl, Unresolvable
from providers.base import Blob

MAX_REDIRECTS = 3
PARTS_AT_ONCE = 16
CONNECT_SECONDS = 5.0
_MAX_TRIED_ADDRESSES = 4
_KEEPALIVE_SECONDS = 15.0
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_TRANSIENT_STATUSES = frozenset({408, 425, 429})
_WHITE = b" \t\r\n\f"
_URL_SAFE = bytes.maketrans(b"-_", b"+/")
_HEADERS = ((b"Accept", b"image/*, */*;q=0.1"), (b"Accept-Encoding", b"identity"), (b"User-Agent", b"imagegate"))


class Reason(StrEnum):
    """Why a fetch failed."""

    BLOCKED = "blocked"  # the guard refused the URL, or one that it redirected to
    UNREACHABLE = "unreachable"  # no address, no connection, no TLS, or a connection that broke
    TIMEOUT = "timeout"
    TOO_LARGE = "too_large"
    STATUS = "status"  # anything but 200
    REDIRECTS = "redirects"  # too many, or a redirect that is none
    ENCODING = "encoding"  # compressed although identity was asked for


class FetchFailed(Exception):
    """Nothing was fetched. `message` may be shown to a caller, `detail` is for the log. `transient`: repeat it."""

    def __init__(
        self, reason: Reason, message: str, *, transient: bool = False, status: int | None = None, detail: str = ""
    ) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message
        self.transient = transient
        self.status = status
        self.detail = detail

    def for_caller(self, param: str | None = None) -> GatewayError:
        """What it means if the URL came from a caller."""
        error = ImageTooLarge if self.reason is Reason.TOO_LARGE else InvalidImageUrl
        return error(self.message, param=param, detail=self.detail)


@dataclass(frozen=True, slots=True)
class Downloaded:
    """A body, whole, its sha-256 in hex if that was wanted, and what its server calls it (claims can be wrong)."""

    blob: Blob
    digest: str = ""
    content_type: str | None = None


@dataclass(frozen=True, slots=True)
class _Portion:
    """How much of a picture is wanted: all of it, at most `size` bytes; or only its first `size` bytes."""

    size: int
    whole: bool = True
    digest: bool = False

    @property
    def headers(self) -> list[tuple[bytes, bytes]]:
        return [] if self.whole else [(b"Range", b"bytes=0-%d" % (self.size - 1))]

    @property
    def statuses(self) -> tuple[int, ...]:
        return (200,) if self.whole else (200, 206)


class Downloader:
    """Fetches URLs that its guard admits. Make one per process and guard; it pools connections; close it."""

    def __init__(
        self,
        guard: Guard,
        *,
        ssl_context: ssl.SSLContext | None = None,
        dial: Dial = dial,
        max_connections: int = 64,
        memory: int = 2 << 20,
        spool_dir: Path | None = None,
        room: Room | None = None,
    ) -> None:
        """`memory`: a picture of more bytes goes into a nameless file as it comes; without `room`, any does."""
        self._guard = guard
        self._new_spool = partial(Spool, memory, spool_dir, room=room)
        tls = ssl_context or ssl.create_default_context()
        self._world = Http1(tls, dial=_Guarded(guard, dial), keep_seconds=_KEEPALIVE_SECONDS, most=max_connections)
        self._trusted = Http1(tls, dial=dial, keep_seconds=_KEEPALIVE_SECONDS, most=max_connections)

    async def fetch(
        self,
        url: str,
        *,
        max_bytes: int,
        timeout: float,  # noqa: ASYNC109 - it is a promise
        digest: bool = False,
    ) -> Downloaded:
        """The picture at `url`, within `timeout` seconds from here to its last byte. Raises FetchFailed, and Overloaded
        if there is no room for it."""
        return await self._explained(self._follow(url, _Portion(max_bytes, digest=digest)), timeout)

    async def peek(self, url: str, *, size: int, timeout: float) -> bytes:  # noqa: ASYNC109
        """At least the first `size` bytes of the picture at `url`, or all of a smaller one. Raises FetchFailed."""
        return (await self._explained(self._follow(url, _Portion(size, whole=False)), timeout)).blob.read()

    async def _explained(self, fetching: Awaitable[Downloaded], seconds: float) -> Downloaded:
        """What it brings, or FetchFailed with the reason."""
        try:
            async with asyncio.timeout(seconds):
                return await fetching
        except TimeoutError:
            raise FetchFailed(
                Reason.TIMEOUT, f"The URL did not deliver a picture within {seconds:g} seconds.", transient=True
            ) from None
        except Unresolvable as error:
            raise FetchFailed(Reason.UNREACHABLE, error.message, transient=True, detail=error.detail) from None
        except InvalidImageUrl as error:
            raise FetchFailed(Reason.BLOCKED, error.message, detail=error.detail) from None
        except UnreachedInTime as error:
            raise FetchFailed(
                Reason.TIMEOUT, "The URL's server could not be reached in time.", transient=True, detail=str(error)
            ) from None
        except Unreached as error:
            raise FetchFailed(
                Reason.UNREACHABLE, "The URL's server could not be reached.", transient=True, detail=str(error)
            ) from None
        except (Broken, OSError) as error:
            raise FetchFailed(
                Reason.UNREACHABLE, "The URL's server broke off its answer.", transient=True, detail=str(error)
            ) from None

    async def _follow(self, url: str, portion: _Portion) -> Downloaded:
        here = self._guard.admit(url)
        for _ in range(MAX_REDIRECTS + 1):
            answer = await self._get(here, portion)
            if isinstance(answer, Downloaded):
                return answer
            here = self._admit_redirect(here, answer)
        raise FetchFailed(Reason.REDIRECTS, f"The URL redirects more than {MAX_REDIRECTS} times.")

    def _admit_redirect(self, here: SafeUrl, location: str) -> SafeUrl:
        if not re.fullmatch(r"[!-~]+", location):  # before urljoin, which drops tabs and line ends in silence
            raise FetchFailed(Reason.REDIRECTS, "The URL redirects to something that is no URL.")
        if not re.match(r"[A-Za-z][A-Za-z0-9+.-]*:", location):
            try:
                location = urljoin(str(here), location)
            except ValueError:
                raise FetchFailed(Reason.REDIRECTS, "The URL redirects to something that is no URL.") from None
        there = self._guard.admit(location)
        if here.scheme == "https" and there.scheme != "https":
            raise FetchFailed(Reason.BLOCKED, "The URL redirects from https to http.")
        if self._guard.trusts(there) and not self._guard.trusts(here):
            raise FetchFailed(
                Reason.BLOCKED,
                "The URL redirects to an address that is not public.",
                detail=f"{here.origin} -> {there.origin}",
            )
        return there

    async def _get(self, url: SafeUrl, portion: _Portion) -> Downloaded | str:
        """The body, or where it has moved to."""
        async with AsyncExitStack() as stack:
            try:
                response = await stack.enter_async_context(self._ask(url, portion))
            except Broken:
                # Most often a kept connection that the server has closed meanwhile. Ask once more, on another.
                response = await stack.enter_async_context(self._ask(url, portion))
            return await self._read(response, portion)

    async def _read(self, response: Reply, portion: _Portion) -> Downloaded | str:
        headers = {name.lower(): value.decode("latin-1").strip() for name, value in response.headers}
        if response.status in _REDIRECTS and b"location" in headers:
            return headers[b"location"]
        if response.status not in portion.statuses:
            raise FetchFailed(
                Reason.STATUS,
                f"The URL answered with status {response.status}.",
                transient=response.status in _TRANSIENT_STATUSES or response.status >= 500,
                status=response.status,
            )
        if headers.get(b"content-encoding", "identity").lower() not in ("identity", ""):
            raise FetchFailed(Reason.ENCODING, "The URL's server sends the picture compressed, though asked not to.")
        announced = headers.get(b"content-length", "")
        if portion.whole and announced.isdecimal() and int(announced) > portion.size:
            raise _too_large(portion.size)
        spool, parts = self._new_spool(digest=portion.digest), 0
        try:
            async with aclosing(response.chunks()) as chunks:
                async for part in chunks:
                    spool.write(part)
                    parts += 1
                    if not parts % PARTS_AT_ONCE:  # there can be many at hand, and nothing below may have to wait
                        await asyncio.sleep(0)
                    if not portion.whole and spool.size >= portion.size:
                        break
                    if spool.size > portion.size:
                        raise _too_large(portion.size)
                    await spool.drain()
        except BaseException:
            spool.discard()
            raise
        blob, digest = spool.finish()
        content_type = headers.get(b"content-type", "").partition(";")[0].strip().lower()
        return Downloaded(blob, digest, content_type or None)

    def _ask(self, url: SafeUrl, portion: _Portion) -> AbstractAsyncContextManager[Reply]:
        engine = self._trusted if self._guard.trusts(url) else self._world
        headers = ((b"Host", url.netloc.encode("ascii")), *_HEADERS, *portion.headers)
        asked = Request(b"GET", Origin(url.scheme, url.host, url.port), url.path.encode("ascii"), headers)
        return engine.stream(asked, connect_seconds=CONNECT_SECONDS)

    async def aclose(self) -> None:
        """Close all connections."""
        await self._world.aclose()
        await self._trusted.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()


class _Guarded:
    """Dials only addresses that the guard has just found public."""

    def __init__(self, guard: Guard, dial: Dial) -> None:
        self._guard = guard
        self._dial = dial

    async def __call__(self, make: Make, host: str, port: int, tls: ssl.SSLContext | None, name: str | None) -> None:
        addresses = (await self._guard.resolve(host, port))[:_MAX_TRIED_ADDRESSES]
        seconds = CONNECT_SECONDS / len(addresses)
        for address in addresses[:-1]:
            try:
                async with asyncio.timeout(seconds):
                    await self._dial(make, str(address), port, tls, name)
                return
            except OSError:  # a TimeoutError, too
                continue  # the next address: an IPv6 one is often listed where there is no IPv6 route
        await self._dial(make, str(addresses[-1]), port, tls, name)


def _too_large(max_bytes: int) -> FetchFailed:
    return FetchFailed(Reason.TOO_LARGE, f"The picture at the URL is larger than {max_bytes} bytes.")


def decode_data_uri(uri: str, *, max_bytes: int, param: str | None = None) -> tuple[bytes, str]:
    """Bytes and declared type of a `data:` URI (RFC 2397), base64 or percent-encoded."""
    head, comma, body = uri.partition(",")
    scheme, colon, declared = head.partition(":")
    if not comma or not colon or scheme.lower() != "data" or len(head) > 256:
        raise InvalidImageUrl("Not a data URI: data:<type>;base64,<data> is expected.", param=param)
    parameters = [parameter.strip().lower() for parameter in declared.split(";")]
    mime = parameters[0] or "text/plain"  # RFC 2397's default
    if parameters[-1] == "base64" and len(parameters) > 1:
        return decode_base64(body, max_bytes=max_bytes, param=param), mime
    if len(body) > 3 * max_bytes:
        raise _picture_too_large(max_bytes, param)
    try:
        return _checked(unquote_to_bytes(body.encode("ascii")), max_bytes, param), mime
    except UnicodeEncodeError:
        raise InvalidImage("The data URI holds characters that have to be percent-encoded.", param=param) from None


def decode_base64(text: str, *, max_bytes: int, param: str | None = None) -> bytes:
    """Base64 as people send it: line breaks, the URL-safe alphabet, escapes and missing padding are borne."""
    longest = -(-max_bytes // 3) * 4
    try:
        if len(text) <= longest:
            return _checked(pybase64.b64decode(text, validate=True), max_bytes, param)
    except ValueError:
        pass  # not the plain spelling: tidy it, at the price of some copies
    try:
        tidy = _tidy(text.encode("ascii"))
        if len(tidy) > longest:
            raise _picture_too_large(max_bytes, param)
        return _checked(pybase64.b64decode(tidy, validate=True), max_bytes, param)
    except ValueError:  # binascii.Error and UnicodeEncodeError are of this kind
        raise InvalidImage("The picture is not valid base64.", param=param) from None


def _tidy(encoded: bytes) -> bytes:
    if b"%" in encoded:
        encoded = unquote_to_bytes(encoded)
    encoded = encoded.translate(_URL_SAFE, _WHITE).rstrip(b"=")
    return encoded + b"=" * (-len(encoded) % 4)


def _checked(data: bytes, max_bytes: int, param: str | None) -> bytes:
    if not data:
        raise InvalidImage("The picture is empty.", param=param)
    if len(data) > max_bytes:
        raise _picture_too_large(max_bytes, param)
    return data


def _picture_too_large(max_bytes: int, param: str | None) -> ImageTooLarge:
    return ImageTooLarge(f"The picture is larger than {max_bytes} bytes.", param=param)
