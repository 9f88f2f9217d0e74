"""Which key is it: by what it hashes to, in the database, and for a moment from memory.

A key has 256 random bits, so plain SHA-256 is all that its hash needs: there is nothing to guess, and a pepper would be
one more secret that several gateways on one database have to share, and with which all keys are lost.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, cast

from app.errors import Overloaded
from app.store.db import StoreError
from app.store.keys import KeyRow, KeyStore
from app.types import Caller, ResponseFormat
from providers.base import Clock

# How long an answer of the database is good for. A revoked key is refused within a second, whoever revoked it.
LOOK_SECONDS = 0.75
MOST_KNOWN, MOST_UNKNOWN = 10_000, 1_000

_Found = tuple[KeyRow, Caller]


def digest_of(key: str) -> str:
    """What a key hashes to, in hex: all 256 bits, here as in the cache."""
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).hexdigest()


class KeyRing:
    """Looks keys up. One for the whole process."""

    def __init__(self, store: KeyStore, clock: Clock, *, now: Callable[[], float]) -> None:
        self._store = store
        self._clock = clock
        self._now = now
        self._known: OrderedDict[str, tuple[_Found, float]] = OrderedDict()  # and until when that is good
        self._unknown: OrderedDict[str, float] = OrderedDict()
        self._looking: dict[str, asyncio.Task[_Found | None]] = {}
        self._has_keys = False
        self._has_none_until = 0.0

    async def caller(self, digest: str) -> Caller | None:
        """Whose key hashes to this, if it may be used now. Raises Overloaded."""
        found = await self._find(digest)
        if found is None:
            return None
        row, caller = found
        # The database found it by an index, whose timing tells nothing that a caller could choose; all the same.
        if not any(_same(stored, digest) for stored in (row.digest, row.old_digest)):
            return None
        return caller if row.opens(digest, self._now()) else None

    async def has_keys(self) -> bool:
        """Whether any key was ever made. Raises Overloaded."""
        if not self._has_keys and self._clock.monotonic() >= self._has_none_until:
            try:
                self._has_keys = await self._store.any()
            except StoreError as error:
                raise _unreadable(error) from None
            self._has_none_until = self._clock.monotonic() + LOOK_SECONDS
        return self._has_keys

    def forget(self) -> None:
        """Keys have been changed here: look again."""
        self._known.clear()
        self._unknown.clear()
        self._looking.clear()
        self._has_none_until = 0.0

    async def _find(self, digest: str) -> _Found | None:
        now = self._clock.monotonic()
        if (known := self._known.get(digest)) is not None and now < known[1]:
            return known[0]
        if now < self._unknown.get(digest, 0.0):
            return None
        looking = self._looking.get(digest)
        if looking is None:  # many requests with one key at once: one of them asks
            looking = asyncio.create_task(self._look(digest))
            self._looking[digest] = looking
            looking.add_done_callback(lambda task: self._looked(digest, task))
        try:
            return await asyncio.shield(looking)
        except StoreError as error:
            raise _unreadable(error) from None

    def _looked(self, digest: str, task: asyncio.Task[_Found | None]) -> None:
        if self._looking.get(digest) is task:
            del self._looking[digest]
        if not task.cancelled():
            task.exception()  # it may be that nobody waits for it any more

    async def _look(self, digest: str) -> _Found | None:
        until = self._clock.monotonic() + LOOK_SECONDS  # what it finds is as old as the question
        row = await self._store.by_digest(digest)
        found = None if row is None else (row, caller_of(row))
        if self._looking.get(digest) is not asyncio.current_task():
            return found  # keys were changed meanwhile
        self._known.pop(digest, None)
        self._unknown.pop(digest, None)
        if found is None:
            self._unknown[digest] = until
            _bound(self._unknown, MOST_UNKNOWN)
        else:
            self._known[digest] = (found, until)
            _bound(self._known, MOST_KNOWN)
        return found


def caller_of(row: KeyRow) -> Caller:
    """Who has this key, and what it says."""
    return Caller(
        row.id,
        row.name,
        response_format=cast(ResponseFormat | None, row.response_format),
        strict=bool(row.strict),
        models=None if row.models is None else frozenset(json.loads(row.models)),
        has_budget=not (row.budget_day is row.budget_month is row.budget_total is None),
        requests_per_minute=row.requests_per_minute,
        images_per_minute=row.images_per_minute,
        concurrent_jobs=row.concurrent_jobs,
    )


def _same(stored: str | None, digest: str) -> bool:
    return stored is not None and hmac.compare_digest(stored, digest)


def _bound(entries: OrderedDict[str, Any], most: int) -> None:
    while len(entries) > most:
        entries.popitem(last=False)


def _unreadable(error: StoreError) -> Overloaded:
    return Overloaded("The gateway cannot look keys up at the moment.", detail=str(error), retry_after=5)
