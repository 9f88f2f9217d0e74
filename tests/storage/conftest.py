"""An S3 server for the whole session."""

from __future__ import annotations

import secrets
from collections.abc import Iterator

import pytest

from tests.fakes.s3 import FaultyProxy, S3Server

pytest.register_assert_rewrite("tests.storage.contract")


@pytest.fixture(scope="session")
def s3() -> Iterator[S3Server]:
    """With a bucket called `pictures`."""
    with S3Server() as server:
        server.make_bucket("pictures")
        yield server


@pytest.fixture
def faulty(s3: S3Server) -> Iterator[FaultyProxy]:
    """The same server, with faults on its way."""
    with FaultyProxy(s3.port) as proxy:
        yield proxy


@pytest.fixture
def prefix() -> str:
    """A part of the bucket that no other test has."""
    return secrets.token_hex(8)
