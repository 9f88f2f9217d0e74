"""Server-sent events byte by byte, and callers who hang up while their pictures are being made."""

from __future__ import annotations

import asyncio
import json
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest
import uvicorn
from fastapi import FastAPI

from app.api import errors
from app.api.edits import edits_router
from app.api.images import Images
from app.api.middleware import RequestContext
from app.api.pictures import PictureLoader
from app.api.request import RequestReader
from app.budgets import Memory
from app.config import Config
from app.main import build
from app.media.download import Downloader
from app.media.netguard import Guard
from app.media.pool import MediaPool
from app.server import listen
from tests.api.raw import EDITS, FORM, connected, fields, file, form, head, post, refused
from tests.conftest import MODEL, Json, Served
from tests.fakes.sandbox import SandboxServer

Script = Callable[..., None]
NewJobs = Callable[[], list[Json]]
FRAME = re.compile(r"(?:event: (?P<event>[a-z_.]+)\ndata: (?P<data>[^\n]+)|: [^\n]*)\n\n")


def framed(raw: str) -> list[tuple[str, Json]]:
    """The events of a stream that consists of nothing else (and comments)."""
    found, at = [], 0
    while at < len(raw):
        frame = FRAME.match(raw, at)
        assert frame, raw[at : at + 200]
        at = frame.end()
        if frame["event"]:
            found.append((frame["event"], json.loads(frame["data"])))
    return found


def stream_of(gateway: Served, **more: str) -> tuple[httpx2.Response, list[tuple[str, Json]]]:
    body = form(*fields(**{"stream": "true", "size": "64x64", **more}), file())
    answer: httpx2.Response = post(gateway, body, path=EDITS)
    return answer, framed(answer.text)


def wait_for(condition: Callable[[], Any], seconds: float = 3) -> float:
    """Seconds until it held."""
    began = time.monotonic()
    while not condition():
        assert time.monotonic() - began < seconds, "it did not happen in time"
        time.sleep(0.02)
    return time.monotonic() - began


# ---- events


@pytest.mark.parametrize(("wanted", "key"), [("url", "url"), ("b64_json", "b64_json")])
def test_the_frames_of_a_stream(gateway: Served, wanted: str, key: str) -> None:
    answer, events = stream_of(gateway, n="2", response_format=wanted, output_format="webp")
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["x-accel-buffering"] == "no"
    assert answer.headers["x-imagegate-model"] == MODEL
    assert answer.headers["x-request-id"].startswith("req_")
    assert "content-length" not in answer.headers
    assert [name for name, _ in events] == ["image_edit.completed"] * 2
    for name, data in events:
        assert data["type"] == name
        assert {"created_at", "usage", "size", "output_format", key} <= set(data)
        assert len({"url", "b64_json"} & set(data)) == 1
        assert (data["size"], data["output_format"]) == ("64x64", "webp")
        assert set(data["usage"]) == {"total_tokens", "input_tokens", "output_tokens", "input_tokens_details"}
    assert sorted(data["index"] for _, data in events) == [0, 1]


def test_an_error_is_nested_where_sdks_look_for_it(gateway: Served, script: Script) -> None:
    script({"on": "submit", "fault": "model_error", "args": {"type": "content_policy_violation"}})
    answer, events = stream_of(gateway)
    assert answer.status_code == 200
    [(name, data)] = events
    assert (name, data["type"]) == ("error", "error")
    assert list(data["error"]) == ["message", "type", "param", "code"]
    assert data["error"]["code"] == "content_policy_violation"


def test_a_picture_that_failed_is_told_last_and_does_not_look_like_an_error(gateway: Served, script: Script) -> None:
    script({"on": "submit", "fault": "model_error", "args": {"type": "content_policy_violation"}})
    _, events = stream_of(gateway, n="3")
    assert [name for name, _ in events] == ["image_edit.completed"] * 2 + ["image_edit.failed"]
    failed = events[-1][1]
    assert failed["code"] == "content_policy_violation"
    assert "error" not in failed
    assert {data["index"] for _, data in events} == {0, 1, 2}
    assert failed["metadata"]["cost"] == 0.06
    assert [one["index"] for one in failed["metadata"]["failed"]] == [failed["index"]]


def test_the_last_event_carries_the_metadata_of_an_answer(gateway: Served) -> None:
    _, events = stream_of(gateway, n="2", seed="5")
    assert "metadata" not in events[0][1]
    metadata = events[-1][1]["metadata"]
    assert (metadata["cost"], metadata["seed"]) == (0.06, 5)
    assert {one["name"] for one in metadata["parameters"]} >= {"prompt", "image", "n", "seed", "stream"}


def test_pictures_come_one_by_one(gateway: Served, script: Script) -> None:
    """The first is there while the second is still being made."""
    script({"on": "submit", "fault": "run_for", "args": {"seconds": 1.5}, "after": 1})
    body = form(*fields(stream="true", size="64x64", n="2"), file())
    began = time.monotonic()
    with gateway.http.stream("POST", EDITS, content=body, headers={"content-type": FORM}) as answer:
        pieces = answer.iter_text()
        received = ""
        while "\n\n" not in received:
            received += next(pieces)
        first = time.monotonic() - began
        received += "".join(pieces)
    assert first < 1.2
    assert time.monotonic() - began > 1.4
    assert len(framed(received)) == 2


def test_what_is_wrong_with_a_request_is_no_stream(gateway: Served) -> None:
    answer = post(gateway, form(*fields(stream="true", n="11"), file()), path=EDITS)
    refused(answer, 400, "integer_above_max_value", "n")


@contextmanager
def nervous_gateway(sandbox: SandboxServer, folder: Path) -> Iterator[str]:
    """A gateway in this process that says something after a tenth of a second of silence; its URL."""
    config = Config(data_dir=folder)
    built = build(config, {"fal": {**sandbox.settings, "label": "fal.ai"}})
    reader = RequestReader(
        PictureLoader(Downloader(Guard()), MediaPool(1), config.limits),
        config.limits,
        response_format="url",
        strict=False,
        public_url="",
    )
    app = FastAPI(lifespan=built.asgi.router.lifespan_context)
    app.include_router(
        edits_router(Images(built.gateway, reader, config, Memory(0), keepalive_seconds=0.1), built.auth)
    )
    errors.install(app)
    app.add_middleware(RequestContext, new_id=lambda: "req_0")
    listener = listen("127.0.0.1", 0)
    server = uvicorn.Server(uvicorn.Config(app, log_level="error"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    try:
        wait_for(lambda: server.started, 10)
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(10)
        listener.close()


def test_silence_is_filled_with_comments(sandbox: SandboxServer, script: Script, tmp_path: Path) -> None:
    script({"on": "submit", "fault": "run_for", "args": {"seconds": 1}})
    body = form(*fields(stream="true", size="64x64"), file())
    with nervous_gateway(sandbox, tmp_path) as url:
        answer = httpx2.post(url + EDITS, content=body, headers={"content-type": FORM}, trust_env=False)
    assert answer.text.startswith(": keep-alive\n\n" * 3)
    [(name, _)] = framed(answer.text)
    assert name == "image_edit.completed"


# ---- hanging up


@pytest.mark.parametrize("stream", ["true", "false"])
@pytest.mark.parametrize("abort", [False, True], ids=["close", "reset"])
def test_who_hangs_up_cancels_the_jobs(
    gateway: Served, script: Script, new_jobs: NewJobs, stream: str, abort: bool
) -> None:
    script({"on": "submit", "fault": "run_for", "args": {"seconds": 60}, "times": 3})
    body = form(*fields(n="3", size="64x64", stream=stream), file())
    with connected(gateway) as sock:
        sock.sendall(head(len(body)) + body)
        wait_for(lambda: len(new_jobs()) == 3)
        if abort:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    wait_for(lambda: all(job["cancelled"] for job in new_jobs()), 2)
    assert not any(job["billed"] for job in new_jobs())
    assert gateway.get("/healthz").status_code == 200
    assert post(gateway, form(*fields(size="64x64"), file()), path=EDITS).status_code == 200


def test_an_sdk_that_gives_up_cancels_its_job(gateway: Served, script: Script, new_jobs: NewJobs) -> None:
    import openai

    script({"on": "submit", "fault": "run_for", "args": {"seconds": 60}})
    with gateway.client(timeout=1) as client, pytest.raises(openai.APITimeoutError):
        client.images.edit(model=MODEL, prompt="a", image=file()[1])
    wait_for(lambda: all(job["cancelled"] for job in new_jobs()), 2)
    assert len(new_jobs()) == 1


def test_who_hung_up_before_anything_was_bought_buys_nothing(
    sandbox: SandboxServer, new_jobs: NewJobs, tmp_path: Path
) -> None:
    body = form(*fields(), file())
    messages = [{"type": "http.request", "body": body, "more_body": False}]
    sent: list[Any] = []

    async def receive() -> Any:
        return messages.pop() if messages else {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        sent.append(message)

    async def run() -> None:
        app = build(Config(data_dir=tmp_path), {"fal": {**sandbox.settings, "label": "fal.ai"}}).asgi
        scope = {"type": "http", "method": "POST", "path": EDITS, "query_string": b"", "http_version": "1.1"}
        async with app.router.lifespan_context(app):
            await app({**scope, "headers": [(b"content-type", FORM.encode())]}, receive, send)

    asyncio.run(run())
    assert sent == []
    assert new_jobs() == []
