"""What the tests of fal's adapter share: one sandbox per worker, and a fresh `fal` in front of it for each test."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest

from tests.fakes.sandbox import SandboxServer
from tests.providers.upstream import FalUpstream


@pytest.fixture(scope="session")
def fal_server() -> Iterator[SandboxServer]:
    with SandboxServer() as server:
        yield server


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
async def fal(fal_server: SandboxServer, anyio_backend: str) -> AsyncIterator[FalUpstream]:
    fal_server.reset()
    upstream = FalUpstream(fal_server)
    yield upstream
    await upstream.http.aclose()
