"""The tables, as numbered steps that are only ever added to. Both databases understand them.

Times are Unix seconds. Amounts of money are decimals as text, or whole millionths where they are added up: neither
database rounds them. JSON is text: nothing in it is searched for.
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

KEYS = (
    """
    CREATE TABLE api_keys (
        id TEXT NOT NULL PRIMARY KEY,
        name TEXT NOT NULL,
        digest TEXT NOT NULL,
        old_digest TEXT,
        old_until DOUBLE PRECISION,
        prefix TEXT NOT NULL,
        last4 TEXT NOT NULL,
        created DOUBLE PRECISION NOT NULL,
        expires DOUBLE PRECISION,
        revoked DOUBLE PRECISION,
        budget_day BIGINT,
        budget_month BIGINT,
        budget_total BIGINT,
        requests_per_minute BIGINT,
        images_per_minute BIGINT,
        concurrent_jobs BIGINT,
        models TEXT,
        response_format TEXT,
        strict BIGINT NOT NULL,
        reserved_at DOUBLE PRECISION
    )
    """,
    "CREATE UNIQUE INDEX api_keys_digest ON api_keys (digest)",
    "CREATE INDEX api_keys_old_digest ON api_keys (old_digest) WHERE old_digest IS NOT NULL",
    "CREATE INDEX api_keys_newest ON api_keys (created, id)",
    # What each caller has spent, in millionths of a dollar: of a UTC day, of a month, and in all. Kept by whoever ends
    # a job, in the same transaction.
    """
    CREATE TABLE spend (
        caller TEXT NOT NULL,
        span TEXT NOT NULL,
        micros BIGINT NOT NULL,
        PRIMARY KEY (caller, span)
    )
    """,
    # What may still be spent is the sum over these, and nothing beside them.
    "ALTER TABLE requests ADD COLUMN reserve BIGINT",
    "CREATE INDEX requests_unsettled ON requests (caller) WHERE state IN ('running', 'settling')",
    "ALTER TABLE jobs ADD COLUMN reserve BIGINT",
    "ALTER TABLE jobs ADD COLUMN micros BIGINT",
    "ALTER TABLE jobs ADD COLUMN booking TEXT",
)

# What a request is found by, and what it adds up to, beside its JSON. `cost` is in millionths of the currency's unit:
# whole numbers, which both databases add exactly; a job's own cost stays a decimal. `day` counts UTC days since 1970.
# `booked`: NULL = its numbers are in usage_days; 0 = not yet; 1 = being added, within one transaction; -1 = written by
# a gateway that did not have these columns yet (app.store.upkeep fills them in).
_CALLER_SUMS = "status, model, provider, error, state, pictures, cost, unknown, currency"
LOG = (
    "ALTER TABLE jobs ADD COLUMN made BIGINT NOT NULL DEFAULT 0",
    "ALTER TABLE requests ADD COLUMN caller_name TEXT NOT NULL DEFAULT ''",
    "ALTER TABLE requests ADD COLUMN model TEXT NOT NULL DEFAULT ''",
    "ALTER TABLE requests ADD COLUMN provider TEXT NOT NULL DEFAULT ''",
    "ALTER TABLE requests ADD COLUMN currency TEXT NOT NULL DEFAULT ''",
    "ALTER TABLE requests ADD COLUMN wanted BIGINT NOT NULL DEFAULT 0",
    "ALTER TABLE requests ADD COLUMN day BIGINT NOT NULL DEFAULT 0",
    "ALTER TABLE requests ADD COLUMN status TEXT NOT NULL DEFAULT 'running'",
    "ALTER TABLE requests ADD COLUMN error TEXT",
    "ALTER TABLE requests ADD COLUMN pictures BIGINT NOT NULL DEFAULT 0",
    "ALTER TABLE requests ADD COLUMN cost BIGINT NOT NULL DEFAULT 0",
    "ALTER TABLE requests ADD COLUMN unknown BIGINT NOT NULL DEFAULT 0",
    "ALTER TABLE requests ADD COLUMN booked BIGINT DEFAULT -1",
    # They hold all that a filter or a sum looks at: a row's JSON is not read for either.
    "DROP INDEX requests_newest",
    "DROP INDEX requests_of_caller",
    f"CREATE INDEX requests_newest ON requests (created, id, caller, {_CALLER_SUMS})",
    f"CREATE INDEX requests_of_caller ON requests (caller, created, id, {_CALLER_SUMS})",
    "CREATE INDEX requests_unbooked ON requests (booked, state) WHERE booked IS NOT NULL",
    """
    CREATE TABLE usage_days (
        day BIGINT NOT NULL,
        caller TEXT NOT NULL,
        model TEXT NOT NULL,
        provider TEXT NOT NULL,
        currency TEXT NOT NULL,
        caller_name TEXT NOT NULL,
        requests BIGINT NOT NULL,
        failed BIGINT NOT NULL,
        pictures BIGINT NOT NULL,
        cost BIGINT NOT NULL,
        unknown BIGINT NOT NULL,
        PRIMARY KEY (day, caller, model, provider, currency)
    )
    """,
    # No money is in it: it is written behind the request's back, and may be lost.
    """
    CREATE TABLE request_log (
        request TEXT NOT NULL PRIMARY KEY,
        created DOUBLE PRECISION NOT NULL,
        details TEXT NOT NULL,
        payload TEXT
    )
    """,
    "CREATE INDEX request_log_created ON request_log (created)",
    "CREATE INDEX request_log_payload ON request_log (created) WHERE payload IS NOT NULL",
)

# Each change of a request's state was two of this index. What is under way is found by requests_unsettled; of the
# others nearly all are settled.
FEWER = ("DROP INDEX requests_state",)

STEPS: tuple[tuple[str, ...], ...] = (JOURNAL, KEYS, LOG, FEWER)


def pending(version: int) -> tuple[tuple[int, tuple[str, ...]], ...]:
    """The steps that a database of this version lacks, with their numbers. Raises StoreUnusable if it is newer."""
    if version > len(STEPS):
        raise StoreUnusable(
            f"the database was written by a newer imagegate (its tables are version {version}, this one knows "
            f"{len(STEPS)}): start that version, or restore a backup from before the upgrade"
        )
    return tuple(enumerate(STEPS[version:], version + 1))
