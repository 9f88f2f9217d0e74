"""Rows: the provider's health, partial results, back-pressure, disk and database, crowds."""

from __future__ import annotations

from tests.faults.rows import AtLeast, AtMost, Row

HEALTH: tuple[Row, ...] = (
    Row(
        id="U4-out",
        fault="five failures in a row",
        done="submit: 503 for ever; five requests; ten more at once",
        expected="503 + Retry-After at once, but for a probe now and then; nothing is charged; /readyz says degraded",
        numbers={"refused": AtLeast(8), "Retry-After": True, "provider asked": AtMost(4), "/readyz": "200 degraded"},
    ),
    Row(
        id="U4-back",
        fault="the provider recovers",
        done="as U4-out, then no fault any more; a request each half second",
        expected="a probe goes through, then everything; each picture is bought once",
        numbers={"comes back": True, "then served": 5, "bought twice": 0, "/readyz": "200 ready"},
    ),
    Row(
        id="U4-locked",
        fault="the account is locked",
        done="submit: `locked` for ever; two requests; /readyz; the log; unlocked; requests",
        expected="502 that does not blame the caller's key; not ready, with the reason; a line in the log; recovers",
        numbers={"answers": "502 provider_misconfigured, 502 provider_misconfigured", "blames the caller's key": False}
        | {"/readyz": 503, "says locked": True, "log lines": AtLeast(1), "then /readyz": 200},
    ),
    Row(
        id="U1-429",
        fault="the provider's rate limit lasts longer than the caller's deadline",
        done="submit: `rate_limit`, Retry-After 30; x-request-timeout: 2",
        expected="429 with the provider's Retry-After; nothing is bought",
        numbers={"answer": "429 rate_limit_exceeded", "Retry-After": "30", "submits": 0},
    ),
)

PARTIAL: tuple[Row, ...] = (
    Row(
        id="M7-one",
        fault="one of four is refused",
        done="n=4, submit: `model_error` once",
        expected="three pictures, and what is missing; three are charged",
        numbers={"answer": 200, "pictures": 3, "missing": "content_policy_violation (free)"}
        | {"cost": "0.09", "submits": 4, "billed": 3, "charged": "0.09", "kept": 3},
    ),
    Row(
        id="M7-three",
        fault="three of four fail, each in its own way",
        done="n=4, submit: `nsfw`, `model_error`, `corrupt_image`",
        expected="one picture; each of the others says why, and whether it was charged",
        numbers={"answer": 200, "pictures": 1}
        | {
            "missing": "content_policy_violation (charged), content_policy_violation (free), "
            "provider_bad_response (charged)"
        }
        | {"cost": "0.09", "submits": 4, "billed": 3, "charged": "0.09", "kept": 1},
    ),
    Row(
        id="M7-stream",
        fault="two of three fail in a stream",
        done="n=3, stream=true, submit: `nsfw`, `model_error`",
        expected="one picture's event, then two image_edit.failed; the last one carries the cost",
        numbers={"events": "image_edit.completed, image_edit.failed, image_edit.failed", "cost": "0.06", "submits": 3}
        | {"billed": 2, "charged": "0.06", "kept": 1},
    ),
    Row(
        id="M7-all",
        fault="all of three fail, one of them paid",
        done="n=3, submit: `nsfw`, `model_error` twice",
        expected="an error, not to be repeated, that says what was charged",
        numbers={"answer": 400, "x-should-retry": "false", "x-imagegate-cost": "0.03", "submits": 3, "billed": 1}
        | {"charged": "0.03", "kept": 0},
    ),
    Row(
        id="M7-ambiguous",
        fault="the reply to one of three submits is lost",
        done="n=3, submit: `drop_after` once",
        expected="two pictures; the third says that it is not known, and is in `GET /v1/requests/{id}` later",
        numbers={"answer": 200, "pictures": 2, "missing": "upstream_ambiguous (unknown)", "submits": 3, "billed": 3}
        | {"charged": "0.09", "kept": 3},
    ),
    Row(
        id="S2-redirect-inside",
        fault="a download is redirected to a private address",
        done="cdn: 307 to a listener on another port of this machine; to 169.254.169.254; to file:",
        expected="not followed: the listener sees nobody; an error that says it was charged",
        numbers={"answers": "502, 502, 502", "connections": 0, "submits": 3, "charged": "0.09"},
    ),
)

PRESSURE: tuple[Row, ...] = (
    Row(
        id="Q4-queue",
        fault="more at once than may run and wait",
        done="limits.jobs=2, limits.queue=3; jobs of 1 s; 5 requests, then 7 more",
        expected="never more than 2 jobs upstream; five are served, the rest 429 + Retry-After, nothing sent",
        numbers={"answers": "5 × 200, 7 × 429", "Retry-After": True, "at once upstream": AtMost(2), "submits": 5}
        | {"charged": "0.15"},
    ),
    Row(
        id="Q4-sdk",
        fault="the same, and SDKs that repeat",
        done="limits.jobs=2, limits.queue=2; jobs of 0.5 s; 8 SDK clients with max_retries 8",
        expected="all are served in the end, each is bought once",
        numbers={"served": 8, "bought twice": 0, "at once upstream": AtMost(2), "charged": "0.24"},
    ),
    Row(
        id="Q1-memory",
        fault="request bodies beyond the memory budget",
        done="limits.memory_bytes=8MiB; JSON of 3 MB whose body is still coming; another one meanwhile",
        expected="503 + Retry-After before anything is bought; once there is room, served",
        numbers={"answers": "503, 200", "Retry-After": True, "submits": 1},
    ),
    Row(
        id="A4-slow",
        fault="1,000 idle and 200 slow connections",
        done="1,000 kept connections, 200 that send a byte a second of a body; 5 requests",
        expected="the requests are served; one purchase each",
        numbers={"idle": 1000, "slow": 200, "served": 5, "submits": 5, "charged": "0.15"},
    ),
    Row(
        id="U3-flaky",
        fault="30 % of all calls fail",
        done="submit 503 as fal has it, status 500, result 502, cdn 503, each with chance 0.3; 100 SDK clients at once",
        expected="at least 99 % are served; nothing is bought twice",
        numbers={"% served": AtLeast(99), "submits for each": AtMost(1), "bought twice": 0, "charged = billed": True},
    ),
)

STATE: tuple[Row, ...] = (
    Row(
        id="D1-disk-full",
        fault="the disk is full",
        done="data_dir on a tmpfs of 24 MB that is filled; requests; space again",
        expected="503 before anything is bought, /readyz says so; served again without a restart",
        numbers={"before": 200, "full": "503 + Retry-After", "/readyz": 503, "/healthz": 200, "submits meanwhile": 0}
        | {"after": 200, "then /readyz": 200},
    ),
    Row(
        id="D1-disk-fills",
        fault="the disk fills up while a job is under way",
        done="as D1-disk-full, filled after the submit of a request for base64 and of one for a URL; space again",
        expected="base64 is delivered; the other says that it was charged, its picture comes home later",
        numbers={
            "base64": 200,
            "url": "503 false 0.03",
            "submits": 2,
            "journal": "2 done",
            "charged": "0.06",
            "pictures": 1,
        },
    ),
    Row(
        id="D2-locked",
        fault="another process holds the SQLite lock",
        done="BEGIN IMMEDIATE held for 6 s; a request; /healthz meanwhile; released",
        expected="503 + Retry-After, nothing is bought; /healthz answers; served again",
        numbers={"answer": "503 overloaded", "Retry-After": True, "/healthz meanwhile": AtLeast(20), "submits": 0}
        | {"after": 200},
    ),
    Row(
        id="D2-locked-later",
        fault="another process takes the SQLite lock while a job is under way",
        done="job of 2 s; BEGIN IMMEDIATE from its submit on, for 7 s",
        expected="the picture is delivered; its page is written as soon as it can be",
        numbers={"answer": 200, "submits": 1, "journal": "1 done", "charged": "0.03", "pictures": 1},
    ),
    Row(
        id="D3-sound",
        fault="the database after all this",
        done="PRAGMA integrity_check after the kills of M10-random",
        expected="ok",
        numbers={"database": "ok"},
    ),
    Row(
        id="D4-corrupt",
        fault="the database file is damaged",
        done="bytes overwritten; start",
        expected="exit code 2, one clear line; the file is not touched",
        numbers={"exit code": 2, "traceback": False, "names the file": True, "file untouched": True},
    ),
    Row(
        id="D5-kill",
        fault="PostgreSQL holds the journal; SIGKILL of the gateway",
        done="3 jobs of 2 s, SIGKILL, start with the same database",
        expected="the jobs are collected; nothing is bought twice",
        numbers={"submits": 3, "bought twice": 0, "journal": "3 done", "charged": "0.09", "pictures": 3},
    ),
    Row(
        id="D5-outage",
        fault="PostgreSQL goes away with requests in flight, and comes back",
        done="3 jobs of 2 s; PostgreSQL is stopped; a new request; PostgreSQL is started",
        expected="what was bought is answered; the new one 503; recovers by itself, the books agree",
        numbers={
            "in flight": "200, 200, 200",
            "new": "503 + Retry-After",
            "bought for it": 0,
            "after": 200,
            "journal": "4 done",
        }
        | {"charged": "0.12"},
    ),
)
