"""Who may see what: a key its own requests, an admin's everybody's. On a real journal; only the keys are a test's."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from decimal import Decimal
from pathlib import Path
from typing import cast

import httpx2
import pytest
from fastapi import FastAPI
from starlette.requests import Request

from app.api import errors
from app.api.auth import Authenticator
from app.api.requests import requests_router
from app.catalogue.schema import Offer
from app.history import History
from app.records import Answered, dump_answer, dump_plan, dump_quote
from app.store.db import Database, open_database
from app.store.jobs import JobStore, Move
from app.store.reports import ReportStore
from app.types import Call, Caller, Delivery, Plan, Quote
from tests.store.rows import job_row, request_row

pytestmark = pytest.mark.anyio

CALLERS = {name: Caller(name, name.title(), is_admin=name == "admin") for name in ("anna", "bert", "admin")}


class Names:
    """Each caller's key is his name."""

    def caller(self, request: Request) -> Caller:
        return CALLERS[request.headers["authorization"]]


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    database = await open_database("", tmp_path)
    yield database
    await database.close()


@pytest.fixture
async def http(database: Database) -> AsyncIterator[httpx2.AsyncClient]:
    store = JobStore(database)
    offer = Offer(provider="fal", endpoint="fal-ai/edit", params={})
    plan = dump_plan(Plan("model", offer, (Call({}),), (), Delivery(), (), None))
    quote = dump_quote(Quote("image", Decimal(1), Decimal(1), Decimal("0.03"), Decimal("0.03")))
    now = time.time()
    for number, name in enumerate(("anna", "bert", "bert")):
        row = request_row(
            f"req_{number}",
            caller=name,
            caller_name=name.title(),
            created=now + number,
            day=int(now // 86_400),
            plan=plan,
            quote=quote,
            model="model",
            provider="fal",
            currency="USD" if number < 2 else "EUR",
            wanted=1,
        )
        await store.intend(job_row(f"job_{number}", row.id, state="submitted"), "one", row)
        answer = dump_answer(Answered("completed", int(now), "fal.ai", Decimal("0.03"), uncertain=False))
        moves = [Move(f"job_{number}", "done", now, of=("submitted",), cost="0.03", made=1)]
        await store.answer(row.id, "one", answer, now, status="completed", moves=moves)
    app = FastAPI()
    history = History(store, ReportStore(database), {})
    app.include_router(requests_router(history, cast(Authenticator, Names()), "http://here"))
    errors.install(app)
    async with httpx2.AsyncClient(transport=httpx2.ASGITransport(app), base_url="http://here") as client:
        yield client


async def listed(http: httpx2.AsyncClient, who: str, query: str = "") -> tuple[int, list[str]]:
    answer = await http.get(f"/v1/requests{query}", headers={"authorization": who})
    return answer.status_code, [one["id"] for one in answer.json().get("data", [])]


async def test_an_admin_sees_all_and_others_their_own(http: httpx2.AsyncClient) -> None:
    assert await listed(http, "anna") == (200, ["req_0"])
    assert await listed(http, "bert") == (200, ["req_2", "req_1"])
    assert await listed(http, "admin") == (200, ["req_2", "req_1", "req_0"])


async def test_only_an_admin_may_ask_about_others(http: httpx2.AsyncClient) -> None:
    assert await listed(http, "admin", "?key=anna") == (200, ["req_0"])
    assert await listed(http, "anna", "?key=anna") == (200, ["req_0"])
    assert await listed(http, "anna", "?key=bert") == (400, [])
    assert await listed(http, "anna", "?after=req_1") == (400, [])
    assert await listed(http, "admin", "?after=req_1") == (200, ["req_0"])
    for who, status in (("anna", 404), ("bert", 200), ("admin", 200)):
        answer = await http.get("/v1/requests/req_1", headers={"authorization": who})
        assert answer.status_code == status
    for who, ids in (("anna", ["req_0"]), ("admin", ["req_2", "req_1", "req_0"])):
        table = await http.get("/v1/requests?format=csv", headers={"authorization": who})
        assert [line.split(",")[0] for line in table.text.splitlines()[1:]] == ids


async def test_usage_tells_whose_it_was_and_adds_up_no_two_currencies(http: httpx2.AsyncClient) -> None:
    answer = (await http.get("/v1/usage?by=key", headers={"authorization": "admin"})).json()
    told = [(line["key"], line["key_name"], line["images"], line["cost"], line["currency"]) for line in answer["data"]]
    assert told == [
        ("anna", "Anna", 1, 0.03, "USD"),
        ("bert", "Bert", 1, 0.03, "EUR"),
        ("bert", "Bert", 1, 0.03, "USD"),
    ]
    total = answer["total"]
    assert (total["cost"], total["currency"], total["costs"]) == (None, None, {"EUR": 0.03, "USD": 0.06})
    own = (await http.get("/v1/usage?by=key", headers={"authorization": "anna"})).json()
    assert (own["total"]["requests"], own["total"]["cost"], own["total"]["currency"]) == (1, 0.03, "USD")
    one = (await http.get("/v1/usage?key=bert", headers={"authorization": "admin"})).json()
    assert one["total"]["requests"] == 2
