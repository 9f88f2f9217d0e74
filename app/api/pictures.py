"""Where a request's pictures are -> Media: bytes that came with the form, data URIs, bare base64, URLs to fetch."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from app.api.form import FilePart
from app.config import Limits
from app.errors import ImageTooLarge, InvalidImageUrl, InvalidType, TooManyImages, UnsupportedParameter
from app.media.blob import MemoryBlob
from app.media.download import Downloader, FetchFailed, decode_data_uri
from app.media.pool import MediaPool
from app.media.sniff import inspect
from app.params.values import kind
from providers.base import Blob, Media

FETCH_SECONDS = 20.0  # all of one picture, from here to its last byte
FETCH_TOTAL = 64 << 20  # bytes of all pictures that one request has us fetch
URL_LENGTH = 8192
_SCHEMES = (b"http://", b"https://", b"data:")


@dataclass(frozen=True, slots=True)
class Source:
    """One picture, not loaded yet: bytes, or text that says where they are."""

    spelled: str
    blob: Blob | None = None
    digest: str = ""
    text: str = ""
    base64: bool = False  # `text` is bare base64 (image_base64)


def from_part(part: FilePart, word: str) -> Source:
    """A file part. One whose content is a URL counts as that URL (some clients send a link as a file)."""
    if part.head.lstrip()[:8].lower().startswith(_SCHEMES):
        return Source(word, text=part.blob.read().decode("ascii", "replace").strip())
    if word == "image_base64" and part.head[:1].isalnum():
        return Source(word, text=part.blob.read().decode("ascii", "replace").strip(), base64=True)
    return Source(word, part.blob, part.digest)


def from_json(word: str, value: Any) -> list[Source]:
    """`"…"`, `{"image_url": "…"}`, `{"image_url": {"url": "…"}}`, or a list of such. Raises InvalidType and its kin."""
    if isinstance(value, list):
        return [source for item in value for source in from_json(word, item)]
    if isinstance(value, str):
        return [Source(word, text=value.strip(), base64=word == "image_base64")]
    if isinstance(value, dict):
        if "file_id" in value:
            raise UnsupportedParameter(
                f"Unsupported '{word}': this gateway keeps no files, send 'image_url' instead of 'file_id'.", param=word
            )
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
        fetched = _Allowance(FETCH_TOTAL)
        return tuple(await asyncio.gather(*(self._one(source, index, fetched) for index, source in enumerate(sources))))

    async def _one(self, source: Source, index: int, fetched: _Allowance) -> Media:
        blob, digest = source.blob, source.digest
        if blob is None:
            data = await self._bytes(source, fetched)
            blob, digest = MemoryBlob(data), hashlib.sha256(data).hexdigest()
        return await self._pool.run(
            inspect, blob, digest, index=index, param=source.spelled, max_pixels=self._limits.image_pixels
        )

    async def _bytes(self, source: Source, fetched: _Allowance) -> bytes:
        text, word = source.text, source.spelled
        lowered = text[:8].lower()
        limit = self._limits.image_bytes
        if lowered.startswith("data:") or source.base64:
            uri = text if lowered.startswith("data:") else f"data:application/octet-stream;base64,{text}"
            data, _ = await asyncio.to_thread(decode_data_uri, uri, max_bytes=limit, param=word)
            return data
        if not lowered.startswith(("http://", "https://")):
            raise InvalidType(
                f"Invalid type for '{word}': expected a file, a URL or a data URI, but got a string instead.",
                param=word,
            )
        if len(text) > URL_LENGTH:
            raise InvalidImageUrl(f"Invalid '{word}': the URL is longer than {URL_LENGTH} characters.", param=word)
        try:
            answer = await self._downloader.fetch(text, max_bytes=min(limit, fetched.left), timeout=FETCH_SECONDS)
        except FetchFailed as error:
            raise error.for_caller(word) from None
        fetched.take(len(answer.data), word)
        return answer.data


class _Allowance:
    """Bytes that one request may still have fetched."""

    def __init__(self, left: int) -> None:
        self.left = left

    def take(self, size: int, word: str) -> None:
        self.left -= size
        if self.left < 0:
            raise ImageTooLarge(
                f"Invalid '{word}': the pictures behind the URLs are larger than {FETCH_TOTAL} bytes together.",
                param=word,
            )
