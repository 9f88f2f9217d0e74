"""api.fal.ai: the list of requests to an endpoint, from the books.

Fields and parameters by fal.ai/docs/platform-apis/v1/models/requests/by-endpoint (November 2026). The page does not say
which time `start` and `end` are about; here it is the one that the list is sorted by, the end, and for a job that has
not ended the present: a client must allow for either. Errors have the platform API's shape, not the queue's.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from .faults import Fault, Point, Strike
from .hosts import refusal, say
from .inputs import listed
from .interference import Interference
from .queue import Job
from .replies import Reply, as_json

_DEFAULT_LIMIT, _MOST = 50, 100
_DEFAULT_SECONDS = 86_400.0


class Listing:
    def __init__(self, jobs: Iterable[Job], interference: Interference, clock: Callable[[], float]) -> None:
        self._jobs = jobs
        self._interference = interference
        self._clock = clock

    async def by_endpoint(self, request: Request) -> Response:
        """GET /v1/models/requests/by-endpoint?endpoint_id=… -> {items, next_cursor, has_more}."""

        async def handled(strikes: tuple[Strike, ...]) -> Response:
            if refusal(request) is not None:
                return say(_error(401, "authorization_error", "Authentication required"))
            try:
                return say(as_json(self._page(request, strikes)))
            except ValueError as error:
                return say(_error(400, "validation_error", str(error)))

        return await self._interference.around(Point.LIST, None, request, handled)

    def _page(self, request: Request, strikes: tuple[Strike, ...]) -> dict[str, Any]:
        """Raises ValueError for a parameter that is none."""
        asked, now = request.query_params, self._clock()
        endpoints = {one for part in asked.getlist("endpoint_id") for one in part.split(",") if one}
        if not endpoints:
            raise ValueError("endpoint_id is required")
        limit = int(asked.get("limit", _DEFAULT_LIMIT))
        if not 1 <= limit <= _MOST:
            raise ValueError(f"limit must be from 1 to {_MOST}")
        start = _unix(asked["start"]) if "start" in asked else now - _DEFAULT_SECONDS
        end = _unix(asked["end"]) if "end" in asked else now + 1
        number = int(base64.b64decode(asked["cursor"], validate=True)) if "cursor" in asked else 1
        lag = next((float(struck["seconds"]) for struck in strikes if struck.fault is Fault.LIST_LAG), 0.0)
        if number < 1:
            raise ValueError("cursor is none of ours")
        found = [
            job
            for job in self._jobs
            if job.endpoint.id in endpoints
            and asked.get("request_id", job.request_id) == job.request_id
            and start <= (job.finished_at or now) < end
            and job.submitted_at <= now - lag
        ]
        found.sort(key=lambda job: job.finished_at or now, reverse=True)
        first, last = (number - 1) * limit, number * limit
        payloads = "payloads" in ",".join(asked.getlist("expand")).split(",")
        if any(struck.fault is Fault.LIST_NO_PAYLOADS for struck in strikes):
            payloads = False
        more = len(found) > last
        return {
            "items": [_item(job, payloads) for job in found[first:last]],
            "next_cursor": base64.b64encode(str(number + 1).encode()).decode() if more else None,
            "has_more": more,
        }


def _item(job: Job, payloads: bool) -> dict[str, Any]:
    item: dict[str, Any] = {
        "request_id": job.request_id,
        "endpoint_id": job.endpoint.id,
        "sent_at": _iso(job.submitted_at),
        "started_at": _iso(job.started_at or job.submitted_at),
    }
    if job.finished_at is not None and job.outcome is not None:
        item |= {
            "ended_at": _iso(job.finished_at),
            "status_code": job.outcome.reply.status,
            "duration": round(job.finished_at - job.submitted_at, 3),
        }
    if payloads:
        item["json_input"] = listed(job.summary)
    return item


def _error(status: int, kind: str, message: str) -> Reply:
    return as_json({"error": {"type": kind, "message": message}}, status)


def _iso(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _unix(text: str) -> float:
    when = datetime.fromisoformat(text)
    return (when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp()
