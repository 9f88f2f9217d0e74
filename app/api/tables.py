"""Tables as CSV (RFC 4180), streamed. Columns keep their order: new ones only ever come last.

Spreadsheets take a cell that begins like a formula for one, and some words in a cell are a caller's: such a cell gets
an apostrophe before it (OWASP, "CSV Injection").
"""

from __future__ import annotations

import csv
import io
from collections.abc import AsyncGenerator, Iterable, Sequence
from datetime import UTC, datetime
from decimal import Decimal

from starlette.responses import StreamingResponse

from app.api.filters import day_name
from app.history import Record
from app.store.reports import By, Usage

Cell = str | int | Decimal | None

_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")

REQUESTS = (
    "id",
    "created",
    "key",
    "key_name",
    "model",
    "provider",
    "endpoint",
    "status",
    "error",
    "images",
    "failed",
    "cost",
    "currency",
    "cost_unknown",
    "seconds",
    "idempotency_key",
)
JOBS = (
    "request",
    "created",
    "key",
    "key_name",
    "model",
    "provider",
    "endpoint",
    "job",
    "state",
    "index",
    "images",
    "cost",
    "currency",
    "charged",
)
USAGE = ("requests", "failed", "images", "cost", "currency", "cost_unknown")


async def table(
    name: str, columns: Sequence[str], chunks: AsyncGenerator[Iterable[Sequence[Cell]], None]
) -> StreamingResponse:
    """A table that is sent as it is read. Raises GatewayError if not even its beginning can be."""
    begun: list[Iterable[Sequence[Cell]]] = []
    async for rows in chunks:  # not `anext` with a default: Python 3.11's raises SystemError where there is no row
        begun.append(rows)
        break

    async def texts() -> AsyncGenerator[bytes, None]:
        yield lines([columns])
        for rows in begun:
            yield lines(rows)
        async for rows in chunks:
            yield lines(rows)

    return StreamingResponse(
        texts(),
        media_type="text/csv; charset=utf-8; header=present",
        headers={"content-disposition": f'attachment; filename="{name}.csv"', "cache-control": "no-store"},
    )


def lines(rows: Iterable[Sequence[Cell]]) -> bytes:
    """Rows as CSV."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\r\n").writerows([[_cell(cell) for cell in row] for row in rows])
    return text.getvalue().encode("utf-8", "replace")


def _cell(cell: Cell) -> str:
    match cell:
        case None:
            return ""
        case Decimal():
            return decimal(cell)
        case str() if cell.startswith(_FORMULA):
            return f"'{cell}"
    return str(cell)


def decimal(value: Decimal) -> str:
    """All its digits, no exponent."""
    return f"{value.normalize():f}"


def moment(seconds: float) -> str:
    """Unix seconds as ISO 8601 in UTC, to the millisecond."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def request_row(record: Record) -> Sequence[Cell]:
    """A line of REQUESTS."""
    row = record.row
    return (
        row.id,
        moment(row.created),
        row.caller,
        row.caller_name,
        row.model,
        row.provider,
        record.plan.offer.endpoint,
        record.status,
        None if record.error is None else record.error.code,
        len(record.artefacts),
        len(record.failures),
        record.cost,
        record.quote.currency,
        record.unknown,
        None if record.seconds is None else f"{record.seconds:.3f}",
        row.key,
    )


def job_rows(record: Record) -> Iterable[Sequence[Cell]]:
    """A record's lines of JOBS."""
    row = record.row
    for job in record.jobs:
        yield (
            row.id,
            moment(job.row.created),
            row.caller,
            row.caller_name,
            row.model,
            job.row.provider,
            job.row.endpoint,
            job.row.job,
            job.row.state,
            job.row.first,
            job.row.made,
            job.cost,
            record.quote.currency,
            None if job.charged is None else str(job.charged).lower(),
        )


def usage_columns(by: Sequence[By]) -> Sequence[str]:
    """The header of a usage table."""
    ways: list[str] = []
    for one in by:
        ways += ["key", "key_name"] if one == "key" else [one]
    return (*ways, *USAGE)


def usage_row(line: Usage, by: Sequence[By]) -> Sequence[Cell]:
    """A line of it."""
    ways: list[Cell] = []
    for one in by:
        match one:
            case "day":
                ways.append(None if line.day is None else day_name(line.day))
            case "key":
                ways += [line.caller, line.caller_name]
            case "model":
                ways.append(line.model)
            case "provider":
                ways.append(line.provider)
    return (*ways, line.requests, line.failed, line.pictures, line.cost, line.currency, line.unknown)
