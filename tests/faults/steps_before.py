"""Rows: what goes wrong before a job exists, and while one is asked for."""

from __future__ import annotations

from typing import Any

from tests.faults.rows import Row, Rule, Step, on

GOES_ON = "asked again; the picture is delivered"


def fine(**changes: Any) -> dict[str, Any]:
    """One picture, bought once."""
    return answered("200", retry="-", told="-", **changes)


def answered(answer: str, *, retry: str = "false", told: str, **changes: Any) -> dict[str, Any]:
    """As `fine` but for the answer, which says `told` of the charge: nothing, charged, unknown."""
    one = {"submits": 1, "billed": 1, "journal": "1 done", "charged": "0.03", "pictures": 1}
    return {"answer": answer, "x-should-retry": retry, "says charged": told, **one, **changes}


def nothing(journal: str = "1 failed", **changes: Any) -> dict[str, Any]:
    """No job was made."""
    return {"submits": 0, "billed": 0, "journal": journal, "charged": "0", "pictures": 0, **changes}


def _submit(id: str, fault: str, rule: Rule, expected: str, numbers: dict[str, Any], **more: Any) -> Step:
    return Step(id=id, fault=fault, rules=(rule,), expected=expected, numbers=numbers, **more)


REFUSED = "repeated by the gateway: nothing can have been accepted"
REPEATED = fine(journal="1 done, 1 failed")
UNKNOWN = "never sent again, by nobody; the provider's list has no such job"
UNKNOWN_NUMBERS = answered("502 upstream_ambiguous", told="unknown", **nothing("1 ambiguous"))
FOUND = "never sent again, by nobody; the job is found in the provider's list, its picture is kept"
FOUND_NUMBERS = answered("502 upstream_ambiguous", told="unknown")
OURS = "one call; the account is at fault, not the caller's key"
OURS_NUMBERS = answered("502 provider_misconfigured", told="nothing", **nothing())

SUBMIT: tuple[Row, ...] = (
    _submit(
        "U2-submit-429",
        "submit: rate limit, with a Retry-After",
        on("submit", "rate_limit", retry_after=0.3),
        REFUSED,
        REPEATED,
    ),
    _submit(
        "U2-submit-503",
        "submit: 503 in fal's shape",
        on("submit", "infra_error", error_type="runner_scheduling_failure", at="reply"),
        REFUSED,
        REPEATED,
    ),
    _submit(
        "U2-submit-503-nginx", "submit: 503, the ingress's page", on("submit", "unavailable_nginx"), REFUSED, REPEATED
    ),
    _submit("U2-submit-delay", "submit: takes 0.5 s", on("submit", "delay", seconds=0.5), "waited for", fine()),
    _submit(
        "U5-submit-drip", "submit: the reply drips", on("submit", "drip", bytes_per_second=1000), "waited for", fine()
    ),
    _submit("M11-submit-500", "submit: 500", on("submit", "http", status=500), UNKNOWN, UNKNOWN_NUMBERS),
    _submit(
        "M11-submit-502-nginx",
        "submit: 502, the ingress's page",
        on("submit", "unavailable_nginx", status=502),
        UNKNOWN,
        UNKNOWN_NUMBERS,
    ),
    _submit(
        "M11-submit-drop-before",
        "submit: connection cut, job not made",
        on("submit", "drop_before"),
        UNKNOWN,
        UNKNOWN_NUMBERS,
    ),
    _submit(
        "M11-submit-drop-after", "submit: connection cut, job made", on("submit", "drop_after"), FOUND, FOUND_NUMBERS
    ),
    _submit("M11-submit-truncate", "submit: half a reply", on("submit", "truncate"), FOUND, FOUND_NUMBERS),
    _submit(
        "M11-submit-garbage", "submit: a reply that is no JSON", on("submit", "garbage_json"), FOUND, FOUND_NUMBERS
    ),
    _submit("M11-submit-huge", "submit: a reply of 2 MB", on("submit", "huge", bytes=2_000_000), FOUND, FOUND_NUMBERS),
    _submit(
        "U6-submit-bad-id",
        "submit: a request id with a path in it",
        on("submit", "bad_request_id"),
        FOUND,
        FOUND_NUMBERS,
    ),
    _submit(
        "U6-submit-foreign-urls",
        "submit: URLs of the job on a foreign host",
        on("submit", "foreign_urls"),
        "not followed: ours are built instead, the key goes to nobody",
        fine(),
    ),
    _submit(
        "U6-submit-content-type",
        "submit: labelled text/html",
        on("submit", "wrong_content_type"),
        "read all the same",
        fine(),
    ),
    _submit("U1-submit-404", "submit: 404", on("submit", "http", status=404), OURS, OURS_NUMBERS, own=True),
    _submit("U1-submit-401", "submit: our key is refused", on("submit", "unauthorized"), OURS, OURS_NUMBERS, own=True),
    _submit("U1-submit-403", "submit: our account is locked", on("submit", "locked"), OURS, OURS_NUMBERS, own=True),
    _submit(
        "U1-submit-422",
        "submit: the picture is refused",
        on("submit", "model_error", type="image_load_error", at="reply"),
        "the caller's to mend; names the picture",
        answered("400 invalid_image_file", told="-", **nothing()),
    ),
    _submit(
        "U1-submit-redirect",
        "submit: 307 to the metadata address",
        on("submit", "redirect"),
        "not followed",
        answered("502 provider_bad_response", told="nothing", **nothing()),
    ),
)

FAILED = {"billed": 0, "journal": "1 failed", "charged": "0", "pictures": 0}
ENDED = "the job failed at the provider and is not billed; says so"


def _ends(id: str, fault: str, answer: str, rule: Rule, **more: Any) -> Step:
    return Step(
        id=id, fault=fault, rules=(rule,), expected=ENDED, numbers=answered(answer, told="nothing", **FAILED), **more
    )


JOBS: tuple[Row, ...] = (
    _ends(
        "U1-job-policy",
        "job: refused by content policy",
        "400 content_policy_violation",
        on("submit", "model_error", type="content_policy_violation"),
    ),
    _ends(
        "U1-job-picture",
        "job: the provider cannot read the picture",
        "400 invalid_image_file",
        on("submit", "model_error", type="image_load_error"),
    ),
    _ends(
        "U1-job-500",
        "job: the model breaks",
        "502 provider_unavailable",
        on("submit", "model_error", type="internal_server_error"),
    ),
    _ends(
        "U1-job-504",
        "job: the model times out",
        "504 provider_timeout",
        on("submit", "model_error", type="generation_timeout"),
    ),
    _ends(
        "U1-job-runner",
        "job: its runner is gone",
        "502 provider_unavailable",
        on("submit", "infra_error", error_type="runner_disconnected"),
    ),
    _ends(
        "U1-job-timeout",
        "job: fal's own time-out",
        "504 provider_timeout",
        on("submit", "infra_error", error_type="request_timeout"),
    ),
    _ends(
        "U1-job-error-word",
        "job: COMPLETED, with an error beside it",
        "502 provider_unavailable",
        on("submit", "completed_with_error"),
    ),
    Step(
        id="U2-job-queued",
        fault="job: is queued, then runs",
        rules=(on("submit", "queue_for;seconds=0.4,run_for;seconds=0.4"),),
        expected="waited for",
        numbers=fine(),
    ),
    Step(
        id="S-job-nsfw",
        fault="job: the picture is blacked out, and billed",
        rules=(on("submit", "nsfw"),),
        expected="an error that says it was charged; nothing to keep",
        numbers=answered("400 content_policy_violation", told="charged", pictures=0),
    ),
    Step(
        id="S-job-empty",
        fault="job: a success without a picture, not billed",
        rules=(on("submit", "empty_images"),),
        expected="an error; nothing is charged, nothing stays reserved",
        numbers=answered("502 provider_bad_response", told="nothing", **FAILED),
        slow=True,
        seconds=3,
    ),
    Step(
        id="S-job-corrupt",
        fault="job: the picture ends in the middle, and is billed",
        rules=(on("submit", "corrupt_image"),),
        expected="an error that says it was charged; `lost`, for an operator to see",
        numbers=answered("502 provider_bad_response", told="charged", journal="1 lost", pictures=0),
    ),
    Step(
        id="S-job-lying-type",
        fault="job: a PNG labelled image/webp",
        rules=(on("submit", "lie_content_type"),),
        expected="known by its bytes",
        numbers=fine(),
    ),
    Step(
        id="S-job-lying-size",
        fault="job: claims another size than the picture has",
        rules=(on("submit", "lie_size"),),
        expected="known by its bytes",
        numbers=fine(),
    ),
    Step(
        id="M9-job-result-lost",
        fault="job: done and billed, its result 404 for good",
        rules=(on("submit", "lose_result"),),
        headers={"x-request-timeout": "6"},
        slow=True,
        expected="an error that says it is not known; `lost`: asked for for a day, its price reserved",
        numbers=answered("502 provider_bad_response", told="unknown", journal="1 lost", charged="0", pictures=0),
    ),
)

AGAIN = "the upload is repeated; the picture is delivered"


def _upload(id: str, fault: str, *rules: Rule) -> Step:
    return Step(id=id, fault=fault, rules=rules, expected=AGAIN, numbers=fine(), large=True)


UPLOADS: tuple[Row, ...] = (
    _upload("U2-initiate-500", "upload: 500 to the ticket", on("initiate", "http")),
    _upload("U2-initiate-drop", "upload: the ticket is lost on its way", on("initiate", "drop_after")),
    _upload("U2-initiate-garbage", "upload: the ticket is no JSON", on("initiate", "garbage_json")),
    _upload("U2-put-500", "upload: 500 to the bytes", on("put", "http")),
    _upload("U2-put-403", "upload: 403 to the bytes (a ticket that ran out)", on("put", "http", status=403)),
    _upload(
        "U2-put-drop",
        "upload: connection cut, before and after the bytes",
        on("put", "drop_before"),
        on("put", "drop_after"),
    ),
    Step(
        id="U1-initiate-403",
        fault="upload: our account is locked",
        rules=(on("initiate", "locked"),),
        expected=OURS,
        numbers=OURS_NUMBERS,
        large=True,
        own=True,
    ),
    Step(
        id="U1-put-413",
        fault="upload: too large for the provider",
        rules=(on("put", "http", status=413),),
        expected="the caller's to mend; names the picture",
        numbers=answered("400 invalid_image_file", told="-", **nothing()),
        large=True,
    ),
)
