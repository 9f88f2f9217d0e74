"""Clients that leave, and deadlines that come: what is not wanted any more is cancelled, what is paid for is kept."""

from __future__ import annotations

import itertools
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx2
import pytest

from tests.api.raw import fields, file, form, head
from tests.fakes.sandbox import SandboxServer
from tests.faults.gate import Gate, until
from tests.faults.observe import Case
from tests.faults.rows import covers, on
from tests.faults.settle import Balance, Mark, assert_even, balance, mark

prompts = (f"leaving {number}" for number in itertools.count(1))


@contextmanager
def asking(gate: Gate, *headers: str, **more: str) -> Iterator[socket.socket]:
    """A connection on which a request has been sent; leaving the block closes it."""
    body = form(*fields(**{"prompt": next(prompts), "size": "256x256", **more}), file())
    address = gate.http.base_url.host, gate.http.base_url.port
    with socket.create_connection(address, timeout=30) as connection:  # type: ignore[arg-type]
        connection.sendall(head(len(body), more="\r\n".join(headers)) + body)
        yield connection


def jobs(gate: Gate, since: Mark, count: int = 1) -> None:
    """Wait until so many have been bought."""
    until(lambda: len(gate.sandbox.jobs()) - len(since.jobs) >= count, what=f"{count} submits")


def ended(gate: Gate, since: Mark, seconds: float = 20) -> Balance:
    """As soon as the journal knows how everything ended."""

    def look() -> Balance | None:
        found = balance(gate, since)
        return None if found.is_open or not found.records else found

    found = until(look, seconds, every=0.1, what="the journal's end of it")
    assert_even(found)
    return found


def told(found: Balance, *left_out: str) -> dict[str, Any]:
    numbers = {
        "submits": found.submitted,
        "cancelled": found.cancelled,
        "billed": found.billed,
        "journal": found.states,
        "charged": str(found.charged),
        "pictures": found.pictures,
    }
    return {name: value for name, value in numbers.items() if name not in left_out}


def hang_up(gate: Gate, *, reset: bool = False) -> Mark:
    """Ask, and leave when the jobs have been bought."""
    since = mark(gate)
    with asking(gate) as connection:
        jobs(gate, since)
        if reset:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    return since


def cancelled_soon(gate: Gate, since: Mark) -> None:
    until(lambda: balance(gate, since).cancelled, 3, what="the cancellation")


# ---- hanging up


@covers("L1-running")
def test_who_hangs_up_cancels_a_running_job(case: Case, shared: Gate, upstream: SandboxServer) -> None:
    upstream.script(on("submit", "run_for", seconds=60))
    since = hang_up(shared)
    cancelled_soon(shared, since)
    case.saw(told(ended(shared, since), "pictures"))


@covers("L1-queued")
def test_who_hangs_up_cancels_a_queued_job(case: Case, shared: Gate, upstream: SandboxServer) -> None:
    upstream.script(on("submit", "queue_for", seconds=60))
    since = hang_up(shared, reset=True)
    cancelled_soon(shared, since)
    case.saw(told(ended(shared, since), "pictures"))


@covers("L1-stream")
def test_who_leaves_a_stream_keeps_what_was_made(case: Case, shared: Gate, upstream: SandboxServer) -> None:
    upstream.script(on("submit", "run_for", after=1, seconds=60))
    since = mark(shared)
    with asking(shared, stream="true", n="2", seed="1") as connection:
        heard = b""
        while b"image_edit.completed" not in heard:
            heard += connection.recv(65_536)
    cancelled_soon(shared, since)
    case.saw(told(ended(shared, since)))


@covers("L1-submitting")
def test_who_hangs_up_during_the_submit_cancels_its_job(case: Case, shared: Gate, upstream: SandboxServer) -> None:
    upstream.script(on("submit", "delay,run_for;seconds=60"))
    since = mark(shared)
    with asking(shared):
        until(lambda: upstream.rules()[0]["struck"], what="the submit")
    until(lambda: balance(shared, since).cancelled, 4, what="the cancellation")
    case.saw(told(ended(shared, since), "pictures"))


@covers("L1-key")
def test_a_request_with_a_key_goes_on(case: Case, shared: Gate, upstream: SandboxServer) -> None:
    upstream.script(on("submit", "run_for", seconds=1))
    since, prompt = mark(shared), next(prompts)
    key = {"Idempotency-Key": prompt}
    with shared.connect(timeout=0.4) as http, pytest.raises(httpx2.TimeoutException):
        shared.ask(prompt, headers=key, http=http)
    found = ended(shared, since)
    answer = shared.ask(prompt, headers=key)
    assert answer.headers["idempotency-replayed"] == "true"
    case.saw(told(found), answer=answer.status_code)


@covers("L1-too-late")
def test_a_job_that_is_done_when_it_should_stop_is_kept(case: Case, shared: Gate, upstream: SandboxServer) -> None:
    upstream.script(on("submit", "run_for", seconds=60), on("cancel", "cancel_too_late"))
    since = hang_up(shared)
    found = ended(shared, since)
    [record] = found.records
    assert len(shared.record(record["id"])["data"]) == 1
    case.saw(told(found))


@covers("L1-cancel-fails")
def test_a_cancellation_that_fails_is_asked_for_again(case: Case, shared: Gate, upstream: SandboxServer) -> None:
    upstream.script(
        on("submit", "run_for", seconds=60),
        *(on("cancel", fault) for fault in ("http", "drop_before", "garbage_json")),
    )
    since = hang_up(shared)
    case.saw(told(ended(shared, since), "pictures"))


@covers("L1-cancel-lost")
def test_a_cancellation_whose_reply_is_lost_is_asked_for_again(
    case: Case, shared: Gate, upstream: SandboxServer
) -> None:
    upstream.script(on("submit", "run_for", seconds=60), on("cancel", "drop_after"))
    since = hang_up(shared)
    case.saw(told(ended(shared, since), "pictures"))


# ---- deadlines


def word(answer: httpx2.Response) -> str:
    return f"{answer.status_code} {answer.json().get('error', {}).get('code', '')}".strip()


@covers("U5-timeout")
def test_a_deadline_cancels(case: Case, shared: Gate, upstream: SandboxServer) -> None:
    upstream.script(on("submit", "run_for", seconds=60))
    since = mark(shared)
    answer = shared.ask(next(prompts), headers={"x-request-timeout": "1"})
    numbers = {"answer": word(answer), "x-should-retry": answer.headers["x-should-retry"]}
    case.saw(numbers | told(ended(shared, since), "pictures"))


@covers("U5-timeout-too-late")
def test_what_is_done_at_its_deadline_is_delivered(case: Case, shared: Gate, upstream: SandboxServer) -> None:
    upstream.script(on("submit", "run_for", seconds=60), on("cancel", "cancel_too_late"))
    since = mark(shared)
    answer = shared.ask(next(prompts), headers={"x-request-timeout": "1"})
    case.saw(told(ended(shared, since)), answer=word(answer))


@covers("U5-bad-timeout")
def test_a_deadline_that_is_none_is_refused_by_name(case: Case, shared: Gate) -> None:
    since = mark(shared)
    words = ("abc", "0", "-1", "nan", "inf", "1e9", "")
    answers = [shared.ask(next(prompts), headers={"x-request-timeout": word}) for word in words]
    assert len(answers) == len(words)
    statuses = ", ".join({str(answer.status_code) for answer in answers})
    params = ", ".join({str(answer.json()["error"]["param"]) for answer in answers})
    case.saw(answers=statuses, param=params, submits=len(shared.sandbox.jobs()) - len(since.jobs))
