"""What a provider made -> what the client gets: fetched under the guard, brought into shape off the event loop, stored
or encoded.

Stands between `gateway` and its strangers `media` and `storage`, which know nothing of each other.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import pybase64

from app.config import Limits, Results
from app.errors import GatewayError, Overloaded, ProviderBadResponse, ProviderTimeout, ProviderUnavailable, Refused
from app.media.download import Downloader, FetchFailed, Reason
from app.media.finish import BadPicture, finish
from app.media.netguard import is_handable
from app.media.pool import MediaPool
from app.media.sniff import is_accepted, size_of, sniff_format
from app.storage.base import Storage, StorageError
from app.types import MIME, Artefact, Delivery, ImageFormat
from providers.base import Clock, ResultImage

EXTENSIONS: Mapping[ImageFormat, str] = {"png": "png", "jpeg": "jpg", "gif": "gif", "webp": "webp", "avif": "avif"}
FETCH_TRIES = 5
FETCH_SECONDS = 60.0  # one picture, from here to its last byte
GRACE_SECONDS = 20.0
LEAST_FREE_BYTES = 256 << 20  # below it nothing is bought that would have to be stored
HEAD_BYTES, HEAD_SECONDS = 65_536, 5.0


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
    ) -> None:
        self._downloader = downloader
        self._pool = pool
        self._storage = storage
        self._limits = limits
        self._results = results
        self._clock = clock
        self._now = now

    def check_room(self, delivery: Delivery) -> None:
        """Before anything is bought: what will have to be stored can be. Raises Overloaded."""
        free = self._storage.free_bytes() if delivery.response_format == "url" else None
        if free is not None and free < LEAST_FREE_BYTES:
            raise Overloaded("The gateway has no room to store pictures.", detail=f"{free} bytes free", retry_after=60)

    async def deliver(self, image: ResultImage, delivery: Delivery, index: int, deadline: float) -> Artefact:
        """One picture as the client asked for it; fetching may outlast `deadline` by GRACE_SECONDS: it is paid.

        Raises GatewayError; whatever it is, the job has been made.
        """
        if image.flagged:
            raise Refused("The provider's safety check blacked out the picture.")
        if handed_on := await self._handed_on(image, delivery, index):
            return handed_on
        data = image.data if image.data is not None else await self._fetch(image.url or "", deadline)
        try:
            done = await self._pool.run_owed(finish, data, delivery, index, max_pixels=self._limits.result_pixels)
        except BadPicture as error:
            raise ProviderBadResponse("The provider's picture cannot be read.", detail=str(error)) from None
        url = b64 = None
        if delivery.response_format == "b64_json":
            b64 = pybase64.b64encode(done.data)
        else:
            url = delivery.base_url + await self._store(done.data, done.format)
        return Artefact(index, url, b64, done.format, done.width, done.height, image.revised_prompt)

    async def _handed_on(self, image: ResultImage, delivery: Delivery, index: int) -> Artefact | None:
        """The provider's own URL, if no byte has to change and anybody can open it.

        What a provider says of its picture can be wrong: its first bytes are read for its true format and size.
        """
        if self._results.delivery != "auto" or delivery.response_format != "url" or image.url is None:
            return None
        if delivery.mask is not None or delivery.quality is not None or not is_handable(image.url):
            return None
        try:
            head = await self._downloader.peek(image.url, size=HEAD_BYTES, timeout=HEAD_SECONDS)
        except FetchFailed:
            return None  # fetching it whole will say what is wrong, or succeed
        kind, found = sniff_format(head[:64]), size_of(head)
        if not is_accepted(kind) or found is None or delivery.format not in (None, kind):
            return None
        if delivery.exact not in (None, (found.width, found.height)):
            return None
        return Artefact(index, image.url, None, kind, found.width, found.height, image.revised_prompt)

    async def _fetch(self, url: str, deadline: float) -> bytes:
        for attempt in range(1, FETCH_TRIES + 1):
            left = max(deadline - self._clock.monotonic(), 0) + GRACE_SECONDS
            try:
                fetched = await self._downloader.fetch(
                    url, max_bytes=self._limits.result_bytes, timeout=min(FETCH_SECONDS, left)
                )
            except FetchFailed as error:
                pause = 0.2 * 2**attempt
                out_of_time = self._clock.monotonic() + pause >= deadline + GRACE_SECONDS
                if not error.transient or attempt == FETCH_TRIES or out_of_time:
                    raise _fetch_error(error) from None
                await self._clock.sleep(pause)
            else:
                return fetched.data
        raise AssertionError("unreachable")

    async def _store(self, data: bytes, format: ImageFormat) -> str:
        expires = self._now() + self._results.url_seconds
        try:
            key = await self._storage.put(
                data, content_type=MIME[format], extension=EXTENSIONS[format], expires_at=expires
            )
        except StorageError as error:
            raise Overloaded(
                "The picture was made but could not be stored.", detail=str(error), should_retry=False
            ) from None
        return self._storage.sign(key, expires)


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
