"""One request by OpenAI's SDK while the sandbox follows a row's rules, and what the books say of it afterwards."""

from __future__ import annotations

import io
import itertools
import random
import time
from dataclasses import dataclass
from functools import cache

import httpx2
import openai
from PIL import Image

from tests.conftest import MODEL
from tests.faults.gate import PICTURE, SIZE, Gate
from tests.faults.rows import Step
from tests.faults.settle import Balance, Mark, balance, mark

prompts = (f"case {number}" for number in itertools.count(1))


@dataclass(frozen=True)
class Answer:
    """What a client has in its hands at the end."""

    status: int
    code: str
    retry: str
    told: str
    pictures: int


@cache
def large() -> bytes:
    """More than goes inline: noise does not compress."""
    buffer = io.BytesIO()
    Image.frombytes("RGB", (900, 800), random.Random(1).randbytes(2_160_000)).save(buffer, "PNG", compress_level=0)
    return buffer.getvalue()


def ask(gate: Gate, row: Step) -> Answer:
    try:
        raw = gate.patient.images.with_raw_response.edit(
            model=MODEL,
            prompt=next(prompts),
            image=("a.png", large() if row.large else PICTURE),
            extra_headers=dict(row.headers),
            **{"size": SIZE, **row.fields},
        )
    except openai.APIStatusError as error:
        return told(error.response)
    body = raw.http_response.json()
    return Answer(200, "", raw.headers.get("x-should-retry", "-"), "-", len(body["data"]))


def told(response: httpx2.Response) -> Answer:
    error = response.json()["error"]
    assert list(error) == ["message", "type", "param", "code"]
    says = "-"
    for phrase, word in {
        "Nothing was charged.": "nothing",
        "It is not known whether the provider charged for it.": "unknown",
        "It was charged": "charged",
    }.items():
        if phrase in error["message"]:
            says = word
    return Answer(response.status_code, error["code"], response.headers.get("x-should-retry", "-"), says, 0)


def measured(answer: Answer, found: Balance) -> dict[str, object]:
    return {
        "answer": f"{answer.status} {answer.code}".strip(),
        "x-should-retry": answer.retry,
        "says charged": answer.told,
        "submits": found.submitted,
        "billed": found.billed,
        "journal": found.states,
        "charged": str(found.charged),
        "pictures": found.pictures,
    }


def eventually(gate: Gate, row: Step, answer: Answer, since: Mark) -> tuple[dict[str, object], Balance]:
    """The numbers as soon as they are the row's, or as they are when its time is up."""
    deadline = time.monotonic() + row.seconds
    while True:
        found = balance(gate, since)
        numbers = measured(answer, found)
        if numbers == row.numbers or time.monotonic() > deadline:
            return numbers, found
        time.sleep(0.1)


def run(gate: Gate, row: Step) -> tuple[dict[str, object], Balance]:
    """The row's numbers, measured."""
    since = mark(gate)
    gate.sandbox.script(*row.rules)
    answer = ask(gate, row)
    gate.sandbox.clear_script()
    numbers, found = eventually(gate, row, answer, since)
    if numbers == row.numbers and not found.is_open:
        assert found.charged == found.bill
        assert not found.unknown
    return numbers, found
