"""What a provider made -> what the client gets: fetched under the guard, brought into shape off the event loop, stored
or encoded.

Stands between `gateway` and its strangers `media` and `storage`, which know nothing of each other.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from random import Random

from app.config import Limits, Results
from app.errors import (
    Expired,
    GatewayError,
    NotFound,
    Overloaded,
    ProviderBadResponse,
    ProviderTimeout,
    ProviderUnavailable,
    Refused,
)
from app.media.blob import MemoryBlob
from app.media.download import Downloader, FetchFailed, Reason
from app.media.finish import BadPicture, Finished, begin_finishing
from app.media.netguard import is_handable
from app.media.pool import MediaPool
from app.media.sniff import inspect, is_accepted, size_of, sniff_format
from app.steps import Steps
from app.storage.base import Storage, StorageError
from app.types import MIME, Artefact, Delivery, ImageFormat
from providers.base import Blob, Clock, Media, Provider, ResultImage

log = logging.getLogger("imagegate.delivery")

EXTENSIONS: Mapping[ImageFormat, str] = {"png": "png", "jpeg": "jpg", "gif": "gif", "webp": "webp", "avif": "avif"}
FETCH_TRIES = 5
BROKEN_TRIES = 3  # of a picture that comes, but cannot be read
_HOPELESS = frozenset({Reason.BLOCKED, Reason.TOO_LARGE, Reason.REDIRECTS, Reason.ENCODING})
FETCH_SECONDS = 60.0  # one picture, from here to its last byte
GRACE_SECONDS = 20.0
HEAD_BYTES, HEAD_SECONDS = 65_536, 5.0


@dataclass(frozen=True, slots=True)
class Keep:
    """How long a picture is kept beyond what its delivery needs. `must`: nobody waits for it, so the store is the only
    place where it will be."""

    seconds: float = 0.0
    must: bool = False
    log_seconds: float = 0.0  # for the request log, which wants every picture; a URL does not live longer for it


class Deliverer:
    """Delivers single pictures. One for each provider: its downloader knows that provider's media origins."""

    def __init__(
        self,
        downloader: Downloader,
        pool: MediaPool,
        storage: Storage,
        limits: Limits,
        results: Results,
        clock: Clock,
        now: Callable[[], float],
        random: Random,
    ) -> None:
        self._downloader = downloader
        self._pool = pool
        self._storage = storage
        self._limits = limits
        self._results = results
        self._clock = clock
        self._now = now
        self._random = random

    def check_room(self, delivery: Delivery) -> None:
        """Before anything is bought: what will have to be stored can be. Raises Overloaded."""
        if delivery.response_format == "url" and self._storage.free_bytes() == 0:
            raise Overloaded("The gateway has no room to store pictures.", retry_after=60)

    async def deliver(
        self,
        image: ResultImage,
        delivery: Delivery,
        index: int,
        deadline: float,
        keep: Callable[[], Keep] = Keep,
        steps: Steps | None = None,
    ) -> Artefact:
        """One picture as the client asked for it; fetching may outlast `deadline` by GRACE_SECONDS: it is paid. `keep`
        is asked when the picture is there. How long it takes is noted in `steps`.

        Raises GatewayError; whatever it is, the job has been made.
        """
        if image.flagged:
            raise Refused("The provider's safety check blacked out the picture.")
        steps = Steps(self._clock.monotonic) if steps is None else steps
        asked = keep()
        if not (asked.must or asked.log_seconds) and (
            handed_on := await self._handed_on(image, delivery, index, steps)
        ):
            return handed_on
        done = await self._finished(image, delivery, index, deadline, steps)
        url = blob = key = None
        kept = keep()
        if delivery.response_format == "b64_json":
            blob = done.blob
            key = await self._copy(done.blob, done.format, kept, steps)
        else:
            now = self._now()
            expires = now + max(self._results.url_seconds, kept.seconds)
            key = await self._store(done.blob, done.format, max(expires, now + kept.log_seconds), steps)
            url = await self._storage.link(key, expires, delivery.base_url)
        return Artefact(index, url, blob, key, done.format, done.width, done.height, image.revised_prompt)

    async def _handed_on(self, image: ResultImage, delivery: Delivery, index: int, steps: Steps) -> Artefact | None:
        """The provider's own URL, if no byte has to change and anybody can open it.

        What a provider says of its picture can be wrong: its first bytes are read for its true format and size.
        """
        if self._results.delivery != "auto" or delivery.response_format != "url" or image.url is None:
            return None
        if delivery.mask is not None or delivery.quality is not None or not is_handable(image.url):
            return None
        try:
            with steps.measure("fetch"):
                head = await self._downloader.peek(image.url, size=HEAD_BYTES, timeout=HEAD_SECONDS)
        except FetchFailed:
            return None  # fetching it whole will say what is wrong, or succeed
        kind, found = sniff_format(head[:64]), size_of(head)
        if not is_accepted(kind) or found is None or delivery.format not in (None, kind):
            return None
        if delivery.exact not in (None, (found.width, found.height)):
            return None
        return Artefact(index, image.url, None, None, kind, found.width, found.height, image.revised_prompt)

    async def _finished(
        self, image: ResultImage, delivery: Delivery, index: int, deadline: float, steps: Steps
    ) -> Finished:
        """The picture fetched and brought into shape. It is paid for: whatever a repeat may mend is repeated, also a
        picture that is not there yet or comes broken."""
        for attempt in range(1, FETCH_TRIES + 1):
            try:
                made = image.data
                blob = await self._fetch(image.url or "", deadline, steps) if made is None else MemoryBlob(made)
                with steps.measure("finish") as step:
                    done = await self._pool.run_owed(
                        begin_finishing, blob, delivery, index, max_pixels=self._limits.result_pixels
                    )
                    step.about.update(format=done.format, width=done.width, height=done.height, bytes=done.blob.size)
                    return done
            except FetchFailed as error:
                failed, tries = _fetch_error(error), 1 if error.reason in _HOPELESS else FETCH_TRIES
            except Overloaded as error:  # no room to hold it, or no picture child
                raise _paid("The picture was made but could not be worked on.", error.detail) from None
            except BadPicture as error:
                failed = ProviderBadResponse("The provider's picture cannot be read.", detail=str(error))
                tries = BROKEN_TRIES if image.data is None else 1
            pause = self._random.uniform(0, 0.2 * 2**attempt)
            if attempt >= tries or self._clock.monotonic() + pause >= deadline + GRACE_SECONDS:
                raise failed
            await self._clock.sleep(pause)
        raise AssertionError("unreachable")

    async def _fetch(self, url: str, deadline: float, steps: Steps) -> Blob:
        left = max(deadline - self._clock.monotonic(), 0) + GRACE_SECONDS
        limit = self._limits.result_bytes
        with steps.measure("fetch") as step:
            blob = (await self._downloader.fetch(url, max_bytes=limit, timeout=min(FETCH_SECONDS, left))).blob
            step.about["bytes"] = blob.size
        return blob

    async def _copy(self, blob: Blob, format: ImageFormat, keep: Keep, steps: Steps) -> str | None:
        """A copy of what the client gets as base64, in case it comes back for it."""
        seconds = max(keep.seconds, keep.log_seconds)
        if not seconds:
            return None
        try:
            return await self._store(blob, format, self._now() + seconds, steps)
        except Overloaded as error:
            if keep.must:
                raise
            log.warning("no copy of a picture was kept: %s", error.detail)
            return None

    async def _store(self, blob: Blob, format: ImageFormat, expires: float, steps: Steps) -> str:
        data = blob.read() if blob.in_memory else blob.chunks()
        try:
            with steps.measure("store"):
                return await self._storage.put(
                    data, content_type=MIME[format], extension=EXTENSIONS[format], expires_at=expires
                )
        except StorageError as error:
            raise _paid("The picture was made but could not be stored.", str(error)) from None

    # ---- what is kept for later

    async def again(self, artefact: Artefact, delivery: Delivery) -> Artefact:
        """A picture of an earlier answer, as it was answered then. Raises GatewayError if it is not there any more."""
        if delivery.response_format == "url" and artefact.url is not None:
            return artefact
        if artefact.key is None:
            raise Expired("The answer's pictures are not kept any more.")
        return replace(artefact, url=None, blob=MemoryBlob(await self._read(artefact.key)))

    async def link(self, artefact: Artefact, base_url: str) -> str | None:
        """Where a picture of an earlier answer can be read for as long as it is kept; None if it is not any more, or
        never was."""
        if artefact.key is None:
            return artefact.url
        expires = self._storage.expiry(artefact.key)
        soon = self._now() + self._results.url_seconds
        expires = soon if expires is None else expires
        if expires <= self._now():
            return None
        return await self._storage.link(artefact.key, min(expires, soon), base_url)

    async def keep_input(self, media: Media, seconds: float) -> str:
        """Keep an input picture that the end of a request needs. Raises Overloaded."""
        kind = media.mime.removeprefix("image/")
        try:
            return await self._storage.put(
                media.blob.chunks(),
                content_type=media.mime,
                extension=EXTENSIONS[kind],  # type: ignore[index]  # a Media is of an accepted kind
                expires_at=self._now() + seconds,
            )
        except StorageError as error:
            raise Overloaded("The gateway has no room for this request.", detail=str(error), retry_after=60) from None

    async def kept_input(self, key: str) -> Media:
        """The input picture that was kept. Raises GatewayError."""
        data = await self._read(key)
        digest = (await asyncio.to_thread(hashlib.sha256, data)).hexdigest()
        return await self._pool.run_owed(
            inspect, MemoryBlob(data), digest, index=0, param="image", max_pixels=self._limits.image_pixels
        )

    async def forget(self, key: str) -> None:
        """A kept picture is not needed any more; a store that cannot delete it now will when it expires."""
        try:
            await self._storage.delete(key)
        except StorageError as error:
            log.warning("a picture could not be deleted: %s", error)

    async def _read(self, key: str) -> bytes:
        try:
            stored = await self._storage.open(key)
            return b"".join([chunk async for chunk in stored.chunks(0, stored.size)])
        except NotFound:
            raise Expired("The answer's pictures are not kept any more.") from None
        except StorageError as error:
            raise Overloaded("The picture cannot be read now.", detail=str(error)) from None


@dataclass(frozen=True, slots=True)
class Upstream:
    """A provider, and what brings its pictures home."""

    provider: Provider
    deliverer: Deliverer


def _paid(message: str, detail: str) -> Overloaded:
    """Our own trouble with what is paid for: a repeat of the request would buy it again."""
    error = Overloaded(message, detail=detail, should_retry=False)
    error.tells_charge = True
    return error


def _fetch_error(error: FetchFailed) -> GatewayError:
    """The picture exists at the provider but does not reach us; a repeat of the request would buy it again."""
    detail = f"{error.reason}: {error.detail or error.message}"
    match error.reason:
        case Reason.TIMEOUT:
            return ProviderTimeout("The provider's picture did not arrive in time.", detail=detail)
        case Reason.UNREACHABLE:
            return ProviderUnavailable(
                "The provider's picture could not be fetched.", detail=detail, should_retry=False
            )
    return ProviderBadResponse("The provider's picture could not be fetched.", detail=detail)
