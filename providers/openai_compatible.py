"""Any server with OpenAI's images endpoints: OpenAI, Azure, vLLM-Omni, SGLang, LocalAI, another imagegate.

Edits go out as multipart/form-data, generations as JSON, and the answer to the one request is the result: there is no
job to poll. What differs between servers stands in settings (where the key goes, whether `model` is sent) and in the
rows of the model's file (names of fields, limits, what is sent along), not here. docs/providers.md has a model file
for each kind of server.
"""

from __future__ import annotations

import asyncio
import re
import secrets
from collections.abc import Mapping
from typing import Any, ClassVar
from urllib.parse import quote

import httpx2
import pybase64

from providers.base import (
    VIA,
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
from providers.http import Answer, json_body, media_in, origin, send, split_origins
from providers.multipart import form
from providers.openai_errors import failure

RESULT_LIMIT = 192 << 20  # bytes of an answer; pictures in it are base64
_HEADER = re.compile(r"[!-~]+")
_ID = re.compile(r"[A-Za-z0-9_.:-]{1,128}")
_TRUE, _FALSE = frozenset({"true", "1", "yes", "on"}), frozenset({"false", "0", "no", "off"})
_EDITS = ("form", "base64", "data_uri")


class OpenAICompatible:
    """One request per job; its ticket holds the result."""

    name: ClassVar[str] = "openai_compatible"
    settings: ClassVar[tuple[Setting, ...]] = (
        Setting(
            "base_url",
            "OPENAI_COMPATIBLE_BASE_URL",
            "Base URL, such as https://api.openai.com/v1; `{model}` in it is the endpoint of the model's file.",
            required=True,
        ),
        Setting("key", "OPENAI_COMPATIBLE_KEY", "API key; empty: none is sent.", secret=True),
        Setting(
            "key_header",
            "OPENAI_COMPATIBLE_KEY_HEADER",
            "Header that carries the key: `authorization` (as Bearer), or another that carries it as it is.",
            "authorization",
        ),
        Setting("query", "OPENAI_COMPATIBLE_QUERY", "Query of every request, such as api-version=2025-04-01-preview."),
        Setting("send_model", "OPENAI_COMPATIBLE_SEND_MODEL", "Whether `model` is sent: true or false.", "true"),
        Setting(
            "edits",
            "OPENAI_COMPATIBLE_EDITS",
            "How pictures travel: `form` to images/edits; `base64` or `data_uri` in JSON to images/generations.",
            "form",
        ),
        Setting("seconds", "OPENAI_COMPATIBLE_SECONDS", "Time that one request may take as a whole.", "600"),
        Setting(
            "media_origins",
            "OPENAI_COMPATIBLE_MEDIA_ORIGINS",
            "Further origins, besides the server's own and public https, from which results may be fetched.",
        ),
        Setting(
            "label", "OPENAI_COMPATIBLE_LABEL", "How the provider is called in answers.", "OpenAI-compatible server"
        ),
    )

    def __init__(self, settings: Mapping[str, str], http: httpx2.AsyncClient, clock: Clock) -> None:
        """Raises ValueError for settings that cannot be used."""
        self.label = settings["label"]
        self._url = settings["base_url"].rstrip("/")
        own = origin(self._url.replace("{model}", "model"))
        if not own or "?" in self._url or "#" in self._url:
            raise ValueError("base_url must be an http(s) URL, without a user or a query in it")
        self.media_origins = split_origins(settings["media_origins"]) | {own}
        self._own = own
        self._query = f"?{settings['query'].lstrip('?')}" if settings["query"] else ""
        said = settings["send_model"].strip().lower()
        if said not in _TRUE | _FALSE:
            raise ValueError("send_model must be true or false")
        self._send_model = said in _TRUE
        try:
            self._seconds = float(settings["seconds"])
        except ValueError:
            raise ValueError("seconds must be a number") from None
        self._edits = settings["edits"].strip()
        if self._edits not in _EDITS:
            raise ValueError(f"edits must be one of {', '.join(_EDITS)}")
        self._key = settings["key"].strip()
        header = settings["key_header"].strip().lower()
        if self._key and not _HEADER.fullmatch(self._key):
            raise ValueError("key must be printable ASCII without spaces")
        carried = f"Bearer {self._key}" if header == "authorization" else self._key
        self._headers = {header: carried} if self._key else {}
        self._http = http
        self._clock = clock

    async def submit(self, call: ProviderCall) -> Ticket:
        """Send the one request that is the whole job, and wait for its answer. Raises ProviderError; `accepted` tells
        whether the server can have begun."""
        if call.deadline <= self._clock.monotonic():
            raise ProviderError(Fault.TIMEOUT, "There was no time left to ask the provider.", accepted=False)
        payload = dict(call.payload)
        if self._send_model and call.endpoint:
            payload["model"] = call.endpoint
        # A name of our own for the job: what the server calls it comes too late to look for it by.
        job = secrets.token_hex(16)
        headers = {**self._headers, "Accept": "application/json", "Idempotency-Key": job}
        if call.via:
            headers[VIA] = ", ".join(call.via)
        content: Any
        pictures = list(media_in(payload))
        if pictures and self._edits == "form":
            path, body = "images/edits", form(payload)
            content, headers["Content-Type"] = body, body.content_type
            headers["Content-Length"] = str(body.length)
        else:
            path, text = "images/generations", json_body(payload, await self._written(pictures))
            content, headers["Content-Type"] = text.content, "application/json"
            headers["Content-Length"] = str(text.length)
        if not call.wanted():
            raise ProviderError(Fault.UNAVAILABLE, "Nobody waits for the job any more.", accepted=False, final=True)
        base = self._url.replace("{model}", quote(call.endpoint, safe=""))
        answer = await send(
            self._http,
            "POST",
            f"{base}/{path}{self._query}",
            seconds=self._seconds,
            headers=headers,
            content=content,
            limit=RESULT_LIMIT,
        )
        if not 200 <= answer.status < 300:
            raise failure(answer)
        result = await asyncio.to_thread(self._read, answer)
        return Ticket(self.name, job, {}, result)

    async def collect(self, ticket: Ticket, deadline: float) -> ProviderResult:
        """What the ticket holds. One that lost it (bytes are not kept over a restart) leads nowhere: the server keeps
        nothing that could be asked for."""
        if ticket.result is None:
            raise ProviderError(
                Fault.UNAVAILABLE,
                "The provider's answer was lost, and it cannot be asked for again.",
                detail="the gateway was restarted before the pictures were stored",
                accepted=True,
                final=True,
                lost=True,
            )
        return ticket.result

    async def cancel(self, ticket: Ticket) -> bool:
        """There is nothing left to stop: the job is over when its ticket is there."""
        return False

    async def _written(self, pictures: list[Media]) -> dict[Media, bytes]:
        """What stands for each picture in JSON, where that is no data URI: its address, or base64 by itself."""
        if self._edits != "base64":
            return {}
        at_hand = [media for media in pictures if media.url is None]
        return await asyncio.to_thread(lambda: {media: pybase64.b64encode(media.blob.read()) for media in at_hand})

    def _read(self, answer: Answer) -> ProviderResult:
        """Blocks. Raises ProviderError MALFORMED: the job is done, and perhaps paid for."""
        body = answer.json()
        data = body.get("data") if isinstance(body, dict) else None
        if not isinstance(data, list) or not data:
            raise _unreadable(answer, "no list of pictures")
        images = tuple(self._image(answer, one) for one in data)
        found = body.get("metadata")
        metadata: Mapping[str, Any] = found if isinstance(found, dict) else {}
        seed = metadata.get("seed", body.get("seed"))
        said = body.get("id") or answer.headers.get("x-request-id")
        return ProviderResult(
            images,
            seed=seed if isinstance(seed, int) and not isinstance(seed, bool) else None,
            provider_request_id=said if isinstance(said, str) and _ID.fullmatch(said) else None,
        )

    def _image(self, answer: Answer, entry: Any) -> ResultImage:
        entry = entry if isinstance(entry, dict) else {}
        text, url, prompt = entry.get("b64_json"), entry.get("url"), entry.get("revised_prompt")
        revised = prompt if isinstance(prompt, str) and prompt else None
        if isinstance(text, str) and text:
            if text.startswith("data:"):
                text = text.partition(",")[2]
            try:
                return ResultImage(data=pybase64.b64decode(text, validate=True), revised_prompt=revised)
            except ValueError:
                raise _unreadable(answer, "a picture that is no base64") from None
        if isinstance(url, str) and url.startswith("data:"):
            return self._image(answer, {"b64_json": url, "revised_prompt": revised})
        if isinstance(url, str) and url:
            absolute = f"{self._own}{url}" if url.startswith("/") and not url.startswith("//") else url
            return ResultImage(url=absolute, revised_prompt=revised)
        raise _unreadable(answer, "a picture without b64_json and url")


def _unreadable(answer: Answer, what: str) -> ProviderError:
    return ProviderError(
        Fault.MALFORMED,
        "The provider answered something unexpected.",
        detail=f"{answer.asked}: HTTP {answer.status}: {what}",
        accepted=True,
        final=True,
    )
