"""GET /healthz (the process lives), /readyz (it can take work, and what it works with)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fastapi import APIRouter
from starlette.responses import JSONResponse

from app.catalogue.load import Catalogue
from app.delivery import LEAST_FREE_BYTES
from app.storage.base import Storage


def ops_router(catalogue: Catalogue, storage: Storage, providers: Mapping[str, str], version: str) -> APIRouter:
    """Health endpoints; no key needed, nothing secret said."""
    router = APIRouter()

    async def healthz() -> dict[str, Any]:
        return {"status": "ok", "version": version}

    async def readyz() -> JSONResponse:
        free = storage.free_bytes()
        problems = []
        if free is not None and free < LEAST_FREE_BYTES:
            problems.append("the store is nearly full")
        body = {
            "status": "ready" if not problems else "not ready",
            "problems": problems,
            "models": len(catalogue),
            "providers": dict(providers),
        }
        return JSONResponse(body, 200 if not problems else 503)

    router.add_api_route("/healthz", healthz, methods=["GET"])
    router.add_api_route("/readyz", readyz, methods=["GET"])
    return router
