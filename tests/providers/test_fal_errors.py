"""fal's tables of errors (docs.fal.ai/errors and request-errors, November 2026), row by row: what each means for us."""

from __future__ import annotations

import json
from typing import Any

import httpx2
import pytest

from providers.base import Fault, ProviderError
from providers.fal_errors import Step, failure, failure_in_status, shown
from providers.http import Answer

F = Fault


def answer(status: int, body: Any = None, **headers: str) -> Answer:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    return Answer("POST https://queue.fal.run/x", status, httpx2.Headers(names), content)


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
    (404, {"status": "NOT_FOUND"}, {}, F.UNAUTHORIZED, False),
    (404, {"detail": "Path /x not found"}, {}, F.UNAUTHORIZED, False),
    (405, {"detail": "Method Not Allowed"}, {}, F.UNAUTHORIZED, False),
    (408, {}, {}, F.UNAVAILABLE, False),
    (409, {}, {}, F.UNAVAILABLE, False),
    (413, {"detail": "Request Entity Too Large"}, {}, F.INVALID, False),
    (418, b"teapot", {}, F.MALFORMED, False),
    (422, {"detail": {"odd": "shape"}}, {}, F.INVALID, False),
    (425, {}, {}, F.UNAVAILABLE, False),
    (429, {"detail": "Queue is full"}, {}, F.RATE_LIMITED, False),
    (499, {}, {}, F.UNAVAILABLE, None),
    (500, {"detail": "Internal Server Error"}, {"x_fal_request_id": "1"}, F.UNAVAILABLE, None),
    (502, NGINX, {}, F.UNAVAILABLE, False),
    (503, NGINX, {}, F.UNAVAILABLE, False),
    (504, NGINX, {}, F.TIMEOUT, None),
    (502, NGINX, {"x_fal_request_id": "1"}, F.UNAVAILABLE, None),
    (502, b"Bad Gateway", {}, F.UNAVAILABLE, None),
    (503, {"detail": "Service Unavailable"}, {"x_fal_request_id": "1"}, F.UNAVAILABLE, False),
    (503, {"error": "somebody else's shape"}, {}, F.UNAVAILABLE, None),
    (503, [], {}, F.UNAVAILABLE, None),
    (520, b"", {}, F.UNAVAILABLE, None),
    (307, b"", {"location": "http://169.254.169.254/"}, F.MALFORMED, False),
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
    assert error.final is (of == "result")


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
@pytest.mark.parametrize("of", ["upload", "status", "result"])
def test_a_plain_error_elsewhere_says_what_is_known_of_the_job(
    status: int, body: Any, headers: dict[str, str], fault: Fault, accepted: bool | None, of: Step
) -> None:
    error = failure(answer(status, body, **headers), of=of)
    assert error.accepted is (of != "upload")
    if status in (404, 405) or (fault is F.INVALID and of != "result"):
        fault = F.MALFORMED  # neither an endpoint nor the caller's values are in question
    assert error.fault is fault


@pytest.mark.parametrize(
    ("status", "of", "headers", "final"),
    [
        (500, "status", {"x_fal_request_id": "1"}, False),
        (503, "result", {"x_fal_request_id": "1"}, False),
        (500, "result", {"x_fal_request_id": "1"}, True),  # the model's own status
        (503, "result", {"x_fal_request_id": "1", "x_fal_error_type": "runner_disconnected"}, True),
        (503, "result", {"x_fal_error_type": "runner_disconnected"}, False),  # not fal's own servers
        (502, "result", {}, False),
        (429, "status", {}, False),
        (408, "status", {}, False),
        (404, "status", {}, True),
        (401, "result", {}, True),
        (307, "status", {}, True),
        (422, "submit", {}, False),
        (422, "submit", {"x_fal_retryable": "false"}, True),
        (503, "submit", {"x_fal_retryable": "true"}, False),
        (503, "submit", {"x_fal_needs_retry": "1"}, False),
        (503, "submit", {"x_fal_needs_retry": "false"}, True),
        (503, "submit", {"x_fal_needs_retry": "0"}, True),
        (504, "submit", {}, False),
        (504, "submit", {"x_fal_request_timeout_type": "user"}, True),
        (504, "status", {"x_fal_request_timeout_type": "user"}, True),
    ],
)
def test_whether_asking_again_is_of_use(status: int, of: Step, headers: dict[str, str], final: bool) -> None:
    assert failure(answer(status, {"detail": "Says fal"}, **headers), of=of).final is final


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
                for of in ("submit", "upload", "status", "result"):
                    assert isinstance(failure(answer(status, body), of=of), ProviderError)  # type: ignore[arg-type]
        for status_body in ({"error": {"a": 1}}, {"error_type": 5}, {"error": "x", "error_type": ["y"]}):
            assert isinstance(failure_in_status(status_body), ProviderError)
