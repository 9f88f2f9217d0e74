"""Pages of other origins: none by default, those that the operator names, and they can read what matters."""

from __future__ import annotations

import pytest

from tests.conftest import KEY, Served, StartGateway

PAGE = "https://app.example"
PREFLIGHT = {
    "origin": PAGE,
    "access-control-request-method": "POST",
    "access-control-request-headers": "authorization,x-stainless-lang,x-stainless-retry-count",
}
EDITS = "/openai/v1/images/edits"


@pytest.fixture(scope="module")
def open_to_page(start_gateway: StartGateway) -> Served:
    return start_gateway(IMAGEGATE_CORS_ORIGINS=f"{PAGE}, https://other.example", IMAGEGATE_API_KEY=KEY)


def test_no_page_may_call_by_default(gateway: Served) -> None:
    answer = gateway.http.options(EDITS, headers=PREFLIGHT)
    assert answer.status_code == 405
    assert "access-control-allow-origin" not in answer.headers
    assert "access-control-allow-origin" not in gateway.get("/openai/v1/models", headers={"origin": PAGE}).headers


def test_a_named_page_may_send_the_sdks_headers_without_a_key_in_the_preflight(open_to_page: Served) -> None:
    answer = open_to_page.http.options(EDITS, headers={**PREFLIGHT, "authorization": ""})
    assert answer.status_code == 200
    assert answer.headers["access-control-allow-origin"] == PAGE
    allowed = answer.headers["access-control-allow-headers"].lower()
    assert "x-stainless-retry-count" in allowed
    assert answer.headers["x-request-id"].startswith("req_")


def test_another_page_may_not(open_to_page: Served) -> None:
    answer = open_to_page.http.options(EDITS, headers={**PREFLIGHT, "origin": "https://evil.example"})
    assert "access-control-allow-origin" not in answer.headers


@pytest.mark.parametrize("path", ["/openai/v1/models", "/openai/v1/nothing"])
def test_answers_and_errors_can_be_read_with_their_ids(open_to_page: Served, path: str) -> None:
    answer = open_to_page.get(path, headers={"origin": PAGE})
    assert answer.headers["access-control-allow-origin"] == PAGE
    exposed = answer.headers["access-control-expose-headers"].lower()
    assert {"x-request-id", "retry-after"} <= {name.strip() for name in exposed.split(",")}
    assert "access-control-allow-credentials" not in answer.headers


def test_a_refused_key_can_be_read_too(open_to_page: Served) -> None:
    answer = open_to_page.get("/openai/v1/models", headers={"origin": PAGE, "authorization": "Bearer wrong"})
    assert answer.status_code == 401
    assert answer.headers["access-control-allow-origin"] == PAGE


@pytest.mark.parametrize("origin", ["https://evil.example", "null", "http://localhost.evil.example"])
def test_an_open_gateway_takes_no_form_from_a_foreign_page(gateway: Served, photo: bytes, origin: str) -> None:
    # A form needs no preflight: without this, any page could spend the money of whoever runs a gateway at home.
    form = {"data": {"model": "qwen-image-edit-2509", "prompt": "sepia"}, "files": {"image": photo}}
    answer = gateway.post(path=f"{EDITS}?dryRun=true", **form, headers={"origin": origin})
    assert answer.status_code == 403
    assert answer.json()["error"]["code"] == "origin_not_allowed"


@pytest.mark.parametrize("origin", ["http://localhost:3000", "http://127.0.0.1:8080"])
def test_an_open_gateway_takes_forms_from_pages_of_the_same_machine(gateway: Served, photo: bytes, origin: str) -> None:
    form = {"data": {"model": "qwen-image-edit-2509", "prompt": "sepia"}, "files": {"image": photo}}
    assert gateway.post(path=f"{EDITS}?dryRun=true", **form, headers={"origin": origin}).status_code == 200


def test_with_a_key_the_key_decides(open_to_page: Served, photo: bytes) -> None:
    form = {"data": {"model": "qwen-image-edit-2509", "prompt": "sepia"}, "files": {"image": photo}}
    answer = open_to_page.post(path=f"{EDITS}?dryRun=true", **form, headers={"origin": "https://evil.example"})
    assert answer.status_code == 200
