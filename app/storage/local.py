"""Pictures as files in a directory.

    <root>/<expiry's hour, hex>/<expiry, 8 hex><random, 32 hex>.png       e.g. 675a6/691c24f0a1b2….png
    <root>/keep-<2 hex>/ffffffff<random>.png                              what never expires
    <root>/tmp/                                                           what is being written

The expiry is in the name, not in the file's time, a side-car or a database: copies, restores and restarts lose
nothing, there is no second thing to keep in step, and a bucket of objects can do the same. The folder per hour makes
the sweep look only at what is due, however much there is. Files appear under their name complete and on disk (written
in `tmp`, fsync, rename, fsync of the folder), so the other folders never hold half of anything.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import hmac
import logging
import math
import os
import re
import secrets as randomness
import shutil
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import BinaryIO

from app.errors import Expired, InvalidSignature, NotFound
from app.storage.base import CONTENT_TYPES, StorageError, Stored

CHUNK_BYTES = 1 << 20
MIN_SECRET_BYTES = 32  # HMAC-SHA256 wants a key as long as its hash, RFC 2104
_NEVER = 0xFFFFFFFF  # the year 2106
_STALE_SECONDS = 3600  # no write takes so long: a temporary file of that age has lost its writer
_KEY = re.compile(rf"(?P<expires>[0-9a-f]{{8}})(?P<name>[0-9a-f]{{32}})\.(?P<extension>{'|'.join(CONTENT_TYPES)})")
_HOUR = re.compile(r"[0-9a-f]{1,6}")
_QUERY = re.compile(r"exp=(?P<exp>[1-9][0-9]{0,10})&sig=(?P<sig>[A-Za-z0-9_-]{43})")

log = logging.getLogger(__name__)


class LocalStorage:
    """A `Storage` on a local disk. Several processes may share the directory."""

    def __init__(
        self,
        root: Path,
        secrets: Sequence[bytes],
        clock: Callable[[], float],
        skew_seconds: float = 60,
        *,
        reserve_bytes: int = 0,
    ) -> None:
        """The first secret signs, each verifies: to change it, put a new one before the old. `reserve_bytes` of the
        disk are not to be used, on a small disk 5 % of it: others need room, too, the journal first of all."""
        if not secrets or any(len(secret) < MIN_SECRET_BYTES for secret in secrets):
            raise ValueError(f"storage needs one secret or more, each of {MIN_SECRET_BYTES} bytes at least")
        self._root = root
        self._tmp = root / "tmp"
        self._secrets = tuple(secrets)
        self._clock = clock
        self._skew = skew_seconds
        self._reserve = reserve_bytes
        self._tmp.mkdir(parents=True, exist_ok=True, mode=0o700)

    async def put(
        self, data: bytes | AsyncIterator[bytes], *, content_type: str, extension: str, expires_at: float | None
    ) -> str:
        """Keep a picture, whole or not at all; its key."""
        if CONTENT_TYPES.get(extension) != content_type:
            raise ValueError(f"a .{extension} file is no {content_type}")
        expires = _NEVER if expires_at is None else math.ceil(expires_at)
        if expires_at is not None and not 0 < expires < _NEVER:
            raise ValueError(f"{expires_at} is no time to expire at")
        key = f"{expires:08x}{randomness.token_hex(16)}.{extension}"
        try:
            if isinstance(data, bytes):
                await asyncio.to_thread(self._write, key, (data,))
            else:
                await self._write_stream(key, data)
        except OSError as error:
            raise StorageError(f"the picture could not be stored: {error}") from error
        return key

    def _write(self, key: str, chunks: Sequence[bytes]) -> None:
        with self._temporary(key) as file:
            file.writelines(chunks)
            self._publish(file, key)

    async def _write_stream(self, key: str, chunks: AsyncIterator[bytes]) -> None:
        with self._temporary(key) as file:
            async for chunk in chunks:
                await asyncio.to_thread(file.write, chunk)
            await asyncio.to_thread(self._publish, file, key)

    @contextlib.contextmanager
    def _temporary(self, key: str) -> Iterator[BinaryIO]:
        path = self._tmp / key
        with open(path, "xb", opener=partial(os.open, mode=0o600)) as file:  # Path.open has no opener
            try:
                yield file
            finally:
                path.unlink(missing_ok=True)  # it is not there any more if it was published

    def _publish(self, file: BinaryIO, key: str) -> None:
        file.flush()
        os.fsync(file.fileno())
        path = self._path(key)
        try:
            os.replace(file.name, path)  # noqa: PTH105
        except FileNotFoundError:  # the folder: it is a new hour, or a sweep has just taken it away
            path.parent.mkdir(mode=0o700, exist_ok=True)
            os.replace(file.name, path)  # noqa: PTH105
            _sync_folder(self._root)
        _sync_folder(path.parent)

    def _path(self, key: str) -> Path:
        """Where a key's file lies. The only way from a key to the disk."""
        match = _KEY.fullmatch(key)
        if match is None:
            raise NotFound("There is no such file.")
        expires = int(match["expires"], 16)
        folder = f"keep-{match['name'][:2]}" if expires == _NEVER else f"{expires // 3600:x}"
        return self._root / folder / key

    async def open(self, key: str) -> Stored:
        """The picture, if it is there and has not expired."""
        path = self._path(key)
        expires = int(key[:8], 16)
        if expires != _NEVER and self._clock() > expires + self._skew:
            raise NotFound("There is no such file.")
        try:
            size = (await asyncio.to_thread(path.stat)).st_size
        except FileNotFoundError:
            raise NotFound("There is no such file.") from None
        except OSError as error:
            raise StorageError(f"the picture could not be read: {error}") from error
        return Stored(
            key=key,
            size=size,
            content_type=CONTENT_TYPES[path.suffix[1:]],
            expires_at=None if expires == _NEVER else expires,
            etag=f'"{path.stem}"',  # a key's bytes never change
            chunks=partial(_read, path),
            path=path,
        )

    def sign(self, key: str, expires_at: float) -> str:
        """The path and query by which anybody may read it until then."""
        self._path(key)
        expires = math.ceil(expires_at)
        return f"/files/{key}?exp={expires}&sig={_signature(self._secrets[0], key, expires)}"

    def expiry(self, key: str) -> float | None:
        """When a picture expires."""
        self._path(key)
        expires = int(key[:8], 16)
        return None if expires == _NEVER else expires

    def verify(self, key: str, query: str) -> int:
        """When the signature of a requested URL runs out. `query` is the raw query string."""
        self._path(key)
        match = _QUERY.fullmatch(query)
        if match is None:
            raise InvalidSignature("The URL's signature is not valid.")
        expires = int(match["exp"])
        valid = False
        for secret in self._secrets:  # all of them, so that time does not tell which one it was
            valid |= hmac.compare_digest(_signature(secret, key, expires), match["sig"])
        if not valid:
            raise InvalidSignature("The URL's signature is not valid.")
        if self._clock() > expires + self._skew:
            raise Expired("The URL has expired.")
        return expires

    async def delete(self, key: str) -> None:
        """Forget a picture."""
        path = self._path(key)
        try:
            await asyncio.to_thread(path.unlink, missing_ok=True)
        except OSError as error:
            raise StorageError(f"the picture could not be deleted: {error}") from error

    async def delete_expired(self, now: float) -> int:
        """Forget what expired before `now` and what failed writes left behind; how many pictures that were."""
        return await asyncio.to_thread(self._sweep, now)

    def _sweep(self, now: float) -> int:
        due = now - self._skew  # a URL is honoured a little longer than it says
        deleted = 0
        for folder in _listed(self._root):
            if not _HOUR.fullmatch(folder.name) or int(folder.name, 16) * 3600 >= due:
                continue
            for path in _listed(folder):
                if _KEY.fullmatch(path.name) and int(path.name[:8], 16) < due:
                    deleted += _unlink(path)
            if (int(folder.name, 16) + 1) * 3600 < due:  # nobody writes there any more
                with contextlib.suppress(OSError):  # something is left that is not ours, or could not be deleted
                    folder.rmdir()
        for path in _listed(self._tmp):
            with contextlib.suppress(FileNotFoundError):
                if path.stat().st_mtime < now - _STALE_SECONDS:
                    _unlink(path)
        return deleted

    def free_bytes(self) -> int:
        """How much can still be put; nothing if the folder is gone."""
        try:
            disk = shutil.disk_usage(self._root)
        except OSError:
            return 0
        return max(0, disk.free - min(self._reserve, disk.total // 20))


def load_or_create_secret(path: Path) -> bytes:
    """The secret in a file, as raw bytes; made up and written (hex, mode 0600) if there is no such file.

    Several processes that start at once agree on one: the file appears complete, and only the first can make it.
    """
    try:
        return _load_secret(path)
    except FileNotFoundError:
        pass
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{randomness.token_hex(8)}")
    try:
        with open(draft, "x", opener=partial(os.open, mode=0o600), encoding="ascii") as file:
            file.write(randomness.token_hex(MIN_SECRET_BYTES) + "\n")
            file.flush()
            os.fsync(file.fileno())
        try:
            path.hardlink_to(draft)  # unlike a rename it fails if another process was first
        except FileExistsError:
            pass
        except OSError:  # a file system without hard links
            draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)
    _sync_folder(path.parent)
    return _load_secret(path)


def _load_secret(path: Path) -> bytes:
    try:
        secret = bytes.fromhex(path.read_text("ascii").strip())
    except ValueError:
        raise ValueError(f"{path} does not hold a secret in hexadecimal digits") from None
    if len(secret) < MIN_SECRET_BYTES:
        raise ValueError(f"{path} holds a secret of less than {MIN_SECRET_BYTES} bytes")
    return secret


def _signature(secret: bytes, key: str, expires: int) -> str:
    digest = hmac.digest(secret, f"imagegate files v1\n{key}\n{expires}".encode(), hashlib.sha256)
    return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()


async def _read(path: Path, start: int, end: int) -> AsyncGenerator[bytes, None]:
    try:
        file = await asyncio.to_thread(path.open, "rb")
    except FileNotFoundError:
        raise NotFound("There is no such file.") from None
    with file:
        file.seek(start)
        while start < end:
            chunk = await asyncio.to_thread(file.read, min(CHUNK_BYTES, end - start))
            if not chunk:
                raise StorageError(f"{path.name} is shorter than it was")
            start += len(chunk)
            yield chunk


def _listed(folder: Path) -> list[Path]:
    try:
        return list(folder.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return []


def _unlink(path: Path) -> bool:
    try:
        path.unlink()
    except FileNotFoundError:  # another process sweeps as well
        return False
    except OSError as error:  # one bad file must not keep the others
        log.warning("cannot delete %s: %s", path, error)
        return False
    return True


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
