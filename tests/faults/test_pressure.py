"""Too much at once: bounded, refused early and honestly, and nobody pays for a refusal."""

from __future__ import annotations

import itertools
import json
import os
import resource
import socket
import threading
import time
from contextlib import ExitStack

import httpx2
import pybase64
import pytest

from tests.api.raw import head
from tests.conftest import MODEL
from tests.fakes.sandbox import SandboxServer
from tests.faults.conftest import OwnGate
from tests.faults.gate import PICTURE, Gate
from tests.faults.observe import Case
from tests.faults.rows import covers
from tests.faults.settle import balance, mark

prompts = (f"pressure {number}" for number in itertools.count(1))


@covers("Q1-memory")
def test_bodies_beyond_the_memory_budget_are_refused(case: Case, own: OwnGate, upstream: SandboxServer) -> None:
    gate = own(limits_memory_bytes="8MiB")
    since = mark(gate)
    image = "data:image/png;base64," + pybase64.b64encode(PICTURE).decode()
    large = json.dumps({"model": MODEL, "prompt": "a", "image_url": image, "padding": "x" * 3_000_000}).encode()
    answers: list[httpx2.Response] = []
    while len(answers) < 20 and not [answer for answer in answers if answer.status_code == 503]:
        with connected(gate) as slow:
            slow.sendall(head(len(large), type="application/json") + large[:100])
            time.sleep(0.2)  # nothing shows that its head has been read
            answers.append(gate.ask("the budget is spent", n="0"))
    refused = answers[-1]
    while len(answers) < 50 and answers[-1].status_code != 200:
        answers.append(gate.ask(next(prompts)))
    told = {"answers": f"{refused.status_code}, {answers[-1].status_code}"}
    more = {"Retry-After": refused.headers.get("retry-after", "").isdecimal()}
    case.saw(told | more, submits=balance(gate, since).submitted)


def connected(gate: Gate) -> socket.socket:
    address = gate.http.base_url.host, gate.http.base_url.port
    return socket.create_connection(address, timeout=30)  # type: ignore[arg-type]


@covers("A4-slow")
def test_a_crowd_that_does_nothing_disturbs_nobody(case: Case, own: OwnGate, upstream: SandboxServer) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < 4096:
        lacking = f"only {hard} open files are allowed here: A CROWD IS NOT TESTED"
        if os.environ.get("CI"):
            pytest.fail(lacking)
        pytest.skip(lacking)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 4096), hard))
    gate = own()
    since = mark(gate)
    over = threading.Event()
    with ExitStack() as stack:
        idle = [stack.enter_context(connected(gate)) for _ in range(1000)]
        for connection in idle:
            connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: gate\r\n\r\n")
        assert all(connection.recv(4096).startswith(b"HTTP/1.1 200") for connection in idle)
        slow = [stack.enter_context(connected(gate)) for _ in range(200)]
        for connection in slow:
            connection.sendall(head(1_000_000))

        def drip() -> None:
            while not over.wait(1):
                for connection in slow:
                    connection.sendall(b"x")

        dripping = threading.Thread(target=drip)
        dripping.start()
        try:
            answers = [gate.ask(next(prompts)) for _ in range(5)]
        finally:
            over.set()
            dripping.join()
    found = balance(gate, since)
    told = {"idle": len(idle), "slow": len(slow), "submits": found.submitted, "charged": str(found.charged)}
    case.saw(told, served=[answer.status_code for answer in answers].count(200))
