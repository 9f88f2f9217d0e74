"""Every error that a caller can see.

    GatewayError                      status, type and code are fixed by the class
    ├── InvalidRequest                400, the caller can mend it; `param` names the parameter in the caller's own word
    │   ├── MissingParameter          missing_required_parameter
    │   ├── InvalidType               invalid_type
    │   ├── InvalidValue, InvalidSize invalid_value
    │   ├── BelowMinimum              integer_below_min_value / decimal_below_min_value
    │   ├── AboveMaximum              integer_above_max_value / decimal_above_max_value
    │   ├── EmptyString               empty_string
    │   ├── TooLong                   string_above_max_length
    │   ├── UnsupportedParameter      unsupported_parameter
    │   ├── UnknownParameter          unknown_parameter
    │   ├── UnsupportedMode           unsupported_mode
    │   ├── InvalidBody               invalid_body
    │   ├── InvalidImage              invalid_image_file
    │   ├── UnsupportedImage          unsupported_file_mimetype
    │   ├── TooManyImages             too_many_images
    │   ├── ImageTooLarge             image_too_large
    │   ├── InvalidImageUrl           invalid_image_url
    │   └── Refused                   content_policy_violation
    ├── InvalidSignature 403 · Expired 410                      of the URL of a stored picture
    ├── InvalidApiKey 401 · OriginNotAllowed 403 · ModelNotFound, NotFound 404 · MethodNotAllowed 405
    ├── RequestTimeout 408 · RequestTooLarge 413 · UnsupportedContentType 415 · IdempotencyMismatch 422
    ├── RateLimited 429
    ├── Cancelled 499 (nobody is there to read it) · InternalError 500 · Overloaded 503
    └── ProviderFailure               its message says whether the provider charged
        ├── ProviderUnavailable, ProviderBadResponse, ProviderMisconfigured, UpstreamAmbiguous, AllProvidersFailed 502
        ├── ProviderTimeout 504
        └── ProviderOut 503           nothing was sent: the provider has failed too often just now

Those that an API key's limits bring (402, 403) are in `app.denials`. `message` and `param` are public; `detail` is for
the log only. `app.api.errors` is the one place that renders them, `app.faults` the one that makes them from a
provider's failures.
"""

from __future__ import annotations

from decimal import Decimal
from typing import ClassVar, TypeVar

Raised = TypeVar("Raised", bound=BaseException)


def bare(error: Raised) -> Raised:
    """An error that is kept as a value: without the frames that it came through, which would keep all that they knew,
    pictures too, until the collector comes."""
    error.__context__ = error.__cause__ = error.__traceback__ = None
    return error


class GatewayError(Exception):
    """An answer that is not a picture."""

    status: ClassVar[int] = 500
    type: ClassVar[str] = "server_error"
    code: str = "internal_error"
    # None: leave it to the client's own rules. False: a repeat cannot help or could pay twice.
    should_retry: bool | None = None
    tells_charge: bool = False  # the provider was at work: the message says whether it was charged

    def __init__(
        self,
        message: str,
        *,
        param: str | None = None,
        detail: str = "",
        retry_after: float | None = None,
        should_retry: bool | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        self.detail = detail
        self.retry_after = retry_after
        self.replayed = False  # it was the answer to an earlier request, too
        self.cost: Decimal | None = None  # what the request cost all the same; None = not known, or nothing to tell
        if should_retry is not None:
            self.should_retry = should_retry

    def __str__(self) -> str:
        return self.message


class InvalidRequest(GatewayError):
    """The caller can mend it."""

    status = 400
    type = "invalid_request_error"
    code = "invalid_value"
    should_retry = False


class MissingParameter(InvalidRequest):
    """A required parameter is absent."""

    code = "missing_required_parameter"

    def __init__(self, param: str) -> None:
        super().__init__(f"Missing required parameter: '{param}'.", param=param)


class InvalidType(InvalidRequest):
    """A value of the wrong type."""

    code = "invalid_type"


class InvalidValue(InvalidRequest):
    """A value of the right type that is not allowed."""

    code = "invalid_value"


class InvalidSize(InvalidValue):
    """A size, shape or scale that cannot be read or formed."""

    type = "image_generation_user_error"  # as OpenAI types it for `size`


class BelowMinimum(InvalidRequest):
    """A number under its row's minimum."""

    code = "integer_below_min_value"

    def __init__(self, message: str, *, param: str, integer: bool = True) -> None:
        super().__init__(message, param=param)
        self.code = "integer_below_min_value" if integer else "decimal_below_min_value"


class AboveMaximum(InvalidRequest):
    """A number over its row's maximum."""

    code = "integer_above_max_value"

    def __init__(self, message: str, *, param: str, integer: bool = True) -> None:
        super().__init__(message, param=param)
        self.code = "integer_above_max_value" if integer else "decimal_above_max_value"


class EmptyString(InvalidRequest):
    """An empty string where text is needed."""

    code = "empty_string"


class TooLong(InvalidRequest):
    """A string over its row's maximum length."""

    code = "string_above_max_length"


class UnsupportedParameter(InvalidRequest):
    """A parameter that this model or gateway cannot honour in any form."""

    code = "unsupported_parameter"


class UnknownParameter(InvalidRequest):
    """Strict mode only: a parameter that no row knows."""

    code = "unknown_parameter"


class UnsupportedMode(InvalidRequest):
    """The model does something else than what the endpoint asks of it."""

    code = "unsupported_mode"


class InvalidBody(InvalidRequest):
    """The body cannot be read as what it says it is."""

    code = "invalid_body"


class InvalidImage(InvalidRequest):
    """Bytes that do not decode as the picture they claim to be."""

    code = "invalid_image_file"


class UnsupportedImage(InvalidRequest):
    """A file of a kind that is not accepted."""

    code = "unsupported_file_mimetype"


class TooManyImages(InvalidRequest):
    """More input pictures than the model takes."""

    code = "too_many_images"


class ImageTooLarge(InvalidRequest):
    """A picture over the limit in bytes, pixels or sides."""

    code = "image_too_large"


class InvalidImageUrl(InvalidRequest):
    """A URL that the gateway will not, or cannot, fetch a picture from."""

    code = "invalid_image_url"


class Refused(InvalidRequest):
    """The provider's content policy said no."""

    type = "image_generation_user_error"
    code = "content_policy_violation"
    tells_charge = True


class InvalidApiKey(GatewayError):
    """No key, or a wrong one."""

    status = 401
    type = "invalid_request_error"
    code = "invalid_api_key"
    should_retry = False


class OriginNotAllowed(GatewayError):
    """A page of an origin that may not call."""

    status = 403
    type = "invalid_request_error"
    code = "origin_not_allowed"
    should_retry = False


class NotFound(GatewayError):
    """No such thing."""

    status = 404
    type = "invalid_request_error"
    code = "not_found"
    should_retry = False


class ModelNotFound(NotFound):
    """No such model."""

    code = "model_not_found"


class MethodNotAllowed(GatewayError):
    """The path exists, the verb does not."""

    status = 405
    type = "invalid_request_error"
    code = "method_not_allowed"
    should_retry = False


class RequestTimeout(GatewayError):
    """The body came too slowly."""

    status = 408
    type = "invalid_request_error"
    code = "request_timeout"
    should_retry = False


class RequestTooLarge(GatewayError):
    """The body, or one part of it, is over the limit."""

    status = 413
    type = "invalid_request_error"
    code = "request_too_large"
    should_retry = False


class UnsupportedContentType(GatewayError):
    """Neither a form nor JSON."""

    status = 415
    type = "invalid_request_error"
    code = "unsupported_content_type"
    should_retry = False


class IdempotencyMismatch(GatewayError):
    """The Idempotency-Key was used before, for something else. Not 409: SDKs repeat that."""

    status = 422
    type = "invalid_request_error"
    code = "idempotency_mismatch"
    should_retry = False


class RateLimited(GatewayError):
    """Too many requests: ours or the provider's limit."""

    status = 429
    type = "rate_limit_error"
    code = "rate_limit_exceeded"


class Cancelled(GatewayError):
    """Its client hung up, and nobody else waited for it."""

    status = 499
    code = "cancelled"


class InternalError(GatewayError):
    """A defect of ours."""


class Overloaded(GatewayError):
    """No room for this request now."""

    status = 503
    code = "overloaded"


class ProviderFailure(GatewayError):
    """The provider's doing, or our account's there."""

    status = 502
    tells_charge = True


class ProviderUnavailable(ProviderFailure):
    """The provider could not be reached or broke."""

    code = "provider_unavailable"


class ProviderBadResponse(ProviderFailure):
    """The provider answered something that it does not document, or a picture that is none."""

    code = "provider_bad_response"
    should_retry = False  # a job was made and may have been billed


class ProviderMisconfigured(ProviderFailure):
    """Our key or account at the provider, never the caller's."""

    code = "provider_misconfigured"
    should_retry = False


class UpstreamAmbiguous(ProviderFailure):
    """The reply to a submit was lost: whether there is a job, and a bill, is not known yet."""

    code = "upstream_ambiguous"
    should_retry = False


class ProviderOut(ProviderFailure):
    """The provider has failed so often just now that it is left alone for a moment."""

    status = 503
    code = "provider_unavailable"


class AllProvidersFailed(ProviderFailure):
    """Each of the model's providers was tried."""

    code = "all_providers_failed"


class ProviderTimeout(ProviderFailure):
    """The provider did not finish in time."""

    status = 504
    code = "provider_timeout"
    should_retry = False  # the job may still finish and be billed


class InvalidSignature(GatewayError):
    """The URL of a stored picture does not bear our signature."""

    status = 403
    type = "invalid_request_error"
    code = "invalid_signature"
    should_retry = False


class Expired(GatewayError):
    """The URL of a stored picture has run out."""

    status = 410
    type = "invalid_request_error"
    code = "expired"
    should_retry = False


def error_classes() -> dict[str, type[GatewayError]]:
    """Every class of the family, by its name."""
    found: dict[str, type[GatewayError]] = {}
    left: list[type[GatewayError]] = [GatewayError]
    while left:
        kind = left.pop()
        found[kind.__name__] = kind
        left.extend(kind.__subclasses__())
    return found
