"""Whatever is asked, the answer has OpenAI's shape; and no header of a caller makes the gateway stumble."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable

import httpx2
import pytest

from app.api.middleware import RequestContext
from tests.api.raw import DRY, EDITS, answer_of, connected, fields, file, form, head, post, refused
from tests.conftest import MODEL, PHOTO, Served

HOSTS = [
    "",
    "a b",
    "[::1",
    "][",
    "x:99999",
    "x:abc",
    "evil.example/path?x",
    "a@b",
    "\u00ff\u00fe",
    "[fe80::1%25eth0]:80",
    "a" * 3000,
    "127.0.0.1:1,2",
    "x#y",
    "../..",
    "gateway.example:8443",
    "[::1]:8000",
]


@pytest.mark.parametrize("path", ["/nope", "/openai/v1", "/openai/v1/images", "/openai/v1/images/variations"])
@pytest.mark.parametrize("method", ["GET", "POST", "DELETE", "PUT"])
def test_unknown_paths(gateway: Served, method: str, path: str) -> None:
    refused(gateway.http.request(method, path), 404, "not_found")


@pytest.mark.parametrize(
    "path", ["/%01", "/%00", "/%ff%fe", "/\u202e", "/" + "a" * 5000, "/..%2f..%2fetc/passwd", "/none//", "/'\"<script>"]
)
def test_odd_paths(gateway: Served, path: str) -> None:
    refused(gateway.get(path), 404, "not_found")


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "PATCH", "OPTIONS"])
def test_other_methods(gateway: Served, method: str) -> None:
    answer = gateway.http.request(method, EDITS)
    refused(answer, 405, "method_not_allowed")
    assert answer.headers["allow"] == "POST"
    refused(gateway.http.request(method, "/openai/v1/models") if method != "GET" else answer, 405, "method_not_allowed")


def test_a_refusal_of_a_path_does_not_wait_for_the_body(gateway: Served) -> None:
    with connected(gateway) as sock:
        sock.sendall(head(10**10, path="/openai/v1/images/variations") + b"x")
        refused(answer_of(sock), 404, "not_found")


def test_both_spellings_of_a_path_answer_without_a_redirect(gateway: Served) -> None:
    body = form(*fields(), file())
    assert post(gateway, body, path="/openai/v1/images/edits/?dryRun=1").status_code == 200
    for path in ("/openai/v1/models", "/openai/v1/models/", "/v1/models", "/openai/models?api-version=2026-01-01"):
        assert gateway.get(path).json()["object"] == "list"


@pytest.mark.parametrize("name", [MODEL, f"fal/{MODEL}", f"fal%2F{MODEL}", "qwen-image-edit-plus-2509", f"{MODEL}/"])
def test_every_name_of_a_model(gateway: Served, name: str) -> None:
    for prefix in ("/openai/v1/models", "/v1/models", "/openai/models"):
        found = gateway.get(f"{prefix}/{name}").json()
        assert (found["id"], found["object"]) == (MODEL, "model")
        assert {"created", "owned_by", "name", "capabilities", "modes", "providers"} <= set(found)
    assert gateway.get(f"/v1/models/{name}?schema=true").json()["parameters"]


@pytest.mark.parametrize("name", ["nope", "a/b/c", "%00", "%ff", "..%2f..", "x" * 4000, "qwen-image-edit-2508"])
def test_unknown_models(gateway: Served, name: str) -> None:
    refused(gateway.get(f"/openai/v1/models/{name}"), 404, "model_not_found", "model")


@pytest.mark.parametrize("host", HOSTS)
def test_a_malformed_host_is_no_defect(gateway: Served, host: str) -> None:
    body = form(*fields(size="64x64"), file())
    with connected(gateway) as sock:
        sock.sendall(head(len(body), host=host, more="Connection: close") + body)
        answer = answer_of(sock)
    assert answer.status in (200, 400)
    if answer.status == 200:
        url = answer.json()["data"][0]["url"]
        assert url.startswith("http://")
        assert "/files/" in url
    for path in ("/nope", "/openai/v1/models/x"):
        with connected(gateway) as sock:
            sock.sendall(f"GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode("latin-1"))
            assert answer_of(sock, "GET").status in (400, 404)


def test_a_malformed_host_opens_no_door(locked_gateway: Served) -> None:
    for host in HOSTS:
        for path in ("/openai/v1/models", f"/openai/v1/models/{MODEL}"):
            with connected(locked_gateway) as sock:
                sock.sendall(f"GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode("latin-1"))
                assert answer_of(sock, "GET").status in (400, 401)


@pytest.mark.parametrize(
    "raw",
    [
        b"GET /healthz HTTP/1.1\r\nHost: x\r\nX: a\0b\r\n\r\n",
        b"POST /openai/v1/images/edits HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nabcdef",
        b"POST /openai/v1/images/edits HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nabc\r\n",
        b"GET /\xff HTTP/1.1\r\nHost: x\r\n\r\n",
        b"NONSENSE\r\n\r\n",
    ],
)
def test_what_is_no_http_is_refused_and_closed(gateway: Served, raw: bytes) -> None:
    with connected(gateway) as sock:
        sock.sendall(raw)
        assert answer_of(sock).status == 400
        assert sock.recv(100) == b""


def test_two_lengths_of_one_body_never_make_two_requests(gateway: Served) -> None:
    """Transfer-Encoding beside Content-Length: either way, what follows is not read as a request of its own."""
    smuggled = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"
    raw = head(len(smuggled) + 5, more="Transfer-Encoding: chunked") + b"0\r\n\r\n" + smuggled
    with connected(gateway, timeout=3) as sock:
        sock.sendall(raw)
        received = b""
        try:
            while piece := sock.recv(65536):
                received += piece
        except TimeoutError:
            pass
    assert received.count(b"HTTP/1.1 200") == 0


def test_every_answer_has_an_id_of_its_own_and_a_type(gateway: Served) -> None:
    answers = [gateway.get(path) for path in ("/healthz", "/readyz", "/openai/v1/models", "/nope")]
    answers.append(post(gateway, form(*fields(), file())))
    answers.append(post(gateway, form(*fields(size="64x64"), file()), path=EDITS))
    answers.append(post(gateway, b""))
    ids = [answer.headers.get_list("x-request-id") for answer in answers]
    assert all(len(one) == 1 and one[0].startswith("req_") for one in ids)
    assert len({one[0] for one in ids}) == len(answers)
    assert {answer.headers["content-type"] for answer in answers} == {"application/json"}


def test_a_callers_request_id_is_not_taken_for_ours(gateway: Served) -> None:
    answer = gateway.get("/healthz", headers={"x-request-id": "req_mine\r\n".strip()})
    assert answer.headers["x-request-id"] != "req_mine"


def test_the_body_of_a_success_has_one_of_two_keys(gateway: Served) -> None:
    for wanted, key in (("url", "url"), ("b64_json", "b64_json")):
        body = form(*fields(size="64x64", n="2", response_format=wanted), file(content=PHOTO.read_bytes()))
        answer = post(gateway, body, path=EDITS)
        assert [list(one) for one in answer.json()["data"]] == [[key], [key]]
        assert answer.json()["id"] == answer.headers["x-request-id"]
        assert json.loads(answer.content)["metadata"]["cost"] > 0


def test_links_go_where_the_caller_came_from(gateway: Served) -> None:
    body = form(*fields(size="64x64"), file())
    answer = post(gateway, body, path=EDITS, host="images.example:8443")
    assert answer.json()["data"][0]["url"].startswith("http://images.example:8443/files/")


def test_a_dry_run_answers_no_worse_than_an_edit(gateway: Served) -> None:
    for path in (DRY, EDITS):
        refused(post(gateway, form(*fields(n="11"), file()), path=path), 400, "integer_above_max_value", "n")


def test_a_defect_of_ours_is_an_answer_too(caplog: pytest.LogCaptureFixture) -> None:
    async def broken(scope: object, receive: object, send: object) -> None:
        raise RuntimeError("a secret of /srv/ours.py")

    async def run() -> httpx2.Response:
        app = RequestContext(broken, new_id=lambda: "req_" + "0" * 32)
        async with httpx2.AsyncClient(transport=httpx2.ASGITransport(app=app), base_url="http://gateway") as client:
            return await client.post("/x", content=b"x")

    answer = asyncio.run(run())
    refused(answer, 500, "internal_error")
    assert answer.headers["x-should-retry"] == "false"
    assert "a secret" in caplog.text  # where it belongs


def test_an_old_node_sdk_is_told_not_to_repeat_a_form(
    gateway: Served, script: Callable[..., None], photo: bytes
) -> None:
    script({"on": "submit", "fault": "rate_limit", "times": None})
    form = {"data": {"model": "qwen-image-edit-2509", "prompt": "sepia"}, "files": {"image": photo}}
    told = {}
    for agent in ("OpenAI/JS 4.104.0", "OpenAI/JS 6.49.0"):
        answer = gateway.post(**form, headers={"user-agent": agent})
        assert answer.status_code == 429
        told[agent] = answer.headers.get("x-should-retry")
    assert told == {"OpenAI/JS 4.104.0": "false", "OpenAI/JS 6.49.0": None}
