"""SQLite: one file, one thread that writes, one that reads, one that reads what takes long.

All that waits to be written goes into one commit (synchronous=FULL: one wait for the disk), and so does what comes
before it; a commit under way gathers the next batch by itself. Alone a transaction costs one commit, a hundred at once
cost two. If one of them fails, all are done anew in savepoints of their own, so that it fails alone. Reads have their
own connection: in WAL mode no writer, not even another process's, stops them.

The file must lie on a local disk: WAL needs memory that all processes share, which a network file system does not give.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import sqlite3
from collections.abc import Callable, Sequence
from contextlib import closing
from functools import lru_cache, partial
from pathlib import Path
from typing import Any
from urllib.parse import quote

from app.store.db import Row, Statement, StoreError, StoreRefusal, StoreUnusable
from app.store.lane import Lane
from app.store.migrations import RECORD, VERSION, VERSIONS, pending

BUSY_SECONDS = 5.0  # how long another process may hold the lock
CAPACITY = 10_000  # transactions, and reads, that may wait
BATCH = 200  # transactions after which a commit does not take along those that have come meanwhile
REPORTS = 100  # of what takes long, that may wait
_OLDEST = (3, 35, 0)  # RETURNING
_CHECKPOINT_PAGES = 4000  # of the write-ahead log (16 MB): what is written again and again goes to the file once
_WAL_BYTES = 64 << 20  # what a burst of writes may leave behind of the write-ahead log
# https://www.sqlite.org/rescode.html: what is not the statement's fault.
_TRANSIENT = {
    sqlite3.SQLITE_BUSY,
    sqlite3.SQLITE_LOCKED,
    sqlite3.SQLITE_PROTOCOL,
    sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_NOMEM,
}
# After these the connection is not to be trusted; a new one works as soon as the cause is gone.
_SPOILT = {
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_CANTOPEN,
    sqlite3.SQLITE_READONLY,
    sqlite3.SQLITE_CORRUPT,
    sqlite3.SQLITE_NOTADB,
    sqlite3.SQLITE_NOMEM,
}
# A string, a quoted name or a comment, which stay as they are; or a placeholder.
_TOKEN = re.compile(r"'[^']*'|\"[^\"]*\"|--[^\n]*|/\*.*?\*/|\$(?P<number>[0-9]+)", re.DOTALL)


class SqliteDatabase:
    """A `Database` in a file. Several processes may share it."""

    label = "SQLite"
    clock: str | None = None  # all who share a file are on one machine
    ahead = 0.0
    holding = ""  # one writes at a time

    def __init__(self, path: Path, *, busy_seconds: float = BUSY_SECONDS, capacity: int = CAPACITY) -> None:
        self.commits = 0
        self._path = path
        self._busy_seconds = busy_seconds
        self._capacity = capacity
        self._writing = _Connection(path, busy_seconds)
        self._reading = _Connection(path, busy_seconds)
        self._reporting = _Connection(path, busy_seconds)
        self._writer: Lane[tuple[Statement, ...], list[list[Row]]] | None = None
        self._reader: Lane[Statement, list[Row]] | None = None
        self._reporter: Lane[Statement, list[Row]] | None = None

    async def open(self) -> None:
        """See Database. A file that is not there is made."""
        await asyncio.to_thread(_prepare, self._path, self._busy_seconds)
        self._writer = Lane("sqlite writer", self._write, self._end_writing, self._capacity)
        self._reader = Lane("sqlite reader", partial(_read, self._reading), self._reading.close, self._capacity)
        self._reporter = Lane("sqlite reports", partial(_read, self._reporting), self._reporting.close, REPORTS)

    async def run(self, *statements: Statement, turn: str | None = None) -> list[list[Row]]:
        """See Database."""
        if self._writer is None:
            raise StoreError("the database is not open")
        return await self._writer.do(statements)

    tidy = run

    async def read(self, sql: str, *values: Any) -> list[Row]:
        """See Database."""
        if self._reader is None:
            raise StoreError("the database is not open")
        return await self._reader.do((sql, values))

    async def report(self, sql: str, *values: Any) -> list[Row]:
        """See Database."""
        if self._reporter is None:
            raise StoreError("the database is not open")
        return await self._reporter.do((sql, values))

    async def close(self) -> None:
        """See Database."""
        for lane in (self._reporter, self._reader, self._writer):
            if lane is not None:
                await lane.close()

    # ---- in the writer's thread

    def _write(
        self, units: list[tuple[Statement, ...]], more: Callable[[], list[tuple[Statement, ...]]] = list
    ) -> list[list[list[Row]] | Exception]:
        results: list[list[list[Row]] | Exception] = []
        units = list(units)
        try:
            connection = self._writing.get()
            connection.execute("BEGIN IMMEDIATE")  # the lock now, not when others have read what will have changed
            try:
                while len(results) < len(units):
                    results += [_all_rows(connection, unit) for unit in units[len(results) :]]
                    if len(units) < BATCH:
                        units += more()
            except Exception as error:
                if _code(error) in _SPOILT:
                    raise
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                return [_failure(error)] if len(units) == 1 else self._write_apart(units)
            connection.execute("COMMIT")
        except sqlite3.Error as error:
            raise self._writing.failed(error) from None
        self.commits += 1
        return results

    def _write_apart(self, units: list[tuple[Statement, ...]]) -> list[list[list[Row]] | Exception]:
        """One of them fails: it does so alone. Savepoints are for this, since each keeps a copy of all it changes."""
        results: list[list[list[Row]] | Exception] = []
        try:
            connection = self._writing.get()
            connection.execute("BEGIN IMMEDIATE")
            for unit in units:
                results.append(_savepoint(connection, unit))
                if not connection.in_transaction:  # a full disk costs the whole of it, not one savepoint
                    return self._write_singly(units)
            connection.execute("COMMIT")
        except sqlite3.Error as error:
            raise self._writing.failed(error) from None
        self.commits += 1
        return results

    def _write_singly(self, units: list[tuple[Statement, ...]]) -> list[list[list[Row]] | Exception]:
        results: list[list[list[Row]] | Exception] = []
        for unit in units:
            try:
                results += self._write([unit])
            except StoreError as error:  # nothing can be written at all
                return results + [StoreError(str(error)) for _ in units[len(results) :]]
        return results

    def _end_writing(self) -> None:
        with contextlib.suppress(sqlite3.Error, StoreError):
            self._writing.get().execute("PRAGMA wal_checkpoint(TRUNCATE)")
        self._writing.close()


class _Connection:
    """One thread's connection, made anew after an error that may have spoilt it."""

    def __init__(self, path: Path, busy_seconds: float) -> None:
        self._path = path
        self._busy_seconds = busy_seconds
        self._connection: sqlite3.Connection | None = None
        self._file: tuple[int, int] | None = None

    def get(self) -> sqlite3.Connection:
        """Raises sqlite3.Error; StoreError if the file is not the one that it was."""
        found = _identity(self._path)
        self._file = self._file or found
        if found is None or found != self._file:
            # SQLite would not notice: it would go on to write to what nobody can read any more.
            raise StoreError(f"{self._path} was taken away or replaced while the gateway is running")
        if self._connection is None:
            self._connection = _connect(self._path, self._busy_seconds)
        return self._connection

    def failed(self, error: Exception) -> StoreError:
        """What a failure means; the connection can be used again."""
        if self._connection is not None:
            with contextlib.suppress(sqlite3.Error):
                self._connection.rollback()
        if _code(error) in _SPOILT:
            self.close()
        return _failure(error)

    def close(self) -> None:
        if self._connection is not None:
            with contextlib.suppress(sqlite3.Error):
                self._connection.close()
            self._connection = None


def _read(own: _Connection, units: list[Statement], more: Callable[[], list[Statement]]) -> list[list[Row] | Exception]:
    """In a reader's thread."""
    return [_read_one(own, *unit) for unit in units]


def _read_one(own: _Connection, sql: str, values: tuple[Any, ...]) -> list[Row] | Exception:
    try:
        return own.get().execute(native(sql), values).fetchall()
    except StoreError as error:
        return error
    except Exception as error:  # noqa: BLE001 - the caller's, not the thread's
        return own.failed(error)


def _savepoint(connection: sqlite3.Connection, statements: Sequence[Statement]) -> list[list[Row]] | Exception:
    """One caller's part of a transaction, which is over if it took all of it along. Raises sqlite3.Error if even the
    connection is spoilt."""
    connection.execute("SAVEPOINT unit")
    try:
        rows = _all_rows(connection, statements)
    except Exception as error:
        if _code(error) in _SPOILT:
            raise
        if connection.in_transaction:
            connection.execute("ROLLBACK TO unit")
            connection.execute("RELEASE unit")
        return _failure(error)
    connection.execute("RELEASE unit")
    return rows


def _all_rows(connection: sqlite3.Connection, statements: Sequence[Statement]) -> list[list[Row]]:
    return [connection.execute(native(sql), values).fetchall() for sql, values in statements]


@lru_cache(1024)
def native(sql: str) -> str:
    """SQLite's spelling of placeholders: ?1 for $1."""
    return _TOKEN.sub(lambda match: f"?{match['number']}" if match["number"] else match[0], sql)


def _code(error: Exception) -> int:
    return getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF


def _failure(error: Exception) -> StoreError:
    # SQLite's own messages name tables and columns, never values; Python's may, of values that it cannot bind.
    if not isinstance(error, sqlite3.Error):
        return StoreRefusal(f"SQLite refused it: {type(error).__name__}")
    if _code(error) in _TRANSIENT | _SPOILT:
        return StoreError(f"SQLite: {error}")
    return StoreRefusal(f"SQLite refused it: {error}")


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        found = os.stat(path)  # noqa: PTH116 - at each transaction: Path's own takes three times as long
    except OSError:
        return None
    return found.st_dev, found.st_ino


# ---- opening


def _connect(path: Path, busy_seconds: float) -> sqlite3.Connection:
    """A connection to a file that is there: a database that has gone is not silently replaced by an empty one."""
    connection = sqlite3.connect(
        f"file:{quote(os.fsencode(path))}?mode=rw",
        uri=True,
        timeout=busy_seconds,
        isolation_level=None,  # transactions are ours
        cached_statements=256,
    )
    try:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA foreign_keys = ON")
        connection.execute("PRAGMA secure_delete = ON")  # what is purged is overwritten, not only let go of
        connection.execute(f"PRAGMA wal_autocheckpoint = {_CHECKPOINT_PAGES}")
        connection.execute(f"PRAGMA journal_size_limit = {_WAL_BYTES}")
    except BaseException:
        connection.close()
        raise
    return connection


def _prepare(path: Path, busy_seconds: float) -> None:
    """A sound database with all its tables at `path`."""
    if sqlite3.sqlite_version_info < _OLDEST:
        raise StoreUnusable(f"SQLite {sqlite3.sqlite_version} is too old: 3.35 or newer is needed")
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))  # what callers ask for is nobody else's business
    except OSError as error:
        raise StoreUnusable(f"{path} cannot be opened: {error.strerror}") from None
    try:
        with closing(_connect(path, busy_seconds)) as connection:
            if connection.execute("PRAGMA journal_mode").fetchone() != ("wal",):
                raise StoreUnusable(f"{path}: no write-ahead log can be kept there: is it on a network file system?")
            (verdict,) = connection.execute("PRAGMA quick_check(1)").fetchone()
            if verdict != "ok":
                raise StoreUnusable(_damaged(path, verdict))
            _migrate(connection)
    except StoreUnusable as error:
        raise StoreUnusable(str(error) if str(path) in str(error) else f"{path}: {error}") from None
    except sqlite3.Error as error:
        if _code(error) in _TRANSIENT:
            raise StoreError(f"{path}: {error}") from None
        raise StoreUnusable(_damaged(path, str(error))) from None


def _damaged(path: Path, why: str) -> str:
    reason = " ".join(why.split())  # SQLite's has several lines
    return (
        f"{path} is damaged or no database of imagegate ({reason}): restore a backup, or move it away to start afresh"
    )


def _migrate(connection: sqlite3.Connection) -> None:
    if not pending(_version(connection)):
        return  # the lock is not needed: another process may be at work
    connection.execute("BEGIN IMMEDIATE")
    connection.execute(VERSIONS)
    for number, statements in pending(_version(connection)):
        for statement in statements:
            connection.execute(statement)
        connection.execute(native(RECORD), (number,))
    connection.execute("COMMIT")


def _version(connection: sqlite3.Connection) -> int:
    if not connection.execute("SELECT 1 FROM sqlite_schema WHERE name = 'schema_version'").fetchone():
        return 0
    (version,) = connection.execute(VERSION).fetchone()
    return int(version)
