"""GET /healthz (the process lives), /readyz (it can take work, and what it works with)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from fastapi import APIRouter
from starlette.responses import JSONResponse

from app.board import Board
from app.breaker import Breakers
from app.catalogue.load import Catalogue
from app.storage.base import Storage
from providers.base import Fault


def ops_router(
    catalogue: Catalogue,
    storage: Storage,
    providers: Mapping[str, str],
    breakers: Breakers,
    database: str,
    board: Board | None,
    problems_of_gateway: Callable[[], list[str]],
    live: Callable[[], Mapping[str, Any]],
    version: str,
) -> APIRouter:
    """Health endpoints; no key needed, nothing secret said."""
    router = APIRouter()

    async def healthz() -> dict[str, Any]:
        return {"status": "ok", "version": version}

    async def readyz() -> JSONResponse:
        """503 when no work can be taken: it is stopping, has no room, or every offer that was ever asked refuses our
        account. One whose endpoint its provider does not know is reported, since the others work; one that merely fails
        at the moment, too, and is tried again by itself; so is a bucket, a Redis, and a file that was refused while the
        old one stays in force."""
        offers, changes = catalogue.offers(), live()
        asked = {name: view for name, view in breakers.states().items() if name in offers}
        out = {name: view for name, view in asked.items() if view.state != "closed"}
        problems = problems_of_gateway()
        if storage.free_bytes() == 0:
            problems.append("the store is nearly full")
        locked = [name for name, view in out.items() if view.locked]
        refused = [name for name in locked if out[name].fault is Fault.UNAUTHORIZED]
        trouble, alone = storage.trouble(), board is None or board.trouble is not None
        lost = [f"Redis: {board.trouble}; limits are not shared"] if board is not None and board.trouble else []
        ready = not problems and not (asked and len(refused) == len(asked))
        body = {
            "status": "not ready"
            if not ready
            else "degraded"
            if out or trouble or lost or changes["refused"]
            else "ready",
            "problems": problems
            + [f"{name} is locked: {out[name].why}" for name in locked]
            + ([f"the store: {trouble}"] if trouble else [])
            + lost
            + [f"refused: {reason}" for reason in changes["refused"]],
            "configuration": changes,
            "models": len(catalogue),
            "providers": dict(providers),
            "offers": {name: {"state": view.state, "reason": view.why} for name, view in out.items()},
            "database": database,
            "limits": "per process" if alone else "shared",
        }
        return JSONResponse(body, 200 if ready else 503)

    router.add_api_route("/healthz", healthz, methods=["GET"])
    router.add_api_route("/readyz", readyz, methods=["GET"])
    return router
