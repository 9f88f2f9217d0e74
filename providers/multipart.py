"""A payload as multipart/form-data: values as text, pictures as files that are read while they are sent.

Field names may be a caller's own words, so they are escaped as browsers do it (WHATWG HTML, "multipart/form-data
encoding algorithm", November 2026).
"""

from __future__ import annotations

import json
import secrets
from collections.abc import AsyncGenerator, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from providers.base import Fault, Media, ProviderError
from providers.http import pieces

_ESCAPES = str.maketrans({'"': "%22", "\r": "%0D", "\n": "%0A"})


@dataclass(frozen=True, slots=True)
class Form:
    """A body that is never in memory as a whole. May be sent more than once."""

    boundary: str
    parts: tuple[bytes | Media, ...]

    @property
    def content_type(self) -> str:
        """With the boundary."""
        return f"multipart/form-data; boundary={self.boundary}"

    @property
    def length(self) -> int:
        """In bytes."""
        return sum(part.size if isinstance(part, Media) else len(part) for part in self.parts)

    async def __aiter__(self) -> AsyncGenerator[bytes, None]:
        """Raises ProviderError if a picture cannot be read: then what was sent is no request."""
        for part in self.parts:
            if isinstance(part, bytes):
                yield part
            else:
                async for piece in pieces(part):
                    yield piece


def form(payload: Mapping[str, Any]) -> Form:
    """A list of pictures becomes as many parts of the same name; None is left out; what is no text, number or boolean
    becomes JSON. Raises ProviderError for what a form cannot carry: NaN, half a surrogate pair."""
    boundary = secrets.token_hex(16)
    parts: list[bytes | Media] = []
    frame = b""
    try:
        for name, value in _fields(payload):
            frame += f'--{boundary}\r\nContent-Disposition: form-data; name="{name.translate(_ESCAPES)}"'.encode()
            if isinstance(value, Media):
                frame += f'; filename="image.{_extension(value)}"\r\nContent-Type: {value.mime}\r\n\r\n'.encode()
                parts += (frame, value)
                frame = b"\r\n"
            else:
                frame += f"\r\n\r\n{value}\r\n".encode()
    except ValueError as error:
        raise ProviderError(
            Fault.INVALID,
            "A value of the request cannot be sent in a form.",
            detail=type(error).__name__,  # its text quotes the value
            accepted=False,
        ) from None
    return Form(boundary, (*parts, frame + f"--{boundary}--\r\n".encode()))


def _fields(payload: Mapping[str, Any]) -> Iterator[tuple[str, str | Media]]:
    for name, value in payload.items():
        pictures = value if isinstance(value, list | tuple) else [value]
        if pictures and all(isinstance(one, Media) for one in pictures):
            for one in pictures:
                yield name, one if one.url is None else one.url
        elif value is not None:
            yield name, value if isinstance(value, str) else json.dumps(value, allow_nan=False)


def _extension(media: Media) -> str:
    return {"image/jpeg": "jpg"}.get(media.mime, media.mime.removeprefix("image/"))
