"""Pictures as files in a directory.

    <root>/<expiry's hour, hex>/<expiry, 8 hex><random, 32 hex>.png       e.g. 675a6/691c24f0a1b2….png
    <root>/keep-<2 hex>/ffffffff<random>.png                              what never expires
    <root>/tmp/                                                           what is being written, if it needs a name

Files appear under their name complete and on disk (see `draft`), so the other folders never hold half of anything.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import shutil
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

from app.errors import NotFound
from app.storage.base import StorageError, Stored
from app.storage.budget import Budget
from app.storage.draft import Descriptor, Draft, Opened, can_be_nameless
from app.storage.keys import HOUR, SignedStorage, etag_of, is_due, is_key, new_key, place_of, type_of

CHUNK_BYTES = 1 << 20
_STALE_SECONDS = 3600  # no write takes so long: a temporary file of that age has lost its writer

log = logging.getLogger(__name__)


class LocalStorage(SignedStorage):
    """A `Storage` on a local disk. Several processes may share the directory."""

    def __init__(
        self,
        root: Path,
        secrets: Sequence[bytes],
        clock: Callable[[], float],
        skew_seconds: float = 60,
        *,
        reserve_bytes: int = 0,
        budget_bytes: int = 0,
    ) -> None:
        """`reserve_bytes` of the disk are not to be used, on a small disk 5 % of it: others need room, too, the journal
        first of all. `budget_bytes`: all that the directory may ever hold (0: no limit); of this, too, the reserve is
        left for what has been bought already."""
        super().__init__(secrets, clock, skew_seconds)
        self._root = root
        self._tmp = root / "tmp"
        self._reserve = reserve_bytes
        self._budget_bytes = budget_bytes
        self._budget = Budget(budget_bytes) if budget_bytes else None
        self._tmp.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._names = None if can_be_nameless(self._tmp) else self._tmp
        self._count()

    async def start(self) -> None:
        """Nothing runs in the background."""

    async def close(self) -> None:
        """Nothing to end."""

    async def put(
        self, data: bytes | AsyncIterator[bytes], *, content_type: str, extension: str, expires_at: float | None
    ) -> str:
        """Keep a picture, whole or not at all; its key."""
        key = new_key(content_type, extension, expires_at)
        await self.keep(key, data)
        return key

    async def keep(self, key: str, data: bytes | AsyncIterator[bytes]) -> None:
        """Keep a picture under a key that `new_key` has made. Raises StorageError."""
        try:
            with self._draft(key) as draft:
                if isinstance(data, bytes):
                    await asyncio.to_thread(draft.publish, (data,))
                else:
                    await _write(draft, data)
        except OSError as error:
            raise StorageError(f"the picture could not be stored: {error}") from error

    @contextlib.contextmanager
    def _draft(self, key: str) -> Iterator[Draft]:
        path = self.path(key)
        draft = Draft(path, self._names) if self._budget is None else _Counted(path, self._names, self._make_room)
        try:
            yield draft
        finally:
            draft.discard()

    def path(self, key: str) -> Path:
        """Where a key's file lies, whether it is there or not. Raises NotFound."""
        return self._root / place_of(key)

    async def open(self, key: str) -> Stored:
        """The picture, if it is there and has not expired. A small one is read here and now: one thread, not three."""
        expires = self._alive(key)
        path = self.path(key)
        try:
            size, chunks = await asyncio.to_thread(_open, path)
        except FileNotFoundError:
            raise NotFound("There is no such file.") from None
        except OSError as error:
            raise StorageError(f"the picture could not be read: {error}") from error
        return Stored(
            key=key,
            size=size,
            content_type=type_of(key),
            expires_at=expires,
            etag=etag_of(key),
            chunks=chunks,
            path=path,
        )

    async def link(self, key: str, expires_at: float, base_url: str) -> str:
        """The URL by which anybody may read it until then."""
        return base_url + self.sign(key, expires_at)

    async def delete(self, key: str) -> None:
        """Forget a picture."""
        path = self.path(key)
        try:
            await asyncio.to_thread(self._unlink, path)
        except OSError as error:
            raise StorageError(f"the picture could not be deleted: {error}") from error

    def keys(self) -> list[str]:
        """All pictures that are here. Blocks."""
        return [path.name for folder in _listed(self._root) for path in _listed(folder) if is_key(path.name)]

    async def delete_expired(self, now: float) -> int:
        """Forget what expired before `now` and what failed writes left behind; how many pictures that were."""
        return await asyncio.to_thread(self._tidy, now)

    def _tidy(self, now: float) -> int:
        deleted = self._sweep(now)
        for path in _listed(self._tmp):
            with contextlib.suppress(FileNotFoundError):
                if path.stat().st_mtime < now - _STALE_SECONDS:
                    self._try_unlink(path)
        self._count()
        return deleted

    def _sweep(self, now: float) -> int:
        due = now - self._skew  # a URL is honoured a little longer than it says
        deleted = 0
        for folder in _listed(self._root):
            if not HOUR.fullmatch(folder.name) or int(folder.name, 16) * 3600 >= due:
                continue
            for path in _listed(folder):
                if is_due(path.name, due):
                    deleted += self._try_unlink(path)
            if (int(folder.name, 16) + 1) * 3600 < due:  # nobody writes there any more
                with contextlib.suppress(OSError):  # something is left that is not ours, or could not be deleted
                    folder.rmdir()
        return deleted

    def _try_unlink(self, path: Path) -> bool:
        try:
            return self._unlink(path)
        except OSError as error:  # one bad file must not keep the others
            log.warning("cannot delete %s: %s", path, error)
            return False

    def _unlink(self, path: Path) -> bool:
        """Whether it was there: another process sweeps as well."""
        try:
            size = path.stat().st_size if self._budget is not None else 0
            path.unlink()
        except FileNotFoundError:
            return False
        if self._budget is not None and path.parent != self._tmp:
            self._budget.free(size)
        return True

    # ---- room

    def free_bytes(self) -> int:
        """How much can still be put; nothing if the folder is gone."""
        try:
            disk = shutil.disk_usage(self._root)
        except OSError:
            return 0
        free = disk.free - min(self._reserve, disk.total // 20)
        if self._budget is not None:
            free = min(free, self._budget.left() - min(self._reserve, self._budget_bytes // 20))
        return max(0, free)

    def trouble(self) -> str | None:
        """A disk works, or `free_bytes` says that it does not."""
        return None

    def _make_room(self, size: int) -> Budget:
        """Claim room in the budget, if need be by a sweep. Raises StorageError."""
        assert self._budget is not None
        if not self._budget.claim(size):
            self._sweep(self._clock())
            if not self._budget.claim(size):
                raise StorageError(f"the store holds all of its {self._budget_bytes} bytes (storage.budget_bytes)")
        return self._budget

    def _count(self) -> None:
        """What the directory truly holds: other processes write and delete there as well."""
        if self._budget is None:
            return
        self._budget.begin_count()
        total = 0
        for folder in _listed(self._root):
            for path in _listed(folder) if folder != self._tmp else ():
                with contextlib.suppress(OSError):
                    total += path.stat().st_size
        self._budget.end_count(total)


class _Counted(Draft):
    """A draft whose bytes are claimed before they are written."""

    def __init__(self, path: Path, tmp: Path | None, make_room: Callable[[int], Budget]) -> None:
        super().__init__(path, tmp)
        self._make_room = make_room
        self._lock = threading.Lock()  # a put that is given up ends in another thread than it writes in
        self._claims: list[tuple[Budget, int]] = []

    def publish(self, pieces: Sequence[bytes] = ()) -> None:
        super().publish(pieces)
        self._settle(kept=True)

    def discard(self) -> None:
        super().discard()
        self._settle(kept=False)

    def _append(self, file: Descriptor, pieces: Sequence[bytes]) -> None:
        size = sum(map(len, pieces))
        budget = self._make_room(size)
        with self._lock:
            self._claims.append((budget, size))
        if self._discarded:
            self._settle(kept=False)
        super()._append(file, pieces)

    def _settle(self, *, kept: bool) -> None:
        with self._lock:
            claims, self._claims = self._claims, []
        for budget, size in claims:
            budget.settle(size, kept=kept)


async def _write(draft: Draft, chunks: AsyncIterator[bytes]) -> None:
    """Pieces are gathered, so that a small picture is one thread's work as well."""
    pending: list[bytes] = []
    size = 0
    async for chunk in chunks:
        pending.append(chunk)
        size += len(chunk)
        if size >= CHUNK_BYTES:
            await asyncio.to_thread(draft.write, pending)
            pending, size = [], 0
    await asyncio.to_thread(draft.publish, pending)


def _open(path: Path) -> tuple[int, Callable[[int, int], AsyncGenerator[bytes, None]]]:
    file = Opened(path)
    if file.size > CHUNK_BYTES:
        return file.size, partial(_read, file)
    data = file.read(file.size, 0)
    return len(data), partial(_slice, data)


async def _slice(data: bytes, start: int, end: int) -> AsyncGenerator[bytes, None]:
    if start < end:
        yield data[start:end]


async def _read(file: Opened, start: int, end: int) -> AsyncGenerator[bytes, None]:
    while start < end:
        try:
            chunk = await asyncio.to_thread(file.read, min(CHUNK_BYTES, end - start), start)
        except OSError as error:
            raise StorageError(f"the picture could not be read: {error}") from error
        if not chunk:
            raise StorageError("the picture is shorter than it was")
        start += len(chunk)
        yield chunk


def _listed(folder: Path) -> list[Path]:
    try:
        return list(folder.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return []
