"""What the request log costs when it is full: `python -m bench.logfill [--rows 200000] [--url postgresql://…]`.

Fills a database with requests of a month, books them, and tells how long each question takes. Needs no gateway.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import tempfile
import time
from collections.abc import Awaitable
from decimal import Decimal
from pathlib import Path
from random import Random
from typing import Any

from app.catalogue.schema import Offer, Price
from app.records import Answered, Verdict, dump_answer, dump_plan, dump_quote, dump_verdict
from app.store.db import Database, open_database
from app.store.jobs import INSERT_JOB, INSERT_REQUEST, JobRow, RequestRow, values_of
from app.store.reports import ReportStore, Selection
from app.store.upkeep import Upkeep
from app.types import Artefact, Call, Delivery, Note, Plan, Quote

DAYS, DAY = 30, 86_400
BEGIN = 20_000 * DAY
PART = 1000  # rows in a transaction
BASE = 20_000  # rows that are made one by one
MODELS = [f"model-{number}" for number in range(12)]
CALLERS = [f"key_{number:02}" for number in range(20)]
OFTEN = 7  # times that each question is asked; the median is told


def rows(count: int, random: Random) -> list[tuple[RequestRow, JobRow]]:
    """A month's requests in the order of time."""
    notes = tuple(Note(f"parameter_{number}", "passthrough", None, "", "") for number in range(10))
    offer = Offer(provider="fal", endpoint="fal-ai/edit", price=Price(per="image", amount=Decimal("0.03")), params={})
    plan = dump_plan(Plan("model", offer, (Call({}),), (), Delivery(), notes, (1024, 1024)))
    quote = dump_quote(Quote("image", Decimal(1), Decimal(1), Decimal("0.03"), Decimal("0.030000")))
    artefact = Artefact(0, f"http://127.0.0.1:8000/files/{'x' * 120}", None, "x" * 40, "png", 1024, 1024)
    done = dump_answer(Answered("completed", BEGIN, "fal.ai", Decimal("0.03"), False, (7,), 3.2, (artefact,)))
    failed = dump_answer(Answered("failed", BEGIN, "fal.ai", Decimal(0), False))
    verdict = dump_verdict(Verdict((artefact,), (), 7))
    found = []
    for number in range(count):
        created = BEGIN + number * DAYS * DAY / count
        fine = random.random() > 0.03
        cost = "0.030000" if fine else "0"
        row = RequestRow(
            id=f"req_{random.getrandbits(128):032x}",
            caller=CALLERS[0] if random.random() < 0.5 else random.choice(CALLERS),
            key=None,
            fingerprint=f"{random.getrandbits(256):064x}",
            state="settled",
            owner=None,
            lease=0,
            created=created,
            deadline=created,
            keep_until=created,
            plan=plan,
            quote=quote,
            answer=done if fine else failed,
            caller_name="somebody",
            model=random.choice(MODELS),
            provider="fal",
            currency="USD",
            wanted=1,
            day=int(created // DAY),
            status="completed" if fine else "failed",
            error=None if fine else "provider_timeout",
            pictures=int(fine),
            cost=30_000 if fine else 0,
        )
        job = JobRow(
            f"{random.getrandbits(96):024x}",
            row.id,
            0,
            1,
            "done" if fine else "failed",
            "fal",
            "fal-ai/edit",
            f"{random.getrandbits(256):064x}",
            created,
            created + 3,
            f"{random.getrandbits(128):032x}",
            json.dumps({"data": {"status_url": "x" * 80}, "result": None}),
            cost,
            verdict,
            int(fine),
        )
        found.append((row, job))
    return found


async def timed(name: str, ask: Any) -> None:
    """Say how long it takes."""
    seconds = []
    for _ in range(OFTEN):
        began = time.perf_counter()
        answer: Awaitable[Any] = ask()
        await answer
        seconds.append(time.perf_counter() - began)
    print(f"{name:52} {sorted(seconds)[OFTEN // 2] * 1000:9.1f} ms", flush=True)


async def fill(database: Database, count: int) -> None:
    """The rows: some made one by one, the others as copies of them, moved in time."""
    base = min(count, BASE)
    left = rows(base, Random(1))
    for start in range(0, base, PART):
        part = left[start : start + PART]
        await database.run(
            *((INSERT_REQUEST, values_of(row)) for row, _ in part),
            *((INSERT_JOB, values_of(job)) for _, job in part),
        )
    columns = [name for name in RequestRow.__dataclass_fields__ if name not in ("id", "created")]
    of_jobs = [name for name in JobRow.__dataclass_fields__ if name not in ("id", "request")]
    for copy in range(1, count // base):
        for since in range(DAYS):
            span = (BEGIN + since * DAY, BEGIN + (since + 1) * DAY)
            await database.run(
                (
                    f"INSERT INTO requests (id, created, {', '.join(columns)})"
                    f" SELECT id || '-{copy}', created + 0.001 * {copy}, {', '.join(columns)} FROM requests"
                    " WHERE created >= $1 AND created < $2 AND length(id) = 36",
                    span,
                ),
                (
                    f"INSERT INTO jobs (id, request, {', '.join(of_jobs)})"
                    f" SELECT id || '-{copy}', request || '-{copy}', {', '.join(of_jobs)} FROM jobs"
                    " WHERE created >= $1 AND created < $2 AND length(request) = 36",
                    span,
                ),
            )


async def measure(url: str, count: int, folder: Path) -> None:
    """Fill it, and ask."""
    database = await open_database(url, folder)
    try:
        reports, upkeep = ReportStore(database), Upkeep(database)
        began = time.perf_counter()
        await fill(database, count)
        print(f"{database.label}: {count} requests filled in {time.perf_counter() - began:.0f} s", flush=True)
        first, last = BEGIN // DAY, BEGIN // DAY + DAYS
        by = ("day", "key", "model")
        if count <= 300_000:
            await timed("usage of the month, nothing booked", lambda: reports.usage(first, last, by, Selection()))
        began = time.perf_counter()
        booked = await upkeep.book()
        print(f"{booked} requests booked in {time.perf_counter() - began:.1f} s")
        if database.label == "PostgreSQL":
            await database.run(("ANALYZE", ()))
        middle = (BEGIN + DAYS * DAY / 2, "req_8")
        day = Selection(since=BEGIN + 10 * DAY, until=BEGIN + 11 * DAY)
        questions = {
            "usage of the month by day, key, model": lambda: reports.usage(first, last, by, Selection()),
            "usage of the month by model": lambda: reports.usage(first, last, ("model",), Selection()),
            "usage of one key by day": lambda: reports.usage(first, last, ("day",), Selection(CALLERS[0])),
            "a page": lambda: reports.listing(Selection(), None, 21),
            "a page in the middle": lambda: reports.listing(Selection(), middle, 21),
            "a page of one key": lambda: reports.listing(Selection(CALLERS[0]), middle, 21),
            "a page of one model": lambda: reports.listing(Selection(model=MODELS[3]), None, 21),
            "a page of failures": lambda: reports.listing(Selection(failures=True), None, 21),
            "a page of a model that nobody asked for": lambda: reports.listing(Selection(model="none"), None, 21),
            "a page of a day": lambda: reports.listing(day, None, 21),
            "the summary of everything": lambda: reports.sums(Selection()),
            "the summary of one key": lambda: reports.sums(Selection(CALLERS[0])),
            "the summary of one day": lambda: reports.sums(day),
            "the summary of failures": lambda: reports.sums(Selection(failures=True)),
        }
        for name, ask in questions.items():
            await timed(name, ask)
    finally:
        await database.close()


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--url", default="")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(measure(given.url, given.rows, Path(folder)))


if __name__ == "__main__":
    main()
