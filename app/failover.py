"""When a model's next offer is tried. Pure.

Only as long as surely nothing was bought: every job of the request was refused before it began, or ended without a
bill, by a fault that says nothing against the request itself. A picture that was made, a reply that was lost, a
refusal, a client's mistake: each ends it.
"""

from __future__ import annotations

from collections.abc import Sequence

from app.errors import (
    AllProvidersFailed,
    GatewayError,
    ProviderFailure,
    ProviderMisconfigured,
    ProviderOut,
    RateLimited,
)
from app.faults import FAULTS
from app.types import Failure
from providers.base import ProviderError


def lets_next_try(error: ProviderError | GatewayError | None) -> bool:
    """Whether a job's failure leaves it to another provider."""
    if isinstance(error, ProviderError):
        return FAULTS[error.fault].try_next and error.charged is False
    return isinstance(error, ProviderOut | ProviderMisconfigured)  # our own breaker's word: nothing was sent


def was_in_vain(failure: Failure) -> bool:
    """Whether a picture is missing because of its provider alone, at no cost."""
    return isinstance(failure.error, ProviderFailure | RateLimited) and failure.charged is False


def all_failed(tried: Sequence[tuple[str, GatewayError]]) -> AllProvidersFailed:
    """What the client is told when several providers, by their labels, could not do it."""
    waits = [error.retry_after for _, error in tried if error.retry_after is not None]
    hopeless = all(error.should_retry is False for _, error in tried)
    return AllProvidersFailed(
        "No provider could do it. " + " ".join(f"{label}: {error.message}" for label, error in tried),
        detail="; ".join(f"{label}: {error.detail}" for label, error in tried if error.detail),
        retry_after=min(waits) if waits else None,
        should_retry=False if hopeless else None,
    )
