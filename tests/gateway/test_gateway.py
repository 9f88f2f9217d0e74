"""The use cases: what callers get, what it costs, and that there is one receipt however it ends."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, fields
from decimal import Decimal
from pathlib import Path
from random import Random
from typing import Any

import pytest

from app.catalogue.load import Catalogue, load_common, load_model
from app.config import Limits, Results
from app.delivery import Deliverer, Upstream
from app.errors import (
    GatewayError,
    ModelNotFound,
    ProviderBadResponse,
    ProviderUnavailable,
    RateLimited,
    Refused,
    UnsupportedMode,
    UpstreamAmbiguous,
)
from app.media.blob import MemoryBlob
from app.media.download import Downloader
from app.media.netguard import Guard
from app.media.pool import MediaPool
from app.storage.local import LocalStorage
from app.types import Artefact, Caller, EditRequest, Failure, Given, Outcome, Receipt, Terms
from providers.base import Fault, Media
from providers.testing.clock import RealClock
from tests.fakes.journal import NOW, Workshop, workshop
from tests.fakes.provider import FakeProvider, Turn, after, hang, made, png, refusal

MODEL = """
id: painter
name: Painter
creator: tests
modes: [image-edit]
offers:
  - provider: fake
    endpoint: tests/painter
    price: {per: image, amount: "0.10"}
    accepts: {images: 2}
    params:
      prompt: {how: passthrough, type: string, required: true}
      image: {how: renamed, to: pictures, type: images, required: true}
      strength: {how: renamed, to: force, type: number}
      seed: {how: passthrough, type: integer}
"""


@dataclass
class Bench(Workshop):
    """A gateway around a fake provider, and every receipt that it issued."""

    provider: FakeProvider
    receipts: list[Receipt]

    async def edit(self, terms: Terms = Terms(), id: str = "req_1", **params: Any) -> Outcome:  # noqa: B008
        async with self.gateway.attend(self.gateway.prepare(request(terms=terms, id=id, **params))) as attended:
            return await attended.run.outcome()


@asynccontextmanager
async def bench(tmp_path: Path, *turns: Turn, otherwise: Turn | None = None, **settings: Any) -> AsyncIterator[Bench]:
    (tmp_path / "painter.yaml").write_text(MODEL)
    provider = settings.pop("provider", None) or FakeProvider(*turns, otherwise=otherwise)
    receipts: list[Receipt] = []
    clock = RealClock()
    pool = MediaPool()
    async with Downloader(Guard()) as downloader:
        storage = LocalStorage(tmp_path / "files", [b"s" * 32], lambda: NOW)
        results = settings.pop("results", Results())
        deliverer = Deliverer(downloader, pool, storage, Limits(), results, clock, lambda: NOW, Random(1))
        catalogue = Catalogue([load_model(tmp_path / "painter.yaml", load_common())])
        upstreams = {"fake": Upstream(provider, deliverer)}
        observers = (broken_observer, receipts.append)
        async with workshop(tmp_path, catalogue, upstreams, clock, *observers, **settings) as made_of:
            parts = {field.name: getattr(made_of, field.name) for field in fields(made_of)}
            yield Bench(**parts, provider=provider, receipts=receipts)
    pool.close()


def broken_observer(receipt: Receipt) -> None:
    raise RuntimeError("an observer must not change the outcome")


def request(
    model: str = "painter",
    mode: Any = "image-edit",
    terms: Terms = Terms(),  # noqa: B008
    id: str = "req_1",
    **params: Any,
) -> EditRequest:
    picture = Media(MemoryBlob(png((64, 64))), "image/png", 64, 64, "digest")
    given = {"prompt": "p", "image": (picture,), **params}
    return EditRequest(
        id,
        mode,
        model,
        {name: Given(name, value) for name, value in given.items() if value is not None},
        Caller("key", "name"),
        response_format="b64_json",
        base_url="http://here",
        terms=terms,
    )


def test_n_pictures_come_in_order_and_are_charged(tmp_path: Path) -> None:
    async def run() -> None:
        slow, quick = Turn(collect=after(0.1, made(seed=7))), Turn(collect=made(seed=8))
        async with bench(tmp_path, slow, quick) as b:
            outcome = await b.edit(n=2, seed=7)
            assert [artefact.index for artefact in outcome.artefacts] == [0, 1]
            assert all(artefact.blob and artefact.url is None for artefact in outcome.artefacts)
            assert [call.payload["seed"] for call in b.provider.submitted] == [7, 8]
            assert outcome.seeds == (7, 8)
            [receipt] = b.receipts
            assert (receipt.status, receipt.cost, receipt.pictures) == ("completed", Decimal("0.20"), 2)

    asyncio.run(run())


def test_some_of_n_fail_and_the_rest_is_returned_and_charged(tmp_path: Path) -> None:
    async def run() -> None:
        bad = Turn(collect=refusal(Fault.UNAVAILABLE, "broke", accepted=True))
        async with bench(tmp_path, Turn(), bad, Turn()) as b:
            outcome = await b.edit(n=3)
            assert [artefact.index for artefact in outcome.artefacts] == [0, 2]
            [receipt] = b.receipts
            assert receipt.status == "partial"
            assert receipt.cost == Decimal("0.20")
            [failure] = receipt.failures
            assert (failure.index, failure.error.code) == (1, "provider_unavailable")

    asyncio.run(run())


def test_a_lost_reply_is_an_error_that_may_have_cost_something(tmp_path: Path) -> None:
    async def run() -> None:
        async with bench(tmp_path, Turn(submit=refusal(Fault.UNAVAILABLE, accepted=None))) as b:
            with pytest.raises(UpstreamAmbiguous) as caught:
                await b.edit()
            assert caught.value.should_retry is False, "the job may exist: a repeat could pay twice"
            assert caught.value.message.endswith("It is not known whether the provider charged for it.")
            [receipt] = b.receipts
            assert (receipt.status, receipt.cost, receipt.error_code) == ("failed", 0, "upstream_ambiguous")
            assert receipt.uncertain

    asyncio.run(run())


def test_a_refused_field_is_named_in_the_callers_word(tmp_path: Path) -> None:
    async def run() -> None:
        no = refusal(Fault.INVALID, "too strong", field="force", accepted=False)
        async with bench(tmp_path, Turn(submit=no)) as b:
            with pytest.raises(GatewayError) as caught:
                await b.edit(strength=9.0)
            assert (caught.value.status, caught.value.param) == (400, "strength")

    asyncio.run(run())


def test_what_a_provider_says_without_a_full_stop_gets_one(tmp_path: Path) -> None:
    async def run() -> None:
        no = refusal(Fault.INVALID, "Input should be a valid list", accepted=True, charged=False)
        async with bench(tmp_path, Turn(collect=no)) as b:
            with pytest.raises(GatewayError) as caught:
                await b.edit()
            assert caught.value.message.startswith("Input should be a valid list")
            assert " list Nothing" not in caught.value.message

    asyncio.run(run())


def test_a_rate_limit_passes_its_hint_on(tmp_path: Path) -> None:
    async def run() -> None:
        async with bench(
            tmp_path, Turn(submit=refusal(Fault.RATE_LIMITED, accepted=False, retry_after=120.0)), request_seconds=5.0
        ) as b:
            with pytest.raises(RateLimited) as caught:
                await b.edit()
            assert caught.value.retry_after == 120.0
            assert caught.value.should_retry is None, "nothing was bought: the client may come again"

    asyncio.run(run())


def test_a_crowd_that_comes_at_one_moment_finds_no_more_room_than_the_queue_has(tmp_path: Path) -> None:
    async def run() -> None:
        limits = Limits(jobs=1, queue=3)
        async with bench(tmp_path, otherwise=Turn(collect=after(0.05, made())), limits=limits) as b:
            crowd = [b.edit(id=f"req_{number}", seed=number) for number in range(12)]
            ended = await asyncio.gather(*crowd, return_exceptions=True)
            refused = [one for one in ended if isinstance(one, RateLimited)]
            assert (len(refused), len(b.provider.submitted)) == (8, 4)
            assert all(one.retry_after and "Nothing was sent" in one.message for one in refused)
            assert sum(await asyncio.gather(*(is_open(b, f"req_{number}") for number in range(12)))) == 0

    async def is_open(b: Bench, id: str) -> bool:
        row = await b.journal.store.request(id)
        return row is not None and row.state != "settled"

    asyncio.run(run())


def test_a_blacked_out_picture_is_a_refusal_that_was_charged(tmp_path: Path) -> None:
    async def run() -> None:
        async with bench(tmp_path, Turn(collect=made(flagged=True))) as b:
            with pytest.raises(Refused, match=r"It was charged: 0\.1 USD\.") as caught:
                await b.edit()
            assert caught.value.cost == Decimal("0.10")
            assert caught.value.should_retry is False
            assert b.receipts[0].cost == Decimal("0.10")

    asyncio.run(run())


@pytest.mark.parametrize("step", ["submit", "collect"])
def test_a_refusal_that_was_billed_costs_the_jobs_price(tmp_path: Path, step: str) -> None:
    async def run() -> None:
        no = refusal(Fault.REFUSED, "Not that.", accepted=True, charged=True)
        async with bench(tmp_path, Turn(**{step: no})) as b:
            with pytest.raises(Refused, match=r"It was charged: 0\.1 USD\.") as caught:
                await b.edit(id="one")
            assert (caught.value.cost, b.receipts[0].cost) == (Decimal("0.10"), Decimal("0.10"))
            record = await b.history.record(Caller("key", "name"), "one")
            assert record is not None
            assert (record.status, record.cost, record.uncertain) == ("failed", Decimal("0.10"), False)
            [job] = await b.journal.store.jobs_of("one")
            assert (job.state, Decimal(job.cost or 0)) == ("failed", Decimal("0.10"))

    asyncio.run(run())


def test_of_several_pictures_one_refusal_that_was_billed_counts(tmp_path: Path) -> None:
    async def run() -> None:
        no = Turn(collect=refusal(Fault.REFUSED, "Not that.", accepted=True, charged=True))
        free = Turn(collect=refusal(Fault.REFUSED, "Not that.", accepted=True, charged=False))
        async with bench(tmp_path, Turn(), no, free) as b:
            outcome = await b.edit(n=3)
            assert outcome.receipt.cost == Decimal("0.20")
            assert [failure.charged for failure in outcome.receipt.failures] == [True, False]

    asyncio.run(run())


def test_a_picture_that_is_none_is_a_bad_response(tmp_path: Path) -> None:
    async def run() -> None:
        result = made()
        broken = type(result)((type(result.images[0])(data=b"<html>"),))
        async with bench(tmp_path, Turn(collect=broken)) as b:
            with pytest.raises(ProviderBadResponse):
                await b.edit()

    asyncio.run(run())


def test_fewer_pictures_than_asked_are_missed_by_number(tmp_path: Path) -> None:
    async def run() -> None:
        async with bench(tmp_path, Turn(collect=made(0))) as b:
            with pytest.raises(ProviderBadResponse, match="fewer pictures"):
                await b.edit()

    asyncio.run(run())


def test_the_providers_own_count_of_units_wins(tmp_path: Path) -> None:
    async def run() -> None:
        async with bench(tmp_path, Turn(collect=made(units="3"))) as b:
            await b.edit()
            assert b.receipts[0].cost == Decimal("0.30")

    asyncio.run(run())


def test_a_stream_yields_each_picture_as_it_is_done(tmp_path: Path) -> None:
    async def run() -> None:
        slow = Turn(collect=after(0.2, made()))
        bad = Turn(collect=after(0.1, refusal(Fault.UNAVAILABLE, accepted=True)))
        async with bench(tmp_path, slow, bad, Turn()) as b:
            async with b.gateway.attend(b.gateway.prepare(request(n=3))) as attended:
                events = [event async for event in attended.run.events()]
            kinds = [(type(event).__name__, getattr(event, "index", None)) for event in events]
            assert kinds == [("Artefact", 2), ("Failure", 1), ("Artefact", 0), ("Outcome", None)]
            assert isinstance(events[0], Artefact)
            assert isinstance(events[1], Failure)

    asyncio.run(run())


def test_who_leaves_last_cancels_what_is_under_way(tmp_path: Path) -> None:
    async def run() -> None:
        async with bench(tmp_path, Turn(), Turn(collect=hang), Turn(collect=hang)) as b:
            async with b.gateway.attend(b.gateway.prepare(request(n=3))) as attended:
                first = await anext(attended.run.events())
                assert isinstance(first, Artefact)
                while len(b.provider.collecting) < 3:
                    await asyncio.sleep(0.01)
            await attended.run.over()
            assert sorted(b.provider.cancelled) == ["job-2", "job-3"]
            [receipt] = b.receipts
            assert (receipt.status, receipt.pictures, receipt.cost) == ("partial", 1, Decimal("0.10"))
            assert receipt.uncertain, "two jobs were cancelled, and may be billed"
            assert sorted(attempt.job or "" for attempt in receipt.attempts) == ["job-1", "job-2", "job-3"]
            assert [job.state for job in await b.jobs()] == ["done", "cancelling", "cancelling"]

    asyncio.run(run())


def test_a_request_that_nobody_waits_for_is_cancelled_and_leaves_one_receipt(tmp_path: Path) -> None:
    async def run() -> None:
        async with bench(tmp_path, Turn(collect=hang)) as b:
            task = asyncio.create_task(b.edit())
            while not b.provider.collecting:
                await asyncio.sleep(0.01)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            while not b.receipts:
                await asyncio.sleep(0.01)
            assert b.provider.cancelled == ["job-1"]
            assert [receipt.status for receipt in b.receipts] == ["cancelled"]

    asyncio.run(run())


def test_what_cannot_be_compiled_is_refused_before_anything_is_spent(tmp_path: Path) -> None:
    async def run() -> None:
        async with bench(tmp_path) as b:
            with pytest.raises(ModelNotFound, match="Did you mean 'painter'"):
                b.gateway.prepare(request(model="pianter"))
            with pytest.raises(UnsupportedMode, match="does not support text-to-image"):
                b.gateway.prepare(request(mode="text-to-image"))
            assert b.provider.submitted == []
            assert b.receipts == []

    asyncio.run(run())


def test_a_quote_is_the_price_of_all_pictures(tmp_path: Path) -> None:
    async def run() -> None:
        async with bench(tmp_path) as b:
            quote = b.gateway.prepare(request(n=4)).quote
            assert (quote.quantity, quote.total) == (4, Decimal("0.40"))

    asyncio.run(run())


def test_a_provider_that_failed_for_sure_charged_nothing(tmp_path: Path) -> None:
    async def run() -> None:
        no = refusal(Fault.UNAVAILABLE, "broke.", accepted=True, charged=False)
        async with bench(tmp_path, Turn(collect=no)) as b:
            with pytest.raises(ProviderUnavailable, match=r"broke\. Nothing was charged\.") as caught:
                await b.edit()
            assert caught.value.cost == 0
            assert not b.receipts[0].uncertain

    asyncio.run(run())


def test_no_error_invites_a_repeat_when_another_job_may_have_been_bought(tmp_path: Path) -> None:
    async def run() -> None:
        limited = Turn(submit=refusal(Fault.RATE_LIMITED, accepted=False, retry_after=120.0))
        lost = Turn(collect=refusal(Fault.TIMEOUT, accepted=True))
        async with bench(tmp_path, limited, lost, request_seconds=5.0) as b:
            with pytest.raises(GatewayError) as caught:
                await b.edit(n=2)
            assert (caught.value.code, caught.value.should_retry) == ("provider_timeout", False)

    asyncio.run(run())


def test_a_defect_in_one_delivery_leaves_the_other_pictures(tmp_path: Path) -> None:
    async def run() -> None:
        good, odd = made(), made(url="http://[broken")
        async with bench(tmp_path, Turn(collect=odd), Turn(collect=good)) as b:
            outcome = await b.edit(n=2)
            assert [artefact.index for artefact in outcome.artefacts] == [1]
            assert outcome.receipt.cost == Decimal("0.20")

    asyncio.run(run())


def test_a_broken_mask_is_refused_before_anything_is_bought(tmp_path: Path) -> None:
    async def run() -> None:
        whole = png((64, 64))
        place = whole.index(b"IDAT") + 8
        broken = Media(MemoryBlob(whole[:place] + bytes(12) + whole[place + 12 :]), "image/png", 64, 64, "broken")
        async with bench(tmp_path) as b:
            with pytest.raises(GatewayError) as caught:
                await b.edit(mask=(broken,))
            assert (caught.value.status, caught.value.param) == (400, "mask")
            assert b.provider.submitted == []

    asyncio.run(run())


@pytest.mark.parametrize(("format", "size"), [("webp", (20_000, 10)), ("avif", (6200, 6200))])
def test_a_format_that_cannot_hold_the_picture_is_refused_before_anything_is_bought(
    tmp_path: Path, format: str, size: tuple[int, int]
) -> None:
    async def run() -> None:
        picture = Media(MemoryBlob(b""), "image/png", *size, "digest")
        async with bench(tmp_path) as b:
            with pytest.raises(GatewayError) as caught:
                await b.edit(image=(picture,), mask=(picture,), output_format=format)
            assert (caught.value.status, caught.value.code, caught.value.param) == (
                400,
                "invalid_value",
                "output_format",
            )
            assert b.provider.submitted == []

    asyncio.run(run())
