"""multipart/form-data -> parts, by python-multipart's push parser and a sink of our own.

`request.form()` is not used: it turns file parts without a file name into text (Java's and Python's SDKs send such),
caps nothing but text, hops to a thread for every chunk once a file is on disk (65 ms CPU for 10 MB against 2-6 here)
and takes a truncated body for an empty form.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from app.api import names
from app.config import Limits
from app.errors import GatewayError, ImageTooLarge, InvalidBody, InvalidValue, RequestTooLarge
from app.media.blob import Room, Spool
from providers.base import Blob

if TYPE_CHECKING:
    from python_multipart.multipart import MultipartCallbacks


@dataclass(frozen=True, slots=True)
class TextPart:
    """A field: its name as it was written, and its text."""

    name: str
    text: str


@dataclass(frozen=True, slots=True)
class FilePart:
    """A file, or a picture field without a file name."""

    name: str
    blob: Blob
    digest: str
    head: bytes
    named: bool  # it came with a file name


Part = TextPart | FilePart

_IN_WORDS = re.compile(rb"data:|https?://", re.IGNORECASE)
_BASE64 = re.compile(rb"[A-Za-z0-9+/=_\-\s]+")
_DATA_URI_HEAD = 1024  # room for the words before the data, and for line breaks at the end
_ENCODED = frozenset({b"base64", b"quoted-printable"})


def is_words(head: bytes) -> bool:
    """Whether a picture part holds no picture but says where it is, or spells it out as a data URI."""
    return _IN_WORDS.match(head.lstrip()) is not None


def is_bare_base64(name: str, head: bytes) -> bool:
    """Whether a picture part is base64 text: only under a name that says so, since base64 looks like any word."""
    word, path = names.split(name)
    return "image_base64" in (word, *path[-1:]) and _BASE64.fullmatch(head) is not None


def boundary_of(content_type: str) -> bytes:
    """The boundary that the header names. Raises InvalidBody."""
    _, options = parse_options_header(content_type)
    boundary = options.get(b"boundary", b"")
    if not boundary or len(boundary) > 256:
        raise InvalidBody("The Content-Type header names no multipart boundary.")
    return boundary


async def read_parts(
    chunks: AsyncIterator[bytes],
    boundary: bytes,
    limits: Limits,
    spool_dir: Path | None = None,
    *,
    memory: int | None = None,
    room: Room | None = None,
) -> list[Part]:
    """Every part of the body; files of more than `memory` bytes (None: as the limits say) go to disk, and all of them
    if there is no `room`.

    Raises InvalidBody for what is no whole multipart body, and errors that name a field for one that is too large.
    """
    threshold = limits.spool_bytes if memory is None else memory
    sink = _Sink(limits, partial(Spool, threshold, spool_dir, room=room))
    empty = True
    try:
        parser = MultipartParser(boundary, sink.callbacks())
        async for chunk in chunks:
            empty = False
            parser.write(chunk)
            await sink.drain()
    except FormParserError:
        sink.discard()
        raise InvalidBody(
            "The body is not valid multipart/form-data: check its boundary and line ends (CRLF)."
        ) from None
    except BaseException:
        sink.discard()
        raise
    if empty:
        raise InvalidBody("The request has no body.")
    if not sink.ended:
        sink.discard()
        raise InvalidBody("The multipart body is cut off: its closing boundary is missing.")
    if not sink.parts:
        raise InvalidBody("The multipart body has no parts.")
    return sink.parts


class _Sink:
    """The parser's callbacks: one part at a time, text into memory, files into a spool."""

    def __init__(self, limits: Limits, new_spool: Callable[[], Spool]) -> None:
        self.parts: list[Part] = []
        self.ended = False
        self._limits = limits
        self._new_spool = new_spool
        self._headers: dict[bytes, bytes] = {}
        self._header_name = b""
        self._header_value = b""
        self._name = self._param = ""
        self._text = bytearray()
        self._spool: Spool | None = None
        self._named = False
        self._texts = self._files = 0

    def callbacks(self) -> MultipartCallbacks:
        """As MultipartParser wants them."""
        return {
            "on_part_begin": self._begin,
            "on_header_field": self._header_field,
            "on_header_value": self._header_data,
            "on_header_end": self._header_end,
            "on_headers_finished": self._opened,
            "on_part_data": self._data,
            "on_part_end": self._close,
            "on_end": self._end,
        }

    async def drain(self) -> None:
        """Let a large file flow to disk."""
        if self._spool is not None:
            await self._spool.drain()

    def discard(self) -> None:
        """The body was no good: let go of everything."""
        if self._spool is not None:
            self._spool.discard()
        self.parts.clear()

    def _begin(self) -> None:
        self._headers, self._header_name, self._header_value = {}, b"", b""

    def _header_field(self, data: bytes, start: int, end: int) -> None:
        self._header_name += data[start:end]

    def _header_data(self, data: bytes, start: int, end: int) -> None:
        self._header_value += data[start:end]

    def _header_end(self) -> None:
        self._headers[self._header_name.lower()] = self._header_value
        self._header_name, self._header_value = b"", b""

    def _opened(self) -> None:
        kind, options = parse_options_header(self._headers.get(b"content-disposition", b""))
        raw = options.get(b"name")
        if kind != b"form-data" or not raw:
            raise InvalidBody("A part of the multipart body has no name.")
        try:
            self._name = raw.decode()
        except UnicodeDecodeError:
            raise InvalidBody("A part's name is not UTF-8.") from None
        names.check(self._name)
        self._param = names.split(self._name)[0]
        if self._headers.get(b"content-transfer-encoding", b"").strip().lower() in _ENCODED:
            raise InvalidBody(f"The part '{self._name}' has a Content-Transfer-Encoding: send its bytes as they are.")
        # A picture field without a file name is a file all the same (Java's InputStream, Python's (None, bytes, type)).
        # A browser sends an empty name for a file input that was left empty.
        self._named = bool(options.get(b"filename") or options.get(b"filename*"))
        if self._named or b"filename" in options or names.is_picture_field(self._name):
            self._files += 1
            if self._files > self._limits.images * 2 + self._limits.fields:
                raise self._too_many()
            self._spool = self._new_spool()
        else:
            self._texts += 1
            if self._texts > self._limits.fields:
                raise self._too_many()
            self._text = bytearray()

    def _too_many(self) -> InvalidBody:
        return InvalidBody(
            f"The form has more than {self._limits.fields} fields. A picture has to be sent as one file part "
            "(Node: wrap a Buffer in toFile())."
        )

    def _data(self, data: bytes, start: int, end: int) -> None:
        if self._spool is not None:
            self._spool.write(memoryview(data)[start:end])
            if self._spool.size > self._limits.image_bytes:
                self._check_size(self._spool)
        else:
            self._text += data[start:end]
            if len(self._text) > self._limits.field_bytes:
                raise RequestTooLarge(
                    f"Invalid '{self._param}': the field is larger than the limit of {self._limits.field_bytes} bytes.",
                    param=self._param,
                )

    def _check_size(self, spool: Spool) -> None:
        """A picture in base64 is a third longer than its bytes, which are counted once it is decoded."""
        in_words = is_words(spool.head) or is_bare_base64(self._name, spool.head)
        if not in_words or spool.size > self._limits.image_bytes * 4 // 3 + _DATA_URI_HEAD:
            raise ImageTooLarge(
                f"Invalid '{self._param}': the file is larger than the limit of {self._limits.image_bytes} bytes.",
                param=self._param,
            )

    def _close(self) -> None:
        if self._spool is not None:
            head = self._spool.head
            blob, digest = self._spool.finish()
            self._spool = None
            self.parts.append(FilePart(self._name, blob, digest, head, self._named))
            return
        try:
            text = self._text.decode()
        except UnicodeDecodeError:
            raise _not_text(self._param) from None
        # Node's SDK turns every line end of a prompt into CRLF.
        self.parts.append(TextPart(self._name, text.replace("\r\n", "\n")))

    def _end(self) -> None:
        self.ended = True


def _not_text(name: str) -> GatewayError:
    return InvalidValue(f"Invalid '{name}': the field is not UTF-8 text.", param=name)
