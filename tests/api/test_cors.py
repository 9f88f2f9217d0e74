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
