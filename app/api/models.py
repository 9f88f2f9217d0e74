"""GET /openai/v1/models, /openai/v1/models/{id}, /v1/models/{id}?schema=true. Ids may hold a slash, raw or as %2F."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from fastapi import APIRouter, Depends
from starlette.requests import Request

from app.api.auth import Authenticator
from app.api.openapi import errors
from app.catalogue.describe import describe, schema
from app.catalogue.load import Catalogue
from app.denials import ModelNotAllowed
from app.types import Caller


def models_router(
    catalogue: Catalogue, labels: Mapping[str, str], stand_ins: Collection[str], auth: Authenticator
) -> APIRouter:
    """The models endpoints. `labels` are the providers' names as people read them; `stand_ins` those whose sandbox has
    taken their place."""
    router = APIRouter()

    async def list_models(caller: Caller = Depends(auth.caller)) -> dict[str, Any]:
        return {
            "object": "list",
            "data": [describe(one, labels, stand_ins) for one in catalogue if caller.may_use(one.id)],
        }

    async def get_model(request: Request, name: str, caller: Caller = Depends(auth.caller)) -> dict[str, Any]:
        model = catalogue.require(name.rstrip("/")).model
        if not caller.may_use(model.id):
            raise ModelNotAllowed(f"Your API key may not use the model '{model.id}'.", param="model")
        wants_schema = request.query_params.get("schema", "").lower() in ("true", "1")
        return schema(model, labels, stand_ins) if wants_schema else describe(model, labels, stand_ins)

    for prefix in ("/openai/v1", "/v1", "/openai"):  # the last is Azure's
        router.add_api_route(f"{prefix}/models", list_models, methods=["GET"], responses=errors(401, 403))
        router.add_api_route(f"{prefix}/models/", list_models, methods=["GET"], include_in_schema=False)
        router.add_api_route(
            f"{prefix}/models/{{name:path}}", get_model, methods=["GET"], responses=errors(401, 403, 404)
        )
    return router
