"""fal.ai: its queue, its files, its error shapes.

Facts are from fal's published clients (PyPI fal-client 1.0.3, npm @fal-ai/client 1.10.1), its documentation and its
per-model OpenAPI documents, read in November 2026; shared/reference/fal.md lists the pages. fal-client itself is not
used: it repeats the paid submit up to ten times after a time-out, polls every 0.1 s and hides cancellation.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from decimal import Decimal, InvalidOperation
from typing import Any, ClassVar
from urllib.parse import urlsplit

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
from providers.fal_errors import failure, failure_in_status
from providers.http import (
    CONTROL_LIMIT,
    Answer,
    OncePerMedia,
    data_uri,
    json_body,
    media_in,
    poll_intervals,
    send,
    split_origins,
)

# How large a data URI may be is unsettled: 10 MiB of text where fal's DataUri type is used, a few KB by its
# documentation, refusals reported above 3 MB. Up to two megabytes of pictures go inline, more is uploaded.
INLINE_LIMIT = 2_000_000
RESULT_LIMIT = 128 << 20  # a sync_mode answer carries up to four pictures as data URIs

SUBMIT_SECONDS, STATUS_SECONDS, RESULT_SECONDS, CANCEL_SECONDS, UPLOAD_SECONDS = 15.0, 10.0, 60.0, 5.0, 120.0
TRIES = 5  # of a free step (status, result, upload) in a row

# Besides the configured base: replies may name the backup domain (fal-client, _BACKUP_DOMAINS).
_FAL_QUEUES = frozenset({"https://queue.fal.run", "https://queue.falrun.com"})
_JOB_ID = re.compile(r"[A-Za-z0-9-]{8,64}")


class FalProvider:
    """Jobs on fal's queue: submit, poll by the URLs that fal returned, collect, cancel."""

    name: ClassVar[str] = "fal"
    settings: ClassVar[tuple[Setting, ...]] = (
        Setting("key", "FAL_KEY", "API key, `id:secret`.", secret=True, required=True),
        Setting("queue_url", "FAL_QUEUE_URL", "Base URL of the queue.", "https://queue.fal.run"),
        Setting("run_url", "FAL_RUN_URL", "Base URL of the synchronous API.", "https://fal.run"),
        Setting("rest_url", "FAL_REST_URL", "Base URL of the storage API.", "https://rest.fal.ai"),
        Setting(
            "media_origins",
            "FAL_MEDIA_ORIGINS",
            "Further origins, http and loopback ones too, from which results may be fetched; separated by commas.",
        ),
        Setting("label", "FAL_LABEL", "How the provider is called in answers.", "fal.ai"),
    )

    def __init__(self, settings: Mapping[str, str], http: httpx2.AsyncClient, clock: Clock) -> None:
        self.label = settings["label"]
        self.media_origins = split_origins(settings["media_origins"])
        self._authorization = {"Authorization": f"Key {settings['key']}"}
        self._queue = settings["queue_url"].rstrip("/")
        self._rest = settings["rest_url"].rstrip("/")
        own = _origin(self._queue)
        self._queue_origins = _FAL_QUEUES | {own} if own in _FAL_QUEUES else frozenset({own})
        self._http = http
        self._clock = clock
        self._uploads = OncePerMedia(self._upload)

    async def submit(self, call: ProviderCall) -> Ticket:
        """Put one job on the queue. Raises ProviderError; `accepted` tells whether fal can have taken it."""
        body = json_body(call.payload, await self._texts(call.payload))
        answer = await send(
            self._http,
            "POST",
            f"{self._queue}/{call.endpoint}",
            seconds=SUBMIT_SECONDS,
            content=b"".join(body),
            headers={
                **self._authorization,
                "Content-Type": "application/json",
                "X-Fal-Object-Lifecycle-Preference": json.dumps(
                    {"expiration_duration_seconds": call.keep_results_seconds}
                ),
            },
        )
        if answer.status != 200:
            raise failure(answer, submitted=False)
        reply = answer.json()
        job = reply.get("request_id") if isinstance(reply, dict) else None
        if not isinstance(job, str) or not _JOB_ID.fullmatch(job):
            raise ProviderError(
                Fault.MALFORMED,
                "The provider took the job but did not say which it is.",
                detail=f"submit answered 200 with {answer.body[:200]!r}",
                accepted=None,
            )
        assert isinstance(reply, dict)
        return Ticket(self.name, job, self._urls(call.endpoint, job, reply))

    async def collect(self, ticket: Ticket, deadline: float) -> ProviderResult:
        """Poll until the job is done or the deadline has come, then fetch what it made."""
        status = await self._wait(ticket, deadline)
        if status.get("error_type") or status.get("error"):
            raise failure_in_status(status)
        answer = await self._persist(
            ticket.data["response_url"], RESULT_SECONDS, deadline, RESULT_LIMIT, final_500=True
        )
        if answer.status != 200:
            raise failure(answer, submitted=True)
        return _result(answer, ticket.job)

    async def cancel(self, ticket: Ticket) -> bool:
        """PUT cancel_url. fal: 202 requested, 200 removed while queued, 400 already completed, 404 unknown."""
        answer = await send(
            self._http, "PUT", ticket.data["cancel_url"], seconds=CANCEL_SECONDS, headers=self._authorization
        )
        return answer.status in (200, 202)

    # ---- steps

    def _urls(self, endpoint: str, job: str, reply: Mapping[str, Any]) -> dict[str, str]:
        """The URLs that fal returned, as its documentation asks. The key goes with each of them, so one on a foreign
        host is not used: ours is built instead, from owner/alias as fal's clients build it."""
        parts = endpoint.split("/")
        keep = 3 if parts[0] in ("workflows", "comfy") else 2
        base = f"{self._queue}/{'/'.join(parts[:keep])}/requests/{job}"
        built = {"status_url": f"{base}/status", "response_url": base, "cancel_url": f"{base}/cancel"}
        for name in built:
            url = reply.get(name)
            if isinstance(url, str) and _origin(url) in self._queue_origins:
                built[name] = url
        return built

    async def _wait(self, ticket: Ticket, deadline: float) -> dict[str, Any]:
        """Until COMPLETED. HTTP 202 while queued or running, 200 when done; the word in the body decides."""
        for pause in poll_intervals():
            answer = await self._persist(ticket.data["status_url"], STATUS_SECONDS, deadline)
            if answer.status not in (200, 202):
                raise failure(answer, submitted=True)
            status = answer.json()
            word = status.get("status") if isinstance(status, dict) else None
            if word == "COMPLETED":
                assert isinstance(status, dict)
                return status
            if word not in ("IN_QUEUE", "IN_PROGRESS"):
                raise ProviderError(
                    Fault.MALFORMED,
                    "The provider's status of the job cannot be read.",
                    detail=f"{answer.body[:200]!r}",
                    accepted=True,
                )
            left = deadline - self._clock.monotonic()
            if left <= 0:
                break
            await self._clock.sleep(min(pause, left))
        raise ProviderError(
            Fault.TIMEOUT, "The provider did not finish in time.", detail=f"job {ticket.job}", accepted=True
        )

    async def _persist(
        self, url: str, seconds: float, deadline: float, limit: int = CONTROL_LIMIT, *, final_500: bool = False
    ) -> Answer:
        """A step that costs nothing to repeat: broken connections, 429 and 5xx are tried again, up to TRIES times."""
        for attempt in range(1, TRIES + 1):
            left = deadline - self._clock.monotonic()
            try:
                answer = await send(
                    self._http,
                    "GET",
                    url,
                    seconds=max(min(seconds, left), 0.5),
                    headers=self._authorization,
                    limit=limit,
                )
                # A result carries the model's own status: a 500 with fal's request id is its verdict, not a hiccup.
                verdict = final_500 and answer.status == 500 and "x-fal-request-id" in answer.headers
                if verdict or (answer.status < 500 and answer.status != 429):
                    return answer
                error = failure(answer, submitted=True)
            except ProviderError as broken:
                error = broken
                error.accepted = True
            pause = min(0.2 * 2**attempt, 5.0) if error.retry_after is None else error.retry_after
            if error.final or attempt == TRIES or self._clock.monotonic() + pause >= deadline:
                raise error
            await self._clock.sleep(pause)
        raise AssertionError("unreachable")

    # ---- pictures on their way in

    async def _texts(self, payload: Mapping[str, Any]) -> dict[Media, bytes]:
        """What stands for each picture in the payload: its own public URL, a data URI, or the URL of an upload."""
        media = list(media_in(payload))
        inline = sum(one.size for one in media if one.url is None) <= INLINE_LIMIT
        texts: dict[Media, bytes] = {}
        for one in media:
            if one.url is not None:
                texts[one] = json.dumps(one.url)[1:-1].encode()
            else:
                texts[one] = await data_uri(one) if inline else await self._uploads.get(one)
        return texts

    async def _upload(self, media: Media) -> bytes:
        """Initiate, then PUT without the key (route C of the reference page: npm @fal-ai/client, storage.js).

        Nothing is billed for it, so it is repeated after a hiccup. Raises ProviderError with `accepted=False`.
        """
        for attempt in range(1, TRIES + 1):
            try:
                return await self._upload_once(media)
            except ProviderError as error:
                error.accepted = False
                if attempt == TRIES or error.fault not in (Fault.UNAVAILABLE, Fault.TIMEOUT, Fault.RATE_LIMITED):
                    raise
                await self._clock.sleep(min(0.2 * 2**attempt, 2.0) if error.retry_after is None else error.retry_after)
        raise AssertionError("unreachable")

    async def _upload_once(self, media: Media) -> bytes:
        lifecycle = json.dumps({"expiration_duration_seconds": 3600})
        answer = await send(
            self._http,
            "POST",
            f"{self._rest}/storage/upload/initiate?storage_type=fal-cdn-v3",
            seconds=SUBMIT_SECONDS,
            content=json.dumps(
                {"content_type": media.mime, "file_name": f"{media.digest[:16]}.{media.mime.rpartition('/')[2]}"}
            ).encode(),
            headers={
                **self._authorization,
                "Content-Type": "application/json",
                # fal-client sends both; which of them initiate reads is not documented.
                "X-Fal-Object-Lifecycle": lifecycle,
                "X-Fal-Object-Lifecycle-Preference": lifecycle,
            },
        )
        if answer.status != 200:
            raise failure(answer, submitted=False)
        reply = answer.json()
        target, file_url = (reply.get("upload_url"), reply.get("file_url")) if isinstance(reply, dict) else (None, None)
        if not isinstance(target, str) or not isinstance(file_url, str):
            raise ProviderError(Fault.MALFORMED, "The provider's storage answered nonsense.", accepted=False)
        stored = await send(
            self._http,
            "PUT",
            target,
            seconds=UPLOAD_SECONDS,
            content=media.blob.chunks(),
            headers={"Content-Type": media.mime, "Content-Length": str(media.size)},
        )
        if stored.status not in (200, 201, 204):
            raise failure(stored, submitted=False)
        return json.dumps(file_url)[1:-1].encode()


def _result(answer: Answer, job: str) -> ProviderResult:
    """The model's output -> pictures. Accepts `images: [...]` and `image: {...}`."""
    output = answer.json()
    if not isinstance(output, dict):
        raise ProviderError(
            Fault.MALFORMED, "The provider's result cannot be read.", detail=f"{answer.body[:200]!r}", accepted=True
        )
    listed = output.get("images")
    if not isinstance(listed, list):
        listed = [output["image"]] if isinstance(output.get("image"), dict) else []
    flags = output.get("has_nsfw_concepts") or output.get("nsfw_content_detected")
    flags = flags if isinstance(flags, list) else []
    images = tuple(
        _image(item, bool(flags[index]) if index < len(flags) else False)
        for index, item in enumerate(listed)
        if isinstance(item, dict)
    )
    if not images:
        raise ProviderError(
            Fault.MALFORMED,
            "The provider finished without a picture.",
            detail=f"output has the keys {sorted(output)[:20]}",
            accepted=True,
        )
    seed = output.get("seed")
    return ProviderResult(
        images, seed if isinstance(seed, int) else None, _units(answer.headers.get("x-fal-billable-units")), job
    )


def _image(item: Mapping[str, Any], flagged: bool) -> ResultImage:
    url, width, height = item.get("url"), item.get("width"), item.get("height")
    mime = item.get("content_type")
    if not isinstance(url, str):
        raise ProviderError(Fault.MALFORMED, "The provider's result has a picture without a URL.", accepted=True)
    data: bytes | None = None
    if url.startswith("data:"):  # sync_mode
        head, _, text = url.partition(",")
        try:
            data = pybase64.b64decode(text, validate=True)
        except ValueError:
            raise ProviderError(Fault.MALFORMED, "The provider's result cannot be decoded.", accepted=True) from None
        mime = head[5:].partition(";")[0]
    return ResultImage(
        url=None if data is not None else url,
        data=data,
        mime=mime if isinstance(mime, str) else None,
        width=width if isinstance(width, int) else None,
        height=height if isinstance(height, int) else None,
        flagged=flagged,
    )


def _units(text: str | None) -> Decimal | None:
    """X-Fal-Billable-Units. Absent or unreadable = not told, never zero."""
    try:
        units = Decimal(text or "")
    except InvalidOperation:
        return None
    return units if units.is_finite() and units >= 0 else None


def _origin(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}".lower()
