"""What both databases promise, whatever is written in them."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path

import pytest

from app.store.db import Database, StoreError, StoreRefusal, StoreUnusable, database_for, open_database
from app.store.migrations import STEPS
from tests.store.conftest import Place

pytestmark = pytest.mark.anyio

TABLE = ("CREATE TABLE things (id BIGINT PRIMARY KEY, word TEXT, amount DOUBLE PRECISION)", ())


def insert(id: int, word: str | None = None, amount: float | None = None) -> tuple[str, tuple[object, ...]]:
    return "INSERT INTO things (id, word, amount) VALUES ($1, $2, $3) RETURNING id", (id, word, amount)


@pytest.fixture
async def things(database: Database) -> Database:
    await database.run(TABLE)
    return database


class TestTransactions:
    async def test_each_statement_answers_with_its_rows(self, things: Database) -> None:
        assert await things.run(
            insert(1, "a"),
            ("UPDATE things SET word = $2 WHERE id = $1", (1, "b")),
            ("SELECT id, word, amount FROM things", ()),
        ) == [[(1,)], [], [(1, "b", None)]]
        assert await things.read("SELECT word FROM things WHERE id = $1", 1) == [("b",)]

    async def test_text_comes_back_as_it_was(self, things: Database) -> None:
        for id, word in enumerate(("", "é ✓ 🎨", "it's", '"', "$1", "?1", "\n", "x" * 100_000, None)):
            assert await things.run(insert(id, word), ("SELECT word FROM things WHERE id = $1", (id,))) == [
                [(id,)],
                [(word,)],
            ]

    async def test_numbers_come_back_as_they_were(self, things: Database) -> None:
        for id, amount in ((2**63 - 1, 0.1 + 0.2), (-(2**63), 1_800_000_000.1234567), (0, 5e-324), (1, 1e300)):
            await things.run(insert(id, None, amount))
            assert await things.read("SELECT id, amount FROM things WHERE id = $1", id) == [(id, amount)]

    async def test_a_transaction_is_all_or_nothing(self, things: Database) -> None:
        with pytest.raises(StoreRefusal):
            await things.run(insert(1), insert(2), insert(1))
        assert await things.read("SELECT * FROM things") == []
        await things.run(insert(1), insert(2))

    async def test_one_that_fails_does_not_hurt_its_neighbours(self, things: Database) -> None:
        works = (things.run(insert(number), insert(1000 if number % 10 else 2000 + number)) for number in range(100))
        answers = await asyncio.gather(*works, return_exceptions=True)
        failed = [number for number, answer in enumerate(answers) if isinstance(answer, StoreRefusal)]
        assert len(failed) == 89  # of the 90 who want 1000
        rows = await things.read("SELECT id FROM things WHERE id < 1000 ORDER BY id")
        assert [id for (id,) in rows] == [number for number in range(100) if number not in failed]

    @pytest.mark.parametrize(
        "statement",
        [
            ("SELECT nonsense", ()),
            ("SELECT * FROM nowhere", ()),
            ("SELEKT", ()),
            ("INSERT INTO schema_version (version) VALUES ($1)", (None,)),
            ("INSERT INTO things (id) VALUES ($1)", (2**64,)),
            ("INSERT INTO things (id, word) VALUES (1, $1)", ("secret \ud800",)),
            ("INSERT INTO things (id, word) VALUES (1, $1)", (["secret"],)),
        ],
    )
    async def test_what_can_never_work_is_refused_and_tells_no_values(
        self, things: Database, statement: tuple[str, tuple[object, ...]]
    ) -> None:
        with pytest.raises(StoreRefusal) as refused:
            await things.run(statement)
        assert "secret" not in str(refused.value)
        with pytest.raises(StoreError):
            await things.read(statement[0], *statement[1])
        await things.run(insert(1))

    async def test_no_statements_are_no_work(self, things: Database) -> None:
        assert await things.run() == []


class TestCancelling:
    async def test_a_callers_end_is_not_the_end_of_its_write(self, things: Database) -> None:
        tasks = [asyncio.create_task(things.run(insert(number))) for number in range(50)]
        await asyncio.sleep(0)
        for task in tasks[::2]:
            task.cancel()
        answers = await asyncio.gather(*tasks, return_exceptions=True)
        assert answers[1::2] == [[[(number,)]] for number in range(1, 50, 2)]
        assert {type(answer) for answer in answers[::2]} <= {asyncio.CancelledError, list}
        await things.close()  # which finishes what was begun

    async def test_what_was_begun_is_finished_before_it_is_closed(self, place: Place) -> None:
        database = await place.open()
        await database.run(TABLE)
        tasks = [asyncio.create_task(database.run(insert(number))) for number in range(100)]
        await asyncio.sleep(0)
        for task in tasks[::2]:
            task.cancel()
        await asyncio.sleep(0)
        await database.close()
        await asyncio.gather(*tasks, return_exceptions=True)
        other = await place.open()
        assert await other.read("SELECT count(*) FROM things") == [(100,)]


class TestClosing:
    async def test_a_database_that_is_not_open_says_so(self, place: Place, tmp_path: Path) -> None:
        database = database_for(place.url, tmp_path)
        for _ in range(2):
            with pytest.raises(StoreError, match=r"open|closed"):
                await database.run(("SELECT 1", ()))
            with pytest.raises(StoreError, match=r"open|closed"):
                await database.read("SELECT 1")
            await database.close()
        await database.open()
        assert await database.read("SELECT 1") == [(1,)]
        await database.close()
        with pytest.raises(StoreError):
            await database.run(("SELECT 1", ()))
        await database.close()


class TestOpening:
    async def test_what_was_written_is_there_after_a_restart(self, place: Place) -> None:
        database = await place.open()
        await database.run(TABLE, insert(1, "kept"))
        await database.close()
        database = await place.open()
        assert await database.read("SELECT word FROM things") == [("kept",)]

    async def test_many_may_open_a_new_one_at_once(self, place: Place) -> None:
        databases = await asyncio.gather(*(place.open() for _ in range(8)))
        for database in databases:
            assert await database.read("SELECT count(*) FROM jobs") == [(0,)]
        assert await databases[0].read("SELECT version FROM schema_version ORDER BY version") == [
            (number,) for number in range(1, len(STEPS) + 1)
        ]

    async def test_the_tables_of_a_newer_version_stop_the_start(self, place: Place) -> None:
        database = await place.open()
        await database.run(("INSERT INTO schema_version (version) VALUES (99)", ()))
        await database.close()
        with pytest.raises(
            StoreUnusable, match=f"newer imagegate .*version 99, this one knows {len(STEPS)}"
        ) as refused:
            await place.open()
        assert "\n" not in str(refused.value)

    async def test_an_empty_url_means_a_file_in_the_data_folder(self, tmp_path: Path) -> None:
        database = await open_database("", tmp_path / "new")
        assert database.label == "SQLite"
        await database.close()
        assert (tmp_path / "new" / "imagegate.db").exists()

    @pytest.mark.parametrize(
        "url",
        [
            "mysql://user:hunter2@host/db",
            "postgresql+asyncpg://user:hunter2@host/db",
            "hunter2",
            "user:hunter2@host/db",
            "hunter2@://",
            "sqlite://hunter2/relative",
            "sqlite://",
            "sqlite:///",
            "sqlite:////tmp/x?hunter2=1",
            "sqlite:///tmp/x#hunter2",
            "sqlite:///tmp/%00hunter2",
            "sqlite://[hunter2/x",
        ],
    )
    async def test_a_url_that_cannot_be_one_is_named_by_its_form_alone(self, url: str, tmp_path: Path) -> None:
        with pytest.raises(ValueError, match="sqlite:///path/to/file or postgresql://") as refused:
            database_for(url, tmp_path)
        assert "hunter2" not in str(refused.value)
        assert refused.value.__cause__ is None

    @pytest.mark.parametrize(
        "url",
        [
            "postgresql://user:hun/ter2@host/db",
            "postgresql://user:hunter2@host:port/db",
            "postgresql://user:hunter2@[host/db",
            "postgresql://user:hunter2@127.0.0.1:1/db",
            "postgres://user:hunter2@host.invalid/db",
            "postgresql://user:hunter2@127.0.0.1:1/db?sslmode=hunter2",
            "postgresql://user:hunter2@127.0.0.1:1/db?sslmode=verify-full&sslrootcert=/hunter2",
        ],
    )
    async def test_what_is_wrong_with_a_servers_url_is_said_without_it(self, url: str, tmp_path: Path) -> None:
        with pytest.raises((StoreUnusable, StoreError)) as refused:
            await open_database(url, tmp_path)
        assert "ter2" not in str(refused.value)


def test_a_start_without_postgresql_does_not_pay_for_its_driver() -> None:
    code = "import sys, app.store.db, app.store.jobs, app.store.sqlite; sys.exit('asyncpg' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
