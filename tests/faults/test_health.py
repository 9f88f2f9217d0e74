"""A provider that is ill: left alone, probed, and never blamed on the caller."""

from __future__ import annotations

import itertools
from functools import partial

from tests.fakes.sandbox import SandboxServer
from tests.faults.conftest import OwnGate
from tests.faults.gate import Gate, at_once, until
from tests.faults.observe import Case
from tests.faults.rows import covers, on
from tests.faults.settle import balance, mark
from tests.faults.table import ROWS

prompts = (f"health {number}" for number in itertools.count(1))


def readiness(gate: Gate) -> str:
    answer = gate.http.get("/readyz")
    return f"{answer.status_code} {answer.json()['status']}"


@covers("U4-out", "U4-back")
def test_an_ill_provider_is_left_alone_and_comes_back(case: Case, own: OwnGate, upstream: SandboxServer) -> None:
    gate = own()
    since = mark(gate)
    upstream.script(on("submit", "infra_error", None, error_type="runner_scheduling_failure", at="reply"))
    failures = at_once(*[partial(gate.ask, next(prompts)) for _ in range(5)])
    assert {answer.status_code for answer in failures} <= {502, 503}
    asked = upstream.rules()[0]["struck"]
    more = at_once(*[partial(gate.ask, next(prompts)) for _ in range(10)])
    refused = [answer for answer in more if answer.status_code == 503 and "left alone" in answer.text]
    assert all("Nothing was charged." in answer.text for answer in more)
    case.saw(
        {
            "refused": len(refused),
            "Retry-After": all(answer.headers["retry-after"].isdecimal() for answer in refused),
            "provider asked": upstream.rules()[0]["struck"] - asked,
            "/readyz": readiness(gate),
        }
    )
    upstream.clear_script()
    until(lambda: gate.ask(next(prompts)).status_code == 200, 15, every=0.5, what="the provider's return")
    answers = at_once(*[partial(gate.ask, next(prompts)) for _ in range(5)])
    found = balance(gate, since)
    assert found.submitted == 6
    Case(ROWS["U4-back"]).saw(
        {
            "comes back": True,
            "then served": [answer.status_code for answer in answers].count(200),
            "bought twice": found.twice,
            "/readyz": readiness(gate),
        }
    )


@covers("U4-locked")
def test_a_locked_account_is_told_to_the_operator(case: Case, own: OwnGate, upstream: SandboxServer) -> None:
    gate = own()
    upstream.script(on("submit", "locked", None))
    answers = [gate.ask(next(prompts)), gate.ask(next(prompts))]
    ready = gate.http.get("/readyz")
    upstream.clear_script()
    until(lambda: gate.ask(next(prompts)).status_code == 200, 15, every=0.5, what="the account's return")
    told = " ".join(answer.json()["error"]["message"].lower() for answer in answers)
    case.saw(
        {
            "answers": ", ".join(f"{one.status_code} {one.json()['error']['code']}" for one in answers),
            "blames the caller's key": "your" in told or "api key" in told,
            "/readyz": ready.status_code,
            "says locked": "locked" in " ".join(ready.json()["problems"]),
            "log lines": sum("locked" in line and "ERROR" in line for line in gate.log().splitlines()),
            "then /readyz": gate.http.get("/readyz").status_code,
        }
    )


@covers("U1-429")
def test_a_long_rate_limit_is_handed_on(case: Case, shared: Gate, upstream: SandboxServer) -> None:
    since = mark(shared)
    upstream.script(on("submit", "rate_limit", retry_after=30))
    answer = shared.ask(next(prompts), headers={"x-request-timeout": "2"})
    case.saw(
        {
            "answer": f"{answer.status_code} {answer.json()['error']['code']}",
            "Retry-After": answer.headers.get("retry-after", "-"),
            "submits": balance(shared, since).submitted,
        }
    )
