"""One HTTP request, as logs, metrics and traces tell of it.

What is known of it is entered while it is under way; at its end each observer is told once. `current` is how a log line
that is written somewhere below knows for which request: tasks inherit it from the one that made them.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from app.steps import Measure, Steps
from app.traceparent import TraceParent, read_traceparent
from app.types import Receipt

log = logging.getLogger("imagegate.visits")

GONE = 499  # what nginx calls it: the client hung up before there was an answer


@dataclass(slots=True, eq=False)
class Visit:
    """A request and its answer so far. Times are on the system's monotonic scale."""

    id: str
    trace_id: str
    method: str
    path: str
    began: float
    caller_trace: TraceParent | None = None  # as the caller sent it
    traceparent: TraceParent | None = None  # as it is passed on to providers
    route: str = ""  # the template; empty: no such URL
    status: int = 0  # 0: nothing has been answered yet
    gone: bool = False  # the client hung up before it had all of the answer
    bytes_in: int = 0  # of bodies
    bytes_out: int = 0
    seconds: float = 0.0
    key_id: str | None = None
    model: str | None = None  # a model of the catalogue; "other": there is none of that name
    error_code: str | None = None
    cost: Decimal | None = None  # what this request bought; a repeat of it buys nothing
    currency: str | None = None
    span: Any = None  # the tracer's own
    steps: Steps = field(default_factory=lambda: Steps(time.monotonic))

    def measure(self, phase: Any) -> Measure:
        """As `Steps.measure`."""
        return self.steps.measure(phase)


current: ContextVar[Visit | None] = ContextVar("visit", default=None)

Observer = Callable[[Visit], None]


class Visits:
    """Begins visits, and ends them. Observers cannot change the outcome, not even by failing."""

    def __init__(self, beginning: Iterable[Observer] = (), ending: Iterable[Observer] = ()) -> None:
        self._beginning = tuple(beginning)
        self._ending = tuple(ending)
        self.under_way = 0

    def begin(self, request_id: str, method: str, path: str, headers: Sequence[tuple[bytes, bytes]]) -> Visit:
        """A request has come. It goes on with the trace of its caller; else that has the digits of the request's id."""
        given = read_traceparent(headers)
        trace_id = given.trace_id if given else request_id.removeprefix("req_")
        visit = Visit(request_id, trace_id, method, path, time.monotonic(), given, given)
        self.under_way += 1
        _tell(self._beginning, visit)
        return visit

    def end(self, visit: Visit) -> None:
        """It has been answered, or nobody is there any more."""
        self.under_way -= 1
        visit.seconds = time.monotonic() - visit.began
        if not visit.status:
            visit.status, visit.gone = GONE, True
        _tell(self._ending, visit)


def note_cost(receipt: Receipt) -> None:
    """What a request bought stands on its own visit, and on no other: a repeat that gets the same answer paid
    nothing."""
    visit = current.get()
    if visit is not None and visit.id == receipt.request_id:
        visit.cost, visit.currency = receipt.cost, receipt.currency


def _tell(observers: Iterable[Observer], visit: Visit) -> None:
    for observer in observers:
        try:
            observer(visit)
        except Exception:
            log.exception("an observer failed on the request %s", visit.id)
