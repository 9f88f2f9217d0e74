"""/v1/keys: whoever has the admin key makes keys, lists them, changes their limits, replaces and revokes them."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Depends
from starlette.requests import Request

from app.api.auth import Authenticator
from app.api.body import Body
from app.api.filters import limit_of
from app.api.openapi import errors
from app.api.request import parse_object
from app.config import Limits
from app.errors import UnknownParameter, UnsupportedContentType
from app.keys import LONGEST_GRACE, Keys, describe, seconds_of
from app.params.values import shown

BODY_BYTES = 64 << 10


def keys_router(keys: Keys, auth: Authenticator, limits: Limits) -> APIRouter:
    """Every route of it is the admin's alone: a page of another origin, which cannot send that key, can do nothing."""
    router = APIRouter(dependencies=[Depends(auth.admin)])

    async def created(request: Request) -> dict[str, Any]:
        return describe(await keys.create(await _object(request, limits)))

    async def listed(request: Request) -> dict[str, Any]:
        query = request.query_params
        page = await keys.page(query.get("after") or None, limit_of(query))
        return {
            "object": "list",
            "data": [describe(key) for key in page.keys],
            "has_more": page.more,
            "last_id": page.keys[-1].row.id if page.keys else None,
        }

    async def told(id: str) -> dict[str, Any]:
        return describe(await keys.get(id))

    async def changed(request: Request, id: str) -> dict[str, Any]:
        return describe(await keys.change(id, await _object(request, limits)))

    async def rotated(request: Request, id: str) -> dict[str, Any]:
        given = await _object(request, limits, optional=True)
        for name in given:
            if name != "grace_seconds":
                raise UnknownParameter(f"Unknown parameter: '{shown(name)}'.", param=shown(name))
        grace = given.get("grace_seconds")
        if grace == 0 and not isinstance(grace, bool):
            grace = None
        return describe(await keys.rotate(id, seconds_of("grace_seconds", grace, LONGEST_GRACE) or 0.0))

    async def revoked(id: str) -> dict[str, Any]:
        return describe(await keys.revoke(id))

    for path, method, work in (
        ("/v1/keys", "POST", created),
        ("/v1/keys", "GET", listed),
        ("/v1/keys/{id}", "GET", told),
        ("/v1/keys/{id}", "PATCH", changed),
        ("/v1/keys/{id}", "DELETE", revoked),
        ("/v1/keys/{id}/rotate", "POST", rotated),
    ):
        wrong = errors(400, 401, 403, *([404] if "{id}" in path else []))
        router.add_api_route(path, work, methods=[method], responses=wrong)
        router.add_api_route(f"{path}/", work, methods=[method], include_in_schema=False)
    return router


async def _object(request: Request, limits: Limits, *, optional: bool = False) -> dict[str, Any]:
    """The body, which must say that it is JSON: what a form of a page may send does not."""
    body = Body(request.receive, request.headers.get("content-length"), limits)
    raw = b"".join([chunk async for chunk in body.chunks(BODY_BYTES)])
    if optional and not raw.strip():
        return {}
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise UnsupportedContentType(
            f"Unsupported content type: '{shown(kind)}'. This API method only accepts 'application/json' requests."
        )
    return parse_object(raw)
