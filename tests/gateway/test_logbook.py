"""The request log never makes a request wait, and what it drops it counts and says."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path

import pytest

from app import logbook
from app.catalogue.schema import Offer
from app.logbook import Logbook
from app.payloads import discreet
from app.store.db import Database, StoreError, StoreRefusal, open_database
from app.store.jobs import RequestRow
from app.store.reports import ReportStore, Selection
from app.store.upkeep import Upkeep
from app.types import Call, Caller, Delivery, Plan, Quote, Receipt
from providers.base import Fault, ProviderError
from providers.testing.clock import RealClock

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def receipt(id: str, *, prompt: str = "sepia", entered: bool = False) -> Receipt:
    offer = Offer(provider="fake", endpoint="fake/edit", params={})
    plan = Plan("model", offer, (Call({"prompt": prompt}),), (), Delivery(), (), None)
    quote = Quote("image", None, None, None, None)
    return Receipt(
        id,
        Caller("k", "name"),
        "model",
        "fake",
        "fake/edit",
        "failed",
        Decimal(0),
        "USD",
        0,
        (),
        (),
        created=1_000_000,
        plan=plan,
        quote=quote,
        entered=entered,
    )


class Slow(Upkeep):
    """A database that takes its time, or fails at first."""

    def __init__(self, db: Database, *, failures: Sequence[StoreError] = ()) -> None:
        super().__init__(db)
        self.free = asyncio.Event()
        self.failures = list(failures)
        self.batches: list[int] = []

    async def log(
        self, entries: Sequence[tuple[str, float, str, str | None]], requests: Sequence[RequestRow] = ()
    ) -> None:
        self.batches.append(len(entries))
        await self.free.wait()
        if self.failures:
            raise self.failures.pop(0)
        await super().log(entries, requests)


@pytest.fixture
async def database(tmp_path: Path) -> Database:
    return await open_database("", tmp_path)


async def test_what_is_noted_is_written_in_batches_and_all_of_it_at_the_end(database: Database) -> None:
    upkeep = Slow(database)
    upkeep.free.set()
    book = Logbook(upkeep, RealClock(), prompts=False)
    book.start()
    for number in range(450):
        book.note(receipt(f"r{number}"))
    await book.close()
    assert (book.written, book.dropped) == (450, 0)
    assert upkeep.batches == [200, 200, 50]
    assert len(await ReportStore(database).listing(Selection("k"), None, 1000)) == 450
    await database.close()


async def test_nobody_waits_and_what_does_not_fit_is_counted_and_said(
    database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    upkeep = Slow(database)
    book = Logbook(upkeep, RealClock(), prompts=False)
    book.start()
    with caplog.at_level(logging.WARNING, "imagegate.logbook"):
        for number in range(logbook.MOST_ENTRIES + 30):
            book.note(receipt(f"r{number}"))  # no await: it cannot wait
    assert book.dropped == 30
    assert [line.split(":")[0] for line in caplog.messages] == ["1 requests are missing in the request log"]
    upkeep.free.set()
    await book.close()
    assert book.written + book.dropped == logbook.MOST_ENTRIES + 30
    await database.close()


async def test_long_texts_count_for_what_they_are(database: Database) -> None:
    book = Logbook(Slow(database), RealClock(), prompts=True)
    for number in range(logbook.MOST_BYTES // 1_000_000 + 5):
        book.note(receipt(f"r{number}", prompt="x" * 1_000_000))
    assert book.dropped >= 5
    await database.close()


async def test_a_database_that_is_away_for_a_moment_loses_nothing(database: Database) -> None:
    upkeep = Slow(database, failures=[StoreError("away")])
    upkeep.free.set()
    book = Logbook(upkeep, RealClock(), prompts=False)
    book.start()
    book.note(receipt("a"))
    while not book.written:
        await asyncio.sleep(0.02)
    assert book.dropped == 0
    await book.close()
    await database.close()


async def test_one_that_cannot_be_written_does_not_take_the_others_along(database: Database) -> None:
    upkeep = Slow(database, failures=[StoreRefusal("wrong"), StoreRefusal("wrong")])
    upkeep.free.set()
    book = Logbook(upkeep, RealClock(), prompts=False)
    book.start()
    for id in "abc":
        book.note(receipt(id))
    await book.close()
    assert (book.written, book.dropped) == (2, 1)
    await database.close()


async def test_a_database_that_stays_away_is_not_waited_for_for_ever(
    database: Database, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logbook, "CLOSE_SECONDS", 0.05)
    book = Logbook(Slow(database), RealClock(), prompts=False)
    book.start()
    book.note(receipt("a"))
    await book.close()
    assert (book.written, book.dropped) == (0, 1)
    assert "1 requests are missing" in caplog.text
    await database.close()


@pytest.mark.parametrize(
    ("said", "left_out"),
    [
        ("the prompt 'a Cat on the WINDOW sill' is not allowed", True),
        ('{"prompt": "a cat\\n on the window sill"}', True),
        ("…cat on the window s", True),
        ("{'prompt': '\\u0061 cat on the window sill'}", True),
        ("sepia is no style", True),
        ("sepia-toned", True),
        ("sepiaish", False),
        ("Input should be greater than 3", False),
        ("", False),
    ],
)
async def test_a_provider_that_repeats_what_was_sent_is_not_quoted(said: str, left_out: bool) -> None:
    offer = Offer(provider="fake", endpoint="fake/edit", params={})
    payload = {"prompt": "a cat on the window sill", "loras": [{"path": "sepia"}], "image_size": "no"}
    plan = Plan("model", offer, (Call(payload),), (), Delivery(), (), None)

    async def submit() -> None:
        raise ProviderError(Fault.INVALID, said or "m", detail=said, accepted=False)

    with pytest.raises(ProviderError) as raised:
        await discreet(plan, submit)
    assert ("left out" in raised.value.message) is left_out
    assert ("left out" in str(raised.value)) is left_out
    assert (raised.value.detail != said) is left_out
