"""Who would wait for another one's lock waits in a queue of its own."""

from __future__ import annotations

import asyncio

import pytest

from app.store.db import StoreError
from app.store.turns import Turns


def test_of_one_name_one_works_at_a_time_and_in_order() -> None:
    async def run() -> None:
        turns, said = Turns(10), []

        async def work(number: int) -> int:
            said.append(f"{number} begins")
            await asyncio.sleep(0)
            said.append(f"{number} ends")
            return number

        async def one(number: int) -> int:
            return await turns.take("anna", lambda: work(number))

        assert await asyncio.gather(*(one(number) for number in range(5))) == [0, 1, 2, 3, 4]
        assert said == [f"{number} {what}" for number in range(5) for what in ("begins", "ends")]

    asyncio.run(run())


def test_another_name_does_not_wait() -> None:
    async def run() -> None:
        turns, held = Turns(10), asyncio.Event()
        first = asyncio.create_task(turns.take("anna", held.wait))
        await asyncio.sleep(0)
        assert await turns.take("berta", lambda: asyncio.sleep(0, "done")) == "done"
        assert not first.done()
        held.set()
        await first

    asyncio.run(run())


def test_those_behind_a_failure_fail_with_it_and_later_ones_try() -> None:
    async def run() -> None:
        turns, held = Turns(10), asyncio.Event()

        async def fail() -> None:
            await held.wait()
            raise StoreError("it is away")

        async def succeed() -> str:
            return "done"

        first = asyncio.create_task(turns.take("anna", fail))
        await asyncio.sleep(0)
        behind = [asyncio.create_task(turns.take("anna", succeed)) for _ in range(3)]
        await asyncio.sleep(0)
        held.set()
        found = await asyncio.gather(first, *behind, turns.take("anna", succeed), return_exceptions=True)
        assert [str(one) for one in found[:4]] == ["it is away"] * 4
        assert await turns.take("anna", succeed) == "done"

    asyncio.run(run())


def test_who_waits_for_too_long_is_told_so_and_who_leaves_is_passed_over() -> None:
    async def run() -> None:
        turns, held = Turns(0.05), asyncio.Event()
        first = asyncio.create_task(turns.take("anna", held.wait))
        await asyncio.sleep(0)
        gone = asyncio.create_task(turns.take("anna", held.wait))
        await asyncio.sleep(0)
        gone.cancel()
        with pytest.raises(StoreError, match="too many"):
            await turns.take("anna", held.wait)
        held.set()
        assert await first
        assert await turns.take("anna", held.wait)
        assert not turns._queues

    asyncio.run(run())
