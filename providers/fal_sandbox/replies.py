"""Every body fal answers with when something is wrong, and the two tables that fix its status.

Source keys are those of the project's notes on fal: D-ERR https://docs.fal.ai/errors, D-RERR
https://fal.ai/docs/documentation/model-apis/request-errors, D-Q .../inference/queue, all read November 2026.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

ERROR_DOCS = "https://docs.fal.ai/errors/#"

MODEL_ERROR_STATUS: Mapping[str, int] = MappingProxyType(
    {
        "internal_server_error": 500,
        "generation_timeout": 504,
        "downstream_service_error": 400,  # another copy of D-ERR says 500
        "downstream_service_unavailable": 500,
    }
)
"""Shape 1 (D-ERR). Every type that is not listed here is a 422."""

INFRA_ERROR_STATUS: Mapping[str, int] = MappingProxyType(
    {
        "request_timeout": 504,
        "startup_timeout": 504,
        "runner_scheduling_failure": 503,
        "runner_connection_timeout": 503,
        "runner_disconnected": 503,
        "runner_connection_refused": 503,
        "runner_connection_error": 503,
        "runner_incomplete_response": 502,
        "runner_server_error": 500,
        "internal_error": 500,
        "client_disconnected": 499,
        "client_cancelled": 499,
        "bad_request": 400,
        "concurrent_requests_limit": 429,
    }
)
"""Shape 2 (D-RERR; the last row from the common-parameters page)."""

POLICY_TEXT = "The content could not be processed because it contained material flagged by a content checker."

_INFRA_TEXT: Mapping[str, str] = MappingProxyType(
    {
        "request_timeout": "Request timed out",
        "client_cancelled": "Request was cancelled by the client",
        "concurrent_requests_limit": "Too many concurrent requests",
    }
)

_MODEL_TEXT: Mapping[str, str] = MappingProxyType(
    {
        "content_policy_violation": POLICY_TEXT,
        "no_media_generated": "The model did not generate the expected output.",
        "internal_server_error": "Internal server error",
        "generation_timeout": "Generation timeout",
        "downstream_service_error": "Downstream service error",
        "downstream_service_unavailable": "Downstream service unavailable",
    }
)


@dataclass(frozen=True, slots=True)
class Reply:
    """One HTTP answer as a value: what a model returned, or what a host of fal says itself."""

    status: int
    content: bytes
    headers: Mapping[str, str] = field(default_factory=dict)
    content_type: str = "application/json"


def as_json(body: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Reply:
    # ensure_ascii: a prompt may hold a lone surrogate, which UTF-8 cannot carry
    return Reply(status, json.dumps(body, separators=(",", ":")).encode(), dict(headers or {}))


class ModelRejection(Exception):
    """A model answers with shape 1. Carries everything for `details`."""

    def __init__(
        self,
        kind: str,
        message: str,
        *,
        loc: Sequence[str | int] = ("body",),
        ctx: Mapping[str, Any] | None = None,
        given: Any = None,
    ) -> None:
        super().__init__(message)
        self.kind = kind
        self.message = message
        self.loc = tuple(loc)
        self.ctx = ctx
        self.given = given


def detail(rejection: ModelRejection) -> dict[str, Any]:
    """One entry of shape 1's list. `loc` mixes strings and ints; `input` echoes what was sent, a whole data URI too."""
    entry: dict[str, Any] = {
        "loc": list(rejection.loc),
        "msg": rejection.message,
        "type": rejection.kind,
        "url": ERROR_DOCS + rejection.kind,
        "input": rejection.given,
    }
    if rejection.ctx:
        entry["ctx"] = dict(rejection.ctx)
    return entry


def model_error(rejection: ModelRejection) -> Reply:
    status = MODEL_ERROR_STATUS.get(rejection.kind, 422)
    # X-Fal-Retryable is D-ERR's hint; 422s never are
    return as_json({"detail": [detail(rejection)]}, status, {"X-Fal-Retryable": "true" if status >= 500 else "false"})


def model_error_of(kind: str, given: Any = None) -> Reply:
    message = _MODEL_TEXT.get(kind, kind.replace("_", " ").capitalize())
    loc = ("body", "prompt") if kind == "content_policy_violation" else ("body",)
    return model_error(ModelRejection(kind, message, loc=loc, given=given))


def infra_text(error_type: str) -> str:
    return _INFRA_TEXT.get(error_type, error_type.replace("_", " ").capitalize())


def infra_error(error_type: str, headers: Mapping[str, str] | None = None) -> Reply:
    status = INFRA_ERROR_STATUS.get(error_type, 500)
    own = {"X-Fal-Error-Type": error_type}
    if status in (429, 503):
        own["X-Fal-Needs-Retry"] = "1"
    return as_json({"detail": infra_text(error_type), "error_type": error_type}, status, {**own, **(headers or {})})


def plain(status: int, text: str) -> Reply:
    return as_json({"detail": text}, status)


def user_timeout() -> Reply:
    """The deadline of X-Fal-Request-Timeout passed before the job started: 504, and the client must not retry."""
    return infra_error("request_timeout", {"X-Fal-Request-Timeout-Type": "user"})


def locked(reason: str) -> Reply:
    """The account ran out of money: 403, never 402 (fal issues 1147, 1112, 1163, 1168)."""
    return plain(403, f"User is locked. Reason: {reason}")


def no_user() -> Reply:
    return plain(401, "No user found for Key ID and Secret")


def malformed_key() -> Reply:
    return plain(401, "Invalid Key Authorization header format. Expected 'Key <key_id>:<key_secret>'.")


def nginx(status: int) -> Reply:
    """The ingress in front of fal: HTML that names nginx, and no x-fal-request-id. fal's client tells it by these."""
    title = {502: "502 Bad Gateway", 503: "503 Service Temporarily Unavailable", 504: "504 Gateway Time-out"}.get(
        status, f"{status} Error"
    )
    page = (
        f"<html>\r\n<head><title>{title}</title></head>\r\n<body>\r\n<center><h1>{title}</h1></center>\r\n"
        "<hr><center>nginx</center>\r\n</body>\r\n</html>\r\n"
    )
    return Reply(status, page.encode(), content_type="text/html")
