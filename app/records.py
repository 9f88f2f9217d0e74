"""What the journal keeps of a request, as JSON text, and back.

Kept is what it takes to deliver what was bought and to answer again: never a caller's prompt, what a provider made of
it (an answer that is given once more comes without `revised_prompt`), a picture's bytes or a key. A plan comes back
without payloads, since nothing is ever submitted from the journal, and without input pictures.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import astuple, dataclass
from decimal import Decimal
from typing import Any, Literal

from pydantic_core import to_json

from app.catalogue.schema import Offer, Price
from app.errors import GatewayError, error_classes
from app.types import Artefact, Attempt, Call, Delivery, Failure, Note, Plan, Quote
from providers.base import ProviderResult, ResultImage, Ticket


@dataclass(frozen=True, slots=True)
class MaskKeys:
    """Where the store keeps the pictures that an emulated mask needs at the end."""

    original: str
    mask: str


@dataclass(frozen=True, slots=True)
class Answered:
    """How a request was answered: a whole answer can be told from it once more."""

    status: Literal["completed", "partial", "failed", "cancelled"]
    created: int  # Unix seconds
    provider_label: str
    cost: Decimal | None
    uncertain: bool
    seeds: tuple[int, ...] = ()
    seconds: float = 0.0
    artefacts: tuple[Artefact, ...] = ()  # without base64
    failures: tuple[Failure, ...] = ()
    error: GatewayError | None = None
    attempts: tuple[Attempt, ...] = ()


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of one job."""

    artefacts: tuple[Artefact, ...] = ()  # without base64
    failures: tuple[Failure, ...] = ()
    seed: int | None = None
    billable_units: Decimal | None = None
    seconds: float = 0.0
    fault: str | None = None


def dump_plan(plan: Plan, mask: MaskKeys | None = None) -> str:
    """A plan without payloads, inputs and rows."""
    price = plan.offer.price
    return dumps(
        {
            "model": plan.model,
            "provider": plan.offer.provider,
            "endpoint": plan.offer.endpoint,
            "price": None if price is None else price.model_dump(mode="json"),
            "calls": [[call.first, call.count] for call in plan.calls],
            "delivery": _shallow(plan.delivery) | {"mask": None},
            "mask": None if mask is None else _shallow(mask),
            "notes": [_shallow(note) for note in plan.notes],
            "size": plan.size,
            "besides": plan.besides,
        }
    )


def _shallow(value: Any) -> dict[str, Any]:
    """A flat dataclass as a mapping; `asdict` would copy what it holds."""
    return {name: getattr(value, name) for name in value.__dataclass_fields__}


def load_plan(text: str) -> tuple[Plan, MaskKeys | None]:
    """The plan as `dump_plan` left it."""
    kept = json.loads(text)
    price = None if kept["price"] is None else Price.model_validate(kept["price"])
    delivery = kept["delivery"]
    delivery["exact"] = _pair(delivery["exact"])
    plan = Plan(
        kept["model"],
        Offer(provider=kept["provider"], endpoint=kept["endpoint"], price=price, params={}),
        tuple(Call({}, first, count) for first, count in kept["calls"]),
        (),
        Delivery(**delivery),
        tuple(Note(**note) for note in kept["notes"]),
        _pair(kept["size"]),
        Decimal(kept.get("besides", 0)),  # plans of before 0.2 have none
    )
    return plan, None if kept["mask"] is None else MaskKeys(**kept["mask"])


def dump_quote(quote: Quote) -> str:
    """A quote."""
    return dumps(_shallow(quote))


def load_quote(text: str) -> Quote:
    """The quote as `dump_quote` left it."""
    kept = json.loads(text)
    numbers = {name: _decimal(kept[name]) for name in ("quantity", "billable", "unit_price", "total")}
    return Quote(metric=kept["metric"], currency=kept["currency"], **numbers)


def dump_ticket(ticket: Ticket) -> str:
    """A ticket; one that already holds its result keeps it only if that came by URL: bytes are not kept."""
    result = ticket.result
    if result is None or not all(image.url for image in result.images):
        return dumps({"data": dict(ticket.data), "result": None})
    images = [[image.url, image.width, image.height] for image in result.images]
    kept = {"images": images, "seed": result.seed, "billable_units": result.billable_units}
    return dumps({"data": dict(ticket.data), "result": kept})


def load_ticket(provider: str, job: str, text: str) -> Ticket:
    """The ticket as `dump_ticket` left it."""
    kept = json.loads(text)
    if kept["result"] is None:
        return Ticket(provider, job, kept["data"])
    made = kept["result"]
    images = tuple(ResultImage(url=url, width=width, height=height) for url, width, height in made["images"])
    return Ticket(provider, job, kept["data"], ProviderResult(images, made["seed"], _decimal(made["billable_units"])))


def dump_answer(answer: Answered) -> str:
    """An answer."""
    return dumps(
        {
            "status": answer.status,
            "created": answer.created,
            "provider_label": answer.provider_label,
            "cost": answer.cost,
            "uncertain": answer.uncertain,
            "seeds": answer.seeds,
            "seconds": round(answer.seconds, 3),
            "artefacts": _artefacts(answer.artefacts),
            "failures": _failures(answer.failures),
            "error": None if answer.error is None else _error(answer.error),
            "attempts": [astuple(one) for one in answer.attempts] if is_told(answer.attempts) else [],
        }
    )


def load_answer(text: str) -> Answered:
    """The answer as `dump_answer` left it."""
    kept = json.loads(text)
    return Answered(
        status=kept["status"],
        created=kept["created"],
        provider_label=kept["provider_label"],
        cost=_decimal(kept["cost"]),
        uncertain=kept["uncertain"],
        seeds=tuple(kept["seeds"]),
        seconds=kept["seconds"],
        artefacts=_load_artefacts(kept["artefacts"]),
        failures=_load_failures(kept["failures"]),
        error=None if kept["error"] is None else _load_error(kept["error"]),
        attempts=tuple(_load_attempt(*one) for one in kept.get("attempts", ())),  # none in records of older versions
    )


def is_told(attempts: Iterable[Attempt]) -> bool:
    """Whether an answer shows its attempts: where several offers had to be tried."""
    return len({(one.provider, one.endpoint) for one in attempts}) > 1


def _load_attempt(
    provider: str,
    endpoint: str,
    job: str | None,
    seconds: float,
    fault: str | None,
    charged: bool | None,
    units: str | None,
    queued: float,
) -> Attempt:
    return Attempt(provider, endpoint, job, seconds, fault, charged, _decimal(units), queued)


def dump_verdict(verdict: Verdict) -> str:
    """A verdict."""
    return dumps(
        {
            "artefacts": _artefacts(verdict.artefacts),
            "failures": _failures(verdict.failures),
            "seed": verdict.seed,
            "billable_units": verdict.billable_units,
            "seconds": round(verdict.seconds, 3),
            "fault": verdict.fault,
        }
    )


def load_verdict(text: str | None) -> Verdict:
    """The verdict as `dump_verdict` left it; an empty one if there is none yet."""
    if text is None:
        return Verdict()
    kept = json.loads(text)
    return Verdict(
        artefacts=_load_artefacts(kept["artefacts"]),
        failures=_load_failures(kept["failures"]),
        seed=kept["seed"],
        billable_units=_decimal(kept["billable_units"]),
        seconds=kept["seconds"],
        fault=kept["fault"],
    )


def _artefacts(artefacts: Iterable[Artefact]) -> list[dict[str, Any]]:
    left_out = ("blob", "revised_prompt")
    return [{name: value for name, value in _shallow(one).items() if name not in left_out} for one in artefacts]


def _load_artefacts(kept: Sequence[Mapping[str, Any]]) -> tuple[Artefact, ...]:
    return tuple(Artefact(**one) for one in kept)


def _failures(failures: Iterable[Failure]) -> list[dict[str, Any]]:
    return [{"index": one.index, "charged": one.charged, "error": _error(one.error)} for one in failures]


def _load_failures(kept: Sequence[Mapping[str, Any]]) -> tuple[Failure, ...]:
    return tuple(Failure(one["index"], _load_error(one["error"]), one["charged"]) for one in kept)


def _error(error: GatewayError) -> dict[str, Any]:
    return {
        "class": type(error).__name__,
        "code": error.code,
        "message": error.message,
        "param": error.param,
        "retry_after": error.retry_after,
        "should_retry": error.should_retry,
        "cost": error.cost,
    }


def _load_error(kept: Mapping[str, Any]) -> GatewayError:
    """An error of the class that it had. Constructors of some want more than is kept, so theirs is not used."""
    kind = error_classes().get(kept["class"], GatewayError)
    error = kind.__new__(kind)
    GatewayError.__init__(
        error,
        kept["message"],
        param=kept["param"],
        retry_after=kept["retry_after"],
        should_retry=kept["should_retry"],
    )
    error.code = kept["code"]
    error.cost = _decimal(kept["cost"])
    return error


def _decimal(text: str | None) -> Decimal | None:
    return None if text is None else Decimal(text)


def _pair(value: Sequence[int] | None) -> tuple[int, int] | None:
    return None if value is None else (value[0], value[1])


def dumps(value: Any) -> str:
    """JSON without spaces; decimals are strings. By pydantic's serializer, in a third of the time of json's."""
    try:
        return to_json(value, fallback=str).decode()
    except ValueError:  # half a character, which is no UTF-8: a provider's words may hold it
        return json.dumps(value, separators=(",", ":"), default=str)
