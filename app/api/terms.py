"""How a request wants to be run, and where it comes from: headers -> Terms."""

from __future__ import annotations

import math

from starlette.datastructures import Headers

from app.errors import AboveMaximum, BelowMinimum, InvalidType, InvalidValue
from app.loops import read_via
from app.params.values import shown
from app.types import Terms
from providers.base import VIA

LONGEST_KEY = 255


def read_terms(headers: Headers, max_seconds: float) -> Terms:
    """Idempotency-Key, x-request-timeout (seconds), what OpenAI's SDKs tell of their own repeats, and what gateways
    before this one have added.

    Raises InvalidRequest that names the header.
    """
    return Terms(_key(headers), _repeats(headers), _seconds(headers, max_seconds), read_via(headers.getlist(VIA)))


def _key(headers: Headers) -> str | None:
    keys = headers.getlist("idempotency-key")
    if not keys:
        return None
    if len(keys) > 1:
        raise InvalidValue("There is more than one Idempotency-Key.", param="Idempotency-Key")
    key = keys[0].strip()
    if not 0 < len(key) <= LONGEST_KEY or not all("!" <= character <= "~" or character == " " for character in key):
        raise InvalidValue(
            f"Invalid 'Idempotency-Key': expected 1 to {LONGEST_KEY} visible ASCII characters.",
            param="Idempotency-Key",
        )
    return key


def _repeats(headers: Headers) -> int | None:
    """How often the SDK has sent it before. What is no number is no SDK's."""
    count = headers.get("x-stainless-retry-count", "")
    return int(count) if count.isdecimal() and len(count) < 4 else None


def _seconds(headers: Headers, max_seconds: float) -> float | None:
    text = headers.get("x-request-timeout")
    if text is None:
        return None
    name = "x-request-timeout"
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not math.isfinite(seconds):
        raise InvalidType(f"Invalid type for '{name}': expected seconds, but got '{shown(text)}'.", param=name)
    if seconds <= 0:
        raise BelowMinimum(f"Invalid '{name}': expected more than 0 seconds.", param=name, integer=False)
    if seconds > max_seconds:
        raise AboveMaximum(f"Invalid '{name}': at most {max_seconds:g} seconds.", param=name, integer=False)
    return seconds
