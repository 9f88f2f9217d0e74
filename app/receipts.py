"""One receipt per request, told to each observer. An observer cannot change the outcome, not even by failing."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable

from app.steps import timings
from app.types import Receipt

log = logging.getLogger("imagegate.receipts")

Observer = Callable[[Receipt], None]


class Receipts:
    """Hands each receipt to the observers, in order."""

    def __init__(self, observers: Iterable[Observer]) -> None:
        self._observers = tuple(observers)

    def issue(self, receipt: Receipt) -> None:
        """Tell everybody. Never raises."""
        for observer in self._observers:
            try:
                observer(receipt)
            except Exception:
                log.exception("an observer failed on the receipt of %s", receipt.request_id)


def write_log(receipt: Receipt) -> None:
    """One line: no prompt, no picture, no key."""
    about = {
        "receipt": receipt.request_id,
        "key": receipt.caller.key_id,
        "model": receipt.model,
        "provider": receipt.provider,
        "endpoint": receipt.endpoint,
        "status": receipt.status,
        "error": receipt.error_code,
        "pictures": receipt.pictures,
        "failed": len(receipt.failures),
        "cost": None if receipt.cost is None else str(receipt.cost),
        "currency": receipt.currency,
        "uncertain": receipt.uncertain,
        "jobs": [attempt.job for attempt in receipt.attempts],
        "seconds": round(receipt.seconds, 3),
        "phases": {phase: round(seconds, 3) for phase, seconds in timings(receipt.steps).items()},
    }
    log.info("receipt", extra={"about": about})
