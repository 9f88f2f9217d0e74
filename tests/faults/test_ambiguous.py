"""A submit whose reply was lost: never sent again, and found out later."""

from __future__ import annotations

import itertools
from typing import Any

import openai

from tests.conftest import MODEL
from tests.fakes.sandbox import SandboxServer
from tests.faults.gate import PICTURE, SIZE, Gate, until
from tests.faults.observe import Case
from tests.faults.rows import covers, on
from tests.faults.settle import Balance, Mark, balance, mark

prompts = (f"ambiguous {number}" for number in itertools.count(1))


def word(answer: Any) -> str:
    return f"{answer.status_code} {answer.json()['error']['code']}"


def settled(gate: Gate, since: Mark, states: str, seconds: float = 20) -> Balance:
    """As soon as the journal's jobs are in these states."""

    def look() -> Balance | None:
        found = balance(gate, since)
        return found if found.states == states else None

    return until(look, seconds, every=0.2, what=f"the journal's '{states}'")


@covers("M11-sdk")
def test_an_sdk_does_not_repeat_what_may_have_been_bought(case: Case, shared: Gate, upstream: SandboxServer) -> None:
    upstream.script(on("submit", "drop_after"))
    since, tries = mark(shared), []
    with shared.sdk(max_retries=5) as sdk:
        sdk._client.event_hooks = {"request": [tries.append]}
        try:
            sdk.images.edit(model=MODEL, prompt=next(prompts), image=("a.png", PICTURE), size=SIZE)
        except openai.APIStatusError as error:
            answer = word(error.response)
    found = settled(shared, since, "1 done")
    told = {"answer": answer, "tries": len(tries), "submits": found.submitted}
    case.saw(told | {"journal": found.states, "pictures": found.pictures})


@covers("M11-key")
def test_a_key_does_not_repeat_what_may_have_been_bought(case: Case, shared: Gate, upstream: SandboxServer) -> None:
    upstream.script(on("submit", "drop_after"))
    since, prompt = mark(shared), next(prompts)
    answers = []
    for _ in range(3):
        answers.append(shared.ask(prompt, headers={"Idempotency-Key": prompt}))
        settled(shared, since, "1 done")
    found = balance(shared, since)
    [record] = found.records
    [picture] = shared.record(record["id"])["data"]
    assert picture["url"]
    told = {"answers": ", ".join(str(answer.status_code) for answer in answers), "submits": found.submitted}
    case.saw(told | {"journal": found.states, "charged": str(found.charged), "pictures": found.pictures})


@covers("M11-twins")
def test_jobs_that_are_alike_are_found_one_by_one(case: Case, shared: Gate, upstream: SandboxServer) -> None:
    upstream.script(on("submit", "drop_after", 2), on("list", "delay", None, seconds=0.3))
    since = mark(shared)
    answer = shared.ask(next(prompts), n="4")
    first = len(answer.json()["data"])
    found = settled(shared, since, "4 done")
    assert len({job["job"] for job in found.journal}) == 4
    told = {"answer": answer.status_code, "pictures at first": first, "submits": found.submitted}
    case.saw(told | {"journal": found.states, "charged": str(found.charged), "pictures": found.pictures})
