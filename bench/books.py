"""What keys and books cost a request: `python -m bench.books [--requests 1000] [--url postgresql://…]`.

Each request does what the gateway does for one of a key with a budget and limits: look the key up, count it, reserve,
enter the request and its job, bind the ticket, settle with the answer, and put the log's entry in its queue, which is
written beside. CPU is this process's own, all threads, user and system; a database server's is not in it. Eight at a
time, as everywhere in bench/.

Ids, loop and allocator are those of the gateway: random ids cost more than a counter's, since each is another page.

Without `--url` a PostgreSQL server is started for it, where one is installed.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import hashlib
import itertools
import json
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, replace
from decimal import Decimal
from pathlib import Path
from uuid import UUID

import uvloop
from starlette.requests import Request

from app.api.auth import Authenticator
from app.catalogue.load import Catalogue
from app.catalogue.schema import Offer, Price
from app.ids import Ids
from app.jobs import Journal
from app.keyring import KeyRing
from app.keys import Keys
from app.limits import LocalLimiter, Rates
from app.logbook import Logbook
from app.memory import settle
from app.records import Verdict
from app.store.db import Database, open_database
from app.store.jobs import JobStore
from app.store.keys import KeyStore
from app.store.upkeep import Upkeep
from app.tally import Tally
from app.types import Artefact, Attempt, Call, Delivery, Note, Plan, Quote, Terms
from providers.base import Ticket

AT_ONCE = 8
ROUNDS = 5
COST = Decimal("0.03")
TARGETS = {"SQLite": 0.5, "PostgreSQL": 1.5}  # ms of CPU a request (issue 6, item 6)


class SystemClock:
    """The real one."""

    def monotonic(self) -> float:
        """Seconds."""
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        """Wait."""
        await asyncio.sleep(seconds)


@dataclass(slots=True)
class Books:
    """All that one request passes, save for the pictures."""

    auth: Authenticator
    rates: Rates
    journal: Journal
    logbook: Logbook
    key: str
    plan: Plan
    quote: Quote
    new_id: Callable[[], str]

    async def request(self) -> None:
        """One request's way through them."""
        id = self.new_id()
        digest = hashlib.sha256(id.encode()).hexdigest()
        scope = {
            "type": "http",
            "method": "POST",
            "path": "/openai/v1/images/edits",
            "headers": [(b"authorization", f"Bearer {self.key}".encode())],
            "client": ("127.0.0.1", 50_000),
            "state": {},
        }
        caller = await self.auth.buyer(Request(scope))
        await self.rates.take_images(caller, 1)
        plan, quote, journal = self.plan, self.quote, self.journal
        await journal.open(
            id, caller, Terms(), digest, plan, quote, seconds=300, keep_seconds=3600, reserve=quote.total
        )
        job = await journal.intend(id, plan.offer, plan.calls[0], plan.calls[0].payload, reserve=COST)
        await journal.bind(job, Ticket("fal", str(UUID(digest[:32])), {"status": "https://example.org/x" * 3}))
        url = f"http://127.0.0.1:8000/files/{digest}{digest[:56]}"
        artefact = Artefact(0, url, None, digest[:40], "png", 1024, 1024)
        move = journal.moved(job, "done", cost=COST, verdict=Verdict((artefact,), (), 7))
        attempt = Attempt("fal", plan.offer.endpoint, "job", 2.0, billable_units=Decimal(1))
        tally = Tally([artefact], attempts=[attempt], cost=COST, seeds={0: 7})
        receipt = tally.receipt(id, caller, plan, "USD", 2.1, None)
        answer = tally.answered(receipt, "fal.ai", int(time.time()), None)
        await journal.answer(id, answer, keep_seconds=3600, forget_key=False, moves=[move])
        self.logbook.note(replace(receipt, created=time.time(), plan=plan, quote=quote))


@contextlib.asynccontextmanager
async def books(database: Database) -> AsyncIterator[Books]:
    """On this database, with one key that has a budget and limits."""
    clock = SystemClock()
    store, jobs = KeyStore(database), JobStore(database)
    ring = KeyRing(store, clock, now=time.time)
    keys = Keys(store, Catalogue([]), now=time.time, changed=ring.forget)
    made = await keys.create(
        {
            "name": "bench",
            "budget_day": 1_000_000,
            "budget_month": 1_000_000,
            "budget_total": 1_000_000,
            "requests_per_minute": 1_000_000,
            "images_per_minute": 1_000_000,
            "concurrent_jobs": 100,
        }
    )
    limiter = LocalLimiter(clock)
    rates = Rates(limiter)
    journal = Journal(jobs, "bench", clock, now=time.time, new_id=Ids().job)
    logbook = Logbook(Upkeep(database), clock, prompts=False, payloads=False)
    logbook.start()
    notes = tuple(Note(f"parameter_{number}", "passthrough", f"parameter_{number}", "") for number in range(8))
    offer = Offer(provider="fal", endpoint="fal-ai/edit", price=Price(per="image", amount=COST), params={})
    call = Call({"prompt": "a snowy night over the harbour", "seed": 7, "image_size": {"width": 1024, "height": 1024}})
    try:
        yield Books(
            Authenticator("", "adm-bench", ring, rates, limiter),
            rates,
            journal,
            logbook,
            str(made.secret),
            Plan("model", offer, (call,), (), Delivery(), notes, (1024, 1024)),
            Quote("image", Decimal(1), Decimal(1), COST, COST),
            Ids().request,
        )
    finally:
        await logbook.close()


async def measure(database: Database, requests: int) -> list[float]:
    """Milliseconds of CPU a request, a figure a round."""
    found: list[float] = []
    async with books(database) as one:
        numbers = itertools.count()

        async def work(until: int) -> None:
            while next(numbers) < until:
                await one.request()

        for round in range(1, ROUNDS + 1):
            until, began = round * requests, time.process_time()
            await asyncio.gather(*(work(until) for _ in range(AT_ONCE)))
            while one.logbook.written + one.logbook.dropped < until - AT_ONCE:  # noqa: ASYNC110 - it tells nobody
                await asyncio.sleep(0.01)
            found.append((time.process_time() - began) * 1000 / requests)
            numbers = itertools.count(until)
        assert not one.logbook.dropped
    return found


async def run(url: str, requests: int, folder: Path) -> list[float]:
    """Measure the database at `url`; if that is empty, SQLite's in `folder`."""
    database = await open_database(url, folder)
    try:
        return await measure(database, requests)
    finally:
        await database.close()


def rows(requests: int, url: str | None) -> Iterator[tuple[str, list[float] | None]]:
    """Databases with their rounds, as they are done; None: it is not installed."""
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        yield "SQLite", uvloop.run(run("", requests, Path(folder)))
        if url is None:
            from tests.fakes.postgres import PostgresServer, find_programs

            programs = find_programs()
            if programs is None:
                yield "PostgreSQL", None
                return
            server = stack.enter_context(PostgresServer(programs))
            url = uvloop.run(server.new_database())
        yield "PostgreSQL", uvloop.run(run(url, requests, Path(folder)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--requests", type=int, default=1000, help="in each of five rounds")
    parser.add_argument("--url", help="a PostgreSQL database that may be filled")
    parser.add_argument("--json", action="store_true", help="rounds by database")
    options = parser.parse_args()
    settle()  # as `imagegate serve` does; and its loop is uvloop's as well
    if options.json:
        print(json.dumps(dict(rows(options.requests, options.url))))
        return
    print("| database | CPU a request | target | verdict | rounds |\n|---|---|---|---|---|")
    for name, rounds in rows(options.requests, options.url):
        if rounds is None:
            sys.exit(f"{name} is not installed: NOT MEASURED")
        middle, target = statistics.median(rounds), TARGETS[name]
        shown = ", ".join(f"{one:.2f}" for one in rounds)
        print(f"| {name} | {middle:.2f} ms | < {target} ms | {'met' if middle < target else '**not met**'} | {shown} |")


if __name__ == "__main__":
    main()
