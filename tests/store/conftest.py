"""Both databases, for tests that hold for either."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from app.store.db import Database, open_database
from app.store.jobs import JobStore
from app.store.reports import ReportStore
from app.store.upkeep import Upkeep
from tests.fakes.postgres import PostgresServer


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


class Place:
    """An empty database, which several processes, or what stands for them, may open."""

    def __init__(self, url: str, folder: Path, stack: AsyncExitStack) -> None:
        self.url = url
        self._folder = folder
        self._stack = stack

    async def open(self) -> Database:
        """One process's view of it, closed when the test ends."""
        database = await open_database(self.url, self._folder)
        self._stack.push_async_callback(database.close)
        return database


@pytest.fixture(params=["SQLite", "PostgreSQL"])
async def place(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Place]:
    """Each of the databases in turn."""
    url = f"sqlite://{tmp_path}/test.db"
    if request.param == "PostgreSQL":
        server: PostgresServer = request.getfixturevalue("postgres")
        url = await server.new_database()
    async with AsyncExitStack() as stack:
        yield Place(url, tmp_path, stack)


@pytest.fixture
async def server_place(postgres: PostgresServer, tmp_path: Path) -> AsyncIterator[Place]:
    """The one that gateways on several machines can share."""
    async with AsyncExitStack() as stack:
        yield Place(await postgres.new_database(), tmp_path, stack)


@pytest.fixture
async def database(place: Place) -> Database:
    """It, opened."""
    return await place.open()


@pytest.fixture
def store(database: Database) -> JobStore:
    """The journal in it."""
    return JobStore(database)


@pytest.fixture
def reports(database: Database) -> ReportStore:
    """What is read of it."""
    return ReportStore(database)


@pytest.fixture
def upkeep(database: Database) -> Upkeep:
    """What keeps it small."""
    return Upkeep(database)
