"""GET /v1/requests, /v1/requests/{id} and /v1/usage: what became of requests, what they cost, and their pictures while
they are kept.

Where an answer got lost on its way, it is found here: by id, by Idempotency-Key, or by the provider's job.
"""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Callable, Iterable, Sequence
from decimal import Decimal
from typing import Any

from fastapi import APIRouter, Depends
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from app.api import filters, records, tables
from app.api.auth import Authenticator
from app.api.openapi import errors
from app.api.wire import number
from app.errors import NotFound
from app.history import History, Record
from app.store.reports import Selection, Sum, Usage
from app.types import Caller

LISTING = filters.FILTERS | {"after", "limit", "summary", "rows"}
USAGE = frozenset({"from", "to", "by", "key", "model", "provider", "format"})


def requests_router(
    history: History, auth: Authenticator, public_url: str, now: Callable[[], float] = time.time
) -> APIRouter:
    """The log, as its callers may see it: each key its own requests, an admin's all."""
    router = APIRouter()

    def base_url(request: Request) -> str:
        return public_url.rstrip("/") or str(request.base_url).rstrip("/")

    async def listed(request: Request, caller: Caller = Depends(auth.caller)) -> Response:
        """One page, newest first; what all the selected add up to is with the first one, unless `summary` says
        otherwise. `format=csv`: all of them, a line for each request or (`rows=jobs`) for each upstream job."""
        query = filters.query_of(request, LISTING)
        selection, of_jobs = filters.selection_of(query, caller), filters.rows_of(query) == "jobs"
        after, limit, summary = query.get("after"), filters.limit_of(query), filters.flag_of(query, "summary")
        if filters.format_of(query) == "csv":
            columns = tables.JOBS if of_jobs else tables.REQUESTS
            name = "jobs" if of_jobs else "requests"
            return await tables.table(name, columns, _lines(history, caller, selection, of_jobs=of_jobs))
        page = await history.page(caller, selection, after=after, limit=limit)
        body: dict[str, Any] = {
            "object": "list",
            "data": [await records.listed(record, history, base_url(request)) for record in page.records],
            "has_more": page.more,
            "last_id": page.records[-1].row.id if page.records else None,
        }
        if summary or (summary is None and after is None):
            body["summary"] = _summary(await history.sums(caller, selection))
        return JSONResponse(body)

    async def shown(request: Request, id: str, caller: Caller = Depends(auth.caller)) -> Response:
        filters.query_of(request, ())
        record = await history.record(caller, id)
        if record is None:
            raise NotFound(f"There is no request '{id[:80]}'.")
        return JSONResponse(await records.shown(record, await history.log(record), history, base_url(request)))

    async def used(request: Request, caller: Caller = Depends(auth.caller)) -> Response:
        """What was used on some days (UTC), by day, key and model, or as `by` says."""
        query = filters.query_of(request, USAGE)
        selection = Selection(filters.key_of(query, caller), query.get("model"), query.get("provider"))
        (since, until), by = filters.days_of(query, now()), filters.by_of(query)
        form = filters.format_of(query)
        lines = await history.usage(caller, since, until, by, selection)
        if form == "csv":
            rows = [tables.usage_row(line, by) for line in lines]
            return await tables.table("usage", tables.usage_columns(by), _once(rows))
        columns = [*tables.usage_columns(by)]
        return JSONResponse(
            {
                "object": "usage",
                "from": filters.day_name(since),
                "to": filters.day_name(until),
                "by": list(by),
                "data": [
                    {name: _json(cell) for name, cell in zip(columns, tables.usage_row(line, by), strict=True)}
                    for line in lines
                ],
                "total": _total(lines),
            }
        )

    for path, in_schema in (("/v1/requests", True), ("/v1/requests/", False)):
        router.add_api_route(path, listed, methods=["GET"], include_in_schema=in_schema, responses=errors(400, 401))
    router.add_api_route("/v1/requests/{id}", shown, methods=["GET"], responses=errors(400, 401, 404))
    for path, in_schema in (("/v1/usage", True), ("/v1/usage/", False)):
        router.add_api_route(path, used, methods=["GET"], include_in_schema=in_schema, responses=errors(400, 401))
    return router


async def _lines(
    history: History, caller: Caller, selection: Selection, *, of_jobs: bool
) -> AsyncGenerator[Iterable[Sequence[tables.Cell]], None]:
    async for found in history.every(caller, selection):
        yield _rows(found, of_jobs=of_jobs)


def _rows(found: Iterable[Record], *, of_jobs: bool) -> list[Sequence[tables.Cell]]:
    if of_jobs:
        return [line for record in found for line in tables.job_rows(record)]
    return [tables.request_row(record) for record in found]


async def _once(
    rows: Iterable[Sequence[tables.Cell]],
) -> AsyncGenerator[Iterable[Sequence[tables.Cell]], None]:
    yield rows


def _json(cell: tables.Cell) -> Any:
    return number(cell) if isinstance(cell, Decimal) else cell


def _money(parts: Iterable[tuple[str, Decimal]]) -> dict[str, Any]:
    """Amounts as `costs`, by currency; and as one `cost`, if there are not several currencies."""
    costs: dict[str, Decimal] = {}
    for currency, cost in parts:
        costs[currency] = costs.get(currency, Decimal(0)) + cost
    single = next(iter(costs.items()), ("USD", Decimal(0))) if len(costs) < 2 else (None, None)
    return {
        "cost": number(single[1]),
        "currency": single[0],
        "costs": {currency: number(cost) for currency, cost in sorted(costs.items())},
    }


def _total(lines: Sequence[Usage]) -> dict[str, Any]:
    return {
        "requests": sum(line.requests for line in lines),
        "failed": sum(line.failed for line in lines),
        "images": sum(line.pictures for line in lines),
        **_money((line.currency, line.cost) for line in lines),
        "cost_unknown": sum(line.unknown for line in lines),
    }


def _summary(sums: Sequence[Sum]) -> dict[str, Any]:
    by_status = {status: [one for one in sums if one.status == status] for status in sorted({s.status for s in sums})}
    return _sum(sums) | {"by_status": {status: _sum(found) for status, found in by_status.items()}}


def _sum(sums: Sequence[Sum]) -> dict[str, Any]:
    return {
        "requests": sum(one.requests for one in sums),
        "images": sum(one.pictures for one in sums),
        **_money((one.currency, one.cost) for one in sums),
        "cost_unknown": sum(one.unknown for one in sums),
    }
