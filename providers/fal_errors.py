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
from providers.retries import Doubted

# What was asked: a job to be made, a picture to be taken in, how a job is doing (or to stop it), what it has made,
# which jobs there were.
Step = Literal["submit", "upload", "status", "result", "list"]

CANCELLED = "client_cancelled"

# A job may be paid for, so a word that would end it is doubted (looks, and seconds over which they must be spread).
_UNKNOWN_JOB = (8, 60.0)  # "not found" of a status
_BROKEN_RESULT = (3, 1.0)  # a 5xx in a shape of fal's: how the job ended, or a hiccup of the queue, which is over soon
_PLAIN_RESULT = (6, 15.0)  # "not found" of a result, or a model's failure in no shape of fal's

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
    CANCELLED: "The provider's job was cancelled.",
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
# 4xx of a submit after which a job can exist all the same. 408 and 499 (460 at some balancers) are what an ingress says
# of a client that was slow or left, which may be when the queue had its request already.
_MAY_BE_TAKEN = frozenset({408, 460, 499})
# Redirects that say "not here, the same again elsewhere"; after 302 and 303 a POST may have been carried out.
_NOT_HERE = frozenset({301, 307, 308})

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
    of_a_job = of in ("status", "result")
    known = first is not None or bool(error_type)
    if fault in (Fault.INVALID, Fault.REFUSED) and not _is_about_the_request(answer, body, of, known=known):
        fault, message = Fault.MALFORMED, _FAULT_TEXT[Fault.MALFORMED]
    facts: dict[str, Any] = {
        "detail": " ".join(f"{answer.asked}: HTTP {answer.status} {shown(error_type)}: {told}".split()),
        "field": field,
        "item": item,
        "accepted": _accepted(answer, body, of),
        "retry_after": retry_after(answer.headers),
        # The model's own verdict on a job: fal does not bill what failed, unless it says so: a 422 may have run (fal's
        # FAQ, Nov 2026). A result that is merely gone, or kept back by a rate limit, may be billed.
        "charged": _is_billed(answer) if of == "result" and known and _is_verdict(answer) else None,
        "cancelled": of_a_job and error_type == CANCELLED,
        "lost": of_a_job and not known and answer.status in (404, 410),
    }
    if _is_final(answer, of, known=known) or facts["cancelled"]:
        return ProviderError(fault, message, final=True, **facts)
    if of == "result" and known and answer.status >= 500 and "x-fal-request-id" in answer.headers:
        looks, seconds = _BROKEN_RESULT
        return Doubted(fault, message, looks=looks, seconds=seconds, **facts)
    if facts["lost"] or (of == "result" and _is_plain_verdict(answer, body)):
        looks, seconds = _UNKNOWN_JOB if of == "status" else _PLAIN_RESULT
        return Doubted(fault, message, looks=looks, seconds=seconds, **facts)
    return ProviderError(fault, message, **facts)


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
        cancelled=kind == CANCELLED,
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
            return Fault.MISCONFIGURED, "The provider does not know this model's endpoint."
        case 404 | 405 | 410 if of in ("status", "result"):
            return Fault.MALFORMED, "The provider lost the job or its result."
        case 429:
            return Fault.RATE_LIMITED, _FAULT_TEXT[Fault.RATE_LIMITED]
        case 408 | 409 | 425:
            return Fault.UNAVAILABLE, "The provider could not take the request."
        case 499:
            return Fault.UNAVAILABLE, _TEXT.get(error_type, "The provider dropped the request.")
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
    """Can a job exist after this answer? Before a submit none does, after it one does. In doubt it can.

    A submit that was refused with a 4xx or sent elsewhere: no, but for `_MAY_BE_TAKEN`. 503 in fal's own shape: its
    queue did not take it. 503 as nginx's page without x-fal-request-id: the ingress had nobody to pass it on to. The
    same page with 502 or 504 says that somebody had it, and did not answer: fal-client sends such a submit again, and
    may pay twice. Anything else cannot be known.
    """
    if of == "list":
        return None
    if of != "submit":
        return of != "upload"
    if answer.status in _NOT_HERE or (400 <= answer.status < 500 and answer.status not in _MAY_BE_TAKEN):
        return False
    ingress = "x-fal-request-id" not in answer.headers and b"nginx" in answer.body[:2000]
    return False if answer.status == 503 and ("detail" in body or ingress) else None


def _is_verdict(answer: Answer) -> bool:
    return answer.status >= 400 and answer.status not in _PASSING


def _is_billed(answer: Answer) -> bool:
    return answer.headers.get("x-fal-billable-units", "0").strip("0.") != ""


def _is_final(answer: Answer, of: Step, *, known: bool) -> bool:
    """Whether asking again is of no use: by fal's own hints, or because the answer is a verdict.

    Of a status none is, whatever its number: the verdict on a job is the word COMPLETED. Of a result it is an answer
    in fal's shapes 1 and 2 below 500, or any 422; fal's hints are about the call that they answer.
    """
    hints = answer.headers.get("x-fal-retryable"), answer.headers.get("x-fal-needs-retry")
    if of != "status" and any(hint is not None and hint.lower() in ("false", "0") for hint in hints):
        return True
    if answer.headers.get("x-fal-request-timeout-type") == "user":
        return True  # a 504 whose limit was ours
    match of:
        case "upload" | "list":
            return answer.status < 500 and answer.status not in _PASSING
        case "result":
            return answer.status == 422 or (known and answer.status < 500 and answer.status not in _PASSING)
    return False


def _is_about_the_request(answer: Answer, body: Mapping[str, Any], of: Step, *, known: bool) -> bool:
    """Whether a 4xx can be a word about the caller's values. Where it cannot, the job may be done and paid for."""
    match of:
        case "submit":
            return True
        case "result":
            return known or answer.status == 422 or _is_plain_verdict(answer, body)
    return False


def _is_plain_verdict(answer: Answer, body: Mapping[str, Any]) -> bool:
    """A model that fails in a shape of its own, `{"detail": "..."}` with a 400 or an uncaught exception's 500, as a
    rule; but an ingress can say the same."""
    return "x-fal-request-id" in answer.headers and (
        answer.status == 500 or (answer.status in (400, 413, 415) and "detail" in body)
    )
