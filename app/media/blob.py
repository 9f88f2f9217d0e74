"""Bytes, wherever they are: in memory (`MemoryBlob`), in a nameless file (`FileBlob`), or still coming (`Spool`).

`SplicedBlob` is what is left of another blob when something has been cut out of it.

The file has no name and closes with its last reader, by reference count: a cancelled upload cannot leave one behind,
and a thread that still reads or writes keeps its descriptor from being closed, and given to another file, under its
hands.
"""

from __future__ import annotations

import _thread
import asyncio
import hashlib
import mmap
import os
import tempfile
import weakref
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import suppress
from pathlib import Path

import pybase64

from app.errors import Overloaded
from app.media.buffer import Buffer
from providers.base import Blob

_PIECE = 512 * 1024  # what `chunks` hands out at a time
_ENCODED = 384 * 1024  # what becomes base64 at a time; a multiple of three
_DRAIN_AT = 512 * 1024  # pending bytes before `drain` writes
_FREE = 64 * 1024  # bytes of any spool that stay in memory
_LARGE = 4 * 1024 * 1024  # bytes of a file that takes a while to close
_HEAD = 64  # bytes kept for sniffing


def _close(descriptor: int) -> None:
    """Close a nameless file. Its pages go with it, 4 ms for 20 MB: those of a large one in a thread."""
    if os.fstat(descriptor).st_size >= _LARGE:
        with suppress(RuntimeError):  # no thread to be had
            _thread.start_new_thread(os.close, (descriptor,))  # `threading` would wait until it has begun
            return
    os.close(descriptor)


class _TempFile:
    """A file without a name, read and written by position, closed when nobody holds it."""

    def __init__(self, directory: Path | None) -> None:
        with tempfile.TemporaryFile(dir=directory, buffering=0) as file:
            self._fd = os.dup(file.fileno())
        weakref.finalize(self, _close, self._fd)

    def write(self, pieces: Sequence[bytes | memoryview], offset: int) -> None:
        for piece in pieces:
            view = memoryview(piece)
            while view:
                written = os.pwrite(self._fd, view, offset)
                offset += written
                view = view[written:]

    def read(self, length: int, offset: int) -> bytes:
        parts = []
        while length > 0:
            part = os.pread(self._fd, length, offset)
            if not part:
                raise OSError("the spooled file is shorter than it was")
            parts.append(part)
            offset += len(part)
            length -= len(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def view(self, length: int) -> mmap.mmap:
        """The first `length` bytes, mapped: nothing is copied, and what is not looked at is not read."""
        return mmap.mmap(self._fd, length, access=mmap.ACCESS_READ)


class MemoryBlob:
    """Bytes in memory."""

    __slots__ = ("__weakref__", "_data")

    def __init__(self, data: bytes | memoryview) -> None:
        self._data = data if isinstance(data, bytes) else bytes(data)

    @property
    def size(self) -> int:
        """Length in bytes."""
        return len(self._data)

    @property
    def in_memory(self) -> bool:
        """`read` never touches the disk."""
        return True

    def read(self) -> bytes:
        """All bytes, not copied."""
        return self._data

    def view(self) -> Buffer:
        """The bytes, to be looked at."""
        return self._data

    def part(self, where: slice) -> bytes:
        """Some of the bytes, copied."""
        return self._data[where]

    async def chunks(self) -> AsyncIterator[bytes]:
        """The bytes, in one piece: they are there, and to cut them would be to copy them."""
        if self._data:
            yield self._data

    def close(self) -> None:
        """Let go of the bytes."""
        self._data = b""


async def in_base64(blob: Blob) -> AsyncIterator[bytes]:
    """The blob's bytes as base64 text, in pieces."""
    left = b""
    async for chunk in blob.chunks():
        data = memoryview(left + chunk if left else chunk)
        whole = len(data) - len(data) % 3
        for start in range(0, whole, _ENCODED):
            yield pybase64.b64encode(data[start : min(start + _ENCODED, whole)])
        left = bytes(data[whole:])
    if left:
        yield pybase64.b64encode(left)


class FileBlob:
    """Bytes in a nameless temporary file. Many may read it at once."""

    __slots__ = ("_file", "_size")

    def __init__(self, file: _TempFile, size: int) -> None:
        self._file: _TempFile | None = file
        self._size = size

    @property
    def size(self) -> int:
        """Length in bytes."""
        return self._size

    @property
    def in_memory(self) -> bool:
        """`read` touches the disk."""
        return False

    def read(self) -> bytes:
        """All bytes. Blocks: call it in a thread."""
        return self._open().read(self._size, 0) if self._size else b""

    def view(self) -> Buffer:
        """The bytes, to be looked at: mapped, not copied. Pages are read as they are touched: look in a thread."""
        return self._open().view(self._size) if self._size else b""

    def part(self, where: slice) -> bytes:
        """Some of the bytes. Blocks."""
        return self._open().read(where.stop - where.start, where.start)

    def again(self) -> FileBlob:
        """The same file, to be closed apart from this."""
        return FileBlob(self._open(), self._size)

    async def chunks(self) -> AsyncIterator[bytes]:
        """The bytes in pieces, each read in a thread."""
        file = self._open()
        for start in range(0, self._size, _PIECE):
            yield await asyncio.to_thread(file.read, min(_PIECE, self._size - start), start)

    def close(self) -> None:
        """Let go of the file; it is gone as soon as no reader is left."""
        self._file = None

    def _open(self) -> _TempFile:
        if self._file is None:
            raise ValueError("the blob was closed")
        return self._file


class SplicedBlob:
    """Stretches of another blob, and bytes between them. Nothing is joined before it is read.

    It holds the bytes by itself: closing the blob that they come from does not matter.
    """

    __slots__ = ("_parts", "_size", "_source")

    def __init__(self, source: Blob, parts: Sequence[bytes | slice]) -> None:
        self._source = source.again() if isinstance(source, FileBlob) else MemoryBlob(source.read())
        self._parts = tuple(parts)
        self._size = sum(part.stop - part.start if isinstance(part, slice) else len(part) for part in parts)

    @property
    def size(self) -> int:
        """Length in bytes."""
        return self._size

    @property
    def in_memory(self) -> bool:
        """Whether `read` never touches the disk."""
        return self._source.in_memory

    def read(self) -> bytes:
        """All bytes in one. May block."""
        return b"".join(map(self._joined, self._pieces()))

    def view(self) -> Buffer:
        """The bytes, to be looked at: these are copied."""
        return self.read()

    async def chunks(self) -> AsyncIterator[bytes]:
        """The bytes in pieces, none larger than the rest of us hand out."""
        for piece in self._pieces():
            yield self._joined(piece) if self.in_memory else await asyncio.to_thread(self._joined, piece)

    def close(self) -> None:
        """Let go of the bytes."""
        self._source.close()

    def _joined(self, piece: list[bytes | slice]) -> bytes:
        found = [self._source.part(part) if isinstance(part, slice) else part for part in piece]
        return found[0] if len(found) == 1 else b"".join(found)

    def _pieces(self) -> Iterator[list[bytes | slice]]:
        """The parts, long ones split and short ones together."""
        piece: list[bytes | slice] = []
        room = _PIECE
        for part in self._parts:
            start, stop = (part.start, part.stop) if isinstance(part, slice) else (0, len(part))
            while start < stop:
                end = min(stop, start + room)
                piece.append(slice(start, end) if isinstance(part, slice) else part[start:end])
                room -= end - start
                start = end
                if not room:
                    yield piece
                    piece, room = [], _PIECE
        if piece:
            yield piece


class Room:
    """Memory that all spools of the process share. Used from one thread, but for what `give` returns."""

    def __init__(self, size: int) -> None:
        """In bytes."""
        self._left = size

    @property
    def left(self) -> int:
        """Bytes that can still be taken."""
        return self._left

    def take(self, size: int) -> bool:
        """Whether there was so much."""
        if size > self._left:
            return False
        self._left -= size
        return True

    def give(self, size: int) -> None:
        """Back."""
        self._left += size


class Spool:
    """Takes bytes as they come: in memory up to `threshold`, then into a file.

        spool.write(chunk); await spool.drain()      # for each chunk
        blob, digest = spool.finish()

    `write` never blocks; `drain` writes what is pending in a thread, and hashes it there, and only when there is enough
    of it.
    A full disk is `Overloaded`. Who stops in between calls `discard`.
    """

    def __init__(
        self, threshold: int, directory: Path | None = None, *, digest: bool = True, room: Room | None = None
    ) -> None:
        """What stays in memory at most, and where the file goes; None: where temporary files go. `digest`: whether a
        sha-256 is wanted, which costs more than all the rest. `room`: where more than 64 KiB has to be taken from;
        without any left the file is begun at once."""
        self._threshold = threshold
        self._directory = directory
        self._room = room
        self._taken = 0  # from the room
        self._pending: list[bytes | memoryview] = []
        self._pending_size = 0
        self._file: _TempFile | None = None
        self._filed = 0  # bytes that are in the file
        self._size = 0
        self._head = b""
        self._hash = hashlib.sha256() if digest else None
        self._unhashed: list[bytes | memoryview] = []

    @property
    def size(self) -> int:
        """Bytes taken so far."""
        return self._size

    @property
    def head(self) -> bytes:
        """The first bytes (at most 64), for sniffing."""
        return self._head

    def write(self, chunk: bytes | bytearray | memoryview) -> None:
        """Take some bytes: not copied if nobody can change them."""
        piece: bytes | memoryview = bytes(chunk) if isinstance(chunk, bytearray) else chunk
        if isinstance(piece, memoryview) and not isinstance(piece.obj, bytes):
            piece = bytes(piece)
        if not piece:
            return
        if len(self._head) < _HEAD:
            self._head += bytes(piece[: _HEAD - len(self._head)])
        before, self._size = self._size, self._size + len(piece)
        if self._room is not None and before <= _FREE < self._size and self._threshold > _FREE:
            if self._room.take(self._threshold):
                self._taken = self._threshold
            else:
                self._threshold = _FREE
        if self._hash is not None:
            if self._size <= self._threshold:
                self._hash.update(piece)
            else:  # with what goes to the file, in its thread: of 20 MB it would take 15-50 ms of the event loop
                self._unhashed.append(piece)
        self._pending.append(piece)
        self._pending_size += len(piece)

    async def drain(self) -> None:
        """Write pending bytes to the file if they are many. Await it after each `write`."""
        if self._size > self._threshold and self._pending_size >= _DRAIN_AT:
            pieces, self._pending, offset = self._pending, [], self._filed
            self._filed += self._pending_size
            self._pending_size = 0
            unhashed, self._unhashed = self._unhashed, []
            await asyncio.to_thread(self._flush, pieces, offset, unhashed)

    def finish(self) -> tuple[Blob, str]:
        """All of it as a blob, and its sha-256 in hex, if that is wanted. To be called once."""
        size = self._size
        blob: Blob
        if size <= self._threshold:
            blob = MemoryBlob(bytes(self._pending[0]) if len(self._pending) == 1 else b"".join(self._pending))
            if self._room is not None and self._taken:
                self._taken -= size  # what it needs stays taken for as long as it lives
                weakref.finalize(blob, self._room.give, size).atexit = False
        else:
            self._flush(
                self._pending, self._filed, self._unhashed
            )  # below _DRAIN_AT and one chunk: a copy into the page cache
            assert self._file is not None
            blob = FileBlob(self._file, size)
        digest = self._hash.hexdigest() if self._hash is not None else ""
        self.discard()
        return blob, digest

    def discard(self) -> None:
        """Forget everything."""
        if self._room is not None:
            self._room.give(self._taken)
        self._taken = 0
        self._pending, self._pending_size, self._unhashed = [], 0, []
        self._file, self._filed, self._size = None, 0, 0
        self._head = b""

    def _flush(self, pieces: Sequence[bytes | memoryview], offset: int, unhashed: Sequence[bytes | memoryview]) -> None:
        if self._hash is not None:
            for piece in unhashed:
                self._hash.update(piece)
        try:
            file = self._file
            if file is None:
                file = self._file = _TempFile(self._directory)
            file.write(pieces, offset)
        except OSError as error:
            raise Overloaded("There is no room to hold this upload at the moment.", detail=repr(error)) from error
