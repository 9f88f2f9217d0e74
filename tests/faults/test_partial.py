"""Some of n fail: what was made is delivered, each missing picture says why, and the sum is right."""

from __future__ import annotations

import itertools
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx2

from tests.conftest import Json
from tests.fakes.sandbox import SandboxServer
from tests.faults.gate import Gate, events_of, until
from tests.faults.observe import Case
from tests.faults.rows import covers, on
from tests.faults.settle import balance, mark

prompts = (f"partial {number}" for number in itertools.count(1))
WORDS = {True: "charged", False: "free", None: "unknown"}


def missing(answer: httpx2.Response) -> str:
    failed = answer.json()["metadata"]["failed"]
    return ", ".join(sorted(f"{one['code']} ({WORDS[one['charged']]})" for one in failed))


def books(gate: Gate, since: Any, kept: int) -> Json:
    """What it cost, as soon as so many pictures are kept."""
    until(lambda: balance(gate, since).pictures == kept, 12, every=0.2, what=f"{kept} pictures")
    found = balance(gate, since)
    assert found.charged == found.bill
    return {"submits": found.submitted, "billed": found.billed, "charged": str(found.charged), "kept": found.pictures}


def money(amount: float) -> str:
    return f"{amount:.2f}"


@covers("M7-one")
def test_one_of_four_is_refused(case: Case, shared: Gate, upstream: SandboxServer) -> None:
    upstream.script(on("submit", "model_error"))
    since = mark(shared)
    answer = shared.ask(next(prompts), n="4", seed="1")
    told = {"answer": answer.status_code, "pictures": len(answer.json()["data"]), "missing": missing(answer)}
    case.saw(told | books(shared, since, 3), cost=money(answer.json()["metadata"]["cost"]))


@covers("M7-three")
def test_three_of_four_fail_each_in_its_own_way(case: Case, shared: Gate, upstream: SandboxServer) -> None:
    upstream.script(*(on("submit", fault) for fault in ("nsfw", "model_error", "corrupt_image")))
    since = mark(shared)
    answer = shared.ask(next(prompts), n="4", seed="1")
    told = {"answer": answer.status_code, "pictures": len(answer.json()["data"]), "missing": missing(answer)}
    case.saw(told | books(shared, since, 1), cost=money(answer.json()["metadata"]["cost"]))


@covers("M7-stream")
def test_two_of_three_fail_in_a_stream(case: Case, shared: Gate, upstream: SandboxServer) -> None:
    upstream.script(on("submit", "nsfw"), on("submit", "model_error"))
    since = mark(shared)
    answer = shared.ask(next(prompts), n="3", seed="1", stream="true")
    events = list(events_of(answer.text))
    told = {"events": ", ".join(name for name, _ in events), "cost": money(events[-1][1]["metadata"]["cost"])}
    case.saw(told | books(shared, since, 1))


@covers("M7-all")
def test_all_of_three_fail_and_one_was_paid(case: Case, shared: Gate, upstream: SandboxServer) -> None:
    upstream.script(on("submit", "nsfw"), on("submit", "model_error", 2))
    since = mark(shared)
    answer = shared.ask(next(prompts), n="3", seed="1")
    headers = {name: answer.headers.get(name, "-") for name in ("x-should-retry", "x-imagegate-cost")}
    case.saw({"answer": answer.status_code} | headers | books(shared, since, 0))


@covers("M7-ambiguous")
def test_the_reply_to_one_of_three_is_lost(case: Case, shared: Gate, upstream: SandboxServer) -> None:
    upstream.script(on("submit", "drop_after"))
    since = mark(shared)
    answer = shared.ask(next(prompts), n="3", seed="1")
    told = {"answer": answer.status_code, "pictures": len(answer.json()["data"]), "missing": missing(answer)}
    case.saw(told | books(shared, since, 3))


@contextmanager
def canary() -> Iterator[tuple[int, list[object]]]:
    """A listener that nobody should find: its port, and who came."""
    came: list[object] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(0.2)
        over = threading.Event()

        def listen() -> None:
            while not over.is_set():
                try:
                    came.append(listener.accept())
                except TimeoutError:
                    continue

        thread = threading.Thread(target=listen)
        thread.start()
        try:
            yield listener.getsockname()[1], came
        finally:
            over.set()
            thread.join()


@covers("S2-redirect-inside")
def test_no_download_is_led_inside(case: Case, shared: Gate, upstream: SandboxServer) -> None:
    since, answers = mark(shared), []
    with canary() as (port, came):
        for location in (f"http://127.0.0.1:{port}/a.png", "http://169.254.169.254/latest", "file:///etc/passwd"):
            upstream.script(on("cdn", "redirect", None, location=location))
            answers.append(shared.ask(next(prompts), headers={"x-request-timeout": "2"}))
            upstream.clear_script()
    assert all("It was charged" in answer.text for answer in answers)
    found = balance(shared, since)
    told = {"answers": ", ".join(str(answer.status_code) for answer in answers), "connections": len(came)}
    case.saw(told | {"submits": found.submitted, "charged": str(found.charged)})
