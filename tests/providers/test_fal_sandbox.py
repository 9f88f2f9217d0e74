"""The sandbox keeps fal's protocol: queue, results, books. Through real HTTP on loopback."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import httpx2
import pytest

from providers.fal_sandbox import SANDBOX
from providers.fal_sandbox.options import Options
from tests.fakes.fal_calls import EDIT, FalCalls, data_uri, picture
from tests.fakes.sandbox import SandboxServer


@pytest.fixture(scope="module")
def server() -> Iterator[SandboxServer]:
    with SandboxServer(large_result_bytes=10_000) as server:
        yield server


@pytest.fixture
def fal(server: SandboxServer) -> Iterator[FalCalls]:
    server.reset()
    with FalCalls(server) as calls:
        yield calls


class TestEntryPoint:
    def test_settings_point_the_provider_at_a_served_sandbox(self) -> None:
        assert SANDBOX.settings("http://127.0.0.1:9100/") == {
            "key": "sandbox:sandbox",
            "queue_url": "http://127.0.0.1:9100/queue",
            "run_url": "http://127.0.0.1:9100/run",
            "rest_url": "http://127.0.0.1:9100/rest",
            "api_url": "http://127.0.0.1:9100/api",
            "media_origins": "http://127.0.0.1:9100",
        }

    def test_importing_the_package_loads_neither_pillow_nor_starlette(self) -> None:
        code = "import sys, providers.fal_sandbox; print({'PIL', 'starlette', 'pydantic'} & set(sys.modules))"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert done.stdout.strip() == "set()"

    def test_each_app_is_a_fresh_one(self) -> None:
        assert SANDBOX.app() is not SANDBOX.app()

    def test_the_environment_sets_times_and_names_a_bad_value(self) -> None:
        options = Options.from_environment({"FAL_SANDBOX_RUN_SECONDS": "0.5", "FAL_SANDBOX_CONCURRENCY": "2"})
        assert (options.run_seconds, options.concurrency) == (0.5, 2)
        for bad in ("fast", "-1", "nan", "inf"):
            with pytest.raises(ValueError, match="FAL_SANDBOX_QUEUE_SECONDS"):
                Options.from_environment({"FAL_SANDBOX_QUEUE_SECONDS": bad})

    def test_health_needs_no_key(self, fal: FalCalls) -> None:
        assert fal.http.get(f"{fal.sandbox.url}/sandbox/health").status_code == 200


class TestQueue:
    def test_submit_answers_with_fals_fields_and_urls_on_the_hosts_own_name(self, fal: FalCalls) -> None:
        answer = fal.submit()
        job = answer.json()
        base = f"{fal.sandbox.url}/queue/{EDIT}/requests/{job['request_id']}"
        assert answer.status_code == 200
        assert answer.headers["x-fal-request-id"] == job["request_id"]
        assert job == {
            "status": "IN_QUEUE",
            "request_id": job["request_id"],
            "response_url": base,
            "status_url": f"{base}/status",
            "cancel_url": f"{base}/cancel",
            "queue_position": 0,
            "logs": None,
            "metrics": {},
            "gateway_request_id": job["request_id"],
        }

    def test_status_is_202_until_it_is_completed(self, fal: FalCalls) -> None:
        job = fal.submit(headers={"X-Sandbox-Fault": "queue_for;seconds=0.15, run_for;seconds=0.15"}).json()
        queued = fal.status(job)
        assert (queued.status_code, queued.json()["status"], queued.json()["queue_position"]) == (202, "IN_QUEUE", 0)
        running = fal.wait(job, "IN_PROGRESS")
        assert (running.status_code, running.json()["logs"]) == (202, None)
        assert len(fal.status(job, logs="1").json()["logs"]) > 0
        done = fal.wait(job)
        assert done.status_code == 200
        assert done.json()["metrics"]["inference_time"] >= 0.15

    def test_a_result_asked_for_too_early_is_400(self, fal: FalCalls) -> None:
        job = fal.submit(headers={"X-Sandbox-Fault": "run_for;seconds=9"}).json()
        early = fal.result(job)
        assert (early.status_code, early.json()) == (400, {"detail": "Request is still in progress"})

    def test_only_so_many_jobs_run_and_the_others_know_their_place(self) -> None:
        with SandboxServer(concurrency=2) as server, FalCalls(server) as fal:
            server.script({"on": "submit", "fault": "run_for;seconds=30", "times": None})
            jobs = [fal.submit().json() for _ in range(5)]
            states = [fal.status(job).json() for job in jobs]
            assert [s["status"] for s in states] == ["IN_PROGRESS"] * 2 + ["IN_QUEUE"] * 3
            assert [s["queue_position"] for s in states[2:]] == [0, 1, 2]
            fal.cancel(jobs[2])
            assert fal.status(jobs[4]).json()["queue_position"] == 1
            fal.cancel(jobs[0])
            fal.wait(jobs[3], "IN_PROGRESS")

    def test_a_queue_longer_than_the_caller_wants_is_429(self) -> None:
        with SandboxServer(concurrency=1) as server, FalCalls(server) as fal:
            server.script({"on": "submit", "fault": "run_for;seconds=30", "times": None})
            one = {"fal_max_queue_length": "1"}
            assert [fal.submit(params=one).status_code for _ in range(3)] == [200, 200, 429]
            assert server.totals()["submitted"] == 2

    def test_a_job_that_cannot_start_in_time_is_fals_user_timeout(self) -> None:
        with SandboxServer(queue_seconds=30) as server, FalCalls(server) as fal:
            job = fal.submit(headers={"X-Fal-Request-Timeout": "0.1"}).json()
            state = fal.wait(job).json()
            assert (state["error_type"], state["error"]) == ("request_timeout", "Request timed out")
            result = fal.result(job)
            assert result.status_code == 504
            assert result.headers["x-fal-request-timeout-type"] == "user"
            assert result.headers["x-fal-error-type"] == "request_timeout"

    def test_status_result_and_cancel_of_a_sub_path_live_at_owner_and_alias(self, fal: FalCalls) -> None:
        uri = data_uri(picture())
        body = {"prompt": "x", "image_url": uri, "mask_url": uri}
        job = fal.submit(body, "fal-ai/qwen-image-edit/inpaint").json()
        assert "/queue/fal-ai/qwen-image-edit/requests/" in job["status_url"]
        wrong = job["status_url"].replace("qwen-image-edit/", "qwen-image-edit/inpaint/")
        assert fal.http.get(wrong, headers=fal.key).status_code == 405
        other = job["status_url"].replace("qwen-image-edit/", "qwen-image/")
        assert fal.http.get(other, headers=fal.key).status_code == 404
        fal.wait(job)

    def test_the_stream_tells_each_change_and_ends_at_completed(self, fal: FalCalls) -> None:
        job = fal.submit(headers={"X-Sandbox-Fault": "queue_for;seconds=0.1, run_for;seconds=0.1"}).json()
        with fal.http.stream("GET", job["status_url"] + "/stream", headers=fal.key) as answer:
            events = [json.loads(line[6:]) for line in answer.iter_lines() if line.startswith("data: ")]
        assert [event["status"] for event in events] == ["IN_QUEUE", "IN_PROGRESS", "COMPLETED"]

    def test_a_queued_job_is_cancelled_and_answers_499(self, fal: FalCalls) -> None:
        job = fal.submit(headers={"X-Sandbox-Fault": "queue_for;seconds=30"}).json()
        answer = fal.cancel(job)
        assert (answer.status_code, answer.json()) == (202, {"status": "CANCELLATION_REQUESTED"})
        state = fal.wait(job).json()
        assert state["error_type"] == "client_cancelled"
        result = fal.result(job)
        assert (result.status_code, result.json()["error_type"]) == (499, "client_cancelled")

    def test_a_running_job_is_stopped_and_not_billed(self, fal: FalCalls) -> None:
        job = fal.submit(headers={"X-Sandbox-Fault": "run_for;seconds=30"}).json()
        fal.wait(job, "IN_PROGRESS")
        assert fal.cancel(job).status_code == 202
        fal.wait(job)
        entry = fal.sandbox.jobs()[0]
        assert (entry["cancelled"], entry["billed"]) == (True, False)

    def test_cancelling_what_is_done_or_unknown(self, fal: FalCalls) -> None:
        job = fal.submit().json()
        fal.wait(job)
        late = fal.cancel(job)
        assert (late.status_code, late.json()) == (400, {"status": "ALREADY_COMPLETED"})
        job["cancel_url"] = job["cancel_url"].replace(job["request_id"], "00000000-0000-0000-0000-000000000000")
        unknown = fal.cancel(job)
        assert (unknown.status_code, unknown.json()) == (404, {"status": "NOT_FOUND"})

    def test_small_results_last_an_hour_and_large_ones_six_minutes(self, fal: FalCalls) -> None:
        small, large = (
            fal.submit().json(),
            fal.submit(fal.payload(sync_mode=True, prompt="snow", image_size="square")).json(),
        )
        fal.wait(small), fal.wait(large)
        fal.sandbox.advance(359)
        assert fal.result(large).status_code == 200
        fal.sandbox.advance(2)
        assert (fal.result(small).status_code, fal.result(large).status_code) == (200, 404)
        fal.sandbox.advance(3600)
        assert fal.result(small).status_code == 404

    def test_a_result_tells_what_is_billed(self, fal: FalCalls) -> None:
        # 1.2 megapixels count as two, each picture for itself
        answer = fal.edit(image_size={"width": 1280, "height": 960}, num_images=2)
        assert answer.headers["x-fal-billable-units"] == "4"
        assert fal.sandbox.totals()["billed_units"] == 4

    def test_the_synchronous_host_answers_with_the_result(self, fal: FalCalls) -> None:
        answer = fal.run()
        assert answer.status_code == 200
        assert answer.headers["x-fal-billable-units"] == "1"
        assert len(answer.json()["images"]) == 1
        assert fal.sandbox.jobs()[0]["via"] == "run"

    def test_the_synchronous_host_has_no_queue(self) -> None:
        with SandboxServer(concurrency=1) as server, FalCalls(server) as fal:
            fal.submit(headers={"X-Sandbox-Fault": "run_for;seconds=30"})
            answer = fal.run()
            assert (answer.status_code, answer.json()["error_type"]) == (429, "concurrent_requests_limit")
            assert answer.headers["x-fal-needs-retry"] == "1"

    @pytest.mark.parametrize("header", [None, "Bearer a:b", "Key", "Key abc", "Key a:b c"])
    def test_a_malformed_key_is_401_everywhere_but_on_the_cdn(self, fal: FalCalls, header: str | None) -> None:
        headers = {"Authorization": header} if header else {}
        url = fal.sandbox.url
        answers = [
            fal.http.post(f"{url}/queue/{EDIT}", json={}, headers=headers),
            fal.http.post(f"{url}/run/{EDIT}", json={}, headers=headers),
            fal.http.post(f"{url}/rest/storage/upload/initiate", json={}, headers=headers),
            fal.http.post(f"{url}/rest/storage/auth/token", json={}, headers=headers),
            fal.http.get(f"{url}/queue/{EDIT}/requests/x/status", headers=headers),
        ]
        assert [answer.status_code for answer in answers] == [401] * 5
        assert "Invalid Key Authorization header format" in answers[0].json()["detail"]
        assert fal.sandbox.totals()["submitted"] == 0

    def test_unknown_addresses_and_wrong_verbs(self, fal: FalCalls) -> None:
        assert fal.submit({}, "fal-ai/nobody").json() == {"status": "NOT_FOUND"}
        sub_path = fal.submit({}, f"{EDIT}/nothing")
        assert (sub_path.status_code, sub_path.json()) == (404, {"detail": "Path /nothing not found"})
        job = fal.submit().json()
        for verb, url in (
            ("DELETE", f"{fal.sandbox.url}/queue/{EDIT}"),
            ("POST", job["status_url"]),
            ("GET", job["cancel_url"]),
        ):
            assert fal.http.request(verb, url, headers=fal.key).status_code == 405

    @pytest.mark.parametrize("body", [b"{", b"\xff", b'{"seed": NaN}', b"[" * 100_000])
    def test_a_body_that_is_not_json_is_a_bad_request(self, fal: FalCalls, body: bytes) -> None:
        answer = fal.http.post(f"{fal.sandbox.url}/queue/{EDIT}", content=body, headers=fal.key)
        assert (answer.status_code, answer.json()["error_type"]) == (400, "bad_request")


class TestBooks:
    def test_a_job_is_booked_from_submission_to_collection(self, fal: FalCalls) -> None:
        data = picture((50, 40))
        job = fal.submit(fal.payload(image_urls=[data_uri(data)]), headers={"X-Fal-Store-IO": "0"}).json()
        fal.wait(job)
        fal.result(job), fal.result(job)
        books = fal.sandbox.books()
        entry = books["jobs"][0]
        shown = entry["payload"]["image_urls"][0]
        assert (shown["mime"], shown["bytes"], shown["width"], shown["height"]) == ("image/png", len(data), 50, 40)
        assert len(shown["sha256"]) == 64
        assert entry["headers"]["x-fal-store-io"] == "0"
        assert entry["submitted_at"] <= entry["started"] <= entry["finished"]
        assert (entry["state"], entry["collected"], entry["billed"], entry["status_code"]) == (
            "COMPLETED",
            2,
            True,
            200,
        )
        assert books["totals"] == {
            "submitted": 1,
            "completed": 1,
            "failed": 0,
            "cancelled": 0,
            "collected": 2,
            "billed": 1,
            "billed_units": 1.0,
            "billed_uncollected": 0,
        }

    def test_it_is_booked_when_a_result_was_first_collected(self, fal: FalCalls) -> None:
        job = fal.submit().json()
        fal.wait(job)
        entry = fal.sandbox.jobs()[0]
        assert (entry["billed"], entry["first_collected"]) == (True, None)
        assert fal.sandbox.totals()["billed_uncollected"] == 1
        fal.result(job)
        first = fal.sandbox.jobs()[0]["first_collected"]
        assert first >= entry["finished"]
        fal.sandbox.advance(5)
        fal.result(job)
        assert fal.sandbox.jobs()[0]["first_collected"] == first
        assert fal.sandbox.totals()["billed_uncollected"] == 0

    @pytest.mark.parametrize("fault", ["drop_after", "truncate", "garbage_json", "http", "lose_result"])
    def test_a_result_that_did_not_arrive_is_not_collected(self, fal: FalCalls, fault: str) -> None:
        job = fal.submit().json()
        fal.wait(job)
        with contextlib.suppress(httpx2.RemoteProtocolError):
            fal.result(job, {"X-Sandbox-Fault": fault})
        totals = fal.sandbox.totals()
        assert (totals["collected"], totals["billed"], totals["billed_uncollected"]) == (0, 1, 1)
        fal.result(job)
        assert fal.sandbox.totals()["billed_uncollected"] == 0

    def test_what_nobody_pays_for_is_never_missing(self, fal: FalCalls) -> None:
        fal.edit(num_images=9)
        fal.run()
        assert fal.sandbox.totals()["billed_uncollected"] == 0

    def test_a_refused_job_is_failed_and_free(self, fal: FalCalls) -> None:
        fal.edit(num_images=9)
        totals = fal.sandbox.totals()
        assert (totals["submitted"], totals["failed"], totals["billed_units"]) == (1, 1, 0)

    def test_reset_forgets_everything_even_running_jobs(self, fal: FalCalls) -> None:
        url = fal.upload(picture())
        fal.submit(headers={"X-Sandbox-Fault": "run_for;seconds=30"})
        fal.sandbox.script({"on": "status", "fault": "http"})
        fal.sandbox.reset()
        books = fal.sandbox.books()
        assert (books["jobs"], books["uploads"], set(books["totals"].values())) == ([], 0, {0})
        assert fal.sandbox.rules() == []
        assert fal.http.get(url).status_code == 404

    def test_reset_answers_whoever_waits(self) -> None:
        with SandboxServer(concurrency=3) as server, ThreadPoolExecutor() as threads:

            def call(fault: str) -> int:
                with FalCalls(server) as fal:
                    return fal.run(headers={"X-Sandbox-Fault": fault}).status_code

            waiting = [threads.submit(call, fault) for fault in ("run_for;seconds=30", "queue_for;seconds=30")]
            limit = time.monotonic() + 5
            while server.totals()["submitted"] < 2 and time.monotonic() < limit:
                time.sleep(0.01)
            server.reset()
            assert [future.result(5) for future in waiting] == [499, 503]

    def test_only_so_many_jobs_are_remembered(self) -> None:
        with SandboxServer(max_jobs=3) as server, FalCalls(server) as fal:
            for _ in range(5):
                fal.edit(prompt=5)
            assert (len(server.jobs()), server.totals()["submitted"]) == (3, 5)
