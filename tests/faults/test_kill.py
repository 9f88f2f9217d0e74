"""kill -9 at any instant: what upstream accepted is neither lost nor bought again."""

from __future__ import annotations

import os
import random
import signal
import sqlite3
import threading
import time
from collections.abc import Sequence
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import httpx2
from PIL import Image

from tests.faults.gate import Gate, events_of, until
from tests.faults.killable import PLACES
from tests.faults.observe import Case
from tests.faults.rows import Rule, on
from tests.faults.scenes import Group, Stage
from tests.faults.settle import NOTHING, Balance, balance
from tests.faults.table import ROWS
from tests.media.pictures import photo, saved

REQUESTS = int(os.environ.get("FAULTS_KILLS", "60"))
"""So many requests while the gateway is killed at random times."""
ROUND = 12  # between two kills
SEED = int(os.environ.get("FAULTS_SEED", "0")) or random.SystemRandom().randrange(1, 2**31)

MASK = saved(photo("RGBA"), "png")
KILLS = Group("test_killed")


def test_killed(tmp_path: Path) -> None:
    KILLS.play(tmp_path, 120 + REQUESTS)


def doomed(gate: Gate, prompt: str, *, patience: float = 60, **more: Any) -> httpx2.Response | None:
    """The answer, if there is one before the gateway is killed, or the client loses its patience."""
    with suppress(httpx2.TransportError), gate.connect(timeout=patience) as http:
        return gate.ask(prompt, http=http, **more)
    return None


def settled(gate: Gate, seconds: float = 60) -> Balance:
    """As soon as every job's fate is known, save for those that upstream has never heard of."""

    def look() -> Balance | None:
        if gate.records(state="running"):
            return None
        found = balance(gate, NOTHING)
        undecided = [job for job in found.journal if job["state"] in ("intent", "submitted", "cancelling", "lost")]
        return None if found.unknown or undecided else found

    return until(look, seconds, every=0.3, what="the end of all jobs")


def half_files(gate: Gate) -> int:
    """Files under a picture's name that are not pictures."""
    bad = 0
    for path in (gate.data / "files").glob("*/*.*"):
        if path.parent.name != "tmp":  # what is being written, or was when it was killed
            try:
                Image.open(path).load()
            except OSError:
                bad += 1
    return bad


def evenness(found: Balance) -> dict[str, Any]:
    return {
        "bought twice": found.twice,
        "unknown jobs": len(found.unknown),
        "charged = billed": found.charged == found.bill,
        "pictures = billed jobs": found.pictures == found.billed,
    }


# ---- at named places


def killed_at(stage: Stage, places: Sequence[str]) -> dict[str, Any]:
    gate = stage.gate(killable=places[0])
    for number, place in enumerate(places):
        if number:
            gate.killable = place
            gate.start()
        assert doomed(gate, f"killed {place}", n="2", seed="1", headers={"Idempotency-Key": place}) is None
        assert gate.ended(30) == -9, place
    gate.restart()
    found = settled(gate)
    ambiguous = sum(job["state"] == "ambiguous" for job in found.journal)
    return evenness(found) | {"killed": len(places), "ambiguous": ambiguous}


@KILLS.scene("M10-places-before")
def killed_before_there_is_a_job(stage: Stage) -> dict[str, Any]:
    return killed_at(stage, [f"{name}:before" for name in PLACES][:5])


@KILLS.scene("M10-places-after")
def killed_when_there_is_one(stage: Stage) -> dict[str, Any]:
    return killed_at(stage, [*(f"{name}:before" for name in PLACES), "answer:after"][5:])


# ---- at random


def mixed(dice: random.Random, number: int) -> tuple[float, dict[str, str], dict[str, Any]]:
    """One of many kinds of request: how long its client waits, its headers, with a key if it has one, its fields."""
    fields: dict[str, Any] = {"n": str(dice.choice((1, 1, 2, 3))), "seed": str(number * 10)}
    fields |= {"prompt": f"random {number}"}
    fields["response_format"] = dice.choice(("url", "b64_json"))
    if (kind := dice.choice(("", "png", "jpeg", "webp"))) != "":
        fields["output_format"] = kind
    if dice.random() < 0.2:
        fields["stream"] = "true"
    if dice.random() < 0.2:
        fields |= {"mask": MASK, "size": "64x48"}
    patience = dice.choice((60, 60, 60, 60, dice.uniform(0.1, 1)))
    return patience, ({"Idempotency-Key": f"key {number}"} if dice.random() < 0.5 else {}), fields


def told_of(answer: httpx2.Response | None) -> int:
    """Pictures that a client has in its hands."""
    if answer is None or answer.status_code != 200:
        return 0
    if answer.headers["content-type"].startswith("text/event-stream"):
        return sum(name == "image_edit.completed" for name, _ in events_of(answer.text))
    return len(answer.json()["data"])


def killed_again_and_again(stage: Stage, *rules: Rule) -> dict[str, Any]:
    dice = random.Random(SEED)
    print(f"FAULTS_SEED={SEED}")  # noqa: T201 - shown when it fails
    asked: list[tuple[float, dict[str, str], dict[str, Any]]] = []
    gate, sandbox = stage.gate(), stage.sandbox
    sandbox.script(*rules)
    while len(asked) < REQUESTS:
        new = [mixed(dice, len(asked) + number) for number in range(ROUND)]
        asked += new
        threads = [
            threading.Thread(target=doomed, args=(gate,), kwargs={"patience": patience, "headers": headers, **fields})
            for patience, headers, fields in new
        ]
        for thread in threads:
            thread.start()
        time.sleep(dice.uniform(0.05, 1.5))
        gate.kill()
        for thread in threads:
            thread.join(30)
        gate.restart()
    settled(gate, 90)
    sandbox.clear_script()
    answers = [gate.ask(headers=headers, **fields) for _, headers, fields in asked if headers]
    # Ambiguous is an answer, too; a part of the pictures is, where the gateway died before it asked for the rest.
    wrong = [answer.text for answer in answers if not told_of(answer) and "upstream_ambiguous" not in answer.text]
    found = settled(gate)
    gate.terminate()
    assert gate.ended() == 0
    with closing(sqlite3.connect(gate.data / "imagegate.db")) as database:
        (verdict,) = database.execute("PRAGMA integrity_check").fetchone()
    told = {"requests": len(asked), "still running": 0, "database": verdict, "half files": half_files(gate)}
    return evenness(found) | told | {"wrong answers to repeats": len(wrong)}


def often(chance: float, point: str, fault: str, **args: Any) -> Rule:
    return {**on(point, fault, None, **args), "chance": chance}


SLOW = (often(0.4, "submit", "run_for", seconds=0.5), often(0.2, "submit", "delay", seconds=0.3))


@KILLS.scene("M10-random", "D3-sound")
def killed_at_random_times(stage: Stage) -> dict[str, Any]:
    numbers = killed_again_and_again(stage, *SLOW)
    Case(ROWS["D3-sound"]).saw(database=numbers["database"])
    return numbers


@KILLS.scene("M10-random-flaky")
def killed_at_random_times_while_the_provider_is_flaky(stage: Stage) -> dict[str, Any]:
    flaky = (
        often(0.1, "submit", "drop_after"),
        often(0.1, "submit", "drop_before"),
        often(0.1, "status", "http", status=500),
        often(0.1, "result", "lose_result"),
        often(0.1, "cdn", "http", status=404),
        often(0.2, "cancel", "cancel_too_late"),
        often(0.2, "cancel", "cancel_ignored"),
    )
    return killed_again_and_again(stage, *flaky, *SLOW)


# ---- at special moments


@KILLS.scene("M10-held")
def killed_while_the_provider_is_slow(stage: Stage) -> dict[str, Any]:
    held = {
        "submit, no job": on("submit", "hang"),
        "submit, a job": on("submit", "hang", late=True),
        "status": on("status", "delay", None, seconds=3),
        "result": on("result", "delay", None, seconds=3),
        "download": on("cdn", "delay", None, seconds=3),
    }
    gate, sandbox = stage.gate(killable="nowhere"), stage.sandbox
    for number, (step, rule) in enumerate(held.items()):
        if number:
            gate.start()
        sandbox.script(rule)
        asking = threading.Thread(target=doomed, args=(gate, f"held at {step}"))
        asking.start()
        until(lambda: sandbox.rules()[0]["struck"], what=f"the {step}")
        if step == "submit, a job":
            until(sandbox.jobs, what="the job")
        gate.kill()
        asking.join()
        sandbox.clear_script()
    gate.restart()
    found = settled(gate)
    told = {"killed": len(held), "submits": found.submitted, "bought twice": found.twice}
    more = {"journal": found.states, "charged": str(found.charged), "pictures": found.pictures}
    return told | more | {"unknown jobs": len(found.unknown)}


@KILLS.scene("M10-late-submit")
def killed_after_a_504_while_the_submit_goes_on(stage: Stage) -> dict[str, Any]:
    gate = stage.gate()
    stage.sandbox.script(on("submit", "hang", late=True))
    answer = doomed(gate, "late", headers={"x-request-timeout": "1"})
    assert answer is not None
    gate.kill()
    gate.restart()
    with suppress(AssertionError):
        until(lambda: balance(gate, NOTHING).states == "1 done", 12, every=0.3)
    found = balance(gate, NOTHING)
    told = {"answer": answer.status_code, "submits": found.submitted, "unknown jobs": len(found.unknown)}
    return told | {"journal": found.states, "charged": str(found.charged), "pictures": found.pictures}


@KILLS.scene("M10-b64")
def killed_between_two_pictures_in_base64(stage: Stage) -> dict[str, Any]:
    gate = stage.gate()
    stage.sandbox.script(on("submit", "run_for", after=1, seconds=3))
    more = {"n": "2", "seed": "1", "response_format": "b64_json"}
    asking = threading.Thread(target=doomed, args=(gate, "base64"), kwargs=more)
    asking.start()
    until(lambda: gate.rows("SELECT 1 FROM jobs WHERE state = 'done'"), what="the first picture")
    gate.kill()
    asking.join()
    gate.restart()
    found = settled(gate)
    told = {"submits": found.submitted, "billed": found.billed, "journal": found.states}
    return told | {"charged": str(found.charged), "pictures": found.pictures}


@KILLS.scene("L4-restart")
def a_start_right_after_a_kill(stage: Stage) -> dict[str, Any]:
    gate = stage.gate()
    stage.sandbox.script(on("submit", "run_for", None, seconds=3))
    asking = threading.Thread(target=doomed, args=(gate, "restart"), kwargs={"n": "4", "seed": "1"})
    asking.start()
    until(lambda: len(gate.rows("SELECT 1 FROM jobs WHERE state = 'submitted'")) == 4, what="four tickets")
    pid = gate.child.pid
    gate.kill()
    asking.join()
    orphans = [one for one in Path("/proc").glob("[0-9]*/stat") if parent(one) == pid]
    gate.restart()
    started = gate.http.get("/healthz").status_code == 200
    found = settled(gate)
    told = {"started": started, "orphans": len(orphans), "half files": half_files(gate)}
    return told | {"journal": found.states, "charged": str(found.charged), "pictures": found.pictures}


@KILLS.scene("M1-killed")
def a_key_outlives_a_kill_in_the_middle_of_its_job(stage: Stage) -> dict[str, Any]:
    gate = stage.gate()
    key = {"Idempotency-Key": "k"}
    stage.sandbox.script(on("submit", "run_for", seconds=1))
    asking = threading.Thread(target=doomed, args=(gate, "keyed"), kwargs={"headers": key})
    asking.start()
    until(lambda: gate.rows("SELECT 1 FROM jobs WHERE state = 'submitted'"), what="the job's ticket")
    gate.kill()
    asking.join()
    gate.restart()
    answer = gate.ask("keyed", headers=key)
    assert told_of(answer) == 1, answer.text
    found = settled(gate)
    told = {"answer": answer.status_code, "submits": found.submitted, "billed": found.billed}
    return told | {"charged": str(found.charged), "pictures": found.pictures}


def parent(stat: Path) -> int:
    with suppress(OSError):
        return int(stat.read_text().rpartition(")")[2].split()[1])
    return 0


# ---- two gateways on one journal


@KILLS.scene("M10-neighbour")
def a_neighbour_takes_over(stage: Stage) -> dict[str, Any]:
    killed, neighbour = stage.pair()
    stage.sandbox.script(on("submit", "run_for", None, seconds=2))
    more = {"n": "2", "seed": "1", "headers": {"Idempotency-Key": "k"}}
    asking = threading.Thread(target=doomed, args=(killed, "neighbour"), kwargs=more)
    asking.start()
    until(lambda: len(killed.rows("SELECT 1 FROM jobs WHERE state = 'submitted'")) == 2, what="two tickets")
    killed.kill()
    asking.join()
    answer = neighbour.ask("neighbour", **more)
    found = settled(neighbour)
    told = {"answer": answer.status_code, "in the answer": told_of(answer), "submits": found.submitted}
    return told | {"journal": found.states, "charged": str(found.charged), "pictures": found.pictures}


@KILLS.scene("M2-neighbour")
def a_neighbour_waits_for_who_is_at_it(stage: Stage) -> dict[str, Any]:
    one, other = stage.pair()
    stage.sandbox.script(on("submit", "run_for", None, seconds=2))
    first: list[httpx2.Response | None] = []
    key = {"Idempotency-Key": "k"}
    asking = threading.Thread(target=lambda: first.append(doomed(one, "both", headers=key)))
    asking.start()
    until(stage.sandbox.jobs, what="the job")
    second = other.ask("both", headers=key)
    asking.join()
    answers = [*first, second]
    found = settled(other)
    told = {"answers": ", ".join(str(answer and answer.status_code) for answer in answers)}
    same = len({answer.json()["id"] for answer in answers if answer}) == 1
    return told | {"same request": same, "submits": found.submitted, "charged": str(found.charged)}


@KILLS.scene("M10-paused")
def a_process_that_slept_charges_nothing_again(stage: Stage) -> dict[str, Any]:
    paused, neighbour = stage.pair()
    stage.sandbox.script(on("submit", "run_for", None, seconds=1))
    answers: list[httpx2.Response | None] = []
    asking = threading.Thread(target=lambda: answers.append(doomed(paused, "paused")))
    asking.start()
    until(lambda: paused.rows("SELECT 1 FROM jobs WHERE state = 'submitted'"), what="the ticket")
    paused.child.signal(signal.SIGSTOP)
    try:
        until(lambda: balance(neighbour, NOTHING).states == "1 done", 30, every=0.2, what="the neighbour's work")
    finally:
        paused.child.signal(signal.SIGCONT)
    asking.join(30)
    found = settled(neighbour)
    [answer] = answers
    told = {"answer": answer and answer.status_code, "submits": found.submitted, "journal": found.states}
    return told | {"charged": str(found.charged), "pictures": found.pictures}
