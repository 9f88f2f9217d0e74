"""The contract of a store of pictures.

A picture gets a key when it is put, never changes, and is gone some time after it expires. Whoever holds a URL that
`sign` made may read it until then; nobody can list or guess (a key holds 128 random bits). Keys are the store's own: no
word of a caller is ever part of one.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from app.types import MIME

# extension -> type; nothing else is ever stored or served
CONTENT_TYPES = {str(extension): mime for extension, mime in MIME.items()} | {"jpg": MIME["jpeg"]}


class StorageError(Exception):
    """The store could not do it: full, slow or broken. Not the caller's doing, and it may work later."""


@dataclass(frozen=True, slots=True)
class Stored:
    """A picture that is there. `chunks(start, end)` reads the bytes start … end - 1; close the generator when done."""

    key: str
    size: int
    content_type: str
    expires_at: float | None
    etag: str  # as in the header, with its quotes
    chunks: Callable[[int, int], AsyncGenerator[bytes, None]]
    path: Path | None = None  # if it is a file here


class Storage(Protocol):
    """A store. All methods may be used from many requests at once."""

    async def start(self) -> None:
        """Begin what goes on in the background."""

    async def close(self) -> None:
        """End it."""

    async def put(
        self, data: bytes | AsyncIterator[bytes], *, content_type: str, extension: str, expires_at: float | None
    ) -> str:
        """Keep a picture, whole or not at all; its key. `expires_at` is a Unix time, None = until deleted.
        Raises StorageError."""

    async def open(self, key: str) -> Stored:
        """The picture, if it is there and has not expired. Raises app.errors.NotFound, StorageError."""

    def sign(self, key: str, expires_at: float) -> str:
        """The path and query by which anybody may read it until then: `/files/{key}?exp=…&sig=…`."""

    async def link(self, key: str, expires_at: float, base_url: str) -> str:
        """The whole URL by which anybody may read it until then: what `sign` made on `base_url`, or one that leads
        to where the picture lies."""

    def expiry(self, key: str) -> float | None:
        """When a picture expires (Unix time); None: never."""

    def verify(self, key: str, query: str) -> int:
        """When the signature of a requested URL runs out. `query` is the raw query string, which has to be exactly the
        one that `sign` made: so parameters in another order, twice, in another encoding or besides are refused, too.
        Raises app.errors.NotFound (no such key can be), InvalidSignature, Expired."""

    async def delete(self, key: str) -> None:
        """Forget a picture. It is no error if it is not there."""

    async def delete_expired(self, now: float) -> int:
        """Forget what expired before `now` and what failed writes left behind; how many pictures that were."""

    def free_bytes(self) -> int | None:
        """How much can still be put; None if there is no such limit."""

    def trouble(self) -> str | None:
        """What does not work at the moment, although pictures can be put and read all the same."""
