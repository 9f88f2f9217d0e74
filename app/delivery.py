"""What a provider made -> what the client gets: fetched under the guard, brought into shape off the event loop, stored
or encoded.

Stands between `gateway` and its strangers `media` and `storage`, which know nothing of each other.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping

import pybase64

from app.config import Limits, Results
from app.errors import GatewayError, Overloaded, ProviderBadResponse, ProviderTimeout, ProviderUnavailable, Refused
from app.media.download import Downloader, FetchFailed, Reason
from app.media.finish import BadPicture, finish
from app.media.netguard import is_handable
from app.media.pool import MediaPool
from app.storage.base import Storage, StorageError
from app.types import MIME, Artefact, Delivery, ImageFormat
from providers.base import ResultImage

EXTENSIONS: Mapping[ImageFormat, str] = {"png": "png", "jpeg": "jpg", "gif": "gif", "webp": "webp", "avif": "avif"}
FETCH_TRIES = 5


class Deliverer:
    """Delivers single pictures. One for each provider: its downloader knows that provider's media origins."""

    def __init__(
        self,
        downloader: Downloader,
        pool: MediaPool,
        storage: Storage,
        limits: Limits,
        results: Results,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._downloader = downloader
        self._pool = pool
        self._storage = storage
        self._limits = limits
        self._results = results
        self._clock = clock

    async def deliver(self, image: ResultImage, delivery: Delivery, index: int) -> Artefact:
        """One picture as the client asked for it. Raises GatewayError; whatever it is, the job has been made."""
        if image.flagged:
            raise Refused(
                "The provider's safety check blacked out the picture. It was charged all the same.", should_retry=False
            )
        if self._may_hand_on(image, delivery):
            return Artefact(
                index,
                url=image.url,
                format=delivery.asked_format,
                width=image.width,
                height=image.height,
                revised_prompt=image.revised_prompt,
            )
        data = image.data if image.data is not None else await self._fetch(image.url or "")
        try:
            done = await self._pool.run(finish, data, delivery, index, max_pixels=self._limits.result_pixels)
        except BadPicture as error:
            raise ProviderBadResponse("The provider's picture cannot be read.", detail=str(error)) from None
        url = b64 = None
        if delivery.response_format == "b64_json":
            b64 = pybase64.b64encode(done.data)
        else:
            url = delivery.base_url + await self._store(done.data, done.format)
        return Artefact(index, url, b64, done.format, done.width, done.height, image.revised_prompt)

    def _may_hand_on(self, image: ResultImage, delivery: Delivery) -> bool:
        """Whether the provider's own URL can be the answer: no byte has to change, and anybody can open it."""
        if self._results.delivery != "auto" or delivery.response_format != "url" or image.url is None:
            return False
        if delivery.mask is not None or delivery.quality is not None or delivery.format != delivery.asked_format:
            return False
        if delivery.exact is not None and (image.width, image.height) != delivery.exact:
            return False
        return is_handable(image.url)

    async def _fetch(self, url: str) -> bytes:
        for attempt in range(1, FETCH_TRIES + 1):
            try:
                fetched = await self._downloader.fetch(url, max_bytes=self._limits.result_bytes, timeout=60)
            except FetchFailed as error:
                if not error.transient or attempt == FETCH_TRIES:
                    raise _fetch_error(error) from None
                await asyncio.sleep(0.2 * 2**attempt)
            else:
                return fetched.data
        raise AssertionError("unreachable")

    async def _store(self, data: bytes, format: ImageFormat) -> str:
        expires = self._clock() + self._results.url_seconds
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
