"""The contract of a provider: what an adapter gets, what it gives back, how it fails. Imports nothing of ours.

An adapter is one class with three coroutines (`Provider`), or four if its jobs can be listed (`Finder`); one whose key
can be exchanged while it works is `Renewable`. The gateway finds it by entry point (group `imagegate.providers`),
builds it once with its settings, an HTTP client and a clock, and calls it from many requests at once. Inside an
adapter: wire format, polling, how bytes travel, error shapes, which errors may be retried. Not inside: parameter names,
defaults, `n`, formats, prices, failover, downloads of results, storage.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from enum import StrEnum
from typing import Any, ClassVar, Protocol, runtime_checkable

VIA = "x-imagegate-via"  # header: the gateways that a request has passed (`ProviderCall.via`)


class Fault(StrEnum):
    """Why a provider failed, in one closed enumeration. `app.faults.FAULTS` says what each means for the client."""

    INVALID = "invalid"  # the request is wrong: a value, a picture, a limit
    REFUSED = "refused"  # content policy
    UNAUTHORIZED = "unauthorized"  # our account or key at the provider, never the caller's
    MISCONFIGURED = "misconfigured"  # it does not know what we ask for: this endpoint, this model; others work
    RATE_LIMITED = "rate_limited"
    UNAVAILABLE = "unavailable"  # unreachable, overloaded, broken on its side
    TIMEOUT = "timeout"
    MALFORMED = "malformed"  # an answer that is not what the provider documents


class ProviderError(Exception):
    """A provider failed.

    `message` is for the client; `detail` only for the log. `field` is the provider's own word for the parameter that it
    refused, `item` the place in it (from 0) if it is a list. `accepted` tells whether a job exists upstream: False =
    surely not (safe to submit again), True = it does, None = it cannot be known (the reply was lost). `final` = it says
    that repeating the step is of no use.

    `lost` = the job is over, or its provider does not know it any more, and it may have ended well, but what it made
    cannot be had: perhaps paid, worth asking for again much later. Never said of a job that may still be at work, nor
    of one whose own answer is known, however bad. `cancelled` = the job was stopped before its end, by us or at the
    provider's; it made nothing and is not billed.
    """

    def __init__(
        self,
        fault: Fault,
        message: str,
        *,
        detail: str = "",
        field: str | None = None,
        item: int | None = None,
        accepted: bool | None = None,
        charged: bool | None = None,
        retry_after: float | None = None,
        final: bool = False,
        lost: bool = False,
        cancelled: bool = False,
    ) -> None:
        super().__init__(message)
        self.fault = fault
        self.message = message
        self.detail = detail
        self.field = field
        self.accepted = accepted
        self._charged = charged
        self.item = item
        self.retry_after = retry_after
        self.final = final
        self.lost = lost
        self.cancelled = cancelled

    @property
    def charged(self) -> bool | None:
        """Whether the provider bills the job; None = not known."""
        return False if self.accepted is False or self.cancelled else self._charged


class Blob(Protocol):
    """Bytes, wherever they are: in memory or in a spooled file."""

    @property
    def size(self) -> int:
        """Length in bytes."""

    def read(self) -> bytes:
        """All bytes. May touch the disk: call it off the event loop unless `in_memory`."""

    @property
    def in_memory(self) -> bool:
        """True if `read` does not touch the disk."""

    def chunks(self) -> AsyncIterator[bytes]:
        """The bytes in pieces, without blocking the event loop."""


@dataclass(frozen=True, slots=True, eq=False, weakref_slot=True)
class Media:
    """A picture that came in: where its bytes are, and what its header says.

    `width` x `height` are in pixels as a viewer shows them (EXIF orientation applied). Compared by identity, so that an
    adapter can remember per picture what it has already uploaded. `url` is set, and `blob` empty, when a public URL is
    handed on instead of bytes.
    """

    blob: Blob
    mime: str
    width: int
    height: int
    digest: str  # sha-256 of the bytes as the caller sent them, hex; empty: not known, or they were changed
    orientation: int = 1  # EXIF, 1-8
    alpha: bool = False  # has an alpha channel or a transparent colour
    mode: str = "RGB"  # Pillow's name of the pixel layout: RGB, RGBA, L, LA, P, 1, CMYK, I;16 …
    frames: int = 1
    url: str | None = None

    @property
    def size(self) -> int:
        """Length in bytes."""
        return self.blob.size


@dataclass(frozen=True, slots=True)
class ProviderCall:
    """One upstream job: the model's own payload, pictures as `Media` in the places where their URLs belong."""

    endpoint: str
    payload: Mapping[str, Any]
    request_id: str
    keep_results_seconds: int = 3600  # how long the provider should keep the pictures it makes
    deadline: float = math.inf  # on the clock's monotonic scale: after it no job is started any more
    wanted: Callable[[], bool] = field(default=lambda: True)  # whether anybody still waits: if not, nor is it
    # For a server that may be an imagegate, too: goes along as a comma-separated list in the header VIA.
    via: tuple[str, ...] = ()


def payload_mark(payload: Any) -> str:
    """What a payload can be recognised by later without its prompt being kept: SHA-256, in hex, over canonical JSON.

    Media, strings that are http(s) or data addresses, and whatever else JSON has no word for count as "*": the same
    picture travels under another address each time. A whole number is the same with and without its ".0".
    """
    canonical = json.dumps(_plain(payload), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode("ascii")).hexdigest()


def _plain(value: Any) -> Any:
    match value:
        case str():
            return "*" if value[:8].lower().startswith(("http://", "https://", "data:")) else value
        case float():
            return int(value) if value.is_integer() else value
        case bool() | int() | None:
            return value
        case Mapping():
            return {str(name): _plain(item) for name, item in value.items()}
        case list() | tuple():
            return [_plain(item) for item in value]
    return "*"


@dataclass(frozen=True, slots=True)
class ResultImage:
    """A picture that was made: a URL or the bytes, with what the provider claims of it (claims can be wrong)."""

    url: str | None = None
    data: bytes | None = field(default=None, repr=False)
    mime: str | None = None
    width: int | None = None
    height: int | None = None
    flagged: bool = False  # the provider's safety check blacked it out
    revised_prompt: str | None = None


@dataclass(frozen=True, slots=True)
class ProviderResult:
    """What a job made. `billable_units` are in the unit of the provider's price, where the provider tells."""

    images: tuple[ResultImage, ...]
    seed: int | None = None
    billable_units: Decimal | None = None
    provider_request_id: str | None = None


@dataclass(frozen=True, slots=True)
class Ticket:
    """A submitted job's receipt: small and JSON-able, enough to collect or cancel it after a restart.

    A provider without job ids answers `submit` with a ticket that already holds the `result`.
    """

    provider: str
    job: str
    data: Mapping[str, str] = field(default_factory=dict)
    result: ProviderResult | None = None


@dataclass(frozen=True, slots=True)
class Setting:
    """One setting of an adapter: its name under `providers.<name>` in config.yaml and its environment variable."""

    name: str
    env: str
    doc: str
    default: str = ""
    secret: bool = False
    required: bool = False


class Clock(Protocol):
    """Time as adapters may know it; tests bring their own."""

    def monotonic(self) -> float:
        """Seconds on a clock that never steps back."""

    async def sleep(self, seconds: float) -> None:
        """Wait."""


class Provider(Protocol):
    """One kind of upstream server."""

    name: ClassVar[str]  # as model files name it
    label: str  # as people read it
    settings: ClassVar[tuple[Setting, ...]]
    media_origins: frozenset[str]  # origins besides public https from which its results may be fetched

    async def submit(self, call: ProviderCall) -> Ticket:
        """Start the job; from here on the provider may bill. Raises ProviderError with `accepted` set.

        Pictures on their way in are given up at the call's deadline; the start of the job itself is not cut by it,
        because its answer is what the job can be cancelled by. Nothing is started that is not `wanted` any more: ask
        just before.
        """

    async def collect(self, ticket: Ticket, deadline: float) -> ProviderResult:
        """Wait for the job, at most until `deadline` (on the clock's monotonic scale), and fetch what it made. May be
        repeated, also by another process.

        The job exists and may be paid for: only its own verdict ends this early, or the word of its provider, said
        again and again, that it does not know the job. Raises ProviderError with `accepted=True`: TIMEOUT when it was
        not done at the deadline, the last failure when nothing could be learned of it by then; with `lost` or
        `cancelled` where that is so.
        """

    async def cancel(self, ticket: Ticket) -> bool:
        """Ask for the job to be stopped. True if the provider took the request: as a rule the job ends without result,
        but it may still finish and be billed. False if there is nothing that could be stopped: it is over, or unknown
        there, or the provider stops no jobs (then it goes on, and what it makes is kept for who asks again).

        Either way `collect` tells what came of it: its result, if it was too late (then it is paid for), `cancelled`,
        also by an earlier request whose answer was lost, or `lost` if the provider does not know it. May be repeated.
        Raises ProviderError only if it cannot be known whether the job goes on.
        """


@runtime_checkable
class Finder(Provider, Protocol):
    """A provider that can list its jobs: ask with `isinstance(provider, Finder)`."""

    async def find(self, endpoint: str, mark: str, since: float, until: float, known: frozenset[str]) -> Ticket | None:
        """The job that a submit made whose reply was lost: one of `endpoint`, sent between `since` and `until` (Unix
        seconds; the provider's clock and queue are allowed for), whose payload has this `payload_mark` and whose id is
        not in `known`. Failed and cancelled jobs count too. Of several the one that was sent first.

        None = the list covers that time and holds no such job. Lists lag behind: ask again later before believing it.
        Raises ProviderError if it cannot be known: no list, not reachable, payloads not shown; `final` if asking
        again is of no use.
        """


@runtime_checkable
class Renewable(Provider, Protocol):
    """A provider whose secrets can change while it works: ask with `isinstance`. Another one is built anew, for the
    jobs to come; what runs then ends with the old secret."""

    def renew(self, settings: Mapping[str, str]) -> None:
        """Use the secrets of `settings` from the next exchange on, for running jobs, too; nothing else has changed.
        Raises ValueError, without the secret in its message, for one that cannot be used: then the old one stays."""


class Importer(Protocol):
    """Drafts model files from what a provider publishes of its endpoints, shipped beside the adapter (entry-point group
    `imagegate.importers`). It does no I/O."""

    name: str  # of the provider

    def url(self, endpoint: str) -> str:
        """Where the endpoint's document is published. Raises ValueError for what is no endpoint."""

    def draft(self, document: Any, endpoint: str | None = None) -> str:
        """The text of a model file (YAML), from the parsed document; the same for the same document. `endpoint` picks
        one of several. Raises ValueError, with the reason, for a document that cannot be read."""


class Sandbox(Protocol):
    """A provider's stand-in, shipped beside its adapter (entry-point group `imagegate.sandboxes`)."""

    name: str  # the provider whose place it takes
    label: str

    def app(self) -> Any:
        """A fresh ASGI application that speaks the provider's wire protocol."""

    def settings(self, base_url: str) -> dict[str, str]:
        """The provider settings that reach a sandbox served at `base_url`."""
