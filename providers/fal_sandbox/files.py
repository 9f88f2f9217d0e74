"""Files of the stand-in CDN, in memory, with expiry and a bound on the bytes held."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum


class Access(StrEnum):
    """Who may read a file (fal docs, storage: `initial_acl.default`). Its owner may, by Bearer CDN token."""

    ALLOW = "allow"
    FORBID = "forbid"
    """Strangers get 403."""
    HIDE = "hide"
    """Strangers get 404."""


@dataclass(frozen=True, slots=True)
class StoredFile:
    data: bytes
    content_type: str
    expires_at: float | None = None
    """Epoch seconds; None keeps it until the memory bound drops it (fal's default is for ever)."""
    access: Access = Access.ALLOW


class FileStore:
    """Path to file. Reading an expired file finds nothing; over `max_bytes` the least recently used ones go."""

    def __init__(self, max_bytes: int, clock: Callable[[], float]) -> None:
        self._max_bytes = max_bytes
        self._clock = clock
        self._files: OrderedDict[str, StoredFile] = OrderedDict()
        self._bytes = 0

    @property
    def held_bytes(self) -> int:
        return self._bytes

    def put(self, path: str, file: StoredFile) -> None:
        self.discard(path)
        self._files[path] = file
        self._bytes += len(file.data)
        if self._bytes > self._max_bytes:
            self._drop_expired()
        # The newest file stays even when it alone is over the bound: its writer has just been told where it is.
        while self._bytes > self._max_bytes and len(self._files) > 1:
            self.discard(next(iter(self._files)))

    def get(self, path: str) -> StoredFile | None:
        file = self._files.get(path)
        if file is None:
            return None
        if file.expires_at is not None and file.expires_at <= self._clock():
            self.discard(path)
            return None
        self._files.move_to_end(path)
        return file

    def discard(self, path: str) -> None:
        file = self._files.pop(path, None)
        if file is not None:
            self._bytes -= len(file.data)

    def clear(self) -> None:
        self._files.clear()
        self._bytes = 0

    def _drop_expired(self) -> None:
        now = self._clock()
        for path in [p for p, f in self._files.items() if f.expires_at is not None and f.expires_at <= now]:
            self.discard(path)
