"""What keeps the journal small, and its sums by day true. Everything goes in bounded transactions: others want to write
as well. Each statement may be repeated, because a commit's answer can be lost.

An open job, and money that is in no sum yet, are never taken: only what is settled and booked is purged.
"""

from __future__ import annotations

from collections.abc import Sequence

from app.store.db import Database, Row, Statement
from app.store.jobs import INSERT_REQUEST, SUMS, RequestRow, values_of

PURGE_ROWS = 500  # a transaction

_SUMS = ("requests", "failed", "pictures", "cost", "unknown")


class Upkeep:
    """Every method may raise StoreError, and may then be repeated."""

    def __init__(self, db: Database) -> None:
        self._db = db

    # ---- sums by day

    async def book(self) -> int:
        """Add what has been settled to the sums by day; how many requests that were. Once only: they are marked in the
        same transaction, and a settled request's numbers do not change any more."""
        return await self._in_portions(
            (
                "UPDATE requests SET booked = 1 WHERE booked = 0 AND state = 'settled' AND id IN"
                " (SELECT id FROM requests WHERE booked = 0 AND state = 'settled' LIMIT $1)",
                (PURGE_ROWS,),
            ),
            (
                "INSERT INTO usage_days (day, caller, model, provider, currency, caller_name,"  # noqa: S608
                f" {', '.join(_SUMS)})"
                " SELECT day, caller, model, provider, currency, max(caller_name), count(*),"
                " sum(CASE WHEN status IN ('failed', 'cancelled') THEN 1 ELSE 0 END), sum(pictures), sum(cost),"
                " sum(unknown) FROM requests WHERE booked = 1"
                " GROUP BY day, caller, model, provider, currency ORDER BY day, caller, model, provider, currency"
                " ON CONFLICT (day, caller, model, provider, currency) DO UPDATE SET"
                " caller_name = excluded.caller_name,"
                f" {', '.join(f'{name} = usage_days.{name} + excluded.{name}' for name in _SUMS)}",
                (),
            ),
            ("UPDATE requests SET booked = NULL WHERE booked = 1 RETURNING id", ()),
        )

    async def unread(self) -> list[tuple[RequestRow, list[tuple[str, str]]]]:
        """Some settled requests of a gateway that does not fill in their columns, each with its jobs' ids and verdicts.
        (It may still be running beside this one: what is not settled, it will write to.)"""
        columns = ", ".join(RequestRow.__dataclass_fields__)
        rows = await self._db.read(
            f"SELECT {columns} FROM requests WHERE booked = -1 AND state = 'settled' LIMIT $1",  # noqa: S608
            PURGE_ROWS,
        )
        found: dict[str, tuple[RequestRow, list[tuple[str, str]]]] = {row[0]: (RequestRow(*row), []) for row in rows}
        if found:
            places = ", ".join(f"${number}" for number in range(1, len(found) + 1))
            sql = f"SELECT request, id, verdict FROM jobs WHERE verdict IS NOT NULL AND request IN ({places})"  # noqa: S608
            for request, id, verdict in await self._db.read(sql, *found):
                found[request][1].append((id, verdict))
        return list(found.values())

    async def fill(self, filled: Sequence[tuple[RequestRow, dict[str, int]]]) -> None:
        """These requests' columns, read from their JSON; and how many pictures each of their jobs made. What has been
        answered meanwhile keeps its status."""
        statements: list[Statement] = []
        for row, made in filled:
            statements += [("UPDATE jobs SET made = $2 WHERE id = $1 AND made < $2", pair) for pair in made.items()]
            statements.append(
                (
                    "UPDATE requests SET booked = 0, caller_name = $2, model = $3, provider = $4, currency = $5,"  # noqa: S608
                    " wanted = $6, day = $7, status = CASE WHEN status = 'running' THEN $8 ELSE status END,"
                    " error = CASE WHEN status = 'running' THEN $9 ELSE error END,"
                    f" {SUMS} WHERE id = $1 AND booked = -1",
                    (
                        row.id,
                        row.caller_name,
                        row.model,
                        row.provider,
                        row.currency,
                        row.wanted,
                        row.day,
                        row.status,
                        row.error,
                    ),
                )
            )
        if statements:
            await self._db.tidy(*statements)

    # ---- the log beside the journal

    async def log(
        self, entries: Sequence[tuple[str, float, str, str | None]], requests: Sequence[RequestRow] = ()
    ) -> None:
        """Enter (request, created, details, payload); and requests that bought nothing, and so have no page yet."""
        statements: list[Statement] = [(INSERT_REQUEST, values_of(row)) for row in requests]
        statements += [
            (
                "INSERT INTO request_log (request, created, details, payload) VALUES ($1, $2, $3, $4)"
                " ON CONFLICT (request) DO NOTHING",
                entry,
            )
            for entry in entries
        ]
        await self._db.tidy(*statements)

    # ---- keeping it small

    async def purge(self, before: float) -> int:
        """Delete what was settled, booked, and entered before then, with its jobs and its log; how many requests that
        were."""
        done = await self._in_portions(
            (
                "DELETE FROM requests WHERE id IN (SELECT id FROM requests"
                " WHERE state = 'settled' AND booked IS NULL AND created < $1 ORDER BY created, id LIMIT $2)"
                " RETURNING id",
                (before, PURGE_ROWS),
            )
        )
        await self._in_portions(
            (
                "DELETE FROM request_log WHERE request IN (SELECT request FROM request_log AS old WHERE created < $1"
                " AND NOT EXISTS (SELECT 1 FROM requests WHERE requests.id = old.request) ORDER BY created LIMIT $2)"
                " RETURNING request",
                (before, PURGE_ROWS),
            )
        )
        return done

    async def purge_payloads(self, before: float) -> int:
        """Forget what was sent in requests that were entered before then; how many that were."""
        return await self._in_portions(
            (
                "UPDATE request_log SET payload = NULL WHERE request IN (SELECT request FROM request_log"
                " WHERE payload IS NOT NULL AND created < $1 ORDER BY created LIMIT $2) RETURNING request",
                (before, PURGE_ROWS),
            )
        )

    async def forget_keys(self, now: float) -> int:
        """Free the keys that mean nothing any more; how many that were."""
        return await self._in_portions(
            (
                "UPDATE requests SET key = NULL WHERE id IN"
                " (SELECT id FROM requests WHERE key IS NOT NULL AND state <> 'running' AND keep_until < $1"
                " ORDER BY keep_until, id LIMIT $2)"
                " RETURNING id",
                (now, PURGE_ROWS),
            )
        )

    async def _in_portions(self, *statements: Statement) -> int:
        """Until the last statement's rows are fewer than a portion."""
        done = 0
        while True:
            rows: list[Row] = (await self._db.tidy(*statements))[-1]
            done += len(rows)
            if len(rows) < PURGE_ROWS:
                return done
