"""fal's failures -> ProviderError. Three body shapes (docs.fal.ai/errors, fal.ai/docs …/request-errors, Nov 2026):

    model error      {"detail": [{"loc": ["body", "image_urls", 0], "msg": …, "type": …, "ctx": …, "input": …}]}
    infrastructure   {"detail": "…", "error_type": "request_timeout"}  and header X-Fal-Error-Type
    plain            {"detail": "…"}

`type` decides, never `msg`. `msg` and `input` may echo a whole data URI: what is shown or logged is cut.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from providers.base import Fault, ProviderError
from providers.http import Answer, retry_after

# Shape 1 types that are no mistake of the request.
_MODEL_FAULTS: Mapping[str, Fault] = {
    "content_policy_violation": Fault.REFUSED,
    "generation_timeout": Fault.TIMEOUT,
    "internal_server_error": Fault.UNAVAILABLE,
    "downstream_service_error": Fault.UNAVAILABLE,
    "downstream_service_unavailable": Fault.UNAVAILABLE,
}
_TEXT: Mapping[str, str] = {
    "content_policy_violation": "The provider refused this request for its content.",
    "no_media_generated": "The model made no picture from this request.",
    "image_load_error": "The provider could not read the picture.",
    "file_download_error": "The provider could not fetch the picture.",
    "generation_timeout": "The provider did not finish in time.",
}
# Shape 2 (D-RERR).
_TIMEOUTS = frozenset({"request_timeout", "startup_timeout"})

_DATA_URI = re.compile(r"data:[\w/+.-]*[;,][^\s\"']*")
_SHOWN = 240


def failure(answer: Answer, *, submitted: bool) -> ProviderError:
    """What a non-200 answer means. `submitted` = a job existed before this request was made."""
    body = answer.json()
    detail = body.get("detail") if isinstance(body, dict) else None
    error_type = answer.headers.get("x-fal-error-type") or (body.get("error_type") if isinstance(body, dict) else None)
    accepted: bool | None = True if submitted else _may_be_accepted(answer)
    shown = _cut(detail or answer.body[:400].decode(errors="replace"))
    shared: dict[str, Any] = {
        "accepted": accepted,
        "retry_after": retry_after(answer.headers),
        "final": _final(answer),
        "detail": f"HTTP {answer.status} {error_type or ''}: {shown}",
    }
    if isinstance(detail, list) and detail and isinstance(detail[0], dict):
        return _model_error(answer.status, detail[0], shared)
    match answer.status:
        case 401:
            return ProviderError(Fault.UNAUTHORIZED, "The gateway's account at the provider was refused.", **shared)
        case 403:
            # {"detail": "User is locked. Reason: Exhausted balance. …"}: fal has no 402.
            return ProviderError(Fault.UNAUTHORIZED, "The gateway's account at the provider is locked.", **shared)
        case 404 | 405 if not submitted:
            return ProviderError(Fault.UNAUTHORIZED, "The provider does not know this model's endpoint.", **shared)
        case 404 | 405:
            return ProviderError(Fault.MALFORMED, "The provider lost the job or its result.", **shared)
        case 429:
            return ProviderError(Fault.RATE_LIMITED, "The provider is at its rate limit. Try again later.", **shared)
        case 499:
            return ProviderError(Fault.UNAVAILABLE, "The provider's job was cancelled.", **shared)
        case 504:
            return ProviderError(Fault.TIMEOUT, "The provider did not finish in time.", **shared)
        case 400 | 413 | 422:
            return ProviderError(Fault.INVALID, f"The provider refused the request: {_cut(detail)}", **shared)
        case status if status >= 500:
            return ProviderError(Fault.UNAVAILABLE, "The provider failed.", **shared)
    return ProviderError(Fault.MALFORMED, "The provider answered something unexpected.", **shared)


def failure_in_status(status: Mapping[str, Any]) -> ProviderError:
    """A job that is COMPLETED with `error` and perhaps `error_type`."""
    error_type = str(status.get("error_type") or "")
    detail = f"COMPLETED with {error_type} {_cut(status.get('error'))}"
    if error_type in _TIMEOUTS:
        return ProviderError(Fault.TIMEOUT, "The provider did not finish in time.", detail=detail, accepted=True)
    if fault := _MODEL_FAULTS.get(error_type):
        return ProviderError(fault, _TEXT.get(error_type, "The provider failed."), detail=detail, accepted=True)
    return ProviderError(Fault.UNAVAILABLE, "The provider's job failed.", detail=detail, accepted=True)


def _model_error(status: int, first: Mapping[str, Any], shared: dict[str, Any]) -> ProviderError:
    kind = str(first.get("type") or "")
    location = first.get("loc")
    words = [part for part in location if isinstance(part, str)] if isinstance(location, list) else []
    words = words[1:] if words[:1] == ["body"] else words
    field = words[0] if words else None
    fault = _MODEL_FAULTS.get(kind) or (Fault.INVALID if status < 500 else Fault.UNAVAILABLE)
    if fault is Fault.UNAVAILABLE and status == 504:
        fault = Fault.TIMEOUT
    message = _TEXT.get(kind)
    if message is None:
        message = _cut(first.get("msg")) or kind if fault is Fault.INVALID else "The provider failed."
    return ProviderError(fault, message, field=field, **shared)


def _may_be_accepted(answer: Answer) -> bool | None:
    """After a submit that was answered with an error: can a job exist all the same?

    4xx: no. 503 in fal's own shape: its queue did not take it. An nginx page without x-fal-request-id comes from the
    ingress, before any queue (fal-client retries on just that). Anything else cannot be known.
    """
    if answer.status < 500:
        return False
    if answer.status == 503 and isinstance(answer.json(), dict):
        return False
    if "x-fal-request-id" not in answer.headers and b"nginx" in answer.body[:2000] and answer.status in (502, 503):
        return False
    return None


def _final(answer: Answer) -> bool:
    """fal's own hints. A 504 whose timeout was ours is never retried; both names of the retry header are in use."""
    if answer.headers.get("x-fal-request-timeout-type") == "user":
        return True
    return answer.headers.get("x-fal-retryable", "").lower() in ("false", "0")


def _cut(value: Any) -> str:
    """Provider text as it may be shown: no data URI, one line, short."""
    text = " ".join(_DATA_URI.sub("data:…", str(value if value is not None else "")).split())
    return text if len(text) <= _SHOWN else text[: _SHOWN - 1] + "…"
