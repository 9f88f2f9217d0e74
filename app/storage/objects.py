"""Pictures in a bucket, and in a directory beside it for as long as the bucket cannot take them.

A picture that was bought must not be lost because a bucket is down: what it does not take after a few attempts is
written to a local store under the same key (the spool), read from there, and sent later. While the bucket is known to
be in trouble nobody waits for it. Streams are not sent as they come, since they cannot be sent twice: a short one is
gathered in memory, a long one goes through the spool.

    <prefix>/<expiry's hour>/<key>      as in a directory, see `keys`

Gateways on several machines share a bucket, but not their spools: a spooled picture is served by the one that has it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from app.errors import NotFound
from app.storage.base import StorageError, Stored
from app.storage.bucket import SIGNED_SECONDS, Bucket, BucketUnusable
from app.storage.keys import HOUR, SignedStorage, etag_of, expiry_of, is_due, new_key, place_of, type_of
from app.storage.local import LocalStorage

GATHER_BYTES = 8 << 20  # a longer stream goes through the spool
RETRY_SECONDS = 5.0  # between attempts to send what is spooled
SCAN_SECONDS = 60.0  # between looks for what another process left
_FOREVER_SECONDS = 365 * 86_400  # caches keep what never expires

log = logging.getLogger(__name__)


class ObjectStorage(SignedStorage):
    """A `Storage` in a bucket. `start` it to have the spool emptied."""

    def __init__(
        self,
        bucket: Bucket,
        spool: LocalStorage,
        secrets: Sequence[bytes],
        clock: Callable[[], float],
        skew_seconds: float = 60,
        *,
        presigned: bool = False,
        retry_seconds: float = RETRY_SECONDS,
    ) -> None:
        """`presigned`: links lead to the bucket itself, not to the gateway."""
        super().__init__(secrets, clock, skew_seconds)
        self._bucket = bucket
        self._spool = spool
        self._presigned = presigned
        self._retry_seconds = retry_seconds
        self._trouble: str | None = None
        self._spooled: set[str] = set()
        self._sending: set[str] = set()
        self._forgotten: set[str] = set()  # deleted while they are being sent
        self._wake = asyncio.Event()
        self._sender: asyncio.Task[None] | None = None

    async def check(self) -> None:
        """All that the gateway will do with the bucket, done once. Raises BucketUnusable, or StorageError if the bucket
        is merely down."""
        place = place_of(new_key("image/png", "png", self._clock() + 3600))
        await self._bucket.folders()
        await self._bucket.put(place, b"", {"Content-Type": "image/png"})
        await self._bucket.delete([place])
        if self._presigned:
            try:
                await self._bucket.sign(place, 60)
            except StorageError as error:
                raise BucketUnusable(f"these credentials can sign no URL: {error}") from None

    async def start(self) -> None:
        """Begin to send what is spooled, now and for as long as the gateway runs."""
        self._spooled.update(await asyncio.to_thread(self._spool.keys))
        self._sender = asyncio.create_task(self._send_forever())

    async def close(self) -> None:
        """Stop; what is left is sent after the next start."""
        if self._sender is not None:
            self._sender.cancel()
            await asyncio.gather(self._sender, return_exceptions=True)

    async def put(
        self, data: bytes | AsyncIterator[bytes], *, content_type: str, extension: str, expires_at: float | None
    ) -> str:
        """Keep a picture, whole or not at all; its key."""
        key = new_key(content_type, extension, expires_at)
        whole, rest = (data, None) if isinstance(data, bytes) else await _gathered(data)
        if rest is not None:
            await self._spool.keep(key, rest)
            self._spooled.add(key)
            if self._trouble is not None or not await self._send_spooled(key):
                self._wake.set()
        elif self._trouble is not None or not await self._sent(key, whole):
            await self._spool.keep(key, whole)
            self._spooled.add(key)
            self._wake.set()
        return key

    async def open(self, key: str) -> Stored:
        """The picture, if it is there and has not expired."""
        expires = self._alive(key)
        place = place_of(key)
        if key in self._spooled:
            with contextlib.suppress(NotFound):  # it has just been sent
                return await self._spool.open(key)
        try:
            size = await self._bucket.size(place)
        except (NotFound, StorageError) as error:
            with contextlib.suppress(NotFound):  # another process may have spooled it
                return await self._spool.open(key)
            raise error
        return Stored(
            key=key,
            size=size,
            content_type=type_of(key),
            expires_at=expires,
            etag=etag_of(key),
            chunks=partial(self._bucket.read, place),
        )

    async def link(self, key: str, expires_at: float, base_url: str) -> str:
        """The URL by which anybody may read it until then: the bucket's own, if that is wanted and can be."""
        seconds = expires_at - self._clock()
        if self._presigned and 0 < seconds <= SIGNED_SECONDS and not await self._is_spooled(key):
            try:
                return await self._bucket.sign(place_of(key), seconds)
            except StorageError as error:
                log.warning("a picture's link leads to the gateway instead of the bucket: %s", error)
        return base_url + self.sign(key, expires_at)

    async def delete(self, key: str) -> None:
        """Forget a picture."""
        place = place_of(key)
        if key in self._sending:
            self._forgotten.add(key)
        if await self._is_spooled(key):
            await self._spool.delete(key)
            self._spooled.discard(key)
        else:
            await self._bucket.delete([place])

    async def delete_expired(self, now: float) -> int:
        """Forget what expired before `now`; how many pictures that were. Only folders of hours that are due are
        listed."""
        deleted = await self._spool.delete_expired(now)
        due = now - self._skew
        for folder in await self._bucket.folders():
            if not HOUR.fullmatch(folder) or int(folder, 16) * 3600 >= due:
                continue
            places: list[str] = []  # all of them before the first is deleted: pages shift otherwise
            async for page in self._bucket.places(folder):
                places += [place for place in page if is_due(place.rpartition("/")[2], due)]
            await self._bucket.delete(places)
            deleted += len(places)
        return deleted

    def free_bytes(self) -> int:
        """The spool's room: what is bought can be kept even if the bucket fails at that moment."""
        return self._spool.free_bytes()

    def trouble(self) -> str | None:
        """Why the bucket takes no pictures at the moment."""
        return self._trouble

    async def _is_spooled(self, key: str) -> bool:
        return key in self._spooled or await asyncio.to_thread(self._spool.path(key).exists)

    # ---- sending

    async def _sent(self, key: str, data: bytes | Path) -> bool:
        """Whether the bucket has taken it."""
        try:
            await self._bucket.put(place_of(key), data, self._headers(key))
        except StorageError as error:
            if self._trouble is None:
                log.warning("pictures are kept on this machine until the bucket takes them: %s", error)
            self._trouble = str(error)
            return False
        if self._trouble is not None:
            log.info("the bucket takes pictures again")
        self._trouble = None
        return True

    def _headers(self, key: str) -> dict[str, Any]:
        """What makes a picture harmless and cacheable also where the bucket itself serves it."""
        expires = expiry_of(key)
        seconds = _FOREVER_SECONDS if expires is None else max(0, int(expires - self._clock()))
        return {
            "Content-Type": type_of(key),
            "Content-Disposition": f'inline; filename="{key}"',
            "Cache-Control": f"private, max-age={seconds}, immutable",
        }

    async def _send_spooled(self, key: str) -> bool:
        """Send one from the spool, and take it out."""
        self._sending.add(key)
        try:
            path = self._spool.path(key)
            if not await self._sent(key, path):
                return False
            await self._spool.delete(key)
            self._spooled.discard(key)
            if key in self._forgotten:
                await self._bucket.delete([place_of(key)])
        except (FileNotFoundError, NotFound):  # deleted, or sent by another process
            self._spooled.discard(key)
        except StorageError as error:
            log.warning("a picture stays in the spool: %s", error)
            return False
        finally:
            self._sending.discard(key)
            self._forgotten.discard(key)
        return True

    async def _send_forever(self) -> None:
        while True:
            self._wake.clear()
            try:
                left = await self._send_all()
            except Exception:
                log.exception("spooled pictures could not be sent")
                left = True
            if left:
                await asyncio.sleep(self._retry_seconds)
            else:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._wake.wait(), SCAN_SECONDS)

    async def _send_all(self) -> bool:
        """Send what is spooled, the oldest expiry first; whether something is left to do."""
        keys = sorted(await asyncio.to_thread(self._spool.keys))
        self._spooled = set(keys) | (self._spooled & self._sending)
        failed = 0
        for key in keys:
            if key not in self._sending and not await self._send_spooled(key):
                failed += 1
                if failed == 3:  # it is the bucket, not a picture
                    break
        if not keys and self._trouble is not None:  # what was spooled is gone: nothing else would try the bucket
            try:
                await self.check()
                self._trouble = None
            except StorageError as error:
                self._trouble = str(error)
        return failed > 0 or self._trouble is not None


async def _gathered(chunks: AsyncIterator[bytes]) -> tuple[bytes, AsyncGenerator[bytes, None] | None]:
    """A short stream whole; of a long one, all of it again as a stream."""
    parts: list[bytes] = []
    size = 0
    async for chunk in chunks:
        parts.append(chunk)
        size += len(chunk)
        if size > GATHER_BYTES:
            return b"", _chained(parts, chunks)
    return b"".join(parts), None


async def _chained(parts: list[bytes], rest: AsyncIterator[bytes]) -> AsyncGenerator[bytes, None]:
    for part in parts:
        yield part
    async for chunk in rest:
        yield chunk
