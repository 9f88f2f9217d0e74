"""Picture work keeps off the loop and within memory."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
import time
from collections.abc import Coroutine
from typing import Any

import pytest

from app.errors import Overloaded
from app.media.blob import MemoryBlob
from app.media.encode import encode
from app.media.finish import finish
from app.media.pool import MediaPool, estimate
from app.media.prepare import prepare
from app.types import Delivery, InputStep, MaskStep
from providers.base import Media
from tests.media.pictures import photo, sample, saved

MEDIA = Media(MemoryBlob(b""), "image/png", 1000, 1000, "")
TURNED = Media(MemoryBlob(b""), "image/jpeg", 1000, 1000, "", orientation=6)


def weighing(pixels: int) -> InputStep:
    """An argument that is estimated at 16 bytes a pixel."""
    return InputStep(Media(MemoryBlob(b""), "image/png", pixels, 1, ""), to_format="png")


def run(scene: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(scene, 20))


class Gate:
    """Work that waits until it is let go, and counts how many run at once."""

    def __init__(self) -> None:
        self.open = threading.Event()
        self.lock = threading.Lock()
        self.running = self.most = 0
        self.order: list[object] = []

    def __call__(self, name: object, _: object = None) -> object:
        with self.lock:
            self.running += 1
            self.most = max(self.most, self.running)
            self.order.append(name)
        self.open.wait(10)
        with self.lock:
            self.running -= 1
        return name


def test_results_and_errors_come_back() -> None:
    async def scene() -> None:
        pool = MediaPool()
        assert await pool.run(divmod, 7, 3) == (2, 1)
        with pytest.raises(ZeroDivisionError):
            await pool.run(divmod, 7, 0)
        assert (await pool.run(finish, sample("png"), Delivery(), 0, max_pixels=10_000)).format == "png"
        step = InputStep(Media(MemoryBlob(sample("png")), "image/png", 64, 48, ""), to_format="jpeg")
        assert (await pool.run(prepare, step)).mime == "image/jpeg"
        pool.close()

    run(scene())


def test_the_loop_goes_on() -> None:
    async def scene() -> None:
        pool = MediaPool(2)
        pictures = [photo("RGB", (1200, 900)) for _ in range(2)]
        work = [asyncio.ensure_future(pool.run(encode, picture, "png")) for picture in pictures * 3]
        work += [asyncio.ensure_future(pool.run(encode, picture, "webp", 80)) for picture in pictures]
        ticks, worst = 0, 0.0
        while not all(task.done() for task in work):
            started = time.perf_counter()
            await asyncio.sleep(0.001)
            worst, ticks = max(worst, time.perf_counter() - started), ticks + 1
        await asyncio.gather(*work)
        assert ticks > 10
        assert worst < 0.25  # generous for a loaded machine; idle it is below 10 ms
        pool.close()

    run(scene())


def test_only_so_much_memory_at_once() -> None:
    async def scene() -> None:
        gate, pool = Gate(), MediaPool(8, budget=1000)
        work = [asyncio.ensure_future(pool.run(gate, number, weighing(25))) for number in range(6)]  # 400 each
        await asyncio.sleep(0.05)
        assert gate.running == 2
        gate.open.set()
        assert await asyncio.gather(*work) == list(range(6))
        assert gate.most == 2
        # The first came first; how threads that were admitted in order get to run is the machine's business.
        assert set(gate.order[:2]) == {0, 1}
        assert sorted(gate.order, key=str) == list(range(6))
        pool.close()

    run(scene())


def test_one_beyond_the_budget_runs_alone_and_is_not_overtaken() -> None:
    async def scene() -> None:
        gate, pool = Gate(), MediaPool(8, budget=1000)
        small = asyncio.ensure_future(pool.run(gate, "small", weighing(10)))
        await asyncio.sleep(0.02)
        large = asyncio.ensure_future(pool.run(gate, "large", weighing(1000)))
        await asyncio.sleep(0.02)
        late = asyncio.ensure_future(pool.run(gate, "late", weighing(10)))
        await asyncio.sleep(0.02)
        assert gate.order == ["small"]
        gate.open.set()
        await asyncio.gather(small, large, late)
        assert gate.order == ["small", "large", "late"]
        assert gate.most == 1
        pool.close()

    run(scene())


def test_too_many_waiting_is_overloaded() -> None:
    async def scene() -> None:
        gate, pool = Gate(), MediaPool(1, queue=2)
        work = [asyncio.ensure_future(pool.run(gate, number)) for number in range(3)]
        await asyncio.sleep(0.02)
        with pytest.raises(Overloaded) as caught:
            await pool.run(gate, "one more")
        assert caught.value.retry_after
        gate.open.set()
        await asyncio.gather(*work)
        assert await pool.run(gate, "room again") == "room again"
        pool.close()

    run(scene())


def test_cancelled_while_waiting_is_never_run() -> None:
    async def scene() -> None:
        gate, pool = Gate(), MediaPool(4, budget=1000)
        first = asyncio.ensure_future(pool.run(gate, "first", weighing(60)))
        await asyncio.sleep(0.02)
        second = asyncio.ensure_future(pool.run(gate, "second", weighing(60)))
        third = asyncio.ensure_future(pool.run(gate, "third", weighing(1)))
        await asyncio.sleep(0.02)
        assert gate.order == ["first"]
        second.cancel()
        await asyncio.sleep(0.02)
        assert gate.order == ["first", "third"]  # the way is free at once
        gate.open.set()
        await asyncio.gather(first, third)
        assert second.cancelled()
        assert (pool._used, pool._admitted, len(pool._waiting)) == (0, 0, 0)
        pool.close()

    run(scene())


def test_cancelled_while_running_keeps_its_memory_until_it_is_done() -> None:
    async def scene() -> None:
        gate, pool = Gate(), MediaPool(4, budget=1000)
        first = asyncio.ensure_future(pool.run(gate, "first", weighing(60)))
        await asyncio.sleep(0.02)
        first.cancel()
        second = asyncio.ensure_future(pool.run(gate, "second", weighing(60)))
        await asyncio.sleep(0.05)
        assert first.cancelled()
        assert gate.order == ["first"]
        gate.open.set()
        assert await second == "second"
        await asyncio.sleep(0.01)
        assert (pool._used, pool._admitted) == (0, 0)
        pool.close()

    run(scene())


def test_any_cancelling_leaves_the_books_straight() -> None:
    async def scene() -> None:
        pool = MediaPool(2, budget=1000)
        for round in range(30):
            work = [asyncio.ensure_future(pool.run(time.sleep, 0.0005)) for _ in range(3)]
            gate = Gate()
            gate.open.set()
            work += [asyncio.ensure_future(pool.run(gate, n, weighing(40))) for n in range(8)]  # type: ignore[arg-type]
            await asyncio.sleep(0.0002 * (round % 7))
            for task in work[round % 3 :: 2]:
                task.cancel()
            await asyncio.gather(*work, return_exceptions=True)
        await asyncio.sleep(0.05)
        assert (pool._used, pool._admitted, len(pool._waiting)) == (0, 0, 0)
        pool.close()

    run(scene())


def test_a_closed_pool_takes_no_work() -> None:
    async def scene() -> None:
        pool = MediaPool(1)
        pool.close()
        with pytest.raises(RuntimeError):
            await pool.run(int)
        assert pool._admitted == 0

    run(scene())


def test_starting_does_not_load_pillow() -> None:
    code = "import sys, app.media.pool, app.media.prepare, app.media.finish; print('PIL' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout.strip() == b"False"


def test_estimates() -> None:
    mega = 1_000_000
    assert estimate(InputStep(MEDIA)) == 0  # its metadata is cut, no pixel is decoded
    assert estimate(InputStep(TURNED)) > 15 * mega
    assert estimate(InputStep(MEDIA, to_format="avif")) > estimate(InputStep(MEDIA, to_format="png")) > 10 * mega
    picture = saved(photo(size=(1000, 1000)), "jpeg")
    assert estimate(picture, Delivery(), 0, 50 * mega) == 0
    assert estimate(picture, Delivery(format="webp"), 0) > 15 * mega
    assert estimate(picture) > 15 * mega
    assert estimate(b"no picture", Delivery(format="webp")) == 0
    assert estimate(picture, Delivery(mask=MaskStep(MEDIA, MEDIA))) > 45 * mega
    assert estimate(MemoryBlob(picture), "digest", 3, None) == 0
