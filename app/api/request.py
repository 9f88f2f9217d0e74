"""A request's body -> EditRequest: both encodings end in the same values, nothing is understood yet."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

from pydantic_core import from_json
from starlette.requests import Request

from app.api import names
from app.api.body import Body
from app.api.form import FilePart, Part, TextPart, boundary_of, read_parts
from app.api.pictures import PictureLoader, Source, from_part
from app.api.pictures import from_json as from_json_value
from app.catalogue.schema import Mode
from app.config import Limits
from app.errors import InvalidBody, InvalidType, MissingParameter, UnsupportedContentType, UnsupportedParameter
from app.media.blob import Room
from app.params.values import check_text, kind, shown
from app.types import Caller, EditRequest, Given, ResponseFormat, Terms

# Values take up to 25 times their JSON's bytes in memory, strings do not: pictures fit, 32 MB of `[],[],…` do not.
# Commas and brackets are counted wherever they stand; base64 has none, and the longest prompt cannot have so many.
MAX_VALUES = 100_000
SMALL_SPOOL = 256 << 10


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
        room: Room | None = None,
    ) -> None:
        self._loader = loader
        self._limits = limits
        self._response_format = response_format
        self._strict = strict
        self._public_url = public_url.rstrip("/")
        self._spool_dir = spool_dir
        self._room = room

    async def read(
        self,
        request: Request,
        body: Body,
        mode: Mode,
        caller: Caller,
        terms: Terms,
        check: Callable[[EditRequest], None],
        deployment: str | None = None,
    ) -> EditRequest:
        """The whole body, pictures loaded. `deployment`: the model that the path names, which then counts. `check` sees
        the request before its pictures are read or fetched, and raises what is wrong with its words.

        Raises GatewayError; ClientGone.
        """
        params, sources = await self._parameters(request, body)
        if deployment is not None:
            params["model"] = Given("model", deployment)
        model = _model(params)
        without_pictures = {parameter: Given(found[0].spelled, ()) for parameter, found in sources.items()}
        asked = EditRequest(
            id=request.state.request_id,
            mode=mode,
            model=model,
            params={**params, **without_pictures},
            caller=caller,
            strict=self._strict or caller.strict,
            response_format=caller.response_format or self._response_format,
            base_url=self._public_url or str(request.base_url).rstrip("/"),
            terms=terms,
        )
        check(asked)
        pictures = {
            parameter: Given(found[0].spelled, await self._loader.load(found)) for parameter, found in sources.items()
        }
        return replace(asked, params={**params, **pictures})

    async def _parameters(self, request: Request, body: Body) -> tuple[dict[str, Given], dict[str, list[Source]]]:
        coding = request.headers.get("content-encoding", "identity").strip().lower()
        if coding not in ("identity", ""):
            raise UnsupportedContentType(f"Unsupported content encoding: '{shown(coding)}'. Send the body as it is.")
        content_type = request.headers.get("content-type", "")
        kind_of_body = content_type.partition(";")[0].strip().lower()
        if kind_of_body == "multipart/form-data":
            boundary = boundary_of(content_type)
            chunks = body.chunks(self._limits.body_bytes)
            # A body that is larger anyway need not fill memory before it goes to disk.
            is_large = body.declared is None or body.declared > 2 * self._limits.spool_bytes
            memory = min(self._limits.spool_bytes, SMALL_SPOOL) if is_large else self._limits.spool_bytes
            parts = await read_parts(chunks, boundary, self._limits, self._spool_dir, memory=memory, room=self._room)
            return _from_parts(parts, self._limits)
        if kind_of_body == "application/json":
            raw = b"".join([chunk async for chunk in body.chunks(self._limits.json_bytes)])
            # A large body takes up to 0.2 s to parse: not on the event loop.
            parsed = parse_object(raw) if len(raw) < 1 << 18 else await asyncio.to_thread(parse_object, raw)
            return _from_object(parsed, self._limits)
        raise UnsupportedContentType(
            f"Unsupported content type: '{shown(kind_of_body)}'. This API method only accepts 'multipart/form-data' "
            "and 'application/json' requests."
        )


def parse_object(raw: bytes) -> dict[str, Any]:
    """A JSON object, strictly: no NaN, no key twice, no depth or number of values that could exhaust us.

    Raises InvalidBody. It is read twice, since the quick parser takes the last of two equal keys in silence.
    """
    if not raw:
        raise InvalidBody("The request has no body.")
    raw = raw.removeprefix(b"\xef\xbb\xbf")
    if sum(map(raw.count, (b",", b"[", b"{"))) > MAX_VALUES:
        raise InvalidBody(f"The request body holds more than {MAX_VALUES} values.")
    try:
        value = from_json(raw, allow_inf_nan=False)
        json.loads(raw, object_pairs_hook=_without_repeats)
    except ValueError as error:
        raise InvalidBody(f"The request body is not valid JSON: {str(error)[:160]}.") from None
    if not isinstance(value, dict):
        raise InvalidBody(f"The request body must be a JSON object, but is {kind(value)}.")
    return value


def _without_repeats(pairs: list[tuple[str, Any]]) -> None:
    seen = set()
    for key, _ in pairs:
        if key in seen:
            raise InvalidBody(f"The request body has '{shown(key)}' twice in one object.", param=shown(key))
        seen.add(key)


def _from_parts(parts: Iterable[Part], limits: Limits) -> tuple[dict[str, Given], dict[str, list[Source]]]:
    texts: list[tuple[str, str]] = []
    pictures: list[FilePart] = []
    for part in parts:
        if isinstance(part, TextPart):
            texts.append((part.name, part.text))
        elif not names.is_picture_field(part.name):
            texts.append((part.name, _text_of_file(part, limits)))
        elif part.named or not names.is_absent(part.head.decode("latin-1")):
            pictures.append(part)
    given = [(name, text) for name, text in texts if name == "prompt" or not names.is_absent(text)]
    params = {name: Given(name, value, text=True) for name, value in names.nest(given).items()}
    sources: dict[str, list[Source]] = {}
    for part in sorted(pictures, key=lambda part: names.position(part.name)):
        word = names.split(part.name)[0]
        listed = _references(part)
        found = [from_part(part)] if listed is None else from_json_value(word, listed)
        sources.setdefault(names.PICTURE_WORDS[word], []).extend(found)
    return params, sources


def _references(part: FilePart) -> Any:
    """The value of a picture field that holds JSON (`images=[{"image_url": …}]`); None if it holds none."""
    if part.head.lstrip()[:1] not in (b"[", b"{") or not part.blob.in_memory:
        return None
    try:
        return from_json(part.blob.read(), allow_inf_nan=False)
    except ValueError:
        return None


def _text_of_file(part: FilePart, limits: Limits) -> str:
    """A file in a field that is no picture's (`curl -F prompt=@words.txt`): its text, if it is text."""
    try:
        if part.blob.in_memory and part.blob.size <= limits.field_bytes:
            return part.blob.read().decode().replace("\r\n", "\n")
    except UnicodeDecodeError:
        pass
    word = names.split(part.name)[0]
    raise UnsupportedParameter(
        f"Unsupported file in '{word}': pictures go into 'image', masks into 'mask'.", param=word
    )


def _from_object(body: dict[str, Any], limits: Limits) -> tuple[dict[str, Given], dict[str, list[Source]]]:
    if len(body) > limits.fields:
        raise InvalidBody(f"The request body has more than {limits.fields} fields.")
    params: dict[str, Given] = {}
    sources: dict[str, list[Source]] = {}
    for name, value in body.items():
        names.check(name)
        if value is None:
            continue  # as OpenAI reads it: null = not given
        word = name.removesuffix("[]")  # `image[]`, from a form's habit
        if word not in names.PICTURE_WORDS:
            params[name] = Given(name, value)
        elif value != "":
            sources.setdefault(names.PICTURE_WORDS[word], []).extend(from_json_value(word, value))
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
