"""Picture work keeps off the loop and within memory."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
import time
from collections.abc import Coroutine
from typing import Any, TypeVar

import pytest

from app.errors import ImageTooLarge, Overloaded
from app.media.blob import MemoryBlob
from app.media.encode import encode
from app.media.finish import begin_finishing, finish
from app.media.pixels import Decode, Job, Picture, Pixels, Written, estimate
from app.media.pool import MediaPool
from app.media.prepare import begin_preparing, prepare
from app.types import Delivery, InputStep, MaskStep
from providers.base import Media
from tests.media.pictures import photo, sample, saved

T = TypeVar("T")

MEDIA = Media(MemoryBlob(b""), "image/png", 1000, 1000, "")
TURNED = Media(MemoryBlob(b""), "image/jpeg", 1000, 1000, "", orientation=6)


def weighing(name: str, pixels: int) -> Pixels[str]:
    """Work that is estimated at 16 bytes a pixel."""
    picture = Picture(b"", 0, name, kind="webp", pixels=pixels)
    return Pixels(Job((picture,), (Decode(0),)), lambda _: name)


def run(scene: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(scene, 20))


class Gate:
    """Work in threads that waits until it is let go."""

    def __init__(self) -> None:
        self.open = threading.Event()
        self.order: list[object] = []

    def __call__(self, name: object) -> object:
        self.order.append(name)
        self.open.wait(10)
        return name


class GatedWorkers:
    """Work on pixels that waits until it is let go, and counts how much runs at once."""

    def __init__(self) -> None:
        self.open = asyncio.Event()
        self.running = self.most = 0
        self.order: list[str] = []
        self.owed: list[bool] = []

    async def run(self, pixels: Pixels[T], *, owed: bool = False) -> T:
        self.running += 1
        self.most = max(self.most, self.running)
        self.order.append(pixels.job.pictures[0].name)
        self.owed.append(owed)
        try:
            await self.open.wait()
        finally:
            self.running -= 1
        return pixels.settle(Written())

    def close(self) -> None:
        """Nothing is held."""


def soon(work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
    return asyncio.ensure_future(work)


def test_results_and_errors_come_back() -> None:
    async def scene() -> None:
        pool = MediaPool()
        assert await pool.run(divmod, 7, 3) == (2, 1)
        with pytest.raises(ZeroDivisionError):
            await pool.run(divmod, 7, 0)
        assert (await pool.run(finish, MemoryBlob(sample("png")), Delivery(), 0, max_pixels=10_000)).format == "png"
        step = InputStep(Media(MemoryBlob(sample("png")), "image/png", 64, 48, ""), to_format="jpeg")
        assert (await pool.run(prepare, step)).mime == "image/jpeg"
        assert (await pool.run(begin_preparing, step)).mime == "image/jpeg"
        assert (await pool.run_owed(begin_finishing, MemoryBlob(sample("png")), Delivery(format="gif"))).format == "gif"
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
        gate = GatedWorkers()
        pool = MediaPool(8, budget=1000, workers=gate)
        work = [soon(pool.work(weighing(str(number), 25))) for number in range(6)]  # 400 each
        await asyncio.sleep(0.01)
        assert gate.running == 2
        gate.open.set()
        assert await asyncio.gather(*work) == ["0", "1", "2", "3", "4", "5"]
        assert gate.most == 2
        assert gate.order == ["0", "1", "2", "3", "4", "5"]
        pool.close()

    run(scene())


def test_beside_one_beyond_the_budget_there_is_room_for_a_small_one_that_came_later() -> None:
    async def scene() -> None:
        gate = GatedWorkers()
        pool = MediaPool(8, budget=1000, workers=gate)
        work = [
            soon(pool.work(weighing(name, pixels)))
            for name, pixels in (("large", 1000), ("larger", 2000), ("small", 10))
        ]
        await asyncio.sleep(0.01)
        assert gate.order == ["large", "small"]
        assert await pool.run(divmod, 7, 3) == (2, 1)  # what decodes nothing waits for no memory
        gate.open.set()
        await asyncio.gather(*work)
        assert gate.order == ["large", "small", "larger"]
        pool.close()

    run(scene())


def test_what_waits_for_room_is_not_passed_without_end() -> None:
    async def scene() -> None:
        gate = GatedWorkers()
        pool = MediaPool(8, budget=10_000, workers=gate)
        large, larger = (soon(pool.work(weighing(name, 1000))) for name in ("large", "larger"))
        small = [soon(pool.work(weighing(str(number), 1))) for number in range(30)]
        await asyncio.sleep(0.01)
        passed = len(gate.order) - 1
        assert 10 < passed < 30
        gate.open.set()
        await asyncio.gather(large, larger, *small)
        assert gate.order.index("larger") == passed + 1
        pool.close()

    run(scene())


def test_what_no_child_could_hold_is_refused_unless_it_was_paid_for() -> None:
    async def scene() -> None:
        gate = GatedWorkers()
        gate.open.set()
        pool = MediaPool(1, workers=gate)
        with pytest.raises(ImageTooLarge, match=r"^Image 1 takes more memory"):
            await pool.work(weighing("Image 1", 80_000_000))
        assert gate.order == []
        assert await pool.run_owed(weighing, "result", 80_000_000) == "result"
        assert gate.owed == [True]
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
        gate = GatedWorkers()
        pool = MediaPool(4, budget=1000, workers=gate)
        first, second, third = (
            soon(pool.work(weighing(*one))) for one in (("first", 60), ("second", 60), ("third", 1))
        )
        await asyncio.sleep(0.01)
        second.cancel()
        await asyncio.sleep(0.01)
        assert gate.order == ["first", "third"]
        gate.open.set()
        await asyncio.gather(first, third)
        assert second.cancelled()
        assert (pool._used, pool._inside, len(pool._waiting)) == (0, 0, 0)
        pool.close()

    run(scene())


def test_cancelled_while_running_makes_room() -> None:
    async def scene() -> None:
        gate = GatedWorkers()
        pool = MediaPool(4, budget=1000, workers=gate)
        first, second = soon(pool.work(weighing("first", 60))), soon(pool.work(weighing("second", 60)))
        await asyncio.sleep(0.01)
        first.cancel()
        await asyncio.sleep(0.01)
        assert gate.order == ["first", "second"]
        gate.open.set()
        assert await second == "second"
        assert (pool._used, pool._inside) == (0, 0)
        pool.close()

    run(scene())


def test_any_cancelling_leaves_the_books_straight() -> None:
    async def scene() -> None:
        pool = MediaPool(2, budget=1000, workers=GatedWorkers())
        for round in range(30):
            gate = pool._workers = GatedWorkers()
            work: list[asyncio.Task[Any]] = [soon(pool.run(time.sleep, 0.0005)) for _ in range(3)]
            work += [soon(pool.run(weighing, str(n), 40)) for n in range(8)]
            await asyncio.sleep(0.0002 * (round % 7))
            for task in work[round % 3 :: 2]:
                task.cancel()
            gate.open.set()
            await asyncio.gather(*work, return_exceptions=True)
        assert (pool._used, pool._inside, len(pool._waiting)) == (0, 0, 0)
        pool.close()

    run(scene())


def test_a_closed_pool_takes_no_work() -> None:
    async def scene() -> None:
        pool = MediaPool(1)
        pool.close()
        with pytest.raises(RuntimeError):
            await pool.run(int)
        with pytest.raises(Overloaded):
            await pool.work(weighing("late", 1))
        assert (pool._used, pool._inside) == (0, 0)

    run(scene())


def test_starting_does_not_load_pillow() -> None:
    code = "import sys, app.media.pool, app.media.prepare, app.media.finish; print('PIL' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout.strip() == b"False"


def weight(begun: object) -> int:
    return estimate(begun.job) if isinstance(begun, Pixels) else 0


def test_estimates() -> None:
    mega = 1_000_000
    plain = Media(MemoryBlob(sample("png")), "image/png", 1000, 1000, "")
    assert weight(begin_preparing(InputStep(plain))) == 0  # its metadata is cut, no pixel is decoded
    assert weight(begin_preparing(InputStep(TURNED))) >= 10 * mega
    png, avif = (weight(begin_preparing(InputStep(MEDIA, to_format=format))) for format in ("png", "avif"))  # type: ignore[arg-type]
    assert avif > png >= 8 * mega
    picture = MemoryBlob(saved(photo(size=(1000, 1000)), "jpeg"))
    assert weight(begin_finishing(picture, Delivery())) == 0
    assert weight(begin_finishing(picture, Delivery(format="webp"))) >= 10 * mega
    assert weight(begin_finishing(picture, Delivery(mask=MaskStep(MEDIA, MEDIA)))) >= 13 * mega
    assert weight(begin_finishing(picture, Delivery(exact=(4000, 4000)))) >= 100 * mega
