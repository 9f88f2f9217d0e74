"""Faults that take their time: what hangs, what lags, what is locked, what fails again and again."""

from __future__ import annotations

import itertools
import re
import sqlite3
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import httpx2
import openai

from tests.conftest import MODEL, Json
from tests.faults.gate import PICTURE, SIZE, Gate, at_once, until
from tests.faults.observe import Case
from tests.faults.rows import Rule, Step, on
from tests.faults.scenes import Group, Stage
from tests.faults.settle import NOTHING, Balance, assert_even, at_once_upstream, balance, mark
from tests.faults.step import run
from tests.faults.table import ROWS, STEPS
from tests.faults.test_leaving import asking, ended, told

prompts = (f"waits {number}" for number in itertools.count(1))
WAITS = Group("test_what_takes_its_time")


def test_what_takes_its_time(tmp_path: Path) -> None:
    WAITS.play(tmp_path)


def settled(gate: Gate, states: str, seconds: float = 40) -> Balance:
    """As soon as the journal's jobs are in these states; and the books agree."""

    def look() -> Balance | None:
        found = balance(gate, NOTHING)
        return found if found.states == states else None

    found = until(look, seconds, every=0.3, what=f"the journal's '{states}'")
    if not found.is_open:
        assert_even(found)
    return found


def word(answer: httpx2.Response) -> str:
    return f"{answer.status_code} {answer.json()['error']['code']}"


def kept(found: Balance) -> dict[str, Any]:
    told = {"submits": found.submitted, "journal": found.states, "charged": str(found.charged)}
    return told | {"pictures": found.pictures}


# ---- hanging


@WAITS.scene("U7-hanging", "M11-hang")
def what_hung_leaves_nothing_behind(stage: Stage) -> dict[str, Any]:
    gate, sandbox = stage.gate(), stage.sandbox
    assert gate.ask(next(prompts)).status_code == 200
    before, start = descriptors(gate), mark(gate)
    with gate.connect(limits=httpx2.Limits(max_connections=None)) as http:

        def twenty(*rules: Rule) -> list[httpx2.Response]:
            sandbox.script(*rules)
            asked = partial(gate.ask, headers={"x-request-timeout": "2"}, http=http)
            return at_once(*[partial(asked, next(prompts)) for _ in range(20)])

        lost = twenty(on("submit", "hang", 10), on("submit", "hang", 10, late=True))
        middle = mark(gate)
        late = twenty(on("status", "hang", 10), on("result", "hang", 10))

    def known() -> Balance | None:
        found = balance(gate, start, middle)
        return found if found.states == "10 ambiguous, 10 done" else None

    found = until(known, 40, every=0.3, what="the end of the submits that hung")
    assert {"not known whether the provider charged" in answer.text for answer in lost} == {True}
    answers = ", ".join({str(answer.status_code) for answer in lost})
    numbers = {"submits": found.submitted, "journal": found.states, "pictures": found.pictures}
    Case(ROWS["M11-hang"]).saw({"answers": answers, "says charged": "unknown"} | numbers)
    until(lambda: descriptors(gate) - before < 20, 30, every=0.2, what="the end of what hung")
    answered = [answer for answer in (*lost, *late) if answer.status_code in (200, 504)]
    more = {"sockets and files more than before": max(descriptors(gate) - before, 0)}
    return {"answered": len(answered), "bought twice": balance(gate, start).twice} | more


def descriptors(gate: Gate) -> int:
    return len(list(Path(f"/proc/{gate.child.pid}/fd").iterdir()))


# ---- looked for again


def step(stage: Stage, row: Step) -> dict[str, Any]:
    gate = stage.gate()
    numbers, _ = run(gate, row)
    return numbers


for row in STEPS:
    if row.slow:
        WAITS.scene(row.id)(partial(step, row=row))


@WAITS.scene("M11-unlisted")
def what_cannot_be_recognised_stays_ambiguous(stage: Stage) -> dict[str, Any]:
    gate, sandbox = stage.gate(), stage.sandbox
    sandbox.script(on("submit", "drop_after"), on("list", "list_no_payloads", None))
    answer = gate.ask(next(prompts))
    until(lambda: sandbox.rules()[1]["struck"] >= 2, 30, every=0.2, what="a second look at the list")
    found = balance(gate, NOTHING)
    [record] = found.records
    told = {"answer": word(answer), "submits": found.submitted, "journal": found.states}
    return told | {"reserved": str(record["reserved"])}


@WAITS.scene("M11-late-list")
def a_list_that_lags_is_looked_at_again(stage: Stage) -> dict[str, Any]:
    gate = stage.gate()
    stage.sandbox.script(on("submit", "drop_after"), on("list", "list_lag", 2))
    answer = gate.ask(next(prompts))
    return {"answer": word(answer)} | kept(settled(gate, "1 done"))


# ---- the database is locked


@contextmanager
def locked(gate: Gate) -> Iterator[None]:
    """Another process's write transaction."""
    with closing(sqlite3.connect(gate.data / "imagegate.db", timeout=10, isolation_level=None)) as database:
        database.execute("BEGIN IMMEDIATE")
        yield
        database.execute("ROLLBACK")


@WAITS.scene("D2-locked")
def a_locked_database_is_said_before_anything_is_bought(stage: Stage) -> dict[str, Any]:
    gate = stage.gate()
    answers: list[httpx2.Response] = []
    healthy = 0
    with locked(gate):
        thread = threading.Thread(target=lambda: answers.append(gate.ask(next(prompts))))
        thread.start()
        with gate.connect(timeout=2) as http:
            while thread.is_alive():
                healthy += http.get("/healthz").status_code == 200
                thread.join(0.05)
    [answer] = answers
    submits = stage.sandbox.totals()["submitted"]
    after = until(lambda: (one := gate.ask(next(prompts))).status_code == 200 and one, what="a picture")
    return {
        "answer": word(answer),
        "Retry-After": answer.headers.get("retry-after", "").isdecimal(),
        "/healthz meanwhile": healthy,
        "submits": submits,
        "after": after.status_code,
    }


@WAITS.scene("D2-locked-later")
def a_database_that_is_locked_under_way_costs_no_picture(stage: Stage) -> dict[str, Any]:
    gate = stage.gate()
    stage.sandbox.script(on("submit", "run_for", seconds=1))
    answers: list[httpx2.Response] = []
    thread = threading.Thread(target=lambda: answers.append(gate.ask(next(prompts))))
    thread.start()
    until(lambda: gate.rows("SELECT 1 FROM jobs WHERE job IS NOT NULL"), what="the ticket")
    with locked(gate):
        thread.join(7)
    thread.join(30)
    return {"answer": answers[0].status_code} | kept(settled(gate, "1 done"))


# ---- clients that leave


def left(gate: Gate) -> dict[str, Any]:
    """What came of a request whose client has gone."""
    return told(ended(gate, NOTHING))


@WAITS.scene("L1-finish")
def on_disconnect_finish_goes_on(stage: Stage) -> dict[str, Any]:
    gate = stage.gate(on_disconnect="finish")
    stage.sandbox.script(on("submit", "run_for", seconds=1))
    with asking(gate):
        until(stage.sandbox.jobs, what="the job")
    return left(gate)


@WAITS.scene("L1-ignored")
def a_job_that_does_not_stop_is_charged_and_kept(stage: Stage) -> dict[str, Any]:
    gate = stage.gate()
    stage.sandbox.script(on("submit", "run_for", seconds=2), on("cancel", "cancel_ignored"))
    with asking(gate):
        until(stage.sandbox.jobs, what="the job")
    return left(gate)


@WAITS.scene("L1-b64")
def who_leaves_between_two_pictures_in_base64_keeps_the_first(stage: Stage) -> dict[str, Any]:
    gate = stage.gate()
    stage.sandbox.script(on("submit", "run_for", after=1, seconds=60))
    with asking(gate, n="2", seed="1", response_format="b64_json"):
        until(lambda: stage.sandbox.totals()["collected"], what="the first picture")
        time.sleep(0.3)  # until it is read: it may not be in the journal before the end
    return left(gate)


@WAITS.scene("L1-two-waiters")
def one_of_two_waiters_may_leave(stage: Stage) -> dict[str, Any]:
    gate, prompt = stage.gate(), next(prompts)
    stage.sandbox.script(on("submit", "run_for", seconds=2))

    def leaver() -> None:
        with gate.connect(timeout=1) as http, suppress(httpx2.TimeoutException):
            gate.ask(prompt, headers={"x-stainless-retry-count": "0"}, http=http)

    leaving = threading.Thread(target=leaver)
    leaving.start()
    until(stage.sandbox.jobs, what="the job")
    answer = gate.ask(prompt, headers={"x-stainless-retry-count": "1"})
    leaving.join()
    return {"answer": answer.status_code} | left(gate)


@WAITS.scene("U5-timeout-partial")
def a_deadline_does_not_take_what_is_there(stage: Stage) -> dict[str, Any]:
    gate = stage.gate()
    stage.sandbox.script(on("submit", "run_for", after=1, seconds=60))
    answer = gate.ask(next(prompts), n="3", seed="1", headers={"x-request-timeout": "6"})
    assert len(answer.json()["data"]) == 2
    return {"answer": str(answer.status_code)} | told(ended(gate, NOTHING), "journal")


@WAITS.scene("U5-config")
def an_operators_deadline_holds_for_all(stage: Stage) -> dict[str, Any]:
    gate = stage.gate(request_seconds="1")
    stage.sandbox.script(on("submit", "run_for", seconds=60))
    answer = gate.ask(next(prompts))
    heads = {"answer": word(answer), "x-should-retry": answer.headers["x-should-retry"]}
    return heads | told(ended(gate, NOTHING), "pictures")


# ---- turns


@WAITS.scene("L1-waiting")
def who_leaves_the_queue_buys_nothing(stage: Stage) -> dict[str, Any]:
    gate = stage.gate(limits_jobs="1")
    stage.sandbox.script(on("submit", "run_for", seconds=3))
    with asking(gate):
        until(stage.sandbox.jobs, what="the first one's job")
        with asking(gate):
            until(lambda: waiting(gate) == 1, what="who waits for its turn")
        until(lambda: balance(gate, NOTHING).pictures, what="the first one's picture")
    assert gate.ask(next(prompts)).status_code == 200, "nobody is left in the queue"
    found = settled(gate, "2 done")
    told = {"submits": found.submitted, "cancelled": found.cancelled, "billed": found.billed}
    return told | {"charged": str(found.charged)}


def waiting(gate: Gate) -> int:
    """Jobs that wait for their turn."""
    found = re.search(r"^imagegate_jobs_waiting\{.*\} (\d+)", gate.http.get("/metrics").text, re.MULTILINE)
    return int(found[1]) if found else 0


@WAITS.scene("Q4-queue")
def what_cannot_wait_is_refused_before_it_costs_anything(stage: Stage) -> dict[str, Any]:
    gate = stage.gate(limits_jobs="2", limits_queue="3")
    stage.sandbox.script(on("submit", "run_for", None, seconds=2))
    served: list[httpx2.Response] = []
    with gate.connect(limits=httpx2.Limits(max_connections=None)) as http:

        def crowd(count: int) -> list[httpx2.Response]:
            return at_once(*[partial(gate.ask, next(prompts), http=http) for _ in range(count)])

        first = threading.Thread(target=lambda: served.extend(crowd(5)))
        first.start()
        until(lambda: len(stage.sandbox.jobs()) == 2, what="two jobs")
        until(lambda: waiting(gate) == 3, what="three that wait")
        refused = crowd(7)
        first.join()
    found = balance(gate, NOTHING)
    answers = Counter(answer.status_code for answer in (*served, *refused))
    return {
        "answers": ", ".join(f"{count} × {status}" for status, count in sorted(answers.items())),
        "Retry-After": all(answer.headers["retry-after"].isdecimal() for answer in refused),
        "at once upstream": at_once_upstream(found),
        "submits": found.submitted,
        "charged": str(found.charged),
    }


def edited(sdk: openai.OpenAI, prompt: str) -> bool:
    """Whether the SDK brings a picture."""
    try:
        sdk.images.edit(model=MODEL, prompt=prompt, image=("a.png", PICTURE), size=SIZE)
    except (openai.APIStatusError, openai.APITimeoutError):
        return False
    return True


@WAITS.scene("Q4-sdk")
def sdks_that_are_refused_come_back_until_they_are_served(stage: Stage) -> dict[str, Any]:
    gate = stage.gate(limits_jobs="2", limits_queue="2")
    stage.sandbox.script(on("submit", "run_for", None, seconds=0.5))
    assert gate.ask(next(prompts)).status_code == 200  # now it knows how long a job takes
    since = mark(gate)
    with gate.sdk(max_retries=10) as sdk:
        served = at_once(*[partial(edited, sdk, next(prompts)) for _ in range(8)])
    found = balance(gate, since)
    told = {"served": served.count(True), "bought twice": found.twice, "charged": str(found.charged)}
    return told | {"at once upstream": at_once_upstream(found)}


@WAITS.scene("M5-gives-up")
def an_sdk_that_does_not_come_back_is_not_charged(stage: Stage) -> dict[str, Any]:
    gate = stage.gate()
    stage.sandbox.script(on("submit", "run_for", None, seconds=60))
    with gate.sdk(timeout=1, max_retries=1) as sdk:
        for _ in range(3):
            since = mark(gate)
            assert not edited(sdk, next(prompts))
            found = ended(gate, since)
            if found.submitted == 1:  # else this machine was so busy that the repeat came too late to be one
                break
    return told(found, "journal", "pictures")


# ---- a provider that is flaky


@WAITS.scene("U3-flaky")
def an_upstream_that_fails_for_every_third_call_is_hardly_noticed(stage: Stage) -> dict[str, Any]:
    gate = stage.gate()

    def flaky(point: str, fault: str, **args: Any) -> Json:
        return {**on(point, fault, None, **args), "chance": 0.3}

    stage.sandbox.script(
        flaky("submit", "infra_error", error_type="runner_scheduling_failure", at="reply"),
        flaky("status", "http", status=500),
        flaky("result", "http", status=502),
        flaky("cdn", "http", status=503),
    )
    served: list[bool] = []
    with gate.sdk() as sdk:
        for at_a_time in (100, 200):  # a few in a thousand meet five faults in a row: two in the first hundred may
            served += at_once(*[partial(edited, sdk, next(prompts)) for _ in range(at_a_time)])
            if served.count(True) >= 0.99 * len(served):
                break
    found = balance(gate, NOTHING)
    told = {"% served": 100 * served.count(True) / len(served), "submits for each": found.submitted / len(served)}
    return told | {"bought twice": found.twice, "charged = billed": found.charged == found.bill}
