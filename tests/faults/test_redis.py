"""Redis goes away, hangs or is emptied: limits per minute go on by themselves, money was never its business."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterable, Iterator
from functools import partial
from typing import Any

import pytest

from tests.conftest import Json
from tests.fakes.redis import RedisServer, redis_servers
from tests.fakes.sandbox import SandboxServer
from tests.faults.conftest import OwnGate
from tests.faults.gate import Gate, at_once, until
from tests.faults.observe import Case
from tests.faults.rows import covers
from tests.faults.settle import Balance, Mark, assert_even, balance, mark

ADMIN = "adm-0123456789"
prompts = (f"redis {number}" for number in itertools.count(1))


@pytest.fixture(scope="module")
def server() -> Iterator[RedisServer]:
    """A server of this file's own."""
    yield from redis_servers()


@pytest.fixture
def redis(server: RedisServer) -> Iterator[RedisServer]:
    """It; whatever a test does to it, the next one finds it running."""
    yield server
    server.revive()


@pytest.fixture
def gate(redis: RedisServer, own: OwnGate, upstream: SandboxServer) -> Gate:
    """A gateway that counts there."""
    gate = own(redis_url=redis.url, admin_key=ADMIN)
    gate.http.headers["authorization"] = f"Bearer {ADMIN}"
    counts(gate, "200 ready, shared")
    return gate


def made(gate: Gate, **limits: Any) -> dict[str, str]:
    """The header of a key with these limits."""
    answer = gate.http.post("/v1/keys", json={"name": "a test's", **limits})
    assert answer.status_code == 200, answer.text
    return {"authorization": f"Bearer {answer.json()['key']}"}


def asked(gate: Gate, key: dict[str, str], times: int) -> str:
    """The answers to so many requests, one after the other: `2 × 200, 3 × 429`."""
    return summed(gate.ask(next(prompts), headers=key).status_code for _ in range(times))


def summed(statuses: Iterable[int]) -> str:
    return ", ".join(f"{count} × {status}" for status, count in sorted(Counter(statuses).items()))


def counts(gate: Gate, how: str) -> str:
    """What /readyz says, once it does."""

    def look() -> str:
        answer = gate.http.get("/readyz")
        body: Json = answer.json()
        return f"{answer.status_code} {body['status']}, {body['limits']}"

    until(lambda: look() == how, what=how)
    return how


def settled(gate: Gate, since: Mark) -> Balance:
    until(lambda: not gate.records(state="running"), what="the end of all requests")
    found = balance(gate, since)
    assert_even(found)
    return found


def money(found: Balance) -> dict[str, Any]:
    return {"submits": found.submitted, "charged": str(found.charged)}


def gone(case: Case, gate: Gate, redis: RedisServer, how: str) -> None:
    since, key = mark(gate), made(gate, requests_per_minute=2)
    before = asked(gate, key, 1)
    getattr(redis, how)()
    down = asked(gate, key, 5)
    meanwhile = counts(gate, "200 degraded, per process")
    redis.revive()
    after = counts(gate, "200 ready, shared")
    told = {"before": before, "down": down, "/readyz": meanwhile, "then /readyz": after}
    case.saw(told, **money(settled(gate, since)))


@covers("D6-down")
def test_redis_goes_away_and_comes_back(case: Case, gate: Gate, redis: RedisServer) -> None:
    gone(case, gate, redis, "kill")


@covers("D6-frozen")
def test_redis_does_not_answer_any_more(case: Case, gate: Gate, redis: RedisServer) -> None:
    gone(case, gate, redis, "pause")


@covers("D6-flushed")
def test_redis_is_emptied(case: Case, gate: Gate, redis: RedisServer) -> None:
    since, key = mark(gate), made(gate, requests_per_minute=2)
    before = asked(gate, key, 2)
    redis.flush()
    after = asked(gate, key, 3)
    case.saw(before=before, after=after, submits=settled(gate, since).submitted)


@covers("D6-money")
def test_a_budget_is_not_redis_to_keep(case: Case, gate: Gate, redis: RedisServer) -> None:
    since, key = mark(gate), made(gate, budget_total="0.06")
    redis.kill()

    def ask(prompt: str) -> int:
        with gate.connect() as http:
            return gate.ask(prompt, http=http, headers=key).status_code

    answers = summed(at_once(*(partial(ask, next(prompts)) for _ in range(5))))
    case.saw(answers=answers, **money(settled(gate, since)))
