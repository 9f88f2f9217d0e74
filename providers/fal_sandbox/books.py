"""The books: what was submitted, completed, cancelled, fetched and billed.

Tests settle the gateway's ledger against them.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

from .queue import Job


@dataclass(slots=True)
class Totals:
    """Counters since the last reset. They keep counting when the list of jobs is cut."""

    submitted: int = 0
    completed: int = 0
    """Ended with a success."""
    failed: int = 0
    cancelled: int = 0
    collected: int = 0
    """Results fetched with a success, repetitions included."""
    billed: int = 0
    """Jobs with billable units."""
    billed_units: float = 0.0
    billed_uncollected: int = 0
    """Jobs with billable units whose result nobody has got yet: paid for nothing, if it stays so."""


@dataclass(slots=True)
class Traffic:
    uploads: int = 0
    upload_bytes: int = 0
    cdn_downloads: int = 0
    key_leaks: int = 0
    """Requests that carried a fal key to the CDN, a public media host."""


class Books:
    def __init__(self) -> None:
        self.totals = Totals()
        self.traffic = Traffic()

    def submitted(self) -> None:
        self.totals.submitted += 1

    def ended(self, job: Job) -> None:
        """Call once, when a job has its outcome."""
        if job.outcome is None:
            return
        if was_cancelled(job):
            self.totals.cancelled += 1
        elif job.outcome.reply.status < 400:
            self.totals.completed += 1
        else:
            self.totals.failed += 1
        if job.billed_units:
            self.totals.billed += 1
            self.totals.billed_units += job.billed_units
            self.totals.billed_uncollected += 1

    def collected(self, job: Job, now: float) -> None:
        """The result is on its way to a client. `now` in epoch seconds."""
        if not job.collected:
            job.first_collected_at = now
            self.totals.billed_uncollected -= job.billed_units > 0
        job.collected += 1
        self.totals.collected += 1

    def clear(self) -> None:
        self.totals = Totals()
        self.traffic = Traffic()

    def show(self, jobs: Iterable[Job]) -> dict[str, Any]:
        return {"jobs": [entry(job) for job in jobs], "totals": asdict(self.totals), **asdict(self.traffic)}


def was_cancelled(job: Job) -> bool:
    """The cancellation took effect; one that came too late or was ignored did not."""
    return job.cancelled and job.outcome is not None and job.outcome.error_type == "client_cancelled"


def entry(job: Job) -> dict[str, Any]:
    """One job as the books show it. Times are epoch seconds; `status_code` is the model's, once it has answered."""
    return {
        "request_id": job.request_id,
        "endpoint": job.endpoint.id,
        "via": job.via,
        "state": str(job.state),
        "submitted_at": job.submitted_at,
        "started": job.started_at,
        "finished": job.finished_at,
        "cancel_requested": job.cancelled,
        "cancelled": was_cancelled(job),
        "collected": job.collected,
        "first_collected": job.first_collected_at,
        "status_code": job.outcome.reply.status if job.outcome else None,
        "images": job.outcome.images if job.outcome else 0,
        "billable_units": job.billed_units,
        "billed": job.billed_units > 0,
        "payload": job.summary,
        "headers": dict(job.headers),
    }
