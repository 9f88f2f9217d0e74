"""Python clients that cannot live beside the newest SDK (test_openai_sdk.py): openai 1.x, and litellm."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.api.clients.conftest import Drive
from tests.conftest import Served


@pytest.fixture(scope="module")
def openai_1(old_python: Drive, gateway: Served, photo_path: Path) -> dict[str, Any]:
    return old_python("openai-1.lock", "drive_openai_1.py", gateway.base_url, str(photo_path))


def test_it_is_version_1(openai_1: dict[str, Any]) -> None:
    assert openai_1["version"].startswith("1.")


@pytest.mark.parametrize(
    "scenario", ["file", "path", "bytes", "bytes_io", "nameless", "list_of_one", "extras", "async"]
)
def test_every_way_to_give_a_picture_works(openai_1: dict[str, Any], scenario: str) -> None:
    assert openai_1[scenario]["keys"] == [["url"]]


def test_base64(openai_1: dict[str, Any]) -> None:
    assert openai_1["b64"] == {"keys": [["b64_json"], ["b64_json"]], "size": "256x256"}


def test_raw_and_streaming_responses(openai_1: dict[str, Any]) -> None:
    assert openai_1["raw"]["type"] == "application/json"
    assert openai_1["raw"]["id"].startswith("req_")
    assert openai_1["raw"]["keys"] == [["url"]]
    assert openai_1["streaming_response"]["status"] == 200
    assert openai_1["streaming_response"]["keys"] == [["url"]]


def test_streaming(openai_1: dict[str, Any]) -> None:
    assert openai_1["events"] == ["image_edit.completed"]


def test_errors(openai_1: dict[str, Any]) -> None:
    expected = {"class": "BadRequestError", "status": 400, "code": "integer_above_max_value", "param": "n"}
    assert openai_1["too_many"] == expected
    assert openai_1["no_prompt"]["code"] in ("missing_required_parameter", "empty_string")
    assert openai_1["no_prompt"]["param"] == "prompt"


def test_models(openai_1: dict[str, Any]) -> None:
    assert "qwen-image-edit-2509" in openai_1["models"]
    assert openai_1["slashed"] == "qwen-image-edit-2509"


def test_litellm_edits_through_us(old_python: Drive, gateway: Served, photo_path: Path) -> None:
    said = old_python("litellm.lock", "drive_litellm.py", gateway.base_url, str(photo_path))
    assert said["url"] == [["url"]]
    assert said["b64"] == [["b64_json"], ["b64_json"]]
    assert said["error"]["class"] == "BadRequestError"
    assert said["error"]["status"] == 400
    assert "Invalid size 'bogus'" in said["error"]["text"]
