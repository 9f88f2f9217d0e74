"""A provider for imagegate in a package of its own: `POST <url>/run` with JSON, pictures as data URIs, answers base64.

The server is made up. Everything that an adapter has to think of is here all the same: when a job exists, what a
failure costs, that nobody's words, key or picture end up in an error.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from typing import Any, ClassVar

import httpx2
import pybase64

from providers.base import Clock, Fault, ProviderCall, ProviderError, ProviderResult, ResultImage, Setting, Ticket
from providers.http import Answer, json_body, origin, retry_after, send

RESULT_LIMIT = 64 << 20  # bytes of an answer


class Postbox:
    """One request per job; its ticket holds the result."""

    name: ClassVar[str] = "postbox"
    settings: ClassVar[tuple[Setting, ...]] = (
        Setting("url", "POSTBOX_URL", "Where the server is.", required=True),
        Setting("key", "POSTBOX_KEY", "API key.", secret=True, required=True),
    )
    label = "Postbox"

    def __init__(self, settings: Mapping[str, str], http: httpx2.AsyncClient, clock: Clock) -> None:
        """Raises ValueError for settings that cannot be used."""
        self._url, self._http, self._clock = settings["url"].rstrip("/"), http, clock
        if not origin(self._url):
            raise ValueError("url must be an http(s) URL")
        self._headers = {"x-key": settings["key"], "content-type": "application/json"}
        self.media_origins: frozenset[str] = frozenset()  # results come as bytes

    async def submit(self, call: ProviderCall) -> Ticket:
        """Send the job and wait for its answer. Raises ProviderError."""
        if call.deadline <= self._clock.monotonic():
            raise ProviderError(Fault.TIMEOUT, "There was no time left to ask the provider.", accepted=False)
        body = json_body({**call.payload, "model": call.endpoint}, {})
        if not call.wanted():
            raise ProviderError(Fault.UNAVAILABLE, "Nobody waits for the job any more.", accepted=False, final=True)
        headers = {**self._headers, "content-length": str(body.length)}
        answer = await send(
            self._http,
            "POST",
            f"{self._url}/run",
            seconds=300,
            headers=headers,
            content=body.content,
            limit=RESULT_LIMIT,
        )
        if answer.status != 200:
            raise _failure(answer)
        return Ticket(self.name, secrets.token_hex(8), {}, _result(answer))

    async def collect(self, ticket: Ticket, deadline: float) -> ProviderResult:
        """What the ticket holds; after a restart it holds nothing, and the server keeps nothing."""
        if ticket.result is None:
            raise ProviderError(
                Fault.UNAVAILABLE, "The provider's answer was lost.", accepted=True, final=True, lost=True
            )
        return ticket.result

    async def cancel(self, ticket: Ticket) -> bool:
        """The job is over when its ticket is there."""
        return False


def _failure(answer: Answer) -> ProviderError:
    """4xx: no job was made. 5xx: it was made and failed, and is not billed."""
    faults = {401: Fault.UNAUTHORIZED, 429: Fault.RATE_LIMITED}
    made = answer.status >= 500
    return ProviderError(
        Fault.UNAVAILABLE if made else faults.get(answer.status, Fault.INVALID),
        "The provider failed." if made else "The provider did not take the request.",
        detail=f"{answer.asked}: HTTP {answer.status}",  # not the server's text: it may repeat the prompt
        accepted=made,
        charged=False,
        retry_after=retry_after(answer.headers),
    )


def _result(answer: Answer) -> ProviderResult:
    body: Any = answer.json()
    try:
        images = tuple(ResultImage(data=pybase64.b64decode(text, validate=True)) for text in body["images"])
    except (KeyError, TypeError, ValueError):
        raise ProviderError(
            Fault.MALFORMED, "The provider answered something unexpected.", accepted=True, final=True
        ) from None
    return ProviderResult(images)
