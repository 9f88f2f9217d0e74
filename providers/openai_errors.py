"""Failures of servers with OpenAI's API -> ProviderError. Three body shapes:

    OpenAI       {"error": {"message", "type", "param", "code"}}                     also LocalAI, imagegate
    FastAPI      {"detail": [{"loc": ["body", "size"], "msg": …, "type": …}]}        vLLM-Omni 0.30, SGLang 0.5.23
    plain        {"detail": "…"}, {"error": "…"}, {"message": "…"}

Texts may repeat the prompt or a data URI, so none of them is shown or logged: what is said is ours, with the server's
`code`, `type` and field, which come from short lists.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from decimal import Decimal, InvalidOperation
from typing import Any

from providers.base import Fault, ProviderError
from providers.http import Answer, retry_after

# https://platform.openai.com/docs/guides/error-codes and the Images API's own, November 2026.
# Not the type `image_generation_user_error`: a size that cannot be made and a model that does not exist have it, too.
_REFUSALS = frozenset({"content_policy_violation", "moderation_blocked", "content_filter"})
_ACCOUNT = frozenset(
    {"invalid_api_key", "insufficient_quota", "billing_hard_limit_reached", "account_deactivated",
     "organization_not_verified"}
)  # fmt: skip
_MODEL = frozenset({"model_not_found", "model_not_allowed", "gateway_loop"})
# Another imagegate's words for what its own provider did: it tells the cost in a header, if it is known.
_OPEN = frozenset(
    {"upstream_ambiguous", "provider_timeout", "provider_bad_response", "provider_unavailable",
     "provider_misconfigured", "all_providers_failed", "internal_error"}
)  # fmt: skip
_UNSAID = (408, 409, 499)  # of the exchange, not of the request: the server may be at work all the same
_TEXT: Mapping[Fault, str] = {
    Fault.INVALID: "The provider did not accept the request.",
    Fault.REFUSED: "The provider refused this request for its content.",
    Fault.UNAUTHORIZED: "The provider did not accept the gateway's account.",
    Fault.MISCONFIGURED: "The provider does not know this model, or gives it to others.",
    Fault.RATE_LIMITED: "The provider is at its rate limit. Try again later.",
    Fault.TIMEOUT: "The provider did not finish in time.",
    Fault.UNAVAILABLE: "The provider failed.",
    Fault.MALFORMED: "The provider answered something unexpected.",
}
_LOOP = "The provider is a gateway that asks this one again: the model leads back to itself."
_WORD = re.compile(r"[A-Za-z0-9_.\[\]-]{1,64}")


def failure(answer: Answer) -> ProviderError:
    """What an answer that is no success means.

    The exchange is the whole job: an answer of the server's own says that the job is over, and without a picture it is
    not billed, unless it says so itself. Another imagegate does; where it does not, it does not know. What a proxy on
    the way says (502, 504, any page) leaves open whether the server is still at work.
    """
    told = _told(answer.json())
    fault = _fault(answer.status, told)
    own = told is not None
    charged = _charged(answer)
    unknown = charged is None and told is not None and _leaves_open(answer.status, told)
    over = not unknown and (own or (answer.status < 500 and answer.status not in _UNSAID))
    refused = answer.status < 500 and answer.status not in _UNSAID
    # 503 in the server's own words: it has no room, and has not begun.
    turned_away = (refused or (answer.status == 503 and own)) and charged is not True and not unknown
    return ProviderError(
        fault,
        _LOOP if told is not None and told.code == "gateway_loop" else _TEXT[fault],
        detail=" ".join(f"{answer.asked}: HTTP {answer.status} {_shown(told)}".split()),
        field=told.field if told is not None and fault in (Fault.INVALID, Fault.REFUSED) else None,
        item=told.item if told is not None else None,
        accepted=False if turned_away else True if over else None,
        charged=charged if charged is not None else False if over else None,
        retry_after=retry_after(answer.headers),
        final=fault in (Fault.INVALID, Fault.REFUSED, Fault.UNAUTHORIZED, Fault.MISCONFIGURED)
        or answer.headers.get("x-should-retry") == "false",
    )


class _Told:
    """What a server's own words say."""

    __slots__ = ("code", "field", "item", "type")

    def __init__(self, code: str = "", type: str = "", field: str | None = None, item: int | None = None) -> None:
        self.code, self.type, self.field, self.item = code, type, field, item


def _told(body: Any) -> _Told | None:
    if not isinstance(body, dict):
        return None
    error, detail = body.get("error"), body.get("detail")
    if isinstance(error, dict):
        return _Told(_word(error.get("code")), _word(error.get("type")), *_place(error.get("param")))
    if isinstance(detail, list) and detail and isinstance(detail[0], dict):
        loc = detail[0].get("loc")
        names = [part for part in loc if part not in ("body", "query")] if isinstance(loc, list) else []
        index = names[1] if len(names) > 1 and isinstance(names[1], int) else None
        return _Told("", _word(detail[0].get("type")), _word(names[0]) or None if names else None, index)
    if any(name in body for name in ("error", "detail", "message")):
        return _Told()
    return None


def _place(param: Any) -> tuple[str | None, int | None]:
    """`image[1]` -> ("image", 1)."""
    word = _word(param)
    match = re.fullmatch(r"(.+)\[(\d{1,3})\]", word)
    return (match[1], int(match[2])) if match else (word or None, None)


def _word(value: Any) -> str:
    """A server's word if it is one, never a text."""
    return value if isinstance(value, str) and _WORD.fullmatch(value) else ""


def _fault(status: int, told: _Told | None) -> Fault:
    words = {told.code, told.type} if told is not None else set()
    if words & _REFUSALS:
        return Fault.REFUSED
    wrong_model = status < 500 and told is not None and told.field == "model"  # `model` is ours to send
    if words & _MODEL or wrong_model or (status in (404, 405) and not words & _ACCOUNT):
        return Fault.MISCONFIGURED  # not the caller's doing: the model's name, or the address
    if words & _ACCOUNT or status in (401, 402, 403):
        return Fault.UNAUTHORIZED  # nor this: the key or the account
    match status:
        case 429:
            return Fault.RATE_LIMITED
        case 408 | 504:
            return Fault.TIMEOUT
        case _ if 400 <= status < 500 and status not in (409, 425, 499):
            return Fault.INVALID
        case _ if status >= 409:
            return Fault.UNAVAILABLE
    return Fault.MALFORMED  # a redirect, or 1xx


def _leaves_open(status: int, told: _Told) -> bool:
    """Whether these are another imagegate's words, who would have told the cost if it were known."""
    if status >= 500:
        return told.code in _OPEN and status != 503  # 503: it has not asked anybody
    return (told.code, told.type) == ("content_policy_violation", "image_generation_user_error")


def _charged(answer: Answer) -> bool | None:
    """Another imagegate says of its errors what they cost."""
    try:
        cost = Decimal(answer.headers.get("x-imagegate-cost", ""))
    except InvalidOperation:
        return None
    return cost > 0 if cost.is_finite() else None


def _shown(told: _Told | None) -> str:
    if told is None:
        return "in no shape that is known"
    return " ".join(part for part in (told.code, told.type, told.field and f"at {told.field}") if part)
