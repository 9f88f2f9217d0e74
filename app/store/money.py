"""What callers have spent, and what is reserved, as SQL.

Spent is what ended jobs cost: sums per caller and span of time, kept in the transaction that ends the job. Reserved is
read from the rows of what is under way: of a running request its whole quote, less what its ended jobs have cost (but
never less than its open jobs may cost), of an answered one its open jobs. So nothing is reserved that has no row, and
whatever ends the row ends the reservation.

A caller with a budget enters each request under a lock of its key's row. Without that two gateways could each find the
last cent unspent: in PostgreSQL every statement sees what was committed before it, and no more.
"""

from __future__ import annotations

import random
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from decimal import ROUND_CEILING, Decimal
from functools import lru_cache
from typing import Any, Literal

from app.store.db import Row, Statement

JobState = Literal[
    "intent", "submitted", "cancelling", "lost", "ambiguous", "done", "failed", "cancelled", "unresolved"
]
OPEN: tuple[JobState, ...] = ("intent", "submitted", "cancelling", "lost", "ambiguous")  # its fate is not known yet

MICRO = Decimal("0.000001")
_BILLED: tuple[JobState, ...] = ("done", "failed")  # where a cost that nobody told is taken for what was reserved
_OPEN = ", ".join(f"'{state}'" for state in OPEN)


@dataclass(frozen=True, slots=True)
class Move:
    """A job that was in one of the states `of` is in `to` from `now` on. What is None stays as it is."""

    id: str
    to: JobState
    now: float
    of: tuple[JobState, ...]
    cost: str | None = None
    verdict: str | None = None
    made: int | None = None


@dataclass(frozen=True, slots=True)
class Standing:
    """What a caller may spend, has spent and has reserved. Millionths of a dollar; a budget of None is none."""

    budget_day: int | None
    budget_month: int | None
    budget_total: int | None
    day: int
    month: int
    total: int
    reserved: int

    def exceeded(self, needed: int) -> tuple[str, int] | None:
        """The budget that `needed` more would exceed, and what is left of it."""
        for word, budget, spent in (
            ("day", self.budget_day, self.day),
            ("month", self.budget_month, self.month),
            ("total", self.budget_total, self.total),
        ):
            if budget is not None and spent + self.reserved + needed > budget:
                return word, max(budget - spent - self.reserved, 0)
        return None


@dataclass(frozen=True, slots=True)
class OverBudget:
    """A request that was not entered: a budget would be exceeded. Millionths of a dollar."""

    budget: str  # day · month · total
    needed: int
    left: int


@dataclass(frozen=True, slots=True)
class Total:
    """How many jobs are in a state, and what they cost; those of unknown cost count as `unpriced`."""

    jobs: int
    cost: Decimal
    unpriced: int


TOTALS = "SELECT state, cost, count(*) FROM jobs GROUP BY state, cost"


def totals(rows: Iterable[Row]) -> dict[JobState, Total]:
    """What the rows of TOTALS say."""
    totals: dict[JobState, Total] = {}
    for state, cost, jobs in rows:
        so_far = totals.get(state, Total(0, Decimal(0), 0))
        totals[state] = Total(
            so_far.jobs + jobs,
            so_far.cost + (0 if cost is None else jobs * Decimal(cost)),
            so_far.unpriced + (jobs if cost is None else 0),
        )
    return totals


def micros(amount: Decimal) -> int:
    """Millionths, rounded up: what is reserved is never less than what it is for."""
    return int((amount / MICRO).to_integral_value(ROUND_CEILING))


def spans(now: float) -> tuple[str, str, str]:
    """The day, the month and the whole time that a moment belongs to, in UTC."""
    at = time.gmtime(now)
    return f"{at.tm_year:04}-{at.tm_mon:02}-{at.tm_mday:02}", f"{at.tm_year:04}-{at.tm_mon:02}", "all"


# ---- the ends of jobs


def moved(moves: Sequence[Move], ahead: float = 0.0) -> list[Statement]:
    """What enters the moves, and books what the jobs that end with them cost; one statement for each move comes first,
    its rows tell whether it was made. `ahead`: seconds by which the clock that budgets go by is ahead of the moves'.

    Each try has a mark of its own. So a job is booked by the try that ended it, also when that one's answer was lost
    and the same move is tried again.
    """
    if not moves:
        return []
    mark = f"{random.getrandbits(64):016x}"  # it has to be another one, not a secret
    statements = [_move(move, mark) for move in moves]
    ended = [move for move in moves if move.to not in OPEN]
    if ended:
        statements.append((_booking(len(ended)), (*spans(ended[0].now + ahead), mark, *[move.id for move in ended])))
    return statements


@lru_cache(64)
def _booking(jobs: int) -> str:
    places = ", ".join(f"${number}" for number in range(5, 5 + jobs))
    return (
        "INSERT INTO spend (caller, span, micros)"  # noqa: S608
        " SELECT requests.caller, spans.span, CAST(sum(jobs.micros) AS BIGINT)"
        " FROM jobs JOIN requests ON requests.id = jobs.request"
        " CROSS JOIN (SELECT CAST($1 AS TEXT) AS span UNION ALL SELECT CAST($2 AS TEXT)"
        " UNION ALL SELECT CAST($3 AS TEXT)) AS spans"
        f" WHERE jobs.id IN ({places}) AND jobs.booking = $4 AND jobs.micros > 0"
        " GROUP BY requests.caller, spans.span ORDER BY requests.caller, spans.span"
        " ON CONFLICT (caller, span) DO UPDATE SET micros = spend.micros + excluded.micros"
    )


@lru_cache(64)
def _moving(states: int, billed: bool) -> str:
    places = ", ".join(f"${number}" for number in range(9, 9 + states))
    untold = ", reserve" if billed else ""
    return (
        "UPDATE jobs SET state = $2, updated = $3, cost = coalesce($4, cost), verdict = coalesce($5, verdict),"  # noqa: S608
        f" micros = coalesce(CAST($6 AS BIGINT), micros{untold}), booking = $7, made = coalesce($8, made)"
        f" WHERE id = $1 AND state IN ({places}) RETURNING id"
    )


def _move(move: Move, mark: str) -> Statement:
    return (
        _moving(len(move.of), move.to in _BILLED),
        (
            move.id,
            move.to,
            move.now,
            move.cost,
            move.verdict,
            None if move.cost is None else micros(Decimal(move.cost)),
            mark,
            move.made,
            *move.of,
        ),
    )


# ---- what a caller has, and may have


def _reserved(caller: str) -> str:
    return (
        "(SELECT coalesce(sum(CASE WHEN held.state = 'running' AND held.reserve - held.ended > held.opened"  # noqa: S608
        " THEN held.reserve - held.ended ELSE held.opened END), 0) FROM"
        " (SELECT requests.state, coalesce(requests.reserve, 0) AS reserve,"
        f" coalesce(sum(CASE WHEN jobs.state IN ({_OPEN}) THEN coalesce(jobs.micros, jobs.reserve) END), 0) AS opened,"
        f" coalesce(sum(CASE WHEN jobs.state NOT IN ({_OPEN}) THEN jobs.micros END), 0) AS ended"
        " FROM requests LEFT JOIN jobs ON jobs.request = requests.id"
        f" WHERE requests.caller = {caller} AND requests.state IN ('running', 'settling')"
        " GROUP BY requests.id, requests.state, requests.reserve) AS held)"
    )


def _standing(where: str, first: int) -> str:
    """A row for each such key. Placeholders from `first` on: day, month, whole time."""

    def spent(place: int, word: str) -> str:
        # One that is read as a value of its own: SQLite cannot know how often it is needed.
        return (
            f"coalesce((SELECT micros FROM spend WHERE spend.caller = api_keys.id AND spend.span = ${place}), 0)"  # noqa: S608
            f" AS {word}"
        )

    return (
        "SELECT api_keys.id, api_keys.budget_day, api_keys.budget_month, api_keys.budget_total,"  # noqa: S608
        f" {spent(first, 'day')}, {spent(first + 1, 'month')}, {spent(first + 2, 'total')},"
        f" CAST({_reserved('api_keys.id')} AS BIGINT) AS reserved FROM api_keys {where}"
    )


def standing_of(row: Row) -> Standing:
    """A row of `standings`, without its first column, the key's id."""
    return Standing(*row[1:])


def standings(ids: Sequence[str], now: float) -> Statement:
    """What these keys may spend, have spent and have reserved."""
    places = ", ".join(f"${number}" for number in range(4, 4 + len(ids)))
    return _standing(f"WHERE api_keys.id IN ({places})", 1), (*spans(now), *ids)


def within_budget(
    table: str, columns: str, places: str, values: tuple[Any, ...], caller: str, needed: int, now: float
) -> Statement:
    """Enter a row if the budgets of its caller's key leave room for it; RETURNING id. `places`: those of `values`."""
    return _fitting(table, columns, places, len(values)), (*values, caller, *spans(now), needed)


@lru_cache(64)
def _fitting(table: str, columns: str, places: str, count: int) -> str:
    budget = _standing(f"WHERE api_keys.id = ${count + 1}", count + 2)
    fits = " AND ".join(
        f"(s.budget_{word} IS NULL OR s.{word} + s.reserved + ${count + 5} <= s.budget_{word})"
        for word in ("day", "month", "total")
    )
    return (
        # Materialized: else SQLite would add up what is reserved for each place where it stands.
        f"WITH s AS MATERIALIZED ({budget}) INSERT INTO {table} ({columns}) SELECT {places} FROM s WHERE {fits}"  # noqa: S608
        " ON CONFLICT DO NOTHING RETURNING id"
    )


def taking_turns(caller: str, now: float) -> Statement:
    """Let nobody else enter a request of this key until the end of the transaction."""
    return "UPDATE api_keys SET reserved_at = $2 WHERE id = $1", (caller, now)
