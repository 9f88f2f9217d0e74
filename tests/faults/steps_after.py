"""Rows: a job exists and may be paid for; what goes wrong on the way to its picture."""

from __future__ import annotations

from typing import Any

from tests.faults.rows import Row, Rule, Step, on
from tests.faults.steps_before import GOES_ON, answered, fine

NO_VERDICT = "it is no verdict on the job: asked again; the picture is delivered"
LATER = "an error that says what it cost; as soon as the picture can be had it is fetched, and kept"


def _again(id: str, fault: str, rule: Rule, expected: str = GOES_ON, **more: Any) -> Step:
    return Step(id=id, fault=fault, rules=(rule,), expected=expected, numbers=fine(), **more)


def _both(point: str, what: str) -> tuple[Step, ...]:
    """Faults that status and result have in common."""
    return (
        _again(f"U2-{point}-500", f"{what}: 500, twice", on(point, "http", 2)),
        _again(f"U2-{point}-502", f"{what}: 502, twice", on(point, "http", 2, status=502)),
        _again(f"U2-{point}-503-nginx", f"{what}: 503, the ingress's page", on(point, "unavailable_nginx")),
        _again(f"U2-{point}-504-nginx", f"{what}: 504, the ingress's page", on(point, "unavailable_nginx", status=504)),
        _again(f"U2-{point}-429", f"{what}: rate limit", on(point, "rate_limit", retry_after=0.3)),
        _again(f"U2-{point}-404", f"{what}: 404, twice", on(point, "http", 2, status=404), NO_VERDICT),
        _again(f"U2-{point}-400", f"{what}: 400", on(point, "http", status=400), NO_VERDICT),
        _again(f"U2-{point}-401", f"{what}: our key is refused", on(point, "unauthorized"), NO_VERDICT),
        _again(f"U2-{point}-403", f"{what}: our account is locked", on(point, "locked"), NO_VERDICT),
        _again(f"U2-{point}-drop-before", f"{what}: connection cut at once", on(point, "drop_before")),
        _again(f"U2-{point}-drop-after", f"{what}: connection cut, nothing answered", on(point, "drop_after")),
        _again(f"U2-{point}-truncate", f"{what}: half a reply, twice", on(point, "truncate", 2)),
        _again(f"U6-{point}-garbage", f"{what}: no JSON, twice", on(point, "garbage_json", 2)),
        _again(
            f"U6-{point}-redirect",
            f"{what}: 307 to the metadata address",
            on(point, "redirect"),
            "not followed; " + GOES_ON,
        ),
        _again(
            f"U6-{point}-content-type",
            f"{what}: labelled text/html",
            on(point, "wrong_content_type"),
            "read all the same",
        ),
        _again(f"U6-{point}-huge", f"{what}: 3 MB, without a length", on(point, "huge", bytes=3_000_000, chunked=True)),
        _again(f"U5-{point}-delay", f"{what}: takes 0.5 s", on(point, "delay", seconds=0.5), "waited for"),
        _again(f"U5-{point}-drip", f"{what}: the reply drips", on(point, "drip", bytes_per_second=1500), "waited for"),
    )


STATUS: tuple[Row, ...] = (
    *_both("status", "status"),
    _again("U6-status-word", "status: a word that fal does not have, twice", on("status", "status_word", 2)),
    _again(
        "U6-status-foreign-urls",
        "status: other URLs of the job, on a foreign host",
        on("status", "foreign_urls"),
        "not followed",
    ),
    _again("U2-status-infra", "status: 503 with fal's error type", on("status", "infra_error"), NO_VERDICT),
    _again(
        "U2-status-model-500",
        "status: 500 as a model has it",
        on("status", "model_error", type="internal_server_error"),
        NO_VERDICT,
    ),
    _again(
        "U2-status-model-422",
        "status: 422 as a model has it",
        on("status", "model_error"),
        NO_VERDICT,
    ),
    Step(
        id="M9-status-for-ever",
        fault="status: 500 from now on",
        rules=(on("status", "http", None),),
        headers={"x-request-timeout": "6"},
        expected=LATER,
        numbers=answered("502 provider_unavailable", told="unknown"),
        slow=True,
        seconds=25,
    ),
)


def _odd(id: str, what: str, body: Any) -> Step:
    rule = on("result", "http", status=200, body=body)
    return _again(id, f"result: {what}, once", rule, NO_VERDICT)


RESULT: tuple[Row, ...] = (
    *_both("result", "result"),
    _odd("U6-result-object", "an object without pictures", {}),
    _odd("U6-result-detail", "200 with somebody's error in it", {"detail": "upstream connect error"}),
    _odd("U6-result-no-url", "a picture without a URL", {"images": [{"url": None}]}),
    _odd("U6-result-data", "a picture that is no base64", {"images": [{"url": "data:image/png;base64,@@@"}]}),
    _again(
        "U2-result-infra",
        "result: 503 with fal's error type, once, of a job that is done",
        on("result", "infra_error"),
        NO_VERDICT,
    ),
    Step(
        id="M9-result-for-ever",
        fault="result: 404 from now on",
        rules=(on("result", "lose_result", None),),
        headers={"x-request-timeout": "6"},
        expected=LATER,
        numbers=answered("502 provider_bad_response", told="unknown"),
        slow=True,
        seconds=20,
    ),
)

CDN: tuple[Row, ...] = (
    *(
        _again(
            f"S-cdn-{status}",
            f"download: {status}",
            on("cdn", "http", status=status),
            NO_VERDICT if status < 429 else GOES_ON,
        )
        for status in (403, 404, 410, 429, 500, 503)
    ),
    _again("S-cdn-drop", "download: connection cut at once", on("cdn", "drop_before")),
    _again("S-cdn-truncate", "download: ends in the middle", on("cdn", "truncate")),
    _again("S-cdn-corrupt", "download: half a picture with a right length", on("cdn", "corrupt_image")),
    _again("S-cdn-garbage", "download: no picture", on("cdn", "garbage_json")),
    _again("S-cdn-content-type", "download: labelled text/html", on("cdn", "wrong_content_type"), "known by its bytes"),
    _again("S-cdn-lying-type", "download: labelled image/webp", on("cdn", "lie_content_type"), "known by its bytes"),
    _again("S-cdn-drip", "download: drips", on("cdn", "drip", bytes_per_second=100_000), "waited for"),
    Step(
        id="S6-cdn-huge",
        fault="download: 70 MB, without a length",
        rules=(on("cdn", "huge", bytes=70_000_000, chunked=True),),
        expected="given up at 64 MiB; " + LATER,
        numbers=answered("502 provider_bad_response", told="charged"),
        seconds=9,
    ),
    Step(
        id="S2-cdn-redirect",
        fault="download: 307 to the metadata address",
        rules=(on("cdn", "redirect"),),
        expected="not followed; " + LATER,
        numbers=answered("502 provider_bad_response", told="charged"),
        seconds=9,
    ),
    Step(
        id="M9-cdn-for-ever",
        fault="download: 404 from now on",
        rules=(on("cdn", "http", None, status=404),),
        headers={"x-request-timeout": "6"},
        expected=LATER,
        numbers=answered("502 provider_bad_response", told="charged"),
        slow=True,
        seconds=20,
    ),
)
