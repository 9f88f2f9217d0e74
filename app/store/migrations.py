"""The tables, as numbered steps that are only ever added to. Both databases understand them.

Times are Unix seconds. Amounts of money are decimals as text: neither database rounds them. JSON is text: nothing in it
is searched for.
"""

from __future__ import annotations

from app.store.db import StoreUnusable

VERSIONS = "CREATE TABLE IF NOT EXISTS schema_version (version BIGINT NOT NULL PRIMARY KEY)"
VERSION = "SELECT coalesce(max(version), 0) FROM schema_version"
RECORD = "INSERT INTO schema_version (version) VALUES ($1)"

JOURNAL = (
    """
    CREATE TABLE requests (
        id TEXT NOT NULL PRIMARY KEY,
        caller TEXT NOT NULL,
        key TEXT,
        fingerprint TEXT NOT NULL,
        state TEXT NOT NULL,
        owner TEXT,
        lease DOUBLE PRECISION NOT NULL,
        created DOUBLE PRECISION NOT NULL,
        deadline DOUBLE PRECISION NOT NULL,
        keep_until DOUBLE PRECISION NOT NULL,
        plan TEXT NOT NULL,
        quote TEXT NOT NULL,
        answer TEXT
    )
    """,
    # The key comes first in it: an operator looks for a key without knowing whose it is.
    "CREATE UNIQUE INDEX requests_key ON requests (key, caller) WHERE key IS NOT NULL",
    "CREATE INDEX requests_key_end ON requests (keep_until) WHERE key IS NOT NULL",
    "CREATE INDEX requests_repeat ON requests (caller, fingerprint, created, id)",
    "CREATE INDEX requests_newest ON requests (created, id)",
    "CREATE INDEX requests_of_caller ON requests (caller, created, id)",
    # Also for those that are not settled. The lease is in no index: PostgreSQL renews it without touching any.
    "CREATE INDEX requests_state ON requests (state, created, id)",
    """
    CREATE TABLE jobs (
        id TEXT NOT NULL PRIMARY KEY,
        request TEXT NOT NULL REFERENCES requests (id) ON DELETE CASCADE,
        first BIGINT NOT NULL,
        count BIGINT NOT NULL,
        state TEXT NOT NULL,
        provider TEXT NOT NULL,
        endpoint TEXT NOT NULL,
        mark TEXT NOT NULL,
        created DOUBLE PRECISION NOT NULL,
        updated DOUBLE PRECISION NOT NULL,
        job TEXT,
        ticket TEXT,
        cost TEXT,
        verdict TEXT
    )
    """,
    "CREATE INDEX jobs_of_request ON jobs (request, first, created)",
    "CREATE INDEX jobs_job ON jobs (job) WHERE job IS NOT NULL",
    "CREATE INDEX jobs_bound ON jobs (provider, endpoint, updated) WHERE job IS NOT NULL",
    "CREATE INDEX jobs_state ON jobs (state, request)",
)

STEPS: tuple[tuple[str, ...], ...] = (JOURNAL,)


def pending(version: int) -> tuple[tuple[int, tuple[str, ...]], ...]:
    """The steps that a database of this version lacks, with their numbers. Raises StoreUnusable if it is newer."""
    if version > len(STEPS):
        raise StoreUnusable(
            f"the database was written by a newer imagegate (its tables are version {version}, this one knows "
            f"{len(STEPS)}): start that version, or restore a backup from before the upgrade"
        )
    return tuple(enumerate(STEPS[version:], version + 1))
