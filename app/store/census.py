"""How many jobs are in a state that somebody has to look at."""

from __future__ import annotations

from app.store.db import Database
from app.store.jobs import OPEN, JobState

WATCHED: tuple[JobState, ...] = (*OPEN, "unresolved")
# By the index on states: the jobs that have ended, which are most of them, are not looked at.
_STATES = ", ".join(f"'{state}'" for state in WATCHED)
_COUNT = f"SELECT state, count(*) FROM jobs WHERE state IN ({_STATES}) GROUP BY state"  # noqa: S608


class Census:
    """Counts."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def open_jobs(self) -> dict[str, int]:
        """Jobs by state, of those that are open or were given up. Raises StoreError."""
        return {state: int(jobs) for state, jobs in await self._db.read(_COUNT)}
