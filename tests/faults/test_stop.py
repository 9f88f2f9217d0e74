"""SIGTERM: nothing new, what runs may end, what cannot is left to the journal."""

from __future__ import annotations

import itertools
import socket
import threading
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from subprocess import TimeoutExpired
from typing import Any

import httpx2

from tests.faults.gate import Gate, at_once, until
from tests.faults.rows import on
from tests.faults.scenes import Group, Stage
from tests.faults.settle import NOTHING, Balance, balance

prompts = (f"stop {number}" for number in itertools.count(1))
STOPS = Group("test_stopped")


def test_stopped(tmp_path: Path) -> None:
    STOPS.play(tmp_path)


class Crowd:
    """Requests in threads of their own."""

    def __init__(self, gate: Gate, count: int) -> None:
        self.answers: list[httpx2.Response] = []
        self.broken: list[Exception] = []
        self._http = gate.connect(limits=httpx2.Limits(max_connections=None))
        self._threads = [threading.Thread(target=self._ask, args=(gate, n)) for n in range(count)]
        for thread in self._threads:
            thread.start()

    def _ask(self, gate: Gate, number: int) -> None:
        try:
            self.answers.append(gate.ask(next(prompts), http=self._http, seed=str(number)))
        except httpx2.TransportError as error:
            self.broken.append(error)

    def join(self) -> None:
        for thread in self._threads:
            thread.join(60)
        self._http.close()


def tickets(gate: Gate, count: int) -> None:
    """Wait until so many jobs have theirs in the journal."""
    sql = "SELECT 1 FROM jobs WHERE job IS NOT NULL"
    until(lambda: len(gate.rows(sql)) >= count, 20, what=f"{count} tickets")


def in_time(gate: Gate, seconds: float) -> tuple[bool, int | None]:
    """Whether the process ends within that time (generous: the machine may be busy), and its exit code."""
    try:
        return True, gate.ended(seconds)
    except TimeoutExpired:
        return False, None


def come_home(gate: Gate, states: str) -> Balance:
    def look() -> Balance | None:
        found = balance(gate, NOTHING)
        return found if found.states == states else None

    return until(look, 40, every=0.3, what=states)


def words(values: Any) -> str:
    return ", ".join(sorted({str(value) for value in values}))


@STOPS.scene("L2-drain")
def fifty_in_flight_are_answered(stage: Stage) -> dict[str, Any]:
    gate = stage.gate()
    stage.sandbox.script(*(on("submit", "run_for", 17, seconds=seconds) for seconds in (2, 3, 4)))
    kept = gate.connect()
    assert kept.get("/readyz").status_code == 200
    crowd = Crowd(gate, 50)
    tickets(gate, 50)
    gate.terminate()
    until(lambda: refused(gate), 3, what="the listener's end")
    ready = readiness(kept)
    crowd.join()
    kept.close()
    _, code = in_time(gate, 30)
    assert crowd.broken == []
    costs = gate.rows("SELECT cost FROM jobs WHERE state = 'done'")
    return {
        "new connection": "refused",
        "/readyz": ready,
        "served": [answer.status_code for answer in crowd.answers].count(200),
        "exit code": code,
        "billed": stage.sandbox.totals()["billed"],
        "charged": f"{sum(float(cost) for (cost,) in costs):.2f}",
    }


def readiness(kept: httpx2.Client) -> str:
    """What a health check sees on a connection that it has kept."""
    try:
        return "503 or closed" if kept.get("/readyz").status_code == 503 else "ready"
    except httpx2.TransportError:
        return "503 or closed"


def refused(gate: Gate) -> bool:
    try:
        address = gate.http.base_url.host, gate.http.base_url.port
        socket.create_connection(address, timeout=2).close()  # type: ignore[arg-type]
    except ConnectionRefusedError:
        return True
    return False


@STOPS.scene("L3-drain-limit")
def what_outlasts_the_drain_is_left_to_the_journal(stage: Stage) -> dict[str, Any]:
    gate = stage.gate(drain_seconds="2")
    stage.sandbox.script(on("submit", "run_for", None, seconds=6))
    asked = [({"Idempotency-Key": f"key {number}"}, f"with a key {number}") for number in range(3)]
    keyed: list[httpx2.Response] = []

    def ask(headers: dict[str, str], prompt: str) -> httpx2.Response:
        return gate.ask(prompt, seed="9", headers=headers)

    asking = threading.Thread(target=lambda: keyed.extend(at_once(*(partial(ask, *pair) for pair in asked))))
    asking.start()
    plain = Crowd(gate, 3)
    tickets(gate, 6)
    gate.terminate()
    plain.join()
    asking.join(60)
    _, code = in_time(gate, 30)
    gate.restart()
    answers = [*plain.answers, *keyed]
    assert len(answers) == 6
    repeats = at_once(*(partial(ask, *pair) for pair in asked))
    found = come_home(gate, "6 done")
    return {
        "answers": words(answer.status_code for answer in answers),
        "x-should-retry with key": words(answer.headers.get("x-should-retry") for answer in keyed),
        "x-should-retry without": words(answer.headers.get("x-should-retry") for answer in plain.answers),
        "Retry-After": all(answer.headers.get("retry-after", "").isdecimal() for answer in answers),
        "exit code": code,
        "submits": found.submitted,
        "cancelled": found.cancelled,
        "journal": found.states,
        "charged": str(found.charged),
        "pictures": found.pictures,
        "repeats with key": ", ".join(str(answer.status_code) for answer in repeats),
    }


@STOPS.scene("L5-twice")
def a_second_signal_ends_it_at_once_and_loses_nothing(stage: Stage) -> dict[str, Any]:
    gate = stage.gate()
    stage.sandbox.script(on("submit", "run_for", None, seconds=4))
    crowd = Crowd(gate, 3)
    tickets(gate, 3)
    gate.terminate()
    until(lambda: refused(gate), 3, what="the listener's end")
    gate.terminate()
    ended, _ = in_time(gate, 3)
    crowd.join()
    gate.restart()
    found = come_home(gate, "3 done")
    told = {"ended in time": ended, "submits": found.submitted, "cancelled": found.cancelled, "journal": found.states}
    return told | {"charged": str(found.charged), "pictures": found.pictures}


@STOPS.scene("L2-idle")
def idle_connections_do_not_hold_up_the_end(stage: Stage) -> dict[str, Any]:
    gate = stage.gate()
    with ExitStack() as stack:
        for _ in range(20):
            http = stack.enter_context(gate.connect())
            assert http.get("/healthz").status_code == 200
        gate.terminate()
        ended, code = in_time(gate, 8)
    return {"ended in time": ended, "exit code": code}


@STOPS.scene("M1-restart")
def a_key_outlives_a_restart(stage: Stage) -> dict[str, Any]:
    gate = stage.gate(public_url="http://gate.test")
    key = {"Idempotency-Key": "k"}
    answers = [gate.ask("keyed", headers=key)]
    gate.terminate()
    assert gate.ended() == 0
    gate.restart()
    answers.append(gate.ask("keyed", headers=key))
    return {
        "answers": ", ".join(str(answer.status_code) for answer in answers),
        "same bytes": answers[0].content == answers[1].content,
        "replayed": ", ".join(answer.headers.get("idempotency-replayed", "-") for answer in answers),
        "submits": stage.sandbox.totals()["submitted"],
    }
