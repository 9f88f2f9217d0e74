"""What a provider's fault becomes: the one table, and the one translation."""

from __future__ import annotations

from dataclasses import dataclass

from app.errors import (
    GatewayError,
    InvalidImage,
    InvalidValue,
    ProviderBadResponse,
    ProviderMisconfigured,
    ProviderTimeout,
    ProviderUnavailable,
    RateLimited,
    Refused,
    UpstreamAmbiguous,
)
from providers.base import Fault, ProviderError


@dataclass(frozen=True, slots=True)
class FaultRule:
    """What one provider fault means: the client's error, and what may be tried when surely no job was made."""

    error: type[GatewayError]
    retry_same: bool  # submit again to the same offer
    try_next: bool  # submit to the model's next offer


FAULTS: dict[Fault, FaultRule] = {
    Fault.INVALID: FaultRule(InvalidValue, retry_same=False, try_next=False),
    Fault.REFUSED: FaultRule(Refused, retry_same=False, try_next=False),
    Fault.UNAUTHORIZED: FaultRule(ProviderMisconfigured, retry_same=False, try_next=True),
    Fault.MISCONFIGURED: FaultRule(ProviderMisconfigured, retry_same=False, try_next=True),
    Fault.RATE_LIMITED: FaultRule(RateLimited, retry_same=True, try_next=True),
    Fault.UNAVAILABLE: FaultRule(ProviderUnavailable, retry_same=True, try_next=True),
    Fault.TIMEOUT: FaultRule(ProviderTimeout, retry_same=False, try_next=True),
    Fault.MALFORMED: FaultRule(ProviderBadResponse, retry_same=False, try_next=True),
}


def from_provider(error: ProviderError, *, param: str | None = None, picture: bool = False) -> GatewayError:
    """What a provider's failure is for the client. `param` is the caller's word for the field that was refused;
    `picture` = it holds pictures."""
    rule, message = FAULTS[error.fault].error, error.message
    if error.fault is Fault.INVALID and picture:
        rule = InvalidImage
        message = message if error.item is None else f"Image {error.item + 1}: {message}"
    if error.fault is Fault.RATE_LIMITED and error.accepted is not False:
        rule, message = ProviderUnavailable, "The provider's rate limit kept the result back."
    if error.accepted is None and error.fault is not Fault.TIMEOUT:
        rule = UpstreamAmbiguous
    told = rule(
        message,
        param=param,
        detail=error.detail,
        retry_after=error.retry_after,
        should_retry=False if error.final or error.charged is not False else None,
    )
    told.tells_charge = error.accepted is not False or rule.tells_charge
    return told
