"""What one call's end is to whoever waits: a picture, or why there is none, for each that the call owed."""

from __future__ import annotations

from app.catalogue.schema import Converted, field_of
from app.dispatch import Done
from app.errors import Cancelled, InternalError
from app.faults import from_provider
from app.harvest import Harvest
from app.types import Artefact, Failure, Plan
from providers.base import ProviderError


def events_of(plan: Plan, done: Done[Harvest]) -> tuple[Artefact | Failure, ...]:
    """One call's end, picture by picture."""
    if done.finished is not None:
        return done.finished.events
    assert done.error is not None
    error = done.error
    charged: bool | None = None if isinstance(error, Cancelled | InternalError) else False
    if isinstance(error, ProviderError):
        charged = error.charged
        word = _callers_word(plan, error.field)
        error = from_provider(error, param=word, picture=_is_picture(plan, error.field))
    first, count = done.call.first, done.call.count
    return tuple(Failure(index, error, charged) for index in range(first, first + count))


def _callers_word(plan: Plan, field: str | None) -> str | None:
    """The provider's word for a field, back in the caller's own."""
    if field is None:
        return None
    for note in plan.notes:
        if note.sent_as == field and note.spelled:
            return note.spelled
    rows = plan.offer.params
    group = next((row.by for row in rows.values() if isinstance(row, Converted) and row.to == field), None)
    for note in plan.notes:  # rows that are converted together write it for each other: a size its height
        row = rows.get(note.name)
        if group and note.spelled and note.how == "converted" and isinstance(row, Converted) and row.by == group:
            return note.spelled
    return next((note.name for note in plan.notes if note.sent_as == field), field)


def _is_picture(plan: Plan, field: str | None) -> bool:
    """Whether the provider's field holds pictures."""
    return any(field_of(row) == field and row.type in ("image", "images") for row in plan.offer.params.values())
