"""A database of the version before is taken over: its requests are found, and its money is in the sums."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from app.store import migrations
from app.store.db import Database, open_database
from app.store.migrations import JOURNAL
from tests.fakes.sandbox import SandboxServer
from tests.faults.gate import Gate, until
from tests.store.conftest import Place

pytestmark = pytest.mark.anyio

NOW = time.time()
PLAN = (
    '{"model":"m","provider":"fal","endpoint":"fal-ai/edit","price":null,"calls":[[0,1],[1,1]],"delivery":{"count":2,'
    '"response_format":"url","format":null,"asked_format":null,"quality":null,"exact":null,"mask":null,"stream":false,'
    '"base_url":""},"mask":null,"notes":[],"size":null}'
)
QUOTE = '{"metric":"image","quantity":"2","billable":"2","unit_price":"0.03","total":"0.06","currency":"USD"}'
ARTEFACT = (
    '{"index":%d,"url":"http://there/1.png","key":null,"format":"png","width":8,"height":8,"revised_prompt":"old"}'
)
VERDICT = '{"artefacts":[%s],"failures":[],"seed":7,"billable_units":"1","seconds":0.0,"fault":null,"detail":"words"}'
ANSWER = (
    '{"status":"%s","created":1,"provider_label":"fal.ai","cost":"0.03","uncertain":false,"seeds":[],"seconds":1.5,'
    '"artefacts":[%s],"failures":[],"error":%s}'
)
ERROR = (
    '{"class":"ProviderTimeout","code":"provider_timeout","message":"m","param":null,"retry_after":null,'
    '"should_retry":false,"cost":"0"}'
)
# id, state, answer, its jobs: state, cost, verdict
REQUESTS: Sequence[tuple[str, str, str | None, Sequence[tuple[str, str | None, str | None]]]] = (
    (
        "done",
        "settled",
        ANSWER % ("completed", f"{ARTEFACT % 0},{ARTEFACT % 1}", "null"),
        (("done", "0.03", VERDICT % (ARTEFACT % 0)), ("done", "0.030000", VERDICT % (ARTEFACT % 1))),
    ),
    ("failed", "settled", ANSWER % ("failed", "", ERROR), (("failed", "0", None), ("unresolved", None, None))),
    ("late", "settled", ANSWER % ("failed", "", ERROR), (("done", "0.03", VERDICT % (ARTEFACT % 0)),)),
    ("odd", "settled", None, ()),
)


async def fill_old(database: Database) -> None:
    """As the version before has written it."""
    for id, state, answer, jobs in REQUESTS:
        plan = "no JSON" if id == "odd" else PLAN
        await database.run(
            (
                "INSERT INTO requests (id, caller, key, fingerprint, state, owner, lease, created, deadline,"
                " keep_until, plan, quote, answer) VALUES ($1, 'open', NULL, 'f', $2, NULL, 0, $3, 1, 1, $4, $5, $6)",
                (id, state, NOW, plan, QUOTE, answer),
            ),
            *(
                (
                    "INSERT INTO jobs (id, request, first, count, state, provider, endpoint, mark, created, updated,"
                    " job, ticket, cost, verdict)"
                    " VALUES ($1, $2, $3, 1, $4, 'fal', 'fal-ai/edit', 'm', 1, 2, $1, '{}', $5, $6)",
                    (f"{id}-{number}", id, number, *job),
                )
                for number, job in enumerate(jobs)
            ),
        )


async def test_an_old_database_is_taken_over(place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as before:
        before.setattr(migrations, "STEPS", (JOURNAL,))
        old = await place.open()
        await fill_old(old)
        await old.close()

    def look() -> None:
        with SandboxServer() as sandbox, Gate(sandbox, tmp_path / "gate", database_url=place.url) as gate:
            total = until(lambda: told if (told := total_of(gate))["images"] == 3 else None)
            assert (total["requests"], total["failed"], total["cost"], total["cost_unknown"]) == (4, 1, 0.09, 1)
            [done] = gate.records(model="m", status="completed")
            assert (done["id"], done["cost"], done["pictures"], done["seconds"]) == ("done", 0.06, 2, 1.5)
            [failed] = gate.records(error="provider_timeout")
            assert (failed["id"], failed["cost_uncertain"]) == ("failed", True)
            [late] = gate.records(status="partial")
            assert (late["id"], late["cost"], late["error"]) == ("late", 0.03, None)
            assert gate.record("done")["timings"]["total"] == 1.5
            assert gate.ask("and it goes on").status_code == 200
            assert total_of(gate)["images"] == 4

    await asyncio.to_thread(look)
    new = await place.open()
    assert await new.read("SELECT count(*) FROM requests WHERE booked = -1") == [(0,)]


def total_of(gate: Gate) -> dict[str, Any]:
    total: dict[str, Any] = gate.http.get("/v1/usage").json()["total"]
    return total


async def test_it_can_be_opened_again_and_again(tmp_path: Path) -> None:
    for _ in range(2):
        database = await open_database("", tmp_path)
        assert len(await database.read("SELECT version FROM schema_version")) == len(migrations.STEPS)
        await database.close()
