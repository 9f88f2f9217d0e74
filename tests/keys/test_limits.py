"""What was taken in the last 60 seconds, on a clock of the test's own."""

from __future__ import annotations

import math

import pytest

from app.errors import RateLimited
from app.limits import GRAIN_SECONDS, LocalLimiter, Rates
from app.types import Caller

pytestmark = pytest.mark.anyio


class Hands:
    """A clock whose hands a test moves."""

    def __init__(self) -> None:
        self.at = 1000.1

    def monotonic(self) -> float:
        return self.at

    async def sleep(self, seconds: float) -> None:
        self.at += seconds


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def clock() -> Hands:
    return Hands()


@pytest.fixture
def limiter(clock: Hands) -> LocalLimiter:
    return LocalLimiter(clock)


async def test_no_window_of_a_minute_holds_more_than_the_limit(clock: Hands, limiter: LocalLimiter) -> None:
    taken: list[float] = []
    for _ in range(2000):
        if not (await limiter.take("a", 1, 7)).wait:
            taken.append(clock.at)
        clock.at += 0.17
    assert all(later - earlier >= 60 for earlier, later in zip(taken, taken[7:], strict=False))
    assert len(taken) >= 7 * (2000 * 0.17 // (60 + GRAIN_SECONDS))


async def test_who_waits_as_long_as_told_is_served(clock: Hands, limiter: LocalLimiter) -> None:
    for _ in range(3):
        assert not (await limiter.take("a", 2, 6)).wait
        clock.at += 5
    level = await limiter.take("a", 3, 6)
    assert level.left == 0
    assert 0 < level.wait <= 55 + GRAIN_SECONDS
    clock.at += level.wait - 0.01
    assert (await limiter.take("a", 3, 6)).wait
    clock.at += 0.011
    assert not (await limiter.take("a", 3, 6)).wait


async def test_what_is_refused_takes_nothing(limiter: LocalLimiter) -> None:
    assert (await limiter.take("a", 5, 4)).wait == math.inf
    assert (await limiter.take("a", 4, 4)).left == 0
    assert (await limiter.take("a", 1, 4)).wait
    assert (await limiter.take("a", 0, 4)).left == 0


async def test_looking_takes_nothing_and_leaves_no_trace(limiter: LocalLimiter) -> None:
    level = await limiter.take("a", 0, 3)
    assert (level.limit, level.left, level.reset, level.wait) == (3, 3, 0.0, 0.0)
    assert len(limiter) == 0


async def test_a_limit_that_changes_counts_at_once(limiter: LocalLimiter) -> None:
    await limiter.take("a", 3, 3)
    assert (await limiter.take("a", 1, 3)).wait
    assert not (await limiter.take("a", 1, 5)).wait
    level = await limiter.take("a", 0, 2)
    assert level.left == 0


async def test_what_is_idle_is_forgotten(clock: Hands, limiter: LocalLimiter) -> None:
    for number in range(100):
        await limiter.take(f"caller {number}", 1, 1)
    clock.at += 61
    await limiter.take("another", 1, 1)
    assert len(limiter) == 1


async def test_it_remembers_so_many_and_no_more(clock: Hands) -> None:
    limiter = LocalLimiter(clock, most=10)
    for number in range(100):
        await limiter.take(f"caller {number}", 1, 1)
    assert len(limiter) <= 11
    assert (await limiter.take("caller 99", 1, 1)).wait


async def test_a_large_limit_takes_no_more_memory_than_a_small_one(clock: Hands, limiter: LocalLimiter) -> None:
    for _ in range(5000):
        await limiter.take("a", 1, 1_000_000)
        clock.at += 0.01
    assert len(limiter._windows["a"].taken) <= 50 / GRAIN_SECONDS + 1
    assert (await limiter.take("a", 0, 1_000_000)).left == 1_000_000 - 5000


async def test_more_than_a_minutes_worth_is_never_to_be_had(limiter: LocalLimiter) -> None:
    caller = Caller("key_a", "a", images_per_minute=4)
    with pytest.raises(RateLimited) as refused:
        await Rates(limiter).take_images(caller, 5)
    assert refused.value.should_retry is False
    await Rates(limiter).take_images(caller, 4)


async def test_only_what_is_limited_is_told(limiter: LocalLimiter) -> None:
    assert await Rates(limiter).headers(Caller("key_a", "a")) == []
    told = dict(await Rates(limiter).headers(Caller("key_a", "a", requests_per_minute=3)))
    assert told == {
        b"x-ratelimit-limit-requests": b"3",
        b"x-ratelimit-remaining-requests": b"3",
        b"x-ratelimit-reset-requests": b"0s",
    }
