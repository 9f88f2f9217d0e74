"""A provider with a memory, without a network: what each call does is scripted, what was asked of it is kept.

provider = FakeProvider(
    Turn(submit=refusal(Fault.RATE_LIMITED, accepted=False)),   # the first submit
    Turn(collect=after(0.2, made(2))),                          # the second
)                                                               # every further one succeeds
...
assert [call.payload["seed"] for call in provider.submitted] == [7, 7]
assert provider.cancelled == ["job-2"]

An outcome is a value (returned), an exception (raised), or an async function without arguments that yields either.
"""

from __future__ import annotations

import asyncio
import io
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, ClassVar

from PIL import Image

from providers.base import (
    Fault,
    ProviderCall,
    ProviderError,
    ProviderResult,
    ResultImage,
    Setting,
    Ticket,
    payload_mark,
)

Outcome = Any | BaseException | Callable[[], Awaitable[Any]]


def png(size: tuple[int, int] = (8, 8), colour: str = "teal") -> bytes:
    """A small picture."""
    buffer = io.BytesIO()
    Image.new("RGB", size, colour).save(buffer, "PNG")
    return buffer.getvalue()


def made(
    count: int = 1,
    *,
    size: tuple[int, int] = (8, 8),
    url: str | None = None,
    flagged: bool = False,
    seed: int | None = 42,
    units: str | None = None,
) -> ProviderResult:
    """A result: `count` pictures as bytes, or all at `url`."""
    data = None if url else png(size)
    image = ResultImage(url=url, data=data, mime="image/png", width=size[0], height=size[1], flagged=flagged)
    return ProviderResult((image,) * count, seed, Decimal(units) if units else None)


def refusal(fault: Fault = Fault.UNAVAILABLE, message: str = "scripted", **facts: Any) -> ProviderError:
    """A failure: refusal(Fault.RATE_LIMITED, accepted=False, retry_after=3.0)."""
    return ProviderError(fault, message, **facts)


async def hang() -> Any:
    """Never ends by itself."""
    await asyncio.Event().wait()


def after(seconds: float, outcome: Outcome) -> Outcome:
    """The outcome, but later."""

    async def late() -> Any:
        await asyncio.sleep(seconds)
        return await _play(outcome)

    return late


def when(event: asyncio.Event, outcome: Outcome) -> Outcome:
    """The outcome, once `event` is set."""

    async def waiting() -> Any:
        await event.wait()
        return await _play(outcome)

    return waiting


async def _play(outcome: Outcome) -> Any:
    if callable(outcome):
        outcome = await outcome()
    if isinstance(outcome, BaseException):
        raise outcome
    return outcome


@dataclass(frozen=True)
class Turn:
    """What becomes of one submit, and of the job that it makes. `submit=None` gives a ticket."""

    submit: Outcome = None
    collect: Outcome = field(default_factory=made)
    cancel: Outcome = True
    at_once: bool = False  # the ticket already holds the result, as with a provider without jobs
    lose_reply: bool = False  # the job is made, its ticket never arrives


class FakeProvider:
    """Takes its turns in the order of the submits; when they are used up, `otherwise`."""

    name: ClassVar[str] = "fake"
    settings: ClassVar[tuple[Setting, ...]] = ()

    def __init__(self, *turns: Turn, otherwise: Turn | None = None) -> None:
        self.label = "Fake"
        self.media_origins: frozenset[str] = frozenset()
        self._turns = list(turns)
        self._otherwise = otherwise or Turn()
        self._jobs: dict[str, Turn] = {}
        self.submitted: list[ProviderCall] = []
        self.made: list[str] = []  # jobs that exist
        self.collecting: list[str] = []
        self.collected: list[str] = []
        self.cancelled: list[str] = []
        self.deadlines: list[float] = []

    async def submit(self, call: ProviderCall) -> Ticket:
        self.submitted.append(call)
        number = len(self.submitted)
        turn = self._turns[number - 1] if number <= len(self._turns) else self._otherwise
        await _play(turn.submit)
        job = f"job-{number}"
        self._jobs[job] = turn
        self.made.append(job)
        if turn.lose_reply:
            raise ProviderError(Fault.UNAVAILABLE, "the reply was lost", accepted=None)
        return Ticket(self.name, job, {}, await _play(turn.collect) if turn.at_once else None)

    async def collect(self, ticket: Ticket, deadline: float) -> ProviderResult:
        self.collecting.append(ticket.job)
        self.deadlines.append(deadline)
        result: ProviderResult = await _play(self._jobs.get(ticket.job, self._otherwise).collect)
        self.collected.append(ticket.job)
        return result

    async def cancel(self, ticket: Ticket) -> bool:
        self.cancelled.append(ticket.job)
        return bool(await _play(self._jobs[ticket.job].cancel))


class ListingProvider(FakeProvider):
    """A FakeProvider that can list its jobs. `listing`: an outcome that comes before the true answer of `find`, for
    lists that fail: `provider.listing = refusal(Fault.UNAVAILABLE)`."""

    def __init__(self, *turns: Turn, otherwise: Turn | None = None) -> None:
        super().__init__(*turns, otherwise=otherwise)
        self.listing: Outcome = None
        self.looked_for: list[tuple[str, str, float, float, frozenset[str]]] = []

    async def find(self, endpoint: str, mark: str, since: float, until: float, known: frozenset[str]) -> Ticket | None:
        self.looked_for.append((endpoint, mark, since, until, known))
        await _play(self.listing)
        for job in self.made:
            call = self.submitted[int(job.removeprefix("job-")) - 1]
            if (call.endpoint, payload_mark(call.payload)) == (endpoint, mark) and job not in known:
                return Ticket(self.name, job)
        return None
