"""Where a request's pictures are -> Media: bytes that came with the form, data URIs, bare base64, URLs to fetch.

Whatever takes time or touches the disk (reading a spooled part, decoding base64, hashing) runs in the media pool.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from app.api import names
from app.api.form import FilePart, is_bare_base64, is_words
from app.config import Limits
from app.errors import ImageTooLarge, InvalidImageUrl, InvalidType, InvalidValue, TooManyImages, UnsupportedParameter
from app.media.blob import MemoryBlob
from app.media.download import Downloader, FetchFailed, decode_base64, decode_data_uri
from app.media.netguard import is_handable
from app.media.pool import MediaPool
from app.media.sniff import inspect, sniff_format
from app.params.values import kind
from providers.base import Blob, Media

FETCH_TOTAL = 64 << 20  # bytes of all pictures that one request has us fetch
FETCH_AT_ONCE = 3  # of one request; so many may be in memory beyond FETCH_TOTAL before that shows
URL_LENGTH = 8192


@dataclass(frozen=True, slots=True)
class Source:
    """One picture, not loaded yet: bytes (`blob`), or words (`text`, or the blob if `in_words`) that say where they
    are or spell them out."""

    spelled: str
    blob: Blob | None = None
    digest: str = ""
    text: str = ""
    in_words: bool = False
    base64: bool = False  # the words are bare base64 (image_base64)


def from_part(part: FilePart) -> Source:
    """A file part. One whose content is a URL counts as that URL (some clients send a link as a file)."""
    word, path = names.split(part.name)
    if "file_id" in path:
        raise _no_files(word)
    if is_words(part.head):
        return Source(word, part.blob, in_words=True)
    if is_bare_base64(part.name, part.head):
        return Source(word, part.blob, in_words=True, base64=True)
    if not part.named and sniff_format(part.head) in ("text", "json"):
        raise _a_string(word)  # `curl -F image=cat.png`, the @ forgotten
    return Source(word, part.blob, part.digest)


def from_json(word: str, value: Any) -> list[Source]:
    """`"…"`, `{"image_url": "…"}`, `{"image_url": {"url": "…"}}`, or a list of such. Raises InvalidType and its kin."""
    if isinstance(value, list):
        if not value:
            raise InvalidValue(f"Invalid '{word}': empty array. Expected at least one picture.", param=word)
        return [source for item in value for source in from_json(word, item)]
    if isinstance(value, str):
        return [Source(word, text=value.strip(), base64=word == "image_base64")]
    if isinstance(value, dict):
        if "file_id" in value:
            raise _no_files(word)
        if set(value) == {"image_base64"} and isinstance(value["image_base64"], str):
            return [Source(word, text=value["image_base64"].strip(), base64=True)]
        for key in ("image_url", "url"):
            if set(value) <= {key, "type", "detail"} and key in value:
                return from_json(word, value[key])
    raise InvalidType(
        f"Invalid type for '{word}': expected a URL, a data URI or an object with 'image_url', "
        f"but got {kind(value)} instead.",
        param=word,
    )


def _no_files(word: str) -> UnsupportedParameter:
    return UnsupportedParameter(
        f"Unsupported '{word}': this gateway keeps no files, send 'image_url' instead of 'file_id'.", param=word
    )


def _a_string(word: str) -> InvalidType:
    return InvalidType(
        f"Invalid type for '{word}': expected a file, a URL or a data URI, but got a string instead.", param=word
    )


class PictureLoader:
    """Loads sources. URLs are fetched under the guard for callers' URLs."""

    def __init__(self, downloader: Downloader, pool: MediaPool, limits: Limits) -> None:
        self._downloader = downloader
        self._pool = pool
        self._limits = limits

    async def load(self, sources: Sequence[Source]) -> tuple[Media, ...]:
        """All pictures, in order. Raises an InvalidRequest that says which one and why."""
        if len(sources) > self._limits.images:
            raise TooManyImages(
                f"Invalid '{sources[0].spelled}': at most {self._limits.images} pictures, but got {len(sources)}.",
                param=sources[0].spelled,
            )
        fetches = _Fetches(self._downloader, self._limits)
        if len(sources) == 1:
            return (await self._one(sources[0], 0, fetches),)
        loading = [asyncio.ensure_future(self._one(source, at, fetches)) for at, source in enumerate(sources)]
        try:
            return tuple(await asyncio.gather(*loading))
        finally:
            for one in loading:
                one.cancel()  # the first that cannot be loaded ends the request: the others are not wanted any more

    async def _one(self, source: Source, index: int, fetches: _Fetches) -> Media:
        blob, digest = source.blob, source.digest
        if blob is None or source.in_words:
            text = source.text if blob is None else await self._pool.run(_words, blob)
            blob, digest = await self._bytes(text, source, fetches)
        else:
            text = ""
        media = await self._pool.run(
            inspect, blob, digest, index=index, param=source.spelled, max_pixels=self._limits.image_pixels
        )
        return replace(media, url=text) if len(text) <= URL_LENGTH and is_handable(text) else media

    async def _bytes(self, text: str, source: Source, fetches: _Fetches) -> tuple[Blob, str]:
        start, word = text[:8].lower(), source.spelled
        if start.startswith("data:") or source.base64:
            return await self._pool.run(_spelled_out, text, word, self._limits.image_bytes)
        if not start.startswith(("http://", "https://")):
            raise _a_string(word)
        if len(text) > URL_LENGTH:
            raise InvalidImageUrl(f"Invalid '{word}': the URL is longer than {URL_LENGTH} characters.", param=word)
        return await fetches.fetch(text, word)


class _Fetches:
    """What one request has us fetch: few at once, and not too many bytes together."""

    def __init__(self, downloader: Downloader, limits: Limits) -> None:
        self._downloader = downloader
        self._limits = limits
        self._left = FETCH_TOTAL
        self._turns = asyncio.Semaphore(FETCH_AT_ONCE)

    async def fetch(self, url: str, word: str) -> tuple[Blob, str]:
        async with self._turns:
            try:
                answer = await self._downloader.fetch(
                    url, max_bytes=self._limits.image_bytes, timeout=self._limits.fetch_seconds, digest=True
                )
            except FetchFailed as error:
                raise error.for_caller(word) from None
            self._left -= answer.blob.size
            if self._left < 0:
                raise ImageTooLarge(
                    f"Invalid '{word}': the pictures behind the URLs are larger than {FETCH_TOTAL} bytes together.",
                    param=word,
                )
            return answer.blob, answer.digest


def _words(blob: Blob) -> str:
    return blob.read().decode("ascii", "replace").strip()


def _spelled_out(text: str, word: str, max_bytes: int) -> tuple[Blob, str]:
    if text[:5].lower() == "data:":
        return _hashed(decode_data_uri(text, max_bytes=max_bytes, param=word)[0])
    return _hashed(decode_base64(text, max_bytes=max_bytes, param=word))


def _hashed(data: bytes) -> tuple[Blob, str]:
    return MemoryBlob(data), hashlib.sha256(data).hexdigest()
