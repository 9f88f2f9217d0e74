"""Every value that crosses a module border. Frozen; pydantic stays at the edges (model files, config, JSON out).

body -> EditRequest -> Plan -> Quote -> [ProviderResult] -> Artefact -> Receipt -> answer
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, Literal

from app.catalogue.schema import Mode, Offer
from app.errors import GatewayError
from app.formats import MIME as MIME
from app.formats import ImageFormat as ImageFormat
from app.formats import Size as Size
from app.steps import Step
from providers.base import Blob, Media

ResponseFormat = Literal["url", "b64_json"]
How = Literal["passthrough", "renamed", "converted", "emulated", "ignored", "rejected"]


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks, and what their key says."""

    key_id: str
    name: str
    response_format: ResponseFormat | None = None  # the key's own default
    strict: bool = False
    models: frozenset[str] | None = None  # ids of those that it may use; None: all
    has_budget: bool = False
    requests_per_minute: int | None = None
    images_per_minute: int | None = None
    concurrent_jobs: int | None = None  # at one provider; None: as many as anybody's key
    is_admin: bool = False  # sees everybody's requests, and makes keys

    def may_use(self, model: str) -> bool:
        """Whether the model of this id is among its own."""
        return self.models is None or model in self.models


@dataclass(frozen=True, slots=True)
class Given:
    """One parameter as it came. `spelled` is the caller's own word; `text` = it came as form text, not typed JSON."""

    spelled: str
    value: Any
    text: bool = False


@dataclass(frozen=True, slots=True)
class Terms:
    """How a request wants to be run; told in headers, no parameter of any model."""

    idempotency_key: str | None = None
    repeats: int | None = None  # how often an SDK has sent it before; None: a client that does not repeat by itself
    seconds: float | None = None  # time limit; None: the gateway's own
    via: tuple[str, ...] = ()  # marks of the gateways that it has passed

    @property
    def is_repeat(self) -> bool:
        """Whether an SDK says that it has sent the same before."""
        return bool(self.repeats)


@dataclass(frozen=True, slots=True)
class EditRequest:
    """A request that was read but not yet understood. Pictures are `Media` among the params, as tuples."""

    id: str
    mode: Mode
    model: str  # the caller's word for it
    params: Mapping[str, Given]
    caller: Caller
    strict: bool = False
    response_format: ResponseFormat = "url"  # the default that holds for this caller
    base_url: str = ""  # where this caller reaches the gateway
    terms: Terms = Terms()


@dataclass(frozen=True, slots=True)
class Slot:
    """The place of the plan's input `index` inside a payload: the adapter puts a URL there."""

    index: int


@dataclass(frozen=True, slots=True)
class InputStep:
    """What has to happen to one input picture before it is sent. All off = its bytes go through as they are,
    save for metadata, which is always cut out."""

    media: Media
    to_format: ImageFormat | None = None  # re-encode as this; None = keep the container
    upright: bool = False  # turn the pixels as EXIF says
    flatten: bool = False  # put it on white
    mask: Literal["", "white", "black", "both"] = ""  # make a mask of it that the provider can read (`Accepts.mask`)
    hand_on: bool = False  # the provider gets the caller's own URL instead of bytes
    why: str = ""
    word: str = "image"  # the caller's own, and which of its pictures, from 0
    index: int = 0

    @property
    def touches_pixels(self) -> bool:
        """Whether the picture has to be decoded."""
        return self.to_format is not None or self.upright or self.flatten or self.mask != ""


@dataclass(frozen=True, slots=True)
class MaskStep:
    """Composite the edit over `original` through `mask` (OpenAI's meaning: alpha 0, or white without alpha = edit).
    The words are those that the caller used for them."""

    original: Media
    mask: Media
    original_word: str = "image"
    mask_word: str = "mask"


@dataclass(frozen=True, slots=True)
class Delivery:
    """What the gateway still owes the client once the provider is done."""

    count: int = 1
    response_format: ResponseFormat = "url"
    format: ImageFormat | None = None  # None: as the provider made it
    asked_format: ImageFormat | None = None  # what the provider itself was asked to make, if it was
    quality: int | None = None  # 0-100, lossy formats
    exact: Size | None = None  # deliver exactly these pixels
    mask: MaskStep | None = None
    stream: bool = False
    base_url: str = ""  # of the URLs in the answer


@dataclass(frozen=True, slots=True)
class Note:
    """What became of one parameter."""

    name: str
    how: How
    sent_as: str | None = None
    why: str = ""
    spelled: str = ""  # the caller's own word, if the caller said anything


@dataclass(frozen=True, slots=True)
class Call:
    """One upstream job's payload; it makes the pictures first … first + count - 1 of the request."""

    payload: Mapping[str, Any]
    first: int = 0
    count: int = 1


@dataclass(frozen=True, slots=True)
class Plan:
    """A compiled request. After this nobody reads the request again."""

    model: str
    offer: Offer
    calls: tuple[Call, ...]
    inputs: tuple[InputStep, ...]
    delivery: Delivery
    notes: tuple[Note, ...]
    size: Size | None  # of each picture that the provider makes; None = not known before
    besides: Decimal = Decimal(0)  # megapixels that each job is billed for besides its pictures


@dataclass(frozen=True, slots=True)
class Quote:
    """The price before. `total` None = unknown, never zero."""

    metric: Literal["image", "megapixel"]
    quantity: Decimal | None  # None = not known before
    billable: Decimal | None
    unit_price: Decimal | None
    total: Decimal | None
    currency: str = "USD"


@dataclass(frozen=True, slots=True)
class Artefact:
    """A picture as it is delivered: exactly one of `url` and `blob`. `key`: where the store keeps it, if it does."""

    index: int
    url: str | None = None
    blob: Blob | None = field(default=None, repr=False)  # it goes into the answer as base64
    key: str | None = None
    format: ImageFormat | None = None
    width: int | None = None
    height: int | None = None
    revised_prompt: str | None = None


@dataclass(frozen=True, slots=True)
class Failure:
    """A picture of n that was not made, and why."""

    index: int
    error: GatewayError
    charged: bool | None = True  # whether the provider bills it all the same; None = not known


@dataclass(frozen=True, slots=True)
class Attempt:
    """One upstream job as it went."""

    provider: str
    endpoint: str
    job: str | None
    seconds: float
    fault: str | None = None  # or "left": nobody waited for it any more
    charged: bool | None = True  # whether the provider bills it; None = not known
    billable_units: Decimal | None = None
    queued: float = 0.0  # seconds that it waited for its turn before


@dataclass(frozen=True, slots=True)
class Receipt:
    """What happened, what it cost and what came of it. Exactly one per request."""

    request_id: str
    caller: Caller
    model: str
    provider: str
    endpoint: str
    status: Literal["completed", "partial", "failed", "cancelled"]
    cost: Decimal | None
    currency: str
    pictures: int
    attempts: tuple[Attempt, ...]
    notes: tuple[Note, ...]
    failures: tuple[Failure, ...] = ()
    uncertain: bool = False  # a job that brought nothing may have been billed all the same
    error_code: str | None = None
    seconds: float = 0.0
    steps: tuple[Step, ...] = ()  # as they ended; `app.steps.timings` sums them up by phase
    created: float = 0.0  # Unix seconds
    plan: Plan | None = field(default=None, repr=False)
    quote: Quote | None = None
    error: GatewayError | None = None
    entered: bool = True  # it has a page in the journal; else nothing was bought


@dataclass(frozen=True, slots=True)
class Outcome:
    """A request that made at least one picture."""

    provider_label: str
    artefacts: tuple[Artefact, ...]
    receipt: Receipt
    seeds: tuple[int, ...] = ()  # of the jobs that tell theirs, in the order of their pictures
    created: int = 0
