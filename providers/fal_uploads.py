"""Pictures on their way to fal: inline as data URIs while they are small, else uploaded, each once per request."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from providers.base import Clock, Fault, Media, ProviderError
from providers.fal_errors import excerpt, failure, malformed
from providers.fal_wire import Patience, Wire, lifecycle
from providers.http import OncePerMedia, media_in, origin, pieces, send, together
from providers.retries import Retries

# How large a data URI may be is unsettled: 10 MiB of text where fal's DataUri type is used, a few KB by its
# documentation, refusals reported above 3 MB. Up to two megabytes of pictures go inline, more is uploaded.
INLINE_LIMIT = 2_000_000
UPLOAD_TRIES = 3  # in each of the dispatcher's own tries
INPUT_SECONDS = 3600  # how long fal keeps an uploaded input


class Uploads:
    """Turns the pictures of payloads into URLs. `rest` is the base URL of the storage API."""

    def __init__(self, rest: str, wire: Wire, clock: Clock, retries: Retries, patience: Patience) -> None:
        self._rest = rest
        self._wire = wire
        self._clock = clock
        self._retries = retries
        self._patience = patience
        self._once = OncePerMedia(self._upload)

    async def urls(self, payload: Mapping[str, Any]) -> dict[Media, bytes]:
        """What stands for the pictures in the payload: a public URL of their own, or that of an upload. Those that are
        not in it are small enough to go inline.

        Raises ProviderError with `accepted=False`.
        """
        media = list(media_in(payload))
        own = {one: _ascii(one.url) for one in media if one.url is not None}
        others = [one for one in media if one.url is None]
        if sum(one.size for one in others) <= INLINE_LIMIT:
            return own
        return own | dict(zip(others, await together(*map(self._once.get, others)), strict=True))

    async def _upload(self, media: Media) -> bytes:
        """Nothing is billed for it, so it is repeated after a hiccup, as long as the retry budget lasts."""
        soon = self._clock.monotonic() + self._patience.upload  # a longer Retry-After is the caller's to wait
        return await self._retries.persist(lambda _: self._upload_once(media), soon, tries=UPLOAD_TRIES)

    async def _upload_once(self, media: Media) -> bytes:
        """Initiate, then PUT without the key (as npm @fal-ai/client 1.10.1, storage.js)."""
        life = lifecycle(INPUT_SECONDS)
        name = f"image.{media.mime.rpartition('/')[2]}"
        answer = await self._wire.send(
            "POST",
            f"{self._rest}/storage/upload/initiate?storage_type=fal-cdn-v3",
            self._patience.initiate,
            content=json.dumps({"content_type": media.mime, "file_name": name}).encode(),
            headers={
                "Content-Type": "application/json",
                # fal-client sends both; which of them initiate reads is not documented.
                "X-Fal-Object-Lifecycle": life,
                "X-Fal-Object-Lifecycle-Preference": life,
            },
        )
        if answer.status != 200:
            raise failure(answer, of="upload")
        reply = answer.json()
        target, file_url = (reply.get("upload_url"), reply.get("file_url")) if isinstance(reply, dict) else (None, None)
        # pictures travel in the clear only where the operator's own base does, as to a sandbox
        secure = isinstance(target, str) and origin(target).startswith(("https:", self._rest.partition("//")[0]))
        if not secure or not isinstance(file_url, str):
            raise malformed("The provider's storage answered something unexpected.", answer, accepted=False)
        stored = await send(
            self._wire.http,
            "PUT",
            str(target),
            seconds=self._patience.upload,
            content=pieces(media),
            headers={"Content-Type": media.mime, "Content-Length": str(media.size)},
        )
        if not 200 <= stored.status < 300:
            # Whoever stores it does not speak fal's error shapes. A new ticket may help, but for a file too large.
            raise ProviderError(
                Fault.INVALID if stored.status == 413 else Fault.UNAVAILABLE,
                "The provider's storage did not take the picture.",
                detail=f"{stored.asked}: HTTP {stored.status} {excerpt(stored)}",
                accepted=False,
                final=stored.status == 413,
            )
        return _ascii(file_url)


def _ascii(url: str) -> bytes:
    """A URL as it stands between the quotes of a JSON string."""
    return json.dumps(url)[1:-1].encode()
