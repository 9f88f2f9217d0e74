"""fal's list of requests: how a job is found whose submit reply was lost.

GET {api}/v1/models/requests/by-endpoint (fal.ai/docs/platform-apis/v1/models/requests/by-endpoint, Nov 2026; `Key`
authorization): `endpoint_id`, `start` and `end` (ISO 8601, end exclusive), `limit` (1-100), `cursor` (it encodes a page
number), `expand=payloads`. It answers, newest end first

    {"items": [{"request_id", "endpoint_id", "sent_at", "started_at", "ended_at"?, "status_code"?, "duration"?,
                "json_input"?, "json_output"?}, …], "next_cursor": "Mg==" or null, "has_more": bool}

[unsure], so that each is allowed for: whether start and end are about sending or ending (the window asked for is wide
enough for both), whether `sent_at` is when fal had the request or when a runner got it, whether running jobs are
listed, how far the list lags, whether large inputs are shown (one that is not makes the search inconclusive), and
whether they are shown exactly as sent.
"""

from __future__ import annotations

import json
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlencode

from providers.base import Fault, ProviderError, payload_mark
from providers.fal_errors import failure
from providers.http import Answer

PATH = "/v1/models/requests/by-endpoint"
PAGES = 20
SLACK_SECONDS = 120.0  # by which fal's clock may differ from ours
# What may lie between submit and `sent_at` or the end: an app's default request_timeout (PyPI fal 1.83.0).
LONGEST_SECONDS = 3600.0
JOB_ID = re.compile(r"[A-Za-z0-9-]{8,64}")


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is known of the job. Times in Unix seconds."""

    endpoint: str
    mark: str
    since: float
    until: float
    known: frozenset[str]


@dataclass(frozen=True, slots=True)
class Listed:
    """One entry that may be it. `mark` is None if its payload is not shown, `sent` if its time cannot be read."""

    job: str
    sent: float | None
    mark: str | None


@dataclass(frozen=True, slots=True)
class Page:
    candidates: tuple[Listed, ...]
    cursor: str | None  # of the next page; None: this was the last


async def search(ask: Callable[[str], Awaitable[Page]], wanted: Wanted, limit: int) -> str | None:
    """The id of the wanted job; None if the list covers the window and has no such job.

    `ask` fetches the page behind a path with query. Raises ProviderError if it cannot be known.
    """
    candidates: list[Listed] = []
    cursors: list[str | None] = [None]
    while True:
        page = await ask(_path(wanted, limit, cursors[-1]))
        candidates += page.candidates
        whole = page.cursor is None
        if whole or page.cursor in cursors or len(cursors) == PAGES:
            break
        cursors.append(page.cursor)
    found = [one for one in candidates if one.mark == wanted.mark]
    if found:
        return min(found, key=lambda one: (one.sent is None, one.sent, one.job)).job
    if not whole:
        raise _inconclusive(f"it goes on after {len(cursors)} pages of {limit}")
    if any(one.mark is None for one in candidates):
        raise _inconclusive("it does not show all payloads")
    return None


def read_page(answer: Answer, wanted: Wanted) -> Page:
    """One page. Reads and hashes payloads with whole pictures in them: call it off the event loop."""
    if answer.status != 200:
        raise failure(answer, of="list")
    body = answer.json()
    items = body.get("items") if isinstance(body, dict) else None
    if not isinstance(items, list) or not isinstance(body.get("has_more"), bool):
        raise _unreadable()
    candidates = tuple(one for item in items if (one := _candidate(item, wanted)) is not None)
    if not body["has_more"]:
        return Page(candidates, None)
    cursor = body.get("next_cursor")
    if not isinstance(cursor, str) or not 0 < len(cursor) <= 1000:
        raise _unreadable()
    return Page(candidates, cursor)


def _inconclusive(why: str) -> ProviderError:
    return ProviderError(
        Fault.UNAVAILABLE, "The provider's list of jobs does not tell.", detail=f"list of requests: {why}"
    )


def _unreadable() -> ProviderError:
    """Without an excerpt: whatever stands there, it may be a prompt."""
    return ProviderError(Fault.MALFORMED, "The provider's list of jobs cannot be read.")


def _path(wanted: Wanted, limit: int, cursor: str | None) -> str:
    query = {
        "endpoint_id": wanted.endpoint,
        "start": _iso(wanted.since - SLACK_SECONDS),
        "end": _iso(wanted.until + SLACK_SECONDS + LONGEST_SECONDS),
        "limit": str(limit),
        "expand": "payloads",
    }
    return f"{PATH}?{urlencode(query if cursor is None else {**query, 'cursor': cursor})}"


def _candidate(item: Any, wanted: Wanted) -> Listed | None:
    job = item.get("request_id") if isinstance(item, dict) else None
    if not isinstance(job, str) or not JOB_ID.fullmatch(job):
        raise _unreadable()
    if job in wanted.known or item.get("endpoint_id", wanted.endpoint) != wanted.endpoint:
        return None
    sent = _unix(item.get("sent_at"))
    earliest, latest = wanted.since - SLACK_SECONDS, wanted.until + SLACK_SECONDS + LONGEST_SECONDS
    if sent is not None and not earliest <= sent <= latest:
        return None
    payload = item.get("json_input")
    if isinstance(payload, str):
        try:
            payload = json.loads(payload)
        except ValueError:
            payload = None
    return Listed(job, sent, payload_mark(payload) if isinstance(payload, dict) else None)


def _iso(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _unix(text: Any) -> float | None:
    try:
        when = datetime.fromisoformat(text)
    except (TypeError, ValueError):
        return None
    return (when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp()
