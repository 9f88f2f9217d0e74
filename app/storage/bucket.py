"""A bucket at S3, GCS or Azure, through obstore: the only module that knows it.

obstore (Rust's object_store) is imported when a bucket is configured, and not before. What it raises carries URLs,
headers' names and debugging dumps; what leaves this module is one short line that names no credential.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from app.config import ConfigError, StorageSettings
from app.errors import NotFound
from app.storage.base import StorageError

if TYPE_CHECKING:
    from obstore.store import AzureStore, GCSStore, S3Store

READ_BYTES = 4 << 20  # one request; most pictures are smaller
PART_BYTES = 8 << 20  # of a large file; S3 wants 5 MiB at least
SIGNED_SECONDS = 7 * 86_400  # the longest that S3 and GCS allow
_RETRIES = 3
_STATUS = re.compile(r"status code: (?P<status>\d{3})(?P<reason>[A-Za-z ]*)")
_CODE = re.compile(r"<Code>(?P<code>\w{1,60})</Code>|\"code\": ?\"(?P<json>\w{1,60})\"")


@dataclass(frozen=True, slots=True)
class Patience:
    """How long a bucket is waited for, in seconds."""

    connect: float = 5.0
    stall: float = 10.0  # without a byte
    request: float = 60.0  # one attempt
    retry: float = 10.0  # after that no further attempt begins
    call: float = 20.0  # all attempts together, and one more second for each MiB
    pause: float = 0.1  # before the second attempt; longer before each further one


class BucketUnusable(StorageError):
    """It will not work until somebody changes something: no such bucket, no right to it, the wrong region."""


class Bucket:
    """The few things that are done with a bucket. Everything raises StorageError; nothing blocks the event loop."""

    def __init__(self, store: S3Store | GCSStore | AzureStore, label: str, call_seconds: float) -> None:
        import obstore

        self._obstore = obstore
        self._store = store
        self._call_seconds = call_seconds
        self.label = label

    async def put(self, place: str, data: bytes | Path, headers: dict[str, Any]) -> None:
        """Write an object; a file in parts, if it is large."""
        size = len(data) if isinstance(data, bytes) else (await asyncio.to_thread(data.stat)).st_size
        async with self._call("write", size):
            await self._obstore.put_async(
                self._store,
                place,
                data,
                attributes=headers,
                use_multipart=size > PART_BYTES and not isinstance(data, bytes),
                chunk_size=PART_BYTES,
                max_concurrency=2,  # parts in memory
            )

    async def size(self, place: str) -> int:
        """An object's length. Raises NotFound."""
        async with self._call("look for"):
            return int((await self._obstore.head_async(self._store, place))["size"])

    async def read(self, place: str, start: int, end: int) -> AsyncGenerator[bytes, None]:
        """Bytes start … end - 1, a few megabytes a request: a reader who is slow holds no connection open, and what
        breaks off is asked for again. Raises NotFound."""
        while start < end:
            stop = min(start + READ_BYTES, end)
            async with self._call("read", stop - start):
                got = await self._obstore.get_range_async(self._store, place, start=start, end=stop)
            if len(got) != stop - start:
                raise StorageError("the bucket's object is shorter than it was")
            start = stop
            yield got.to_bytes()

    async def delete(self, places: Sequence[str]) -> None:
        """Delete objects, many in one request where the provider can do that; those that are not there, too."""
        for first in range(0, len(places), 1000):
            some = list(places[first : first + 1000])
            async with self._call("delete"):
                try:
                    await self._obstore.delete_async(self._store, some)
                except FileNotFoundError:  # GCS and Azure say so, and it is not known how far they came
                    for place in some:
                        with contextlib.suppress(FileNotFoundError):
                            await self._obstore.delete_async(self._store, place)

    async def folders(self) -> list[str]:
        """What there is below the prefix, without what lies in it."""
        async with self._call("list"):
            return [*(await self._obstore.list_with_delimiter_async(self._store))["common_prefixes"]]

    async def places(self, folder: str) -> AsyncGenerator[list[str], None]:
        """The objects in a folder, a thousand at a time."""
        pages = aiter(self._obstore.list(self._store, folder, chunk_size=1000))
        while True:
            async with self._call("list"):
                page = await anext(pages, None)
            if page is None:
                return
            yield [meta["path"] for meta in page]

    async def sign(self, place: str, seconds: float) -> str:
        """A URL of the bucket's own by which anybody may read the object for so long."""
        async with self._call("sign a URL for"):
            return await self._obstore.sign_async(self._store, "GET", place, timedelta(seconds=seconds))

    @contextlib.asynccontextmanager
    async def _call(self, what: str, size: int = 0) -> AsyncGenerator[None, None]:
        """One call of obstore: it has an end, and it raises nothing but our own. NotFound is for who reads only."""
        from obstore.exceptions import BaseError

        try:
            async with asyncio.timeout(self._call_seconds + size / (1 << 20)):
                yield
        except TimeoutError:
            raise StorageError(f"the bucket was too slow to {what} an object") from None
        except FileNotFoundError as error:
            if what in ("read", "look for") and "NoSuchBucket" not in str(error):
                raise NotFound("There is no such file.") from None
            raise BucketUnusable(f"cannot {what} an object of the bucket: {_reason(error)}") from None
        except (BaseError, OSError, ValueError) as error:
            raise _kind(error)(f"cannot {what} an object of the bucket: {_reason(error)}") from None


def open_bucket(settings: StorageSettings, patience: Patience = Patience()) -> Bucket:
    """The bucket that is configured; nothing is asked of it yet. Raises ConfigError."""
    parts = urlsplit(settings.url)
    prefix = parts.path.strip("/")
    if (
        parts.scheme not in ("s3", "gs", "az")
        or not parts.netloc
        or parts.query
        or parts.fragment
        or "@" in parts.netloc
    ):
        raise ConfigError("storage.url: is none of s3://bucket/prefix, gs://bucket/prefix, az://container/prefix")
    if settings.endpoint.startswith("http://") and not settings.allow_http:
        raise ConfigError("storage.endpoint: is not encrypted; allow that with storage.allow_http")
    key_id, secret = settings.access_key_id, settings.secret_access_key.get_secret_value()
    names = {
        "s3": ("endpoint", "region", "access_key_id", "secret_access_key"),
        "gs": ("base_url", "", "", "service_account_key"),
        "az": ("endpoint", "", "account_name", "account_key"),
    }[parts.scheme]
    chosen: dict[str, str] = {}
    given = (settings.endpoint.rstrip("/"), settings.region, key_id, secret)
    for setting, name, value in zip(("endpoint", "region", "access_key_id"), names, given, strict=False):
        if value and not name:
            raise ConfigError(f"storage.{setting}: means nothing to {parts.scheme}://")
    chosen = {name: value for name, value in zip(names, given, strict=True) if name and value}

    from obstore.exceptions import BaseError
    from obstore.store import AzureStore, GCSStore, S3Store

    kind: Any = {"s3": S3Store, "gs": GCSStore, "az": AzureStore}[parts.scheme]
    try:
        store = kind(
            parts.netloc,
            prefix=prefix or None,
            client_options={
                "allow_http": settings.allow_http,
                "connect_timeout": timedelta(seconds=patience.connect),
                "read_timeout": timedelta(seconds=patience.stall),
                "timeout": timedelta(seconds=patience.request),
            },
            retry_config={
                "max_retries": _RETRIES,
                "retry_timeout": timedelta(seconds=patience.retry),
                "backoff": {
                    "init_backoff": timedelta(seconds=patience.pause),
                    "max_backoff": timedelta(seconds=2),
                    "base": 2,
                },
            },
            **chosen,
        )
    except (BaseError, ValueError) as error:
        raise ConfigError(f"storage: the bucket's settings cannot be used: {_reason(error)}") from None
    return Bucket(store, f"{parts.scheme}://{parts.netloc}{'/' if prefix else ''}{prefix}", patience.call)


async def make_bucket(settings: StorageSettings, patience: Patience = Patience()) -> bool:
    """Make the configured S3 bucket; whether it was not there before. For stores of one's own: at a cloud a bucket is
    made with the cloud's tools. Raises ConfigError, StorageError."""
    import httpx2
    import obstore

    parts = urlsplit(settings.url)
    if parts.scheme != "s3":
        raise ConfigError("storage.url: only a bucket of S3, s3://bucket, can be made from here")
    root = open_bucket(settings.model_copy(update={"url": f"s3://{parts.netloc}"}), patience)
    try:
        # Signed in the URL: the client needs to know nothing of S3. https://docs.aws.amazon.com/AmazonS3/latest/API/API_CreateBucket.html
        url = await obstore.sign_async(root._store, "PUT", "", timedelta(seconds=60))
        async with httpx2.AsyncClient(trust_env=False, timeout=patience.stall) as client:
            answer = await client.put(url)
    except (httpx2.HTTPError, OSError, ValueError) as error:
        raise StorageError(f"the bucket cannot be made: {type(error).__name__}") from None
    if answer.is_success or answer.status_code == 409:
        return answer.is_success
    code = _CODE.search(answer.text)
    raise BucketUnusable(f"the bucket cannot be made: {answer.status_code} {code[1] if code else ''}".strip())


def _kind(error: Exception) -> type[StorageError]:
    text = str(error)
    if (
        "169.254." in text or "metadata.google" in text
    ):  # no credentials anywhere: the machine itself was asked for some
        return BucketUnusable
    if "Received redirect" in text:  # S3's way to say that the region is another
        return BucketUnusable
    status = _STATUS.search(text)
    refused = status is not None and status["status"][0] in "34" and status["status"] not in ("408", "429")
    return BucketUnusable if refused else StorageError


def _reason(error: Exception) -> str:
    text, _, dump = str(error).partition("\n\nDebug source")
    if "169.254." in text or "metadata.google" in text:
        return "there are no credentials, neither in the settings nor in the environment"
    code = _CODE.search(text)
    status = _STATUS.search(text)
    if status is not None:
        return " ".join(
            part for part in (status["status"], (code and (code[1] or code[2])) or status["reason"].strip()) if part
        )
    if "kind: Connect" in dump or "kind: Timeout" in dump:
        return "there is no connection" if "kind: Connect" in dump else "there is no answer in time"
    text = re.sub(r"https?://\S+", "…", text.rpartition(" - ")[2])
    return " ".join(text.split())[:200] or type(error).__name__
