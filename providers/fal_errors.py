"""fal's failures -> ProviderError. Three body shapes (docs.fal.ai/errors, fal.ai/docs …/request-errors, Nov 2026):

    model error      {"detail": [{"loc": ["body", "image_urls", 0], "msg": …, "type": …, "ctx": …, "input": …}]}
    infrastructure   {"detail": "…", "error_type": "request_timeout"}  and header X-Fal-Error-Type
    plain            {"detail": "…"}

`type` decides, never `msg`. `input` echoes what was sent, the prompt or a whole data URI: it is neither shown nor
logged; of the other texts only a cut line without picture data is.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Literal

from providers.base import Fault, ProviderError
from providers.http import Answer, retry_after

# What was asked: a job to be made, a picture to be taken in, how a job is doing (or to stop it), what it has made.
Step = Literal["submit", "upload", "status", "result"]

# Shape 1 types that are no mistake of the request; what is not listed here is one, unless its status is a 5xx.
_MODEL: Mapping[str, Fault] = {
    "content_policy_violation": Fault.REFUSED,
    "generation_timeout": Fault.TIMEOUT,
    "internal_server_error": Fault.UNAVAILABLE,
    "downstream_service_error": Fault.UNAVAILABLE,
    "downstream_service_unavailable": Fault.UNAVAILABLE,
}
# Shape 2 types that are no mere breakdown (those are UNAVAILABLE).
_INFRASTRUCTURE: Mapping[str, Fault] = {
    "request_timeout": Fault.TIMEOUT,
    "startup_timeout": Fault.TIMEOUT,
    "concurrent_requests_limit": Fault.RATE_LIMITED,
    "bad_request": Fault.INVALID,
}
_TEXT: Mapping[str, str] = {
    "no_media_generated": "The model made no picture from this request.",
    "image_load_error": "The provider could not read the picture.",
    "file_download_error": "The provider could not fetch the picture.",
    "client_cancelled": "The provider's job was cancelled.",
}
_FAULT_TEXT: Mapping[Fault, str] = {
    Fault.REFUSED: "The provider refused this request for its content.",
    Fault.RATE_LIMITED: "The provider is at its rate limit. Try again later.",
    Fault.TIMEOUT: "The provider did not finish in time.",
    Fault.UNAVAILABLE: "The provider failed.",
    Fault.MALFORMED: "The provider answered something unexpected.",
}
# 4xx that a repeat can mend (the first three by fal-client's own list of what it retries).
_PASSING = frozenset({408, 409, 429, 425})

_DATA_URI = re.compile(r"data:[\w/+.-]*[;,][^\s\"']*", re.IGNORECASE)
_BASE64 = re.compile(r"[\w+/=-]{80,}", re.ASCII)  # a data URI that lost its head
_SHOWN = 240


def failure(answer: Answer, *, of: Step) -> ProviderError:
    """What an answer that is no success means."""
    body = answer.json()
    body = body if isinstance(body, dict) else {}
    detail = body.get("detail")
    first = detail[0] if isinstance(detail, list) and detail and isinstance(detail[0], dict) else None
    error_type = str(answer.headers.get("x-fal-error-type") or body.get("error_type") or "")
    field: str | None = None
    item: int | None = None
    if first is not None:
        fault, message, field, item = _model_error(answer.status, first)
        told = ", ".join(f"{name}={shown(first.get(name))}" for name in ("type", "loc", "msg", "ctx") if name in first)
    else:
        fault, message = _by_status(answer.status, detail, error_type, of)
        told = shown(detail) if detail else excerpt(answer)
    if fault is Fault.INVALID and of in ("upload", "status"):
        fault, message = Fault.MALFORMED, _FAULT_TEXT[Fault.MALFORMED]  # no word about the caller's values
    known = first is not None or bool(error_type)
    return ProviderError(
        fault,
        message,
        detail=" ".join(f"{answer.asked}: HTTP {answer.status} {shown(error_type)}: {told}".split()),
        field=field,
        item=item,
        accepted=_accepted(answer, body, of),
        retry_after=retry_after(answer.headers),
        final=_final(answer, of, known=known),
        # The model's own verdict on a job: fal does not bill what failed. A result that is merely gone may be billed.
        charged=False if of == "result" and known and answer.status >= 400 else None,
    )


def failure_in_status(status: Mapping[str, Any]) -> ProviderError:
    """A job that is COMPLETED with `error` and perhaps `error_type`."""
    kind, text = str(status.get("error_type") or ""), status.get("error")
    fault = _MODEL.get(kind) or _INFRASTRUCTURE.get(kind) or Fault.UNAVAILABLE
    message = _refusal(text) if fault is Fault.INVALID else _TEXT.get(kind) or _FAULT_TEXT[fault]
    return ProviderError(
        fault,
        message,
        detail=f"COMPLETED with {shown(kind)}: {shown(text)}",
        accepted=True,
        charged=False,
        final=True,
    )


def malformed(message: str, answer: Answer, *, accepted: bool | None) -> ProviderError:
    """A success that cannot be read. Asking again may be of use where that is free."""
    detail = f"{answer.asked}: HTTP {answer.status} {excerpt(answer)}"
    return ProviderError(Fault.MALFORMED, message, detail=detail, accepted=accepted)


def shown(value: Any) -> str:
    """Provider text as it may be shown: no picture data, one line, short."""
    text = _DATA_URI.sub("data:…", str(value if value is not None else ""))
    text = " ".join(_BASE64.sub("…", text).split())
    return text if len(text) <= _SHOWN else text[: _SHOWN - 1] + "…"


def excerpt(answer: Answer) -> str:
    """How an answer begins, as it may be logged."""
    return shown(answer.body[:400].decode(errors="replace"))


def _model_error(status: int, first: Mapping[str, Any]) -> tuple[Fault, str, str | None, int | None]:
    kind = str(first.get("type") or "")
    location = first.get("loc")
    words = [part for part in location if isinstance(part, str)] if isinstance(location, list) else []
    words = words[1:] if words[:1] == ["body"] else words
    broke = Fault.TIMEOUT if status == 504 else Fault.UNAVAILABLE
    fault = _MODEL.get(kind) or (Fault.INVALID if status < 500 else broke)
    message = _TEXT.get(kind) or (shown(first.get("msg")) or kind if fault is Fault.INVALID else _FAULT_TEXT[fault])
    places = [part for part in location if isinstance(part, int)] if isinstance(location, list) else []
    return fault, message, words[0] if words else None, places[0] if places else None


def _by_status(status: int, detail: Any, error_type: str, of: Step) -> tuple[Fault, str]:
    if fault := _INFRASTRUCTURE.get(error_type):
        return fault, _refusal(detail) if fault is Fault.INVALID else _FAULT_TEXT[fault]
    match status:
        case 401:
            return Fault.UNAUTHORIZED, "The gateway's account at the provider was refused."
        case 402 | 403:
            # {"detail": "User is locked. Reason: Exhausted balance. …"}: fal has no 402.
            return Fault.UNAUTHORIZED, "The gateway's account at the provider is locked."
        case 404 | 405 if of == "submit":
            return Fault.UNAUTHORIZED, "The provider does not know this model's endpoint."
        case 404 | 405 if of in ("status", "result"):
            return Fault.MALFORMED, "The provider lost the job or its result."
        case 429:
            return Fault.RATE_LIMITED, _FAULT_TEXT[Fault.RATE_LIMITED]
        case 408 | 409 | 425:
            return Fault.UNAVAILABLE, "The provider could not take the request."
        case 499:
            return Fault.UNAVAILABLE, _TEXT["client_cancelled"]
        case 504:
            return Fault.TIMEOUT, _FAULT_TEXT[Fault.TIMEOUT]
        case 400 | 413 | 422:
            return Fault.INVALID, _refusal(detail)
        case status if status >= 500:
            return Fault.UNAVAILABLE, _FAULT_TEXT[Fault.UNAVAILABLE]
    return Fault.MALFORMED, _FAULT_TEXT[Fault.MALFORMED]


def _refusal(detail: Any) -> str:
    reason = shown(detail) if isinstance(detail, str) else ""
    return f"The provider refused the request: {reason}" if reason else "The provider refused the request."


def _accepted(answer: Answer, body: Mapping[str, Any], of: Step) -> bool | None:
    """Can a job exist after this answer? Before a submit none does, after it one does.

    A submit that was refused with a 3xx or 4xx: no. 503 in fal's own shape: its queue did not take it. An nginx page
    without x-fal-request-id comes from the ingress, before any queue (fal-client retries on just that). Anything else
    cannot be known; 499 is fal's word for a client that left, which does not say when.
    """
    if of != "submit":
        return of != "upload"
    if 300 <= answer.status < 500 and answer.status != 499:
        return False
    if answer.status == 503 and "detail" in body:
        return False
    if answer.status in (502, 503) and "x-fal-request-id" not in answer.headers and b"nginx" in answer.body[:2000]:
        return False
    return None


def _final(answer: Answer, of: Step, *, known: bool) -> bool:
    """Whether asking again is of no use: by fal's own hints, or because the answer is a verdict."""
    hints = answer.headers.get("x-fal-retryable"), answer.headers.get("x-fal-needs-retry")
    if any(hint is not None and hint.lower() in ("false", "0") for hint in hints):
        return True
    if answer.headers.get("x-fal-request-timeout-type") == "user":
        return True  # a 504 whose limit was ours
    if of == "submit":
        return False
    if answer.status < 500:
        return answer.status not in _PASSING
    # A result is the model's own answer: a 5xx in a shape of fal's is how the job ended, not a hiccup of the queue.
    return of == "result" and "x-fal-request-id" in answer.headers and (known or answer.status == 500)
