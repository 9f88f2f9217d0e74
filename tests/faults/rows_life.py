"""Rows: clients that leave, deadlines, the end of the process in all its forms."""

from __future__ import annotations

from typing import Any

from tests.faults.rows import AtLeast, AtMost, Row

STOPPED = {"submits": 1, "cancelled": 1, "billed": 0, "journal": "1 cancelled", "charged": "0"}
MADE = {"submits": 1, "cancelled": 0, "billed": 1, "journal": "1 done", "charged": "0.03", "pictures": 1}


def _leaves(id: str, fault: str, done: str, expected: str, numbers: dict[str, Any], **more: str) -> Row:
    return Row(id=id, fault=fault, done=done, expected=expected, numbers=numbers, **more)


LEAVING: tuple[Row, ...] = (
    _leaves(
        "L1-running",
        "the client hangs up while its job runs",
        "job of 60 s; the connection is closed",
        "cancelled within about a second; nothing is charged",
        STOPPED,
    ),
    _leaves(
        "L1-queued",
        "the client hangs up while its job is queued",
        "a job that is queued for 60 s; the connection is reset",
        "cancelled within about a second; nothing is charged",
        STOPPED,
    ),
    _leaves(
        "L1-stream",
        "the client of a stream hangs up after the first of two pictures",
        "n=2, the second job takes 60 s; stream=true; closed after the first event",
        "the other job is cancelled; the first is charged and kept",
        {"submits": 2, "cancelled": 1, "billed": 1, "journal": "1 cancelled, 1 done", "charged": "0.03", "pictures": 1},
    ),
    _leaves(
        "L1-b64",
        "the client hangs up when the first of two pictures is made, b64_json",
        "n=2, the second job takes 60 s; response_format=b64_json; the connection is closed",
        "the other job is cancelled; the first is charged and kept",
        {"submits": 2, "cancelled": 1, "billed": 1, "journal": "1 cancelled, 1 done", "charged": "0.03", "pictures": 1},
    ),
    _leaves(
        "L1-submitting",
        "the client hangs up while the submit is under way",
        "submit: `delay` 1 s, job of 60 s",
        "cancelled as soon as the provider has said which job it is",
        STOPPED,
    ),
    _leaves(
        "L1-waiting",
        "the client hangs up while it waits for its turn",
        "limits.jobs=1; a job of 3 s; a second request that leaves after 0.5 s",
        "the second one is never bought; a third has its turn",
        {"submits": 2, "cancelled": 0, "billed": 2, "charged": "0.06"},
    ),
    _leaves(
        "L1-finish",
        "the client hangs up, on_disconnect: finish",
        "job of 1 s; the connection is closed",
        "the job goes on; its picture is in `GET /v1/requests/{id}`",
        MADE,
    ),
    _leaves(
        "L1-key",
        "the client hangs up, with an Idempotency-Key",
        "job of 1 s; the connection is closed; the same form and key later",
        "the job goes on; the answer is there",
        {"answer": 200, **MADE},
    ),
    _leaves(
        "L1-two-waiters",
        "two wait for one job, one of them leaves",
        "job of 2 s; the same form with x-stainless-retry-count 0 and 1; the first one leaves",
        "the other one gets the picture",
        {"answer": 200, **MADE},
    ),
    _leaves(
        "L1-too-late",
        "the client hangs up, the job is done at that moment",
        "job of 60 s, cancel: `cancel_too_late`",
        "charged; the picture is kept and shown in `GET /v1/requests/{id}`",
        MADE,
    ),
    _leaves(
        "L1-ignored",
        "the client hangs up, the provider says yes and goes on",
        "job of 2 s, cancel: `cancel_ignored`",
        "charged as soon as it is known; the picture is kept",
        MADE,
    ),
    _leaves(
        "L1-cancel-fails",
        "the client hangs up, the cancellation does not get through at first",
        "job of 60 s, cancel: 500, then `drop_before`, then `garbage_json`",
        "asked again; nothing is charged",
        STOPPED,
    ),
    _leaves(
        "L1-cancel-lost",
        "the client hangs up, the reply to the cancellation is lost",
        "job of 60 s, cancel: `drop_after`",
        "asked again; nothing is charged",
        STOPPED,
    ),
)

DEADLINES: tuple[Row, ...] = (
    _leaves(
        "U5-timeout",
        "the caller's deadline comes while the job runs",
        "job of 60 s; x-request-timeout: 1",
        "504, final; cancelled; nothing is charged",
        {"answer": "504 provider_timeout", "x-should-retry": "false", **STOPPED},
    ),
    _leaves(
        "U5-timeout-partial",
        "the caller's deadline comes while one of three jobs runs",
        "n=3, one job of 60 s; x-request-timeout: 6",
        "the two that are there; the third is cancelled",
        {"answer": "200", "pictures": 2, "submits": 3, "cancelled": 1, "billed": 2, "charged": "0.06"},
    ),
    _leaves(
        "U5-timeout-too-late",
        "the deadline comes, the job is done at that moment",
        "job of 60 s; x-request-timeout: 1; cancel: `cancel_too_late`",
        "what is paid for is delivered all the same",
        {"answer": "200", **MADE},
    ),
    _leaves(
        "U5-config",
        "a request that names no deadline",
        "request_seconds=1; job of 60 s",
        "504, as if it had named it",
        {"answer": "504 provider_timeout", "x-should-retry": "false", **STOPPED},
    ),
    _leaves(
        "U5-bad-timeout",
        "a deadline that is none",
        "x-request-timeout: abc, 0, -1, nan, inf, 1e9, empty",
        "400 that names the header; nothing is bought",
        {"answers": "400", "param": "x-request-timeout", "submits": 0},
    ),
    _leaves(
        "U7-hanging",
        "40 requests at once hang at every step",
        "40 requests; `hang` at submit (job made or not), status and result; x-request-timeout: 2",
        "all are answered; sockets and files go back to where they were",
        {"answered": 40, "bought twice": 0, "sockets and files more than before": AtMost(25)},
    ),
)

STOPPING: tuple[Row, ...] = (
    _leaves(
        "L2-drain",
        "SIGTERM with 50 requests in flight",
        "50 jobs of 2-4 s; SIGTERM; a new connection; /readyz on a kept one",
        "the listener is closed at once, /readyz is not ready, every request is answered, exit code 0",
        {
            "new connection": "refused",
            "/readyz": "503 or closed",
            "served": 50,
            "exit code": 0,
            "billed": 50,
            "charged": "1.50",
        },
    ),
    _leaves(
        "L3-drain-limit",
        "SIGTERM, and the jobs take longer than the drain",
        "drain_seconds=2; 6 jobs of 6 s, half with an Idempotency-Key; SIGTERM; start on the same folder",
        "503 + Retry-After; only those with a key are told to repeat; all pictures are there after the start",
        {"answers": "503", "x-should-retry with key": "true", "x-should-retry without": "false", "Retry-After": True}
        | {"exit code": 0, "submits": 6, "cancelled": 0, "journal": "6 done", "charged": "0.18", "pictures": 6}
        | {"repeats with key": "200, 200, 200"},
    ),
    _leaves(
        "L5-twice",
        "SIGTERM twice",
        "3 jobs of 4 s; SIGTERM, SIGTERM; start on the same folder",
        "it ends within 2 s; nothing is lost",
        {"ended in time": True, "submits": 3, "cancelled": 0, "journal": "3 done", "charged": "0.09", "pictures": 3},
    ),
    _leaves(
        "L2-idle",
        "SIGTERM with nothing in flight",
        "SIGTERM while 20 idle connections are open",
        "it ends at once, exit code 0",
        {"ended in time": True, "exit code": 0},
    ),
)

EVEN = {"bought twice": 0, "unknown jobs": 0, "charged = billed": True, "pictures = billed jobs": True}
KILLED_JOB = "in the journal, its picture can be read"

KILLS: tuple[Row, ...] = (
    _leaves(
        "M10-places-before",
        "SIGKILL at every place that a request passes before its job's ticket is written",
        "before the request's entry, the intent, the submit, the ticket, the collection; start on the same folder",
        "nothing is submitted twice; every job that was accepted is " + KILLED_JOB,
        {"killed": 5, "ambiguous": AtMost(8), **EVEN},
    ),
    _leaves(
        "M10-places-after",
        "SIGKILL at every place that a request passes afterwards",
        "before the download, the conversion, the storing, the job's end, the answer, and after it; start on the same "
        "folder",
        "nothing is submitted twice; every job that was accepted is " + KILLED_JOB,
        {"killed": 6, "ambiguous": 0, **EVEN},
    ),
    _leaves(
        "M10-held",
        "SIGKILL while the provider is slow at a step",
        "held in submit (job made or not), status, result and download; SIGKILL; start on the same folder",
        "nothing is submitted twice; every job that was accepted is " + KILLED_JOB,
        {"killed": 5, "submits": 4, "bought twice": 0, "unknown jobs": 0, "journal": "1 ambiguous, 4 done"}
        | {"charged": "0.12", "pictures": 4},
    ),
    _leaves(
        "M10-random",
        "SIGKILL at random times",
        "60 requests (FAULTS_KILLS: more), 12 a round: n 1-3, masks, formats, url, b64_json, streams, keys, clients "
        "that leave; SIGKILL at a random time of each round; start on the same folder; at the end all keys once more",
        "nothing is submitted twice; every job that was accepted is " + KILLED_JOB + "; ambiguous is only what never "
        "arrived; nothing stays running; the books agree",
        {"requests": AtLeast(60), **EVEN, "still running": 0, "database": "ok", "half files": 0}
        | {"wrong answers to repeats": 0},
    ),
    _leaves(
        "M10-random-flaky",
        "SIGKILL at random times, and a provider that is flaky",
        "as M10-random; submit: `drop_after`, `drop_before`; status: 500; result: 404; download: 404, each one in ten; "
        "cancel: `cancel_too_late`, `cancel_ignored`, each one in five",
        "as M10-random",
        {"requests": AtLeast(60), **EVEN, "still running": 0, "database": "ok", "half files": 0}
        | {"wrong answers to repeats": 0},
    ),
    _leaves(
        "M10-neighbour",
        "SIGKILL of one of two gateways on one journal",
        "n=2, jobs of 2 s; SIGKILL; the same key at the other gateway at once",
        "it takes the jobs over, and answers",
        {"answer": 200, "in the answer": 2, "submits": 2, "journal": "2 done", "charged": "0.06", "pictures": 2},
    ),
    _leaves(
        "M2-neighbour",
        "the same key at two gateways on one journal, at the same time",
        "job of 2 s; the same form and key at the other gateway meanwhile",
        "one purchase; both have the answer",
        {"answers": "200, 200", "same request": True, "submits": 1, "charged": "0.03"},
    ),
    _leaves(
        "M10-paused",
        "a gateway that sleeps for longer than its lease, and wakes up",
        "job of 1 s; SIGSTOP until another gateway has taken it over and collected it; SIGCONT",
        "its client has its answer; charged once",
        {"answer": 200, "submits": 1, "journal": "1 done", "charged": "0.03", "pictures": 1},
    ),
    _leaves(
        "M10-late-submit",
        "SIGKILL after a 504, while the submit is still under way",
        "submit: `hang`, the job made; x-request-timeout: 1; SIGKILL after the answer; start on the same folder",
        "the job is " + KILLED_JOB,
        {"answer": 504, "submits": 1, "unknown jobs": 0, "journal": "1 done", "charged": "0.03", "pictures": 1},
    ),
    _leaves(
        "M10-b64",
        "SIGKILL when the first of two pictures is made, b64_json without a key",
        "n=2, the second job takes 3 s; response_format=b64_json; SIGKILL; start on the same folder",
        "both pictures can be read",
        {"submits": 2, "billed": 2, "journal": "2 done", "charged": "0.06", "pictures": 2},
    ),
    _leaves(
        "L4-restart",
        "SIGKILL, and a start a second later",
        "4 jobs of 3 s; SIGKILL; start on the same port",
        "it listens at once; no child is left behind, no half file; the pictures come",
        {"started": True, "orphans": 0, "half files": 0, "journal": "4 done", "charged": "0.12", "pictures": 4},
    ),
)
