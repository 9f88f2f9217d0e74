"""fal.ai: the adapter. Its queue, followed to the end of every job; its list of requests.

Facts are from fal's published clients (PyPI fal-client 1.0.3, npm @fal-ai/client 1.10.1), its documentation and its
per-model OpenAPI documents, read in November 2026. fal-client itself is not used: it repeats the paid submit up to ten
times after a time-out, polls every 0.1 s and hides cancellation.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from random import Random
from typing import Any, ClassVar, TypeVar

import httpx2

from providers.base import Clock, Fault, ProviderCall, ProviderError, ProviderResult, Setting, Ticket
from providers.fal_errors import failure, failure_in_status, malformed
from providers.fal_listing import JOB_ID, Page, Wanted, read_page, search
from providers.fal_results import read_cancel, read_result, read_status
from providers.fal_uploads import Uploads
from providers.fal_wire import PATIENCE, Patience, Wire, lifecycle
from providers.http import Answer, TooLarge, json_body, origin, split_origins
from providers.retries import Retries, RetryBudget, poll

QUEUE = "https://queue.fal.run"
API = "https://api.fal.ai"
RESULT_LIMIT = 128 << 20  # bytes; a sync_mode answer carries up to four pictures as data URIs
FAILED_TRIES = 5  # to read what a job says of itself that has failed by its status
CANCEL_SECONDS = 25.0  # within which a cancellation is asked for again
LIST_TRIES = 3  # per page; whoever looks for a lost job comes back
LIST_SECONDS = 120.0  # for all pages
LIST_LIMIT = 32 << 20  # bytes of a page
LIST_ITEMS = (100, 10)  # per page; fewer where pictures in the payloads make it too large

# Besides the configured base: replies may name the backup domain (fal-client, _BACKUP_DOMAINS).
_FAL_QUEUES = frozenset({QUEUE, "https://queue.falrun.com"})
_URL_LENGTH = 1000  # a ticket is small

T = TypeVar("T")


class FalProvider:
    """Jobs on fal's queue: submit, poll by the URLs that fal returned, collect, cancel, find."""

    name: ClassVar[str] = "fal"
    settings: ClassVar[tuple[Setting, ...]] = (
        Setting("key", "FAL_KEY", "API key, `id:secret`.", secret=True, required=True),
        Setting("queue_url", "FAL_QUEUE_URL", "Base URL of the queue.", QUEUE),
        Setting("run_url", "FAL_RUN_URL", "Base URL of the synchronous API; nothing uses it yet.", "https://fal.run"),
        Setting("rest_url", "FAL_REST_URL", "Base URL of the storage API.", "https://rest.fal.ai"),
        Setting(
            "api_url",
            "FAL_API_URL",
            f"Base URL of the platform API, where jobs are listed. Empty: {API} if the queue is fal's own, else none.",
        ),
        Setting(
            "media_origins",
            "FAL_MEDIA_ORIGINS",
            "Further origins, http and loopback ones too, from which results may be fetched; separated by commas.",
        ),
        Setting("label", "FAL_LABEL", "How the provider is called in answers.", "fal.ai"),
    )

    def __init__(
        self,
        settings: Mapping[str, str],
        http: httpx2.AsyncClient,
        clock: Clock,
        patience: Patience = PATIENCE,
        random: Random | None = None,
    ) -> None:
        self.label = settings["label"]
        self.media_origins = split_origins(settings["media_origins"])
        self._queue = settings["queue_url"].rstrip("/")
        rest = settings["rest_url"].rstrip("/")
        # the key goes to no host that the operator did not name, or leave at its default together with the queue
        self._api = settings.get("api_url", "").rstrip("/") or (API if self._queue == QUEUE else "")
        own = origin(self._queue)
        if not own or not origin(rest) or (self._api and not origin(self._api)):
            raise ValueError("FAL_QUEUE_URL, FAL_REST_URL and FAL_API_URL must be URLs, without a user in them")
        self._queue_origins = _FAL_QUEUES if own in _FAL_QUEUES else frozenset({own})
        self._wire = Wire(settings["key"], http)
        self._clock = clock
        self._patience = patience
        self._retries = Retries(clock, random or Random(), RetryBudget(clock))  # noqa: S311  jitter is no secret
        self._uploads = Uploads(rest, self._wire, clock, self._retries, patience)

    def renew(self, settings: Mapping[str, str]) -> None:
        """Go on with another key, running jobs included: any key of the account can ask for them. Raises ValueError."""
        self._wire.renew(settings["key"])

    async def submit(self, call: ProviderCall) -> Ticket:
        """Put one job on the queue, once. Raises ProviderError; `accepted` tells whether fal can have taken it."""
        left = call.deadline - self._clock.monotonic()
        try:
            if left <= 0:
                raise TimeoutError
            async with asyncio.timeout(left):
                urls = await self._uploads.urls(call.payload)
        except TimeoutError:
            raise ProviderError(
                Fault.TIMEOUT, "The pictures could not be sent to the provider in time.", accepted=False
            ) from None
        body = json_body(call.payload, urls)
        if not call.wanted():
            raise ProviderError(Fault.UNAVAILABLE, "Nobody waits for the job any more.", accepted=False, final=True)
        self._retries.budget.first()
        answer = await self._wire.send(
            "POST",
            f"{self._queue}/{call.endpoint}",
            self._patience.submit,
            content=body.content,
            headers={
                "Content-Type": "application/json",
                "Content-Length": str(body.length),
                "X-Fal-Object-Lifecycle-Preference": lifecycle(call.keep_results_seconds),
            },
        )
        if not 200 <= answer.status < 300:
            raise failure(answer, of="submit")
        reply = answer.lax_json()  # whatever else is wrong with the reply, the id of the job must not be lost
        job = reply.get("request_id") if isinstance(reply, dict) else None
        if not isinstance(job, str) or not JOB_ID.fullmatch(job):
            raise malformed("The provider took the job but did not say which it is.", answer, accepted=None)
        assert isinstance(reply, dict)
        return self._ticket(call.endpoint, job, reply)

    async def collect(self, ticket: Ticket, deadline: float) -> ProviderResult:
        """Poll until the job is done or the deadline has come, then fetch what it made.

        Once the queue says that it is done, whatever keeps its result from us leaves it `lost`, but for the model's own
        verdict.
        """
        status = await self._wait(ticket, deadline)
        # The result's own answer says more than the status does: which field, which policy.
        told = failure_in_status(status) if status.get("error") or status.get("error_type") else None
        sure = told is not None and bool(status.get("error_type"))
        try:
            return await self._result(ticket, deadline, tries=FAILED_TRIES if sure else None)
        except ProviderError as error:
            verdict = error.cancelled or (error.final and error.fault in (Fault.INVALID, Fault.REFUSED))
            if told is not None and not verdict and (sure or error.final):
                raise told from None
            error.lost = error.lost or not error.final
            raise

    async def cancel(self, ticket: Ticket) -> bool:
        """PUT cancel_url. False after 400 ALREADY_COMPLETED, and after 404: a job that fal does not know is not stopped
        by asking again, and collecting it tells that it is lost."""
        deadline = self._clock.monotonic() + CANCEL_SECONDS
        return await self._ask("PUT", ticket.data["cancel_url"], read_cancel, self._patience.cancel, deadline)

    async def find(self, endpoint: str, mark: str, since: float, until: float, known: frozenset[str]) -> Ticket | None:
        """Look through fal's list of requests. Needs a key that may read it, and payloads that fal keeps (30 days by
        default; not if the account has turned that off)."""
        if not self._api:
            raise ProviderError(
                Fault.UNAVAILABLE,
                "The provider's list of jobs is not available.",
                detail="the queue is not fal's own and FAL_API_URL is not set",
                final=True,
            )
        wanted = Wanted(endpoint, mark, since, until, known)
        deadline = self._clock.monotonic() + LIST_SECONDS

        async def ask(path: str) -> Page:
            async def once(left: float) -> Page:
                seconds = min(self._patience.listing, left)
                answer = await self._wire.send("GET", self._api + path, seconds, limit=LIST_LIMIT)
                return await asyncio.to_thread(read_page, answer, wanted)

            return await self._retries.persist(once, deadline, tries=LIST_TRIES, accepted=None)

        for items in LIST_ITEMS:
            try:
                job = await search(ask, wanted, items)
            except TooLarge:
                if items == LIST_ITEMS[-1]:
                    raise
            else:
                return None if job is None else self._ticket(endpoint, job, {})
        raise AssertionError("unreachable")

    # ---- steps of a job

    def _ticket(self, endpoint: str, job: str, reply: Mapping[str, Any]) -> Ticket:
        """With the URLs that fal returned, as its documentation asks. The key goes with each of them, so one on a
        foreign host is not used: ours is built instead, from owner/alias as fal's clients build it."""
        parts = endpoint.split("/")
        keep = 3 if parts[0] in ("workflows", "comfy") else 2
        base = f"{self._queue}/{'/'.join(parts[:keep])}/requests/{job}"
        urls = {"status_url": f"{base}/status", "response_url": base, "cancel_url": f"{base}/cancel"}
        for name in urls:
            url = reply.get(name)
            usable = isinstance(url, str) and len(url) <= _URL_LENGTH and url.isascii() and job in url
            own = usable and str(url).startswith(f"{self._queue}/")  # and then nothing of the origin is left to read
            if own or (usable and origin(str(url)) in self._queue_origins):
                urls[name] = str(url)
        return Ticket(self.name, job, urls)

    async def _wait(self, ticket: Ticket, deadline: float) -> Mapping[str, Any]:
        """Until COMPLETED."""

        async def look() -> Mapping[str, Any] | None:
            status = await self._ask("GET", ticket.data["status_url"], read_status, self._patience.status, deadline)
            return status if status["status"] == "COMPLETED" else None

        return await poll(self._clock, look, deadline)

    async def _result(self, ticket: Ticket, deadline: float, *, tries: int | None) -> ProviderResult:
        async def once(left: float) -> ProviderResult:
            seconds = min(self._patience.result, left)
            try:
                answer = await self._wire.send("GET", ticket.data["response_url"], seconds, limit=RESULT_LIMIT)
            except TooLarge as error:
                error.lost = True  # it is there
                raise
            return read_result(answer, ticket.job)

        return await self._retries.follow(once, deadline, tries=tries)

    async def _ask(self, method: str, url: str, read: Callable[[Answer], T], seconds: float, deadline: float) -> T:
        """What `read` makes of the answer about a job, asked for until there is one that it can read."""

        async def once(left: float) -> T:
            try:
                answer = await self._wire.send(method, url, min(seconds, left))
            except TooLarge as error:
                error.final = False  # no word of fal's about the job
                raise
            return read(answer)

        return await self._retries.follow(once, deadline)
