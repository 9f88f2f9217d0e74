"""Rows of the journal, with what a test does not care about filled in."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from app.store.db import Database
from app.store.jobs import INSERT_JOB, JobRow, RequestRow, values_of
from app.store.keys import KeyRow

NOW = 1_800_000_000.25


def request_row(id: str, **fields: Any) -> RequestRow:
    """A request of "anna" that runs, entered at NOW."""
    defaults: dict[str, Any] = {
        "caller": "anna",
        "key": None,
        "fingerprint": "f" * 64,
        "state": "running",
        "owner": "one",
        "lease": NOW + 6,
        "created": NOW,
        "deadline": NOW + 180,
        "keep_until": NOW + 86_400,
        "plan": '{"model": "é ✓"}',
        "quote": '{"total": "0.03"}',
    }
    return RequestRow(id=id, **{**defaults, **fields})


def unleased(row: Any) -> RequestRow:
    """A request without its lease: that was given by the database's clock, which no test knows."""
    assert isinstance(row, RequestRow)
    return replace(row, lease=0)


def job_row(id: str, request: str, **fields: Any) -> JobRow:
    """A job that is about to be submitted at NOW."""
    defaults: dict[str, Any] = {
        "first": 0,
        "count": 1,
        "state": "intent",
        "provider": "fal",
        "endpoint": "fal-ai/edit",
        "mark": "0123",
        "created": NOW,
        "updated": NOW,
    }
    return JobRow(id=id, request=request, **{**defaults, **fields})


def key_row(id: str, **fields: Any) -> KeyRow:
    """A key that was made at NOW, without any limit."""
    defaults: dict[str, Any] = {
        "name": id,
        "digest": f"digest of {id}",
        "prefix": "ig_abcd",
        "last4": "wxyz",
        "created": NOW,
    }
    return KeyRow(id=id, **{**defaults, **fields})


async def enter(database: Database, *jobs: JobRow) -> None:
    """Jobs as they are, whatever their requests' state and whoever owns them."""
    await database.run(*((INSERT_JOB, values_of(job)) for job in jobs))
