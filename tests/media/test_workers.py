"""Pixels are worked on in children that no picture can keep, and that nobody has to look for afterwards."""

from __future__ import annotations

import asyncio
import functools
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import pytest
import uvloop
from PIL import Image

from app.errors import GatewayError, InvalidImage, Overloaded
from app.media.blob import MemoryBlob
from app.media.finish import BadPicture, Finished, begin_finishing, finish, mask_checks
from app.media.pixels import Decode, Encode, Failed, Fit, Flatten, Job, Picture, Pixels, Written, work
from app.media.pool import MediaPool
from app.media.prepare import begin_preparing, prepare
from app.media.workers import Bounds, Workers
from app.types import Delivery, ImageFormat, InputStep, MaskStep
from providers.base import Media
from tests.media.pictures import FORMATS, photo, sample, saved

T = TypeVar("T")

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")

ROOT = Path(__file__).parents[2]


def run(scene: Coroutine[Any, Any, None]) -> None:
    uvloop.run(asyncio.wait_for(scene, 120))  # as the server runs


def seeing(data: bytes, name: str = "Image 2") -> Pixels[Written]:
    """A look at whether it decodes."""
    return Pixels(Job((Picture(data, 50_000_000, name, "image[1]"),), (Decode(0),)), lambda written: written)


UNHURRIED = Bounds(seconds=60)  # children are nice: on a busy machine they wait long for their CPU


def slow(pixels: Pixels[T] | None = None) -> Pixels[T]:
    """Work that takes its child seconds of CPU inside C. No picture that is let through does."""
    begun: Pixels[Any] = pixels or seeing(sample("png"))
    steps = (*begun.job.steps, Fit(2000, 2000), *[Encode("webp")] * 50)
    return replace(begun, job=replace(begun.job, steps=steps))


async def until(true: Callable[[], bool], seconds: float = 5.0) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it did not happen in time"
        await asyncio.sleep(0.01)


async def busy(workers: Workers) -> int:
    """The child, once it is deep in its job: starting takes it 0.1 s of CPU."""

    def spent() -> list[int]:
        found = []
        for pid in workers.pids:
            with suppress(OSError):
                found += [pid] * (int(Path(f"/proc/{pid}/schedstat").read_text().split()[0]) > 400_000_000)
        return [pid for pid in found if not is_gone(pid)]

    await until(lambda: bool(spent()), 60)
    return spent()[0]


async def fine(workers: Workers) -> None:
    """The next job is done, and soon."""
    started = time.monotonic()
    assert (await workers.run(seeing(sample("png")))).width == 64
    assert time.monotonic() - started < 5  # a tenth of it on a machine with nothing else to do


def is_gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")")[1].split()[0] == "Z"
    except OSError:
        return True


async def outcome(work: Awaitable[object]) -> object:
    try:
        return await work
    except (GatewayError, BadPicture) as error:
        return type(error), error.message, getattr(error, "param", None)


# ---- the same as here


@pytest.mark.parametrize("mode", ["L", "LA", "RGB", "RGBA", "P", "1", "I;16"])
def test_a_child_writes_what_we_would_write(mode: str) -> None:
    async def scene() -> None:
        workers = Workers(1)
        picture = Picture(saved(photo(mode), "png"), 1_000_000, "It")
        for format in FORMATS:
            for steps in ((), (Flatten(),), (Fit(50, 50),)):
                last = Encode(format, 80)  # type: ignore[arg-type]
                job = Job((picture,), (Decode(0), *steps, last))
                assert await workers.run(Pixels(job, lambda written: written)) == work(job)
        workers.close()

    run(scene())


def test_inputs_results_and_masks_end_as_they_do_here() -> None:
    def media(data: bytes, size: tuple[int, int] = (64, 48)) -> Media:
        return Media(MemoryBlob(data), "image/png", *size, "")

    png = sample("png")
    original, mask, small = (media(saved(photo(mode), "png")) for mode in ("RGB", "RGBA", "L"))
    other = media(saved(Image.new("L", (10, 10)), "png"), (10, 10))
    deliveries = [
        (png, Delivery(format="webp", exact=(30, 30))),
        (png, Delivery(mask=MaskStep(original, mask))),
        (png, Delivery(mask=MaskStep(original, small), format="jpeg")),
        (png, Delivery(mask=MaskStep(original, other))),
        (png, Delivery(mask=MaskStep(media(png[:200]), mask))),
        (png, Delivery(mask=MaskStep(original, media(png[:200]), mask_word="mask_image"))),
        (png[: len(png) // 2], Delivery(exact=(9, 9))),
        (sample("gif"), Delivery(format="avif")),
        (saved(Image.new("L", (17_000, 1)), "png"), Delivery(format="webp")),
    ]
    inputs = [
        InputStep(original, to_format="jpeg"),
        InputStep(mask, flatten=True, upright=True),
        InputStep(media(png[:200]), to_format="png", word="image[]", index=3),
        InputStep(media(sample("png", size=(90, 90))), to_format="gif"),
    ]

    def facts(result: object) -> object:
        if isinstance(result, Media):
            return result.blob.read(), result.mime, result.size, result.digest, result.alpha, result.mode
        if isinstance(result, Finished):
            return result.blob.read(), result.format, result.width, result.height
        return result

    async def scene() -> None:
        pool = MediaPool()
        for data, delivery in deliveries:
            here = facts(await outcome(asyncio.to_thread(finish, MemoryBlob(data), delivery, 1)))
            assert facts(await outcome(pool.run(begin_finishing, MemoryBlob(data), delivery, 1))) == here
        for step in inputs:
            here = facts(await outcome(asyncio.to_thread(prepare, step)))
            assert facts(await outcome(pool.run(begin_preparing, step))) == here
        for check in mask_checks(MaskStep(original, mask)):
            await pool.work(check)
        _, check = mask_checks(MaskStep(original, media(png[:200])))
        with pytest.raises(InvalidImage, match=r"^The mask is cut off") as caught:
            await pool.work(check)
        assert caught.value.param == "mask"
        pool.close()

    run(scene())


def test_what_fails_is_told_as_a_value() -> None:
    failed = work(seeing(b"GIF89a").job)
    assert isinstance(failed, Failed)
    assert (failed.kind, failed.param, failed.picture) == ("InvalidImage", "image[1]", 0)


# ---- what a picture can do


def test_a_picture_that_takes_too_much_cpu_is_ended_by_the_kernel() -> None:
    async def scene() -> None:
        workers = Workers(1, Bounds(cpu_seconds=0))  # to the next full second
        with pytest.raises(InvalidImage, match=r"^Image 2 cannot be read: working on it takes too long") as caught:
            await workers.run(slow())
        assert (caught.value.param, str(-signal.SIGXCPU) in caught.value.detail) == ("image[1]", True)
        await fine(workers)
        workers.close()

    run(scene())


def test_a_picture_that_takes_too_long_is_ended_by_us() -> None:
    async def scene() -> None:
        workers = Workers(1, Bounds(seconds=0.4))
        await fine(workers)
        (before,) = workers.pids
        started = time.monotonic()
        with pytest.raises(InvalidImage, match="takes too long"):
            await workers.run(slow())
        assert time.monotonic() - started < 5  # a tenth of it on a machine with nothing else to do
        with pytest.raises(BadPicture, match=r"^The provider's picture 1 cannot be read"):
            await workers.run(slow(begun(sample("png"), exact=(10, 10))))
        await fine(workers)
        await until(lambda: is_gone(before) and len(workers.pids) == 1)
        workers.close()

    run(scene())


def begun(data: bytes, **delivery: Any) -> Pixels[Finished]:
    result = begin_finishing(MemoryBlob(data), Delivery(**delivery))
    assert isinstance(result, Pixels)
    return result


def test_a_picture_that_takes_too_much_memory_is_refused() -> None:
    async def scene() -> None:
        workers = Workers(1, Bounds(memory=64 << 20))
        await fine(workers)
        bomb = saved(Image.new("RGB", (6000, 6000)), "png")
        with pytest.raises(InvalidImage, match=r"^Image 2 cannot be read") as caught:
            await workers.run(seeing(bomb))
        assert "MemoryError" in caught.value.detail
        step = Picture(sample("png"), 10**9, "Image 1", "image")
        with pytest.raises(GatewayError, match="takes more memory") as refused:
            await workers.run(Pixels(Job((step,), (Decode(0), Fit(9000, 9000), Encode("png"))), lambda _: None))
        assert (refused.value.code, refused.value.param) == ("image_too_large", "image")
        await fine(workers)
        workers.close()

    run(scene())


def test_bad_pictures_leave_children_alive() -> None:
    async def scene() -> None:
        workers, chance = Workers(2), random.Random(5)
        await fine(workers)
        before = list(workers.pids)
        for _ in range(50):
            data = bytearray(sample(chance.choice(FORMATS), size=(30, 20)))
            for _ in range(chance.randrange(1, 9)):
                data[chance.randrange(len(data))] = chance.randrange(256)
            with suppress(InvalidImage, GatewayError):
                await workers.run(seeing(bytes(data[: chance.randrange(20, len(data))])))
        assert workers.pids == before
        workers.close()

    run(scene())


# ---- what can happen to a child


@pytest.mark.parametrize("kills", [1, 2])
def test_a_killed_child_may_be_nobodys_fault_once(kills: int) -> None:
    async def scene() -> None:
        workers = Workers(1, UNHURRIED)
        await fine(workers)
        job = asyncio.ensure_future(workers.run(slow()))
        for _ in range(kills):
            pid = await busy(workers)
            os.kill(pid, signal.SIGKILL)
            await until(functools.partial(is_gone, pid))
        if kills == 1:
            assert (await job).width == 2000
        else:
            with pytest.raises(Overloaded):  # somebody else's doing, twice: the picture is not to blame
                await job
        await fine(workers)
        workers.close()

    run(scene())


def test_a_crash_is_the_pictures_fault_at_once() -> None:
    async def scene() -> None:
        workers = Workers(1, UNHURRIED)
        await fine(workers)
        job = asyncio.ensure_future(workers.run(slow()))
        os.kill(await busy(workers), signal.SIGSEGV)
        with pytest.raises(InvalidImage, match="broken or cut off"):
            await job
        await fine(workers)
        workers.close()

    run(scene())


def test_a_child_that_died_while_it_had_nothing_to_do_is_not_noticed() -> None:
    async def scene() -> None:
        workers = Workers(1)
        await fine(workers)
        os.kill(workers.pids[0], signal.SIGKILL)
        await fine(workers)
        workers.close()

    run(scene())


def test_signals_to_the_whole_group_are_not_for_children() -> None:
    async def scene() -> None:
        workers = Workers(1)
        await fine(workers)
        before = list(workers.pids)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            os.kill(before[0], number)
        await fine(workers)
        assert workers.pids == before
        workers.close()

    run(scene())


def test_a_cancelled_job_takes_its_child_with_it() -> None:
    async def scene() -> None:
        pool = MediaPool(1)
        jobs = [asyncio.ensure_future(pool.work(slow())) for _ in range(3)]
        await asyncio.sleep(0.3)
        for job in jobs:
            job.cancel()
        await asyncio.gather(*jobs, return_exceptions=True)
        started = time.monotonic()
        await pool.work(seeing(sample("png")))
        assert time.monotonic() - started < 5  # a tenth of it on a machine with nothing else to do
        assert (pool._used, pool._inside, len(pool._waiting)) == (0, 0, 0)
        pool.close()

    run(scene())


@pytest.mark.parametrize("command", [("/nowhere/python",), (sys.executable, "-c", "pass")])
def test_without_a_child_the_gateway_is_overloaded(command: tuple[str, ...]) -> None:
    async def scene() -> None:
        workers = Workers(1, Bounds(pauses=(0.01, 0.01)), command)
        for owed in (False, True):
            with pytest.raises(Overloaded) as caught:
                await workers.run(seeing(sample("png")), owed=owed)
            assert caught.value.retry_after
        workers.close()

    run(scene())


# ---- what a child is


def test_a_child_inherits_no_socket_and_has_its_limits() -> None:
    async def scene() -> None:
        with socket.create_server(("127.0.0.1", 0)) as server:
            server.set_inheritable(True)
            workers = Workers(1)
            await fine(workers)
            (pid,) = workers.pids
            files = {int(path.name): str(path.readlink()) for path in Path(f"/proc/{pid}/fd").iterdir()}
            assert files.pop(0).startswith("socket:")
            assert files == {1: "/dev/null", 2: "/dev/null"}
            assert not [line for line in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0") if b"KEY" in line]
            limits = Path(f"/proc/{pid}/limits").read_text()
            found = {line[:26].strip(): line[26:].split()[0] for line in limits.splitlines()}
            assert (found["Max core file size"], found["Max file size"]) == ("0", "0")
            assert int(found["Max open files"]) < 100
            assert 10 <= int(found["Max cpu time"]) <= 12
            assert 1 << 30 < int(found["Max address space"]) < (1 << 30) + (200 << 20)
            assert os.getpriority(os.PRIO_PROCESS, pid) > os.getpriority(os.PRIO_PROCESS, 0)
            assert int(Path(f"/proc/{pid}/oom_score_adj").read_text()) > 0
            workers.close()

    run(scene())


def test_a_child_loads_little() -> None:
    code = "import sys; sys.path[:] = sys.argv[1:]; import app.media.child as c; c._load(); print(*sys.modules)"
    command = [sys.executable, "-I", "-S", "-c", code, str(ROOT), *filter(None, sys.path)]
    done = subprocess.run(command, capture_output=True, check=True, text=True)
    loaded = {name.partition(".")[0] for name in done.stdout.split()}
    assert "PIL" in loaded
    assert not loaded & {"pydantic", "fastapi", "starlette", "httpx2", "asyncio", "yaml", "ssl"}


def test_a_child_holds_little_memory() -> None:
    async def scene() -> None:
        workers = Workers(1)
        await workers.run(begun(saved(photo(size=(2000, 1500)), "png"), format="webp"))
        (pid,) = workers.pids

        def private() -> int:
            lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
            return sum(int(line.split()[1]) for line in lines if line.startswith("Private_"))

        await until(lambda: private() < 40_000)  # kB; it gives back what it used as soon as it has a rest
        workers.close()

    run(scene())


# ---- how long they live


def test_children_go_when_nobody_needs_them() -> None:
    async def scene() -> None:
        workers = Workers(2, Bounds(idle_seconds=0.2, last_seconds=0.6))
        await asyncio.gather(*(workers.run(seeing(sample("png", size=(600, 600)))) for _ in range(2)))
        assert len(workers.pids) == 2
        await until(lambda: len(workers.pids) == 1)
        await until(lambda: not workers.pids)
        await fine(workers)
        workers.close()

    run(scene())


def test_children_are_replaced_after_so_many_jobs_or_so_much_memory() -> None:
    async def scene(bounds: Bounds) -> None:
        workers, seen = Workers(1, bounds), set()
        for _ in range(6):
            await fine(workers)
            seen |= set(workers.pids)
        assert len(seen) >= 3
        workers.close()

    run(scene(Bounds(jobs=2)))
    run(scene(Bounds(resident=1 << 20)))


def test_a_closed_pool_leaves_no_child() -> None:
    async def scene() -> None:
        workers = Workers(2)
        pool = MediaPool(2, workers=workers)
        await asyncio.gather(*(pool.work(seeing(sample("png"))) for _ in range(2)))
        job = asyncio.ensure_future(pool.work(slow()))
        await asyncio.sleep(0.2)
        pids = list(workers.pids)
        started = time.monotonic()
        pool.close()
        assert time.monotonic() - started < 5  # a tenth of it on a machine with nothing else to do
        assert pids
        assert not [pid for pid in pids if Path(f"/proc/{pid}").exists()]  # not even a zombie
        with pytest.raises(Overloaded):
            await job

    run(scene())


def test_no_child_outlives_a_killed_gateway() -> None:
    code = """if True:
        import asyncio, sys
        from tests.media.test_workers import seeing, slow
        from app.media.workers import Workers
        from tests.media.pictures import sample

        async def main():
            workers = Workers(2)
            await asyncio.gather(*(workers.run(seeing(sample("png"))) for _ in range(2)))
            busy = asyncio.ensure_future(workers.run(slow()))
            await asyncio.sleep(0.2)
            print(*workers.pids, flush=True)
            await busy

        asyncio.run(main())
    """
    with subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        pids = [int(pid) for pid in parent.stdout.readline().split()]
        assert len(pids) == 2
        assert not any(map(is_gone, pids))
        parent.kill()
    end = time.monotonic() + 2
    while not all(map(is_gone, pids)):
        assert time.monotonic() < end
        time.sleep(0.01)


def test_the_loop_goes_on_while_two_pictures_are_written() -> None:
    async def scene() -> None:
        pool = MediaPool(2)
        blob = MemoryBlob(saved(photo(size=(2000, 1500)), "png"))
        formats: tuple[ImageFormat, ...] = ("webp", "jpeg", "gif", "avif")
        jobs = [asyncio.ensure_future(pool.run(begin_finishing, blob, Delivery(format=one))) for one in formats]
        ticks, worst = 0, 0.0
        while not all(job.done() for job in jobs):
            started = time.perf_counter()
            await asyncio.sleep(0.001)
            worst, ticks = max(worst, time.perf_counter() - started), ticks + 1
        assert [(await job).format for job in jobs] == list(formats)
        assert ticks > 20
        assert worst < 0.25
        pool.close()

    run(scene())
