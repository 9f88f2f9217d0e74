"""Two hundred jobs at once on a bad upstream: nothing that is paid for is given up, and nobody is stormed.

The bound, for N jobs that are followed for T seconds while everything fails: N first tries, a retry for five of them
and one a second from the budget's floor, and beyond the budget four requests of each job while its pauses grow, then
one in ten seconds, and a last one:

    N + 0.2 N + T + N (4 + T / 10 + 1)        in any ten seconds after the first thirty: N + 10, and the last looks
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from itertools import accumulate, islice
from random import Random

import httpx2
import pytest

from providers.base import ProviderCall, ProviderError, ProviderResult, Ticket
from providers.fal import FalProvider
from providers.retries import poll_intervals
from providers.testing.kit import large_picture
from tests.providers.crowd import CrowdClock
from tests.providers.upstream import on_fals_own_names

pytestmark = pytest.mark.anyio

JOBS = 200
DEADLINE = 180.0
QUEUE = "https://queue.fal.run/a/b/requests"


class Flaky:
    """fal's queue: each job runs for `seconds`; `fails` says whether a request is answered with a 500."""

    def __init__(self, seconds: Callable[[str], float], fails: Callable[[float], bool]) -> None:
        self.clock = CrowdClock()
        self.began = self.clock.now
        self.times: list[float] = []
        self._seconds = seconds
        self._fails = fails
        self.provider, self._http = on_fals_own_names(self._answer, self.clock)

    def _answer(self, request: httpx2.Request) -> httpx2.Response:
        self.times.append(self.clock.now)
        if self._fails(self.clock.now - self.began):
            return httpx2.Response(500, json={"detail": "Internal Server Error"})
        job = request.url.path.split("/")[4]
        if not request.url.path.endswith("/status"):
            return httpx2.Response(200, json={"images": [{"url": f"https://v3.fal.media/{job}.png"}]})
        done = self.clock.now - self.began >= self._seconds(job)
        return httpx2.Response(200, json={"status": "COMPLETED" if done else "IN_PROGRESS"})

    async def collect(self, jobs: int = JOBS) -> list[ProviderResult | BaseException]:
        ended = await self.clock.run(*(self._one(self.provider, f"job-{n:05}") for n in range(jobs)))
        await self._http.aclose()
        return ended

    async def _one(self, provider: FalProvider, job: str) -> ProviderResult:
        ticket = Ticket("fal", job, {"status_url": f"{QUEUE}/{job}/status", "response_url": f"{QUEUE}/{job}"})
        return await provider.collect(ticket, self.began + DEADLINE)

    def busiest(self, seconds: float, after: float = 0.0) -> int:
        """The most requests in any such stretch of time."""
        times = [at for at in self.times if at >= self.began + after]
        return max((sum(at <= one < at + seconds for one in times) for at in times[::25]), default=0)


async def test_an_upstream_that_is_down_is_asked_less_than_one_that_works() -> None:
    down = Flaky(lambda job: 10, lambda _: True)
    ended = await down.collect()
    assert all(isinstance(one, ProviderError) and one.accepted for one in ended)
    assert len(down.times) <= JOBS * 1.2 + DEADLINE + JOBS * (4 + DEADLINE / 10 + 1)
    assert down.busiest(10, after=30) <= JOBS + 10 + JOBS
    assert down.times[-1] > down.began + DEADLINE - 20, "until the deadline"
    looks = sum(at < 10 for at in accumulate(islice(poll_intervals(), 1000)))
    assert down.busiest(10) < JOBS * looks / 10, "of what the same jobs cost when all is well"


@pytest.mark.parametrize("share", [0.3, 0.5])
async def test_with_a_share_of_all_replies_failing_every_job_is_collected(share: float) -> None:
    random = Random(share)
    flaky = Flaky(lambda job: 1.0 + int(job[-2:]) / 10, lambda _: random.random() < share)
    ended = await flaky.collect()
    assert sum(isinstance(one, ProviderResult) for one in ended) == JOBS


@pytest.mark.parametrize("outage", [5.0, 120.0])
async def test_every_job_outlives_an_outage_and_is_collected_soon_after_it(outage: float) -> None:
    flaky = Flaky(lambda job: 3.0, lambda at: 1.0 <= at < 1.0 + outage)
    ended = await flaky.collect()
    assert sum(isinstance(one, ProviderResult) for one in ended) == JOBS
    assert flaky.clock.now - flaky.began < outage + 1 + 20 + 5


async def test_one_job_in_an_idle_gateway_does_not_feel_a_hiccup() -> None:
    flaky = Flaky(lambda job: 1.0, lambda at: 0.3 <= at < 0.8)
    await flaky.collect(1)
    assert flaky.clock.now - flaky.began < 3


async def test_uploads_fail_fast_when_everything_fails() -> None:
    """A fresh request costs nothing: with the budget gone each upload is tried once."""
    asked = 0

    def handler(request: httpx2.Request) -> httpx2.Response:
        nonlocal asked
        asked += 1
        return httpx2.Response(503)

    clock = CrowdClock()
    provider, http = on_fals_own_names(handler, clock)
    pictures = [large_picture(2_000_000) for _ in range(100)]
    calls = [ProviderCall("a/b", {"image": one}, "req") for one in pictures]
    ended = await asyncio.wait_for(clock.run(*(provider.submit(call) for call in calls)), 20)
    await http.aclose()
    assert all(isinstance(one, ProviderError) and one.accepted is False for one in ended)
    assert asked <= 100 + 20
