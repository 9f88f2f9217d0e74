"""One exchange with fal: the key, the limits in time, what each request says of the life of files."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import httpx2

from providers.http import CONTROL_LIMIT, Answer, send

_KEY = re.compile(r"[!-~]+")  # what a header can carry


@dataclass(frozen=True, slots=True)
class Patience:
    """Seconds that one HTTP exchange of each kind may take as a whole."""

    submit: float = 15.0
    status: float = 10.0
    result: float = 60.0
    cancel: float = 5.0
    initiate: float = 15.0
    upload: float = 120.0
    listing: float = 30.0


PATIENCE = Patience()


class Wire:
    """Sends what needs the key. Raises ValueError for a key that no header can carry."""

    def __init__(self, key: str, http: httpx2.AsyncClient) -> None:
        self.renew(key)
        self.http = http

    def renew(self, key: str) -> None:
        """Send this key from now on. Raises ValueError for one that no header can carry."""
        key = key.strip()  # a key from a file ends in a newline
        if not _KEY.fullmatch(key):
            raise ValueError("FAL_KEY must be printable ASCII without spaces")
        self._key = key

    async def send(
        self,
        method: str,
        url: str,
        seconds: float,
        *,
        content: Any = None,
        headers: Mapping[str, str] | None = None,
        limit: int = CONTROL_LIMIT,
    ) -> Answer:
        """A request with the key: only ever to a base of the configuration, or to what was checked against one. An
        answer that echoes the key is relieved of it here, before any of it can be shown."""
        key = self._key  # it may be another one when the answer is there
        answer = await send(
            self.http,
            method,
            url,
            seconds=seconds,
            headers={"Authorization": f"Key {key}", **(headers or {})},
            content=content,
            limit=limit,
        )
        if answer.status < 400 and len(key) < 16:
            return answer  # so short a key (a stand-in's) may stand in a picture's base64 by chance
        hidden = answer.body.replace(key.encode(), b"***")
        return Answer(answer.asked, answer.status, answer.raw_headers, hidden)


def lifecycle(seconds: int) -> str:
    """fal keeps for ever what is to be kept for 0 seconds; 60 is the least of its presets."""
    return json.dumps({"expiration_duration_seconds": max(seconds, 60)})
