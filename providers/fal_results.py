"""What fal's queue answers about a job -> values: its status, its cancellation, its pictures.

A reader either understands an answer or raises ProviderError. `final` is set only where the answer is the model's own
word on the job; all else (a stranger's page, half a body, an unknown word) tells nothing of it, and is asked for again.
"""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal, InvalidOperation
from typing import Any

import pybase64

from providers.base import Fault, ProviderError, ProviderResult, ResultImage
from providers.fal_errors import excerpt, failure, malformed, shown
from providers.http import Answer
from providers.retries import Doubted

_WAITING = ("IN_QUEUE", "IN_PROGRESS")
_ODD_RESULT = (3, 1.0)  # looks in a row, over so many seconds
_TOO_LATE = ("ALREADY_COMPLETED", "NOT_FOUND")


def read_status(answer: Answer) -> Mapping[str, Any]:
    """HTTP 202 while queued or running, 200 when done; the word in the body decides."""
    if answer.status not in (200, 202):
        raise failure(answer, of="status")
    status = answer.json()
    if isinstance(status, dict) and status.get("status") in (*_WAITING, "COMPLETED"):
        return status
    raise malformed("The provider's status of the job cannot be read.", answer, accepted=True)


def read_cancel(answer: Answer) -> bool:
    """202 CANCELLATION_REQUESTED, 200 removed while it was queued, 400 ALREADY_COMPLETED, 404 NOT_FOUND (fal docs,
    inference/queue and inference-api/queue/cancel, Nov 2026). Too late is what the number or the word says."""
    if answer.status in (400, 404, 410):
        return False
    if answer.status not in (200, 202):
        raise failure(answer, of="status")
    if answer.headers.get("content-type", "").startswith("text/html"):
        raise malformed("The provider's answer cannot be read.", answer, accepted=True)  # no page of fal's
    reply = answer.json()
    return not isinstance(reply, dict) or not (reply.get("status") in _TOO_LATE or reply.get("success") is False)


def read_result(answer: Answer, job: str) -> ProviderResult:
    """The model's output -> pictures. Accepts `images: [...]` and `image: {...}`. A success without a picture is a
    failure."""
    if answer.status == 400 and b"still in progress" in answer.body[:1000]:
        raise _not_there(answer)
    if answer.status != 200:
        raise failure(answer, of="result")
    output = answer.json()
    if not isinstance(output, dict):
        raise malformed("The provider's result cannot be read.", answer, accepted=True)
    listed = output.get("images")
    if not isinstance(listed, list):
        listed = [output["image"]] if isinstance(output.get("image"), dict) else []
    if not listed:
        if output.get("status") in _WAITING:
            raise _not_there(answer)
        # fal bills by what was made: nothing, if the model says that there is none, and fal not otherwise.
        none = any(output[name] in (None, []) for name in ("images", "image") if name in output)
        charged = None if _units(answer.headers.get("x-fal-billable-units")) or not none else False
        keys = f"output has the keys {shown(sorted(output)[:20])}"
        raise _bad_result("The provider finished without a picture.", keys, charged=charged)
    flags = output.get("has_nsfw_concepts") or output.get("nsfw_content_detected")
    flags = flags if isinstance(flags, list) else []
    images = tuple(_image(item, index < len(flags) and bool(flags[index])) for index, item in enumerate(listed))
    seed = output.get("seed")
    units = _units(answer.headers.get("x-fal-billable-units"))
    return ProviderResult(images, seed if isinstance(seed, int) and not isinstance(seed, bool) else None, units, job)


def _image(item: Any, flagged: bool) -> ResultImage:
    url = item.get("url") if isinstance(item, dict) else None
    if not isinstance(url, str) or not url:
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


def _not_there(answer: Answer) -> ProviderError:
    """COMPLETED, says the status, and the result does not know it yet: the queue's two halves disagree for a moment."""
    return ProviderError(
        Fault.UNAVAILABLE, "The provider's result was not there.", detail=excerpt(answer), accepted=True
    )


def _bad_result(message: str, detail: str, *, charged: bool | None = None) -> ProviderError:
    """A success that is none. One such answer may be a stranger's: it is believed when it stays. `charged` None: there
    is something, paid for perhaps, that cannot be read."""
    looks, seconds = _ODD_RESULT
    return Doubted(
        Fault.MALFORMED,
        message,
        looks=looks,
        seconds=seconds,
        detail=detail,
        accepted=True,
        charged=charged,
        lost=charged is None,
    )
