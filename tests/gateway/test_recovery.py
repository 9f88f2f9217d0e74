"""What a dead process left is collected by the next one, what is not known is found out; nothing is bought for it."""

from __future__ import annotations

import asyncio
import io
from collections.abc import Awaitable, Callable, Coroutine
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from app.errors import GatewayError, Overloaded, ProviderTimeout, UpstreamAmbiguous
from app.history import Record
from app.media.blob import MemoryBlob
from app.records import Verdict, dump_verdict
from app.recovery import FOLLOW_SECONDS, SURELY_LISTED_SECONDS
from app.store.db import StoreError
from app.types import Artefact, Failure, Terms
from providers.base import Fault, Media, ProviderError, Ticket, payload_mark
from providers.testing.clock import FakeClock
from tests.fakes.provider import FakeProvider, Turn, hang, made, png, refusal, when
from tests.gateway.test_gateway import Bench, bench, request

KEY = Terms("order-17")
CALLER = request().caller


def running(test: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(test())


async def cut_off(folder: Path, provider: FakeProvider, *, terms: Terms = Terms(), **params: Any) -> None:  # noqa: B008
    """A process that stops while it waits for all jobs of a request."""
    count = params.get("n", 1)
    async with bench(folder, provider=provider, owner="first") as b:
        asking = asyncio.create_task(b.edit(terms, id="one", **params))
        while len(provider.collecting) < count:
            await asyncio.sleep(0.01)
        b.gateway.stopping()
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)


async def until(b: Bench, so: Callable[[Record], bool], id: str = "one") -> Record:
    """The request's record, once it is so."""
    for _ in range(500):
        record = await b.history.record(CALLER, id)
        if record is not None and so(record):
            return record
        await asyncio.sleep(0.01)
    raise AssertionError(f"it did not come about: {record}")


def ended(record: Record) -> bool:
    return record.status != "running"


def states(record: Record) -> list[str]:
    return [job.row.state for job in record.jobs]


class TestCutOff:
    def test_a_job_that_runs_on_is_collected_charged_once_and_kept(self, tmp_path: Path) -> None:
        async def test() -> None:
            gate = asyncio.Event()
            provider = FakeProvider(Turn(collect=when(gate, made())))
            await cut_off(tmp_path, provider)
            assert provider.cancelled == []
            async with bench(tmp_path, provider=provider, owner="second") as b:
                b.gateway.start()
                gate.set()
                record = await until(b, ended)
                assert (record.status, record.cost, record.uncertain) == ("completed", Decimal("0.10"), False)
                assert states(record) == ["done"]
                assert [receipt.request_id for receipt in b.receipts] == ["one"]
                assert len(provider.submitted) == 1
                row = await b.journal.store.request("one")
                assert row is not None
                assert (row.state, row.owner) == ("settled", None)
                [picture] = record.artefacts
                assert picture.key is not None

        running(test)

    def test_who_comes_back_with_the_key_gets_it(self, tmp_path: Path) -> None:
        async def test() -> None:
            gate = asyncio.Event()
            provider = FakeProvider(Turn(collect=when(gate, made())))
            await cut_off(tmp_path, provider, terms=KEY)
            async with bench(tmp_path, provider=provider, owner="second") as b:
                b.gateway.start()
                again = asyncio.create_task(b.edit(KEY, id="two"))
                await asyncio.sleep(0.05)
                gate.set()
                outcome = await again
                assert outcome.receipt.request_id == "one"
                assert outcome.artefacts[0].blob is not None
                assert len(provider.submitted) == 1

        running(test)

    def test_of_several_jobs_each_has_its_own_end(self, tmp_path: Path) -> None:
        async def test() -> None:
            gate = asyncio.Event()
            failed = refusal(Fault.UNAVAILABLE, accepted=True, charged=False)
            provider = FakeProvider(
                Turn(collect=when(gate, made())), Turn(collect=when(gate, failed)), Turn(collect=when(gate, made()))
            )
            await cut_off(tmp_path, provider, n=3)
            async with bench(tmp_path, provider=provider, owner="second") as b:
                b.gateway.start()
                gate.set()
                record = await until(b, ended)
                assert (record.status, record.cost) == ("partial", Decimal("0.20"))
                assert states(record) == ["done", "failed", "done"]
                assert [picture.index for picture in record.artefacts] == [0, 2]
                assert [failure.index for failure in record.failures] == [1]

        running(test)

    def test_a_mask_is_applied_all_the_same_and_its_pictures_are_deleted(self, tmp_path: Path) -> None:
        async def test() -> None:
            gate = asyncio.Event()
            provider = FakeProvider(Turn(collect=when(gate, made(size=(64, 64)))))
            mask = Image.new("L", (64, 64), 0)
            mask.paste(255, (0, 0, 32, 64))
            buffer = io.BytesIO()
            mask.save(buffer, "PNG")
            media = Media(MemoryBlob(buffer.getvalue()), "image/png", 64, 64, "mask", mode="L")
            original = Media(MemoryBlob(png((64, 64), "red")), "image/png", 64, 64, "red")
            await cut_off(tmp_path, provider, terms=KEY, image=(original,), mask=(media,))
            assert len(list((tmp_path / "files").rglob("*.png"))) == 2, "what the end needs is kept"
            async with bench(tmp_path, provider=provider, owner="second") as b:
                b.gateway.start()
                gate.set()
                await until(b, ended)
                asked = {"image": (original,), "mask": (media,)}
                [picture] = (await b.edit(KEY, id="two", **asked)).artefacts
                assert picture.blob is not None
                shown = Image.open(io.BytesIO(picture.blob.read())).convert("RGB")
                assert shown.getpixel((60, 10)) == (255, 0, 0), "the original shows where the mask says so"
                assert shown.getpixel((10, 10)) != (255, 0, 0)
                assert len(list((tmp_path / "files").rglob("*.png"))) == 1

        running(test)

    def test_an_intent_without_a_ticket_is_never_sent_again(self, tmp_path: Path) -> None:
        async def test() -> None:
            provider = FakeProvider()
            async with bench(tmp_path, provider=provider, owner="first") as b:
                prepared = b.gateway.prepare(request(terms=KEY, id="one", n=2))
                await b.journal.open(
                    "one", CALLER, KEY, prepared.fingerprint, prepared.plan, prepared.quote, seconds=60, keep_seconds=60
                )
                call = prepared.plan.calls[0]
                await b.journal.intend("one", prepared.plan.offer, call, {"prompt": "p"})
            async with bench(tmp_path, provider=provider, owner="second") as b:
                b.gateway.start()
                record = await until(b, ended)
                assert (record.status, states(record), record.uncertain) == ("failed", ["ambiguous"], True)
                assert record.reserved == Decimal("0.10"), "one of two may have been bought"
                with pytest.raises(UpstreamAmbiguous):
                    await b.edit(KEY, id="two", n=2)
                assert provider.submitted == []

        running(test)

    def test_a_request_that_had_not_begun_to_buy_is_closed(self, tmp_path: Path) -> None:
        async def test() -> None:
            async with bench(tmp_path, owner="first") as b:
                prepared = b.gateway.prepare(request(terms=KEY, id="one"))
                await b.journal.open(
                    "one", CALLER, KEY, prepared.fingerprint, prepared.plan, prepared.quote, seconds=60, keep_seconds=60
                )
            async with bench(tmp_path, owner="second") as b:
                b.gateway.start()
                record = await until(b, ended)
                assert (record.status, record.cost, record.uncertain) == ("failed", 0, False)
                assert await b.edit(KEY, id="two"), "nothing was bought: the key is free again"

        running(test)


class TestFollowing:
    """Jobs whose end nobody waited for."""

    @pytest.mark.parametrize(
        ("end", "state", "cost"),
        [
            (refusal(Fault.UNAVAILABLE, accepted=True, charged=False, cancelled=True), "cancelled", Decimal(0)),
            (made(), "done", Decimal("0.10")),
            (refusal(Fault.MALFORMED, accepted=True, lost=True), "cancelled", Decimal(0)),
        ],
        ids=["stopped", "not heard", "forgotten"],
    )
    def test_a_cancellation_is_settled_by_what_the_provider_says(
        self, tmp_path: Path, end: Any, state: str, cost: Decimal
    ) -> None:
        async def test() -> None:
            ends = iter([hang(), _played(end)])
            async with bench(tmp_path, Turn(collect=lambda: next(ends))) as b:
                asking = asyncio.create_task(b.edit(id="one"))
                while not b.provider.collecting:
                    await asyncio.sleep(0.01)
                asking.cancel()
                record = await until(b, lambda record: states(record) == [state])
                assert record.cost == cost
                assert len(record.artefacts) == (state == "done")
                assert b.provider.cancelled == ["job-1"]

        running(test)

    def test_a_result_that_was_lost_comes_home_later(self, tmp_path: Path) -> None:
        async def test() -> None:
            lost = refusal(Fault.MALFORMED, "gone", accepted=True, lost=True)
            ends = iter([_played(lost), _played(lost), _played(made())])
            async with bench(tmp_path, Turn(collect=lambda: next(ends))) as b:
                b.recovery._clock = FakeClock()  # it does not wait long between looks
                with pytest.raises(Exception, match="It is not known whether the provider charged"):
                    await b.edit(id="one")
                record = await until(b, lambda record: states(record) == ["done"])
                assert (record.status, record.cost, record.error) == ("completed", Decimal("0.10"), None)

        running(test)


class TestFailed:
    """What failed before the process died, or after, is told as it was, and costs what it cost."""

    SECRET = "a harbour that nobody may hear of"

    @pytest.mark.parametrize(("charged", "cost"), [(True, "0.10"), (False, "0"), (None, "0")])
    def test_a_job_that_fails_while_it_is_taken_up(
        self, tmp_path: Path, charged: bool | None, cost: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        async def test() -> None:
            gate = asyncio.Event()
            no = refusal(Fault.REFUSED, f"Not '{self.SECRET}'.", detail=self.SECRET, accepted=True, charged=charged)
            provider = FakeProvider(Turn(collect=when(gate, no)))
            await cut_off(tmp_path, provider, prompt=self.SECRET)
            async with bench(tmp_path, provider=provider, owner="second") as b:
                b.gateway.start()
                gate.set()
                record = await until(b, ended)
                assert (record.status, record.cost, record.uncertain) == ("failed", Decimal(cost), charged is None)
                assert record.error is not None
                assert (record.error.code, self.SECRET in record.error.message) == ("content_policy_violation", False)
                [receipt] = b.receipts
                assert receipt.cost == Decimal(cost)

        with caplog.at_level("DEBUG"):
            running(test)
        assert self.SECRET not in caplog.text

    @pytest.mark.parametrize(("charged", "code"), [(True, "provider_bad_response"), (False, "provider_unavailable")])
    def test_a_job_that_had_failed_before(self, tmp_path: Path, charged: bool, code: str) -> None:
        async def test() -> None:
            gate, no = asyncio.Event(), refusal(Fault.MALFORMED, accepted=True, charged=charged, final=True)
            if not charged:
                no = refusal(Fault.UNAVAILABLE, accepted=True, charged=False, final=True)
            provider = FakeProvider(Turn(collect=no), Turn(collect=when(gate, made())))
            async with bench(tmp_path, provider=provider, owner="first") as b:
                asking = asyncio.create_task(b.edit(id="one", n=2))
                while "failed" not in [job.state for job in await b.journal.store.jobs_of("one")]:
                    await asyncio.sleep(0.01)
                b.gateway.stopping()
                asking.cancel()
                await asyncio.gather(asking, return_exceptions=True)
            async with bench(tmp_path, provider=provider, owner="second") as b:
                b.gateway.start()
                gate.set()
                record = await until(b, ended)
                assert (record.status, record.cost) == ("partial", Decimal("0.20") if charged else Decimal("0.10"))
                [failure] = record.failures
                assert (failure.error.code, failure.charged) == (code, charged)

        running(test)


class TestAccidents:
    """What goes wrong while a request is taken up costs nobody their pictures."""

    def test_a_journal_that_cannot_be_read_for_a_moment(self, tmp_path: Path) -> None:
        async def test() -> None:
            gate = asyncio.Event()
            provider = FakeProvider(Turn(collect=when(gate, made())))
            await cut_off(tmp_path, provider)
            async with bench(tmp_path, provider=provider, owner="second") as b:
                jobs_of, failures = b.journal.store.jobs_of, [StoreError("scripted")]

                async def flaky(request: str) -> Any:
                    if failures:
                        raise failures.pop()
                    return await jobs_of(request)

                b.journal.store.jobs_of = flaky  # type: ignore[method-assign]
                gate.set()
                b.gateway.start()
                while failures:
                    await asyncio.sleep(0.01)
                record = await until(b, ended)
                assert states(record) == ["done"]

        running(test)

    def test_a_page_that_cannot_be_read_holds_up_no_other(self, tmp_path: Path) -> None:
        async def test() -> None:
            gate = asyncio.Event()
            provider = FakeProvider(otherwise=Turn(collect=when(gate, made())))
            async with bench(tmp_path, provider=provider, owner="first") as b:
                asking = [asyncio.create_task(b.edit(id=id)) for id in ("one", "two")]
                while len(provider.collecting) < 2:
                    await asyncio.sleep(0.01)
                b.gateway.stopping()
                for one in asking:
                    one.cancel()
                await asyncio.gather(*asking, return_exceptions=True)
            async with bench(tmp_path, provider=provider, owner="second") as b:
                await b.journal.store._db.run(("UPDATE requests SET plan = '{}' WHERE id = 'one'", ()))
                gate.set()
                b.gateway.start()
                assert (await until(b, ended, "two")).status == "completed"

        running(test)

    def test_an_adoption_whose_answer_was_lost(self, tmp_path: Path) -> None:
        async def test() -> None:
            gate = asyncio.Event()
            provider = FakeProvider(Turn(collect=when(gate, made())))
            await cut_off(tmp_path, provider)
            async with bench(tmp_path, provider=provider, owner="second") as b:
                await b.journal.adopt()  # nobody hears of it
                gate.set()
                b.gateway.start()
                record = await until(b, ended)
                assert (record.status, states(record)) == ("completed", ["done"])

        running(test)

    def test_a_defect_while_a_job_is_followed(self, tmp_path: Path) -> None:
        async def test() -> None:
            ends = iter([_played(KeyError("defect")), _played(KeyError("defect")), _played(made())])
            async with bench(tmp_path, Turn(collect=lambda: next(ends))) as b:
                b.recovery._clock = FakeClock()
                with pytest.raises(GatewayError):
                    await b.edit(id="one")
                record = await until(b, lambda record: states(record) == ["done"])
                assert record.cost == Decimal("0.10")

        running(test)

    def test_a_deadline_in_the_middle_of_a_submit(self, tmp_path: Path) -> None:
        async def test() -> None:
            gate = asyncio.Event()
            provider = FakeProvider(Turn(submit=when(gate, None), collect=hang))
            async with bench(tmp_path, provider=provider, request_seconds=0.2) as b:
                with pytest.raises(ProviderTimeout):
                    await b.edit(id="one")
                row = await b.journal.store.request("one")
                assert row is not None
                assert (row.state, row.owner) == ("settling", "me"), "a submit is under way"
                gate.set()
                record = await until(b, lambda record: states(record) == ["cancelling"])
                assert record.uncertain

        running(test)

    def test_of_a_job_that_brought_a_part_the_rest_is_asked_for(self, tmp_path: Path) -> None:
        async def test() -> None:
            gate = asyncio.Event()
            provider = FakeProvider(Turn(collect=when(gate, made())))
            await cut_off(tmp_path, provider)
            part = Verdict((Artefact(0, "u", None, None, "png", 8, 8),), (Failure(1, Overloaded("full")),))
            async with bench(tmp_path, provider=provider, owner="second") as b:
                change = "UPDATE jobs SET state = 'lost', cost = '0.10', verdict = $1"
                await b.journal.store._db.run((change, (dump_verdict(part),)))
                gate.set()
                b.gateway.start()
                assert states(await until(b, lambda record: states(record) == ["done"])) == ["done"]

        running(test)

    def test_after_a_day_a_fate_is_left_open_for_somebody_to_see(self, tmp_path: Path) -> None:
        async def test() -> None:
            lost = refusal(Fault.MALFORMED, "gone", accepted=True, lost=True)
            async with bench(tmp_path, Turn(collect=lost)) as b:
                with pytest.raises(GatewayError):
                    await b.edit(id="one")
                b.wall.now += FOLLOW_SECONDS
                b.recovery._clock = FakeClock()
                row = await b.journal.store.request("one")
                assert row is not None
                b.recovery.resettle(row)
                record = await until(b, lambda record: states(record) == ["unresolved"])
                assert (record.uncertain, record.reserved) == (True, 0)

        running(test)


class Lister(FakeProvider):
    """A provider that lists its jobs."""

    listed: Callable[[], Awaitable[Ticket | None]]
    asked: list[tuple[str, str, float, float, frozenset[str]]]

    async def find(self, endpoint: str, mark: str, since: float, until: float, known: frozenset[str]) -> Ticket | None:
        self.asked = [(endpoint, mark, since, until, known)]
        return await self.listed()


class TestLostSubmits:
    async def _lost(self, tmp_path: Path, listed: Any, then: Callable[[Bench, Lister], Awaitable[None]]) -> None:
        provider = Lister(Turn(submit=refusal(Fault.UNAVAILABLE, accepted=None)))
        provider.listed = lambda: _played(listed)
        async with bench(tmp_path, provider=provider) as b:
            b.recovery._clock = FakeClock()
            with pytest.raises(UpstreamAmbiguous):
                await b.edit(id="one")
            await then(b, provider)

    def test_a_job_that_is_listed_is_collected(self, tmp_path: Path) -> None:
        async def then(b: Bench, provider: Lister) -> None:
            record = await until(b, lambda record: states(record) == ["done"])
            assert (record.cost, len(record.artefacts)) == (Decimal("0.10"), 1)
            [(endpoint, mark, _, _, known)] = provider.asked
            [call] = provider.submitted
            assert (endpoint, mark, known) == ("tests/painter", payload_mark(call.payload), frozenset())

        provider_ticket = Ticket("fake", "job-found")

        async def test() -> None:
            await self._lost(tmp_path, provider_ticket, then)

        running(test)

    def test_of_two_lost_submits_of_the_same_one_finds_a_job(self, tmp_path: Path) -> None:
        async def test() -> None:
            provider = Lister(otherwise=Turn(submit=refusal(Fault.UNAVAILABLE, accepted=None)))

            async def listed() -> Ticket | None:
                *_, known = provider.asked[-1]
                return None if "job-found" in known else Ticket("fake", "job-found")

            provider.listed = listed
            provider._otherwise = Turn(submit=provider._otherwise.submit)
            async with bench(tmp_path, provider=provider) as b:
                b.recovery._clock = FakeClock()
                with pytest.raises(UpstreamAmbiguous):
                    await b.edit(id="one", n=2)
                record = await until(b, lambda record: "done" in states(record))
                assert (sorted(states(record)), record.cost) == (["ambiguous", "done"], Decimal("0.10"))

        running(test)

    def test_while_it_cannot_be_known_it_stays_open(self, tmp_path: Path) -> None:
        async def then(b: Bench, provider: Lister) -> None:
            await asyncio.sleep(0.1)
            record = await until(b, lambda record: states(record) == ["ambiguous"])
            assert record.uncertain

        running(lambda: self._lost(tmp_path, ProviderError(Fault.UNAVAILABLE, "no listing"), then))

    def test_not_listed_yet_says_nothing_not_listed_for_long_says_that_it_never_arrived(self, tmp_path: Path) -> None:
        async def then(b: Bench, provider: Lister) -> None:
            await asyncio.sleep(0.1)
            assert states(await until(b, ended)) == ["ambiguous"]
            b.wall.now += SURELY_LISTED_SECONDS + 1
            record = await until(b, lambda record: states(record) == ["failed"])
            assert (record.cost, record.uncertain) == (0, False)

        running(lambda: self._lost(tmp_path, None, then))


async def _played(outcome: Any) -> Any:
    if isinstance(outcome, BaseException):
        raise outcome
    return outcome
