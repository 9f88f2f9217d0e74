"""Errors that an API key's own limits bring. Of the family in `app.errors`.

GatewayError
├── InsufficientQuota    402, insufficient_quota     no SDK repeats it
├── ModelNotAllowed      403, model_not_allowed
├── AdminKeyRequired     403, admin_key_required
└── InvalidRequest
    └── PriceUnknown     400, price_unknown          of a key with a budget: what is not known is not taken for zero
"""

from __future__ import annotations

from app.errors import GatewayError, InvalidRequest


class InsufficientQuota(GatewayError):
    """The key's budget would be exceeded."""

    status = 402
    type = "insufficient_quota"  # as OpenAI types it
    code = "insufficient_quota"
    should_retry = False


class ModelNotAllowed(GatewayError):
    """A model that the key may not use."""

    status = 403
    type = "invalid_request_error"
    code = "model_not_allowed"
    should_retry = False


class AdminKeyRequired(GatewayError):
    """Only for who has the admin key."""

    status = 403
    type = "invalid_request_error"
    code = "admin_key_required"
    should_retry = False


class PriceUnknown(InvalidRequest):
    """What the request would cost cannot be told, so it cannot be held against a budget."""

    code = "price_unknown"
