"""GET /v1/requests and /v1/requests/{id}: what became of a caller's requests, and their pictures while they are kept.

Where an answer got lost on its way, it is found here: by id, by Idempotency-Key, or by the provider's job.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Any, get_args

from fastapi import APIRouter, Depends
from starlette.requests import Request

from app.api import wire
from app.api.auth import Authenticator
from app.api.openapi import errors
from app.api.wire import number
from app.errors import AboveMaximum, BelowMinimum, InvalidType, InvalidValue, NotFound
from app.history import History, Page, Record
from app.store.jobs import JobState, RequestState
from app.types import Caller

MOST = 100
STATES: tuple[RequestState | JobState, ...] = (*get_args(RequestState), *get_args(JobState))


def requests_router(history: History, auth: Authenticator, public_url: str) -> APIRouter:
    """The journal, as its callers may see it: each key its own requests."""
    router = APIRouter()

    def base_url(request: Request) -> str:
        return public_url.rstrip("/") or str(request.base_url).rstrip("/")

    async def listed(request: Request, caller: Caller = Depends(auth.caller)) -> dict[str, Any]:
        query = request.query_params
        page = await history.page(
            caller,
            after=query.get("after") or None,
            limit=limit_of(query.get("limit")),
            key=query.get("idempotency_key") or None,
            job=query.get("job") or None,
            state=_state(query.get("state")),
        )
        return await _listing(page, history, base_url(request))

    async def shown(request: Request, id: str, caller: Caller = Depends(auth.caller)) -> dict[str, Any]:
        record = await history.record(caller, id)
        if record is None:
            raise NotFound(f"There is no request '{id[:80]}'.")
        return await _record(record, history, base_url(request))

    for path in ("/v1/requests", "/v1/requests/"):
        in_schema = path == "/v1/requests"
        router.add_api_route(path, listed, methods=["GET"], include_in_schema=in_schema, responses=errors(400, 401))
    router.add_api_route("/v1/requests/{id}", shown, methods=["GET"], responses=errors(401, 404))
    return router


def limit_of(text: str | None) -> int:
    """How many of a list a query asks for. Raises InvalidRequest."""
    if not text:
        return 20
    if not text.isdecimal() or len(text) > 9:
        raise InvalidType("Invalid type for 'limit': expected an integer.", param="limit")
    if int(text) < 1:
        raise BelowMinimum("Invalid 'limit': expected at least 1.", param="limit")
    if int(text) > MOST:
        raise AboveMaximum(f"Invalid 'limit': expected at most {MOST}.", param="limit")
    return int(text)


def _state(text: str | None) -> RequestState | JobState | None:
    if not text:
        return None
    for state in STATES:
        if state == text:
            return state
    raise InvalidValue(f"Invalid 'state': expected one of {', '.join(STATES)}.", param="state")


async def _listing(page: Page, history: History, base_url: str) -> dict[str, Any]:
    return {
        "object": "list",
        "data": [await _record(record, history, base_url) for record in page.records],
        "has_more": page.more,
        "last_id": page.records[-1].id if page.records else None,
    }


async def _record(record: Record, history: History, base_url: str) -> dict[str, Any]:
    error = record.error
    return {
        "id": record.id,
        "object": "request",
        "status": record.status,
        "created": int(record.created),
        "model": record.plan.model,
        "executed_model": f"{record.plan.offer.provider}/{record.plan.offer.endpoint}",
        "provider": record.plan.offer.provider,
        "idempotency_key": record.key,
        "cost": number(record.cost),
        "cost_currency": record.currency,
        "cost_uncertain": record.uncertain,
        "reserved": number(record.reserved),
        "seconds": record.seconds,
        "pictures": len(record.artefacts),
        "data": await _pictures(record, history, base_url),
        "failed": [wire.failure(one) for one in record.failures],
        "error": None if error is None else {"code": error.code, "message": error.message, "param": error.param},
        "jobs": [
            {
                "job": job.job,
                "state": job.state,
                "provider": job.provider,
                "endpoint": job.endpoint,
                "index": job.first,
                "cost": None if job.cost is None else number(Decimal(job.cost)),
                "created": int(job.created),
            }
            for job in record.jobs
        ],
    }


async def _pictures(record: Record, history: History, base_url: str) -> list[dict[str, Any]]:
    """Those that can still be had."""
    pictures = []
    for artefact in record.artefacts:
        url = await history.link(record, artefact, base_url)
        if url is None:
            continue
        found: dict[str, Any] = {"index": artefact.index, "url": url}
        if artefact.width and artefact.height:
            found["size"] = f"{artefact.width}x{artefact.height}"
        if artefact.format:
            found["output_format"] = artefact.format
        pictures.append(found)
    return pictures
