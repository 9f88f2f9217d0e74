"""Keys, as whoever administers them sees them: made, listed, changed, replaced, revoked.

What a key may do comes as a mapping of JSON's values, from a request's body or a command's options: both are read, and
refused, in the same words.
"""

from __future__ import annotations

import json
import math
import secrets
import string
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal, InvalidOperation
from typing import Any

from app.catalogue.load import Catalogue
from app.errors import (
    AboveMaximum,
    BelowMinimum,
    EmptyString,
    InvalidType,
    InvalidValue,
    MissingParameter,
    ModelNotFound,
    NotFound,
    Overloaded,
    TooLong,
    UnknownParameter,
)
from app.keyring import digest_of
from app.params.values import check_text, shown
from app.store.db import StoreError
from app.store.keys import KeyRow, KeyStore
from app.store.money import MICRO, Standing

PREFIX = "ig_"
_ALPHABET = string.digits + string.ascii_letters
_LENGTH = 43  # of 62 characters: 256 bits
_SHOWN = len(PREFIX) + 4

BUDGETS = ("budget_day", "budget_month", "budget_total")
COUNTS = ("requests_per_minute", "images_per_minute", "concurrent_jobs")
FIELDS = ("name", *BUDGETS, *COUNTS, "models", "response_format", "strict", "expires_at", "expires_in")
LONGEST_NAME = 200
MOST_MODELS = 200
MOST_COUNT = 1_000_000
MOST_MONEY = Decimal(1_000_000_000)
LONGEST_LIFE = 100 * 365 * 86_400.0  # seconds
LONGEST_GRACE = 30 * 86_400.0


@dataclass(frozen=True, slots=True)
class Key:
    """A key as it stands. `secret`: the key itself, which is known only when it has just been made."""

    row: KeyRow
    standing: Standing
    secret: str | None = None


@dataclass(frozen=True, slots=True)
class Page:
    """Some keys, newest first."""

    keys: tuple[Key, ...]
    more: bool


class Keys:
    """All keys of a database. Every method may raise Overloaded."""

    def __init__(
        self, store: KeyStore, catalogue: Catalogue, *, now: Callable[[], float], changed: Callable[[], None]
    ) -> None:
        """`changed` is called after each change."""
        self._store = store
        self._catalogue = catalogue
        self._now = now
        self._changed = changed

    async def create(self, given: Mapping[str, Any]) -> Key:
        """A new key. Raises InvalidRequest that names the field."""
        limits = self._read(given)
        if "name" not in limits:
            raise MissingParameter("name")
        secret = _new_secret()
        row = KeyRow(
            id=f"key_{secrets.token_hex(12)}",
            digest=digest_of(secret),
            prefix=secret[:_SHOWN],
            last4=secret[-4:],
            created=self._now(),
            **limits,
        )
        try:
            await self._store.add(row)
            self._changed()
            return await self._standing(row, secret)
        except StoreError as error:
            raise _unwritable(error) from None

    async def page(self, after: str | None, limit: int) -> Page:
        """Keys, newest first, from the one after `after` on. Raises InvalidValue."""
        try:
            before = None
            if after is not None:
                last = await self._store.get(after)
                if last is None:
                    raise InvalidValue("Invalid 'after': there is no such key.", param="after")
                before = (last.created, last.id)
            rows = await self._store.listing(before, limit + 1)
            standings = await self._store.standings([row.id for row in rows[:limit]], self._now())
        except StoreError as error:
            raise _unwritable(error) from None
        return Page(tuple(Key(row, standings[row.id]) for row in rows[:limit]), len(rows) > limit)

    async def get(self, id: str) -> Key:
        """One key. Raises NotFound."""
        return await self._told(id, lambda: self._store.get(id))

    async def change(self, id: str, given: Mapping[str, Any]) -> Key:
        """Give a key other limits; those that are not given stay. Raises InvalidRequest, NotFound."""
        limits = self._read(given)
        key = await self.get(id)
        _must_live(key)
        return await self._told(id, lambda: self._store.change(id, limits))

    async def rotate(self, id: str, grace: float) -> Key:
        """Another secret for a key; the one that it had works for `grace` more seconds. Raises NotFound, InvalidValue
        if the key is revoked."""
        key = await self.get(id)
        _must_live(key)
        secret = _new_secret()
        until = self._now() + grace if grace else None
        return await self._told(
            id,
            lambda: self._store.rotate(id, digest_of(secret), secret[:_SHOWN], secret[-4:], until),
            secret,
        )

    async def revoke(self, id: str) -> Key:
        """The key opens nothing any more. Raises NotFound."""
        return await self._told(id, lambda: self._store.revoke(id, self._now()))

    async def _told(self, id: str, work: Callable[[], Any], secret: str | None = None) -> Key:
        if not id.isascii() or not id.isprintable():
            raise _not_found(id)
        try:
            row = await work()
            self._changed()
            if row is None:
                raise _not_found(id)
            return await self._standing(row, secret)
        except StoreError as error:
            raise _unwritable(error) from None

    async def _standing(self, row: KeyRow, secret: str | None) -> Key:
        return Key(row, (await self._store.standings([row.id], self._now()))[row.id], secret)

    # ---- what a key may do

    def _read(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """The columns that these fields change."""
        for name in given:
            if name not in FIELDS:
                raise UnknownParameter(f"Unknown parameter: '{shown(name)}'.", param=shown(name))
        limits: dict[str, Any] = {}
        for name, value in given.items():
            if name == "name":
                limits[name] = _name(value)
            elif name in BUDGETS:
                limits[name] = _money(name, value)
            elif name in COUNTS:
                limits[name] = _count(name, value)
            elif name == "models":
                limits[name] = self._models(value)
            elif name == "response_format":
                if value not in ("url", "b64_json", None):
                    raise InvalidValue(
                        "Invalid 'response_format': expected 'url', 'b64_json' or null.", param="response_format"
                    )
                limits[name] = value
            elif name == "strict":
                if not isinstance(value, bool):
                    raise _wrong_type(name, "a boolean")
                limits[name] = int(value)
        if "expires_at" in given and "expires_in" in given:
            raise InvalidValue("Give 'expires_at' or 'expires_in', not both.", param="expires_in")
        if "expires_at" in given:
            limits["expires"] = _moment(given["expires_at"], self._now())
        if "expires_in" in given:
            seconds = seconds_of("expires_in", given["expires_in"], LONGEST_LIFE)
            limits["expires"] = None if seconds is None else self._now() + seconds
        return limits

    def _models(self, value: Any) -> str | None:
        """Ids of models, as JSON; each is found by any of its names."""
        if value is None:
            return None
        if not isinstance(value, list) or not all(isinstance(one, str) for one in value):
            raise _wrong_type("models", "a list of strings, or null")
        if not 0 < len(value) <= MOST_MODELS:
            raise InvalidValue(
                f"Invalid 'models': expected 1 to {MOST_MODELS} models, or null for all of them.", param="models"
            )
        ids = set()
        for name in value:
            check_text("models", name)
            try:
                found = self._catalogue.require(name)
            except ModelNotFound as error:
                raise InvalidValue(f"Invalid 'models': {error.message}", param="models") from None
            if found.forced:
                raise InvalidValue(
                    f"Invalid 'models': '{shown(name)}' names one way to get a model. Name the model: "
                    f"'{found.model.id}'.",
                    param="models",
                )
            ids.add(found.model.id)
        return json.dumps(sorted(ids))


def describe(key: Key) -> dict[str, Any]:
    """A key as JSON. Money in dollars, times in Unix seconds."""
    row, standing = key.row, key.standing
    return {
        "id": row.id,
        "object": "key",
        "name": row.name,
        **({} if key.secret is None else {"key": key.secret}),
        "prefix": row.prefix,
        "last4": row.last4,
        "created": int(row.created),
        "expires": _seconds(row.expires),
        "revoked": _seconds(row.revoked),
        "limits": {
            **{name: _dollars(getattr(row, name)) for name in BUDGETS},
            **{name: getattr(row, name) for name in COUNTS},
            "models": None if row.models is None else json.loads(row.models),
            "response_format": row.response_format,
            "strict": bool(row.strict),
        },
        "spent": {
            "day": _dollars(standing.day),
            "month": _dollars(standing.month),
            "total": _dollars(standing.total),
            "reserved": _dollars(standing.reserved),
        },
    }


def seconds_of(name: str, value: Any, most: float) -> float | None:
    """A duration that a field gives. Raises InvalidRequest."""
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise _wrong_type(name, "a number of seconds")
    if value <= 0:
        raise BelowMinimum(f"Invalid '{name}': expected more than 0 seconds.", param=name, integer=False)
    if value > most:
        raise AboveMaximum(f"Invalid '{name}': expected at most {most:.0f} seconds.", param=name, integer=False)
    return float(value)


def _new_secret() -> str:
    return PREFIX + "".join(secrets.choice(_ALPHABET) for _ in range(_LENGTH))


def _name(value: Any) -> str:
    if not isinstance(value, str):
        raise _wrong_type("name", "a string")
    check_text("name", value)
    name = value.strip()
    if not name:
        raise EmptyString("Invalid 'name': expected at least one character.", param="name")
    if len(name) > LONGEST_NAME:
        raise TooLong(f"Invalid 'name': expected at most {LONGEST_NAME} characters.", param="name")
    if not name.isprintable():
        raise InvalidValue("Invalid 'name': expected printable characters.", param="name")
    return name


def _money(name: str, value: Any) -> int | None:
    """Dollars -> millionths. 0 is a budget, too."""
    if value is None:
        return None
    try:
        if isinstance(value, bool) or not isinstance(value, int | float | str | Decimal):
            raise InvalidOperation
        amount = Decimal(str(value)[:64].strip())
        if not amount.is_finite():
            raise InvalidOperation
    except InvalidOperation:
        raise _wrong_type(name, "an amount in US dollars, such as 12.50, or null") from None
    if amount < 0:
        raise BelowMinimum(f"Invalid '{name}': expected at least 0.", param=name, integer=False)
    if amount > MOST_MONEY:
        raise AboveMaximum(f"Invalid '{name}': expected at most {MOST_MONEY}.", param=name, integer=False)
    if amount % MICRO:
        raise InvalidValue(f"Invalid '{name}': expected at most six decimal places.", param=name)
    return int(amount / MICRO)


def _count(name: str, value: Any) -> int | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int):
        raise _wrong_type(name, "an integer, or null")
    if value < 1:
        raise BelowMinimum(f"Invalid '{name}': expected at least 1.", param=name)
    if value > MOST_COUNT:
        raise AboveMaximum(f"Invalid '{name}': expected at most {MOST_COUNT}.", param=name)
    return value


def _moment(value: Any, now: float) -> float | None:
    if value is None:
        return None
    try:
        moment = datetime.fromisoformat(value)
        seconds = moment.timestamp()
    except (TypeError, ValueError, OverflowError):
        moment = None
    if moment is None or moment.tzinfo is None:
        raise InvalidValue(
            "Invalid 'expires_at': expected a time such as '2030-01-31T12:00:00Z', with its offset from UTC.",
            param="expires_at",
        )
    if seconds <= now:
        raise InvalidValue("Invalid 'expires_at': that time has passed.", param="expires_at")
    return seconds


def _must_live(key: Key) -> None:
    if key.row.revoked is not None:
        raise InvalidValue(f"The key '{key.row.id}' is revoked, for good. Make another one.", param="id")


def _wrong_type(name: str, expected: str) -> InvalidType:
    return InvalidType(f"Invalid type for '{name}': expected {expected}.", param=name)


def _not_found(id: str) -> NotFound:
    return NotFound(f"There is no key '{shown(id)}'.")


def _dollars(micros: int | None) -> int | float | None:
    if micros is None:
        return None
    whole, rest = divmod(micros, 1_000_000)
    return float(Decimal(micros) * MICRO) if rest else whole


def _seconds(at: float | None) -> int | None:
    return None if at is None else int(at)


def _unwritable(error: StoreError) -> Overloaded:
    return Overloaded("The gateway cannot reach its keys at the moment.", detail=str(error), retry_after=5)
