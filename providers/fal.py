"""fal.ai: its queue, its files, its error shapes.

Facts are from fal's published clients (PyPI fal-client 1.0.3, npm @fal-ai/client 1.10.1), its documentation and its
per-model OpenAPI documents, read in November 2026. fal-client itself is not used: it repeats the paid submit up to ten
times after a time-out, polls every 0.1 s and hides cancellation.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import Any, ClassVar, TypeVar

import httpx2
import pybase64

from providers.base import (
    Clock,
    Fault,
    Media,
    ProviderCall,
    ProviderError,
    ProviderResult,
    ResultImage,
    Setting,
    Ticket,
)
from providers.fal_errors import excerpt, failure, failure_in_status, malformed, shown
from providers.http import (
    CONTROL_LIMIT,
    TRIES,
    Answer,
    OncePerMedia,
    data_uri,
    json_body,
    media_in,
    origin,
    persist,
    pieces,
    poll,
    send,
    split_origins,
    together,
)

# How large a data URI may be is unsettled: 10 MiB of text where fal's DataUri type is used, a few KB by its
# documentation, refusals reported above 3 MB. Up to two megabytes of pictures go inline, more is uploaded.
INLINE_LIMIT = 2_000_000
RESULT_LIMIT = 128 << 20  # a sync_mode answer carries up to four pictures as data URIs
STATUS_TRIES = 14  # in a row: an outage of the queue for less than a minute costs nobody a job that runs well
UPLOAD_TRIES = 3  # in each of the dispatcher's own tries
INPUT_SECONDS = 3600  # how long fal keeps an uploaded input

# Besides the configured base: replies may name the backup domain (fal-client, _BACKUP_DOMAINS).
_FAL_QUEUES = frozenset({"https://queue.fal.run", "https://queue.falrun.com"})
_JOB_ID = re.compile(r"[A-Za-z0-9-]{8,64}")
_KEY = re.compile(r"[!-~]+")  # what a header can carry

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Patience:
    """Seconds that one HTTP exchange of each kind may take as a whole."""

    submit: float = 15.0
    status: float = 10.0
    result: float = 60.0
    cancel: float = 5.0
    initiate: float = 15.0
    upload: float = 120.0


PATIENCE = Patience()


class FalProvider:
    """Jobs on fal's queue: submit, poll by the URLs that fal returned, collect, cancel."""

    name: ClassVar[str] = "fal"
    settings: ClassVar[tuple[Setting, ...]] = (
        Setting("key", "FAL_KEY", "API key, `id:secret`.", secret=True, required=True),
        Setting("queue_url", "FAL_QUEUE_URL", "Base URL of the queue.", "https://queue.fal.run"),
        Setting("run_url", "FAL_RUN_URL", "Base URL of the synchronous API; nothing uses it yet.", "https://fal.run"),
        Setting("rest_url", "FAL_REST_URL", "Base URL of the storage API.", "https://rest.fal.ai"),
        Setting(
            "media_origins",
            "FAL_MEDIA_ORIGINS",
            "Further origins, http and loopback ones too, from which results may be fetched; separated by commas.",
        ),
        Setting("label", "FAL_LABEL", "How the provider is called in answers.", "fal.ai"),
    )

    def __init__(
        self, settings: Mapping[str, str], http: httpx2.AsyncClient, clock: Clock, patience: Patience = PATIENCE
    ) -> None:
        self.label = settings["label"]
        self.media_origins = split_origins(settings["media_origins"])
        self._key = settings["key"].strip()  # a key from a file ends in a newline
        if not _KEY.fullmatch(self._key):
            raise ValueError("FAL_KEY must be printable ASCII without spaces")
        self._queue = settings["queue_url"].rstrip("/")
        self._rest = settings["rest_url"].rstrip("/")
        own = origin(self._queue)
        if not own or not origin(self._rest):
            raise ValueError("FAL_QUEUE_URL and FAL_REST_URL must be URLs, without a user in them")
        self._queue_origins = _FAL_QUEUES if own in _FAL_QUEUES else frozenset({own})
        self._http = http
        self._clock = clock
        self._patience = patience
        self._uploads = OncePerMedia(self._upload)

    async def submit(self, call: ProviderCall) -> Ticket:
        """Put one job on the queue. Raises ProviderError; `accepted` tells whether fal can have taken it."""
        left = call.deadline - self._clock.monotonic()
        try:
            if left <= 0:
                raise TimeoutError
            async with asyncio.timeout(left):
                texts = await self._texts(call.payload)
        except TimeoutError:
            raise ProviderError(
                Fault.TIMEOUT, "The pictures could not be sent to the provider in time.", accepted=False
            ) from None
        answer = await self._send(
            "POST",
            f"{self._queue}/{call.endpoint}",
            self._patience.submit,
            content=json_body(call.payload, texts),
            headers={
                "Content-Type": "application/json",
                "X-Fal-Object-Lifecycle-Preference": _lifecycle(call.keep_results_seconds),
            },
        )
        if not 200 <= answer.status < 300:
            raise failure(answer, of="submit")
        reply = answer.json()
        job = reply.get("request_id") if isinstance(reply, dict) else None
        if not isinstance(job, str) or not _JOB_ID.fullmatch(job):
            raise malformed("The provider took the job but did not say which it is.", answer, accepted=None)
        assert isinstance(reply, dict)
        return Ticket(self.name, job, self._urls(call.endpoint, job, reply))

    async def collect(self, ticket: Ticket, deadline: float) -> ProviderResult:
        """Poll until the job is done or the deadline has come, then fetch what it made."""
        status = await self._wait(ticket, deadline)
        # The result's own answer says more than the status does: which field, which policy.
        told = failure_in_status(status) if status.get("error") or status.get("error_type") else None
        try:
            return await self._ask(
                "GET",
                ticket.data["response_url"],
                lambda answer: _result(answer, ticket.job),
                seconds=self._patience.result,
                deadline=deadline,
                limit=RESULT_LIMIT,
            )
        except ProviderError as error:
            if told is not None and error.fault not in (Fault.INVALID, Fault.REFUSED):
                raise told from None
            raise

    async def cancel(self, ticket: Ticket) -> bool:
        """PUT cancel_url. fal: 202 requested, 200 removed while queued, 400 already completed, 404 unknown."""
        return await self._ask(
            "PUT",
            ticket.data["cancel_url"],
            _cancelled,
            seconds=self._patience.cancel,
            deadline=self._clock.monotonic() + TRIES * self._patience.cancel,
        )

    # ---- steps

    async def _send(
        self,
        method: str,
        url: str,
        seconds: float,
        *,
        content: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        limit: int = CONTROL_LIMIT,
    ) -> Answer:
        """A request with the key: only ever to our own base or to what `_urls` let through. An answer that echoes the
        key is relieved of it here, before any of it can be shown."""
        answer = await send(
            self._http,
            method,
            url,
            seconds=seconds,
            headers={"Authorization": f"Key {self._key}", **(headers or {})},
            content=content,
            limit=limit,
        )
        if answer.status < 400 and len(self._key) < 16:
            return answer  # so short a key (a stand-in's) may stand in a picture's base64 by chance
        hidden = answer.body.replace(self._key.encode(), b"***")
        return Answer(answer.asked, answer.status, answer.headers, hidden)

    def _urls(self, endpoint: str, job: str, reply: Mapping[str, Any]) -> dict[str, str]:
        """The URLs that fal returned, as its documentation asks. The key goes with each of them, so one on a foreign
        host is not used: ours is built instead, from owner/alias as fal's clients build it."""
        parts = endpoint.split("/")
        keep = 3 if parts[0] in ("workflows", "comfy") else 2
        base = f"{self._queue}/{'/'.join(parts[:keep])}/requests/{job}"
        built = {"status_url": f"{base}/status", "response_url": base, "cancel_url": f"{base}/cancel"}
        for name in built:
            url = reply.get(name)
            if isinstance(url, str) and job in url and origin(url) in self._queue_origins:
                built[name] = url
        return built

    async def _wait(self, ticket: Ticket, deadline: float) -> Mapping[str, Any]:
        """Until COMPLETED."""

        async def look() -> Mapping[str, Any] | None:
            url, seconds = ticket.data["status_url"], self._patience.status
            status = await self._ask("GET", url, _status, seconds=seconds, deadline=deadline, tries=STATUS_TRIES)
            return status if status["status"] == "COMPLETED" else None

        return await poll(self._clock, look, deadline)

    async def _ask(
        self,
        method: str,
        url: str,
        read: Callable[[Answer], T],
        *,
        seconds: float,
        deadline: float,
        limit: int = CONTROL_LIMIT,
        tries: int = TRIES,
    ) -> T:
        """What `read` makes of the answer about a job, asked for until there is one that it can read."""

        async def once(left: float) -> T:
            return read(await self._send(method, url, min(seconds, left), limit=limit))

        return await persist(self._clock, once, deadline, tries=tries)

    # ---- pictures on their way in

    async def _texts(self, payload: Mapping[str, Any]) -> dict[Media, bytes]:
        """What stands for each picture in the payload: its own public URL, a data URI, or the URL of an upload."""
        media = list(media_in(payload))
        inline = sum(one.size for one in media if one.url is None) <= INLINE_LIMIT

        async def text(one: Media) -> bytes:
            if one.url is not None:
                return _ascii(one.url)
            return await data_uri(one) if inline else await self._uploads.get(one)

        return dict(zip(media, await together(*(text(one) for one in media)), strict=True))

    async def _upload(self, media: Media) -> bytes:
        """Nothing is billed for it, so it is repeated after a hiccup. Raises ProviderError with `accepted=False`."""
        soon = self._clock.monotonic() + self._patience.upload  # a longer Retry-After is the caller's to wait
        return await persist(self._clock, lambda _: self._upload_once(media), soon, tries=UPLOAD_TRIES, accepted=False)

    async def _upload_once(self, media: Media) -> bytes:
        """Initiate, then PUT without the key (as npm @fal-ai/client 1.10.1, storage.js)."""
        lifecycle = _lifecycle(INPUT_SECONDS)
        name = f"{media.digest[:16]}.{media.mime.rpartition('/')[2]}"
        answer = await self._send(
            "POST",
            f"{self._rest}/storage/upload/initiate?storage_type=fal-cdn-v3",
            self._patience.initiate,
            content=json.dumps({"content_type": media.mime, "file_name": name}).encode(),
            headers={
                "Content-Type": "application/json",
                # fal-client sends both; which of them initiate reads is not documented.
                "X-Fal-Object-Lifecycle": lifecycle,
                "X-Fal-Object-Lifecycle-Preference": lifecycle,
            },
        )
        if answer.status != 200:
            raise failure(answer, of="upload")
        reply = answer.json()
        target, file_url = (reply.get("upload_url"), reply.get("file_url")) if isinstance(reply, dict) else (None, None)
        # pictures travel in the clear only where the operator's own base does, as to a sandbox
        secure = isinstance(target, str) and origin(target).startswith(("https:", self._rest.partition("//")[0]))
        if not secure or not isinstance(file_url, str):
            raise malformed("The provider's storage answered something unexpected.", answer, accepted=False)
        stored = await send(
            self._http,
            "PUT",
            str(target),
            seconds=self._patience.upload,
            content=pieces(media),
            headers={"Content-Type": media.mime, "Content-Length": str(media.size)},
        )
        if not 200 <= stored.status < 300:
            # Whoever stores it does not speak fal's error shapes. A new ticket may help, but for a file too large.
            raise ProviderError(
                Fault.INVALID if stored.status == 413 else Fault.UNAVAILABLE,
                "The provider's storage did not take the picture.",
                detail=f"{stored.asked}: HTTP {stored.status} {excerpt(stored)}",
                accepted=False,
                final=stored.status == 413,
            )
        return _ascii(file_url)


def _status(answer: Answer) -> Mapping[str, Any]:
    """HTTP 202 while queued or running, 200 when done; the word in the body decides."""
    if answer.status not in (200, 202):
        raise failure(answer, of="status")
    status = answer.json()
    if isinstance(status, dict) and status.get("status") in ("IN_QUEUE", "IN_PROGRESS", "COMPLETED"):
        return status
    raise malformed("The provider's status of the job cannot be read.", answer, accepted=True)


def _cancelled(answer: Answer) -> bool:
    if answer.status in (200, 202):
        return True
    if answer.status in (400, 404):
        return False
    raise failure(answer, of="status")


def _result(answer: Answer, job: str) -> ProviderResult:
    """The model's output -> pictures. Accepts `images: [...]` and `image: {...}`."""
    if answer.status == 400 and b"still in progress" in answer.body[:1000]:
        raise ProviderError(  # the queue's two halves disagree for a moment
            Fault.UNAVAILABLE, "The provider's result was not there.", detail=excerpt(answer), accepted=True
        )
    if answer.status != 200:
        raise failure(answer, of="result")
    output = answer.json()
    if not isinstance(output, dict):
        raise malformed("The provider's result cannot be read.", answer, accepted=True)
    listed = output.get("images")
    if not isinstance(listed, list):
        listed = [output["image"]] if isinstance(output.get("image"), dict) else []
    if not listed:
        raise _bad_result(
            "The provider finished without a picture.", f"output has the keys {shown(sorted(output)[:20])}"
        )
    flags = output.get("has_nsfw_concepts") or output.get("nsfw_content_detected")
    flags = flags if isinstance(flags, list) else []
    images = tuple(_image(item, index < len(flags) and bool(flags[index])) for index, item in enumerate(listed))
    seed = output.get("seed")
    units = _units(answer.headers.get("x-fal-billable-units"))
    return ProviderResult(images, seed if isinstance(seed, int) and not isinstance(seed, bool) else None, units, job)


def _image(item: Any, flagged: bool) -> ResultImage:
    url = item.get("url") if isinstance(item, dict) else None
    if not isinstance(url, str):
        raise _bad_result("The provider's result has a picture without a URL.", shown(item))
    mime = item.get("content_type")
    data: bytes | None = None
    if url.startswith("data:"):  # sync_mode
        head, _, text = url.partition(",")
        try:
            data = pybase64.b64decode(text, validate=True)
        except ValueError:
            raise _bad_result("The provider's result cannot be decoded.", shown(url[:100])) from None
        mime = head[5:].partition(";")[0]
    return ResultImage(
        url=None if data is not None else url,
        data=data,
        mime=mime if isinstance(mime, str) else None,
        width=_length(item.get("width")),
        height=_length(item.get("height")),
        flagged=flagged,
    )


def _length(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else None


def _units(text: str | None) -> Decimal | None:
    """X-Fal-Billable-Units. Absent or absurd = not told, never zero."""
    try:
        units = Decimal((text or "")[:32])
    except InvalidOperation:
        return None
    return units if units.is_finite() and 0 <= units < 1_000_000 else None


def _bad_result(message: str, detail: str) -> ProviderError:
    return ProviderError(Fault.MALFORMED, message, detail=detail, accepted=True, final=True)


def _lifecycle(seconds: int) -> str:
    """fal keeps for ever what is to be kept for 0 seconds; 60 is the least of its presets."""
    return json.dumps({"expiration_duration_seconds": max(seconds, 60)})


def _ascii(url: str) -> bytes:
    """A URL as it stands between the quotes of a JSON string."""
    return json.dumps(url)[1:-1].encode()
