"""API keys as rows. A key itself is nowhere in them: only what it hashes to, and what is shown of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from app.store import money
from app.store.db import Database, Statement
from app.store.money import Standing

_MOST_AT_ONCE = 500  # standings asked for in one statement


@dataclass(frozen=True, slots=True)
class KeyRow:
    """A key. Times are Unix seconds, budgets millionths of a dollar; a limit of None is none. `models` is JSON."""

    id: str
    name: str
    digest: str  # SHA-256 of the key, in hex
    prefix: str
    last4: str
    created: float
    old_digest: str | None = None  # of the key that it replaced, which works until `old_until`
    old_until: float | None = None
    expires: float | None = None
    revoked: float | None = None
    budget_day: int | None = None
    budget_month: int | None = None
    budget_total: int | None = None
    requests_per_minute: int | None = None
    images_per_minute: int | None = None
    concurrent_jobs: int | None = None
    models: str | None = None
    response_format: str | None = None
    strict: int = 0

    def opens(self, digest: str, now: float) -> bool:
        """Whether what hashes to this may be used now."""
        if self.revoked is not None or (self.expires is not None and self.expires <= now):
            return False
        return digest == self.digest or (
            digest == self.old_digest and self.old_until is not None and now < self.old_until
        )


CHANGEABLE = frozenset(
    {
        "name",
        "expires",
        "budget_day",
        "budget_month",
        "budget_total",
        "requests_per_minute",
        "images_per_minute",
        "concurrent_jobs",
        "models",
        "response_format",
        "strict",
    }
)
_COLUMNS = ", ".join(field.name for field in fields(KeyRow))
_SELECT = f"SELECT {_COLUMNS} FROM api_keys"  # noqa: S608


class KeyStore:
    """The keys in a database. Every method may raise StoreError, and may then be repeated."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def add(self, row: KeyRow) -> None:
        """Enter a new key."""
        places = ", ".join(f"${number}" for number in range(1, len(fields(KeyRow)) + 1))
        values = tuple([getattr(row, field.name) for field in fields(KeyRow)])
        await self._db.run((f"INSERT INTO api_keys ({_COLUMNS}) VALUES ({places}) ON CONFLICT DO NOTHING", values))  # noqa: S608

    async def any(self) -> bool:
        """Whether there is a key, or ever was: one that is revoked stays."""
        return bool(await self._db.read("SELECT 1 FROM api_keys LIMIT 1"))

    async def by_digest(self, digest: str) -> KeyRow | None:
        """The key that hashes to this, or that replaced one which does; whether it may be used is another question."""
        rows = await self._db.read(
            f"{_SELECT} WHERE digest = $1 UNION ALL {_SELECT} WHERE old_digest = $1 AND digest <> $1", digest
        )
        return KeyRow(*rows[0]) if rows else None

    async def get(self, id: str) -> KeyRow | None:
        """The key of this id."""
        rows = await self._db.read(f"{_SELECT} WHERE id = $1", id)
        return KeyRow(*rows[0]) if rows else None

    async def listing(self, before: tuple[float, str] | None, limit: int) -> list[KeyRow]:
        """Keys, newest first, after the (created, id) `before`."""
        where = "" if before is None else "WHERE (created, id) < ($2, $3)"
        rows = await self._db.read(
            f"{_SELECT} {where} ORDER BY created DESC, id DESC LIMIT $1",
            limit,
            *(before or ()),
        )
        return [KeyRow(*row) for row in rows]

    async def change(self, id: str, changes: Mapping[str, Any]) -> KeyRow | None:
        """The key with other limits; None if there is none of that id which is not revoked."""
        assert CHANGEABLE.issuperset(changes)
        if not changes:
            return await self.get(id)
        sets = ", ".join(f"{column} = ${number}" for number, column in enumerate(changes, 2))
        sql = f"UPDATE api_keys SET {sets} WHERE id = $1 AND revoked IS NULL"  # noqa: S608
        return await self._changed((sql, (id, *changes.values())))

    async def rotate(self, id: str, digest: str, prefix: str, last4: str, old_until: float | None) -> KeyRow | None:
        """Another key takes the place of this one, which works until then. None as for `change`."""
        return await self._changed(
            (
                "UPDATE api_keys SET old_digest = CASE WHEN digest = $2 THEN old_digest ELSE digest END,"
                " old_until = $5, digest = $2, prefix = $3, last4 = $4 WHERE id = $1 AND revoked IS NULL",
                (id, digest, prefix, last4, old_until),
            )
        )

    async def revoke(self, id: str, now: float) -> KeyRow | None:
        """The key is of no use any more. None if there is none of that id."""
        return await self._changed(("UPDATE api_keys SET revoked = coalesce(revoked, $2) WHERE id = $1", (id, now)))

    async def standings(self, ids: Sequence[str], now: float) -> dict[str, Standing]:
        """What these keys may spend, have spent and have reserved."""
        found: dict[str, Standing] = {}
        for first in range(0, len(ids), _MOST_AT_ONCE):
            sql, values = money.standings(ids[first : first + _MOST_AT_ONCE], now + self._db.ahead)
            found |= {row[0]: money.standing_of(row) for row in await self._db.read(sql, *values)}
        return found

    async def _changed(self, statement: Statement) -> KeyRow | None:
        sql, values = statement
        (rows,) = await self._db.run((f"{sql} RETURNING {_COLUMNS}", values))
        return KeyRow(*rows[0]) if rows else None
