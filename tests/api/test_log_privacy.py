"""What is kept of requests, and what is not: nothing that a caller wrote or sent is on the disk or in a log, unless the
operator wants it, and then not for longer than that.
"""

from __future__ import annotations

import asyncio
import base64
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import asyncpg
import httpx2
import pytest

from tests.conftest import KEY, MODEL
from tests.fakes.postgres import PostgresServer
from tests.fakes.sandbox import KEY as FAL_KEY
from tests.fakes.sandbox import SandboxServer
from tests.faults.gate import EDITS, PICTURE, Gate, events_of, until
from tests.media.pictures import sample

PROMPT = "an orchard of violet zebras beneath the copper observatory"
OTHER = "no watermarks of the ninth lighthouse keeper"
MADE_UP = "free words for a parameter that nobody knows"
SHORT = "qwxjk zzyvv"
ECHO = f"Prompt '{PROMPT}' cannot be used: {OTHER}"


@pytest.fixture(scope="module")
def sandbox() -> Iterator[SandboxServer]:
    with SandboxServer() as server:
        yield server


def everything(gate: Gate, sandbox: SandboxServer) -> list[httpx2.Response]:
    """Requests of every kind and end; their answers."""
    answers = []

    def ask(prompt: str = PROMPT, **more: object) -> None:
        answers.append(gate.ask(prompt, negative_prompt=OTHER, made_up=MADE_UP, short=SHORT, **more))  # type: ignore[arg-type]

    ask()
    ask(n="2", response_format="b64_json", headers={"idempotency-key": "leak-1"})
    ask(n="2", response_format="b64_json", headers={"idempotency-key": "leak-1"})
    ask(stream="true", output_format="webp")
    ask(mask=sample("png"))
    ask(SHORT)
    ask(seed="no number")
    ask(n="99")
    body = {"model": MODEL, "prompt": PROMPT, "size": "256x256"}
    picture = "data:image/png;base64," + base64.b64encode(PICTURE).decode()
    answers.append(gate.http.post(EDITS, json={**body, "image": picture}))
    answers.append(
        gate.http.post(EDITS, content=b'{"prompt": "' + PROMPT.encode(), headers={"content-type": "application/json"})
    )
    answers.append(gate.http.post(EDITS, json=body, headers={"authorization": f"Bearer {KEY}-wrong"}))
    echoes: list[dict[str, object]] = [
        {"status": 422, "body": {"detail": ECHO}},
        {"status": 500, "body": {"detail": ECHO}},
        {"status": 500, "body": ECHO},
        {
            "status": 400,
            "body": {"detail": [{"loc": ["body", "prompt"], "msg": ECHO, "type": "value_error", "input": PROMPT}]},
        },
        {"status": 422, "body": {"detail": f"cannot draw {SHORT}"}},
    ]
    for point in ("submit", "status", "result"):
        for echo in echoes:
            sandbox.script({"on": point, "fault": "http", "args": echo, "times": 6 if point == "status" else 1})
            ask(headers={"x-request-timeout": "2"})
            sandbox.clear_script()
    for fault in ("model_error", "nsfw", "corrupt_image", "drop_after", "empty_images"):
        sandbox.script({"on": "submit", "fault": fault, "times": 1})
        ask()
        sandbox.clear_script()
    return answers


def needles() -> dict[str, bytes]:
    """What must be nowhere."""
    found = {name: text.encode() for name, text in (("prompt", PROMPT), ("negative", OTHER), ("made up", MADE_UP))}
    found["the prompt's middle"] = b"violet zebras"
    found["short"] = SHORT.encode()
    found["the caller's key"] = KEY.encode()
    found["the provider's key"] = FAL_KEY.encode()
    found["picture"] = PICTURE[40:100]
    found["picture as base64"] = base64.b64encode(PICTURE)[60:120]
    return found


def hits(where: str, data: bytes) -> list[str]:
    return [f"{name} in {where}" for name, needle in needles().items() if needle in data]


def settle(gate: Gate) -> None:
    """Until everything is answered and the log is written."""
    until(lambda: not gate.records(status="running"), 30)
    [newest] = gate.http.get("/v1/requests", params={"limit": "1"}).json()["data"]
    until(lambda: gate.record(newest["id"])["timings"]["receive"] is not None)


def test_nothing_of_it_is_on_the_disk_in_a_log_or_in_an_error(sandbox: SandboxServer, tmp_path: Path) -> None:
    with Gate(sandbox, tmp_path, api_key=KEY, log_level="debug") as gate:
        answers = everything(gate, sandbox)
        codes = {answer.status_code for answer in answers}
        assert {200, 400, 401, 502} <= codes
        settle(gate)
        found: list[str] = []
        for name in ("imagegate.db", "imagegate.db-wal"):
            data = (gate.data / name).read_bytes()
            assert data
            found += hits(name, data)
        found += hits("the log", gate.log().encode())
        for answer in answers:
            if answer.status_code != 200:
                found += hits(f"an answer of {answer.status_code}: {answer.text}", answer.content)
            elif answer.headers["content-type"].startswith("text/event-stream"):
                assert list(events_of(answer.text))
        for path in (
            "/v1/requests?limit=100",
            "/v1/requests?format=csv",
            "/v1/requests?format=csv&rows=jobs",
            "/v1/usage",
        ):
            found += hits(path, gate.http.get(path).content)
        for record in gate.records():
            found += hits("a record", gate.http.get(f"/v1/requests/{record['id']}").content)
        gate.terminate()
        gate.ended()
        for path in sorted(gate.data.glob("imagegate.db*")):
            found += hits(f"{path.name} at the end", path.read_bytes())
        found += hits("the log at the end", gate.log().encode())
        gate.restart()
    assert found == []


def test_nothing_of_it_is_in_postgresql(sandbox: SandboxServer, postgres: PostgresServer, tmp_path: Path) -> None:
    url = asyncio.run(postgres.new_database())
    with Gate(sandbox, tmp_path, api_key=KEY, log_level="debug", database_url=url) as gate:
        everything(gate, sandbox)
        settle(gate)
        found = [hit for table in dump(url) for hit in hits("a table", table)]
        found += hits("the log", gate.log().encode())
    assert found == []


def dump(url: str) -> list[bytes]:
    """All rows of all tables."""

    async def read() -> list[bytes]:
        connection = await asyncpg.connect(url)
        try:
            names = ("requests", "jobs", "request_log", "usage_days")
            tables = [await connection.fetch(f"SELECT CAST(t AS TEXT) FROM {name} AS t") for name in names]
        finally:
            await connection.close()
        assert all(tables[:3])
        return ["\n".join(row for (row,) in rows).encode() for rows in tables]

    return asyncio.run(read())


def test_what_a_provider_says_is_told_when_it_repeats_nothing(sandbox: SandboxServer, tmp_path: Path) -> None:
    with Gate(sandbox, tmp_path) as gate:
        body = {"detail": "Only pictures of landscapes are edited here."}
        sandbox.script({"on": "submit", "fault": "http", "args": {"status": 422, "body": body}, "times": 1})
        message = gate.ask(PROMPT).json()["error"]["message"]
        assert "Only pictures of landscapes" in message
        sandbox.script({"on": "submit", "fault": "http", "args": {"status": 422, "body": {"detail": ECHO}}, "times": 1})
        message = gate.ask(PROMPT).json()["error"]["message"]
        assert "left out" in message


def test_prompts_are_kept_if_the_operator_wants_them_and_not_for_longer(sandbox: SandboxServer, tmp_path: Path) -> None:
    with Gate(sandbox, tmp_path, log_prompts="true") as gate:
        id = gate.ask(PROMPT).json()["id"]
        settle(gate)
        assert gate.record(id)["plan"]["calls"][0]["prompt"] == PROMPT
        assert hits("", gate.log().encode()) == [], "they are in no log all the same"
        gate.terminate()
        gate.ended()
        gate.restart(LOG_PAYLOAD_DAYS="0.000001", LOG_PROMPTS="false")
        record = until(lambda: found if (found := gate.record(id))["plan"]["calls"] is None else None)
        assert record["status"] == "completed"
        assert record["timings"]["receive"] is not None
        gate.terminate()
        gate.ended()
        data = b"".join(path.read_bytes() for path in gate.data.glob("imagegate.db*"))
        assert PROMPT.encode() not in data, "what is purged is overwritten"
        gate.restart()


def test_with_payload_days_0_nothing_that_was_sent_is_kept(sandbox: SandboxServer, tmp_path: Path) -> None:
    with Gate(sandbox, tmp_path, log_prompts="true", log_payload_days="0") as gate:
        id = gate.ask(PROMPT).json()["id"]
        settle(gate)
        assert gate.record(id)["plan"]["calls"] is None


def test_pictures_are_kept_if_the_operator_wants_them_but_their_urls_do_not_live_longer(
    sandbox: SandboxServer, tmp_path: Path
) -> None:
    settings = {"log_pictures": "true", "results_url_seconds": "1", "repeats_retry_seconds": "0"}
    with Gate(sandbox, tmp_path, **settings) as gate:
        made = gate.ask(PROMPT).json()
        plain = gate.ask(PROMPT, response_format="b64_json").json()
        url = made["data"][0]["url"].removeprefix(str(gate.http.base_url).rstrip("/"))
        assert gate.http.get(url).status_code == 200
        gate.terminate()
        gate.ended()
        gate.shift = 90  # a minute's difference of clocks is borne
        gate.restart()
        assert gate.http.get(url).status_code == 410
        for answer in (made, plain):
            [picture] = gate.record(answer["id"])["data"]
            assert gate.http.get(picture["url"]).status_code == 200


def test_old_requests_are_forgotten_and_their_money_is_not(sandbox: SandboxServer, tmp_path: Path) -> None:
    with Gate(sandbox, tmp_path, log_keep_days="0.000001") as gate:
        gate.ask(PROMPT, n="2")
        settle(gate)
        gate.terminate()
        gate.ended()
        gate.restart()
        until(lambda: not gate.records())
        total = gate.http.get("/v1/usage").json()["total"]
        assert (total["requests"], total["images"], total["cost"]) == (1, 2, 0.06)
        with closing(sqlite3.connect(f"file:{gate.data}/imagegate.db?mode=ro", uri=True)) as database:
            for table in ("requests", "jobs", "request_log"):
                assert database.execute(f"SELECT count(*) FROM {table}").fetchone() == (0,), table
