"""The sandbox's models and files: what they validate, which sizes they render, how files come and go."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from providers.fal_sandbox.replies import Reply
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

    @pytest.mark.parametrize(
        ("size", "kind"),
        [
            ({"width": 1000, "height": 1024}, "multiple_of"),
            ({"width": 512, "height": 512}, "value_error"),
            ({"width": 3840, "height": 3840}, "value_error"),
            ({"width": 2048, "height": 512}, "value_error"),
            ({"width": 1536, "height": 512}, None),
            ("auto", None),
        ],
    )
    def test_sizes_may_be_held_to_steps_areas_and_shapes(self, size: object, kind: str | None) -> None:
        checked = load_endpoints()["openai/gpt-image-2/edit"].check(
            {"prompt": "x", "image_urls": [], "image_size": size}
        )
        if kind is None:
            assert isinstance(checked, dict)
        else:
            assert isinstance(checked, Reply)
            assert kind in {entry["type"] for entry in json.loads(checked.content)["detail"]}

    @pytest.mark.parametrize(("keep", "read"), [("first", 0), ("last", 1)])
    def test_of_too_many_pictures_those_are_read_that_the_model_keeps(
        self, tmp_path: Path, keep: str, read: int
    ) -> None:
        schema = {
            "endpoints": ["acme/keeps"],
            "fields": {"prompt": {"type": "string"}, "image_urls": {"type": "strings"}},
            "roles": {"images": "image_urls", "max_images": 1, "keep": keep},
            "size": {"absent": "first_input"},
            "billed_inputs": 4,
        }
        (tmp_path / "keeps.json").write_text(json.dumps(schema))
        with SandboxServer(schema_dirs=[tmp_path]) as server, FalCalls(server) as fal:
            urls = [data_uri(picture((48, 32))), data_uri(picture((2000, 1000)))]
            answer = fal.run({"prompt": "x", "image_urls": urls}, "acme/keeps")
            assert answer.json()["images"][0]["width"] == (48, 2000)[read]
            assert answer.headers["x-fal-billable-units"] == ("2", "4")[read], "the input is billed like the output"

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
