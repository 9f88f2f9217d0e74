"""A request's body -> EditRequest: both encodings end in the same values, nothing is understood yet."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pydantic_core import from_json
from starlette.requests import Request

from app.api import names
from app.api.body import Body
from app.api.form import FilePart, Part, TextPart, boundary_of, read_parts
from app.api.pictures import PictureLoader, Source, from_part
from app.api.pictures import from_json as sources_from_json
from app.catalogue.schema import Mode
from app.config import Limits
from app.errors import InvalidBody, InvalidType, MissingParameter, UnknownParameter, UnsupportedContentType
from app.params.values import check_text, kind
from app.types import Caller, EditRequest, Given, ResponseFormat


class RequestReader:
    """Reads bodies. One for the whole process."""

    def __init__(
        self,
        loader: PictureLoader,
        limits: Limits,
        *,
        response_format: ResponseFormat,
        strict: bool,
        public_url: str,
        spool_dir: Path | None = None,
    ) -> None:
        self._loader = loader
        self._limits = limits
        self._response_format = response_format
        self._strict = strict
        self._public_url = public_url.rstrip("/")
        self._spool_dir = spool_dir

    async def read(self, request: Request, body: Body, mode: Mode, caller: Caller, request_id: str) -> EditRequest:
        """The whole body, pictures loaded. Raises GatewayError; ClientGone."""
        content_type = request.headers.get("content-type", "")
        kind_of_body = content_type.partition(";")[0].strip().lower()
        if kind_of_body == "multipart/form-data":
            boundary = boundary_of(content_type)
            parts = await read_parts(body.chunks(self._limits.body_bytes), boundary, self._limits, self._spool_dir)
            params, sources = _from_parts(parts)
        elif kind_of_body == "application/json":
            params, sources = _from_object(await self._json(body))
        else:
            raise UnsupportedContentType(
                f"Unsupported content type: '{kind_of_body[:100]}'. This API method only accepts 'multipart/form-data' "
                "and 'application/json' requests."
            )
        model = _model(params)
        for parameter, found in sources.items():
            if found:
                params[parameter] = Given(found[0].spelled, await self._loader.load(found))
        return EditRequest(
            id=request_id,
            mode=mode,
            model=model,
            params=params,
            caller=caller,
            strict=self._strict or caller.strict,
            response_format=caller.response_format or self._response_format,
            base_url=self._public_url or str(request.base_url).rstrip("/"),
        )

    async def _json(self, body: Body) -> dict[str, Any]:
        raw = b"".join([chunk async for chunk in body.chunks(self._limits.json_bytes)])
        if not raw:
            raise InvalidBody("The request has no body.")
        try:
            value = from_json(raw.removeprefix(b"\xef\xbb\xbf"), allow_inf_nan=False)
        except ValueError as error:
            reason = str(error).partition(" at line")[0][:120]
            raise InvalidBody(f"The request body is not valid JSON: {reason}.") from None
        if not isinstance(value, dict):
            raise InvalidBody(f"The request body must be a JSON object, but is {kind(value)}.")
        return value


def _from_parts(parts: Iterable[Part]) -> tuple[dict[str, Given], dict[str, list[Source]]]:
    texts: list[tuple[str, str]] = []
    pictures: list[tuple[str, FilePart]] = []
    for part in parts:
        if isinstance(part, TextPart):
            base = names.split(part.name)[0]
            if base == "prompt" or not names.is_absent(part.text):
                texts.append((part.name, part.text))
        elif names.is_picture_field(part.name):
            if part.blob.size:
                pictures.append((part.name, part))
        else:
            texts.append((part.name, _text_of_file(part)))
    params = {name: Given(name, value, text=True) for name, value in names.nest(texts).items()}
    sources: dict[str, list[Source]] = {}
    for name, part in sorted(pictures, key=lambda named: _position(named[0])):
        word = names.split(name)[0]
        sources.setdefault(names.PICTURE_WORDS[word], []).append(from_part(part, word))
    return params, sources


def _text_of_file(part: FilePart) -> str:
    """A file in a field that is no picture's (`curl -F prompt=@words.txt`): its text, if it is text."""
    try:
        if part.blob.in_memory:
            return part.blob.read().decode().replace("\r\n", "\n")
    except UnicodeDecodeError:
        pass
    raise UnknownParameter(
        f"Unknown file field: '{part.name}'. Pictures go into 'image', masks into 'mask'.", param=part.name
    )


def _position(name: str) -> int:
    """`image[2]` -> 2; fields without a number keep the order in which they came."""
    path = names.split(name)[1]
    return int(path[0]) if path and path[0].isdigit() and len(path[0]) < 6 else 0


def _from_object(body: dict[str, Any]) -> tuple[dict[str, Given], dict[str, list[Source]]]:
    params: dict[str, Given] = {}
    sources: dict[str, list[Source]] = {}
    for name, value in body.items():
        if value is None:
            continue  # as OpenAI reads it: null = not given
        check_text("body", name)
        word = names.PICTURE_WORDS.get(name)
        if word is None:
            params[name] = Given(name, value)
        elif value != "":
            sources.setdefault(word, []).extend(sources_from_json(name, value))
    return params, sources


def _model(params: dict[str, Given]) -> str:
    given = params.pop("model", None)
    if given is None:
        raise MissingParameter("model")
    if not isinstance(given.value, str):
        raise InvalidType(
            f"Invalid type for 'model': expected a string, but got {kind(given.value)} instead.", param="model"
        )
    check_text("model", given.value)
    return given.value.strip()
