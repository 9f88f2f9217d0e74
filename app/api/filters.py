"""What a query asks for: filters, days, formats. Whatever cannot be understood is a 400 that names the parameter."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Literal, TypeVar, get_args

from starlette.requests import Request

from app.errors import AboveMaximum, BelowMinimum, InvalidType, InvalidValue, UnknownParameter
from app.jobs import DAY_SECONDS
from app.store.jobs import JobState, RequestState, Status
from app.store.reports import By, Selection
from app.types import Caller

MOST = 100
FIRST_YEAR, LAST_YEAR = 1970, 9998
STATES: tuple[RequestState | JobState, ...] = (*get_args(RequestState), *get_args(JobState))
BY: tuple[By, ...] = get_args(By)
FILTERS = frozenset({"key", "model", "provider", "status", "error", "from", "to", "has_failures"})
FILTERS |= {"idempotency_key", "job", "state", "min_cost", "max_cost", "format"}
_EPOCH = date(1970, 1, 1)

Format = Literal["json", "csv"]
Word = TypeVar("Word", bound=str)


def query_of(request: Request, known: Iterable[str]) -> Mapping[str, str]:
    """The query's parameters that say something. Raises UnknownParameter, InvalidValue: a typo in a filter would
    silently select everything."""
    query: dict[str, str] = {}
    for name, value in request.query_params.multi_items():
        if name not in known:
            raise UnknownParameter(
                f"Unknown parameter '{name[:80]}'. Known here: {', '.join(sorted(known)) or 'none'}.", param=name[:80]
            )
        if name in query:
            raise InvalidValue(f"Invalid '{name}': it was given twice.", param=name)
        if value:
            query[name] = value
    return query


def selection_of(query: Mapping[str, str], caller: Caller) -> Selection:
    """The filters. Raises InvalidRequest."""
    return Selection(
        caller=key_of(query, caller),
        model=query.get("model"),
        provider=query.get("provider"),
        status=_word(query, "status", get_args(Status)),
        error=query.get("error"),
        since=_moment(query, "from"),
        until=_moment(query, "to", end=True),
        failures={"true": True, "false": False, None: None}[_word(query, "has_failures", ("true", "false"))],
        key=query.get("idempotency_key"),
        job=query.get("job"),
        state=_word(query, "state", STATES),
        min_cost=_micros(query, "min_cost"),
        max_cost=_micros(query, "max_cost"),
    )


def key_of(query: Mapping[str, str], caller: Caller) -> str | None:
    """The API key that is asked about. Raises InvalidValue: only an admin's may ask about others."""
    key = query.get("key")
    if key is not None and not caller.is_admin and key != caller.key_id:
        raise InvalidValue("Invalid 'key': only an admin key may ask about other keys.", param="key")
    return key


def limit_of(query: Mapping[str, str]) -> int:
    """How many a page has. Raises InvalidRequest."""
    text = query.get("limit")
    if text is None:
        return 20
    if not (text.isascii() and text.isdecimal()) or len(text) > 9:
        raise InvalidType("Invalid type for 'limit': expected an integer.", param="limit")
    if int(text) < 1:
        raise BelowMinimum("Invalid 'limit': expected at least 1.", param="limit")
    if int(text) > MOST:
        raise AboveMaximum(f"Invalid 'limit': expected at most {MOST}.", param="limit")
    return int(text)


def format_of(query: Mapping[str, str]) -> Format:
    """Raises InvalidValue."""
    return _word(query, "format", get_args(Format)) or "json"


def flag_of(query: Mapping[str, str], name: str) -> bool | None:
    """true or false. Raises InvalidValue."""
    word = _word(query, name, ("true", "false"))
    return None if word is None else word == "true"


def rows_of(query: Mapping[str, str]) -> Literal["requests", "jobs"]:
    """What a line of a table stands for. Raises InvalidValue."""
    return _word(query, "rows", ("requests", "jobs")) or "requests"


def by_of(query: Mapping[str, str]) -> tuple[By, ...]:
    """What the usage is broken down by, in this order. Raises InvalidValue."""
    words = query.get("by", "day,key,model").split(",")
    by: list[By] = []
    for word in words:
        found = next((one for one in BY if one == word.strip()), None)
        if found is None or found in by:
            raise InvalidValue(f"Invalid 'by': expected some of {', '.join(BY)}, separated by commas.", param="by")
        by.append(found)
    return tuple(by)


def days_of(query: Mapping[str, str], now: float) -> tuple[int, int]:
    """`from` and `to`, both included, as days since 1970; without them the current month, in UTC. Raises
    InvalidValue."""
    today = datetime.fromtimestamp(now, UTC).date()
    until = _day(query, "to") or today
    since = _day(query, "from") or until.replace(day=1)
    if since > until:
        raise InvalidValue("Invalid 'from': it is later than 'to'.", param="from")
    return (since - _EPOCH).days, (until - _EPOCH).days


def day_name(day: int) -> str:
    """A day since 1970 as 2026-11-25."""
    return (_EPOCH + timedelta(days=day)).isoformat()


def _day(query: Mapping[str, str], name: str) -> date | None:
    text = query.get(name)
    if text is None:
        return None
    try:
        if len(text) != 10:
            raise ValueError
        return _in_range(date.fromisoformat(text))
    except ValueError:
        raise InvalidValue(f"Invalid '{name}': expected a day such as 2026-11-25.", param=name) from None


def _moment(query: Mapping[str, str], name: str, *, end: bool = False) -> float | None:
    """Unix seconds of a moment, or of a day's beginning; with `end` of its end."""
    text = query.get(name)
    if text is None:
        return None
    try:
        if text.isascii() and text.isdecimal() and len(text) in (9, 10):
            return float(text)
        if len(text) == 10:
            day = (_in_range(date.fromisoformat(text)) - _EPOCH).days + end
            return float(day * DAY_SECONDS)
        moment = datetime.fromisoformat(text.replace(" ", "+"))  # what a "+" in a query becomes
        _in_range(moment.date())
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        raise InvalidValue(
            f"Invalid '{name}': expected a day such as 2026-11-25, a moment such as 2026-11-25T13:00:00Z, or Unix "
            "seconds.",
            param=name,
        ) from None


def _in_range(day: date) -> date:
    if not FIRST_YEAR <= day.year <= LAST_YEAR:
        raise ValueError
    return day


def _micros(query: Mapping[str, str], name: str) -> int | None:
    """An amount in millionths. One that is no whole number of them lies between two costs: it is refused."""
    text = query.get(name)
    if text is None:
        return None
    if not re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,6})?", text):
        raise InvalidValue(f"Invalid '{name}': expected an amount such as 0.03, of at most six decimals.", param=name)
    return int(Decimal(text) * 1_000_000)


def _word(query: Mapping[str, str], name: str, words: Sequence[Word]) -> Word | None:
    text = query.get(name)
    if text is None:
        return None
    for word in words:
        if word == text:
            return word
    raise InvalidValue(f"Invalid '{name}': expected one of {', '.join(words)}.", param=name)
