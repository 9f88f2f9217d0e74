"""The contract of a database: transactions in, rows out; and the choice of one by its URL.

SQL is written by hand, once, in the words that SQLite and PostgreSQL share: TEXT, BIGINT, DOUBLE PRECISION,
INSERT … ON CONFLICT, RETURNING, placeholders $1, $2 …
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import unquote, urlsplit

Statement = tuple[str, tuple[Any, ...]]  # SQL with placeholders, and their values
Row = tuple[Any, ...]

FORMS = "empty (SQLite in the data folder), sqlite:///path/to/file or postgresql://user:password@host/database"


class StoreError(Exception):
    """The database could not do it now: locked, full, gone, slow. It may work later.

    Of a `run` it is not certain that nothing was written: a commit's answer can be lost. So statements are written in
    such a way that they may be repeated.
    """


class StoreRefusal(StoreError):
    """The database will never do it: a constraint or a type is against it, or the SQL is wrong. A defect of ours."""


class StoreUnusable(Exception):
    """A database that the gateway must not start with: damaged, or of a newer version. For the operator to read."""


class Database(Protocol):
    """One database, used by many tasks of one event loop."""

    label: str  # "SQLite", "PostgreSQL": for logs and /readyz
    clock: str | None  # SQL for Unix seconds by the clock that all who share it go by; None: they have the same one
    ahead: float  # seconds by which that clock was ahead of this process's own when it was last looked at
    holding: str  # SQL behind a SELECT: nobody changes the rows that it found before the transaction has ended

    async def open(self) -> None:
        """Bring its tables up to date. Before this, everything is a StoreError.

        Raises StoreUnusable, and StoreError if it may work later.
        """

    async def run(self, *statements: Statement, turn: str | None = None) -> list[list[Row]]:
        """One transaction, durable when this returns; the rows of each statement (RETURNING, SELECT). `turn`: those
        with the same would wait for one another's locks.

        A caller that is cancelled does not wait any longer, but its transaction goes on: what it was about to write
        of money may be written all the same. Raises StoreError.
        """

    async def tidy(self, *statements: Statement) -> list[list[Row]]:
        """As `run`, for what may take long: nobody waits for it who wants to buy."""

    async def read(self, sql: str, *values: Any) -> list[Row]:
        """The rows of one SELECT. Raises StoreError."""

    async def report(self, sql: str, *values: Any) -> list[Row]:
        """As `read`, for what may take long: nothing else waits for it. Raises StoreError."""

    async def close(self) -> None:
        """Finish what was begun. Afterwards everything is a StoreError."""


def database_for(url: str, data_dir: Path) -> Database:
    """The database at `url`, in `data_dir` if that is empty; still to be opened. Raises ValueError."""
    scheme = url.partition("://")[0]
    if not url or scheme == "sqlite":
        from app.store.sqlite import SqliteDatabase

        return SqliteDatabase(sqlite_path(url) if url else data_dir / "imagegate.db")
    if scheme in ("postgresql", "postgres"):
        from app.store.postgres import PostgresDatabase  # asyncpg: 70 ms that only those pay who use it

        return PostgresDatabase(url)
    # Without a scheme it may be anything, a password too.
    named = f", not {scheme}://…" if "://" in url and re.fullmatch(r"[a-z][a-z0-9+.-]{1,20}", scheme) else ""
    raise ValueError(f"the database URL must be {FORMS}{named}")


async def open_database(url: str, data_dir: Path) -> Database:
    """The database at `url`, opened. Raises ValueError, StoreUnusable, StoreError."""
    database = database_for(url, data_dir)
    await database.open()
    return database


def sqlite_path(url: str) -> Path:
    """The file of sqlite:///path/to/file; the path is absolute, with three slashes as with four."""
    try:
        parts = urlsplit(url)
    except ValueError:
        parts = urlsplit("")
    path = unquote(parts.path).lstrip("/")
    if parts.netloc or parts.query or parts.fragment or not path or "\0" in path:
        raise ValueError(f"the database URL must be {FORMS}; a path is absolute, and nothing follows it")
    return Path("/", path)
