"""The OpenAPI document of what reads its own bodies: derived from the rows of the models that are loaded.

A parameter that models read differently is described as any of their readings; `x-imagegate` says, for each model, what
becomes of it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from fastapi import FastAPI

from app.catalogue.describe import bound
from app.catalogue.load import Catalogue
from app.catalogue.schema import Mode, Model, Row, words_of

ERROR: dict[str, Any] = {
    "type": "object",
    "required": ["error"],
    "additionalProperties": False,
    "properties": {
        "error": {
            "type": "object",
            "required": ["message", "type", "param", "code"],
            "additionalProperties": False,
            "properties": {
                "message": {"type": "string"},
                "type": {"type": "string"},
                "param": {"type": ["string", "null"]},
                "code": {"type": ["string", "null"]},
            },
        }
    },
}
_ERRORS = {
    400: "The request is wrong; `param` names the parameter.",
    401: "No API key, or a wrong one.",
    402: "The key's budget would be exceeded.",
    403: "A page of an origin that may not call, or something that the key may not use.",
    404: "No such model or path.",
    405: "The path exists, the method does not.",
    408: "The body came too slowly.",
    413: "The body is too large.",
    415: "Neither a form nor JSON.",
    429: "Too many requests; see Retry-After.",
    500: "A defect of the gateway.",
    502: "The provider failed.",
    503: "No room for this request now; see Retry-After.",
    504: "The provider did not finish in time.",
}
_NOTE = {
    "type": "object",
    "required": ["name", "how", "sent_as", "why"],
    "properties": {
        "name": {"type": "string"},
        "how": {"enum": ["passthrough", "renamed", "converted", "emulated", "ignored", "rejected"]},
        "sent_as": {"type": ["string", "null"]},
        "why": {"type": "string"},
    },
}
_ANSWER = {
    "type": "object",
    "required": ["id", "created", "data", "metadata"],
    "properties": {
        "id": {"type": "string"},
        "created": {"type": "integer"},
        "size": {"type": "string", "pattern": r"^\d+x\d+$"},
        "output_format": {"enum": ["png", "jpeg", "gif", "webp", "avif"]},
        "data": {
            "type": "array",
            "minItems": 1,
            "items": {
                "type": "object",
                "properties": {
                    "url": {"type": "string"},
                    "b64_json": {"type": "string"},
                    "revised_prompt": {"type": "string"},
                },
                "oneOf": [{"required": ["url"]}, {"required": ["b64_json"]}],
            },
        },
        "metadata": {
            "type": "object",
            "required": ["model", "executed_model", "provider", "provider_name", "cost", "cost_currency", "parameters"],
            "properties": {
                "cost": {"type": ["number", "null"]},
                "seed": {"type": "integer"},
                "parameters": {"type": "array", "items": _NOTE},
                "failed": {"type": "array"},
            },
        },
    },
}
_ESTIMATE = {
    "type": "object",
    "required": ["estimated", "model", "provider", "total_cost_micros", "currency", "components", "plan"],
    "properties": {"estimated": {"const": True}, "total_cost_micros": {"type": ["integer", "null"]}},
}


def errors(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Responses for a route: the named errors, in our envelope."""
    return {
        status: {"description": _ERRORS[status], "content": {"application/json": {"schema": ERROR}}}
        for status in statuses
    }


def edit_operation(models: Iterable[Model]) -> dict[str, Any]:
    """`openapi_extra` of the edits endpoint."""
    serving, fields = _served(models, "image-edit")
    if not serving:
        return _operation("Edit pictures", {"application/json": _body(fields, ["model", "prompt"])})
    url = {"type": "string", "description": "A public http(s) URL or a data URI."}
    picture = {"type": "string", "format": "binary"}
    form = fields | {
        "image": fields["image"] | {"type": "array", "items": picture, "minItems": 1},
        "mask": fields.get("mask", {}) | picture,
    }
    as_json = {name: field for name, field in fields.items() if name not in ("image", "mask")}
    as_json |= {
        "image": {"anyOf": [url, {"type": "array", "items": url}], "description": "One picture or several."},
        "images": {
            "type": "array",
            "items": {"type": "object", "properties": {"image_url": url}, "required": ["image_url"]},
            "description": "The pictures, as OpenAI spells it.",
        },
        "image_url": url,
        "image_base64": {"type": "string", "description": "A picture as bare base64."},
        "mask": fields.get("mask", {}) | {"anyOf": [url, {"type": "object", "properties": {"image_url": url}}]},
    }
    return _operation(
        "Edit pictures",
        {
            "multipart/form-data": _body(form, ["model", "prompt", "image"]),
            "application/json": _body(as_json, ["model", "prompt"]),
        },
    )


def generation_operation(models: Iterable[Model]) -> dict[str, Any]:
    """`openapi_extra` of the generations endpoint."""
    _, fields = _served(models, "text-to-image")
    body = _body(fields, ["model", "prompt"])
    return _operation("Make pictures from words", {"application/json": body, "multipart/form-data": body})


def _served(models: Iterable[Model], mode: Mode) -> tuple[list[Model], dict[str, Any]]:
    """The models of this mode, and every field that one of them takes."""
    serving = [model for model in models if mode in model.modes]
    ids = ", ".join(model.id for model in serving) or "none is loaded"
    model_field = {"type": "string", "description": f"A model, an alias, or provider/model: {ids}."}
    return serving, parameters(serving, mode) | {"model": model_field}


def _operation(summary: str, bodies: Mapping[str, dict[str, Any]]) -> dict[str, Any]:
    return {
        "summary": summary,
        "parameters": [
            {
                "name": "dryRun",
                "in": "query",
                "required": False,
                "schema": {"type": "boolean", "default": False},
                "description": "Price and explain the request instead of running it.",
            }
        ],
        "requestBody": {"required": True, "content": {kind: {"schema": body} for kind, body in bodies.items()}},
    }


def responses() -> dict[int | str, dict[str, Any]]:
    """`responses` of an endpoint that makes pictures."""
    done = {
        "description": "The pictures; a price and a plan with dryRun; events with stream.",
        "content": {
            "application/json": {"schema": {"anyOf": [_ANSWER, _ESTIMATE]}},
            "text/event-stream": {"schema": {"type": "string"}},
        },
    }
    return {200: done, **errors(*(status for status in _ERRORS if status != 405))}


def parameters(models: Iterable[Model], mode: Mode) -> dict[str, dict[str, Any]]:
    """Every parameter that some model of this mode takes, as JSON schemas."""
    readings: dict[str, list[dict[str, Any]]] = {}
    becomes: dict[str, dict[str, str]] = {}
    docs: dict[str, str] = {}
    for model in models:
        for offer in model.offers_for(mode):
            for name, row in offer.params.items():
                becomes.setdefault(name, {})[f"{offer.provider}/{model.id}"] = row.how
                if row.how == "rejected":
                    continue
                reading = _schema(row)
                if reading not in readings.setdefault(name, []):
                    readings[name].append(reading)
                docs.setdefault(name, row.doc or getattr(row, "why", ""))
    return {
        name: (found[0] if len(found) == 1 else {"anyOf": found})
        | {"description": docs[name], "x-imagegate": becomes[name]}
        for name, found in readings.items()
    }


def install(app: FastAPI, catalogue: Catalogue) -> None:
    """FastAPI's document, without the 422 that it promises for every typed route: what is wrong here is a 400. Written
    anew when the catalogue has changed."""
    generate = app.openapi

    def outdated() -> None:
        app.openapi_schema = None

    catalogue.on_replace(outdated)

    def document() -> dict[str, Any]:
        if app.openapi_schema is None:
            described = generate()
            for path in described["paths"].values():
                for operation in path.values():
                    operation["responses"].pop("422", None)
            for name in ("HTTPValidationError", "ValidationError"):
                described.get("components", {}).get("schemas", {}).pop(name, None)
        assert app.openapi_schema is not None
        return app.openapi_schema

    app.openapi = document  # type: ignore[method-assign]  # FastAPI's documented way


def _body(fields: dict[str, Any], required: list[str]) -> dict[str, Any]:
    return {
        "type": "object",
        "required": required,
        "properties": dict(sorted(fields.items())),
        "additionalProperties": True,
        "description": "Further fields pass straight through to the provider.",
    }


def _schema(row: Row) -> dict[str, Any]:
    kinds = {kind: kind for kind in ("string", "integer", "number", "boolean", "object")} | {"list": "array"}
    schema: dict[str, Any] = {"type": kinds[row.type]} if row.type in kinds else {}
    bounds = {
        "enum": list(words_of(row)) or None,
        "minimum": bound(row, row.min),
        "maximum": bound(row, row.max),
        "maxLength": row.max_length,
        "minLength": 1 if row.type == "string" and row.required else None,
        "default": row.default,
    }
    return schema | {name: value for name, value in bounds.items() if value is not None}
