"""What is sent to a provider, as people read it: pictures as placeholders, never their bytes; and what a provider says
of it, without the words that were sent.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from typing import Any, TypeVar
from urllib.parse import urlsplit

from app.catalogue.schema import field_of
from app.types import InputStep, Plan, Slot
from providers.base import Fault, ProviderError

REPEATED = 12  # characters in a row that tell that a text repeats another one
_ESCAPE = re.compile(r"\\u([0-9a-fA-F]{4})")
_UNSAID = {
    Fault.INVALID: "The provider refused the request.",
    Fault.REFUSED: "The provider refused this request for its content.",
}

T = TypeVar("T")


def shown(value: Any, inputs: Sequence[InputStep]) -> Any:
    """A payload's value, for who sent it."""
    if isinstance(value, Slot):
        step = inputs[value.index]
        return step.media.url if step.hand_on else _placeholder(value, step)
    if isinstance(value, list):
        return [shown(item, inputs) for item in value]
    return value


def kept(plan: Plan, *, texts: bool) -> list[dict[str, Any]]:
    """The calls' payloads as the log may keep them. Without `texts` no word that a caller wrote is among them: of text
    there are only values of a closed list, and what the gateway formed itself; of the rest, its length. Addresses of
    pictures may hold somebody's signature: of them there is only the host."""
    closed = _closed(plan)
    return [
        {name: _kept(value, plan.inputs, texts or name in closed) for name, value in call.payload.items()}
        for call in plan.calls
    ]


def _kept(value: Any, inputs: Sequence[InputStep], texts: bool) -> Any:
    match value:
        case Slot():
            step = inputs[value.index]
            url = step.media.url if step.hand_on else None
            return _placeholder(value, step) if url is None else f"<picture {value.index + 1}: at {_host(url)}>"
        case str():
            return value if texts else f"<text of {len(value)} characters>"
        case Mapping() if not texts:
            return f"<object of {len(value)} fields>"
        case Mapping():
            return {str(name): _kept(item, inputs, texts) for name, item in value.items()}
        case list() | tuple():
            return [_kept(item, inputs, texts) for item in value]
    return value


def _host(url: str) -> str:
    try:
        return urlsplit(url).hostname or "an address"
    except ValueError:
        return "an address"


def _placeholder(slot: Slot, step: InputStep) -> str:
    media = step.media
    changed = f", {step.why.partition(': ')[2]}" if step.why else ""
    return f"<picture {slot.index + 1}: {media.mime}, {media.width}x{media.height}, {media.size} bytes{changed}>"


def _closed(plan: Plan) -> set[str]:
    """The provider's fields whose values are no free text."""
    return {
        field_of(row) or name
        for name, row in plan.offer.params.items()
        if row.values or row.how in ("converted", "emulated") or row.type in ("integer", "number", "boolean")
    }


# ---- what a provider says of it


async def discreet(plan: Plan, work: Callable[[], Awaitable[T]]) -> T:
    """What `work` gives. A ProviderError that it raises repeats none of the words that were sent: its texts reach logs,
    the journal and clients."""
    try:
        return await work()
    except ProviderError as error:
        words = [_plain(word) for word in _words(plan)]
        if _repeats(error.message, words):
            error.message = "The provider refused the request. Its reason repeats the request's words, and is left out."
        if _repeats(error.detail, words):
            error.detail = "the provider repeats the request's words: left out"
        error.args = (error.message,)  # what a traceback shows
        raise


async def muted(work: Awaitable[T]) -> T:
    """What `work` gives. A ProviderError that it raises says which fault it is, and no more: the words that were sent,
    which its texts may repeat, are not known any more."""
    try:
        return await work
    except ProviderError as error:
        error.message, error.detail = unsaid(error.fault), ""
        error.args = (error.message,)
        raise


def unsaid(fault: Fault) -> str:
    """A fault in our own words."""
    return _UNSAID.get(fault, f"The provider's job failed: {fault}.")


def _words(plan: Plan) -> Iterator[str]:
    closed = _closed(plan)
    for call in plan.calls[:1]:  # the others differ in seeds
        for name, value in call.payload.items():
            if name not in closed:
                yield from _strings(value)


def _strings(value: Any) -> Iterator[str]:
    match value:
        case str():
            yield value
        case Mapping():
            for item in value.values():
                yield from _strings(item)
        case list() | tuple():
            for item in value:
                yield from _strings(item)


def _plain(text: str) -> str:
    """As it is compared: however it was escaped, spaced and spelled."""
    text = _ESCAPE.sub(lambda match: chr(int(match[1], 16)), text)
    return " ".join(text.replace("\\n", " ").replace("\\", "").split()).casefold()


def _repeats(text: str, words: Sequence[str]) -> bool:
    plain = _plain(text)
    pieces = {plain[start : start + REPEATED] for start in range(max(len(plain) - REPEATED + 1, 0))}
    for word in words:
        if len(word) < REPEATED:
            if len(word) > 2 and re.search(rf"(?<!\w){re.escape(word)}(?!\w)", plain):
                return True
        elif any(piece in word for piece in pieces):
            return True
    return False
