"""/v1/keys through the real door."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx2
import pytest
from fastapi.routing import APIRoute

from app.config import Config
from app.main import build
from tests.conftest import MODEL, Served
from tests.fakes.sandbox import SandboxServer
from tests.keys.conftest import MakeKey, bearer, code_of

LIMITS: dict[str, Any] = {
    "budget_day": 1.5,
    "budget_month": 10,
    "budget_total": 0,
    "requests_per_minute": 60,
    "images_per_minute": 100,
    "concurrent_jobs": 3,
    "models": [MODEL],
    "response_format": "b64_json",
    "strict": True,
}


def test_a_key_is_shown_once(office: Served, make_key: MakeKey) -> None:
    made = make_key(**LIMITS)
    assert made["key"].startswith("ig_")
    assert len(made["key"]) == 46
    assert made["key"].startswith(made["prefix"])
    assert made["key"].endswith(made["last4"])
    assert made["limits"] == LIMITS
    assert made["spent"] == {"day": 0, "month": 0, "total": 0, "reserved": 0}
    assert (made["object"], made["expires"], made["revoked"]) == ("key", None, None)
    told = office.get(f"/v1/keys/{made['id']}").json()
    assert told == {name: value for name, value in made.items() if name != "key"}
    assert made["key"] not in office.get("/v1/keys").text


def test_a_key_without_limits_has_none(make_key: MakeKey) -> None:
    limits = make_key()["limits"]
    assert limits.pop("strict") is False
    assert set(limits.values()) == {None}


def test_no_two_keys_are_alike(make_key: MakeKey) -> None:
    made = [make_key() for _ in range(5)]
    assert len({one["key"] for one in made}) == len({one["id"] for one in made}) == 5


def test_models_are_found_by_any_name_and_kept_by_their_id(make_key: MakeKey) -> None:
    assert make_key(models=["qwen-image-edit-plus-2509", MODEL])["limits"]["models"] == [MODEL]


def test_lists_are_newest_first_and_in_pages(office: Served, make_key: MakeKey) -> None:
    made = [make_key()["id"] for _ in range(3)]
    first = office.get("/v1/keys", params={"limit": 2}).json()
    assert [key["id"] for key in first["data"]] == made[:0:-1]
    assert first["has_more"] is True
    second = office.get("/v1/keys/", params={"limit": 1, "after": first["last_id"]}).json()
    assert [key["id"] for key in second["data"]] == made[:1]


def test_limits_change_and_can_be_taken_away(office: Served, make_key: MakeKey) -> None:
    made = make_key(**LIMITS)
    answer = office.http.patch(f"/v1/keys/{made['id']}", json={"budget_day": None, "name": "b", "strict": False})
    assert answer.status_code == 200
    assert answer.json()["limits"] == {**LIMITS, "budget_day": None, "strict": False}
    assert answer.json()["name"] == "b"
    assert "key" not in answer.json()


def test_expiry_is_a_time_or_a_duration(office: Served, make_key: MakeKey) -> None:
    later = datetime.now(UTC) + timedelta(days=1)
    made = make_key(expires_at=later.isoformat())
    assert made["expires"] == int(later.timestamp())
    assert abs(make_key(expires_in=3600)["expires"] - time.time() - 3600) < 30
    cleared = office.http.patch(f"/v1/keys/{made['id']}", json={"expires_at": None})
    assert cleared.json()["expires"] is None


@pytest.mark.parametrize(
    ("fields", "code", "param"),
    [
        ({"budget": 1}, "unknown_parameter", "budget"),
        ({"name": ""}, "empty_string", "name"),
        ({"name": 1}, "invalid_type", "name"),
        ({"name": "a\nb"}, "invalid_value", "name"),
        ({"name": "x" * 201}, "string_above_max_length", "name"),
        ({"budget_day": "much"}, "invalid_type", "budget_day"),
        ({"budget_day": True}, "invalid_type", "budget_day"),
        ({"budget_month": -1}, "decimal_below_min_value", "budget_month"),
        ({"budget_total": 1e30}, "decimal_above_max_value", "budget_total"),
        ({"budget_total": "0.0000001"}, "invalid_value", "budget_total"),
        ({"requests_per_minute": 0}, "integer_below_min_value", "requests_per_minute"),
        ({"images_per_minute": 1.5}, "invalid_type", "images_per_minute"),
        ({"concurrent_jobs": True}, "invalid_type", "concurrent_jobs"),
        ({"concurrent_jobs": 10**9}, "integer_above_max_value", "concurrent_jobs"),
        ({"models": "all"}, "invalid_type", "models"),
        ({"models": []}, "invalid_value", "models"),
        ({"models": ["qwen-image-edit-2508"]}, "invalid_value", "models"),
        ({"models": [f"fal/{MODEL}"]}, "invalid_value", "models"),
        ({"response_format": "png"}, "invalid_value", "response_format"),
        ({"strict": "yes"}, "invalid_type", "strict"),
        ({"expires_at": "tomorrow"}, "invalid_value", "expires_at"),
        ({"expires_at": "2099-01-01T00:00:00"}, "invalid_value", "expires_at"),
        ({"expires_at": "2001-01-01T00:00:00Z"}, "invalid_value", "expires_at"),
        ({"expires_in": 0}, "decimal_below_min_value", "expires_in"),
        ({"expires_in": 1, "expires_at": None}, "invalid_value", "expires_in"),
    ],
)
def test_what_cannot_be_is_refused_by_name(
    office: Served, make_key: MakeKey, fields: dict[str, Any], code: str, param: str
) -> None:
    before = office.get("/v1/keys").json()
    answer = office.post({"name": "a", **fields}, path="/v1/keys")
    assert (code_of(answer), answer.json()["error"]["param"]) == ((400, code), param)
    assert office.get("/v1/keys").json() == before
    made = make_key()
    answer = office.http.patch(f"/v1/keys/{made['id']}", json=fields)
    assert (code_of(answer), answer.json()["error"]["param"]) == ((400, code), param)


def test_an_unknown_model_is_refused_with_the_one_that_was_meant(office: Served) -> None:
    answer = office.post({"name": "a", "models": ["qwen-image-edit-2508"]}, path="/v1/keys")
    assert f"Did you mean '{MODEL}'?" in answer.json()["error"]["message"]


def test_a_name_is_needed(office: Served) -> None:
    answer = office.post({}, path="/v1/keys")
    assert code_of(answer) == (400, "missing_required_parameter")


def test_what_is_no_json_is_refused(office: Served) -> None:
    answer = office.post(None, path="/v1/keys", content=b'{"name": "a"}', headers={"content-type": "text/plain"})
    assert code_of(answer) == (415, "unsupported_content_type")
    answer = office.post(
        None, path="/v1/keys", content=b'{"name": "a", "name": "b"}', headers={"content-type": "application/json"}
    )
    assert code_of(answer) == (400, "invalid_body")
    answer = office.post({"name": "x" * 100_000}, path="/v1/keys")
    assert code_of(answer) == (413, "request_too_large")


def opens(office: Served, key: str) -> bool:
    return httpx2.get(f"{office.base_url}/models", headers=bearer(key), trust_env=False).status_code == 200


@pytest.fixture
def from_elsewhere(office: Served) -> Iterator[httpx2.Client]:
    """A client whose failures are nobody else's."""
    with httpx2.Client(base_url=office.url, headers={"x-forwarded-for": "192.0.2.77"}, trust_env=False) as client:
        yield client


def test_a_revoked_key_opens_nothing_from_then_on(office: Served, make_key: MakeKey, from_elsewhere: Any) -> None:
    made = make_key()
    models = "/openai/v1/models"
    assert from_elsewhere.get(models, headers=bearer(made)).status_code == 200
    revoked = office.http.delete(f"/v1/keys/{made['id']}")
    assert revoked.status_code == 200
    assert abs(revoked.json()["revoked"] - time.time()) < 30
    assert code_of(from_elsewhere.get(models, headers=bearer(made))) == (401, "invalid_api_key")
    assert office.http.delete(f"/v1/keys/{made['id']}").json() == revoked.json()
    for answer in (
        office.http.patch(f"/v1/keys/{made['id']}", json={"name": "b"}),
        office.post({}, path=f"/v1/keys/{made['id']}/rotate"),
    ):
        assert code_of(answer) == (400, "invalid_value")
        assert "revoked" in answer.json()["error"]["message"]


def test_an_expired_key_opens_nothing(make_key: MakeKey, from_elsewhere: Any) -> None:
    made = make_key(expires_in=0.4)
    assert from_elsewhere.get("/openai/v1/models", headers=bearer(made)).status_code == 200
    time.sleep(0.5)
    assert code_of(from_elsewhere.get("/openai/v1/models", headers=bearer(made))) == (401, "invalid_api_key")


def test_a_replaced_key_opens_nothing_unless_it_was_given_grace(
    office: Served, make_key: MakeKey, from_elsewhere: Any
) -> None:
    made = make_key(budget_day=3)
    rotated = office.post({"grace_seconds": 600}, path=f"/v1/keys/{made['id']}/rotate").json()
    assert rotated["id"] == made["id"]
    assert rotated["key"] != made["key"]
    assert rotated["limits"] == made["limits"]
    assert (rotated["prefix"], rotated["last4"]) == (rotated["key"][:7], rotated["key"][-4:])
    for key in (made, rotated):
        assert from_elsewhere.get("/openai/v1/models", headers=bearer(key)).status_code == 200
    last = office.post(None, path=f"/v1/keys/{made['id']}/rotate").json()
    statuses = [
        from_elsewhere.get("/openai/v1/models", headers=bearer(key)).status_code for key in (made, rotated, last)
    ]
    assert statuses == [401, 401, 200]


@pytest.mark.parametrize("grace", [-1, "long", 10**9, True])
def test_grace_that_cannot_be_is_refused(office: Served, make_key: MakeKey, grace: Any) -> None:
    made = make_key()
    answer = office.post({"grace_seconds": grace}, path=f"/v1/keys/{made['id']}/rotate")
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == "grace_seconds"
    answer = office.post({"grace": 1}, path=f"/v1/keys/{made['id']}/rotate")
    assert code_of(answer) == (400, "unknown_parameter")


@pytest.mark.parametrize("id", ["key_nobody", "%00", "a%0Ab", "%ED%A0%80"])
def test_a_key_that_is_not_there_is_not_found(office: Served, id: str) -> None:
    for method, path in (("GET", ""), ("PATCH", ""), ("DELETE", ""), ("POST", "/rotate")):
        body = {} if method in ("PATCH", "POST") else None
        assert code_of(office.http.request(method, f"/v1/keys/{id}{path}", json=body)) == (404, "not_found")


# ---- who may


def admin_routes(folder: Path, sandbox: SandboxServer) -> list[tuple[str, str]]:
    """Every method and path that depends on the admin key, as the table of routes has them."""
    built = build(Config(data_dir=folder), {"fal": {**sandbox.settings, "label": "fal.ai"}})
    found = []
    for route in _flat(built.asgi.routes):
        if isinstance(route, APIRoute) and any(one.call == built.auth.admin for one in route.dependant.dependencies):
            found += [(method, route.path.replace("{id}", "key_0")) for method in route.methods or ()]
    return found


def _flat(routes: Any) -> Iterator[Any]:
    for route in routes:
        yield route
        inner = getattr(route, "original_router", route)  # of a router that was included
        yield from _flat(getattr(inner, "routes", ()) or ())


def test_every_administrative_route_is_the_admins_alone(
    office: Served, make_key: MakeKey, sandbox: SandboxServer, tmp_path: Path
) -> None:
    routes = admin_routes(tmp_path, sandbox)
    assert len(routes) >= 12
    assert {path for _, path in routes} >= {"/v1/keys", "/v1/keys/key_0", "/v1/keys/key_0/rotate"}
    user = make_key()["key"]
    hosts = ("", "localhost/healthz?", "127.0.0.1#", "user@127.0.0.1", "a/../../healthz", "[::1")
    with httpx2.Client(base_url=office.url, trust_env=False) as client:
        for method, path in routes:
            for host in hosts:
                headers = {"host": host} if host else {}
                bare = client.request(method, path, headers=headers)
                assert bare.status_code in ((401,) if not host else (400, 401)), (method, path, host)
                for key in (user, "sk-static-0123456789"):
                    answer = client.request(method, path, headers={**headers, **bearer(key)})
                    assert answer.status_code in ((403,) if not host else (400, 403)), (method, path, host)
                    assert user not in answer.text


def test_an_open_gateway_lets_nobody_make_keys(gateway: Served) -> None:
    assert code_of(gateway.post({"name": "a"}, path="/v1/keys")) == (403, "admin_key_required")
