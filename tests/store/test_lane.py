"""A thread that takes all that waits, and what comes while it works."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable

import pytest

from app.store.db import StoreError
from app.store.lane import Lane

pytestmark = pytest.mark.anyio

More = Callable[[], list[int]]


class Worker:
    """Doubles numbers; begins when it may, and then takes along what has come meanwhile."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.began, self.may = threading.Event(), threading.Event()
        self.trouble: StoreError | None = None

    def __call__(self, units: list[int], more: More) -> list[int | Exception]:
        self.began.set()
        self.may.wait()
        if self.trouble is not None:
            raise self.trouble
        while late := more():
            units = units + late
        self.batches.append(units)
        return [2 * unit for unit in units]


async def begun(worker: Worker, lane: Lane[int, int]) -> list[asyncio.Task[int]]:
    """A first unit that is being worked on, and two behind it."""
    first = asyncio.create_task(lane.do(1))
    await asyncio.to_thread(worker.began.wait)
    later = [asyncio.create_task(lane.do(number)) for number in (2, 3)]
    await asyncio.sleep(0)  # they are in the queue
    return [first, *later]


def lane_of(worker: Worker) -> Lane[int, int]:
    return Lane("lane of a test", worker, lambda: None, 10)


async def test_what_comes_while_it_works_joins_the_batch() -> None:
    worker = Worker()
    lane = lane_of(worker)
    tasks = await begun(worker, lane)
    worker.may.set()
    assert await asyncio.gather(*tasks) == [2, 4, 6]
    assert worker.batches == [[1, 2, 3]]
    assert await lane.do(4) == 8
    await lane.close()


async def test_what_came_before_the_end_is_done_and_then_it_ends() -> None:
    worker = Worker()
    lane = lane_of(worker)
    tasks = await begun(worker, lane)
    end = asyncio.create_task(lane.close())
    await asyncio.sleep(0)
    worker.may.set()
    await end
    assert await asyncio.gather(*tasks) == [2, 4, 6]
    with pytest.raises(StoreError, match="closed"):
        await lane.do(4)


async def test_a_batch_that_cannot_be_done_fails_with_what_waits_behind_it() -> None:
    worker = Worker()
    lane = lane_of(worker)
    tasks = await begun(worker, lane)
    worker.trouble = StoreError("not now")
    worker.may.set()
    failures = await asyncio.gather(*tasks, return_exceptions=True)
    assert [str(failure) for failure in failures] == ["not now"] * 3
    assert len({id(failure) for failure in failures}) == 3
    worker.trouble = None
    assert await lane.do(4) == 8
    await lane.close()
