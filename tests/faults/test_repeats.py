"""The same request once more: by an SDK that lost its patience, by a client with a key, by one that lost an answer."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from functools import partial
from typing import Any

import httpx2
import pytest

from tests.conftest import MODEL
from tests.fakes.sandbox import SandboxServer
from tests.faults.gate import EDITS, PICTURE, SIZE, Gate, at_once, events_of, until
from tests.faults.observe import Case
from tests.faults.rows import covers, on
from tests.faults.settle import Balance, about, balance, mark
from tests.faults.table import ROWS
from tests.media.pictures import sample

prompts = (f"repeat {number}" for number in itertools.count(1))
keys = (f"key-{number}" for number in itertools.count(1))


def edit(gate: Gate, prompt: str, headers: dict[str, str] | None = None, **settings: Any) -> int:
    """How many pictures the SDK brings."""
    with gate.sdk(**settings) as sdk:
        answer = sdk.images.edit(
            model=MODEL, prompt=prompt, image=("a.png", PICTURE), size=SIZE, extra_headers=headers or {}
        )
    return len(answer.data or [])


def keyed(gate: Gate, key: str, prompt: str = "keyed", **more: Any) -> httpx2.Response:
    return gate.ask(prompt, headers={"Idempotency-Key": key}, **more)


def statuses(answers: Sequence[httpx2.Response]) -> str:
    return ", ".join(str(answer.status_code) for answer in answers)


def replayed(answers: Sequence[httpx2.Response]) -> str:
    return ", ".join(answer.headers.get("idempotency-replayed", "-") for answer in answers)


def bought(found: Balance) -> dict[str, Any]:
    """What it cost; and the journal says the same as the books."""
    assert not found.unknown
    assert found.charged == found.bill
    return {
        "submits": found.submitted,
        "billed": found.billed,
        "cancelled": found.cancelled,
        "charged": str(found.charged),
        "pictures": found.pictures,
    }


def some(found: Balance, *names: str) -> dict[str, Any]:
    told = bought(found)
    return {name: told[name] for name in names}


# ---- SDKs that repeat by themselves


@covers("M5-sdk-timeout", "M5-sdk-timeout-key", "M5-sdk-timeouts")
def test_sdks_that_are_less_patient_than_their_jobs_buy_once(case: Case, shared: Gate, upstream: SandboxServer) -> None:
    upstream.script(on("submit", "run_for", None, seconds=3))
    alone, keyed, *eight = (next(prompts) for _ in range(10))
    impatient = partial(edit, shared, timeout=1, max_retries=5)
    brought = at_once(
        partial(impatient, alone),
        partial(impatient, keyed, {"Idempotency-Key": next(keys)}),
        *(partial(impatient, prompt) for prompt in eight),
    )
    case.saw(bought(about(shared, alone)), answer=200 if brought[0] == 1 else 0)
    Case(ROWS["M5-sdk-timeout-key"]).saw(bought(about(shared, keyed)), answer=200 if brought[1] == 1 else 0)
    answers = {"served": brought[2:].count(1)}
    Case(ROWS["M5-sdk-timeouts"]).saw(answers | some(about(shared, *eight), "billed", "charged", "pictures"))


@covers("M5-sdk-after-the-end")
def test_an_sdk_that_repeats_after_the_end_gets_the_answer_that_it_lost(case: Case, shared: Gate) -> None:
    since, prompt = mark(shared), next(prompts)
    answers = [
        shared.ask(prompt, n="2", headers={"x-stainless-retry-count": "0"}),
        shared.ask(prompt, n="2", headers={"x-stainless-retry-count": "1"}),
    ]
    assert replayed(answers) == "-, true"
    one, other = (sorted(picture["url"] for picture in answer.json()["data"]) for answer in answers)
    found = balance(shared, since)
    case.saw(
        {"answers": statuses(answers), "same pictures": one == other, "submits": found.submitted // 2}
        | {"charged": str(found.charged / 2)}
    )


@covers("M5-no-repeat")
def test_two_requests_that_look_alike_are_two(case: Case, shared: Gate) -> None:
    since, prompt = mark(shared), next(prompts)
    answers = [shared.ask(prompt), shared.ask(prompt)]
    found = balance(shared, since)
    case.saw({"answers": statuses(answers), "submits": found.submitted, "charged": str(found.charged)})


@covers("M5-late-repeat")
def test_a_repeat_of_what_was_just_cancelled_is_a_new_request(
    case: Case, shared: Gate, upstream: SandboxServer
) -> None:
    upstream.script(on("submit", "run_for", seconds=60))
    since, prompt = mark(shared), next(prompts)
    with shared.connect(timeout=0.5) as http, pytest.raises(httpx2.TimeoutException):
        shared.ask(prompt, headers={"x-stainless-retry-count": "0"}, http=http)
    # By the journal: until then the repeat is told to come again.
    until(lambda: balance(shared, since).states == "1 cancelled", what="the cancellation")
    answer = shared.ask(prompt, headers={"x-stainless-retry-count": "1"})
    found = balance(shared, since)
    case.saw(some(found, "submits", "cancelled", "billed", "charged"), answer=str(answer.status_code))


# ---- Idempotency-Key


@covers("M1-url")
def test_a_key_brings_the_same_urls_again(case: Case, shared: Gate) -> None:
    since, key = mark(shared), next(keys)
    answers = [keyed(shared, key) for _ in range(3)]
    same = len({answer.content for answer in answers}) == 1
    told = {"answers": statuses(answers), "same bytes": same, "replayed": replayed(answers)}
    case.saw(told | some(balance(shared, since), "submits"))


@covers("M1-b64")
def test_a_key_brings_the_same_base64_again(case: Case, shared: Gate) -> None:
    since, key = mark(shared), next(keys)
    answers = [keyed(shared, key, n="2", seed="5", response_format="b64_json") for _ in range(3)]
    assert len(answers[0].json()["data"]) == 2
    same = len({answer.content for answer in answers}) == 1
    told = {"answers": statuses(answers), "same bytes": same, "replayed": replayed(answers)}
    case.saw(told | some(balance(shared, since), "submits"))


@covers("M1-stream")
def test_a_key_brings_the_same_events_again(case: Case, shared: Gate) -> None:
    since, key = mark(shared), next(keys)
    answers = [
        keyed(shared, key, n="2", seed="5", stream="true", response_format="b64_json", output_format="jpeg")
        for _ in range(3)
    ]
    streams = [{data["index"]: data["b64_json"] for _, data in events_of(answer.text)} for answer in answers]
    assert set(streams[0]) == {0, 1}
    same = streams[0] == streams[1] == streams[2]
    told = {"answers": statuses(answers), "same pictures": same, "replayed": replayed(answers)}
    case.saw(told | some(balance(shared, since), "submits"))


@covers("M1-error")
def test_a_key_brings_an_error_again_that_cost_something(case: Case, shared: Gate, upstream: SandboxServer) -> None:
    upstream.script(on("submit", "nsfw"))
    since, key = mark(shared), next(keys)
    answers = [keyed(shared, key), keyed(shared, key)]
    same = answers[0].content == answers[1].content
    told = {"answers": statuses(answers), "same bytes": same}
    case.saw(told | some(balance(shared, since), "submits", "charged"))


@covers("M1-error-told")
def test_an_error_that_is_told_again_says_so(case: Case, shared: Gate, upstream: SandboxServer) -> None:
    upstream.script(on("submit", "nsfw"))
    key = next(keys)
    case.saw(replayed=replayed([keyed(shared, key), keyed(shared, key)]))


@covers("M1-free-error")
def test_a_key_whose_request_failed_for_nothing_is_a_new_try(case: Case, shared: Gate, upstream: SandboxServer) -> None:
    upstream.script(on("submit", "rate_limit", retry_after=30))
    since, key = mark(shared), next(keys)
    headers = {"Idempotency-Key": key, "x-request-timeout": "2"}
    answers = [shared.ask("free", headers=headers), shared.ask("free", headers=headers)]
    told = {"answers": statuses(answers), "replayed": replayed(answers)}
    case.saw(told | some(balance(shared, since), "submits", "charged"))


@covers("M2-at-once")
def test_fifty_at_once_with_one_key_buy_once(case: Case, shared: Gate, upstream: SandboxServer) -> None:
    upstream.script(on("submit", "run_for", None, seconds=1))
    since, key = mark(shared), next(keys)
    with shared.connect(limits=httpx2.Limits(max_connections=None)) as http:
        answers = at_once(*[partial(keyed, shared, key, "fifty", http=http)] * 50)
    told = {
        "served": [answer.status_code for answer in answers].count(200),
        "different bodies": len({answer.content for answer in answers}),
    }
    case.saw(told | some(balance(shared, since), "submits", "charged"))


@covers("M3-other-body")
def test_a_key_of_another_request_is_refused(case: Case, shared: Gate) -> None:
    since, key = mark(shared), next(keys)
    assert keyed(shared, key, "first").status_code == 200
    other = sample("jpeg")
    answers = [
        keyed(shared, key, "second"),
        keyed(shared, key, "first", picture=other),
        keyed(shared, key, "first", n="2"),
    ]
    told = {
        "answers": statuses(answers),
        "codes": ", ".join({answer.json()["error"]["code"] for answer in answers}),
        "x-should-retry": ", ".join({answer.headers["x-should-retry"] for answer in answers}),
    }
    case.saw(told | some(balance(shared, since), "submits"))


@covers("M3-other-body-running")
def test_a_key_of_another_request_that_is_running_is_refused(case: Case, shared: Gate, upstream: SandboxServer) -> None:
    upstream.script(on("submit", "run_for", None, seconds=1))
    since, key = mark(shared), next(keys)

    def second() -> httpx2.Response:
        until(lambda: len(upstream.jobs()) > len(since.jobs), what="the first one's job")
        return keyed(shared, key, "second")

    answers = at_once(partial(keyed, shared, key, "first"), second)
    case.saw(some(balance(shared, since), "submits", "charged"), answers=statuses(answers))


@covers("M4-bad-key")
def test_a_key_that_is_none_is_refused_by_name(case: Case, shared: Gate) -> None:
    since = mark(shared)
    bad: list[list[bytes]] = [[b""], [b"x" * 256], ["schlüssel".encode()], [b"a\tb"], [b"one", b"two"]]
    answers = []
    for values in bad:
        headers = [(b"idempotency-key", value) for value in values]
        form = {"model": MODEL, "prompt": "a", "size": SIZE}
        answers.append(shared.http.post(EDITS, data=form, files={"image": PICTURE}, headers=headers))
    params = {answer.json()["error"]["param"] for answer in answers}
    case.saw(some(balance(shared, since), "submits"), answers=statuses(answers), param=", ".join(params))


@covers("M4-long-key")
def test_a_key_of_255_characters_is_one(case: Case, shared: Gate) -> None:
    since, key = mark(shared), next(keys).ljust(255, "~")
    answers = [keyed(shared, key), keyed(shared, key)]
    case.saw(some(balance(shared, since), "submits"), answers=statuses(answers))


@covers("M4-invalid-request")
def test_a_refusal_is_not_kept_under_its_key(case: Case, shared: Gate) -> None:
    since, key = mark(shared), next(keys)
    answers = [keyed(shared, key, n="0"), keyed(shared, key, n="1")]
    case.saw(some(balance(shared, since), "submits"), answers=statuses(answers))
