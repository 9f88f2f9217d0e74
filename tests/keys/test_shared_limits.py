"""Limits that gateways share on a real Redis: they count as one gateway's own do; what happens when it goes."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager

import pytest

from app import shared_limits
from app.admission import Admission
from app.board import ANSWER_SECONDS, Board
from app.limits import Limiter, LocalLimiter
from app.main import SystemClock
from app.shared_limits import RedisLimiter
from app.shared_places import LEASE_SECONDS, RedisPlaces
from tests.fakes.redis import PASSWORD, RedisServer, redis_servers

pytestmark = pytest.mark.anyio

MINUTE = 60.0
Join = Callable[[], Awaitable["Member"]]


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="module")
def server() -> Iterator[RedisServer]:
    yield from redis_servers()


@pytest.fixture
def redis(server: RedisServer) -> Iterator[RedisServer]:
    """Empty, whatever was done to it before."""
    server.flush()
    yield server
    server.revive()


class Member:
    """What one gateway has of it."""

    def __init__(self, url: str) -> None:
        clock = SystemClock()
        self.board = Board(url, clock)
        self.places = RedisPlaces(self.board, clock)
        self.limiter = RedisLimiter(self.board, LocalLimiter(clock))
        self.admission = Admission(clock, jobs=0, jobs_per_key=0, queue=0, places=self.places)

    async def close(self) -> None:
        await self.places.close()
        await self.board.close()


@pytest.fixture
async def join(redis: RedisServer) -> AsyncIterator[Join]:
    """await join() -> another gateway on the server."""
    async with AsyncExitStack() as stack:

        async def member() -> Member:
            one = Member(redis.url)
            await one.board.start()
            one.places.start()
            stack.push_async_callback(one.close)
            return one

        yield member


@asynccontextmanager
async def soon(seconds: float = 5.0) -> AsyncIterator[None]:
    async with asyncio.timeout(seconds):
        yield


async def until(look: Callable[[], Awaitable[bool]], seconds: float = 10.0) -> None:
    async with soon(seconds):
        while not await look():
            await asyncio.sleep(0.02)


# ---- one contract for both


@pytest.fixture(params=["local", "redis"])
async def pair(request: pytest.FixtureRequest, join: Join) -> AsyncIterator[tuple[Limiter, Limiter]]:
    """Two who count together: the same one twice, or two gateways."""
    if request.param == "local":
        own = LocalLimiter(SystemClock())
        yield own, own
        return
    yield (await join()).limiter, (await join()).limiter


class TestContract:
    async def test_what_one_takes_the_other_finds_taken(self, pair: tuple[Limiter, Limiter]) -> None:
        one, other = pair
        assert not (await one.take("a", 2, 5)).wait
        level = await other.take("a", 2, 5)
        assert (level.limit, level.left, level.wait) == (5, 1, 0.0)
        assert MINUTE - 1 < level.reset <= MINUTE + 0.25
        level = await one.take("a", 2, 5)
        assert level.left == 1
        assert MINUTE - 1 < level.wait <= MINUTE + 0.25

    async def test_names_are_counted_apart(self, pair: tuple[Limiter, Limiter]) -> None:
        one, other = pair
        await one.take("a", 5, 5)
        assert (await other.take("b", 0, 5)).left == 5

    async def test_what_is_refused_takes_nothing(self, pair: tuple[Limiter, Limiter]) -> None:
        one, other = pair
        assert (await one.take("a", 5, 4)).wait == math.inf
        assert (await other.take("a", 4, 4)).left == 0
        assert (await one.take("a", 1, 4)).wait
        assert (await other.take("a", 0, 4)).left == 0

    async def test_looking_takes_nothing(self, pair: tuple[Limiter, Limiter]) -> None:
        for limiter in pair:
            level = await limiter.take("a", 0, 3)
            assert (level.limit, level.left, level.reset, level.wait) == (3, 3, 0.0, 0.0)

    async def test_a_limit_that_changes_counts_at_once(self, pair: tuple[Limiter, Limiter]) -> None:
        one, other = pair
        await one.take("a", 3, 3)
        assert (await other.take("a", 1, 3)).wait
        assert not (await one.take("a", 1, 5)).wait
        assert (await other.take("a", 0, 2)).left == 0

    async def test_at_the_same_time_no_more_are_served_than_the_limit(self, pair: tuple[Limiter, Limiter]) -> None:
        levels = await asyncio.gather(*(pair[number % 2].take("a", 1, 100) for number in range(600)))
        assert sum(not level.wait for level in levels) == 100


async def test_who_waits_as_long_as_told_is_served(
    join: Join, redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In windows of a second, by the server's clock."""
    monkeypatch.setattr(shared_limits, "WINDOW_SECONDS", 1.0)
    one = await join()
    one.board._since -= 2  # long enough ago: what it took itself does not count beside it
    limiter = one.limiter
    assert not (await limiter.take("a", 1, 2)).wait
    await asyncio.sleep(0.4)
    assert not (await limiter.take("a", 1, 2)).wait
    level = await limiter.take("a", 1, 2)
    assert 0 < level.wait <= 0.9
    await asyncio.sleep(level.wait + 0.01)
    assert not (await limiter.take("a", 1, 2)).wait
    assert (await limiter.take("a", 1, 2)).wait
    assert redis.ask("PTTL", "imagegate:rate:a").lstrip(":-").isdigit()
    assert redis.ask("PTTL", "imagegate:rate:a") != ":-1"


async def test_a_servers_clock_that_was_set_back_locks_nobody_out(join: Join, redis: RedisServer) -> None:
    limiter = (await join()).limiter
    in_an_hour = int((time.time() + 3600) * 4)
    redis.ask("HSET", "imagegate:rate:a", str(in_an_hour), "3")
    level = await limiter.take("a", 1, 3)
    assert 0 < level.wait <= MINUTE + 0.25


# ---- when it goes


async def timed(limiter: Limiter, name: str, amount: int, limit: int) -> tuple[bool, float]:
    began = time.monotonic()
    level = await limiter.take(name, amount, limit)
    return not level.wait, time.monotonic() - began


@pytest.mark.parametrize("how", ["kill", "pause"])
async def test_while_it_cannot_be_used_each_goes_on_by_itself_from_what_it_took(
    how: str, join: Join, redis: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    one, other = await join(), await join()
    assert not (await one.limiter.take("a", 3, 5)).wait
    getattr(redis, how)()
    answers = [await timed(one.limiter, "a", 1, 5) for _ in range(4)]
    assert [served for served, _ in answers] == [True, True, False, False]
    assert max(seconds for _, seconds in answers[1:]) < ANSWER_SECONDS / 2  # only the first one can have waited
    assert [(await timed(other.limiter, "a", 1, 5))[0] for _ in range(6)] == [True] * 5 + [False]

    async def known() -> bool:
        return bool(one.board.trouble and other.board.trouble)

    await until(known)
    told = [record.getMessage() for record in caplog.records if "cannot be used" in record.getMessage()]
    assert len(told) == 2  # once each
    assert not any(PASSWORD in record.getMessage() for record in caplog.records)
    redis.revive()

    async def back() -> bool:
        return one.board.trouble is None and other.board.trouble is None

    await until(back, 5)
    assert (await one.limiter.take("a", 1, 5)).wait  # it took five by itself
    assert not (await one.limiter.take("b", 2, 3)).wait
    assert (await other.limiter.take("b", 2, 3)).wait  # shared again


async def test_many_at_once_wait_no_longer_than_one_when_it_hangs(join: Join, redis: RedisServer) -> None:
    one = await join()
    redis.pause()
    began = time.monotonic()
    levels = await asyncio.gather(*(one.limiter.take("a", 1, 50) for _ in range(400)))
    assert sum(not level.wait for level in levels) == 50
    assert time.monotonic() - began < 2  # of 400 * 0.045 = 18


async def test_a_server_that_was_emptied_gives_no_key_its_limit_again(join: Join, redis: RedisServer) -> None:
    one = await join()
    assert not (await one.limiter.take("a", 5, 5)).wait
    redis.flush()
    served = [not (await one.limiter.take("a", 1, 5)).wait for _ in range(5)]
    assert served == [False] * 5


async def test_one_that_refuses_to_write_is_not_believed(join: Join, redis: RedisServer) -> None:
    """As a primary does that has become a replica, or is full."""
    one = await join()
    redis.ask("CONFIG", "SET", "maxmemory", "1")
    try:
        assert [not (await one.limiter.take("a", 1, 2)).wait for _ in range(3)] == [True, True, False]

        async def known() -> bool:
            return one.board.trouble is not None

        await until(known)
    finally:
        redis.ask("CONFIG", "SET", "maxmemory", "0")


async def test_it_may_be_down_at_the_start(redis: RedisServer) -> None:
    redis.kill()
    one = Member(redis.url)
    await one.board.start()
    try:
        assert one.board.trouble
        assert [not (await one.limiter.take("a", 1, 2)).wait for _ in range(3)] == [True, True, False]
        redis.start()

        async def back() -> bool:
            return one.board.trouble is None

        await until(back)
    finally:
        await one.close()


# ---- jobs at once


async def hold(member: Member, key: str, most: int, running: list[int], let: asyncio.Event) -> None:
    async with member.admission.slot("fal", key, most=most):
        running[0] += 1
        running[1] = max(running)
        await let.wait()
        running[0] -= 1


async def test_gateways_run_no_more_jobs_of_a_key_than_it_may_have(join: Join) -> None:
    members = [await join(), await join()]
    running, ended = [0, 0], 0

    async def job(number: int) -> None:
        nonlocal ended
        async with members[number % 2].admission.slot("fal", "key", most=3):
            running[0] += 1
            running[1] = max(running)
            await asyncio.sleep(0.01)
            running[0] -= 1
        ended += 1

    async with soon(30):
        await asyncio.gather(*(job(number) for number in range(40)))
    assert (ended, running[1]) == (40, 3)
    assert [member.admission.callers("fal") for member in members] == [0, 0]


async def test_who_finds_no_place_holds_up_nobody_else(join: Join) -> None:
    one, other = await join(), await join()
    let = asyncio.Event()
    full = [0, 0]
    first = asyncio.create_task(hold(one, "key", 1, full, let))
    while not full[0]:
        await asyncio.sleep(0.01)
    second = asyncio.create_task(hold(other, "key", 1, full, let))
    while not other.admission.waiting("fal"):
        await asyncio.sleep(0.01)
    free = [0, 0]
    done = asyncio.Event()
    done.set()
    async with soon():
        await hold(other, "another key", 1, free, done)
    assert other.admission.running("fal") == 0
    second.cancel()
    await asyncio.gather(second, return_exceptions=True)
    assert (other.admission.waiting("fal"), other.admission.callers("fal")) == (0, 0)
    let.set()
    await first
    async with soon(LEASE_SECONDS / 2):  # nobody's place was left behind
        await hold(other, "key", 1, free, done)


async def test_the_places_of_one_that_dies_are_free_after_its_lease(join: Join) -> None:
    dead, alive = await join(), await join()
    let, running = asyncio.Event(), [0, 0]
    task = asyncio.create_task(hold(dead, "key", 1, running, let))
    while not running[0]:
        await asyncio.sleep(0.01)
    assert dead.places._renewing is not None
    dead.places._renewing.cancel()  # as far as the server can see, it is dead
    began = time.monotonic()
    done = asyncio.Event()
    done.set()
    async with soon(LEASE_SECONDS + 5):
        await hold(alive, "key", 1, [0, 0], done)
    assert time.monotonic() - began > LEASE_SECONDS / 2
    let.set()
    await task


async def test_a_place_lasts_as_long_as_its_job_and_is_entered_again_after_a_flush(
    join: Join, redis: RedisServer
) -> None:
    one, other = await join(), await join()
    let, running = asyncio.Event(), [0, 0]
    first = asyncio.create_task(hold(one, "key", 1, running, let))
    while not running[0]:
        await asyncio.sleep(0.01)
    redis.flush()

    async def entered() -> bool:
        return redis.ask("ZCARD", "imagegate:places:fal:key") == ":1"

    await until(entered, LEASE_SECONDS)
    second = asyncio.create_task(hold(other, "key", 1, running, let))
    await asyncio.sleep(LEASE_SECONDS + 1)  # longer than a lease that nobody renews
    assert running == [1, 1]
    let.set()
    await asyncio.gather(first, second)
    assert running[1] == 1


async def test_without_it_each_gateway_keeps_its_own_limit(join: Join, redis: RedisServer) -> None:
    one = await join()
    redis.pause()
    running, ended = [0, 0], 0

    async def job() -> None:
        nonlocal ended
        async with one.admission.slot("fal", "key", most=2):
            running[0] += 1
            running[1] = max(running)
            await asyncio.sleep(0.01)
            running[0] -= 1
        ended += 1

    async with soon(10):
        await asyncio.gather(*(job() for _ in range(10)))
    assert (ended, running[1]) == (10, 2)
