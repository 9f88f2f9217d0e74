"""Repeats and look-ups through the real door: keys, SDKs that repeat by themselves, /v1/requests, time limits."""

from __future__ import annotations

import io
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx2
import pytest
from openai import OpenAI
from PIL import Image

from tests.conftest import KEY, MODEL, Json, Served, StartGateway

Script = Callable[..., None]
NewJobs = Callable[[], list[Json]]
ASK = {"model": MODEL, "prompt": "sepia", "size": "512x512"}


def edit(gateway: Served, photo: bytes, headers: dict[str, str] | None = None, **more: str) -> httpx2.Response:
    return gateway.post(data=ASK | more, files={"image": photo}, headers=headers or {})


def key(name: str) -> dict[str, str]:
    return {"idempotency-key": f"{name}-{time.monotonic_ns()}"}


def wait_for(so: Callable[[], Any], seconds: float = 10) -> Any:
    end = time.monotonic() + seconds
    while not (found := so()):
        assert time.monotonic() < end, "it did not come about"
        time.sleep(0.02)
    return found


class TestIdempotencyKey:
    @pytest.mark.parametrize("response_format", ["url", "b64_json"])
    def test_the_same_body_comes_again(
        self, gateway: Served, new_jobs: NewJobs, photo: bytes, response_format: str
    ) -> None:
        headers = key("same")
        first = edit(gateway, photo, headers, response_format=response_format, n="2")
        again = edit(gateway, photo, headers, response_format=response_format, n="2")
        assert (first.status_code, again.status_code) == (200, 200)
        assert again.content == first.content
        assert "idempotency-replayed" not in first.headers
        assert again.headers["idempotency-replayed"] == "true"
        assert again.headers["x-request-id"] != first.headers["x-request-id"]
        assert again.headers["x-imagegate-cost"] == first.headers["x-imagegate-cost"]
        assert len(new_jobs()) == 2

    def test_a_stream_is_replayed_as_a_stream(self, gateway: Served, new_jobs: NewJobs, photo: bytes) -> None:
        headers = key("stream")
        first, again = (edit(gateway, photo, headers, stream="true") for _ in range(2))
        assert again.text == first.text
        assert again.headers["idempotency-replayed"] == "true"
        assert len(new_jobs()) == 1

    def test_another_body_is_refused(self, gateway: Served, new_jobs: NewJobs, photo: bytes) -> None:
        headers = key("other")
        assert edit(gateway, photo, headers).status_code == 200
        for more in ({"prompt": "blur"}, {"n": "2"}, {"stream": "true"}):
            answer = edit(gateway, photo, headers, **more)
            error = answer.json()["error"]
            assert (answer.status_code, error["code"]) == (422, "idempotency_mismatch")
            assert error["param"] == "Idempotency-Key"
            assert answer.headers["x-should-retry"] == "false"
        assert len(new_jobs()) == 1

    def test_a_refused_request_leaves_its_key_free(self, gateway: Served, photo: bytes) -> None:
        headers = key("refused")
        assert edit(gateway, photo, headers, n="11").status_code == 400
        assert edit(gateway, photo, headers).status_code == 200

    @pytest.mark.parametrize("bad", ["x" * 256, ""])
    def test_a_key_that_is_none_is_refused_by_name(self, gateway: Served, photo: bytes, bad: str) -> None:
        answer = edit(gateway, photo, {"idempotency-key": bad})
        assert answer.status_code == 400
        assert answer.json()["error"]["param"] == "Idempotency-Key"

    def test_it_is_found_by_its_key(self, gateway: Served, photo: bytes) -> None:
        headers = key("found")
        made = edit(gateway, photo, headers).json()
        listed = gateway.get("/v1/requests", params={"idempotency_key": headers["idempotency-key"]}).json()
        [record] = listed["data"]
        assert (record["id"], record["status"]) == (made["id"], "completed")


class TestSdk:
    def test_a_client_with_little_patience_buys_once(
        self, gateway: Served, script: Script, new_jobs: NewJobs, photo: bytes
    ) -> None:
        script({"on": "submit", "fault": "run_for", "args": {"seconds": 2.5}})
        with gateway.client(timeout=1, max_retries=5) as client:
            image = client.images.edit(model=MODEL, prompt="night", image=photo, response_format="b64_json")
        assert image.data
        assert image.data[0].b64_json
        [job] = new_jobs()
        assert not job["cancelled"]

    def test_two_that_ask_for_the_same_get_two(self, gateway: Served, new_jobs: NewJobs, photo: bytes) -> None:
        def ask(client: OpenAI) -> str | None:
            return (client.images.edit(model=MODEL, prompt="sepia", image=photo).data or [])[0].url

        with gateway.client(max_retries=2) as client, ThreadPoolExecutor(2) as pool:
            assert len(set(pool.map(ask, [client, client]))) == 2
        assert len(new_jobs()) == 2


class TestTimeLimit:
    def test_a_request_may_bring_its_own(
        self, gateway: Served, script: Script, new_jobs: NewJobs, photo: bytes
    ) -> None:
        script({"on": "submit", "fault": "run_for", "args": {"seconds": 60}})
        answer = edit(gateway, photo, {"x-request-timeout": "1"})
        error = answer.json()["error"]
        assert (answer.status_code, error["code"]) == (504, "provider_timeout")
        assert answer.headers["x-should-retry"] == "false"
        wait_for(lambda: all(job["cancelled"] for job in new_jobs()), 3)
        record = wait_for(lambda: settled(gateway, job=new_jobs()[0]["request_id"]))
        assert (record["jobs"][0]["state"], record["cost"]) == ("cancelled", 0)

    @pytest.mark.parametrize("seconds", ["0", "abc", "601"])
    def test_one_that_cannot_be_is_refused_by_name(self, gateway: Served, photo: bytes, seconds: str) -> None:
        answer = edit(gateway, photo, {"x-request-timeout": seconds})
        assert answer.status_code == 400
        assert answer.json()["error"]["param"] == "x-request-timeout"


class TestHangingUp:
    def hang_up(self, gateway: Served, photo: bytes) -> None:
        """Ask, and leave after a second."""
        with pytest.raises(httpx2.ReadTimeout):
            gateway.post(data=ASK, files={"image": photo}, timeout=1)

    def test_a_picture_that_was_done_anyway_is_kept(
        self, gateway: Served, script: Script, new_jobs: NewJobs, photo: bytes
    ) -> None:
        script(
            {"on": "submit", "fault": "run_for", "args": {"seconds": 60}},
            {"on": "cancel", "fault": "cancel_too_late"},
        )
        self.hang_up(gateway, photo)
        record = wait_for(lambda: settled(gateway, job=new_jobs()[0]["request_id"]))
        assert (record["status"], record["jobs"][0]["state"]) == ("completed", "done")
        picture = gateway.get(record["data"][0]["url"])
        assert Image.open(io.BytesIO(picture.content)).size == (512, 512)

    def test_a_cancellation_that_was_not_heard_is_charged_when_that_is_known(
        self, gateway: Served, script: Script, new_jobs: NewJobs, photo: bytes
    ) -> None:
        script(
            {"on": "submit", "fault": "run_for", "args": {"seconds": 3}},
            {"on": "cancel", "fault": "cancel_ignored"},
        )
        self.hang_up(gateway, photo)
        record = wait_for(lambda: settled(gateway, job=new_jobs()[0]["request_id"]))
        [job] = new_jobs()
        assert job["billed"]
        assert record["cost"] > 0
        assert len(record["data"]) == 1

    def test_an_operator_can_have_everything_finished(
        self, start_gateway: StartGateway, script: Script, new_jobs: NewJobs, photo: bytes
    ) -> None:
        gateway = start_gateway(IMAGEGATE_ON_DISCONNECT="finish")
        script({"on": "submit", "fault": "run_for", "args": {"seconds": 2}})
        self.hang_up(gateway, photo)
        record = wait_for(lambda: settled(gateway, job=new_jobs()[0]["request_id"]))
        assert (record["status"], len(record["data"])) == ("completed", 1)
        assert not new_jobs()[0]["cancel_requested"]


def settled(gateway: Served, job: str) -> Json | None:
    """The request that a job belongs to, once nothing of it is open."""
    [record] = gateway.get("/v1/requests", params={"job": job}).json()["data"] or [None]
    open_states = ("intent", "submitted", "cancelling", "lost", "ambiguous")
    if record is None or record["status"] == "running" or any(one["state"] in open_states for one in record["jobs"]):
        return None
    return record


class TestLookingUp:
    def test_a_request_tells_what_became_of_it(self, gateway: Served, photo: bytes) -> None:
        made = edit(gateway, photo, n="2").json()
        record = gateway.get(f"/v1/requests/{made['id']}").json()
        assert record["object"] == "request"
        assert (record["status"], record["cost"]) == ("completed", made["metadata"]["cost"])
        assert [one["size"] for one in record["data"]] == ["512x512"] * 2
        assert [(job["state"], job["index"]) for job in record["jobs"]] == [("done", 0), ("done", 1)]
        assert record["reserved"] == 0
        assert "sepia" not in str(record), "prompts are not kept"

    def test_without_the_key_nobody_sees_anything(self, locked_gateway: Served, photo: bytes) -> None:
        made = edit(locked_gateway, photo).json()
        for path in ("/v1/requests", f"/v1/requests/{made['id']}"):
            assert locked_gateway.get(path, headers={"authorization": ""}).status_code == 401
            assert locked_gateway.get(path, headers={"authorization": f"Bearer {KEY}"}).status_code == 200

    def test_an_unknown_one_is_not_found(self, gateway: Served) -> None:
        answer = gateway.get("/v1/requests/req_unknown")
        assert (answer.status_code, answer.json()["error"]["code"]) == (404, "not_found")

    @pytest.mark.parametrize(
        ("query", "param"),
        [
            ("limit=0", "limit"),
            ("limit=101", "limit"),
            ("limit=x", "limit"),
            ("state=odd", "state"),
            ("after=x", "after"),
        ],
    )
    def test_what_is_wrong_with_a_query_is_named(self, gateway: Served, query: str, param: str) -> None:
        answer = gateway.get(f"/v1/requests?{query}")
        assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)

    def test_pages_lead_from_one_to_the_next(self, gateway: Served, photo: bytes) -> None:
        made = [edit(gateway, photo).json()["id"] for _ in range(3)]
        first = gateway.get("/v1/requests?limit=2").json()
        assert [one["id"] for one in first["data"]] == made[:0:-1]
        assert first["has_more"]
        second = gateway.get(f"/v1/requests?limit=2&after={first['last_id']}").json()
        assert second["data"][0]["id"] == made[0]
