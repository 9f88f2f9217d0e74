"""Asking again never pays again: keys, SDKs that repeat, and what is kept for them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from app.errors import Expired, GatewayError, IdempotencyMismatch, ProviderUnavailable, Refused, UpstreamAmbiguous
from app.store.reports import Selection
from app.types import Artefact, Caller, Outcome, Terms
from providers.base import Fault
from tests.fakes.provider import Turn, hang, made, refusal, when
from tests.gateway.test_gateway import Bench, bench, request

KEY = Terms("order-17")
FIRST, AGAIN = Terms(repeats=0), Terms(repeats=1)


def running(test: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(test())


def told(outcome: Outcome) -> tuple[Any, ...]:
    """What a caller sees of it."""
    receipt = outcome.receipt
    pictures = [(one.index, one.url, one.blob and one.blob.read()) for one in outcome.artefacts]
    return receipt.request_id, pictures, receipt.cost, receipt.status, outcome.created, outcome.seeds, receipt.notes


class TestKeys:
    def test_the_same_key_gets_the_same_answer(self, tmp_path: Path) -> None:
        async def test() -> None:
            async with bench(tmp_path) as b:
                first = await b.edit(KEY, id="one", n=2)
                again = await b.edit(KEY, id="two", n=2)
                assert told(again) == told(first)
                assert len(b.provider.submitted) == 2
                assert len(b.receipts) == 1, "nothing happened the second time"

        running(test)

    def test_fifty_at_once_are_one(self, tmp_path: Path) -> None:
        async def test() -> None:
            gate = asyncio.Event()
            async with bench(tmp_path, Turn(collect=when(gate, made()))) as b:
                asking = [asyncio.create_task(b.edit(KEY, id=f"req_{number}")) for number in range(50)]
                await asyncio.sleep(0.1)
                gate.set()
                outcomes = await asyncio.gather(*asking)
                assert len({str(told(outcome)) for outcome in outcomes}) == 1
                assert len(b.provider.submitted) == 1

        running(test)

    @pytest.mark.parametrize("while_running", [False, True])
    def test_another_content_is_refused(self, tmp_path: Path, while_running: bool) -> None:
        async def test() -> None:
            turn = Turn(collect=hang) if while_running else Turn()
            async with bench(tmp_path, turn) as b:
                first = asyncio.create_task(b.edit(KEY, id="one", strength=0.5))
                await (asyncio.sleep(0.1) if while_running else first)
                with pytest.raises(IdempotencyMismatch) as caught:
                    await b.edit(KEY, id="two", strength=0.6)
                assert (caught.value.status, caught.value.param) == (422, "Idempotency-Key")
                assert len(b.provider.submitted) == 1
                first.cancel()

        running(test)

    def test_each_caller_has_keys_of_their_own(self, tmp_path: Path) -> None:
        async def test() -> None:
            async with bench(tmp_path) as b:
                await b.edit(KEY, id="one")
                asked = request(terms=KEY, id="two")
                other = type(asked)(**{name: getattr(asked, name) for name in asked.__slots__} | {"caller": BOB})
                async with b.gateway.attend(b.gateway.prepare(other)) as attended:
                    await attended.run.outcome()
                    assert not attended.repeated
                assert len(b.provider.submitted) == 2

        running(test)

    def test_an_answer_that_cost_something_is_replayed_even_if_it_was_an_error(self, tmp_path: Path) -> None:
        async def test() -> None:
            async with bench(tmp_path, Turn(collect=made(flagged=True))) as b:
                messages = set()
                for id in ("one", "two"):
                    with pytest.raises(Refused) as caught:
                        await b.edit(KEY, id=id)
                    messages.add((caught.value.message, caught.value.cost, caught.value.should_retry))
                assert len(messages) == 1
                assert len(b.provider.submitted) == 1

        running(test)

    def test_a_lost_submit_is_not_sent_again_under_its_key(self, tmp_path: Path) -> None:
        async def test() -> None:
            async with bench(tmp_path, Turn(submit=refusal(Fault.UNAVAILABLE, accepted=None))) as b:
                for id in ("one", "two"):
                    with pytest.raises(UpstreamAmbiguous):
                        await b.edit(KEY, id=id)
                assert len(b.provider.submitted) == 1

        running(test)

    def test_an_error_that_invites_a_repeat_and_cost_nothing_is_tried_anew(self, tmp_path: Path) -> None:
        async def test() -> None:
            broken = refusal(Fault.UNAVAILABLE, accepted=True, charged=False)
            async with bench(tmp_path, Turn(collect=broken)) as b:
                with pytest.raises(ProviderUnavailable) as caught:
                    await b.edit(KEY, id="one")
                assert caught.value.should_retry is None
                assert await b.edit(KEY, id="two")
                assert len(b.provider.submitted) == 2

        running(test)

    def test_a_client_that_leaves_gets_its_answer_later(self, tmp_path: Path) -> None:
        async def test() -> None:
            gate = asyncio.Event()
            async with bench(tmp_path, Turn(collect=when(gate, made()))) as b:
                asking = asyncio.create_task(b.edit(KEY, id="one"))
                while not b.provider.collecting:
                    await asyncio.sleep(0.01)
                asking.cancel()
                await asyncio.gather(asking, return_exceptions=True)
                gate.set()
                assert (await b.edit(KEY, id="two")).receipt.request_id == "one"
                assert b.provider.cancelled == []
                assert len(b.provider.submitted) == 1

        running(test)

    def test_another_process_on_the_same_journal_replays_it(self, tmp_path: Path) -> None:
        async def test() -> None:
            async with bench(tmp_path) as first:
                before = told(await first.edit(KEY, id="one"))
            async with bench(tmp_path, owner="another") as second:
                assert told(await second.edit(KEY, id="two")) == before
                assert second.provider.submitted == []

        running(test)

    def test_pictures_that_are_gone_are_not_bought_again(self, tmp_path: Path) -> None:
        async def test() -> None:
            async with bench(tmp_path) as b:
                await b.edit(KEY, id="one")
                for path in (tmp_path / "files").rglob("*.png"):
                    path.unlink()
                with pytest.raises(Expired):
                    await b.edit(KEY, id="two")
                assert len(b.provider.submitted) == 1

        running(test)


class TestSdks:
    def test_a_repeat_joins_what_runs(self, tmp_path: Path) -> None:
        async def test() -> None:
            gate = asyncio.Event()
            async with bench(tmp_path, Turn(collect=when(gate, made()))) as b:
                first = asyncio.create_task(b.edit(FIRST, id="one"))
                while not b.provider.collecting:
                    await asyncio.sleep(0.01)
                first.cancel()  # its time was up
                await asyncio.gather(first, return_exceptions=True)
                again = asyncio.create_task(b.edit(AGAIN, id="two"))
                await asyncio.sleep(0.05)
                gate.set()
                assert (await again).receipt.request_id == "one"
                assert b.provider.cancelled == []
                assert len(b.provider.submitted) == 1

        running(test)

    def test_a_repeat_of_what_has_just_ended_gets_its_answer(self, tmp_path: Path) -> None:
        async def test() -> None:
            async with bench(tmp_path) as b:
                first = await b.edit(FIRST, id="one")
                assert told(await b.edit(AGAIN, id="two")) == told(first)
                assert len(b.provider.submitted) == 1

        running(test)

    def test_a_failure_that_cost_nothing_is_tried_anew(self, tmp_path: Path) -> None:
        async def test() -> None:
            broken = refusal(Fault.UNAVAILABLE, accepted=True, charged=False)
            async with bench(tmp_path, Turn(collect=broken)) as b:
                with pytest.raises(ProviderUnavailable):
                    await b.edit(FIRST, id="one")
                assert (await b.edit(AGAIN, id="two")).receipt.request_id == "two"

        running(test)

    def test_a_failure_that_may_have_cost_something_is_not(self, tmp_path: Path) -> None:
        async def test() -> None:
            async with bench(tmp_path, Turn(submit=refusal(Fault.UNAVAILABLE, accepted=None))) as b:
                for terms in (FIRST, AGAIN):
                    with pytest.raises(UpstreamAmbiguous):
                        await b.edit(terms, id=f"req_{terms.repeats}")
                assert len(b.provider.submitted) == 1

        running(test)

    def test_asking_for_the_same_twice_on_purpose_makes_two(self, tmp_path: Path) -> None:
        async def test() -> None:
            async with bench(tmp_path) as b:
                await asyncio.gather(b.edit(FIRST, id="one"), b.edit(FIRST, id="two"), b.edit(id="three"))
                await b.edit(FIRST, id="four")
                assert len(b.provider.submitted) == 4

        running(test)

    def test_an_operator_can_switch_it_off(self, tmp_path: Path) -> None:
        async def test() -> None:
            async with bench(tmp_path, repeats={"retry_seconds": 0}) as b:
                await b.edit(FIRST, id="one")
                await b.edit(AGAIN, id="two")
                assert len(b.provider.submitted) == 2

        running(test)


class TestHistory:
    def test_what_nobody_waited_for_is_kept_and_found(self, tmp_path: Path) -> None:
        async def test() -> None:
            late = iter([hang(), _made()])
            async with bench(tmp_path, Turn(collect=lambda: next(late), cancel=False)) as b:
                asking = asyncio.create_task(b.edit(id="one"))
                while not b.provider.collecting:
                    await asyncio.sleep(0.01)
                asking.cancel()
                await asyncio.gather(asking, return_exceptions=True)
                while not b.receipts:
                    await asyncio.sleep(0.01)
                record = await b.history.record(request().caller, "one")
                assert record is not None
                assert (record.status, record.cost, record.uncertain) == ("completed", Decimal("0.10"), False)
                [picture] = record.artefacts
                link = await b.history.link(record, picture, "http://here")
                assert link is not None
                assert link.startswith("http://here/files/")

        running(test)

    def test_nobody_sees_anothers(self, tmp_path: Path) -> None:
        async def test() -> None:
            async with bench(tmp_path) as b:
                await b.edit(id="one")
                assert await b.history.record(BOB, "one") is None
                assert (await b.history.page(BOB, Selection(), after=None, limit=10)).records == ()
                with pytest.raises(GatewayError):
                    await b.history.page(BOB, Selection(), after="one", limit=10)

        running(test)

    def test_it_is_read_in_pages_newest_first(self, tmp_path: Path) -> None:
        async def test() -> None:
            async with bench(tmp_path) as b:
                for id in ("a", "b", "c"):
                    await b.edit(id=id)
                caller = request().caller
                first = await b.history.page(caller, Selection(), after=None, limit=2)
                assert ([record.row.id for record in first.records], first.more) == (["c", "b"], True)
                second = await b.history.page(caller, Selection(), after="b", limit=2)
                assert ([record.row.id for record in second.records], second.more) == (["a"], False)
                found = await b.history.page(caller, Selection(job="job-2"), after=None, limit=9)
                assert [record.row.id for record in found.records] == ["b"]

        running(test)


BOB = Caller("bob", "Bob")


async def _made() -> Any:
    return made()


def test_a_request_is_recognised_by_what_it_asks_for(tmp_path: Path) -> None:
    async def test() -> None:
        async with bench(tmp_path) as b:
            same = {_print(b, id=id, terms=terms) for id, terms in (("a", Terms()), ("b", KEY))}
            assert len(same) == 1
            others = [
                _print(b, strength=0.5),
                _print(b, prompt="other"),
                _print(b, n=2),
                _print(b, model="fake/tests/painter"),
            ]
            assert len({*same, *others}) == 5

    running(test)


def _print(b: Bench, **what: Any) -> str:
    return b.gateway.prepare(request(**what)).fingerprint


def test_base64_comes_back_as_it_was(tmp_path: Path) -> None:
    async def test() -> None:
        async with bench(tmp_path) as b:
            first = await b.edit(KEY, id="one")
            [again] = (await b.edit(KEY, id="two")).artefacts
            assert isinstance(again, Artefact)
            assert (again.blob and again.blob.read()) == (first.artefacts[0].blob and first.artefacts[0].blob.read())
            assert again.url is None

    running(test)
