"""The request log through the real door, on each of the databases: what is found, what it adds up to, and that it is
the provider's own bill.
"""

from __future__ import annotations

import asyncio
import csv
import io
import re
import secrets
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import httpx2
import pytest

from app.steps import PHASES
from tests.conftest import KEY, MODEL, Json
from tests.fakes.postgres import PostgresServer
from tests.fakes.sandbox import SandboxServer
from tests.faults.gate import Gate, at_once, until

NewGate = Callable[..., Gate]
OPEN = {"intent", "submitted", "cancelling", "lost", "ambiguous"}
BLOCK = {"on": "submit", "fault": "model_error", "args": {"type": "content_policy_violation"}}


@pytest.fixture(scope="module")
def sandbox() -> Iterator[SandboxServer]:
    """Books of this file's own."""
    with SandboxServer() as server:
        yield server


@pytest.fixture(scope="module", params=["SQLite", "PostgreSQL"])
def database_url(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> str:
    """An empty database."""
    if request.param == "SQLite":
        return f"sqlite://{tmp_path_factory.mktemp('database')}/log.db"
    server: PostgresServer = request.getfixturevalue("postgres_server")
    return asyncio.run(server.new_database())


@pytest.fixture(scope="module")
def gate(sandbox: SandboxServer, database_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gate]:
    """A gateway on it that nobody needs a key for."""
    with Gate(sandbox, tmp_path_factory.mktemp("gate"), database_url=database_url) as gate:
        yield gate


@pytest.fixture
def bob(gate: Gate, sandbox: SandboxServer, database_url: str, tmp_path: Path) -> Iterator[Gate]:
    """Another gateway on the same database, for another caller."""
    with Gate(sandbox, tmp_path, database_url=database_url, api_key=KEY) as gate:
        yield gate


@pytest.fixture
def script(sandbox: SandboxServer) -> Iterator[Callable[..., None]]:
    yield sandbox.script
    sandbox.clear_script()


def get(gate: Gate, path: str, **query: str) -> Json:
    answer = gate.http.get(path, params=query)
    assert answer.status_code == 200, answer.text
    found: Json = answer.json()
    return found


def lines(gate: Gate, path: str, **query: str) -> list[dict[str, str]]:
    answer = gate.http.get(path, params={"format": "csv", **query})
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"].startswith("text/csv")
    assert answer.text.count("\n") == answer.text.count("\r\n")
    return list(csv.DictReader(io.StringIO(answer.text, newline="")))


def logged(gate: Gate, id: str) -> Json:
    """A request, once the log is written."""
    return until(lambda: record if (record := gate.record(id))["timings"]["receive"] is not None else None)


def today() -> str:
    return datetime.now(UTC).date().isoformat()


class TestOneRequest:
    def test_it_tells_what_was_sent_how_long_it_took_and_what_it_cost(self, gate: Gate) -> None:
        made = gate.ask("a harbour at dawn", n="2", seed="5").json()
        record = logged(gate, made["id"])
        assert [
            (one["index"], one["state"], one["charged"], one["cost"], one["fault"]) for one in record["attempts"]
        ] == [
            (0, "done", True, 0.03, None),
            (1, "done", True, 0.03, None),
        ]
        assert all(one["job"] and one["seconds"] > 0 and one["queued"] >= 0 for one in record["attempts"])
        assert [call["seed"] for call in record["plan"]["calls"]] == [5, 6]
        assert record["plan"]["calls"][0]["image_urls"] == ["<picture 1: image/png, 64x48, 1566 bytes>"]
        assert {"name": "n", "how": "emulated", "sent_as": None, "why": "2 parallel jobs"} in record["plan"][
            "parameters"
        ]
        assert record["quote"]["total"] == record["cost"] == 0.06
        assert set(record["timings"]) == {*PHASES, "total"} - {"answer"}
        assert record["timings"]["total"] >= record["timings"]["wait"] > 0
        assert all(seconds is not None for seconds in record["timings"].values())
        assert all(gate.http.get(picture["url"]).status_code == 200 for picture in record["data"])

    def test_a_prompt_is_not_in_it(self, gate: Gate) -> None:
        made = gate.ask("a very private prompt", negative_prompt="and this", made_up="my own words").json()
        record = logged(gate, made["id"])
        call = record["plan"]["calls"][0]
        assert call["prompt"] == "<text of 21 characters>"
        assert call["made_up"] == "<text of 12 characters>"
        assert not [word for word in ("private", "and this", "my own") if word in str(record)]

    def test_a_repeated_submit_shows_both_attempts(self, gate: Gate, script: Callable[..., None]) -> None:
        script({"on": "submit", "fault": "rate_limit", "args": {"retry_after": 0}, "times": 1})
        record = logged(gate, gate.ask("again").json()["id"])
        assert [(one["state"], one["fault"], one["charged"], one["cost"]) for one in record["attempts"]] == [
            ("failed", "rate_limited", False, 0),
            ("done", None, True, 0.03),
        ]

    def test_one_that_was_refused_before_anything_was_bought_is_there(
        self, sandbox: SandboxServer, tmp_path: Path, script: Callable[..., None]
    ) -> None:
        script({"on": "submit", "fault": "run_for", "args": {"seconds": 8}, "times": 1})
        with Gate(sandbox, tmp_path, limits_jobs="1", limits_queue="1") as gate:

            def ask() -> httpx2.Response:
                with gate.connect() as http:
                    return gate.ask("one runs, one waits", http=http)

            def waits() -> bool:
                found = re.search(r"^imagegate_jobs_waiting\{.*\} (\d+)", gate.http.get("/metrics").text, re.MULTILINE)
                return found is not None and float(found[1]) == 1

            def late() -> httpx2.Response:
                until(waits)
                return gate.ask("there is no place for another")

            *served, refused = at_once(ask, ask, late)
            assert ([one.status_code for one in served], refused.status_code) == ([200, 200], 429)
            [record] = until(lambda: gate.records(error="rate_limit_exceeded"))
            assert record["id"] == refused.headers["x-request-id"]
            assert (record["status"], record["cost"], record["jobs"]) == ("failed", 0, [])
            total = get(gate, "/v1/usage")["total"]
            assert (total["requests"], total["failed"], total["images"]) == (3, 1, 2)
            assert gate.record(record["id"])["attempts"] == []

    def test_another_callers_is_not_found(self, gate: Gate, bob: Gate) -> None:
        mine, his = gate.ask("mine").json()["id"], bob.ask("his").json()["id"]
        assert gate.record(mine)["key"] == "open"
        assert bob.record(his)["key"] == "static"
        for one, id in ((gate, his), (bob, mine)):
            assert one.http.get(f"/v1/requests/{id}").status_code == 404
            assert one.http.get("/v1/requests", params={"after": id}).status_code == 400
            assert id not in one.http.get("/v1/requests", params={"limit": "100"}).text
            assert id not in one.http.get("/v1/requests", params={"format": "csv"}).text
        assert {line["key"] for line in get(bob, "/v1/usage")["data"]} == {"static"}
        assert {line["key"] for line in get(gate, "/v1/usage")["data"]} == {"open"}
        for path in ("/v1/requests", "/v1/usage"):
            answer = bob.http.get(path, params={"key": "open"})
            assert (answer.status_code, answer.json()["error"]["param"]) == (400, "key")


class TestFinding:
    def test_filters_select_and_the_summary_adds_up(self, gate: Gate, script: Callable[..., None]) -> None:
        since = str(int(datetime.now(UTC).timestamp()))
        until(lambda: datetime.now(UTC).timestamp() > int(since) + 1)
        since = str(int(since) + 1)
        fine = gate.ask("fine", n="2", headers={"idempotency-key": f"of-{since}"}).json()["id"]
        script({**BLOCK, "times": 1})
        partial = gate.ask("one of two", n="2").json()["id"]
        script({**BLOCK, "times": 1})
        failed = gate.ask("none").headers["x-request-id"]
        for query, found in (
            ({}, [failed, partial, fine]),
            ({"status": "completed"}, [fine]),
            ({"status": "partial"}, [partial]),
            ({"status": "failed"}, [failed]),
            ({"error": "content_policy_violation"}, [failed]),
            ({"has_failures": "true"}, [failed, partial]),
            ({"has_failures": "false"}, [fine]),
            ({"model": MODEL, "provider": "fal", "key": "open"}, [failed, partial, fine]),
            ({"model": "another"}, []),
            ({"provider": "another"}, []),
            ({"to": since}, []),
            ({"min_cost": "0.03"}, [partial, fine]),
            ({"min_cost": "0.030001"}, [fine]),
            ({"max_cost": "0.03"}, [failed, partial]),
            ({"min_cost": "0", "max_cost": "0.029999"}, [failed]),
            ({"to": today()}, [failed, partial, fine]),
            ({"idempotency_key": f"of-{since}"}, [fine]),
        ):
            page = get(gate, "/v1/requests", **{"from": since, **query})
            assert [one["id"] for one in page["data"]] == found, query
            assert page["summary"]["requests"] == len(found)
            assert page["summary"]["images"] == sum(one["pictures"] for one in page["data"])
            assert page["summary"]["cost"] == pytest.approx(sum(one["cost"] for one in page["data"]))
        summary = get(gate, "/v1/requests", **{"from": since})["summary"]
        assert (summary["requests"], summary["images"], summary["cost"]) == (3, 3, 0.09)
        assert {status: found["requests"] for status, found in summary["by_status"].items()} == {
            "completed": 1,
            "partial": 1,
            "failed": 1,
        }

    def test_the_summary_comes_with_the_first_page_or_when_asked_for(self, gate: Gate) -> None:
        for number in range(3):
            gate.ask(f"page {number}")
        first = get(gate, "/v1/requests", limit="1")
        assert "summary" in first
        assert "summary" not in get(gate, "/v1/requests", limit="1", after=first["last_id"])
        assert "summary" not in get(gate, "/v1/requests", summary="false")
        again = get(gate, "/v1/requests", limit="1", after=first["last_id"], summary="true")
        assert again["summary"]["requests"] == first["summary"]["requests"]

    @pytest.mark.parametrize(
        ("path", "query", "param"),
        [
            ("/v1/requests", "from=yesterday", "from"),
            ("/v1/requests", "to=2026-02-30", "to"),
            ("/v1/requests", "to=99999-01-01", "to"),
            ("/v1/requests", "from=0001-01-01", "from"),
            ("/v1/requests", "status=odd", "status"),
            ("/v1/requests", "has_failures=maybe", "has_failures"),
            ("/v1/requests", "summary=2", "summary"),
            ("/v1/requests", "format=xml", "format"),
            ("/v1/requests", "rows=x", "rows"),
            ("/v1/requests", "limit=1&limit=2", "limit"),
            ("/v1/requests", "limit=%C2%B2", "limit"),
            ("/v1/requests", "form=2026-01-01", "form"),
            ("/v1/requests", "min_cost=-1", "min_cost"),
            ("/v1/requests", "max_cost=0.0000001", "max_cost"),
            ("/v1/requests", "max_cost=1e3", "max_cost"),
            ("/v1/requests", "key=somebody", "key"),
            ("/v1/usage", "by=week", "by"),
            ("/v1/usage", "by=day,day", "by"),
            ("/v1/usage", "by=", None),
            ("/v1/usage", "from=2026-02-02&to=2026-02-01", "from"),
            ("/v1/usage", "to=1764000000", "to"),
            ("/v1/usage", "format=x", "format"),
            ("/v1/usage", "limit=3", "limit"),
        ],
    )
    def test_a_filter_that_cannot_be_is_refused_by_name(
        self, gate: Gate, path: str, query: str, param: str | None
    ) -> None:
        answer = gate.http.get(f"{path}?{query}")
        if param is None:
            assert answer.status_code == 200
        else:
            assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)

    def test_whatever_a_filter_says_it_only_finds_nothing(self, gate: Gate) -> None:
        for odd in ("\0", "'; DROP TABLE requests; --", "$1", "%", "ü" * 2000, "\ud83d"):
            for name in ("model", "provider", "error", "job", "idempotency_key"):
                query = {name: odd.encode("utf-8", "replace").decode()}
                assert get(gate, "/v1/requests", **query)["data"] == []
            assert get(gate, "/v1/usage", model=odd.encode("utf-8", "replace").decode())["data"] == []


class TestMoney:
    def test_all_that_is_told_is_the_providers_bill(
        self, gate: Gate, sandbox: SandboxServer, script: Callable[..., None]
    ) -> None:
        """Pictures that come, fail, come late, are lost and found: list, detail, both tables, summary and usage agree
        with the provider's books to the cent."""
        bill = f"bill {secrets.token_hex(4)}"  # a lost job is looked for by what was sent: each database has its own
        before = {job["request_id"] for job in sandbox.jobs()}
        since = str(int(datetime.now(UTC).timestamp()))
        spent = {name: get(gate, "/v1/usage", **{"from": today()})["total"][name] for name in ("cost", "images")}
        for number in range(3):
            gate.ask(f"{bill} {number}", n="2")
        script({"on": "submit", "fault": "drop_after", "times": 1})
        assert gate.ask(f"{bill}: lost reply").status_code == 502
        script({"on": "submit", "fault": "lose_result", "times": 1})
        assert gate.ask(f"{bill}: lost result", headers={"x-request-timeout": "8"}).status_code == 502
        script({**BLOCK, "times": 1})
        assert gate.ask(f"{bill}: refused").status_code == 400
        script(
            {"on": "submit", "fault": "run_for", "args": {"seconds": 60}, "times": 1},
            {"on": "cancel", "fault": "cancel_too_late", "times": 1},
        )
        assert gate.ask(f"{bill}: late", headers={"x-request-timeout": "1"}).status_code in (200, 504)
        sandbox.clear_script()

        def quiet() -> bool:
            states = {job["state"] for record in gate.records(**{"from": since}) for job in record["jobs"]}
            return not states & (OPEN - {"lost"})

        until(quiet, 20)
        new = {job["request_id"]: job for job in sandbox.jobs() if job["request_id"] not in before}
        billed = sum((Decimal(str(job["billable_units"])) for job in new.values()), Decimal(0)) * Decimal("0.03")
        assert billed >= Decimal("0.24")
        records = [
            record for record in gate.records(**{"from": since}) if any(job["job"] in new for job in record["jobs"])
        ]
        known = {
            job["job"]: Decimal(str(job["cost"]))
            for record in records
            for job in record["jobs"]
            if job["cost"] is not None
        }
        lost = {job["job"] for record in records for job in record["jobs"] if job["cost"] is None}
        assert len(lost) <= 1, "only the job whose result is lost has no price yet"
        for id, job in new.items():
            if id not in lost:
                assert known[id] == Decimal(str(job["billable_units"])) * Decimal("0.03")
        unpriced = sum((Decimal(str(new[id]["billable_units"])) for id in lost), Decimal(0)) * Decimal("0.03")
        charged = billed - unpriced
        ids = {record["id"] for record in records}
        assert sum((Decimal(str(record["cost"])) for record in records), Decimal(0)) == charged
        details = [gate.record(id) for id in ids]
        assert sum(Decimal(str(one["cost"] or 0)) for record in details for one in record["attempts"]) == charged
        assert sum(Decimal(line["cost"]) for line in lines(gate, "/v1/requests") if line["id"] in ids) == charged
        of_jobs = [line for line in lines(gate, "/v1/requests", rows="jobs") if line["request"] in ids]
        assert {line["job"] for line in of_jobs} >= set(new)
        assert sum(Decimal(line["cost"] or 0) for line in of_jobs) == charged
        total = get(gate, "/v1/usage", **{"from": today()})["total"]
        assert Decimal(str(total["cost"])) - Decimal(str(spent["cost"])) == charged
        assert total["images"] - spent["images"] == sum(record["pictures"] for record in records)
        assert total["cost_unknown"] >= len(lost)

    def test_usage_is_told_by_day_key_model_and_provider(self, gate: Gate) -> None:
        before = get(gate, "/v1/usage")["total"]
        gate.ask("usage", n="3")
        usage = get(gate, "/v1/usage")
        assert usage["object"] == "usage"
        assert (usage["from"], usage["to"], usage["by"]) == (today()[:8] + "01", today(), ["day", "key", "model"])
        [line] = [one for one in usage["data"] if one["day"] == today()]
        assert (line["key"], line["key_name"], line["model"], line["currency"]) == ("open", "anyone", MODEL, "USD")
        assert usage["total"]["images"] == before["images"] + 3
        assert Decimal(str(usage["total"]["cost"])) == Decimal(str(before["cost"])) + Decimal("0.09")
        [whole] = get(gate, "/v1/usage", by="provider")["data"]
        assert (whole["provider"], whole["requests"]) == ("fal", usage["total"]["requests"])
        assert get(gate, "/v1/usage", **{"from": "2020-01-01", "to": "2020-12-31"})["data"] == []
        [table] = lines(gate, "/v1/usage", by="model")
        assert list(table) == ["model", "requests", "failed", "images", "cost", "currency", "cost_unknown"]
        assert (int(table["images"]), Decimal(table["cost"])) == (
            usage["total"]["images"],
            Decimal(str(usage["total"]["cost"])),
        )


def test_a_log_that_cannot_be_written_is_missed_by_nobody_but_the_operator(
    sandbox: SandboxServer, tmp_path: Path
) -> None:
    with Gate(sandbox, tmp_path) as gate, closing(sqlite3.connect(gate.data / "imagegate.db", timeout=10)) as database:

        def dropped() -> float:
            [found] = re.findall(r"^imagegate_log_dropped_total (\S+)", gate.http.get("/metrics").text, re.MULTILINE)
            return float(found)

        assert dropped() == 0
        database.execute("ALTER TABLE request_log RENAME TO elsewhere")
        ids = [gate.ask(f"unheard {number}").json()["id"] for number in range(3)]
        until(lambda: dropped() == 3)
        assert "requests are missing in the request log" in gate.log()
        database.execute("ALTER TABLE elsewhere RENAME TO request_log")
        logged(gate, gate.ask("heard again").json()["id"])
        assert dropped() == 3
        for id in ids:  # what it cost is the journal's business
            record = gate.record(id)
            assert (record["status"], record["cost"], record["timings"]["receive"]) == ("completed", 0.03, None)


class TestTables:
    def test_a_table_of_nothing_has_its_header(self, gate: Gate) -> None:
        assert lines(gate, "/v1/requests", model="none") == lines(gate, "/v1/usage", model="none") == []
        assert gate.http.get("/v1/requests?format=csv&rows=jobs&model=none").text.startswith("request,created,key,")

    def test_what_a_spreadsheet_would_run_is_text(self, gate: Gate) -> None:
        for number, sign in enumerate("=+-@"):
            gate.ask("formula", headers={"idempotency-key": f'{sign}cmd|" /C calc"!A{number}, "x"'})
        found = lines(gate, "/v1/requests")
        keys = [line["idempotency_key"] for line in found if "calc" in line["idempotency_key"]]
        assert sorted(key[:2] for key in keys) == ["'+", "'-", "'=", "'@"]
        assert {key[-5:] for key in keys} == {', "x"'}

    def test_columns_keep_their_order(self, gate: Gate) -> None:
        gate.ask("columns")
        of_requests = "id created key key_name model provider endpoint status error images failed cost currency"
        assert " ".join(lines(gate, "/v1/requests")[0]) == f"{of_requests} cost_unknown seconds idempotency_key"
        of_jobs = "request created key key_name model provider endpoint job state index images cost currency charged"
        assert " ".join(lines(gate, "/v1/requests", rows="jobs")[0]) == of_jobs

    def test_a_table_is_all_of_it_however_many_pages_that_are(self, gate: Gate) -> None:
        assert len(lines(gate, "/v1/requests")) == len(gate.records())
