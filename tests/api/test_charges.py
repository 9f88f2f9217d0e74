"""What an error says of money is what the provider's own books say."""

from __future__ import annotations

import io
import random
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx2
import pytest
from PIL import Image

from app.children import Child
from tests.conftest import MODEL, Json, Served, StartGateway
from tests.fakes.sandbox import SandboxServer

Script = Callable[..., None]
REFUSAL, BREAKDOWN = "content_policy_violation", "runner_server_error"
ASK = {"model": MODEL, "prompt": "sepia", "size": "1024x1024"}


def edit(gateway: Served, photo: bytes, **more: str) -> Any:
    return gateway.post(data=ASK | more, files={"image": photo}, headers={"x-request-timeout": "8"})


@pytest.mark.parametrize(
    ("rule", "status", "says", "billed"),
    [
        ({"on": "submit", "fault": "lose_result"}, 502, "It is not known whether the provider charged for it.", 1),
        ({"on": "submit", "fault": "nsfw"}, 400, "It was charged: 0.03 USD.", 1),
        ({"on": "submit", "fault": "model_error", "args": {"type": REFUSAL}}, 400, "Nothing was charged.", 0),
        ({"on": "submit", "fault": "infra_error", "args": {"error_type": BREAKDOWN}}, 502, "Nothing was charged.", 0),
        ({"on": "submit", "fault": "locked"}, 502, "Nothing was charged.", 0),
        ({"on": "submit", "fault": "corrupt_image"}, 502, "It was charged: 0.03 USD.", 1),
        ({"on": "submit", "fault": "drop_after"}, 502, "It is not known whether the provider charged for it.", None),
    ],
)  # fmt: skip
def test_an_error_says_whether_it_was_charged(
    gateway: Served,
    start_gateway: StartGateway,
    script: Script,
    new_jobs: Callable[[], list[Json]],
    photo: bytes,
    rule: Json,
    status: int,
    says: str,
    billed: int | None,
) -> None:
    if rule["fault"] == "locked":  # the offer is left alone for a moment: in nobody's way here
        gateway = start_gateway(IMAGEGATE_RESULTS_URL_SECONDS="3601")
    script(rule)
    answer = edit(gateway, photo)
    assert answer.status_code == status, answer.text
    assert answer.json()["error"]["message"].endswith(says)
    assert answer.headers["x-should-retry"] == "false"
    assert ("x-imagegate-cost" in answer.headers) is ("not known" not in says)
    if billed is not None:
        assert sum(job["billed"] for job in new_jobs()) == billed


def test_what_fails_before_a_job_exists_costs_nothing(
    start_gateway: StartGateway, script: Script, new_jobs: Callable[[], list[Json]]
) -> None:
    gateway = start_gateway(IMAGEGATE_RESULTS_URL_SECONDS="3602")
    script({"on": "initiate", "fault": "http", "args": {"status": 403}, "times": None})
    answer = edit(gateway, large_png())
    assert answer.status_code == 502
    assert answer.json()["error"]["message"].endswith("Nothing was charged.")
    assert new_jobs() == []


def test_each_missing_picture_says_whether_it_was_charged(gateway: Served, script: Script, photo: bytes) -> None:
    script(
        {"on": "submit", "fault": "nsfw"},
        {"on": "submit", "fault": "model_error", "args": {"type": "image_load_error"}},
    )
    answer = edit(gateway, photo, n="3").json()
    assert len(answer["data"]) == 1
    assert sorted(one["charged"] for one in answer["metadata"]["failed"]) == [False, True]
    assert answer["metadata"]["cost"] == 0.06, "two pictures were made, one of them black"


def test_a_request_that_outlasts_the_drain_is_answered_in_the_envelope(
    sandbox: SandboxServer, sandbox_environ: dict[str, str], tmp_path: Path, photo: bytes, script: Script
) -> None:
    script({"on": "submit", "fault": "run_for", "args": {"seconds": 30}})
    environ = {**sandbox_environ, "IMAGEGATE_DATA_DIR": str(tmp_path), "IMAGEGATE_DRAIN_SECONDS": "1"}
    with Child(["serve", "--host", "127.0.0.1", "--port", "0"], environ) as gateway:
        answers = []

        def ask() -> None:
            with httpx2.Client(base_url=gateway.said["url"], trust_env=False, timeout=60) as http:
                answers.append(http.post("/openai/v1/images/edits", data=ASK, files={"image": photo}))

        asking = threading.Thread(target=ask)
        before = len(sandbox.jobs())
        asking.start()
        while len(sandbox.jobs()) == before:
            time.sleep(0.05)
        gateway.signal(signal.SIGTERM)
        asking.join(timeout=60)
    [answer] = answers
    assert answer.status_code == 503
    assert answer.json()["error"]["code"] == "overloaded"
    assert answer.headers["x-should-retry"] == "false"
    assert answer.headers["x-request-id"].startswith("req_")


def large_png() -> bytes:
    """More than goes inline: noise does not compress."""
    buffer = io.BytesIO()
    Image.frombytes("RGB", (1000, 900), random.Random(1).randbytes(2_700_000)).save(buffer, "PNG")
    return buffer.getvalue()
