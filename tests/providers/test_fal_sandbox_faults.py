"""Every fault of the sandbox does what its line in `FAULTS` says, seen by a real HTTP client."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any

import httpx2
import pytest

from providers.fal_sandbox.faults import FAULTS, Fault, Point, UnknownFault, parse
from providers.fal_sandbox.replies import INFRA_ERROR_STATUS
from tests.fakes.fal_calls import EDIT, FalCalls, opened, picture
from tests.fakes.sandbox import SandboxServer


@pytest.fixture(scope="module")
def server() -> Iterator[SandboxServer]:
    with SandboxServer() as server:
        yield server


@pytest.fixture
def fal(server: SandboxServer) -> Iterator[FalCalls]:
    server.reset()
    with FalCalls(server) as calls:
        yield calls


def asked(text: str) -> dict[str, str]:
    return {"X-Sandbox-Fault": text}


class TestScript:
    def test_every_fault_has_its_line(self) -> None:
        assert set(FAULTS) == set(Fault)

    def test_rules_are_consumed_in_order_and_say_how_often_they_struck(self, fal: FalCalls) -> None:
        fal.sandbox.script(
            {"on": "status", "fault": "http", "args": {"status": 500}, "times": 2},
            {"on": "status", "fault": "rate_limit", "times": 1, "after": 1},
        )
        job = fal.submit().json()
        codes = [fal.status(job).status_code for _ in range(5)]
        assert codes[:2] == [500, 500]
        assert codes[2] in (200, 202)  # the second rule lets one call pass
        assert codes[3] == 429
        assert codes[4] in (200, 202)
        assert [rule["struck"] for rule in fal.sandbox.rules()] == [2, 1]

    def test_a_rule_without_end_strikes_until_it_is_cleared(self, fal: FalCalls) -> None:
        fal.sandbox.script({"on": "submit", "fault": "http", "args": {"status": 503}, "times": None})
        assert [fal.submit().status_code for _ in range(4)] == [503] * 4
        fal.sandbox.clear_script()
        assert fal.submit().status_code == 200

    def test_a_rule_can_be_about_one_endpoint(self, fal: FalCalls) -> None:
        fal.sandbox.script({"on": "submit", "fault": "locked", "endpoint": "fal-ai/qwen-image", "times": None})
        assert fal.submit().status_code == 200
        assert fal.submit({"prompt": "x"}, "fal-ai/qwen-image").status_code == 403

    def test_a_rule_about_any_call_strikes_where_its_fault_can_happen(self, fal: FalCalls) -> None:
        fal.sandbox.script({"fault": "lose_result", "times": None})
        ticket = fal.initiate()
        assert ticket.status_code == 200
        job = fal.submit().json()
        fal.wait(job)
        assert fal.result(job).status_code == 404

    def test_chance_makes_a_flaky_upstream_that_repeats_itself(self, fal: FalCalls) -> None:
        def round_of_calls() -> list[int]:
            fal.sandbox.reset()
            fal.sandbox.script({"on": "initiate", "fault": "http", "times": None, "chance": 0.3})
            return [fal.initiate().status_code for _ in range(60)]

        first = round_of_calls()
        assert 8 <= first.count(500) <= 28
        assert round_of_calls() == first

    def test_flaky_rules_do_not_strike_together(self, fal: FalCalls) -> None:
        rule = {"on": "initiate", "fault": "http", "times": None, "chance": 0.1}
        fal.sandbox.script(*({**rule, "args": {"status": 500 + n}} for n in range(5)))
        codes = [fal.initiate().status_code for _ in range(60)]
        assert all(500 + n in codes for n in range(5))
        assert 15 <= sum(code >= 500 for code in codes) <= 35

    def test_a_fault_can_be_asked_for_in_header_and_query(self, fal: FalCalls) -> None:
        assert fal.submit(headers=asked("http;status=418;body=teapot")).text == "teapot"
        assert fal.submit(params={"sandbox_fault": "unauthorized"}).status_code == 401

    @pytest.mark.parametrize(
        ("rule", "hint"),
        [
            ({"on": "submit", "fault": "explode"}, "drop_after"),
            ({"on": "sumbit", "fault": "locked"}, "submit"),
            ({"on": "status", "fault": "nsfw"}, "run, submit"),
            ({"on": "status", "fault": "delay", "args": {"secs": 1}}, "seconds"),
            ({"on": "status", "fault": "delay", "args": {"seconds": "soon"}}, "number"),
            ({"on": "status", "fault": "delay", "time": 1}, "times"),
            ({"on": "status", "fault": "delay", "times": 0}, "times"),
            ("delay", "object"),
        ],
    )
    def test_a_mistake_in_a_script_is_400_and_says_what_is_known(self, fal: FalCalls, rule: Any, hint: str) -> None:
        answer = fal.http.post(f"{fal.sandbox.url}/sandbox/script", json=[{"fault": "delay"}, rule])
        assert answer.status_code == 400
        assert hint in answer.json()["detail"]
        assert fal.sandbox.rules() == []

    def test_a_mistake_in_a_header_is_400_too(self, fal: FalCalls) -> None:
        answer = fal.submit(headers=asked("explode"))
        assert answer.status_code == 400
        assert "known: delay" in answer.json()["detail"]

    def test_faults_parse_with_their_defaults(self) -> None:
        drop, delay = parse("drop_after, delay;seconds=0.5", Point.SUBMIT)
        assert (drop.fault, delay.fault, delay["seconds"]) == (Fault.DROP_AFTER, Fault.DELAY, 0.5)
        with pytest.raises(UnknownFault, match="cannot happen at put"):
            parse("queue_for", Point.PUT)

    def test_the_faults_are_listed(self, fal: FalCalls) -> None:
        listed = fal.http.get(f"{fal.sandbox.url}/sandbox/faults").json()
        assert [row["fault"] for row in listed] == [str(fault) for fault in FAULTS]
        assert all(row["line"] and row["on"] for row in listed)


class TestAnswersInstead:
    def test_http_gives_any_status_body_and_headers(self, fal: FalCalls) -> None:
        body = {"detail": "x"}
        fal.sandbox.script(
            {"on": "submit", "fault": "http", "args": {"status": 451, "body": body, "headers": {"A": "b"}}}
        )
        answer = fal.submit()
        assert (answer.status_code, answer.json(), answer.headers["a"]) == (451, body, "b")
        assert "x-fal-request-id" in answer.headers

    def test_rate_limit_says_when_to_come_back(self, fal: FalCalls) -> None:
        answer = fal.submit(headers=asked("rate_limit;retry_after=3"))
        assert (answer.status_code, answer.headers["retry-after"]) == (429, "3")
        assert answer.json()["error_type"] == answer.headers["x-fal-error-type"] == "concurrent_requests_limit"

    def test_locked_is_403_also_for_uploads(self, fal: FalCalls) -> None:
        fal.sandbox.script({"on": "initiate", "fault": "locked"})
        for answer in (fal.submit(headers=asked("locked")), fal.initiate()):
            assert answer.status_code == 403
            assert answer.json()["detail"].startswith("User is locked. Reason: Exhausted balance.")

    def test_unauthorized_is_fals_text(self, fal: FalCalls) -> None:
        answer = fal.submit(headers=asked("unauthorized"))
        assert (answer.status_code, answer.json()) == (401, {"detail": "No user found for Key ID and Secret"})

    @pytest.mark.parametrize("status", [502, 503])
    def test_the_ingress_answers_in_html_and_knows_no_request_id(self, fal: FalCalls, status: int) -> None:
        answer = fal.submit(headers=asked(f"unavailable_nginx;status={status}"))
        assert (answer.status_code, answer.headers["content-type"]) == (status, "text/html; charset=utf-8")
        assert "nginx" in answer.text
        assert "x-fal-request-id" not in answer.headers
        assert fal.sandbox.totals()["submitted"] == 0

    def test_a_model_error_ends_the_job_unbilled(self, fal: FalCalls) -> None:
        answer = fal.edit(headers=asked("model_error"))
        assert answer.status_code == 422
        assert [(e["loc"], e["type"]) for e in answer.json()["detail"]] == [
            (["body", "prompt"], "content_policy_violation")
        ]
        assert fal.sandbox.totals()["billed_units"] == 0

    def test_a_model_error_at_the_result_is_about_this_call(self, fal: FalCalls) -> None:
        job = fal.submit().json()
        fal.wait(job)
        assert fal.result(job, asked("model_error;type=generation_timeout")).status_code == 504
        assert fal.result(job).status_code == 200

    @pytest.mark.parametrize(("error_type", "status"), sorted(INFRA_ERROR_STATUS.items()))
    def test_each_infrastructure_error_has_its_status(self, fal: FalCalls, error_type: str, status: int) -> None:
        direct = fal.submit(headers=asked(f"infra_error;error_type={error_type};at=reply"))
        ended = fal.edit(headers=asked(f"infra_error;error_type={error_type}"))
        for answer in (direct, ended):
            assert (answer.status_code, answer.json()["error_type"]) == (status, error_type)
            assert answer.headers["x-fal-error-type"] == error_type

    def test_a_job_completes_with_an_error_in_its_status(self, fal: FalCalls) -> None:
        job = fal.submit(
            headers=asked("completed_with_error;error=GPU fell over;error_type=runner_server_error")
        ).json()
        state = fal.wait(job)
        assert (state.status_code, state.json()["error"]) == (200, "GPU fell over")
        assert state.json()["error_type"] == "runner_server_error"
        assert fal.result(job).status_code == 500

    def test_a_redirect_leads_where_it_was_told(self, fal: FalCalls) -> None:
        answer = fal.submit(headers=asked("redirect"))
        assert (answer.status_code, answer.headers["location"]) == (307, "http://169.254.169.254/latest/meta-data/")


class TestTime:
    def test_delay_holds_the_answer_back(self, fal: FalCalls) -> None:
        began = time.monotonic()
        assert fal.submit(headers=asked("delay;seconds=0.2")).status_code == 200
        assert time.monotonic() - began >= 0.2

    def test_drip_gives_the_right_answer_slowly(self, fal: FalCalls) -> None:
        url = fal.upload(bytes(200))
        began = time.monotonic()
        answer = fal.http.get(url, headers=asked("drip;bytes_per_second=1000"))
        assert time.monotonic() - began >= 0.14
        assert (answer.content, answer.headers["content-length"]) == (bytes(200), "200")


class TestConnection:
    def test_drop_before_accepts_nothing(self, fal: FalCalls) -> None:
        with pytest.raises(httpx2.RemoteProtocolError, match="without sending a response"):
            fal.submit(headers=asked("drop_before"))
        assert fal.sandbox.totals()["submitted"] == 0

    def test_drop_after_has_accepted_and_bills(self, fal: FalCalls) -> None:
        fal.sandbox.script({"on": "submit", "fault": "drop_after"})
        with pytest.raises(httpx2.RemoteProtocolError, match="without sending a response"):
            fal.submit()
        limit = time.monotonic() + 5
        while not fal.sandbox.totals()["billed_units"] and time.monotonic() < limit:
            time.sleep(0.01)
        totals = fal.sandbox.totals()
        assert (totals["submitted"], totals["billed_units"]) == (1, 1)

    def test_drop_after_a_put_has_stored_the_file(self, fal: FalCalls) -> None:
        ticket = fal.initiate().json()
        headers = {"Content-Type": "image/png", **asked("drop_after")}
        with pytest.raises(httpx2.RemoteProtocolError):
            fal.http.put(ticket["upload_url"], content=picture(), headers=headers)
        assert fal.http.get(ticket["file_url"]).content == picture()

    def test_a_truncated_answer_stops_half_way(self, fal: FalCalls) -> None:
        url = fal.upload(bytes(100_000))
        with pytest.raises(httpx2.RemoteProtocolError, match="received 50000 bytes, expected 100000"):
            fal.http.get(url, headers=asked("truncate"))

    @pytest.mark.parametrize("chunked", [False, True])
    def test_a_huge_answer_is_well_formed(self, fal: FalCalls, chunked: bool) -> None:
        job = fal.submit().json()
        fal.wait(job)
        fault = f"huge;bytes=3000000;chunked={json.dumps(chunked)}"
        answer = fal.result(job, asked(fault))
        assert len(answer.content) == 3_000_000
        assert ("content-length" in answer.headers) is not chunked
        assert len(answer.json()["images"]) == 1

    @pytest.mark.parametrize(("fault", "jobs"), [("hang", 0), ("hang;late=true", 1)])
    def test_a_call_can_hang_before_or_after_everything_is_done(self, fal: FalCalls, fault: str, jobs: int) -> None:
        fal.http.timeout = 0.3
        with pytest.raises(httpx2.ReadTimeout):
            fal.submit(headers=asked(fault))
        assert fal.sandbox.totals()["submitted"] == jobs
        fal.http.timeout = 10
        assert fal.edit().status_code == 200

    @pytest.mark.parametrize("point", sorted(Point))
    def test_every_call_can_hang(self, fal: FalCalls, point: Point) -> None:
        assert parse("hang", point)[0].fault is Fault.HANG

    def test_the_server_goes_on_after_all_of_it(self, fal: FalCalls) -> None:
        for fault in ("drop_before", "drop_after", "truncate"):
            with pytest.raises(httpx2.RemoteProtocolError):
                fal.initiate(headers=asked(fault))
        assert fal.edit().status_code == 200


class TestLies:
    def test_garbage_is_labelled_json_and_is_none(self, fal: FalCalls) -> None:
        answer = fal.submit(headers=asked("garbage_json"))
        assert (answer.status_code, answer.headers["content-type"]) == (200, "application/json")
        with pytest.raises(ValueError):
            answer.json()

    @pytest.mark.parametrize(("fault", "word"), [("status_word", "PAUSED"), ("status_word;word=null", None)])
    def test_the_status_can_say_a_word_that_nobody_knows(self, fal: FalCalls, fault: str, word: str | None) -> None:
        job = fal.submit().json()
        fal.wait(job)
        answer = fal.http.get(job["status_url"], headers={**fal.key, **asked(fault)})
        assert (answer.status_code, answer.json()["status"]) == (200, word)
        assert answer.json()["request_id"] == job["request_id"]

    def test_the_wrong_label_on_the_right_answer(self, fal: FalCalls) -> None:
        answer = fal.submit(headers=asked("wrong_content_type"))
        assert answer.headers["content-type"] == "text/html"
        assert "request_id" in answer.json()

    def test_foreign_urls_keep_their_path(self, fal: FalCalls) -> None:
        job = fal.submit(headers=asked("foreign_urls;origin=https://evil.example")).json()
        path = f"{EDIT}/requests/{job['request_id']}"
        assert job["status_url"] == f"https://evil.example/{path}/status"
        assert job["response_url"] == f"https://evil.example/{path}"
        assert job["cancel_url"] == f"https://evil.example/{path}/cancel"

    def test_a_bad_request_id_is_in_the_answer_only(self, fal: FalCalls) -> None:
        job = fal.submit(headers=asked("bad_request_id")).json()
        assert job["request_id"] == "../../../sandbox/books?x="
        assert fal.sandbox.jobs()[0]["request_id"] in job["status_url"]

    def test_a_lost_result_is_paid_for(self, fal: FalCalls) -> None:
        answer = fal.edit(headers=asked("lose_result"))
        assert (answer.status_code, answer.json()) == (404, {"detail": "Request not found"})
        totals = fal.sandbox.totals()
        assert (totals["billed_units"], totals["collected"]) == (1, 0)

    def test_a_result_lost_once_is_there_at_the_second_fetch(self, fal: FalCalls) -> None:
        fal.sandbox.script({"on": "result", "fault": "lose_result"})
        job = fal.submit().json()
        fal.wait(job)
        assert [fal.result(job).status_code for _ in range(2)] == [404, 200]


class TestPictures:
    def test_one_picture_of_several_is_flagged_and_black_and_billed(self, fal: FalCalls) -> None:
        body = fal.edit(num_images=3, headers=asked("nsfw;image=1")).json()
        assert body["has_nsfw_concepts"] == [False, True, False]
        blacks = [opened(fal.http.get(i["url"]).content).getbbox() is None for i in body["images"]]
        assert blacks == [False, True, False]
        assert fal.sandbox.totals()["billed_units"] == 3

    def test_a_word_of_the_prompt_flags_unless_the_checker_is_off(self, fal: FalCalls) -> None:
        flagged = fal.edit(prompt="something nsfw")
        assert flagged.json()["has_nsfw_concepts"] == [True]
        assert flagged.headers["x-fal-billable-units"] == "1"
        free = fal.edit(prompt="something nsfw", enable_safety_checker=False).json()
        assert free["has_nsfw_concepts"] == [False]
        assert opened(fal.http.get(free["images"][0]["url"]).content).getbbox() is not None

    def test_an_endpoint_that_refuses_answers_with_the_policy_error(self, fal: FalCalls) -> None:
        answer = fal.edit("fal-ai/nano-banana/edit", prompt="something nsfw", image_size=...)
        assert (answer.status_code, answer.json()["detail"][0]["type"]) == (422, "content_policy_violation")

    def test_no_images_is_a_success_without_a_bill(self, fal: FalCalls) -> None:
        answer = fal.edit(headers=asked("empty_images"))
        assert (answer.status_code, answer.json()["images"]) == (200, [])
        assert fal.sandbox.totals()["billed_units"] == 0

    @pytest.mark.parametrize("at_cdn", [True, False])
    def test_a_corrupt_image_has_the_right_beginning(self, fal: FalCalls, at_cdn: bool) -> None:
        image = fal.edit(headers={} if at_cdn else asked("corrupt_image")).json()["images"][0]
        data = fal.http.get(image["url"], headers=asked("corrupt_image") if at_cdn else {}).content
        assert data.startswith(b"\x89PNG")
        with pytest.raises(OSError):
            opened(data)

    def test_a_picture_can_be_redirected_to_a_private_address(self, fal: FalCalls) -> None:
        url = fal.edit().json()["images"][0]["url"]
        fal.sandbox.script({"on": "cdn", "fault": "redirect", "args": {"location": "http://10.0.0.1/x.png"}})
        answer = fal.http.get(url)
        assert (answer.status_code, answer.headers["location"]) == (307, "http://10.0.0.1/x.png")

    @pytest.mark.parametrize("chunked", [True, False])
    def test_a_picture_can_be_far_too_large(self, fal: FalCalls, chunked: bool) -> None:
        url = fal.edit().json()["images"][0]["url"]
        fal.sandbox.script({"on": "cdn", "fault": "huge", "args": {"bytes": 5_000_000, "chunked": chunked}})
        answer = fal.http.get(url)
        assert (len(answer.content), answer.content[:4]) == (5_000_000, b"\x89PNG")

    @pytest.mark.parametrize("at_cdn", [True, False])
    def test_the_type_of_a_picture_can_be_a_lie(self, fal: FalCalls, at_cdn: bool) -> None:
        image = fal.edit(headers={} if at_cdn else asked("lie_content_type")).json()["images"][0]
        file = fal.http.get(image["url"], headers=asked("lie_content_type") if at_cdn else {})
        assert (image["content_type"] == "image/webp") is not at_cdn
        assert (file.headers["content-type"], opened(file.content).format) == ("image/webp", "PNG")

    def test_the_size_can_be_a_lie(self, fal: FalCalls) -> None:
        image = fal.edit(headers=asked("lie_size;width=7;height=8")).json()["images"][0]
        assert (image["width"], image["height"]) == (7, 8)
        assert opened(fal.http.get(image["url"]).content).size == (96, 64)


class TestCancelling:
    @pytest.mark.parametrize("held", ["queue_for;seconds=30", "run_for;seconds=30"])
    def test_a_cancellation_can_come_too_late(self, fal: FalCalls, held: str) -> None:
        job = fal.submit(headers=asked(held)).json()
        answer = fal.cancel(job, asked("cancel_too_late"))
        assert (answer.status_code, answer.json()) == (400, {"status": "ALREADY_COMPLETED"})
        assert fal.result(job).status_code == 200
        assert fal.sandbox.totals()["billed_units"] == 1

    def test_a_cancellation_can_be_ignored(self, fal: FalCalls) -> None:
        job = fal.submit(headers=asked("run_for;seconds=0.2")).json()
        assert fal.cancel(job, asked("cancel_ignored")).status_code == 202
        fal.wait(job)
        assert fal.result(job).status_code == 200
        entry = fal.sandbox.jobs()[0]
        assert (entry["cancel_requested"], entry["cancelled"], entry["billed"]) == (True, False, True)
