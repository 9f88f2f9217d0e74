"""The sandbox's list of requests: api.fal.ai's fields and parameters, from the books."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Any

import httpx2
import pytest

from tests.fakes.fal_calls import EDIT, FalCalls, data_uri, picture
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


def listed(fal: FalCalls, **params: str) -> dict[str, Any]:
    answer = fal.listing(**params)
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


def ids(page: dict[str, Any]) -> list[str]:
    return [item["request_id"] for item in page["items"]]


def unix(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


def test_an_entry_has_fals_fields_and_the_times_of_the_books(fal: FalCalls) -> None:
    job = fal.submit().json()
    fal.wait(job)
    page = listed(fal)
    (item,), (booked,) = page["items"], fal.sandbox.jobs()
    assert (page["has_more"], page["next_cursor"]) == (False, None)
    assert (item["request_id"], item["endpoint_id"], item["status_code"]) == (job["request_id"], EDIT, 200)
    assert unix(item["sent_at"]) == pytest.approx(booked["submitted_at"], abs=0.01)
    assert unix(item["started_at"]) == pytest.approx(booked["started"], abs=0.01)
    assert unix(item["ended_at"]) == pytest.approx(booked["finished"], abs=0.01)
    assert "json_input" not in item


def test_a_job_at_work_is_listed_without_its_end(fal: FalCalls) -> None:
    fal.submit(headers={"X-Sandbox-Fault": "run_for;seconds=30"})
    (item,) = listed(fal)["items"]
    assert not {"ended_at", "status_code", "duration"} & set(item)


def test_payloads_are_shown_when_asked_for_and_stand_ins_for_their_pictures(fal: FalCalls) -> None:
    url = fal.upload(picture())
    fal.submit(fal.payload(seed=7, guidance_scale=4.5, image_urls=[data_uri(picture()), url]))
    (item,) = listed(fal, expand="payloads")["items"]
    assert (item["json_input"]["seed"], item["json_input"]["guidance_scale"]) == (7, 4.5)
    assert item["json_input"]["prompt"] == "make it night"
    inline, uploaded = item["json_input"]["image_urls"]
    assert inline.startswith("data:image/png;sha256,")
    assert uploaded == url


def test_jobs_of_other_endpoints_are_not_listed_and_several_can_be_asked_for(fal: FalCalls) -> None:
    fal.edit()
    fal.edit("fal-ai/qwen-image-edit-2511")
    assert len(listed(fal)["items"]) == 1
    assert listed(fal, endpoint_id="fal-ai/nothing")["items"] == []
    assert len(listed(fal, endpoint_id=f"{EDIT},fal-ai/qwen-image-edit-2511")["items"]) == 2


def test_pages_go_from_the_newest_end_to_the_oldest(fal: FalCalls) -> None:
    jobs = []
    for _ in range(5):
        jobs.append(fal.submit(fal.payload(prompt=5)).json())
        fal.wait(jobs[-1])
        fal.sandbox.advance(1)
    newest_first = [job["request_id"] for job in reversed(jobs)]
    seen, cursor = [], {}
    for more in (True, True, False):
        page = listed(fal, limit="2", **cursor)
        seen += ids(page)
        assert page["has_more"] is more
        cursor = {"cursor": page["next_cursor"]}
    assert seen == newest_first
    assert ids(listed(fal, request_id=newest_first[2])) == [newest_first[2]]


def test_start_and_end_are_about_when_a_job_ended(fal: FalCalls) -> None:
    job = fal.submit(headers={"X-Sandbox-Fault": "run_for;seconds=30"}).json()
    sent = fal.sandbox.jobs()[0]["submitted_at"]
    fal.sandbox.advance(1000)
    fal.cancel(job)
    fal.wait(job)

    def between(start: float, end: float) -> int:
        text = [datetime.fromtimestamp(sent + at).astimezone().isoformat() for at in (start, end)]
        return len(listed(fal, start=text[0], end=text[1])["items"])

    assert (between(-10, 10), between(990, 1100)) == (0, 1)


@pytest.mark.parametrize(
    "params",
    [{"limit": "0"}, {"limit": "101"}, {"limit": "x"}, {"cursor": "***"}, {"cursor": "MA=="}, {"start": "soon"}],
)
def test_a_parameter_that_is_none_is_400(fal: FalCalls, params: dict[str, str]) -> None:
    answer = fal.listing(**params)
    assert (answer.status_code, answer.json()["error"]["type"]) == (400, "validation_error")


def test_without_a_key_it_is_401(fal: FalCalls) -> None:
    answer = httpx2.get(f"{fal.sandbox.url}/api/v1/models/requests/by-endpoint", params={"endpoint_id": EDIT})
    assert (answer.status_code, answer.json()["error"]["type"]) == (401, "authorization_error")


def test_it_answers_under_fals_own_name(fal: FalCalls) -> None:
    url = f"{fal.sandbox.url}/v1/models/requests/by-endpoint"
    answer = fal.http.get(url, params={"endpoint_id": EDIT}, headers={**fal.key, "Host": "api.fal.ai"})
    assert answer.json()["items"] == []


def test_a_list_can_lag_behind(fal: FalCalls) -> None:
    fal.edit()
    fal.sandbox.script({"on": "list", "fault": "list_lag", "args": {"seconds": 60}, "times": None})
    assert listed(fal)["items"] == []
    fal.sandbox.advance(61)
    assert len(listed(fal)["items"]) == 1


def test_a_list_can_withhold_payloads_or_fail_like_any_call(fal: FalCalls) -> None:
    fal.edit()
    fal.sandbox.script({"on": "list", "fault": "list_no_payloads"}, {"on": "list", "fault": "http"})
    assert "json_input" not in listed(fal, expand="payloads")["items"][0]
    assert fal.listing().status_code == 500
    assert "json_input" in listed(fal, expand="payloads")["items"][0]
