"""fal's tables of errors (docs.fal.ai/errors and request-errors, November 2026), row by row: what each means for us."""

from __future__ import annotations

import json
from typing import Any

import httpx2
import pytest

from providers.base import Fault, ProviderError
from providers.fal_errors import Step, failure, failure_in_status, shown
from providers.http import Answer
from providers.retries import Doubted

F = Fault


def answer(status: int, body: Any = None, **headers: str) -> Answer:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    return Answer("POST https://queue.fal.run/x", status, httpx2.Headers(names).raw, content)


def model_error(kind: str, *, loc: Any = ("body", "image_urls", 0), msg: str = "Says the model.", **more: Any) -> Any:
    return {"detail": [{"loc": list(loc) if isinstance(loc, tuple) else loc, "msg": msg, "type": kind, **more}]}


MODEL_ERRORS = [
    # type, status, fault
    ("internal_server_error", 500, F.UNAVAILABLE),
    ("generation_timeout", 504, F.TIMEOUT),
    ("downstream_service_error", 400, F.UNAVAILABLE),
    ("downstream_service_error", 500, F.UNAVAILABLE),
    ("downstream_service_unavailable", 500, F.UNAVAILABLE),
    ("content_policy_violation", 422, F.REFUSED),
    ("no_media_generated", 422, F.INVALID),
    ("image_too_small", 422, F.INVALID),
    ("image_too_large", 422, F.INVALID),
    ("image_load_error", 422, F.INVALID),
    ("file_download_error", 422, F.INVALID),
    ("face_detection_error", 422, F.INVALID),
    ("file_too_large", 422, F.INVALID),
    ("greater_than", 422, F.INVALID),
    ("greater_than_equal", 422, F.INVALID),
    ("less_than", 422, F.INVALID),
    ("less_than_equal", 422, F.INVALID),
    ("multiple_of", 422, F.INVALID),
    ("sequence_too_short", 422, F.INVALID),
    ("sequence_too_long", 422, F.INVALID),
    ("one_of", 422, F.INVALID),
    ("feature_not_supported", 422, F.INVALID),
    ("unsupported_image_format", 422, F.INVALID),
    ("unsupported_audio_format", 422, F.INVALID),
    ("unsupported_video_format", 422, F.INVALID),
    ("audio_duration_too_long", 422, F.INVALID),
    ("video_duration_too_short", 422, F.INVALID),
    ("invalid_archive", 422, F.INVALID),
    ("archive_file_count_exceeds_maximum", 422, F.INVALID),
    # not migrated endpoints answer in pydantic's own words
    ("missing", 422, F.INVALID),
    ("literal_error", 422, F.INVALID),
    ("int_parsing", 422, F.INVALID),
    ("string_too_short", 422, F.INVALID),
    ("value_error.missing", 422, F.INVALID),
    # what a newer fal may say
    ("something_new", 422, F.INVALID),
    ("something_new", 500, F.UNAVAILABLE),
    ("something_new", 504, F.TIMEOUT),
]

INFRASTRUCTURE_ERRORS = [
    # error_type, status, fault, accepted after a submit
    ("request_timeout", 504, F.TIMEOUT, None),
    ("startup_timeout", 504, F.TIMEOUT, None),
    ("runner_scheduling_failure", 503, F.UNAVAILABLE, False),
    ("runner_connection_timeout", 503, F.UNAVAILABLE, False),
    ("runner_disconnected", 503, F.UNAVAILABLE, False),
    ("runner_connection_refused", 503, F.UNAVAILABLE, False),
    ("runner_connection_error", 503, F.UNAVAILABLE, False),
    ("runner_incomplete_response", 502, F.UNAVAILABLE, None),
    ("runner_server_error", 500, F.UNAVAILABLE, None),
    ("internal_error", 500, F.UNAVAILABLE, None),
    ("client_disconnected", 499, F.UNAVAILABLE, None),
    ("client_cancelled", 499, F.UNAVAILABLE, None),
    ("bad_request", 400, F.INVALID, False),
    ("concurrent_requests_limit", 429, F.RATE_LIMITED, False),
]

NGINX = b"<html><head><title>502 Bad Gateway</title></head><center>nginx</center></html>"

PLAIN_ERRORS = [
    # status, body, headers, fault, accepted after a submit
    (400, {"detail": "No."}, {}, F.INVALID, False),
    (401, {"detail": "No user found for Key ID and Secret"}, {}, F.UNAUTHORIZED, False),
    (402, {"detail": "Pay."}, {}, F.UNAUTHORIZED, False),
    (403, {"detail": "User is locked. Reason: Exhausted balance."}, {}, F.UNAUTHORIZED, False),
    (404, {"status": "NOT_FOUND"}, {}, F.MISCONFIGURED, False),
    (404, {"detail": "Path /x not found"}, {}, F.MISCONFIGURED, False),
    (405, {"detail": "Method Not Allowed"}, {}, F.MISCONFIGURED, False),
    (408, {}, {}, F.UNAVAILABLE, None),
    (409, {}, {}, F.UNAVAILABLE, False),
    (413, {"detail": "Request Entity Too Large"}, {}, F.INVALID, False),
    (418, b"teapot", {}, F.MALFORMED, False),
    (422, {"detail": {"odd": "shape"}}, {}, F.INVALID, False),
    (425, {}, {}, F.UNAVAILABLE, False),
    (429, {"detail": "Queue is full"}, {}, F.RATE_LIMITED, False),
    (460, {}, {}, F.MALFORMED, None),
    (499, {}, {}, F.UNAVAILABLE, None),
    (500, {"detail": "Internal Server Error"}, {"x_fal_request_id": "1"}, F.UNAVAILABLE, None),
    (502, NGINX, {}, F.UNAVAILABLE, None),
    (503, NGINX, {}, F.UNAVAILABLE, False),
    (503, NGINX, {"x_fal_request_id": "1"}, F.UNAVAILABLE, None),
    (504, NGINX, {}, F.TIMEOUT, None),
    (502, NGINX, {"x_fal_request_id": "1"}, F.UNAVAILABLE, None),
    (502, b"Bad Gateway", {}, F.UNAVAILABLE, None),
    (503, {"detail": "Service Unavailable"}, {"x_fal_request_id": "1"}, F.UNAVAILABLE, False),
    (503, {"error": "somebody else's shape"}, {}, F.UNAVAILABLE, None),
    (503, [], {}, F.UNAVAILABLE, None),
    (520, b"", {}, F.UNAVAILABLE, None),
    (301, b"", {"location": "https://elsewhere.example/"}, F.MALFORMED, False),
    (302, b"", {"location": "https://elsewhere.example/"}, F.MALFORMED, None),
    (303, b"", {"location": "https://elsewhere.example/"}, F.MALFORMED, None),
    (307, b"", {"location": "http://169.254.169.254/"}, F.MALFORMED, False),
    (308, b"", {"location": "https://elsewhere.example/"}, F.MALFORMED, False),
    (204, b"", {}, F.MALFORMED, None),
]


@pytest.mark.parametrize(("kind", "status", "fault"), MODEL_ERRORS)
@pytest.mark.parametrize("of", ["submit", "result"])
def test_a_model_error(kind: str, status: int, fault: Fault, of: Step) -> None:
    error = failure(answer(status, model_error(kind), x_fal_request_id="1"), of=of)
    assert error.fault is fault
    assert error.field == "image_urls"
    assert error.accepted is (True if of == "result" else (None if status >= 500 else False))
    assert kind in error.detail
    assert error.final is (of == "result" and status < 500), "a 5xx is believed when it stays"


@pytest.mark.parametrize("kind", ["content_policy_violation", "image_load_error"])
@pytest.mark.parametrize("of", ["status", "list", "upload"])
def test_what_a_look_is_answered_is_no_word_about_the_request(kind: str, of: Step) -> None:
    error = failure(answer(422, model_error(kind), x_fal_request_id="1"), of=of)
    assert error.fault is F.MALFORMED


@pytest.mark.parametrize(("error_type", "status", "fault", "accepted"), INFRASTRUCTURE_ERRORS)
def test_an_infrastructure_error(error_type: str, status: int, fault: Fault, accepted: bool | None) -> None:
    by_body = answer(status, {"detail": "Says fal", "error_type": error_type}, x_fal_request_id="1")
    by_header = answer(status, {"detail": "Says fal"}, x_fal_request_id="1", x_fal_error_type=error_type)
    for one in (by_body, by_header):
        submit, result = failure(one, of="submit"), failure(one, of="result")
        assert (submit.fault, submit.accepted) == (fault, accepted)
        assert (result.fault, result.accepted) == (fault, True)
        assert error_type in submit.detail


@pytest.mark.parametrize(("error_type", "status", "fault", "accepted"), INFRASTRUCTURE_ERRORS)
def test_an_infrastructure_error_in_the_status(
    error_type: str, status: int, fault: Fault, accepted: bool | None
) -> None:
    error = failure_in_status({"status": "COMPLETED", "error": "Says fal", "error_type": error_type})
    assert (error.fault, error.accepted, error.final) == (fault, True, True)
    assert error_type in error.detail


@pytest.mark.parametrize(("status", "body", "headers", "fault", "accepted"), PLAIN_ERRORS)
def test_a_plain_error_after_a_submit(
    status: int, body: Any, headers: dict[str, str], fault: Fault, accepted: bool | None
) -> None:
    error = failure(answer(status, body, **headers), of="submit")
    assert (error.fault, error.accepted) == (fault, accepted)


@pytest.mark.parametrize(("status", "body", "headers", "fault", "accepted"), PLAIN_ERRORS)
@pytest.mark.parametrize("of", ["upload", "status", "result", "list"])
def test_a_plain_error_elsewhere_says_what_is_known_of_the_job(
    status: int, body: Any, headers: dict[str, str], fault: Fault, accepted: bool | None, of: Step
) -> None:
    error = failure(answer(status, body, **headers), of=of)
    assert error.accepted is {"upload": False, "list": None}.get(of, True)
    verdict = of == "result" and (status == 422 or "x_fal_request_id" in headers)
    if status in (404, 405) or (fault is F.INVALID and not verdict):
        fault = F.MALFORMED  # neither an endpoint nor the caller's values are in question
    assert error.fault is fault


FAL: dict[str, str] = {"x_fal_request_id": "1"}


@pytest.mark.parametrize(
    ("status", "of", "headers", "final"),
    [
        # of a status no number is a verdict
        *[(status, "status", FAL, False) for status in (307, 400, 401, 403, 404, 408, 410, 418, 422, 429, 500, 503)],
        (504, "status", {"x_fal_request_timeout_type": "user"}, True),
        (503, "status", {"x_fal_retryable": "false"}, False),  # a word about this look, not about the job
        # of a result it is what stands in fal's shapes, and a 422
        (422, "result", {}, True),
        (400, "result", {"x_fal_error_type": "bad_request"}, True),
        (503, "result", {**FAL, "x_fal_error_type": "runner_disconnected"}, False),  # but believed when it stays
        (503, "result", {"x_fal_error_type": "runner_disconnected"}, False),  # not fal's own servers
        (429, "result", {**FAL, "x_fal_error_type": "concurrent_requests_limit"}, False),
        *[(status, "result", FAL, False) for status in (307, 400, 401, 403, 404, 409, 410, 500, 502, 503)],
        (422, "submit", {}, False),
        (422, "submit", {"x_fal_retryable": "false"}, True),
        (503, "submit", {"x_fal_retryable": "true"}, False),
        (503, "submit", {"x_fal_needs_retry": "1"}, False),
        (503, "submit", {"x_fal_needs_retry": "false"}, True),
        (503, "submit", {"x_fal_needs_retry": "0"}, True),
        (504, "submit", {}, False),
        (504, "submit", {"x_fal_request_timeout_type": "user"}, True),
        (403, "upload", {}, True),
        (429, "upload", {}, False),
        (500, "upload", {}, False),
        (401, "list", {}, True),
        (503, "list", {}, False),
    ],
)
def test_whether_asking_again_is_of_use(status: int, of: Step, headers: dict[str, str], final: bool) -> None:
    assert failure(answer(status, {"detail": "Says fal"}, **headers), of=of).final is final


@pytest.mark.parametrize(
    ("status", "of", "headers", "body", "looks"),
    [
        (404, "status", FAL, {"status": "NOT_FOUND"}, 8),
        (410, "status", {}, NGINX, 8),
        (404, "result", FAL, {"detail": "Request not found"}, 6),
        (410, "result", {}, {}, 6),
        (500, "result", FAL, b"Internal Server Error", 6),
        (400, "result", FAL, {"detail": "No."}, 6),
        (413, "result", FAL, {"detail": "No."}, 6),
        # no word of the queue's or the model's about the job
        (500, "result", {}, {"detail": "No."}, None),
        (400, "result", {}, {"detail": "No."}, None),
        (400, "result", FAL, NGINX, None),
        (401, "result", FAL, {"detail": "No user found for Key ID and Secret"}, None),
        (403, "result", FAL, {"detail": "User is locked."}, None),
        (400, "status", FAL, {"detail": "No."}, None),
        (500, "status", FAL, {"detail": "No."}, None),
        (404, "upload", FAL, {"detail": "No."}, None),
        (404, "list", FAL, {"detail": "No."}, None),
    ],
)
def test_what_must_be_said_again_and_again_to_be_believed(
    status: int, of: Step, headers: dict[str, str], body: Any, looks: int | None
) -> None:
    error = failure(answer(status, body, **headers), of=of)
    assert (error.looks if isinstance(error, Doubted) else None) == looks
    assert error.lost is (status in (404, 410) and of in ("status", "result"))


@pytest.mark.parametrize("of", ["submit", "upload", "status", "result", "list"])
def test_a_cancelled_job_is_told_where_there_is_a_job(of: Step) -> None:
    error = failure(answer(499, {"detail": "x", "error_type": "client_cancelled"}, **FAL), of=of)
    told = of in ("status", "result")
    assert (error.cancelled, error.final, error.lost) == (told, told or of in ("upload", "list"), False)
    assert error.charged is (False if told or of == "upload" else None)
    assert not failure(answer(499, {"detail": "x"}, **FAL), of=of).cancelled
    assert not failure(answer(499, {"detail": "x", "error_type": "client_disconnected"}, **FAL), of=of).cancelled


@pytest.mark.parametrize(
    ("loc", "field"),
    [
        (["body", "image_urls", 0], "image_urls"),
        (["body", "image_size", "width"], "image_size"),
        (["body", 0, "prompt"], "prompt"),
        (["prompt"], "prompt"),
        (["body"], None),
        ([], None),
        ("prompt", None),
        (None, None),
        ([None, {"a": 1}], None),
    ],
)
def test_the_field_is_the_first_word_of_the_location(loc: Any, field: str | None) -> None:
    assert failure(answer(422, model_error("missing", loc=loc)), of="result").field == field


def test_what_the_model_says_reaches_the_caller_only_when_the_caller_can_mend_it() -> None:
    assert failure(answer(422, model_error("less_than", msg="At most 20")), of="result").message == "At most 20"
    assert "secret" not in failure(answer(500, model_error("x", msg="a secret host")), of="result").message
    assert failure(answer(422, model_error("odd_type", msg="")), of="result").message == "odd_type"


def test_a_plain_refusal_is_relayed_when_it_is_a_text() -> None:
    assert failure(answer(400, {"detail": "No cats."}), of="submit").message.endswith("request: No cats.")
    for body in ({"detail": {"a": 1}}, {}, [1], b"<html>"):
        assert failure(answer(400, body), of="submit").message == "The provider refused the request."


def test_retry_after_is_carried_along() -> None:
    assert failure(answer(429, {}, retry_after="12"), of="submit").retry_after == 12


class TestWhatIsShown:
    PICTURE = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="

    @pytest.mark.parametrize(
        "head",
        ["data:image/png;base64,", "DATA:image/png;charset=utf-8;base64,", "data:,", "data:;base64,", ""],
    )
    def test_no_picture_data(self, head: str) -> None:
        text = shown(f"Could not load image from url: {head}{self.PICTURE * 50} at 0")
        assert self.PICTURE[:16] not in text
        assert text.startswith("Could not load image from url: ")
        assert text.endswith(" at 0")

    def test_one_short_line(self) -> None:
        assert shown("a\n b\r\n\tc") == "a b c"
        assert len(shown("word " * 1000)) == 240
        assert shown(None) == ""
        assert shown(["a", 1]) == "['a', 1]"

    def test_neither_the_prompt_nor_the_picture_that_is_echoed_as_input(self) -> None:
        body = model_error("x", input="a very private prompt", ctx={"given": f"data:image/png;base64,{self.PICTURE}"})
        error = failure(answer(422, body), of="result")
        told = error.message + error.detail
        assert "private" not in told
        assert self.PICTURE[:16] not in told

    def test_garbage_of_any_kind_makes_an_error_and_no_exception(self) -> None:
        bodies: list[Any] = [
            b"\xff\xfe\x00",
            b"",
            b"[" * 100_000,
            {"detail": []},
            {"detail": [1]},
            {"detail": [[]]},
            {"detail": [{}]},
            {"detail": None, "error_type": ["x"]},
            {"detail": [{"type": {"a": 1}, "loc": {"b": 2}, "msg": 7, "ctx": "c"}]},
            "text",
            None,
            1e999,
        ]
        for status in (200, 302, 400, 404, 422, 429, 500, 503):
            for body in bodies:
                for of in ("submit", "upload", "status", "result", "list"):
                    assert isinstance(failure(answer(status, body), of=of), ProviderError)  # type: ignore[arg-type]
        for status_body in ({"error": {"a": 1}}, {"error_type": 5}, {"error": "x", "error_type": ["y"]}):
            assert isinstance(failure_in_status(status_body), ProviderError)


@pytest.mark.parametrize("status", [408, 409, 425, 429])
def test_what_keeps_a_result_back_for_a_while_is_no_word_on_its_bill(status: int) -> None:
    told = failure(answer(status, {"detail": "x", "error_type": "concurrent_requests_limit"}), of="result")
    assert (told.charged, told.final) == (None, False)


def test_a_failure_that_says_that_it_was_billed_is_not_free() -> None:
    refused = model_error("no_media_generated")
    assert failure(answer(422, refused), of="result").charged is False
    assert failure(answer(422, refused, x_fal_billable_units="0.0"), of="result").charged is False
    assert failure(answer(422, refused, x_fal_billable_units="1"), of="result").charged is True
