"""Files that appear under their name complete and on disk, or not at all; and files that are read by position.

A draft has no name (O_TMPFILE) until it is published, where the file system can do that: nothing has to be tidied up
after a failure, and it costs fewer calls. Elsewhere it has one in `tmp` and is renamed. Descriptors close with their
last user, by reference count: a thread that still writes for a request that was cancelled keeps its descriptor from
being closed, and given to another file, under its hands.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import weakref
from collections.abc import Sequence
from pathlib import Path

_MODE = 0o600
_FOLDER_MODE = 0o700


class Draft:
    """One file that is being written. All methods block."""

    def __init__(self, path: Path, tmp: Path | None) -> None:
        """Nothing is touched yet. `tmp`: the folder where it has a name until it is published; None: it needs none."""
        self._path = path
        self._named = tmp / path.name if tmp else None
        self._discarded = False
        self._file: Descriptor | None = None
        self._folder: Descriptor | None = None

    def write(self, pieces: Sequence[bytes]) -> None:
        """Append some bytes."""
        self._append(self._ready(), pieces)

    def _ready(self) -> Descriptor:
        """The file; none any more if this thread is late, and its request was given up."""
        if self._discarded:
            raise OSError(errno.ECANCELED, "it was given up")
        file = self._file = self._file or self._create()
        return file

    def _append(self, file: Descriptor, pieces: Sequence[bytes]) -> None:
        for piece in pieces:
            view = memoryview(piece)
            while view:
                view = view[os.write(file.number, view) :]

    def publish(self, pieces: Sequence[bytes] = ()) -> None:
        """Append the last bytes; then the file is there, and stays there whatever happens to the machine."""
        file = self._ready()
        self._append(file, pieces)
        os.fsync(file.number)
        self._ready()
        try:
            self._name(file, self._folder or _open_folder(self._path.parent))
        except FileNotFoundError:  # a sweep has just taken the folder away
            self._name(file, _open_folder(self._path.parent))
        self._file = self._folder = None  # closed here, where it may take its time

    def discard(self) -> None:
        """Leave nothing behind; no harm if it was published."""
        if self._named is not None and self._file is not None:
            with contextlib.suppress(OSError):
                self._named.unlink()
        self._discarded = True
        self._file = self._folder = None

    def _create(self) -> Descriptor:
        if self._named is not None:
            return Descriptor(os.open(self._named, os.O_CREAT | os.O_EXCL | os.O_WRONLY, _MODE))
        try:
            return self._nameless(_open_folder(self._path.parent))
        except FileNotFoundError:
            return self._nameless(_open_folder(self._path.parent))

    def _nameless(self, folder: Descriptor) -> Descriptor:
        self._folder = folder
        return Descriptor(os.open(".", os.O_TMPFILE | os.O_WRONLY, _MODE, dir_fd=folder.number))

    def _name(self, file: Descriptor, folder: Descriptor) -> None:
        if self._named is None:
            # Only with a dir_fd does Python call linkat(AT_SYMLINK_FOLLOW), which open(2) asks for here.
            os.link(f"/proc/self/fd/{file.number}", self._path.name, dst_dir_fd=folder.number)
        else:
            os.replace(self._named, self._path.name, dst_dir_fd=folder.number)
            self._named = None
        os.fsync(folder.number)


class Opened:
    """A file that is there, read by position."""

    def __init__(self, path: Path) -> None:
        """Blocks, as all of it. Raises OSError."""
        self._file = Descriptor(os.open(path, os.O_RDONLY))
        self.size = os.fstat(self._file.number).st_size

    def read(self, length: int, offset: int) -> bytes:
        """Up to `length` bytes; fewer only at the end."""
        return os.pread(self._file.number, length, offset)


class Descriptor:
    """Closes when nobody holds it."""

    def __init__(self, number: int) -> None:
        self.number = number
        weakref.finalize(self, os.close, number)


def can_be_nameless(folder: Path) -> bool:
    """Whether drafts in this file system can do without a name: tried, because nothing tells."""
    trial = folder / f"trial-{secrets.token_hex(8)}"
    try:
        Draft(trial, None).publish()
        trial.unlink()
    except (OSError, AttributeError):  # not Linux, an old overlayfs or NFS, no /proc
        return False
    return True


def sync_folder(folder: Path) -> None:
    """What was created, renamed or deleted in a folder stays so."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _open_folder(folder: Path) -> Descriptor:
    """A folder, made if it is not there."""
    try:
        return Descriptor(os.open(folder, os.O_RDONLY | os.O_DIRECTORY))
    except FileNotFoundError:
        folder.mkdir(mode=_FOLDER_MODE, exist_ok=True)
        sync_folder(folder.parent)
        return Descriptor(os.open(folder, os.O_RDONLY | os.O_DIRECTORY))
