"""Whole requests as real clients put them on the wire, replayed byte for byte (tests/recorded/)."""

from __future__ import annotations

import json
import socket
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Served

RECORDED = Path(__file__).parents[2] / "recorded"
B64 = {"open-webui", "open-webui-generations"}
PICTURES = {"java-list": 2, "langchain-community": 0, "langchain-js": 0, "open-webui-generations": 0}
UPSTREAM: dict[str, dict[str, Any]] = {
    "lobechat": {"prompt": "make it\nnight", "seed": 7, "num_inference_steps": 20, "guidance_scale": 3.5},
}


def replay(gateway: Served, request: bytes) -> tuple[int, dict[str, str], bytes]:
    """Status, headers and body of the answer."""
    with socket.create_connection(gateway.address, timeout=20) as connection:
        connection.sendall(request)
        answer = b""
        while b"\r\n\r\n" not in answer:
            answer += connection.recv(65_536)
        head, _, body = answer.partition(b"\r\n\r\n")
        lines = head.decode().split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:])}
        while len(body) < int(headers["content-length"]):
            body += connection.recv(65_536)
    return int(lines[0].split()[1]), headers, body


def test_the_recordings_are_there() -> None:
    assert len(list(RECORDED.glob("*.http"))) >= 17


@pytest.mark.parametrize("name", sorted(path.stem for path in RECORDED.glob("*.http")))
def test_a_recorded_request_is_answered(gateway: Served, new_jobs: Any, name: str) -> None:
    status, headers, body = replay(gateway, (RECORDED / f"{name}.http").read_bytes())
    assert status == 200, body
    assert headers["content-type"] == "application/json"
    answer = json.loads(body)
    [picture] = answer["data"]
    assert set(picture) == ({"b64_json"} if name in B64 else {"url"})
    [job] = new_jobs()
    assert len(job["payload"].get("image_urls", [])) == PICTURES.get(name, 1)
    for field, value in UPSTREAM.get(name, {"prompt": "make it night"}).items():
        assert job["payload"][field] == value
