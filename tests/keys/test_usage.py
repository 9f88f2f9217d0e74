"""What a key finds in the log of itself, and the admin of all, through the real door."""

from __future__ import annotations

from typing import Any

import httpx2
import pytest

from tests.conftest import MODEL, Json, Served
from tests.faults.gate import until
from tests.keys.conftest import MakeKey, bearer

EDITS = "/openai/v1/images/edits"


def edit(office: Served, key: Json, picture: bytes, **fields: str) -> httpx2.Response:
    data = {"model": MODEL, "prompt": "night", "size": "256x256", **fields}
    return office.http.post(EDITS, data=data, files={"image": picture}, headers=bearer(key))


def get(office: Served, path: str, key: Json | None = None, /, **query: str) -> Any:
    answer = office.http.get(path, params=query, headers=bearer(key) if key else {})
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_usage_names_the_key_and_agrees_with_what_it_has_spent(
    office: Served, make_key: MakeKey, picture: bytes
) -> None:
    key = make_key(name="web team", budget_day=1)
    assert edit(office, key, picture, n="2").status_code == 200
    [line] = get(office, "/v1/usage", by="key", key=key["id"])["data"]
    assert (line["key"], line["key_name"], line["requests"], line["images"]) == (key["id"], "web team", 1, 2)
    assert line["cost"] == get(office, f"/v1/keys/{key['id']}")["spent"]["day"] == 0.06


def test_a_key_finds_itself_and_nobody_else(office: Served, make_key: MakeKey, picture: bytes) -> None:
    mine, other = make_key(name="mine"), make_key(name="other")
    for key in (mine, other, other):
        edit(office, key, picture)
    for key, requests in ((mine, 1), (other, 2)):
        usage = get(office, "/v1/usage", key, by="key")
        assert [(line["key"], line["requests"]) for line in usage["data"]] == [(key["id"], requests)]
        assert usage["total"]["requests"] == get(office, "/v1/requests", key)["summary"]["requests"] == requests
        for path in ("/v1/usage", "/v1/requests"):
            table = office.http.get(path, params={"format": "csv"}, headers=bearer(key)).text
            assert key["id"] in table
            assert (other if key is mine else mine)["id"] not in table
    keys = {line["key"] for line in get(office, "/v1/usage", by="key")["data"]}
    assert {mine["id"], other["id"]} <= keys


@pytest.mark.parametrize("path", ["/v1/usage", "/v1/requests"])
def test_a_key_may_not_ask_about_another(office: Served, make_key: MakeKey, path: str) -> None:
    mine, other = make_key(), make_key()
    answer = office.http.get(path, params={"key": other["id"]}, headers=bearer(mine))
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "key")


def test_what_a_budget_did_not_cover_is_in_the_log_and_costs_nothing(
    office: Served, make_key: MakeKey, picture: bytes
) -> None:
    key = make_key(budget_total=0.03)
    assert edit(office, key, picture).status_code == 200
    assert edit(office, key, picture).status_code == 402
    found = until(lambda: get(office, "/v1/requests", key, error="insufficient_quota")["data"])
    assert [(one["status"], one["cost"], one["jobs"]) for one in found] == [("failed", 0, [])]
    total = get(office, "/v1/usage", key)["total"]
    assert (total["requests"], total["failed"], total["cost"], total["cost_unknown"]) == (2, 1, 0.03, 0)


def test_a_revoked_key_stays_in_the_books(office: Served, make_key: MakeKey, picture: bytes) -> None:
    key = make_key(name="gone")
    edit(office, key, picture)
    assert office.http.delete(f"/v1/keys/{key['id']}").status_code == 200
    [line] = get(office, "/v1/usage", by="key", key=key["id"])["data"]
    assert (line["key_name"], line["cost"]) == ("gone", 0.03)
