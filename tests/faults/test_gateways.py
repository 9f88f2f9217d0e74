"""Several gateways on one PostgreSQL: one dies, one sleeps, one has the wrong time; nothing is bought twice or lost."""

from __future__ import annotations

import asyncio
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import httpx2

from tests.fakes.postgres import PostgresServer
from tests.faults.gate import Gate, at_once, until
from tests.faults.rows import on
from tests.faults.scenes import Group, Stage
from tests.faults.settle import NOTHING, Balance, assert_even, balance
from tests.faults.step import large

GATEWAYS = Group("test_gateways_on_one_postgresql")
ADMIN = "adm-0123456789"
KEY = {"Idempotency-Key": "k"}
TAKEN = "taken up where it was left"


def test_gateways_on_one_postgresql(postgres: PostgresServer, tmp_path: Path) -> None:
    GATEWAYS.play(tmp_path, database=lambda: asyncio.run(postgres.new_database()))


class Asked:
    """A request that waits for its answer beside the test."""

    def __init__(self, gate: Gate, prompt: str, **more: Any) -> None:
        self._answer: httpx2.Response | None = None
        self._thread = threading.Thread(target=self._ask, args=(gate, prompt), kwargs=more, daemon=True)
        self._thread.start()

    def _ask(self, gate: Gate, prompt: str, **more: Any) -> None:
        with suppress(httpx2.TransportError), gate.connect() as http:
            self._answer = gate.ask(prompt, http=http, **more)

    @property
    def answer(self) -> httpx2.Response:
        """It, when it has come."""
        self._thread.join(60)
        assert self._answer is not None, "there is no answer"
        return self._answer


def word(answer: httpx2.Response) -> str:
    return "200" if answer.status_code == 200 else f"{answer.status_code} {answer.json()['error']['code']}"


@contextmanager
def asleep(gate: Gate) -> Iterator[None]:
    """It is stopped, and goes on as if nothing had been."""
    gate.child.signal(signal.SIGSTOP)
    try:
        yield
    finally:
        gate.child.signal(signal.SIGCONT)


def jobs(gate: Gate, *states: str) -> int:
    """How many there are in these states."""
    return sum(job["state"] in states for record in gate.records() for job in record["jobs"])


def settled(gate: Gate, states: str) -> Balance:
    """As soon as the journal's jobs are in these states; and the books agree."""

    def look() -> Balance | None:
        found = balance(gate, NOTHING)
        return found if found.states == states and not gate.records(state="running") else None

    found = until(look, 40, every=0.2, what=f"the journal's '{states}'")
    assert_even(found)
    return found


def kept(found: Balance) -> dict[str, Any]:
    told = {"submits": found.submitted, "journal": found.states, "charged": str(found.charged)}
    return told | {"pictures": found.pictures}


def timed(ask: Callable[[], httpx2.Response]) -> tuple[httpx2.Response, float]:
    began = time.monotonic()
    return ask(), round(time.monotonic() - began, 1)


# ---- one dies


@GATEWAYS.scene("M10-heir")
def an_heir_collects_what_was_bought(stage: Stage) -> dict[str, Any]:
    killed, heir = stage.pair()
    stage.sandbox.script(on("submit", "run_for", seconds=2))
    Asked(killed, "heir", headers=KEY)
    until(lambda: jobs(heir, "submitted"), what="the ticket")
    killed.kill()
    answer, seconds = timed(lambda: heir.ask("heir", headers=KEY))
    return {"answer": answer.status_code, "seconds": seconds, **kept(settled(heir, "1 done"))}


# ---- one sleeps


@GATEWAYS.scene("M10-fence")
def who_slept_past_its_lease_buys_nothing(stage: Stage) -> dict[str, Any]:
    sleeper, heir = stage.pair(limits_jobs="1")
    stage.sandbox.script(on("submit", "run_for", seconds=1))
    first = Asked(sleeper, "fence 1")
    until(lambda: jobs(heir, "submitted"), what="the first ticket")
    second = Asked(sleeper, "fence 2", headers=KEY)
    until(lambda: len(heir.records(state="running")) == 2, what="the second request's page")
    with asleep(sleeper):
        until(lambda: heir.log().count(TAKEN) == 2, 20, every=0.2, what="the take-over of both")
        until(lambda: not heir.records(state="running"), 20, every=0.2, what="their end")
        repeat = heir.ask("fence 2", headers=KEY)
        bought = len(stage.sandbox.jobs())
    answers = ", ".join(word(one.answer) for one in (first, second))
    found = settled(heir, "2 done")
    told = {"repeat": repeat.status_code, "sleeper": answers, "bought after its sleep": found.submitted - bought}
    return told | {"bought twice": found.twice, **kept(found)}


@GATEWAYS.scene("M10-fence-half")
def who_slept_past_its_lease_delivers_what_it_had_bought(stage: Stage) -> dict[str, Any]:
    sleeper, heir = stage.pair(limits_jobs="1")
    stage.sandbox.script(on("submit", "run_for", None, seconds=1))
    asked = Asked(sleeper, "half", headers=KEY, n="2", seed="1")
    until(lambda: jobs(heir, "submitted"), what="the first ticket")
    with asleep(sleeper):
        until(lambda: TAKEN in heir.log(), 20, every=0.2, what="the take-over")
        until(lambda: not heir.records(state="running"), 20, every=0.2, what="its end")
        bought = len(stage.sandbox.jobs())
    body = asked.answer.json()
    found = settled(heir, "1 done")
    missing = ", ".join(failure["code"] for failure in body["metadata"]["failed"])
    told = {"sleeper": asked.answer.status_code, "in its answer": len(body["data"]), "missing": missing}
    return told | {"bought after its sleep": found.submitted - bought, **kept(found)}


@GATEWAYS.scene("M10-fence-late")
def who_slept_past_its_lease_does_not_submit_what_it_had_meant_to(stage: Stage) -> dict[str, Any]:
    sleeper, heir = stage.pair()
    stage.sandbox.script(on("put", "delay", seconds=2))
    asked = Asked(sleeper, "late", picture=large(), headers=KEY)
    until(lambda: jobs(heir, "intent"), what="the intent")
    with asleep(sleeper):
        until(lambda: TAKEN in heir.log(), 20, every=0.2, what="the take-over")
        until(lambda: not heir.records(state="running"), 20, every=0.2, what="its end")
        repeat = heir.ask("late", picture=large(), headers=KEY)
    told = {"sleeper": word(asked.answer), "repeat": word(repeat)}
    found = kept(settled(heir, "1 failed"))
    del found["pictures"]
    return told | found


# ---- one has the wrong time


@GATEWAYS.scene("D8-clocks")
def gateways_whose_clocks_are_two_minutes_apart(stage: Stage) -> dict[str, Any]:
    ahead, behind = stage.pair(shifts=(60.0, -60.0))
    stage.sandbox.script(on("submit", "run_for", 2, seconds=9), on("submit", "run_for", None, seconds=2))
    answers = at_once(*(partial(one_picture, gate, f"clocks {gate.shift}") for gate in (ahead, behind)))
    taken = sum(gate.log().count(TAKEN) for gate in (ahead, behind))
    heirs: list[tuple[httpx2.Response, float]] = []
    for number, (dying, heir) in enumerate(((ahead, behind), (behind, ahead))):
        key = {"Idempotency-Key": f"k{number}"}
        Asked(dying, f"dying {number}", headers=key)
        until(lambda heir=heir: jobs(heir, "submitted"), what="the ticket")
        dying.kill()
        heirs.append(timed(partial(heir.ask, f"dying {number}", headers=key)))
        dying.restart()
    found = settled(ahead, "4 done")
    told = {"answers": ", ".join(str(answer.status_code) for answer in answers), "taken from the living": taken}
    told |= {f"heir {who}": answer.status_code for who, (answer, _) in zip(("behind", "ahead"), heirs, strict=True)}
    more = {"seconds": max(seconds for _, seconds in heirs), "submits": found.submitted, "bought twice": found.twice}
    return told | more | {"charged": str(found.charged), "pictures": found.pictures}


def one_picture(gate: Gate, prompt: str) -> httpx2.Response:
    with gate.connect() as http:
        return gate.ask(prompt, http=http)


# ---- one is not told


@GATEWAYS.scene("K3-revoked")
def a_key_that_the_other_one_revoked(stage: Stage) -> dict[str, Any]:
    one, other = stage.pair(admin_key=ADMIN)
    admin = {"authorization": f"Bearer {ADMIN}"}

    def made(name: str) -> tuple[str, dict[str, str]]:
        answer = one.http.post("/v1/keys", json={"name": name}, headers=admin).json()
        return answer["id"], {"authorization": f"Bearer {answer['key']}"}

    (id, key), (_, stranger) = made("revoked"), made("another")
    before = other.ask("revoked", headers=key)
    path = f"/v1/requests/{before.json()['id']}"
    foreign = other.http.get(path, headers=stranger).status_code
    assert other.http.get(path, headers=key).status_code == 200
    assert one.http.delete(f"/v1/keys/{id}", headers=admin).status_code == 200
    began = time.monotonic()
    until(lambda: other.http.get("/v1/models", headers=key).status_code == 401, 5, what="a 401")
    told = {"before": before.status_code, "seconds until it is refused": round(time.monotonic() - began, 1)}
    return told | {"another's request": foreign}
