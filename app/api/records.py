"""One request of the log as JSON: as a line of a list, and with all that is known of it."""

from __future__ import annotations

from typing import Any

from app.api import wire
from app.api.wire import number
from app.history import History, JobRecord, Log, Record
from app.steps import PHASES


async def listed(record: Record, history: History, base_url: str) -> dict[str, Any]:
    """As a list has it."""
    error, row = record.error, record.row
    return {
        "id": row.id,
        "object": "request",
        "status": record.status,
        "created": int(row.created),
        "key": row.caller,
        "key_name": row.caller_name,
        "model": record.plan.model,
        "executed_model": f"{record.plan.offer.provider}/{record.plan.offer.endpoint}",
        "provider": record.plan.offer.provider,
        "idempotency_key": row.key,
        "cost": number(record.cost),
        "cost_currency": record.quote.currency,
        "cost_uncertain": record.uncertain,
        "reserved": number(record.reserved),
        "seconds": record.seconds,
        "pictures": len(record.artefacts),
        "data": await _pictures(record, history, base_url),
        "failed": [wire.failure(one) for one in record.failures],
        "error": None if error is None else {"code": error.code, "message": error.message, "param": error.param},
        "jobs": [
            {
                "job": job.row.job,
                "state": job.row.state,
                "provider": job.row.provider,
                "endpoint": job.row.endpoint,
                "index": job.row.first,
                "cost": number(job.cost),
                "created": int(job.row.created),
            }
            for job in record.jobs
        ],
    }


async def shown(record: Record, log: Log | None, history: History, base_url: str) -> dict[str, Any]:
    """With its attempts, plan, quote and timings."""
    plan, quote = record.plan, record.quote
    return await listed(record, history, base_url) | {
        "attempts": _attempts(record, log),
        "plan": {
            "endpoint": plan.offer.endpoint,
            "calls": None if log is None else log.payloads,
            "size": f"{plan.size[0]}x{plan.size[1]}" if plan.size else None,
            "delivery": wire.owed(plan.delivery, mask=record.mask),
            "parameters": [wire.note(one) for one in plan.notes],
        },
        "quote": {"total": number(quote.total), "currency": quote.currency, "components": [wire.quoted(quote)]},
        "timings": _timings(record, log),
    }


def _attempts(record: Record, log: Log | None) -> list[dict[str, Any]]:
    """Each upstream job: what it cost is the journal's word, how long it took the log's."""
    waiting = list(log.attempts) if log is not None else []
    attempts = []
    for job in record.jobs:
        timed = next((one for one in waiting if one[0] == job.row.job), None)
        if timed is not None:
            waiting.remove(timed)
        attempts.append(_attempt(job, timed))
    return attempts


def _attempt(job: JobRecord, timed: tuple[str | None, float, float, str | None, bool | None] | None) -> dict[str, Any]:
    _, queued, seconds, fault, _ = timed or (None, None, None, None, None)
    return {
        "job": job.row.job,
        "provider": job.row.provider,
        "endpoint": job.row.endpoint,
        "index": job.row.first,
        "state": job.row.state,
        "created": int(job.row.created),
        "queued": queued,
        "seconds": seconds,
        "fault": job.verdict.fault or (fault if job.row.state != "done" else None),
        "charged": job.charged,
        "cost": number(job.cost),
        "pictures": job.row.made,
    }


def _timings(record: Record, log: Log | None) -> dict[str, float | None]:
    """Seconds by phase, jobs side by side counting once; None where the log has none."""
    phases = {} if log is None else log.phases
    total = record.seconds if log is None else round(phases.get("receive", 0.0) + log.total, 4)
    return {phase: phases.get(phase) for phase in PHASES if phase != "answer"} | {"total": total}


async def _pictures(record: Record, history: History, base_url: str) -> list[dict[str, Any]]:
    """Those that can still be had."""
    pictures = []
    for artefact in record.artefacts:
        url = await history.link(record, artefact, base_url)
        if url is None:
            continue
        found: dict[str, Any] = {"index": artefact.index, "url": url}
        if artefact.width and artefact.height:
            found["size"] = f"{artefact.width}x{artefact.height}"
        if artefact.format:
            found["output_format"] = artefact.format
        pictures.append(found)
    return pictures
