"""A gateway with an admin key, and keys that it makes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import httpx2
import pytest

from tests.conftest import Json, Served, StartGateway

ADMIN = "adm-0123456789"
MakeKey = Callable[..., Json]


@pytest.fixture(scope="session")
def office(start_gateway: StartGateway) -> Served:
    """The gateway, as its admin talks to it."""
    served = start_gateway(IMAGEGATE_ADMIN_KEY=ADMIN, IMAGEGATE_API_KEY="sk-static-0123456789")
    served.http.headers["authorization"] = f"Bearer {ADMIN}"
    return served


@pytest.fixture
def make_key(office: Served) -> MakeKey:
    """make_key(budget_day=1) -> the key as it was answered."""

    def make(**limits: Any) -> Json:
        answer = office.post({"name": "a test's", **limits}, path="/v1/keys")
        assert answer.status_code == 200, answer.text
        made: Json = answer.json()
        return made

    return make


def bearer(key: Json | str) -> dict[str, str]:
    return {"authorization": f"Bearer {key if isinstance(key, str) else key['key']}"}


def code_of(answer: httpx2.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["error"]["code"]
