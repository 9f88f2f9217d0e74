"""Two gateways on one PostgreSQL and one Redis, as processes: one budget, one rate, one limit of jobs at once."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import Json
from tests.fakes.postgres import PostgresServer
from tests.fakes.redis import PASSWORD, RedisServer, redis_servers
from tests.fakes.sandbox import SandboxServer
from tests.faults.gate import Gate, at_once, until
from tests.faults.rows import on
from tests.keys.conftest import ADMIN, bearer

Pair = tuple[Gate, Gate]


@pytest.fixture(scope="module")
def redis() -> Iterator[RedisServer]:
    yield from redis_servers()


@pytest.fixture(scope="module")
def upstream() -> Iterator[SandboxServer]:
    with SandboxServer() as server:
        yield server


@pytest.fixture
def pair(redis: RedisServer, postgres: PostgresServer, upstream: SandboxServer, tmp_path: Path) -> Iterator[Pair]:
    upstream.clear_script()
    settings = {
        "database_url": asyncio.run(postgres.new_database()),
        "redis_url": redis.url,
        "admin_key": ADMIN,
        "signing_keys": "0123456789abcdef" * 2,
        "log_level": "info",
    }
    with Gate(upstream, tmp_path / "one", **settings) as one, Gate(upstream, tmp_path / "two", **settings) as two:
        yield one, two
    redis.revive()


def make(gate: Gate, **limits: object) -> Json:
    answer = gate.http.post("/v1/keys", json={"name": "a test's", **limits}, headers=bearer(ADMIN))
    assert answer.status_code == 200, answer.text
    made: Json = answer.json()
    return made


def hammer(pair: Pair, key: Json, times: int) -> list[int]:
    """The answers' statuses, asked in turns and at once."""

    def ask(number: int) -> int:
        with pair[number % 2].connect() as http:
            return pair[number % 2].ask(f"shared {number}", http=http, headers=bearer(key)).status_code

    return at_once(*((lambda number=number: ask(number)) for number in range(times)))


def hiccups(gate: Gate) -> int:
    """How often Redis did not answer it in time."""
    return len(re.findall("Redis cannot be used|Redis was asked once more", gate.log()))


def undisturbed(pair: Pair, times: int, **limits: object) -> list[int]:
    """The same with a key of its own, as it goes while Redis answers in time: on a busy machine it may not, and then
    each gateway counts by itself for a moment, as it should."""
    for _ in range(10):
        for gate in pair:
            until(lambda gate=gate: gate.http.get("/readyz").json()["limits"] == "shared")
        before = [hiccups(gate) for gate in pair]
        statuses = hammer(pair, make(pair[0], **limits), times)
        if [hiccups(gate) for gate in pair] == before:
            return statuses
    raise AssertionError("Redis never answered in time")


def test_two_gateways_keep_one_budget(pair: Pair) -> None:
    key = make(pair[0], budget_total="0.12")  # of 0.03 each
    statuses = hammer(pair, key, 12)
    assert sorted(statuses) == [200] * 4 + [402] * 8


def test_two_gateways_keep_one_rate_and_go_on_when_redis_does_not(pair: Pair, redis: RedisServer) -> None:
    assert [gate.http.get("/readyz").json()["limits"] for gate in pair] == ["shared", "shared"]
    statuses = undisturbed(pair, 12, requests_per_minute=5)
    assert sorted(statuses) == [200] * 5 + [429] * 7
    redis.kill()
    statuses = hammer(pair, make(pair[0], requests_per_minute=3), 12)
    assert sorted(statuses) == [200] * 6 + [429] * 6  # three at each
    for gate in pair:
        told = until(lambda gate=gate: (body := gate.http.get("/readyz").json())["status"] == "degraded" and body)
        assert told["limits"] == "per process"
        assert any(problem.startswith("Redis: ") for problem in told["problems"])
        assert "Redis cannot be used" in gate.log()
        assert PASSWORD not in gate.log() + str(told)
    redis.start()
    for gate in pair:
        until(lambda gate=gate: gate.http.get("/readyz").json()["limits"] == "shared")


def test_two_gateways_run_no_more_jobs_of_a_key_than_it_may_have(pair: Pair, upstream: SandboxServer) -> None:
    upstream.script(on("submit", "run_for", None, seconds=1))
    assert undisturbed(pair, 6, concurrent_jobs=2) == [200] * 6
    jobs = sorted(job["submitted_at"] for job in upstream.jobs())[-6:]
    # Each ran for a second: so the third after one cannot have begun within it.
    assert all(later - earlier > 0.9 for earlier, later in zip(jobs, jobs[2:], strict=False))


def test_a_key_that_one_revokes_the_other_refuses_within_a_second(pair: Pair) -> None:
    one, two = pair
    key = make(one)
    assert two.http.get("/v1/models", headers=bearer(key)).status_code == 200
    assert one.http.delete(f"/v1/keys/{key['id']}", headers=bearer(ADMIN)).status_code == 200
    until(lambda: two.http.get("/v1/models", headers=bearer(key)).status_code == 401, 1, what="a 401")
