"""Rows: repeats, idempotency keys, lost replies, pictures that are missing."""

from __future__ import annotations

from tests.faults.rows import Row

ONE = "one purchase; the SDK gets its picture"

REPEATS: tuple[Row, ...] = (
    Row(
        id="M5-sdk-timeout",
        fault="the SDK's time-out is shorter than the job",
        done="job of 3 s; openai-python, timeout 1 s, max_retries 5, no key",
        expected=ONE,
        numbers={"answer": 200, "submits": 1, "billed": 1, "cancelled": 0, "charged": "0.03", "pictures": 1},
    ),
    Row(
        id="M5-sdk-timeouts",
        fault="the same for 8 different requests at once",
        done="8 jobs of 3 s; 8 SDK clients, timeout 1 s, max_retries 5, no key",
        expected="one purchase each; each client gets its own picture",
        numbers={"served": 8, "billed": 8, "charged": "0.24", "pictures": 8},
    ),
    Row(
        id="M5-sdk-timeout-key",
        fault="the same with an Idempotency-Key",
        done="job of 3 s; timeout 1 s, max_retries 5, extra_headers",
        expected=ONE,
        numbers={"answer": 200, "submits": 1, "billed": 1, "cancelled": 0, "charged": "0.03", "pictures": 1},
    ),
    Row(
        id="M5-sdk-after-the-end",
        fault="the answer is lost on its way: the SDK repeats after the end",
        done="the same form again with x-stainless-retry-count: 1, the first was answered 200",
        expected="the first answer once more, marked as replayed",
        numbers={"answers": "200, 200", "same pictures": True, "submits": 1, "charged": "0.03"},
    ),
    Row(
        id="M5-no-repeat",
        fault="two requests that look alike, but are two",
        done="the same form twice, without a retry count and without a key",
        expected="two purchases: nobody said that it is a repeat",
        numbers={"answers": "200, 200", "submits": 2, "charged": "0.06"},
    ),
    Row(
        id="M5-late-repeat",
        fault="the SDK's repeat comes when its first try has just been cancelled",
        done="job of 60 s; the client hangs up; the same form with x-stainless-retry-count: 1 after the cancellation",
        expected="the first is not charged; the repeat is a new request",
        numbers={"answer": "200", "submits": 2, "cancelled": 1, "billed": 1, "charged": "0.03"},
    ),
    Row(
        id="M5-gives-up",
        fault="the SDK gives up before the job is done",
        done="job of 60 s; timeout 1 s, max_retries 1",
        expected="cancelled when nobody comes back for it; nothing is charged",
        numbers={"submits": 1, "cancelled": 1, "billed": 0, "charged": "0"},
    ),
)

IDEMPOTENCY: tuple[Row, ...] = (
    Row(
        id="M1-url",
        fault="the same key again, after the end (url)",
        done="the same form three times with one Idempotency-Key",
        expected="the same body, byte for byte; Idempotency-Replayed: true",
        numbers={"answers": "200, 200, 200", "same bytes": True, "replayed": "-, true, true", "submits": 1},
    ),
    Row(
        id="M1-b64",
        fault="the same key again, after the end (b64_json, n=2)",
        done="the same form three times with one Idempotency-Key",
        expected="the same body, byte for byte; Idempotency-Replayed: true",
        numbers={"answers": "200, 200, 200", "same bytes": True, "replayed": "-, true, true", "submits": 2},
    ),
    Row(
        id="M1-stream",
        fault="the same key again, after the end (stream=true, n=2)",
        done="the same form three times with one Idempotency-Key",
        expected="the same events; Idempotency-Replayed: true",
        numbers={"answers": "200, 200, 200", "same pictures": True, "replayed": "-, true, true", "submits": 2},
    ),
    Row(
        id="M1-restart",
        fault="the same key again, after a restart of the gateway",
        done="one answer; SIGTERM; start on the same folder; the same form and key",
        expected="the same body, byte for byte",
        numbers={"answers": "200, 200", "same bytes": True, "replayed": "-, true", "submits": 1},
    ),
    Row(
        id="M1-killed",
        fault="the same key again, after SIGKILL in the middle of the job",
        done="job of 1 s; SIGKILL while it runs; start on the same folder; the same form and key at once",
        expected="it waits until the new process has taken the job over; nothing is bought anew",
        numbers={"answer": 200, "submits": 1, "billed": 1, "charged": "0.03", "pictures": 1},
    ),
    Row(
        id="M1-error",
        fault="the same key again, after an error that cost something",
        done="a picture that is blacked out and billed; the same form and key again",
        expected="the same error, byte for byte; nothing is bought",
        numbers={"answers": "400, 400", "same bytes": True, "submits": 1, "charged": "0.03"},
    ),
    Row(
        id="M1-error-told",
        fault="the same key again, after an error: can a client tell?",
        done="as M1-error",
        expected="Idempotency-Replayed: true, as on a replayed success",
        numbers={"replayed": "-, true"},
    ),
    Row(
        id="M1-free-error",
        fault="the same key again, after an error that cost nothing and may pass",
        done="submit: `rate_limit` for longer than the caller waits; then the same form and key again",
        expected="a new try",
        numbers={"answers": "429, 200", "replayed": "-, -", "submits": 1, "charged": "0.03"},
    ),
    Row(
        id="M2-at-once",
        fault="50 requests at once with one key",
        done="job of 1 s; 50 connections, one Idempotency-Key",
        expected="one purchase; 50 times the same body",
        numbers={"served": 50, "different bodies": 1, "submits": 1, "charged": "0.03"},
    ),
    Row(
        id="M3-other-body",
        fault="the same key for something else",
        done="another prompt; another picture; n=2 instead of 1; each with the key of a finished request",
        expected="422 idempotency_mismatch, not to be repeated; nothing is bought",
        numbers={"answers": "422, 422, 422", "codes": "idempotency_mismatch", "x-should-retry": "false", "submits": 1},
    ),
    Row(
        id="M3-other-body-running",
        fault="the same key for something else, while the first is running",
        done="job of 1 s; another prompt with the same key meanwhile",
        expected="422 at once; the first is not disturbed",
        numbers={"answers": "200, 422", "submits": 1, "charged": "0.03"},
    ),
    Row(
        id="M4-bad-key",
        fault="a key that is none",
        done="Idempotency-Key: empty; 256 characters; not ASCII; a tab in it; two of them",
        expected="400 that names the header; nothing is bought",
        numbers={"answers": "400, 400, 400, 400, 400", "param": "Idempotency-Key", "submits": 0},
    ),
    Row(
        id="M4-long-key",
        fault="a key of 255 characters",
        done="twice the same form with it",
        expected="taken",
        numbers={"answers": "200, 200", "submits": 1},
    ),
    Row(
        id="M4-invalid-request",
        fault="a request that is refused, with a key",
        done="n=0, then the same key with a good request",
        expected="the refusal is not kept under the key",
        numbers={"answers": "400, 200", "submits": 1},
    ),
)

AMBIGUOUS: tuple[Row, ...] = (
    Row(
        id="M11-sdk",
        fault="the reply to the submit is lost: what an SDK does",
        done="submit: `drop_after`; openai-python with max_retries 5",
        expected="502 at the first try, and the SDK does not repeat it; `GET /v1/requests` shows the picture",
        numbers={"answer": "502 upstream_ambiguous", "tries": 1, "submits": 1, "journal": "1 done", "pictures": 1},
    ),
    Row(
        id="M11-key",
        fault="the reply to the submit is lost: the same key again",
        done="submit: `drop_after`; the same form and Idempotency-Key twice more",
        expected="the same error, nothing is bought; the picture is in `GET /v1/requests/{id}`",
        numbers={"answers": "502, 502, 502", "submits": 1, "journal": "1 done", "charged": "0.03", "pictures": 1},
    ),
    Row(
        id="M11-unlisted",
        fault="the reply is lost, and the provider's list shows no payloads",
        done="submit: `drop_after`, list: `list_no_payloads` for ever",
        expected="the job stays ambiguous, its price reserved; never sent again",
        numbers={"answer": "502 upstream_ambiguous", "submits": 1, "journal": "1 ambiguous", "reserved": "0.03"},
    ),
    Row(
        id="M11-late-list",
        fault="the reply is lost, and the provider's list lags behind",
        done="submit: `drop_after`, list: `list_lag` twice",
        expected="looked for again after 2, 4, 8 … s; found, and its picture kept",
        numbers={
            "answer": "502 upstream_ambiguous",
            "submits": 1,
            "journal": "1 done",
            "charged": "0.03",
            "pictures": 1,
        },
    ),
    Row(
        id="M11-hang",
        fault="the reply to the submit never comes, and the caller's deadline does",
        done="20 submits: `hang`, 10 jobs made and 10 not; x-request-timeout: 2",
        expected="504, not known; once the submit has timed out, the jobs that were made are found and kept",
        numbers={"answers": "504", "says charged": "unknown", "submits": 10, "journal": "10 ambiguous, 10 done"}
        | {"pictures": 10},
    ),
    Row(
        id="M11-twins",
        fault="the replies to two of four equal jobs are lost",
        done="n=4 without a seed; submit: `drop_after` twice; list: `delay`, so that it is asked twice at once",
        expected="two pictures are delivered, the two lost jobs are found, each for its own picture",
        numbers={
            "answer": 200,
            "pictures at first": 2,
            "submits": 4,
            "journal": "4 done",
            "charged": "0.12",
            "pictures": 4,
        },
    ),
)
