"""OpenAI's JavaScript SDK, newest and version 6, and Vercel's AI SDK. The scripts in node/ act, this file judges."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.api.clients.conftest import Drive
from tests.conftest import Served, StartGateway
from tests.fakes.sandbox import SandboxServer

Results = dict[str, Any]


@pytest.fixture(scope="module", params=["openai", "openai-6"])
def results(request: pytest.FixtureRequest, node: Drive, gateway: Served, photo_path: Path) -> Results:
    said = node("openai.mjs", request.param, gateway.base_url, str(photo_path))
    said["package"] = request.param
    return said


@pytest.mark.parametrize(
    "scenario",
    [
        "read_stream",
        "to_file",
        "to_file_nameless",
        "file_with_odd_name",
        "list_of_one",
        "list_of_three",
        "extras",
        "mask",
    ],
)
def test_every_way_to_give_a_picture_works(results: Results, scenario: str) -> None:
    answer = results[scenario]
    assert "error" not in answer
    assert answer["keys"] == [["url"]]
    assert answer["urls"][0].startswith("http://127.0.0.1:")
    assert answer["requestId"] == answer["id"]
    assert answer["size"] == ("600x400" if scenario == "mask" else "256x256")


def test_a_blob_works_where_the_sdk_sends_it(results: Results) -> None:
    # Versions 4 to 6 leave a Blob out of the form: all that a server can do is to say that the picture is missing.
    if results["package"] == "openai-6":
        assert results["blob"]["error"]["code"] == "missing_required_parameter"
        assert results["blob"]["error"]["param"] == "image"
    else:
        assert results["blob"]["keys"] == [["url"]]


def test_a_buffer_sent_byte_by_byte_is_met_with_advice(results: Results) -> None:
    error = results["buffer_by_mistake"]["error"]
    assert error["status"] == 400
    assert "toFile" in error["message"]


def test_base64_and_url_never_come_together(results: Results) -> None:
    assert results["b64"]["keys"] == [["b64_json"], ["b64_json"]]
    assert all(length > 1000 for length in results["b64"]["lengths"])


def test_ten_pictures(results: Results) -> None:
    assert len(set(results["ten"]["urls"])) == 10
    assert results["ten"]["metadata"]["seed"] == 100


def test_raw_responses(results: Results) -> None:
    raw = results["raw"]
    assert (raw["status"], raw["type"], raw["pictures"]) == (200, "application/json", 1)
    assert raw["cost"] == "0.03"
    assert raw["requestId"].startswith("req_")


def test_streaming_yields_each_picture(results: Results) -> None:
    events = results["stream"]["events"]
    assert [event["type"] for event in events] == ["image_edit.completed"] * 3
    assert all(event["length"] > 1000 and event["size"] == "256x256" for event in events)
    assert all(event["usage"]["total_tokens"] == 0 and event["created"] > 0 for event in events)


def test_an_error_in_a_stream_is_thrown(results: Results) -> None:
    assert results["stream_refused"]["error"]["code"] == "content_policy_violation"


@pytest.mark.parametrize(
    ("scenario", "status", "code", "param"),
    [
        ("too_many", 400, "integer_above_max_value", "n"),
        ("no_prompt", 400, "empty_string", "prompt"),
        ("unknown_model", 404, "model_not_found", "model"),
    ],
)
def test_errors_carry_what_the_sdk_shows(results: Results, scenario: str, status: int, code: str, param: str) -> None:
    error = results[scenario]["error"]
    assert (error["status"], error["code"], error["param"]) == (status, code, param)
    assert error["requestId"].startswith("req_")
    assert "(no body)" not in error["message"]


def test_models_are_listed_and_found_by_slashed_names(results: Results) -> None:
    assert "qwen-image-edit-2509" in results["models"]["ids"]
    assert results["models"]["one"] == results["models"]["slashed"] == "qwen-image-edit-2509"


def test_what_went_upstream(results: Results, sandbox: SandboxServer) -> None:
    payloads = [job["payload"] for job in sandbox.jobs()]
    extras = [one for one in payloads if one.get("guidance_scale") == 4.5 and "loras" in one]
    assert extras
    assert extras[-1]["enable_safety_checker"] is False
    assert extras[-1]["loras"] == [{"path": "a", "scale": "0.5"}, {"path": "b", "scale": "1"}]
    assert extras[-1]["deep"] == {"er": {"list": ["1"]}}
    assert any(one["prompt"] == "sepia\nand warm" for one in payloads), "CRLF of the form is LF for the provider"
    assert not any("\r" in one["prompt"] for one in payloads)


@pytest.fixture(scope="module")
def ai_sdk(node: Drive, start_gateway: StartGateway, photo_path: Path) -> Results:
    # @ai-sdk/openai reads base64 alone: the deployment's default is there for such clients.
    gateway = start_gateway(IMAGEGATE_RESULTS_RESPONSE_FORMAT="b64_json")
    return node("ai-sdk.mjs", gateway.base_url, str(photo_path))


@pytest.mark.parametrize("provider", ["compatible", "openai"])
def test_the_ai_sdk_edits(ai_sdk: Results, provider: str) -> None:
    for scenario, count in (("one", 1), ("two", 1), ("several", 2)):
        images = ai_sdk[f"{provider}_{scenario}"]["images"]
        assert len(images) == count
        assert all(image["type"] == "image/png" and image["length"] > 1000 for image in images)


@pytest.mark.parametrize("provider", ["compatible", "openai"])
def test_the_ai_sdk_shows_our_message(ai_sdk: Results, provider: str) -> None:
    error = ai_sdk[f"{provider}_error"]["error"]
    assert error["status"] == 400
    assert error["message"].startswith("Invalid size '0x1024'.")


def test_the_compatible_provider_reads_links_too(node: Drive, gateway: Served, photo_path: Path) -> None:
    assert len(node("ai-sdk.mjs", gateway.base_url, str(photo_path))["compatible_one"]["images"]) == 1
