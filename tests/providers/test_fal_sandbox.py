"""The sandbox keeps fal's protocol: queue, results, validation, files, books. Through real HTTP on loopback."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from providers.fal_sandbox import SANDBOX
from providers.fal_sandbox.options import Options
from providers.fal_sandbox.schema import SchemaError, load_endpoints
from tests.fakes.fal_calls import EDIT, FalCalls, data_uri, opened, picture
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


def details(fal: FalCalls, **fields: Any) -> list[dict[str, Any]]:
    answer = fal.edit(**fields)
    assert answer.status_code == 422, answer.text
    return list(answer.json()["detail"])


class TestValidation:
    def test_a_wrong_payload_is_accepted_and_refused_by_the_model(self, fal: FalCalls) -> None:
        job = fal.submit({}).json()
        assert fal.wait(job).json()["status"] == "COMPLETED"
        answer = fal.result(job)
        assert answer.status_code == 422
        assert [(e["loc"], e["type"]) for e in answer.json()["detail"]] == [
            (["body", "prompt"], "missing"),
            (["body", "image_urls"], "missing"),
        ]
        assert "x-fal-billable-units" not in answer.headers

    @pytest.mark.parametrize(
        ("fields", "loc", "kind", "ctx"),
        [
            ({"num_images": 5}, ["num_images"], "less_than_equal", {"le": 4}),
            ({"num_images": 0}, ["num_images"], "greater_than_equal", {"ge": 1}),
            ({"num_images": "many"}, ["num_images"], "int_parsing", None),
            ({"num_images": None}, ["num_images"], "int_type", None),
            ({"num_inference_steps": 101}, ["num_inference_steps"], "less_than_equal", {"le": 100}),
            ({"guidance_scale": 20.5}, ["guidance_scale"], "less_than_equal", {"le": 20.0}),
            ({"seed": 1.5}, ["seed"], "int_from_float", None),
            ({"prompt": 5}, ["prompt"], "string_type", None),
            ({"image_urls": "x"}, ["image_urls"], "list_type", None),
            ({"image_urls": ["data:,", 3]}, ["image_urls", 1], "string_type", None),
            ({"output_format": "webp"}, ["output_format"], "literal_error", {"expected": "'jpeg' or 'png'"}),
            ({"enable_safety_checker": "perhaps"}, ["enable_safety_checker"], "bool_parsing", None),
            ({"image_size": {"width": 14143}}, ["image_size", "ImageSize", "width"], "less_than_equal", {"le": 14142}),
            ({"image_size": {"width": 0}}, ["image_size", "ImageSize", "width"], "greater_than", {"gt": 0}),
        ],
    )
    def test_each_mistake_is_named_as_fal_names_it(
        self, fal: FalCalls, fields: dict[str, Any], loc: list[Any], kind: str, ctx: dict[str, Any] | None
    ) -> None:
        first = details(fal, **fields)[0]
        assert (first["loc"], first["type"], first.get("ctx")) == (["body", *loc], kind, ctx)
        assert first["url"] == f"https://docs.fal.ai/errors/#{kind}"
        assert first["msg"]
        assert "input" in first

    def test_null_is_refused_where_the_schema_has_no_null(self, fal: FalCalls) -> None:
        assert {entry["loc"][1] for entry in details(fal, image_size=None)} == {"image_size"}
        assert fal.edit(seed=None).status_code == 200

    def test_unknown_fields_are_tolerated_and_numbers_in_strings_are_numbers(self, fal: FalCalls) -> None:
        answer = fal.edit(num_images="2", image_url="x", true_cfg_scale=9)
        assert (answer.status_code, len(answer.json()["images"])) == (200, 2)

    def test_an_address_outside_the_sandbox_is_never_fetched(self, fal: FalCalls) -> None:
        for url in ("https://example.com/a.png", "http://127.0.0.1:1/cdn/files/x", "file:///etc/passwd", "x"):
            entry = details(fal, image_urls=[data_uri(picture()), url])[0]
            assert (entry["loc"], entry["type"]) == (["body", "image_urls", 1], "file_download_error")

    def test_what_is_no_picture_does_not_load_and_is_echoed(self, fal: FalCalls) -> None:
        for url in (data_uri(b"hello"), "data:image/png;base64,@@@", "data:nothing", data_uri(picture()[:60])):
            entry = details(fal, image_urls=[url])[0]
            assert (entry["loc"], entry["type"], entry["input"]) == (["body", "image_urls", 0], "image_load_error", url)

    def test_no_input_at_all_is_a_short_sequence(self, fal: FalCalls) -> None:
        entry = details(fal, image_urls=[])[0]
        assert (entry["type"], entry["ctx"]) == ("sequence_too_short", {"min_length": 1})

    def test_too_many_pixels_in_or_out(self) -> None:
        with SandboxServer(max_input_pixels=5_000, max_output_pixels=10_000) as server, FalCalls(server) as fal:
            entry = details(fal)[0]
            assert (entry["type"], set(entry["ctx"])) == ("image_too_large", {"max_width", "max_height"})
            answer = fal.edit(image_urls=[data_uri(picture((64, 64)))], image_size="square")
            assert (answer.status_code, answer.json()["detail"][0]["type"]) == (500, "internal_server_error")

    def test_an_operator_adds_an_endpoint_by_a_file(self, tmp_path: Path) -> None:
        schema = {
            "endpoints": ["acme/tiny"],
            "fields": {"prompt": {"type": "string", "required": True}, "image_url": {"type": "string"}},
            "roles": {"images": "image_url"},
            "size": {"absent": "48x32"},
        }
        (tmp_path / "tiny.json").write_text(json.dumps(schema))
        with SandboxServer(schema_dirs=[tmp_path]) as server, FalCalls(server) as fal:
            body = {"prompt": "x", "image_url": data_uri(picture())}
            image = fal.run(body, "acme/tiny").json()["images"][0]
            assert (image["width"], image["height"]) == (48, 32)

    def test_a_schema_with_a_typo_stops_the_start_and_names_the_file(self, tmp_path: Path) -> None:
        (tmp_path / "bad.json").write_text('{"endpoints": ["a/b"], "fields": {"n": {"type": "integer", "maximum": 3}}}')
        with pytest.raises(SchemaError, match=r"bad\.json.*maximum"):
            load_endpoints([tmp_path])


class TestSizes:
    def test_without_a_size_the_model_of_2509_renders_a_square(self, fal: FalCalls) -> None:
        """The trap: a landscape goes in, a 1024 square comes out. A gateway must always send a size."""
        image = fal.edit(image_size=...).json()["images"][0]
        assert (image["width"], image["height"]) == (1024, 1024)

    @pytest.mark.parametrize(
        ("endpoint", "fields", "size"),
        [
            (EDIT, {"image_size": "portrait_16_9"}, (576, 1024)),
            (EDIT, {"image_size": {"width": 100}}, (100, 512)),
            (EDIT, {"image_size": {"width": 333, "height": 77}}, (333, 77)),
            ("fal-ai/qwen-image-edit-2511", {"image_size": ...}, (96, 64)),
            ("fal-ai/qwen-image-edit-2511", {"image_size": None}, (96, 64)),
            ("fal-ai/nano-banana/edit", {"aspect_ratio": "16:9"}, (1344, 768)),
            ("fal-ai/nano-banana/edit", {}, (1248, 832)),
            ("fal-ai/nano-banana-pro/edit", {"aspect_ratio": "1:1", "resolution": "2K"}, (2048, 2048)),
            ("fal-ai/gpt-image-1.5/edit", {"image_size": "1536x1024"}, (1536, 1024)),
            ("fal-ai/bytedance/seedream/v4/edit", {"image_size": ...}, (2048, 2048)),
            ("fal-ai/qwen-image", {"image_size": ...}, (1024, 768)),
        ],
    )
    def test_size_by_the_words_of_each_endpoint(
        self, fal: FalCalls, endpoint: str, fields: dict[str, Any], size: tuple[int, int]
    ) -> None:
        if endpoint != EDIT and "image_size" not in fields:
            fields = {**fields, "image_size": ...}
        answer = fal.edit(endpoint, **fields)
        assert answer.status_code == 200, answer.text
        image = answer.json()["images"][0]
        true = opened(fal.http.get(image["url"]).content).size
        assert (image["width"], image["height"]) == size == true

    def test_the_output_has_the_fields_of_its_schema(self, fal: FalCalls) -> None:
        qwen = fal.edit(seed=11, prompt="sepia").json()
        assert set(qwen) == {"images", "timings", "seed", "has_nsfw_concepts", "prompt"}
        assert (qwen["seed"], qwen["prompt"], qwen["has_nsfw_concepts"]) == (11, "sepia", [False])
        assert set(qwen["images"][0]) == {"url", "width", "height", "content_type"}
        banana = fal.edit("fal-ai/nano-banana/edit", image_size=...).json()
        assert set(banana) == {"images", "description"}
        assert set(banana["images"][0]) == {"url", "width", "height", "content_type", "file_name", "file_size"}

    def test_a_random_seed_is_told(self, fal: FalCalls) -> None:
        assert fal.edit().json()["seed"] != fal.edit().json()["seed"]

    @pytest.mark.parametrize(("asked", "form"), [("png", "PNG"), ("jpeg", "JPEG")])
    def test_the_format_is_the_one_asked_for(self, fal: FalCalls, asked: str, form: str) -> None:
        image = fal.edit(output_format=asked).json()["images"][0]
        file = fal.http.get(image["url"])
        assert image["content_type"] == file.headers["content-type"] == f"image/{asked}"
        assert opened(file.content).format == form

    def test_sync_mode_puts_the_picture_into_the_url(self, fal: FalCalls) -> None:
        image = fal.edit(sync_mode=True).json()["images"][0]
        assert image["url"].startswith("data:image/png;base64,")
        assert fal.sandbox.books()["cdn_downloads"] == 0


class TestFiles:
    @pytest.mark.parametrize("storage", ["gcs", "fal-cdn-v3"])
    def test_a_ticket_takes_the_bytes_without_a_key(self, fal: FalCalls, storage: str) -> None:
        ticket = fal.initiate(storage=storage).json()
        data = picture()
        put = fal.http.put(ticket["upload_url"], content=data, headers={"Content-Type": "image/png"})
        assert put.status_code == 200
        file = fal.http.get(ticket["file_url"])
        assert (file.content, file.headers["content-type"]) == (data, "image/png")
        books = fal.sandbox.books()
        assert (books["uploads"], books["upload_bytes"], books["cdn_downloads"]) == (1, len(data), 1)

    def test_another_content_type_than_announced_is_403(self, fal: FalCalls) -> None:
        ticket = fal.initiate("image/png").json()
        for headers in ({"Content-Type": "image/jpeg"}, {}):
            assert fal.http.put(ticket["upload_url"], content=b"x", headers=headers).status_code == 403
        assert fal.http.get(ticket["file_url"]).status_code == 404

    def test_a_token_uploads_directly(self, fal: FalCalls) -> None:
        token = fal.http.post(f"{fal.sandbox.url}/rest/storage/auth/token", json={}, headers=fal.key).json()
        headers = {"Authorization": f"{token['token_type']} {token['token']}", "Content-Type": "image/png"}
        url = f"{token['base_url']}/files/upload"
        file_url = fal.http.post(url, content=picture(), headers={**headers, "X-Fal-File-Name": "a/b.png"}).json()[
            "access_url"
        ]
        assert file_url.endswith("_b.png")
        assert fal.http.get(file_url).content == picture()
        fal.sandbox.advance(3601)
        assert fal.http.post(url, content=b"x", headers=headers).status_code == 401

    def test_an_uploaded_file_is_an_input(self, fal: FalCalls) -> None:
        assert fal.edit(image_urls=[fal.upload(picture())]).status_code == 200

    def test_head_tells_what_get_would(self, fal: FalCalls) -> None:
        url = fal.upload(picture())
        head = fal.http.head(url)
        assert (head.status_code, head.content) == (200, b"")
        assert head.headers["content-length"] == str(len(picture()))
        assert fal.http.delete(url).status_code == 405

    def test_outputs_expire_when_the_request_said_so(self, fal: FalCalls) -> None:
        wish = {"X-Fal-Object-Lifecycle-Preference": json.dumps({"expiration_duration_seconds": 60})}
        short = fal.edit(headers=wish).json()["images"][0]["url"]
        ever = fal.edit().json()["images"][0]["url"]
        fal.sandbox.advance(61)
        assert (fal.http.get(short).status_code, fal.http.get(ever).status_code) == (404, 200)

    @pytest.mark.parametrize(("access", "status"), [("allow", 200), ("forbid", 403), ("hide", 404)])
    def test_strangers_see_what_the_access_rule_lets_them(self, fal: FalCalls, access: str, status: int) -> None:
        wish = {"X-Fal-Object-Lifecycle-Preference": json.dumps({"initial_acl": {"default": access}})}
        url = fal.upload(picture(), headers=wish)
        assert fal.http.get(url).status_code == status
        token = fal.http.post(f"{fal.sandbox.url}/rest/storage/auth/token", json={}, headers=fal.key).json()["token"]
        assert fal.http.get(url, headers={"Authorization": f"Bearer {token}"}).status_code == 200

    def test_a_key_sent_to_the_cdn_is_refused_and_booked_as_a_leak(self, fal: FalCalls) -> None:
        url = fal.upload(picture())
        assert fal.http.get(url, headers=fal.key).status_code == 401
        assert fal.sandbox.books()["key_leaks"] == 1

    def test_memory_is_bounded_and_the_least_used_files_go(self) -> None:
        with SandboxServer(max_file_bytes=25_000) as server, FalCalls(server) as fal:
            urls = [fal.upload(bytes(10_000)) for _ in range(2)]
            fal.http.get(urls[0])
            urls.append(fal.upload(bytes(10_000)))
            assert [fal.http.get(url).status_code for url in urls] == [200, 404, 200]

    def test_fals_own_host_names_need_no_prefix(self, fal: FalCalls) -> None:
        answer = fal.http.post(
            f"{fal.sandbox.url}/{EDIT}", json=fal.payload(), headers={**fal.key, "Host": "queue.fal.run"}
        )
        assert answer.json()["status_url"].startswith(f"https://queue.fal.run/{EDIT}/requests/")


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
        }

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
